"""The findings of a run in a sentence and a few key figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genbench.record import MetricResult, Record
from genbench.report.audit import audit, catches, listing
from genbench.report.ranking import kind_of_rank
from genbench.report.tables import CEILING, Column, column_standing, columns, interval_text, value_text

KEY_FIGURES = (
    ("fid", "Lowest FID", ""),
    ("bits_per_dim", "Fewest bits/dim", ""),
    ("nats_per_image", "Fewest nats", "an image"),
    ("images_per_second", "Fastest sampler", "images/s"),
)

_WORDS = {"bits_per_dim": "bits/dim", "nats_per_image": "nats an image"}
_KINDS = ("", "exact", "upper_bound", "lower_bound", "estimate")
_LESS_SURE = ("lower_bound", "estimate")
_KIND_WORDS = {"exact": "exact values", "upper_bound": "bounds", "lower_bound": "bounds", "estimate": "estimates"}


@dataclass(frozen=True)
class KeyFigure:
    """A figure at the top of the report."""

    title: str
    value: str
    unit: str
    row: str
    note: str


@dataclass(frozen=True)
class _Lead:
    """Who leads in a column: positions of the best and of those that tie with them, and the leader's result.

    kind: "bounds", "estimates" or "exact values", where rows of other kinds stand beside; else nothing.
    """

    best: list[int]
    tied: list[int]
    metric: MetricResult
    kind: str = ""


def _lead(records: Sequence[Record], column: Column) -> _Lead | None:
    """Of likelihoods the lead among the kind that the smallest exact value or bound is of, else among estimates: a row
    is at most as bad as its bound."""
    rank = column_standing(records, column)
    found = {position: column.of(record) for position, record in enumerate(records) if not record.control}
    shown = {position: metric for position, metric in found.items() if metric is not None and metric.value is not None}
    kinds = {position: kind_of_rank(metric) for position, metric in shown.items()}
    several = len(set(kinds.values())) > 1
    alone = [p for p, kind in kinds.items() if several and list(kinds.values()).count(kind) == 1]
    best = sorted({*map(int, rank.best), *alone})
    if not best:
        return None
    kind = kinds[min(best, key=lambda p: (kinds[p] in _LESS_SURE, shown[p].value or 0.0, _KINDS.index(kinds[p])))]
    best = [position for position in best if kinds[position] == kind]
    tied = [int(key) for key in sorted(rank.tied, key=int) if kinds[int(key)] == kind]
    return _Lead(best, tied, shown[best[0]], _KIND_WORDS.get(kind, "") if several else "")


def key_figures(records: Sequence[Record], names: Sequence[str]) -> list[KeyFigure]:
    """The best model in a few metrics, with its interval and the rows that tie with it. names: of the records."""
    figures = []
    for metric_name, title, unit in KEY_FIGURES:
        for column in [c for c in columns(records) if c.name == metric_name][:1]:
            lead = _lead(records, column)
            if lead is None:
                continue
            tied = [names[other] for other in (*lead.best[1:], *lead.tied)]
            note = f"tied with {listing(tied)}" if tied else interval_text(lead.metric)
            note = "; ".join(text for text in (f"among {lead.kind}" if lead.kind else "", note) if text)
            figures.append(KeyFigure(title, value_text(lead.metric), unit, names[lead.best[0]], note))
    return figures


def sentence(records: Sequence[Record], names: Sequence[str]) -> str:
    """One sentence: who leads in FID and in likelihood, what was memorised, what the audit missed, what failed."""
    parts = [*_leaders(records, names), *_memorised(records, names)]
    audited = audit(records, names)
    if audited is not None:
        if audited.missed:
            parts.append(f"in the audit {listing(audited.missed)}")
        elif audited.untested:
            parts.append(f"the audit could not test {listing(audited.untested)}")
        elif audited.made:
            parts.append("every control was caught by the metrics that had to catch it")
    failed = [label for record, label in zip(records, names, strict=True) if record.status == "failed"]
    if failed:
        parts.append(f"{listing(failed)} failed")
    models = len({record.row for record in records if not record.control})
    among = f"Among {models} models" if models != 1 else "For the one model"
    return f"{among}, {'; '.join(parts)}." if parts else "Nothing was measured."


def _leaders(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    parts = []
    for name, words in (
        ("fid", "the lowest {}"),
        ("bits_per_dim", "the fewest {}"),
        ("nats_per_image", "the fewest {}"),
    ):
        for column in [c for c in columns(records) if c.name == name][:1]:
            lead = _lead(records, column)
            if lead is None:
                continue
            what = words.format(_WORDS.get(name, column.label))
            what += f" among {lead.kind}" if lead.kind else ""
            part = f"{names[lead.best[0]]} has {what} ({value_text(lead.metric)}{_ceiling(records, column)})"
            others = [names[other] for other in (*lead.best[1:], *lead.tied)]
            parts.append(part + (f", tied with {listing(others)}" if others else ""))
    return parts


def _ceiling(records: Sequence[Record], column: Column) -> str:
    for record in records:
        metric = column.of(record) if record.control and record.model == CEILING and record.status == "ok" else None
        if metric is not None and metric.value is not None:
            return f"; the test split itself has {value_text(metric)}"
    return ""


def _memorised(records: Sequence[Record], names: Sequence[str]) -> list[str]:
    measured = [
        (name, m)
        for r, name in zip(records, names, strict=True)
        if not r.control and (m := r.find("memorised_share")) and m.value is not None
    ]
    if not measured:
        return []
    ceiling = next((r.find("memorised_share") for r in records if r.control and r.model == CEILING), None)
    flagged = [name for name, metric in measured if catches(metric, ceiling)]
    if not flagged:
        return ["no model seems to memorise"]
    return [f"{listing(flagged)} {'shows' if len(flagged) == 1 else 'show'} signs of memorised training images"]
