"""Addresses on the page: an id depends on what it names alone, so that a link holds when other rows come and go."""

from __future__ import annotations

import re

from genbench.files import hash_value
from genbench.report.pictures import is_safe_name

REPORTED = "reported-"


def row_id(row: str) -> str:
    """Of a measured row: its name, where it can stand in an address; else a likeness with a hash."""
    return row if is_safe_name(row) and not row.startswith(REPORTED) else _hashed(row)


def published_id(system: str) -> str:
    """Of a published result; those of one ``literature.toml`` are unlike."""
    return f"{REPORTED}{slug(system)}"


def metric_key(name: str, extractor: str | None) -> str:
    """Of a column: its name, and the extractor. It never begins with ``@``, as the page's own columns do."""
    key = f"{name}.{extractor}" if extractor else name
    return key if slug(key) == key and "." not in name and not key.startswith("@") else _hashed(key)


def slug(text: str) -> str:
    """``text`` with what an address or a file name cannot hold as hyphens."""
    return re.sub(r"[^A-Za-z0-9_.@+-]+", "-", text).strip("-.") or "row"


def _hashed(text: str) -> str:
    return f"{slug(text).lstrip('@')}-{hash_value(text)[:8]}"
