"""A table as plain strings, and its forms: Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from genbench.report.markup import bracketed, escape, latex, plain, table


class Bold(str):
    """A cell that stands out."""


@dataclass(frozen=True)
class Sheet:
    """rows: cells as text, untrusted; a `Bold` one stands out. numbers_from: first column of numbers, right-aligned."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int = 1
    note: str = ""


def markdown(sheet: Sheet, level: int = 2) -> str:
    """The table under a heading (none where it has no title), and its note."""
    rows = [[_markdown_cell(cell) for cell in row] for row in sheet.rows]
    parts = [
        f"{'#' * level} {escape(sheet.title)}" if sheet.title else "",
        table([escape(head) for head in sheet.heads], rows, sheet.numbers_from) if sheet.rows else "Nothing.",
        sheet.note,
    ]
    return "\n\n".join(part for part in parts if part)


def _markdown_cell(cell: str) -> str:
    return f"**{escape(cell)}**" if isinstance(cell, Bold) else escape(cell)


def to_latex(sheet: Sheet) -> str:
    """A ``tabular`` for booktabs, the title and the note as comments."""
    align = "l" * sheet.numbers_from + "r" * (len(sheet.heads) - sheet.numbers_from)
    lines = [f"% {' '.join(line.split())}" for line in (sheet.title, *sheet.note.splitlines()) if line.strip()]
    lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule", _latex_line(sheet.heads), r"\midrule"]
    lines += [_latex_line(row) for row in sheet.rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex_line(cells: Sequence[str]) -> str:
    made = [rf"\textbf{{{latex(cell)}}}" if isinstance(cell, Bold) else bracketed(latex(cell)) for cell in cells]
    return " & ".join(made) + r" \\"


def to_csv(sheets: Sequence[Sheet]) -> str:
    """The tables one below the other, an empty line between them; several have their title above."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for i, sheet in enumerate(sheets):
        if i:
            writer.writerow([])
        if len(sheets) > 1:
            writer.writerow([plain(sheet.title)])
        writer.writerow([plain(head) for head in sheet.heads])
        writer.writerows([plain(str(cell)) for cell in row] for row in sheet.rows)
    return out.getvalue()


def document(title: str, lede: str, parts: Sequence[tuple[str, Sequence[Sheet]]], suffix: str) -> str:
    """Tables in the format of ``suffix`` (``.md``, ``.tex``, ``.csv``). parts: heading of each, empty for none."""
    if suffix == ".csv":
        return to_csv([sheet for _, sheets in parts for sheet in sheets])
    if suffix == ".tex":
        head = [r"% Needs \usepackage{booktabs}. Made by `genbench report`.", f"% {' '.join(lede.split())}"]
        return "\n\n".join(["\n".join(head), *(to_latex(sheet) for _, sheets in parts for sheet in sheets)]) + "\n"
    blocks = [f"# {escape(title)}", escape(lede)]
    for heading, sheets in parts:
        blocks += [f"## {escape(heading)}"] if heading else []
        blocks += [markdown(sheet, 3 if heading else 2) for sheet in sheets]
    return "\n\n".join(block for block in blocks if block) + "\n"
