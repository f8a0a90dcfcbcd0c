"""What is said of a series: its steps and its points as tables of plain strings, and the notes beside them.

The strings hold texts of records as they are: who puts them into a page or a file escapes them. Numbers of points are
`Data`: a CSV has them in full, in columns of their own, and what begins at a point beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from genbench.record import MetricResult
from genbench.report.names import DASH, difference_text, direction, format_measured, format_value, metric_name
from genbench.report.series.data import Point, Series, Verdict
from genbench.report.series.steps import Shift
from genbench.report.sheet import Data

Table = tuple[list[str], list[list[str]]]

STEP_HEADS = ["suite", "row", "metric", "at", "after", "change", "95 % interval", "p", "verdict", "note"]
POINT_HEADS = [
    "suite",
    "row",
    "metric",
    "point",
    "commit",
    "created",
    Data("value", "value", "unit"),
    Data("95 % interval", "ci95_low", "ci95_high", "reason"),
    "seeds",
    Data("segment mean", "segment_mean", "change", "change_low", "change_high", "p", "verdict"),
]
CONTROL = "a control: not a model changed, but the measurement (metric, extractor or data) or the sampling of controls"


def step_table(series: Sequence[Series]) -> Table:
    """Heads and rows of all steps, one a row, in order of the series and of their points."""
    rows = []
    for one in series:
        for step in one.steps:
            change, interval = change_text(one.metric, step.change, step.ci95)
            rows.append(
                [
                    one.suite,
                    one.row,
                    one.title,
                    step.label,
                    step.before,
                    change,
                    interval,
                    p_text(step.p),
                    step.verdict,
                    CONTROL if one.control else "",
                ]
            )
    return list(STEP_HEADS), rows


def point_table(series: Sequence[Series], *, short: bool = False) -> Table:
    """Heads and rows of all points, one a row; a gap has its reason in place of an interval.

    short: times to the minute, and no column of commits, whose first digits the points are called by.
    """
    heads = [head for head in POINT_HEADS if not short or head != "commit"]
    rows = []
    for one in series:
        for index, point in enumerate(one.points):
            rows.append(
                [
                    one.suite,
                    one.row,
                    one.title,
                    point.label,
                    *([] if short else [point.commit or ""]),
                    _minute(point.created) if short else point.created,
                    *_value_cells(one.metric, point),
                    ", ".join(map(str, point.seeds)),
                    _mean_cell(one, index),
                ]
            )
    return heads, rows


def _minute(created: str) -> str:
    """``"2026-11-01 03:00"``"""
    return created[:16].replace("T", " ")


def _value_cells(metric: MetricResult, point: Point) -> tuple[Data, Data]:
    if point.value is None:
        return Data(DASH, None, metric.unit), Data(point.reason or "", None, None, point.reason)
    value, interval = format_measured(metric.name, point.value, point.ci95)
    return Data(value, point.value, metric.unit), Data(interval, *(point.ci95 or (None, None)), None)


def _mean_cell(series: Series, index: int) -> Data:
    """The mean of the segment that a point is in, and the step that begins there."""
    mean = _mean(series, index)
    step = next((one for one in series.steps if one.index == index), None)
    began = (None,) * 5 if step is None else (step.change, *step.ci95, step.p, step.verdict)
    return Data(DASH if mean is None else format_value(series.metric.name, mean), mean, *began)


def _mean(series: Series, index: int) -> float | None:
    point = series.points[index]
    for segment in series.segments:
        if segment.first <= index <= segment.last and series.points[segment.first].measured == point.measured:
            return None if point.value is None else segment.mean
    return None


def series_summary(series: Series) -> str:
    """One line on a series: how many points, and what its last value stands at."""
    valued = [point for point in series.points if point.value is not None]
    last = valued[-1]
    shown, interval = format_measured(series.metric.name, last.value or 0.0, last.ci95)
    gaps = len(series.points) - len(valued)
    steps = len(series.steps)
    told = f"{len(valued)} {'point' if len(valued) == 1 else 'points'}"
    told += f" and {gaps} without a value" if gaps else ""
    found = "no step" if not steps else "1 step" if steps == 1 else f"{steps} steps"
    now = f"{shown} {interval}".strip()
    return f"{told}, {found}; {now} at {last.label} ({direction(series.metric.higher_is_better)})."


def method_text(alpha: float) -> str:
    """How steps were found, for the foot of a page."""
    return (
        f"A step is a lasting change of the mean beyond the values' own intervals and their scatter from point to "
        f"point, at level {alpha:g} for each series: of a hundred series in which nothing changed, at most a few show "
        "one. Intervals of changes are for a step at that place. Points are taken as independent, so that a slow drift "
        "is cut into steps; of fewer than three points nothing can be said."
    )


def verdict_of(metric: MetricResult, change: float) -> Verdict:
    """What a change says by the direction of its metric."""
    if metric.higher_is_better is None:
        return "changed"
    return "better" if (change > 0) == metric.higher_is_better else "worse"


def change_text(metric: MetricResult, change: float, ci95: tuple[float, float]) -> tuple[str, str]:
    """``"+0.40"`` and ``"[0.31, 0.49]"``; the interval of an exact change is empty."""
    return difference_text(metric.name, change, ci95 if _has_width(change, ci95) else None)


def _has_width(change: float, ci95: tuple[float, float]) -> bool:
    return ci95[1] - ci95[0] > 1e-6 * abs(change)


def p_text(p: float) -> str:
    """``"0.0042"``, or ``"< 0.0001"``."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def step_text(metric: MetricResult, row: str, control: bool, shift: Shift, place: tuple[str, str]) -> str:
    """A step as a sentence. place: labels of the first point after it and of the last one before."""
    change, interval = change_text(metric, shift.change, shift.ci95)
    measured = f"{metric_name(metric.name).label} of {row}: {change} {interval}".strip()
    told = f"{measured} at {place[0]}, after {place[1]} ({verdict_of(metric, shift.change)})"
    return f"{told}; {CONTROL}." if control else f"{told}."


def apart_text(label: str, metric: MetricResult, value: float) -> str:
    """The note of a point that was left out of the means."""
    shown = format_value(metric.name, value)
    return f"{label} stands apart from both of its sides ({shown}): no lasting change, and left out of the means."


def unlike_text(labels: str, difference: str) -> str:
    """The note of points that were measured in another way."""
    return (
        f"{labels}: measured unlike the last point ({difference}), and held against each other alone. "
        "Between there and the rest the measurement changed: that is no step."
    )


def joined_labels(labels: Sequence[str], indices: Sequence[int]) -> str:
    """Labels of points, neighbours as ``"a to b"``. indices: their places in the series."""
    parts: list[list[str]] = []
    for k, (label, index) in enumerate(zip(labels, indices, strict=True)):
        if k and index == indices[k - 1] + 1:
            parts[-1] = [parts[-1][0], label]
        else:
            parts.append([label])
    return ", ".join(" to ".join(part) for part in parts)
