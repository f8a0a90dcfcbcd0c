"""A table as plain strings, and its forms: Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

from genbench.report.latex import needs, tabulars
from genbench.report.markup import Bold, escape, plain, table

Raw = str | float | None
"""A cell of a CSV: text, which may be of a record, a number of ours as it is, or nothing."""


class Data(str):
    """A cell as shown that is other cells in a CSV: its numbers as they are. In a head: the names of those columns."""

    cells: tuple[Raw, ...]

    def __new__(cls, shown: str, *cells: Raw) -> Data:
        made = super().__new__(cls, shown)
        made.cells = cells
        return made


class Given(str):
    """A head that is a name from outside, such as that of a source."""


@dataclass(frozen=True)
class Sheet:
    """A table.

    heads: ours, as columns of a CSV are called, and `Given` ones. rows: cells as text, untrusted; a `Bold` one stands
    out. numbers_from: first column of numbers, right-aligned. note: ours, on how to read it. remarks: lines below it,
    untrusted.
    """

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int = 1
    note: str = ""
    remarks: Sequence[str] = ()


def shown_head(head: str) -> str:
    """A head as people read it: ours begin with a capital; signs of one letter and names from outside stay."""
    return head if isinstance(head, Given) or len(head) < 2 else f"{head[0].upper()}{head[1:]}"


def markdown(sheet: Sheet, level: int = 2) -> str:
    """The table under a heading (none where it has no title), its note and its remarks."""
    heads = [escape(shown_head(head)) for head in sheet.heads]
    rows = [[_markdown_cell(cell) for cell in row] for row in sheet.rows]
    parts = [
        f"{'#' * level} {escape(sheet.title)}" if sheet.title else "",
        table(heads, rows, sheet.numbers_from) if sheet.rows else "Nothing.",
        sheet.note,
        *map(escape, sheet.remarks),
    ]
    return "\n\n".join(part for part in parts if part)


def _markdown_cell(cell: str) -> str:
    return f"**{escape(cell)}**" if isinstance(cell, Bold) else escape(cell)


def to_latex(sheet: Sheet) -> str:
    """The table for LaTeX, its remarks under it, the title and the note as comments."""
    lines = _comments(sheet.title, *sheet.note.splitlines())
    if not sheet.rows:
        return "\n".join([*lines, *_comments("Nothing.", *sheet.remarks)])
    heads = [shown_head(head) for head in sheet.heads]
    return "\n".join([*lines, tabulars(heads, [("", sheet.rows)], sheet.numbers_from, sheet.remarks)])


def _comments(*texts: str) -> list[str]:
    return [f"% {' '.join(text.split())}" for text in texts if text.strip()]


def to_csv(sheets: Sequence[Sheet]) -> str:
    """The tables one below the other, an empty line between them; several have their title above."""
    titles = [csv_lines([[sheet.title]]) if len(sheets) > 1 else "" for sheet in sheets]
    made = [csv_lines([_raw(line) for line in (sheet.heads, *sheet.rows)]) for sheet in sheets]
    return "\n".join(title + lines for title, lines in zip(titles, made, strict=True))


def csv_lines(rows: Sequence[Sequence[Raw]]) -> str:
    """Rows as CSV: text is kept from being a formula, numbers are written in full."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([plain(str(cell)) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return out.getvalue()


def _raw(row: Sequence[str]) -> list[Raw]:
    return [raw for cell in row for raw in (cell.cells if isinstance(cell, Data) else (cell,))]


def document(title: str, lede: str, parts: Sequence[tuple[str, Sequence[Sheet]]], suffix: str) -> str:
    """Tables in the format of ``suffix`` (``.md``, ``.tex``, ``.csv``). parts: heading of each, empty for none."""
    titled = [_under(heading, sheet) for heading, sheets in parts for sheet in sheets]
    if suffix == ".csv":
        return to_csv(titled)
    if suffix == ".tex":
        tables = "\n\n".join(map(to_latex, titled))
        head = "\n".join([f"{needs(tables)} Made by `genbench report`.", *_comments(title, lede)])
        return f"{head}\n\n{tables}\n"
    blocks = [f"# {escape(title)}", escape(lede)]
    for heading, sheets in parts:
        blocks += [f"## {escape(heading)}"] if heading else []
        blocks += [markdown(sheet, 3 if heading else 2) for sheet in sheets]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _under(heading: str, sheet: Sheet) -> Sheet:
    """The table with the heading of its part in its title."""
    return replace(sheet, title=": ".join(text for text in (heading, sheet.title) if text))
