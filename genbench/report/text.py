"""Reports as Markdown, LaTeX and CSV: the same tables as the page's, without pictures and charts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import pandas as pd

from genbench.check.speed import SPEED_METRICS
from genbench.record import MetricResult
from genbench.report.changes import Changes, NumberChange, RowChanges
from genbench.report.differences import SPEEDS, Difference, Differences
from genbench.report.likelihood import likelihood_sheet
from genbench.report.markup import Bold
from genbench.report.names import metric_name
from genbench.report.section import Section
from genbench.report.sheet import Given, Raw, Sheet, csv_lines, document
from genbench.report.tables import Column, columns, comparison_sheet, plain_frame, summary_frame

INTERVALS = f"Brackets hold 95 % intervals of the differences, each by itself. {SPEEDS}"
OF_BASELINE = "share of before"
CHANGE_HEADS = (
    *("what", "row", "name", "estimator", "extractor", "unit", "from", "to", "before", "after"),
    *("before_value", "before_ci95_low", "before_ci95_high", "after_value", "after_ci95_low", "after_ci95_high"),
    *("difference", "difference_low", "difference_high", "difference_unit", "verdict", "reason"),
)


def sections_text(suffix: str) -> Callable[[Sequence[Section]], str]:
    """A writer of sections in the format of a suffix."""

    def write(sections: Sequence[Section]) -> str:
        several = len(sections) > 1
        parts = [(section.title if several else "", _sheets(section)) for section in sections]
        lede = "" if several else sections[0].sentence
        return document(", ".join(section.title for section in sections), lede, parts, suffix)

    return write


def sections_csv(sections: Sequence[Section]) -> str:
    """One line a row, with every metric and interval, and the differences from a baseline where there is one.

    A metric that is called like a column of ours, ``label`` say, is in ``label[metric]``.
    """
    ours = [_difference_columns(section) for section in sections]
    names = ["suite", "label", *dict.fromkeys(name for columns in ours for name in columns)]
    frames = []
    for section, differences in zip(sections, ours, strict=True):
        frame = _freed(summary_frame(section.records), names)
        frame.insert(0, "label", section.labels)
        frame.insert(0, "suite", section.suite)
        frame["seed"] = [" ".join(map(str, row.seeds)) for row in section.rows]
        frames.append(pd.concat([frame, pd.DataFrame(differences, index=frame.index)], axis=1))
    return plain_frame(pd.concat(frames, ignore_index=True)).to_csv(index=False)


def _freed(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The frame with its columns of these names, and what belongs to them, under other names."""
    taken = {*map(str, frame.columns), *names}
    other: dict[str, str] = {}
    for name in names:
        if name in frame.columns:
            tried = (f"{name}[metric]" if n == 1 else f"{name}[metric {n}]" for n in count(1))
            free = next(found for found in tried if found not in taken)
            taken.add(free)
            parts = ("", "_ci95_low", "_ci95_high", "_kind", "_estimator")
            other |= {f"{name}{part}": f"{free}{part}" for part in parts if f"{name}{part}" not in other}
    return frame.rename(columns=other)


def _difference_columns(section: Section) -> dict[str, list[Raw]]:
    """Each row's baseline, its differences from it (of speeds: changes, as shares) with their intervals, what they say,
    and why or why nothing.
    """
    if section.differences is None:
        return {}
    held = {line.label: line for line in section.differences.rows}
    lines = [held.get(label) for label in section.labels]
    bare = [None if row.label in held else section.differences.why_without(row) for row in section.rows]
    made: dict[str, list[Raw]] = {"baseline": [None if line is None else line.against for line in lines]}
    quoted = {row.label: row.record for row in section.rows}
    for place, column in enumerate(section.differences.columns):
        stem = _column_name(column, section)
        name = f"{stem}_change" if column.name in SPEED_METRICS else f"{stem}_difference"
        cells = [None if line is None else line.cells[place] for line in lines]
        bounds = [(None, None) if cell is None or cell.ci95 is None else cell.ci95 for cell in cells]
        made[name] = [None if cell is None else cell.value for cell in cells]
        made[f"{name}_low"], made[f"{name}_high"] = [low for low, _ in bounds], [high for _, high in bounds]
        made[f"{stem}_verdict"] = [None if cell is None else cell.verdict for cell in cells]
        made[f"{stem}_reason"] = [why if cell is None else cell.reason for cell, why in zip(cells, bare, strict=True)]
        if metric_name(column.name).group == "likelihood":
            against = [None if line is None else column.of(quoted[line.against]) for line in lines]
            made[f"{name}_estimator"] = [None if metric is None else metric.estimator for metric in against]
    return made


def _column_name(column: Column, section: Section) -> str:
    """What `summary_frame` calls a metric of an extractor: the name, if it is the first of it."""
    first = next(found for found in columns(section.records) if found.name == column.name)
    return column.name if column.extractor == first.extractor else f"{column.name}[{column.extractor}]"


