"""Reports as Markdown, LaTeX and CSV: the same tables as the page's, without pictures and charts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from genbench.report.changes import Changes, RowChanges
from genbench.report.differences import Difference
from genbench.report.likelihood import likelihood_sheet
from genbench.report.section import Section
from genbench.report.sheet import Bold, Sheet, document
from genbench.report.tables import comparison_sheet, plain_frame, summary_frame

INTERVALS = "Brackets hold 95 % intervals of the differences, each by itself."


def sections_text(suffix: str) -> Callable[[Sequence[Section]], str]:
    """A writer of sections in the format of a suffix."""

    def write(sections: Sequence[Section]) -> str:
        several = len(sections) > 1
        parts = [(section.title if several else "", _sheets(section)) for section in sections]
        lede = "" if several else sections[0].sentence
        return document(", ".join(section.title for section in sections), lede, parts, suffix)

    return write


def sections_csv(sections: Sequence[Section]) -> str:
    """One line a row, with every metric and interval."""
    frames = []
    for section in sections:
        frame = summary_frame(section.records)
        frame.insert(0, "label", section.labels)
        frame.insert(0, "suite", section.suite)
        frame["seed"] = [" ".join(map(str, row.seeds)) for row in section.rows]
        frames.append(frame)
    return plain_frame(pd.concat(frames, ignore_index=True)).to_csv(index=False)


def _sheets(section: Section) -> list[Sheet]:
    """Notes, comparison, differences, likelihoods and seeds, those that there are."""
    found = [comparison_sheet(section.comparison)]
    if section.notes:
        found.insert(0, Sheet("Notes", ["note"], [[note] for note in section.notes]))
    if section.differences is not None:
        heads = ["row", "against", *(f"{c.title} {c.arrow}".strip() for c in section.differences.columns)]
        rows = [[row.label, row.against, *map(_difference, row.cells)] for row in section.differences.rows]
        note = f"{INTERVALS} Bold: better or worse beyond its interval."
        found.append(Sheet(f"Differences from {section.differences.title}", heads, rows, 2, note))
    if section.likelihoods is not None:
        found.append(likelihood_sheet(section.likelihoods))
    if section.seeds:
        heads = ["row", "seeds", *(f"{c.title} {c.arrow}".strip() for c in section.seed_columns)]
        rows = [[row.label, ", ".join(map(str, row.seeds)), *row.cells] for row in section.seeds]
        found.append(Sheet("Every seed", heads, rows, 2, "The standard deviation in parentheses."))
    return found


def _difference(cell: Difference) -> str:
    text = f"{cell.text} {cell.interval}".strip()
    return Bold(f"{text} {cell.verdict}") if cell.verdict in ("better", "worse") else text


def changes_text(suffix: str) -> Callable[[Changes], str]:
    """A writer of changes in the format of a suffix."""

    def write(changes: Changes) -> str:
        parts = [("", [_settings_sheet("All rows", changes, changes.shared)])] if changes.shared else []
        parts += [(row.label, _change_sheets(changes, row)) for row in changes.rows]
        return document(changes.title, changes.sentence, parts, suffix)

    return write


def _settings_sheet(title: str, changes: Changes, settings: Sequence[tuple[str, str, str]]) -> Sheet:
    return Sheet(title, ["setting", changes.a, changes.b], [list(setting) for setting in settings], 3)


def _change_sheets(changes: Changes, row: RowChanges) -> list[Sheet]:
    heads = ["metric", changes.a, changes.b, "difference", "verdict"]
    numbers = [
        [n.title, n.before, n.after, f"{n.difference.text} {n.difference.interval}".strip(), n.verdict]
        for n in row.numbers
    ]
    marked = [[Bold(cell) if line[4] in ("better", "worse") else cell for cell in line] for line in numbers]
    settings = [_settings_sheet("Settings", changes, row.settings)] if row.settings else []
    return [*settings, Sheet("Numbers", heads, marked, 1, INTERVALS)]
