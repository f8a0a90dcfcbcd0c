"""Text from records in Markdown, LaTeX and spreadsheets: it shows as it is, and does nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r")
_LATEX = {
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
    "µ": r"$\mu$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "₂": r"$_2$",
}


def escape(text: str) -> str:
    """Text that shows as it is wherever Markdown stands, in a cell of a table too; line breaks become spaces."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*_|\[\]#~])", r"\\\1", flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int) -> str:
    """A table in Markdown, of cells that are escaped already; columns from ``numbers_from`` on are right-aligned."""
    rules = ["---" if i < numbers_from else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, rules, *rows])


def plain(text: str) -> str:
    """``text`` as a spreadsheet shows it: what would be a formula is kept from being one by an apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def latex(text: str) -> str:
    """``text`` for LaTeX: special characters escaped, signs as mathematics; line breaks become spaces.

    Two hyphens, quotes or commas in a row stay two: TeX would join them to another sign.
    """
    flat = " ".join(text.split())
    apart = re.sub(r"([-–])(?=[-–])|(['`,])(?=\2)", "\\g<0>\0", flat.replace("\0", ""))
    return "".join(_LATEX.get(character, character) for character in apart).replace("\0", "{}")


def bracketed(cell: str) -> str:
    r"""A cell that begins with [ or * would be read as the argument or the star of the ``\\`` before it."""
    return re.sub(r"^(\s*)([\[*])", r"\1{\2}", cell)