def _sheets(section: Section) -> list[Sheet]:
    """Notes, comparison with its remarks, differences, likelihoods, seeds and audit, those that there are."""
    found = [comparison_sheet(section.comparison)]
    if section.notes:
        found.insert(0, Sheet("Notes", ["note"], [[note] for note in section.notes]))
    if section.remarks:
        remarks = [list(remark) for remark in section.remarks]
        found.append(Sheet("Missing values and warnings", ["metric", "remark", "rows"], remarks, 3))
    if section.differences is not None:
        found.append(_differences_sheet(section.differences))
    if section.likelihoods is not None:
        found.append(likelihood_sheet(section.likelihoods))
    if section.seeds:
        heads = ["row", "seeds", *(f"{c.title} {c.arrow}".strip() for c in section.seed_columns)]
        rows = [[row.label, ", ".join(map(str, row.seeds)), *row.cells] for row in section.seeds]
        found.append(Sheet("Every seed", heads, rows, 2, "The standard deviation in parentheses."))
    if section.audit is not None and section.audit.warnings:
        warnings = [list(warning) for warning in section.audit.warnings]
        found.append(Sheet("The audit of the metrics", ["warning", "of what"], warnings, 2))
    return found


def _differences_sheet(whole: Differences) -> Sheet:
    found = whole.shown
    heads = ["row", "against", *(f"{c.title} {c.arrow}".strip() for c in found.columns)]
    rows = [[row.label, row.against, *map(_difference, row.cells)] for row in found.rows]
    note = f"{INTERVALS} Bold: better or worse beyond its interval."
    return Sheet(f"Differences from {found.title}", heads, rows, 2, note, whole.remarks)


def _difference(cell: Difference) -> str:
    text = f"{cell.text} {cell.interval}".strip()
    return Bold(f"{text} {cell.verdict}") if cell.verdict in ("better", "worse") else text


def changes_text(suffix: str) -> Callable[[Changes], str]:
    """A writer of changes in the format of a suffix."""

    def write(changes: Changes) -> str:
        if suffix == ".csv":
            return csv_lines([CHANGE_HEADS, *_change_lines(changes)])
        shared = [Sheet("Notes", ["note"], [[note] for note in changes.notes])] if changes.notes else []
        shared += [_settings_sheet("All rows", changes, changes.shared)] if changes.shared else []
        single = [[label, changes.a] for label in changes.only_a] + [[label, changes.b] for label in changes.only_b]
        shared += [Sheet("Rows of one side", ["row", "only in"], single, 2)] if single else []
        parts = [("", shared)] if shared else []
        parts += [(row.label, _change_sheets(changes, row)) for row in changes.rows]
        return document(changes.title, changes.sentence, parts, suffix)

    return write


def _settings_sheet(title: str, changes: Changes, settings: Sequence[tuple[str, str, str]]) -> Sheet:
    return Sheet(title, ["setting", Given(changes.a), Given(changes.b)], [list(setting) for setting in settings], 3)


def _change_sheets(changes: Changes, row: RowChanges) -> list[Sheet]:
    heads = ["metric", "estimator", Given(changes.a), Given(changes.b), "difference", "verdict"]
    numbers = [
        [n.title, n.estimator, n.before, n.after, f"{n.difference.text} {n.difference.interval}".strip(), n.verdict]
        for n in row.numbers
    ]
    marked = [[Bold(cell) if line[5] in ("better", "worse") else cell for cell in line] for line in numbers]
    found = [_settings_sheet("Settings", changes, row.settings)] if row.settings else []
    account = changes.account(row)
    found += [Sheet("Notes", ["note"], [[account]])] if account else []
    return [*found, Sheet("Numbers", heads, marked, 2, INTERVALS, row.left_out)]


def _change_lines(changes: Changes) -> list[list[Raw]]:
    """Everything that changed, one thing a line, by `CHANGE_HEADS`; settings of all rows have no row."""
    found = [_text_line(changes, "setting of all rows", "", setting) for setting in changes.shared]
    found += [_text_line(changes, "row of one side", label, ("", label, "")) for label in changes.only_a]
    found += [_text_line(changes, "row of one side", label, ("", "", label)) for label in changes.only_b]
    for row in changes.rows:
        keys = [record.keys for record in (row.before.record, row.after.record)]
        stages = [(stage, *(of.get(stage, "") for of in keys)) for stage in row.stages]
        found += [_text_line(changes, "setting", row.label, setting) for setting in row.settings]
        found += [_text_line(changes, "stage", row.label, (name, old, new)) for name, old, new in stages]
        found += [_number_line(changes, row.label, number) for number in row.numbers]
    return found


def _text_line(changes: Changes, what: str, row: str, changed: tuple[str, str, str]) -> list[Raw]:
    name, before, after = changed
    told: list[Raw] = [what, row, name, None, None, None, changes.a, changes.b, before, after]
    return [*told, *[None] * (len(CHANGE_HEADS) - len(told))]


def _number_line(changes: Changes, row: str, number: NumberChange) -> list[Raw]:
    metric = number.old or number.new
    assert metric is not None
    gap = number.difference
    identity = ["number", row, metric.name, metric.estimator, metric.extractor, metric.unit, changes.a, changes.b]
    reasons = [None if one is None or one.value is not None else shown for one, shown in _sides(number)]
    unit = OF_BASELINE if gap.is_share else None if gap.value is None else metric.unit
    told = [gap.value, *(gap.ci95 or (None, None)), unit, gap.verdict, gap.reason]
    return [*identity, *reasons, *_raw(number.old), *_raw(number.new), *told]


def _sides(number: NumberChange) -> list[tuple[MetricResult | None, str]]:
    return [(number.old, number.before), (number.new, number.after)]


def _raw(metric: MetricResult | None) -> list[Raw]:
    return [None, None, None] if metric is None else [metric.value, *(metric.ci95 or (None, None))]
