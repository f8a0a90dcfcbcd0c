"""What changed between two runs of one model: settings, environment, training, and numbers with their differences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genbench.check.evidence import Identity
from genbench.errors import UsageError
from genbench.record import MetricResult, Record
from genbench.report.changes_chart import overlay_chart
from genbench.report.charts import Chart
from genbench.report.differences import Difference, difference
from genbench.report.names import DASH
from genbench.report.rows import Row, join_rows
from genbench.report.seeds import note_on_seeds
from genbench.report.sources import Source
from genbench.report.tables import columns, interval_text, value_text

Setting = tuple[str, str, str]
"""Name, before and after, as text; a dash where it is not there."""
_TRAINING = ("steps", "budget_steps", "best_step", "stopped_early", "diverged", "source", "parameters")
_TIMING = ("batch_size", "precision", "compiled", "device", "threads")


@dataclass(frozen=True)
class NumberChange:
    """One metric before and after, as shown. old, new: as recorded, means over seeds; None where there is none."""

    title: str
    estimator: str
    before: str
    after: str
    difference: Difference
    old: MetricResult | None
    new: MetricResult | None

    @property
    def verdict(self) -> str:
        """The verdict, with the reason where there is nothing to compare."""
        if self.difference.verdict == "not comparable":
            return f"not comparable: {self.difference.reason}"
        return self.difference.verdict


@dataclass(frozen=True)
class RowChanges:
    """One row of both. settings: those of this row alone. stages: whose content keys differ. left_out: seeds that are
    in no number, or not in all. chart: training curves."""

    label: str
    before: Row
    after: Row
    settings: list[Setting]
    stages: list[str]
    numbers: list[NumberChange]
    left_out: list[str]
    chart: Chart | None

    @property
    def unexplained(self) -> bool:
        """Whether stages have other keys though no setting of this row alone differs."""
        return bool(self.stages) and not self.settings


@dataclass(frozen=True)
class Changes:
    """a, b: names of both sides. shared: settings that changed alike in every row. only_a, only_b: rows of one side.
    notes: what was missing or damaged, and records that were there twice."""

    a: str
    b: str
    shared: list[Setting]
    rows: list[RowChanges]
    only_a: list[str]
    only_b: list[str]
    notes: list[str]

    @property
    def title(self) -> str:
        return f"{self.a} → {self.b}"

    @property
    def sentence(self) -> str:
        """What got better and worse, counted."""
        verdicts = [number.difference.verdict for row in self.rows for number in row.numbers]
        told = [f"{verdicts.count(v)} {v}" for v in ("worse", "better", "same within noise", "equal") if v in verdicts]
        settings = len(self.shared) + sum(len(row.settings) for row in self.rows)
        rows = f"{len(self.rows)} row{'s' if len(self.rows) != 1 else ''} of both"
        return f"{rows}: {', '.join(told) or 'no number to compare'}; {settings or 'no'} setting(s) changed."

    def account(self, row: RowChanges) -> str:
        """What is to be said of how a row was made, beside its settings; nothing where those say it all."""
        stages = ", ".join(row.stages)
        which = "of this row alone" if self.shared else "of this row"
        if row.unexplained:
            why = "a setting of all rows, the code or the data" if self.shared else "the code or the data"
            return f"No setting {which} changed, but its stages were made anew ({stages}): {why} changed."
        if row.stages:
            return f"Stages made anew: {stages}."
        return "" if row.settings else f"No setting {which} changed, and none of its stages was made anew."


def changes_of(a: Source, b: Source) -> Changes:
    """What changed from ``a`` to ``b``, in the rows that both have (or the one row of a model that each has).

    Raises:
        UsageError: no such row.
    """
    joined = [join_rows([source]) for source in (a, b)]
    before, after = ({(row.record.suite, row.label): row for row in rows} for rows, _ in joined)
    pairs = [(before[key], after[key]) for key in before if key in after]
    if not pairs and len(before) == len(after) == 1:
        one, other = next(iter(before.values())), next(iter(after.values()))
        if (one.record.suite, one.record.model) == (other.record.suite, other.record.model):
            pairs, before, after = [(one, other)], {}, {}
    if not pairs:
        raise UsageError(f"No row is in both: {_told(a, before)}, and {_told(b, after)}. Give two runs of one suite.")
    settings = [_settings(one.record, other.record) for one, other in pairs]
    shared = [s for s in settings[0] if len(pairs) > 1 and all(s in found for found in settings)]
    rows = [
        _row((a.name, b.name), one, other, [s for s in found if s not in shared], i)
        for i, ((one, other), found) in enumerate(zip(pairs, settings, strict=True))
    ]
    only_a, only_b = (
        [label for key, label in _labels(x) if key not in y] for x, y in ((before, after), (after, before))
    )
    notes = [
        f"{source.name}: {note}" for source, (_, twice) in zip((a, b), joined) for note in (*source.faults, *twice)
    ]
    return Changes(a.name, b.name, shared, rows, only_a, only_b, notes)


def _labels(rows: Mapping[tuple[str, str], Row]) -> list[tuple[tuple[str, str], str]]:
    return [(key, row.label) for key, row in rows.items()]


def _told(source: Source, rows: Mapping[tuple[str, str], Row]) -> str:
    suites = dict.fromkeys(suite for suite, _ in rows)
    labels = [label for _, label in rows]
    shown = ", ".join(labels[:8]) + (f" and {len(labels) - 8} more" if len(labels) > 8 else "")
    return f"{source.name} (suite {', '.join(suites)}) has {shown}"


def _row(names: tuple[str, str], before: Row, after: Row, settings: list[Setting], index: int) -> RowChanges:
    old, new = before.record, after.record
    label = before.label if before.label == after.label else f"{before.label} → {after.label}"
    stages = sorted(stage for stage in {*old.keys, *new.keys} if old.keys.get(stage) != new.keys.get(stage))
    if before.seeds != after.seeds:
        settings = [("seeds", ", ".join(map(str, before.seeds)), ", ".join(map(str, after.seeds))), *settings]
    chart = overlay_chart(old, new, label, index)
    numbers = _numbers(before, after)
    titles = [f"{number.title} ({number.estimator})" for number in numbers]
    left_out = [
        *_left_out(names[0], list(zip(titles, (number.old for number in numbers)))),
        *_left_out(names[1], list(zip(titles, (number.new for number in numbers)))),
    ]
    return RowChanges(label, before, after, settings, stages, numbers, left_out, chart)


def _left_out(name: str, metrics: Sequence[tuple[str, MetricResult | None]]) -> list[str]:
    """Which seeds of a side are not in the means of its numbers, and why. metrics: each with what it is called."""
    told: dict[str, list[str]] = {}
    for title, metric in metrics:
        if metric is not None and (note := note_on_seeds(metric)):
            told.setdefault(note, []).append(title)
    return [f"{name}, {', '.join(titles)}: {note}." for note, titles in told.items()]


def _numbers(before: Row, after: Row) -> list[NumberChange]:
    found: dict[Identity, tuple[MetricResult | None, MetricResult | None]] = {}
    for side, record in enumerate((before.record, after.record)):
        for column in columns([record]):
            for metric in record.metrics:
                if (metric.name, metric.extractor) == (column.name, column.extractor):
                    identity = (metric.name, metric.estimator, metric.extractor)
                    one, other = found.get(identity, (None, None))
                    found[identity] = (metric, other) if side == 0 else (one, metric)
    titles = {(c.name, c.extractor): c for c in columns([before.record, after.record])}
    made = []
    for identity, (old, new) in found.items():
        column = titles[identity[0], identity[2]]
        gap = difference(before.entries, after.entries, identity)
        title = f"{column.title} {column.arrow}".strip()
        made.append(NumberChange(title, identity[1], _value(old), _value(new), gap, old, new))
    return made


def _value(metric: MetricResult | None) -> str:
    if metric is None:
        return DASH
    if metric.value is None:
        return f"{metric.status.replace('_', ' ')}: {metric.reason}"
    return f"{value_text(metric)} {interval_text(metric)}".strip()


def _settings(a: Record, b: Record) -> list[Setting]:
    """Everything that a record states and that differs, flattened to dotted names."""
    before, after = _stated(a), _stated(b)
    names = list(dict.fromkeys((*before, *after)))
    return [
        (name, _text(before.get(name)), _text(after.get(name))) for name in names if before.get(name) != after.get(name)
    ]


def _stated(record: Record) -> dict[str, Any]:
    training = record.training.model_dump(include=set(_TRAINING)) if record.training else {}
    timing = record.timing.model_dump(include=set(_TIMING)) if record.timing else {}
    return {
        **flattened(record.config),
        **flattened(record.dataset.model_dump(), "dataset."),
        **flattened({name: training[name] for name in _TRAINING if name in training}, "training."),
        **flattened({name: timing[name] for name in _TIMING if name in timing}, "timing."),
        **flattened(record.environment, "environment."),
        "genbench": record.genbench_version,
        "status": record.status if record.reason is None else f"{record.status}: {record.reason}",
    }


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _text(value: Any) -> str:
    if value is None:
        return DASH
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
