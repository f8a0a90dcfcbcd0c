"""What the page's script reads: the board, checked, without its empty fields, its cards as safe HTML, as inert JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, get_args

from markdown_it import MarkdownIt

from genbench.errors import DataError
from genbench.leaderboard.board import TIERS
from genbench.record import MetricKind
from genbench.report.names import GROUPS

KINDS = get_args(MetricKind)
GRID = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")
ROW_ID = re.compile(r"[A-Za-z0-9._~@:+=-]+")
BOARD = ("suite", "title", "description", "generated", "genbench_version", "rules", "metrics", "rows", "pareto")
ROW = ("id", "label", "model", "family", "tier", "cells")
METRIC = ("key", "label")
OWN = "@"
"""What the keys of the page's own columns begin with (row, rank and the like)."""

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def payload(board: Mapping[str, Any]) -> dict[str, Any]:
    """``board`` as the page wants it: ``card`` is an index into ``cards`` (HTML), empty fields are left out.

    Raises:
        DataError: an entry is missing, a row id or metric key is used twice, a cell or a front names what is not there,
            or a tier, kind or grid is none that the page shows, or a metric has no name.
    """
    _demand(board, BOARD, "The board")
    metrics = [_metric(metric) for metric in board["metrics"]]
    keys = _unique([metric["key"] for metric in metrics], "metric key")
    cards: dict[str, int] = {}
    rows = [_row(row, keys, cards) for row in board["rows"]]
    ids = _unique([row["id"] for row in rows], "row id")
    return {
        **{key: str(board[key] or "") for key in BOARD[:6]},
        "metrics": metrics,
        "rows": rows,
        "pareto": [front for front in (_front(front, keys, ids) for front in board["pareto"]) if front["rows"]],
        "cards": [card_html(text) for text in cards],
    }


def as_json(value: Any) -> str:
    """JSON that may stand inside ``<script type="application/json">``: it holds no ``<``, ``>``, ``&``, U+2028/9."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"The board cannot be written as JSON ({error}); a missing value is null, never NaN."
        ) from error
    return re.sub("[<>&\u2028\u2029]", lambda match: _ESCAPES[match[0]], text)


def card_html(text: str) -> str:
    """CommonMark with tables as HTML: raw HTML is shown as text, images are left out, links lead to http(s) only."""
    return _markdown().render(text)


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    markdown.validateLink = lambda url: url.lower().startswith(("https://", "http://"))  # type: ignore[method-assign]
    markdown.add_render_rule("link_open", _link)
    markdown.add_render_rule("heading_open", _heading)
    markdown.add_render_rule("heading_close", _heading)
    return markdown


def _link(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer")
    tokens[index].attrSet("target", "_blank")
    return str(renderer.renderToken(tokens, index, options, env))


def _heading(renderer: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    """A card stands below a heading of the second rank, so its own begin at the third and skip none."""
    tokens[index].tag = "h3" if tokens[index].tag == "h1" else "h4"
    return str(renderer.renderToken(tokens, index, options, env))


def _demand(given: Any, keys: tuple[str, ...], what: str) -> None:
    if not isinstance(given, Mapping):
        raise DataError(f"{what} is a {type(given).__name__}; expected a mapping with {', '.join(keys)}.")
    missing = [key for key in keys if key not in given]
    if missing:
        raise DataError(f"{what} lacks {', '.join(missing)}; expected {', '.join(keys)}.")


def _unique(names: list[str], what: str) -> set[str]:
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise DataError(f"The {what} {', '.join(map(repr, twice))} is used more than once; each must be unique.")
    return set(names)


def _full(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in given.items() if value is not None and value not in ("", [], ())}


def _metric(metric: Any) -> dict[str, Any]:
    _demand(metric, METRIC, "A metric")
    empty = [key for key in METRIC if not str(metric[key]).strip()]
    if empty:
        raise DataError(f"A metric has an empty {' and an empty '.join(empty)}; give each metric a name.")
    if str(metric["key"]).startswith(OWN):
        raise DataError(f"The metric key {metric['key']!r} begins with {OWN}, as the page's own columns do; rename it.")
    titles: Mapping[str, str] = GROUPS  # type: ignore[assignment]
    group = str(metric.get("group") or "other")
    return _full({**metric, "group": titles.get(group, group)})


def _row(row: Any, keys: set[str], cards: dict[str, int]) -> dict[str, Any]:
    _demand(row, ROW, f"Row {row.get('id', '')!r}" if isinstance(row, Mapping) else "A row")
    what = f"Row {row['id']!r}"
    if not ROW_ID.fullmatch(str(row["id"])):
        raise DataError(
            f"{what} has an id that is not safe in an address; use letters, digits and . _ ~ @ : + = - only."
        )
    if row["tier"] not in TIERS:
        raise DataError(f"{what} is of tier {row['tier']!r}; expected one of {', '.join(TIERS)}.")
    if row.get("grid") and not GRID.fullmatch(row["grid"]):
        raise DataError(f"{what} has a grid that is no data:image/png;base64 address; give a PNG, or nothing.")
    unknown = sorted(set(row["cells"]) - keys)
    if unknown:
        raise DataError(f"{what} has cells for {', '.join(unknown)}, which the board's metrics do not name.")
    out = _full({key: value for key, value in row.items() if key not in ("cells", "card")})
    if row.get("card"):
        out["card"] = cards.setdefault(str(row["card"]), len(cards))
    out["cells"] = {key: _cell(cell, f"{what}, {key}") for key, cell in row["cells"].items()}
    return out


def _cell(cell: Any, what: str) -> dict[str, Any]:
    _demand(cell, ("value",), what)
    if cell["value"] is not None and cell.get("kind") not in KINDS:
        raise DataError(f"{what} is of kind {cell.get('kind')!r}; expected one of {', '.join(KINDS)}.")
    return _full({**cell, "reproduced": cell.get("reproduced") or None})


def _front(front: Any, keys: set[str], ids: set[str]) -> dict[str, Any]:
    _demand(front, ("quality", "cost", "groups", "rows"), "A Pareto front")
    stray = [key for key in (front["quality"], front["cost"]) if key not in keys]
    stray += [name for name in front["rows"] if name not in ids]
    if stray:
        raise DataError(f"A Pareto front names {', '.join(map(repr, stray))}, which the board does not have.")
    return dict(front)
