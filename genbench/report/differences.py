"""Differences of rows from a baseline row, each with its interval and what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from genbench.check.collect import Entry
from genbench.check.evidence import Identity, Measurement, evidence, first_unlike, measurements
from genbench.check.speed import LEAST_GIVEN, SPEED_METRICS, given
from genbench.errors import UsageError, unknown
from genbench.report.names import DASH, change_text, difference_text
from genbench.report.rows import Row
from genbench.report.speeds import speed_change
from genbench.report.tables import UNRANKED, Column, columns

Verdict = Literal["better", "worse", "same within noise", "different", "equal", "no interval", "not comparable"]
SPEEDS = "Of speeds: the change in per cent of the baseline, of medians at one pace of the machine where that is known."
TOO_LARGE = "their difference is too large for a number"


@dataclass(frozen=True)
class Difference:
    """One metric of a row minus its baseline's; of a speed the change as a share of the baseline's (``is_share``).

    reason: how the interval was had, or why there is no difference. absent: whether there is none because either has no
    value.
    """

    verdict: Verdict
    value: float | None = None
    ci95: tuple[float, float] | None = None
    text: str = DASH
    interval: str = ""
    reason: str = ""
    absent: bool = False
    is_share: bool = False


@dataclass(frozen=True)
class DifferenceRow:
    """A row held against its baseline, one cell a column."""

    label: str
    against: str
    row: Row
    cells: list[Difference]


@dataclass(frozen=True)
class Differences:
    """title: what the rows are held against. without: labels of rows that have no baseline."""

    title: str
    columns: list[Column]
    rows: list[DifferenceRow]
    without: list[str]

    @property
    def shown(self) -> Differences:
        """Without the columns in which no row can be compared."""
        kept = [i for i in range(len(self.columns)) if any(row.cells[i].value is not None for row in self.rows)]
        rows = [replace(row, cells=[row.cells[i] for i in kept]) for row in self.rows]
        return replace(self, columns=[self.columns[i] for i in kept], rows=rows)

    @property
    def remarks(self) -> list[str]:
        """Which rows are not in it, and which values that are there cannot be compared, and why."""
        why: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            for column, cell in zip(self.columns, row.cells, strict=True):
                if cell.value is None and not cell.absent:
                    why.setdefault((column.title, cell.reason), []).append(row.label)
        without = [f"Nothing to hold against: {', '.join(self.without)}."] if self.without else []
        return [*without, *(f"{title} of {', '.join(rows)}: {reason}." for (title, reason), rows in why.items())]

    def why_without(self, row: Row) -> str:
        """Why a row that is not among `rows` has no differences."""
        if row.record.status == "failed":
            return f"the row failed: {row.record.reason}"
        return "nothing to hold it against" if row.label in self.without else "it is the baseline"


def difference(baseline: Sequence[Entry], candidate: Sequence[Entry], identity: Identity) -> Difference:
    """candidate - baseline in one metric, means over seeds; see `genbench.check.evidence` for its interval, and
    `genbench.report.speeds` for speeds.
    """
    sides = [measurements(entries, identity) for entries in (baseline, candidate)]
    missing = [name for name, side in zip(("the baseline", "this row"), sides, strict=True) if not side]
    if missing:
        has = "has" if len(missing) == 1 else "have"
        return Difference("not comparable", reason=f"{' and '.join(missing)} {has} no value of it")
    unlike = first_unlike([*sides[0], *sides[1]])
    if unlike is not None:
        return Difference("not comparable", reason=unlike)
    metric = sides[0][0][1]
    if metric.name in SPEED_METRICS:
        return _of_speeds(sides)
    with np.errstate(over="ignore", invalid="ignore"):
        found = evidence(sides[0], sides[1])
    means = [sum(m.value for _, m in side if m.value is not None) / len(side) for side in sides]
    value = means[1] - means[0] if found is None else found.value
    ci95 = None if found is None or found.exact else found.ci95
    if not all(map(math.isfinite, (value, *(ci95 or ())))):
        return Difference("not comparable", reason=TOO_LARGE)
    text, interval = difference_text(metric.name, value, ci95)
    reason = "a value without an interval" if found is None else found.method
    verdict: Verdict = "no interval" if found is None else _verdict(value, ci95, metric.higher_is_better)
    return Difference(verdict, value, ci95, text, interval, reason)


def _of_speeds(sides: Sequence[Sequence[Measurement]]) -> Difference:
    """Speeds differ as `genbench check` sees them: at one pace of the machine, where the records know it."""
    before, after = ([entry for entry, _ in side] for side in sides)
    metric = sides[0][0][1]
    for who, side in (("the baseline", before), ("this row", after)):
        if given(side) < LEAST_GIVEN:
            return Difference("not comparable", reason=f"{who} was timed while others held the processor")
    found = speed_change(before, after, metric.name)
    if found is None:
        return Difference("not comparable", reason="there are no timing windows")
    if not math.isfinite(found.share):
        return Difference("not comparable", reason=TOO_LARGE)
    text, interval = change_text(found.share, found.ci95)
    reason = "by medians" + (" at the machine's pace" if found.paced else "")
    verdict: Verdict = "no interval"
    if found.ci95 is not None:
        verdict = _verdict(found.share, found.ci95, metric.higher_is_better)
    return Difference(verdict, found.share, found.ci95, text, interval, reason, is_share=True)


def _verdict(value: float, ci95: tuple[float, float] | None, higher_is_better: bool | None) -> Verdict:
    if value == 0 and ci95 is None:
        return "equal"
    if ci95 is not None and ci95[0] <= 0 <= ci95[1]:
        return "same within noise"
    if higher_is_better is None:
        return "different"
    return "better" if (value > 0) == higher_is_better else "worse"


def differences(rows: Sequence[Row], name: str) -> Differences | None:
    """Rows held against the row called ``name``, or each against the same row of the source called so; None where
    neither is among ``rows``.
    """
    chosen = [row for row in rows if name in (row.label, row.record.row)]
    fixed = next((row for row in chosen if row.label == name), chosen[0] if len(chosen) == 1 else None)
    of_source = {row.record.row: row for row in rows if row.is_from(name)}
    if fixed is None and not of_source:
        return None
    shown = [column for column in columns([row.record for row in rows]) if column.name != UNRANKED]
    made, without = [], []
    for row in rows:
        partner = fixed if fixed is not None else of_source.get(row.record.row)
        if partner is row or (partner is not None and row.record.status == "failed"):
            continue
        if partner is None or partner.record.status == "failed":
            without.append(row.label)
            continue
        cells = [_cell(partner, row, column) for column in shown]
        made.append(DifferenceRow(row.label, partner.label, row, cells))
    return Differences(name, shown, made, without)


def _cell(baseline: Row, row: Row, column: Column) -> Difference:
    """By the estimator that the baseline quotes."""
    metric = column.of(baseline.record)
    if metric is None or metric.value is None:
        reason = None if metric is None else metric.reason
        return Difference("not comparable", reason=reason or "the baseline does not have it", absent=True)
    mine = column.of(row.record)
    if mine is None or mine.value is None:
        reason = None if mine is None else mine.reason
        return Difference("not comparable", reason=reason or "this row does not have it", absent=True)
    identity = (metric.name, metric.estimator, metric.extractor)
    if mine.estimator != metric.estimator and not measurements(row.entries, identity):
        return Difference("not comparable", reason=f"estimator: {metric.estimator} against {mine.estimator}")
    return difference(baseline.entries, row.entries, identity)


def check_baseline(name: str, suites: Sequence[Sequence[Row]]) -> None:
    """Refuse a baseline that no suite has, or that names several rows of one.

    Raises:
        UsageError: ``name`` is neither a row nor a source of any, or not one row.
    """
    if any(differences(rows, name) is not None for rows in suites):
        return
    several = [row.label for rows in suites for row in rows if row.record.row == name]
    if several:
        raise UsageError(
            f"--baseline {name}: {len(several)} rows are called so. Name one of them: {', '.join(several)}."
        )
    joined = [row.label for rows in suites for row in rows if any(part.source.name == name for part in row.parts)]
    if joined:
        raise UsageError(
            f"--baseline {name}: its seeds were joined with another source's ({', '.join(joined)}): no row is of it "
            "alone. Compare sources that have the same seeds, or other configs."
        )
    labels = [row.label for rows in suites for row in rows]
    names = [part.source.name for rows in suites for row in rows for part in row.parts]
    raise unknown("row or source of the report", name, sorted({*labels, *names}))
