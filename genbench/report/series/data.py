"""A metric over commits as data: what the chart, the tables and the page of a series are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genbench.record import MetricResult
from genbench.report.series.steps import Segment

Verdict = Literal["better", "worse", "changed"]


@dataclass(frozen=True)
class Point:
    """One commit. value: None of a gap, with its reason. created: of its first record, UTC, ISO 8601.

    measured: points of one number were measured alike; 0 is how the last point was.
    """

    label: str
    commit: str | None
    created: str
    value: float | None
    ci95: tuple[float, float] | None = None
    seeds: tuple[int, ...] = ()
    reason: str | None = None
    measured: int = 0


@dataclass(frozen=True)
class Step:
    """A lasting change. index: of the first point after it; before: label of the last point with a value before it."""

    index: int
    label: str
    before: str
    change: float
    ci95: tuple[float, float]
    p: float
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Series:
    """One metric of one row over its points. segments: by index of the points, in order of their first one."""

    suite: str
    row: str
    title: str
    metric: MetricResult
    points: tuple[Point, ...]
    segments: tuple[Segment, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    family: str
    control: bool


@dataclass(frozen=True)
class History:
    """All series of a metric. points: number of commits. notes: records that were left out, and why."""

    metric: str
    alpha: float
    points: int
    series: tuple[Series, ...]
    notes: tuple[str, ...]
