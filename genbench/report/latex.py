"""Tables for LaTeX that fit a page: a number stands above its interval, and a wide table is cut into several."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from genbench.report.markup import Bold

TEXT_WIDTH = 390.0
"""Points that a table may take: the text of a one-column conference page is 397 wide, that of a journal 345 to 500."""
MOST_LINES = 45
"""Of a table that must fit one page; a longer one breaks across pages."""

_GAP = 6.0
"""Points between columns: twice ``\\tabcolsep``."""
_TYPE, _SMALLER = 8.0, 0.93
"""Size of the type in points (``\\footnotesize``); the width of ``\\scriptsize`` by it."""
_LONG_TEXT = 130.0
"""Points; a column of texts that is wider is set in lines."""
_NOTES = 240.0
"""Points that notes take at least."""
_LEAST_LINE = 40.0
"""Points of a column that is set in lines."""
_LONG_WORD = 20
"""Letters of a word, such as a hash or a path, that may be broken where texts are set in lines."""
_SIGNS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": "--",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "µ": r"$\mu$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "₂": r"$_2$",
}
_BEYOND_LATIN = "‘’“”†‡•…€™"
_UNSET = "«»ÐÞðþĄąĐđĘęĦħĮįĸĿŀŉŊŋŦŧŲųſ"
"""What LaTeX sets beyond Latin Extended-A, and what it does not of it, with no package and its first encoding."""


def latex(text: str) -> str:
    """``text`` for LaTeX: special characters escaped, signs as mathematics; line breaks become spaces.

    Two hyphens, quotes or commas in a row stay two: TeX would join them to another sign. A character at which LaTeX
    would stop, such as a Chinese one, is written as its code: ``[U+6A21]``.
    """
    flat = " ".join(text.split())
    apart = re.sub(r"([-–])(?=[-–])|(['`,])(?=\2)", "\\g<0>\0", flat.replace("\0", ""))
    return "".join("{}" if character == "\0" else _set(character) for character in apart)


def _set(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    is_latin = character.isprintable() and ord(character) < 0x180 and character not in _UNSET
    return character if is_latin or character in _BEYOND_LATIN else f"{{[}}U+{ord(character):04X}]"


def bracketed(cell: str) -> str:
    r"""A cell that begins with [ or * would be read as the argument or the star of the ``\\`` before it."""
    return re.sub(r"^(\s*)([\[*])", r"\1{\2}", cell)


def needs(tables: str) -> str:
    """The comment that names the packages of tables."""
    names = ["array", "booktabs", *(["longtable"] if "{longtable}" in tables else [])]
    return rf"% Needs \usepackage{{{','.join(names)}}}."


def tabulars(
    heads: Sequence[str],
    sections: Sequence[tuple[str, Sequence[Sequence[str]]]],
    labels: int,
    notes: Sequence[str] = (),
) -> str:
    """A table as ``tabular`` (``longtable`` if it is longer than a page), or as several of fewer columns each.

    Cells are text, untrusted; a `Bold` one stands out. Of a cell of a number, an interval in brackets goes under the
    value in smaller type, and what follows it under that; of its head, what stands in parentheses.

    Args:
        sections: heading (empty for none) and rows of each.
        labels: the first columns, which name the rows and stand before each part of a wide table. All columns: a table
            of texts, which is never cut.
        notes: lines of text under the last part.
    """
    sections, reasons = _without_long_numbers(sections, labels)
    notes = [*notes, *reasons]
    columns = list(zip(heads, *(row for _, rows in sections for row in rows), strict=True))
    texts, numbers = columns[:labels], columns[labels:]
    lines = _Lines(_LONG_TEXT, _LONG_TEXT) if numbers else _lines_of(texts)
    aligns = [lines.alignment(column) for column in texts]
    room = TEXT_WIDTH - sum(lines.width(column) for column in texts)
    blocks = _blocks([_width([_head(head), *map(_lines, cells)]) for head, *cells in numbers], room)
    made = []
    for block in blocks:
        chosen = [*range(labels), *(labels + i for i in block)]
        parts = [(title, [[row[i] for i in chosen] for row in rows]) for title, rows in sections if rows]
        align = "".join(aligns) + "r" * len(block)
        told = notes if block is blocks[-1] else ()
        made.append(_tabular([heads[i] for i in chosen], parts, labels, align, told, lines, lines.beyond_one(texts)))
    return "\n\n".join(made)


def _without_long_numbers(
    sections: Sequence[tuple[str, Sequence[Sequence[str]]]], labels: int
) -> tuple[list[tuple[str, list[list[str]]]], list[str]]:
    """Texts that stand in place of a number (``"failed: ..."``) as their first words, and in full as notes."""
    notes: list[str] = []

    def cell(row: Sequence[str], i: int) -> str:
        if i < labels or max(map(_text_width, _lines(row[i]))) <= _LONG_TEXT:
            return row[i]
        notes.append(f"{row[0]}: {row[i]}")
        return re.split(r"[:;,.]", row[i])[0][:20]

    kept = [(title, [[cell(row, i) for i in range(len(row))] for row in rows]) for title, rows in sections]
    return kept, list(dict.fromkeys(notes))


def _blocks(widths: Sequence[float], room: float) -> list[list[int]]:
    """Columns by the parts that a wide table is cut into: as few as fit, and as even in width as they can be."""
    least = len(_packed(widths, room))
    limits = sorted({sum(widths[i:j]) for j in range(len(widths) + 1) for i in range(j)})
    limit = next((limit for limit in limits if len(_packed(widths, limit)) <= least), room)
    return _packed(widths, min(limit, room))


def _packed(widths: Sequence[float], limit: float) -> list[list[int]]:
    """Each part takes columns while they fit; one that is wider than ``limit`` stands alone."""
    parts: list[list[int]] = [[]]
    for k, width in enumerate(widths):
        if parts[-1] and sum(widths[i] for i in parts[-1]) + width > limit:
            parts.append([])
        parts[-1].append(k)
    return parts


@dataclass(frozen=True)
class _Lines:
    """How columns of texts are set: those that take more than ``limit`` points in lines of ``share`` points."""

    limit: float
    share: float

    @property
    def long_word(self) -> int:
        """Letters of a word that may be broken."""
        return max(10, min(_LONG_WORD, int(self.share / (0.56 * _TYPE))))

    def has(self, column: Sequence[str]) -> bool:
        """Whether a column is set in lines."""
        return _width(column) > self.limit

    def width(self, column: Sequence[str]) -> float:
        return self.share + _GAP if self.has(column) else _width(column)

    def alignment(self, column: Sequence[str]) -> str:
        return rf">{{\raggedright\arraybackslash}}p{{{self.share:.0f}pt}}" if self.has(column) else "l"

    def beyond_one(self, texts: Sequence[Sequence[str]]) -> int:
        """How many lines rows take beyond one each."""
        rows = zip(*filter(self.has, texts))
        return sum(max(0, *(math.ceil(_text_width(cell) / self.share) - 1 for cell in row)) for row in rows)


def _lines_of(texts: Sequence[Sequence[str]]) -> _Lines:
    """Of a table of texts alone: its widest columns, as many as must be, share what the others leave."""
    widths = [_width(column) for column in texts]
    tried: list[tuple[float, int, _Lines]] = []
    for limit in (_LONG_TEXT, *sorted({width - 1 for width in widths if width <= _LONG_TEXT}, reverse=True)):
        long = sum(width > limit for width in widths)
        room = TEXT_WIDTH - sum(width for width in widths if width <= limit)
        lines = _Lines(limit, max(room / max(long, 1) - _GAP, _LEAST_LINE))
        tried.append((max(sum(map(lines.width, texts)), TEXT_WIDTH), len(tried), lines))
    return min(tried)[2]


def _width(column: Sequence[str | Sequence[str]]) -> float:
    """About what a column takes, in points: head and cells, which are text or lines, the first of a larger type."""
    return _GAP + max(map(_cell_width, column), default=0.0)


def _cell_width(cell: str | Sequence[str]) -> float:
    value, *below = (cell,) if isinstance(cell, str) else cell
    return max(_text_width(value), *(_SMALLER * _text_width(line) for line in below), 0.0)


def _text_width(text: str) -> float:
    return _TYPE * sum(map(_em, text)) * (1.15 if isinstance(text, Bold) else 1.0)


def _em(character: str) -> float:
    """About the width of a character in the type's size, on the large side."""
    if character in " .,:;'!|()[]ijl·":
        return 0.31
    return 0.83 if character in "mwMW−≤≥≈~–%↑↓→" or character.isupper() else 0.56


def _lines(cell: str) -> tuple[str, ...]:
    """Value, interval and the rest of a cell, as far as it has them."""
    flat = " ".join(cell.split())
    start, end = flat.find("["), flat.find("]")
    value, interval, rest = (
        (flat[:start], flat[start : end + 1], flat[end + 1 :]) if 0 <= start < end else (flat, "", "")
    )
    return (Bold(value.strip()) if isinstance(cell, Bold) else value.strip(), interval, rest.strip())


def _head(head: str) -> tuple[str, str]:
    """``"FID (digits-cnn) ↓"`` as ``("FID ↓", "(digits-cnn)")``; a long one, such as a name of a file, is cut."""
    found = re.search(r"\s*(\([^()]*\))", head)
    above, below = (head, "") if found is None else (head[: found.start()] + head[found.end() :], found[1])
    return _cut(above), _cut(below)


def _cut(text: str) -> str:
    return text if _text_width(text) <= _LONG_TEXT else f"{text[:20]}…"


def _tabular(
    heads: Sequence[str],
    sections: Sequence[tuple[str, Sequence[Sequence[str]]]],
    labels: int,
    align: str,
    notes: Sequence[str],
    lines: _Lines,
    more_lines: int,
) -> str:
    """One ``tabular`` or ``longtable``, in small type, of columns that fit beside each other.

    more_lines: what its rows take beyond one line each.
    """
    head = _row_lines([*heads[:labels], *(" ".join(_head(text)[:1]) for text in heads[labels:])], labels, lines)
    under = [_head(text)[1] for text in heads[labels:]]
    if any(under):
        head.append(_line([*[""] * labels, *map(_small, under)]))
    body: list[str] = []
    for title, rows in sections:
        body += [r"\midrule"] if body else []
        body += [rf"\multicolumn{{{len(heads)}}}{{l}}{{\textit{{{latex(title)}}}}} \\"] if title else []
        for row in rows:
            body += _row_lines(row, labels, lines)
    columns = list(zip(heads, *(row for _, rows in sections for row in rows), strict=True))
    table = sum(_width([_lines(cell) for cell in column]) for column in columns)
    width = min(max(table, _NOTES), TEXT_WIDTH) - _GAP
    note = rf"\multicolumn{{{len(heads)}}}{{>{{\raggedright\arraybackslash}}p{{{width:.0f}pt}}}}"
    foot = [rf"{note}{{\scriptsize {_breakable(text)}}} \\" for text in notes]
    is_tall = len(head) + len(body) + more_lines > MOST_LINES
    name = "longtable" if is_tall else "tabular"
    return "\n".join(
        [
            r"\begingroup\footnotesize\setlength{\tabcolsep}{3pt}" + ("" if is_tall else r"\noindent"),
            rf"\begin{{{name}}}{{{align}}}",
            *(r"\toprule", *head, r"\midrule", *([r"\endhead"] if is_tall else [])),
            *(*body, r"\bottomrule", *foot),
            rf"\end{{{name}}}",
            r"\par\endgroup",
        ]
    )


def _row_lines(row: Sequence[str], labels: int, lines: _Lines) -> list[str]:
    """A row: its names and values; under them in smaller type what cells have below their values."""
    numbers = [_lines(cell) for cell in row[labels:]]
    values = [value for value, *_ in numbers]
    made = [_line([*(_breakable(cell, lines.long_word) for cell in row[:labels]), *map(_value, values)])]
    for below in ([cell[k] for cell in numbers] for k in (1, 2)):
        made += [_line([*[""] * labels, *map(_small, below)])] if any(below) else []
    return [*made[:-1], made[-1] + "[2pt]"] if len(made) > 1 else made


def _line(cells: Sequence[str]) -> str:
    return bracketed(" & ".join(cells)) + r" \\"


def _value(text: str) -> str:
    """A number; the tilde of an estimate is the sign for *about*, not an accent."""
    shown = re.sub(r"^\\textasciitilde\{\} ", lambda _: r"$\sim$ ", latex(text))
    return rf"\textbf{{{shown}}}" if isinstance(text, Bold) and text else shown


def _small(text: str) -> str:
    return rf"{{\scriptsize {latex(text)}}}" if text else ""


def _breakable(text: str, long_word: int = _LONG_WORD) -> str:
    """A text whose long words, such as hashes and paths, may go on in the next line: after what joins their parts, and
    within a part that is long itself."""
    piece = max(8, long_word // 2 + 2)
    ends = rf"(?:[^\s_/.@:-]{{0,{piece - 1}}}[_/.@:-]|[^\s_/.@:-]{{{piece}}})(?=\S)"
    parts = re.sub(rf"\S{{{long_word + 1},}}", lambda word: re.sub(ends, "\\g<0>\0", word[0]), text).split("\0")
    shown = r"\allowbreak{}".join(map(latex, parts))
    return rf"\textbf{{{shown}}}" if isinstance(text, Bold) and text else shown
