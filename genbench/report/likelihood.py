"""Likelihoods side by side, what is exact apart from bounds and estimates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from genbench.record import MetricResult, Record
from genbench.report.names import DASH, LIKELIHOODS, display, format_measured, mark
from genbench.report.sheet import Sheet

KIND_LABELS = {"exact": "exact", "upper_bound": "bound", "estimate": "estimate"}
"""Kinds of -log P, in the order of the table, in one word each."""
HEADINGS = {"exact": "Exact", "upper_bound": "Upper bounds", "estimate": "Estimates"}
PREFERRED = ("nats_per_image", "bits_per_dim")


@dataclass(frozen=True)
class LikelihoodCell:
    """One number as shown; ``failed`` holds the reason where an estimator gave none."""

    text: str = DASH
    interval: str = ""
    failed: str = ""


@dataclass(frozen=True)
class LikelihoodRow:
    """A record's likelihoods, one cell a column of the table."""

    label: str
    record: Record
    cells: list[LikelihoodCell]


@dataclass(frozen=True)
class LikelihoodTable:
    """title: of the metric. columns: (kind, estimator) by kind. rows: best first. without: labels of models that have
    no likelihood of images."""

    title: str
    columns: Sequence[tuple[str, str]]
    rows: list[LikelihoodRow]
    without: list[str] = field(default_factory=list)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Heading and number of columns of each kind, in order."""
        counts = {kind: sum(column[0] == kind for column in self.columns) for kind in HEADINGS}
        return [(HEADINGS[kind], count) for kind, count in counts.items() if count]

    @property
    def remark(self) -> str:
        """Which models are not in it; nothing where all are."""
        return f"No likelihood of images: {', '.join(self.without)}." if self.without else ""


def kind_note(metric: MetricResult) -> str:
    """``"exact"``, ``"bound · iwae-500"`` or ``"estimate · ais-forward"``."""
    word = KIND_LABELS.get(metric.kind, metric.kind)
    return word if metric.estimator in ("", word) else f"{word} · {metric.estimator}"


def likelihood_table(records: Sequence[Record], names: Sequence[str]) -> LikelihoodTable | None:
    """The likelihoods of ``records`` (labelled by ``names``), in nats per image where there are such; None without any.

    An estimator that failed stands among the estimates, with its reason.
    """
    present = {m.name for record in records for m in record.metrics if m.status == "ok" and m.name in LIKELIHOODS}
    name = next((name for name in PREFERRED if name in present), None)
    if name is None:
        return None
    found = [[m for m in record.metrics if m.name == name and _has_estimator(m)] for record in records]
    columns = sorted({(m.kind, m.estimator) for metrics in found for m in metrics}, key=_column_order)
    rows = [
        (_standing(metrics), LikelihoodRow(label, record, [_cell(metrics, column) for column in columns]))
        for record, label, metrics in zip(records, names, found, strict=True)
        if metrics
    ]
    without = [
        label
        for record, label in zip(records, names, strict=True)
        if record.status == "ok" and not record.control and record.variant is None and not _has_likelihood(record)
    ]
    return LikelihoodTable(
        display(name, None), columns, [row for _, row in sorted(rows, key=lambda pair: pair[0])], without
    )


def _has_estimator(metric: MetricResult) -> bool:
    return metric.status == "ok" or (metric.status == "failed" and bool(metric.estimator))


def _column_order(column: tuple[str, str]) -> tuple[int, str, int]:
    kind, estimator = column
    stem, number = re.fullmatch(r"(.*?)(\d*)", estimator).groups()  # type: ignore[union-attr]
    return list(HEADINGS).index(kind), stem, int(number or 0)


def _has_likelihood(record: Record) -> bool:
    return any(m.name in LIKELIHOODS and _has_estimator(m) for m in record.metrics)


def _standing(metrics: Sequence[MetricResult]) -> float:
    """The value that a row is ordered by: the exact one, else the least bound, else the largest estimate (of an
    annealed pair one side errs in the model's favour)."""
    for kind, choose in (("exact", min), ("upper_bound", min), ("estimate", max)):
        values = [m.value for m in metrics if m.kind == kind and m.value is not None]
        if values:
            return float(choose(values))
    return float("inf")


def _cell(metrics: Sequence[MetricResult], column: tuple[str, str]) -> LikelihoodCell:
    metric = next((m for m in metrics if (m.kind, m.estimator) == column), None)
    if metric is None:
        return LikelihoodCell()
    if metric.value is None:
        return LikelihoodCell(failed=metric.reason or "failed")
    value, interval = format_measured(metric.name, metric.value, metric.ci95)
    return LikelihoodCell(f"{mark(metric.name, metric.kind)} {value}".strip(), interval)


def likelihood_sheet(found: LikelihoodTable) -> Sheet:
    """The likelihoods as a table, one column an estimator, its kind in the head."""
    heads = [f"{HEADINGS[kind]}: {estimator}".replace("Exact: exact", "Exact") for kind, estimator in found.columns]
    rows = [
        [row.label, *(f"no number: {c.failed}" if c.failed else f"{c.text} {c.interval}".strip() for c in row.cells)]
        for row in found.rows
    ]
    note = (
        "Of the test images; lower is better. What is exact stands apart from bounds (the truth is at or below them)\n"
        "and from estimates (which may err to either side). Intervals: 95 %, of test images and seeds."
    )
    return Sheet(f"{found.title}, by kind", ["System", *heads], rows, 1, note, [found.remark] if found.remark else [])
