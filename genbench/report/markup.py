"""Text from records in Markdown and spreadsheets: it shows as it is, and does nothing. In LaTeX: `latex`."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")


class Bold(str):
    """A cell that stands out."""


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
