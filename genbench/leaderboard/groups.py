"""Groups of a column in words: what two cells that do not rank together differ in, short enough for a picker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from genbench.leaderboard.board import Board, Cell, Row
from genbench.record import MetricResult
from genbench.report.names import metric_name

BASIC = ("n", "extractor.name", "reference", "device", "threads")
"""What is said of the only group of a column."""
MOST = 4
"""Differing fields that are spelled out; more only where the texts would be equal without them."""
PUBLISHED = "published: "
_ABSENT = object()
_WORDS = {
    "n": "n = {}",
    "kind": "{}",
    "extractor.name": "{}",
    "protocol": "{}",
    "reference": "{} split",
    "dataset": "{}",
    "device": "{}",
    "threads": "threads = {}",
    "precision": "{}",
    "batch_size": "batches of {}",
    "estimator": "{}",
    "version": "version {} of the metric",
    "extractor.preprocessing": "preprocessing {}",
    "extractor.weights_sha256": "weights {}",
    "dataset_fingerprint": "data {}",
    "reference_statistics": "reference statistics {}",
}
_ORDER = {key: place for place, key in enumerate(_WORDS)}


def group_texts(groups: Mapping[str, MetricResult]) -> dict[str, str]:
    """A text for each group of a column, by its id: the fields of ``comparable`` in which the groups differ.

    The only group of a column is told by its `BASIC` fields. Texts of unlike groups are unlike.

    Args:
        groups: one result of each group, by id. Published results are told by their protocol.
    """
    fields = {group: _fields(metric) for group, metric in groups.items() if not _is_published(metric)}
    published = {group: _published(metric) for group, metric in groups.items() if group not in fields}
    found = _unique(published) | (_of_one(fields) if len(fields) == 1 else _apart(fields))
    return {group: found[group] for group in groups}


def letters(board: Board, rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """A letter for each group of the metrics whose cells in ``rows`` are of several groups, by metric and group.

    Groups that rank come first, then larger ones.
    """
    found: dict[tuple[str, str], str] = {}
    for metric in board.metrics:
        groups = _in_order([row.cells[metric.key] for row in rows if metric.key in row.cells])
        if len(groups) > 1:
            found |= {(metric.key, group): _letter(place) for place, group in enumerate(groups)}
    return found


def legend(board: Board, found: Mapping[tuple[str, str], str], keys: Sequence[str]) -> list[tuple[str, str]]:
    """What the letters say: label of each metric of ``keys`` that has some, and its groups as ``"a: ...; b: ..."``."""
    told = []
    for metric in board.metrics:
        mine = {letter: group for (key, group), letter in found.items() if key == metric.key}
        if mine and metric.key in keys:
            texts = (f"{letter}: {metric.groups.get(group, group)}" for letter, group in mine.items())
            told.append((metric.label, "; ".join(texts)))
    return told


def _in_order(cells: Sequence[Cell]) -> list[str]:
    sizes = Counter(cell.group for cell in cells if cell.value is not None)
    ranked = {cell.group for cell in cells if cell.rank}
    return sorted(sizes, key=lambda group: (group not in ranked, -sizes[group]))


def _letter(place: int) -> str:
    """a to z, then aa, ab, ..."""
    head, tail = divmod(place, 26)
    return (_letter(head - 1) if head else "") + chr(ord("a") + tail)


def _is_published(metric: MetricResult) -> bool:
    return set(metric.comparable) == {"reported"}


def _published(metric: MetricResult) -> str:
    kind = f", {_kind(metric)}" if _has_kinds(metric) else ""
    return f"{PUBLISHED}{metric.comparable['reported'] or 'protocol not known'}{kind}"


def _has_kinds(metric: MetricResult) -> bool:
    return metric_name(metric.name).group == "likelihood"


def _kind(metric: MetricResult) -> str:
    return metric.kind.replace("_", " ")


def _fields(metric: MetricResult) -> dict[str, Any]:
    found = dict(_flat(metric.measured_as))
    return found | {"kind": _kind(metric)} if _has_kinds(metric) else found


def _flat(value: Mapping[str, Any], head: str = "") -> list[tuple[str, Any]]:
    """Leaves by their path; an empty mapping is a leaf."""
    pairs: list[tuple[str, Any]] = []
    for key, item in value.items():
        path = f"{head}{key}"
        pairs += _flat(item, f"{path}.") if isinstance(item, Mapping) and item else [(path, item)]
    return pairs


def _of_one(fields: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    return {group: _joined([_said(key, own[key]) for key in BASIC if key in own]) for group, own in fields.items()}


def _apart(fields: Mapping[str, dict[str, Any]]) -> dict[str, str]:
    """Differing fields in the order of `_WORDS`, hashes last, as few as tell the groups apart and at least `MOST`."""
    keys = dict.fromkeys(key for own in fields.values() for key in own)
    unlike = [key for key in keys if len({_spelled(own.get(key, _ABSENT)) for own in fields.values()}) > 1]
    readable = sorted((key for key in unlike if not _is_hash(key)), key=_place)
    hashes = sorted((key for key in unlike if _is_hash(key)), key=_place)
    texts: dict[str, str] = {}
    for count in range(min(MOST, len(readable)), len(unlike) + 1):
        used = [*readable, *hashes][:count]
        texts = {group: _joined([_said(key, own.get(key, _ABSENT)) for key in used]) for group, own in fields.items()}
        if len(set(texts.values())) == len(texts):
            break
    return _unique(texts)


def _unique(texts: Mapping[str, str]) -> dict[str, str]:
    """Texts that shortening made equal get the group's id."""
    times = Counter(texts.values())
    return {group: text if times[text] == 1 else f"{text}, group {group}" for group, text in texts.items()}


def _place(key: str) -> tuple[int, str]:
    return _ORDER.get(key, len(_ORDER)), key


def _is_hash(key: str) -> bool:
    return key.endswith(("sha256", "fingerprint"))


def _said(key: str, value: Any) -> str:
    name = key.removeprefix("options.").replace("_", " ")
    if value is _ABSENT:
        return f"no {name.partition('.')[0]}"
    text = _spelled(value)[:8] if _is_hash(key) else _short(_spelled(value))
    return _WORDS[key].format(text) if key in _WORDS else f"{name} = {text}"


def _spelled(value: Any) -> str:
    if value is _ABSENT:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:28]}…{text[-9:]}"


def _joined(parts: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(part for part in parts if part))
