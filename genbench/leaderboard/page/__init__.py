"""The leaderboard's page: one HTML file that sorts, filters and links, and asks no network for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from genbench.errors import DataError
from genbench.leaderboard.board import TIERS
from genbench.leaderboard.page.payload import as_json, payload

SCRIPTS = ("view.js", "cells.js", "table.js", "dialog.js", "chart.js", "app.js")
LIBRARY = "vendor/datatables.min.js"
CHARTS = "vendor/plotly-basic.min.js"

__all__ = ["render"]


def render(board: Mapping[str, Any]) -> str:
    """The page of a leaderboard as HTML: self-contained, every text of ``board`` escaped.

    Args:
        board: what ``Board.as_dict()`` gives: suite, title, description, rules, metrics, rows with their cells, Pareto
            fronts. The chart library goes in only where a Pareto front has at least one row.

    Raises:
        DataError: an entry is missing or ill-formed; the message names it.
    """
    data = payload(board)
    script = _script()
    library = _asset("genbench.leaderboard.page", LIBRARY)
    charts = _asset("genbench.report", CHARTS) if data["pareto"] else None
    return _template().render(
        board=data,
        tiers=[(tier, says, count) for tier, says in TIERS.items() if (count := _count(data, tier))],
        policy=_content_policy(library, script, *([] if charts is None else [charts])),
        style=Markup(_style()),
        data=Markup(as_json(data)),
        library=Markup(library),
        script=Markup(script),
        charts=None if charts is None else Markup(charts),
    )


def _count(data: Mapping[str, Any], tier: str) -> int:
    return sum(row["tier"] == tier for row in data["rows"])


@cache
def _asset(package: str, name: str) -> str:
    return (files(package) / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("genbench.leaderboard.page", "template.html"))


@cache
def _script() -> str:
    """The page's own scripts in one scope."""
    parts = "\n".join(_asset("genbench.leaderboard.page", name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


@cache
def _style() -> str:
    """The report's palette, under the theme switch as well as the system's preference, and the page's own rules."""
    report = _asset("genbench.report", "style.css")
    blocks = re.findall(r":root\s*\{([^}]*)\}", report)
    if len(blocks) != 2:
        raise DataError(
            f"genbench/report/style.css has {len(blocks)} :root blocks; the page needs its light and its dark one."
        )
    light, dark = (block.strip() for block in blocks)
    dark = f"color-scheme: dark;\n{dark}"
    return "\n".join(
        (
            f":root {{\n{light}\n}}",
            ':root[data-theme="light"] { color-scheme: light; }',
            f'@media (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{\n{dark}\n}} }}',
            f':root[data-theme="dark"] {{\n{dark}\n}}',
            _asset("genbench.leaderboard.page", "style.css"),
        )
    )


def _content_policy(*scripts: str) -> str:
    """A content security policy: nothing is fetched or sent, and only the scripts with these texts run."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )
