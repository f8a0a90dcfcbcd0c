"""A series as a chart: values over commits with their intervals, means of the segments, and steps as dashed lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genbench.report.charts import Chart, axis_of, chart_text, layout_of
from genbench.report.names import arrow, format_measured
from genbench.report.series.data import Point, Series, Step
from genbench.report.series.text import change_text, series_summary

HEIGHT = 260
_ASIDE = 1 / 1024
"""Added to positions between labels: plotly takes a number that is also a label ("0.5") for the label's place."""


def series_charts(series: Sequence[Series], colours: dict[str, int] | None = None) -> list[Chart]:
    """One chart a series, with ids that count from 0. colours: number in the palette by family, by default 0."""
    return [series_chart(one, index, (colours or {}).get(one.family, 0)) for index, one in enumerate(series)]


def series_chart(series: Series, index: int, colour: int = 0) -> Chart:
    """The chart ``chart-series-INDEX``; a gap is a gap of the line, with its reason in the alternative text."""
    ways = sorted({point.measured for point in series.points if point.value is not None})
    data = [_trace(series, way, colour) for way in ways]
    lines = [_mean_line(series, k) for k in range(len(series.segments))]
    lines += [_step_line(step) for step in series.steps]
    labels = [chart_text(point.label) for point in series.points]
    ends = [-0.5 - _ASIDE, len(labels) - 0.5 + _ASIDE]
    x_axis = axis_of(
        "", type="category", categoryorder="array", categoryarray=labels, range=ends, nticks=14, showgrid=False
    )
    y_axis = axis_of(chart_text(f"{series.title} {arrow(series.metric.higher_is_better)}".strip()), nticks=5)
    y_axis |= {"type": "log", "exponentformat": "SI"} if _is_logarithmic(series) else {}
    notes = [_step_note(series, step, k) for k, step in enumerate(series.steps)]
    margin = {"l": 8, "r": 12, "t": 40 if len(notes) > 1 else 26 if notes else 12, "b": 8}
    layout = layout_of(HEIGHT, x_axis, y_axis, shapes=lines, annotations=notes) | {"margin": margin}
    title = f"{series.row}: {series.title}"
    return Chart(f"chart-series-{index}", title, _alt(series), HEIGHT, data, layout)


def _alt(series: Series) -> str:
    gaps = [f"no value at {point.label}: {point.reason}." for point in series.points if point.value is None]
    told = [f"{series.title} of {series.row} over {series.points[0].label} to {series.points[-1].label}:"]
    return " ".join([*told, series_summary(series), *(step.text for step in series.steps), *gaps])


def _is_logarithmic(series: Series) -> bool:
    values = [point.value for point in series.points if point.value is not None]
    return min(values) > 0 and max(values) > 20 * min(values)


def _trace(series: Series, way: int, colour: int) -> dict[str, Any]:
    here = [point.value is not None and point.measured == way for point in series.points]
    shade = f"--c{colour}" if way == 0 else "--muted"
    values = [point.value if shown else None for point, shown in zip(series.points, here, strict=True)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": chart_text(series.title) if way == 0 else f"measured otherwise ({way})",
        "x": [chart_text(point.label) for point in series.points],
        "y": values,
        "connectgaps": False,
        "line": {"color": shade, "width": 1},
        "marker": {"color": shade, "size": 7, "symbol": "circle" if way == 0 else "circle-open"},
        "error_y": _error_bars(series, here, shade),
        "customdata": [_hover(series, point) for point in series.points],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _error_bars(series: Series, here: Sequence[bool], shade: str) -> dict[str, Any]:
    halves = [_halves(point, _is_logarithmic(series)) if shown else None for point, shown in zip(series.points, here)]
    return {
        "type": "data",
        "symmetric": False,
        "array": [None if half is None else half[1] for half in halves],
        "arrayminus": [None if half is None else half[0] for half in halves],
        "color": shade,
        "thickness": 1.2,
        "width": 3,
    }


def _halves(point: Point, logarithmic: bool) -> tuple[float, float] | None:
    """Length of the error bar below and above; on a logarithmic axis it ends above 0."""
    if point.value is None or point.ci95 is None:
        return None
    low, high = point.ci95
    low = max(low, 0.02 * point.value) if logarithmic else low
    return max(0.0, point.value - low), max(0.0, high - point.value)


def _hover(series: Series, point: Point) -> str:
    if point.value is None:
        return ""
    value, interval = format_measured(series.metric.name, point.value, point.ci95)
    lines = [f"<b>{chart_text(point.label)}</b>", chart_text(f"{value} {interval}".strip())]
    lines.append(chart_text(point.created.replace("T", " ").replace("+00:00", " UTC")))
    lines.append(f"{len(point.seeds)} {'seed' if len(point.seeds) == 1 else 'seeds'}")
    return "<br>".join(lines)


def _mean_line(series: Series, number: int) -> dict[str, Any]:
    segment = series.segments[number]
    way = series.points[segment.first].measured
    ends = {"x0": segment.first - 0.375 - _ASIDE, "x1": segment.last + 0.375 + _ASIDE}
    level = {"y0": segment.mean, "y1": segment.mean}
    line = {"color": "--text" if way == 0 else "--muted", "width": 1.5}
    return {"type": "line", "xref": "x", "yref": "y", **ends, **level, "line": line, "layer": "below"}


def _step_line(step: Step) -> dict[str, Any]:
    line = {"color": _shade(step), "width": 1.5, "dash": "dash"}
    return {"type": "line", "xref": "x", "yref": "paper", **_place(step), "y0": 0, "y1": 1, "line": line}


def _place(step: Step) -> dict[str, float]:
    return {"x0": step.index - 0.5 + _ASIDE, "x1": step.index - 0.5 + _ASIDE}


def _shade(step: Step) -> str:
    return "--muted" if step.verdict == "changed" else "--text"


def _step_note(series: Series, step: Step, number: int) -> dict[str, Any]:
    change, _ = change_text(series.metric, step.change, step.ci95)
    return {
        "xref": "x",
        "x": step.index - 0.5 + _ASIDE,
        "yref": "paper",
        "y": 1,
        "yanchor": "bottom",
        "yshift": 14 * (number % 2),
        "xanchor": "center" if step.index < len(series.points) - 1 else "right",
        "text": chart_text(f"{change} ({step.verdict})"),
        "showarrow": False,
        "font": {"size": 11, "color": _shade(step)},
    }
