"""Reports as HTML: one file that needs no network; every text of a record is escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from genbench import __version__
from genbench.record import SCHEMA_VERSION
from genbench.report.charts import Chart
from genbench.report.sheet import shown_head

SCRIPTS = ("vendor/sortable.min.js", "vendor/plotly-basic.min.js", "app.js")


def render(template: str, *, title: str, lede: str, charts: Sequence[Chart], **values: Any) -> str:
    """A page from ``templates/<template>``. title: its heading. lede: what it says in a sentence."""
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            lede=lede,
            chart_specs=[chart.spec() for chart in charts],
            versions={"genbench": __version__, "schema": SCHEMA_VERSION},
            policy=_content_policy(),
            style=Markup(_asset("style.css")),
            scripts=[Markup(_asset(name)) for name in SCRIPTS],
            **values,
        )
    )


@cache
def _asset(name: str) -> str:
    return (files("genbench.report") / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    loader = PackageLoader("genbench.report", "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["head"] = shown_head
    return made


@cache
def _content_policy() -> str:
    """A content security policy: nothing is fetched, and only genbench's own scripts run, known by their hashes."""
    hashes = (base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode() for name in SCRIPTS)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'"
