"""The report of a metric over commits, as a page and as text."""

from __future__ import annotations

from collections.abc import Callable

from genbench.report.charts import Chart
from genbench.report.names import metric_name
from genbench.report.page import render
from genbench.report.series.chart import series_charts
from genbench.report.series.data import History, Series
from genbench.report.series.text import method_text, point_table, series_summary, step_table
from genbench.report.sheet import Sheet, document


def sentence(history: History) -> str:
    """How many series over how many points, and how many steps of models and of controls."""
    models = [len(one.steps) for one in history.series if not one.control]
    controls = [len(one.steps) for one in history.series if one.control]
    told = f"{len(history.series)} series over {history.points} points: {_steps(sum(models))} of models"
    return told + (f", {_steps(sum(controls))} of controls." if controls else ".")


def _steps(count: int) -> str:
    return "no step" if not count else "1 step" if count == 1 else f"{count} steps"


def series_html(history: History) -> str:
    """The page: steps, a chart a series by suite, all points."""
    families = list(dict.fromkeys(one.family for one in history.series if not one.control))
    charts = series_charts(history.series, {family: i % 8 for i, family in enumerate(families)})
    groups: dict[str, list[tuple[Series, Chart]]] = {}
    for one, chart in zip(history.series, charts, strict=True):
        groups.setdefault(one.suite, []).append((one, chart))
    return render(
        "series.html",
        title=f"{metric_name(history.metric.split('.')[0]).label} over commits",
        lede=sentence(history),
        charts=charts,
        history=history,
        groups=list(groups.items()),
        steps=step_table(history.series),
        points=point_table(history.series),
        method=method_text(history.alpha),
        summary=series_summary,
    )


def series_text(suffix: str) -> Callable[[History], str]:
    """A writer of a history in the format of a suffix; as CSV it is the points alone."""

    def write(history: History) -> str:
        steps, points = step_table(history.series), point_table(history.series, short=suffix != ".csv")
        sheets = [Sheet("Points", points[0], points[1], len(points[0]))]
        if suffix != ".csv":
            notes = [["", "", "", note] for note in history.notes]
            notes += [[one.suite, one.row, one.title, note] for one in history.series for note in one.notes]
            sheets.insert(0, Sheet("Steps", steps[0], steps[1], len(steps[0]), method_text(history.alpha)))
            sheets += [Sheet("Notes", ["suite", "row", "metric", "note"], notes, 4)] if notes else []
        return document(f"{history.metric} over commits", sentence(history), [("", sheets)], suffix)

    return write
