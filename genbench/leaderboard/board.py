"""A leaderboard as data: what the page, the tables and `genbench leaderboard diff` are made of.

`Board.as_dict` is the JSON that the page holds. Every text in it may come from a record and is untrusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from genbench.record import MetricKind

Tier = Literal["self-run", "reproduced", "reported"]
TIERS: dict[Tier, str] = {
    "reproduced": "measured, and measured again by `genbench leaderboard verify`; ✓ marks the values that were",
    "self-run": "measured by whoever handed the record in",
    "reported": "as a paper or a project gives it, with its source; nothing of it was measured here",
}
CellStatus = Literal["ok", "not_applicable", "failed"]


@dataclass(frozen=True)
class Metric:
    """A column. key: unique and URL-safe. label: with the extractor. group: quality, likelihood, reconstruction, cost
    or other. groups: what its groups of cells were measured with, in words, by id of the group."""

    key: str
    label: str
    unit: str
    higher_is_better: bool | None
    group: str
    meaning: str
    name: str
    extractor: str
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One metric of one row: the mean over its seeds.

    low, high: 95 % interval of ``value``, None where it has none. text, interval: both as shown. group: short id of
    what must be equal for two cells to rank together. rank: best and worst rank that the intervals leave open, None
    where it is not ranked. seeds: each seed's value, None of one that is not in the mean. spread: their standard
    deviation. reason: why there is no value; beside a value, what is to be said of it (seeds that are not in it, the
    protocol of a published one). reproduced: measured again with the same outcome, in every seed.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    kind: MetricKind = "estimate"
    estimator: str = ""
    text: str = "–"
    interval: str = ""
    group: str = ""
    rank: tuple[int, int] | None = None
    seeds: Sequence[float | None] = ()
    spread: float | None = None
    status: CellStatus = "ok"
    reason: str = ""
    confirmed: bool = True
    reproduced: bool = False


@dataclass(frozen=True)
class Row:
    """A system: a model and a variant of its sampler with all its seeds, or a published result.

    id: stable, unique, URL-safe. parameters: learned numbers, None where not known. confirmed: False where a published
    value was not checked at its source. card: Markdown. grid: a ``data:`` URI. record: path of the first seed's record
    from the leaderboard's folder. verified: by whom, when and from what it was measured again. cells: by `Metric.key`;
    a metric that a row does not have is not there.
    """

    id: str
    label: str
    model: str
    variant: str
    family: str
    tier: Tier
    control: bool
    devices: Sequence[str]
    extractors: Sequence[str]
    seeds: Sequence[int]
    parameters: int | None
    training_seconds: float | None
    source: str
    confirmed: bool
    card: str
    grid: str
    record: str
    cells: dict[str, Cell]
    verified: str = ""

    @property
    def device(self) -> str:
        """All devices of its seeds, as text."""
        return ", ".join(self.devices)

    @property
    def extractor(self) -> str:
        """All extractors of its metrics, as text."""
        return ", ".join(self.extractors)


@dataclass(frozen=True)
class Pareto:
    """Rows that no comparable row surely beats in both: a metric of quality, and images/s or parameters.

    quality, cost: keys of metrics. groups: those of the cells that were held against each other.
    """

    quality: str
    cost: str
    groups: tuple[str, str]
    rows: Sequence[str]


@dataclass(frozen=True)
class Board:
    """A suite's leaderboard. generated: UTC date. rules: text of rules.md."""

    suite: str
    title: str
    description: str
    generated: str
    genbench_version: str
    rules: str
    metrics: Sequence[Metric] = ()
    rows: Sequence[Row] = ()
    pareto: Sequence[Pareto] = field(default_factory=tuple)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON values; no number is NaN or infinite."""
        return asdict(self)

    def metric(self, key: str) -> Metric:
        """The column of a key."""
        return next(metric for metric in self.metrics if metric.key == key)
