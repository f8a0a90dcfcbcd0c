"""From a leaderboard's folder to its `Board`: pooled seeds, ranks, Pareto fronts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from genbench import __version__
from genbench.check.collect import Entry
from genbench.leaderboard.board import Board, Cell, Metric, Pareto, Row, Tier
from genbench.leaderboard.folder import Folder, describe_suite, read_card, read_folder, read_grid
from genbench.leaderboard.literature import Published
from genbench.leaderboard.rank import front, rank_intervals
from genbench.record import MetricResult, Record
from genbench.report.names import DASH, format_value
from genbench.report.seeds import Pooled, group_of, pool
from genbench.report.tables import UNRANKED, Column, columns, interval_text, value_text

QUALITIES = ("quality", "likelihood", "reconstruction")
COSTS = {"images_per_second": True, "parameters": False}
"""What quality is held against, and whether more of it is better."""

Pools = dict[str, dict[str, Pooled]]
"""By key of the metric, then by id of the row."""


@dataclass(frozen=True)
class _Keyed:
    """A column of the records, with its key on the board."""

    key: str
    column: Column


def make_board(folder: Path) -> Board:
    """Read a leaderboard's folder and rank it.

    Raises:
        UsageError: not the folder of a leaderboard.
        DataError: something in it is damaged; the message names the file.
    """
    return board_of(read_folder(folder))


def board_of(source: Folder) -> Board:
    """The board of a folder that was read."""
    keyed = _columns(source)
    names = [*source.entries, *(f"reported-{one.system}" for one in source.literature)]
    ids = _unique([slug(name) for name in names])
    pools: Pools = {one.key: {} for one in keyed}
    measured = []
    for row_id, entries in zip(ids, source.entries.values(), strict=False):
        for one in keyed:
            pooled = pool([entry.record for entry in entries], one.column.name, one.column.extractor)
            if pooled is not None:
                pools[one.key][row_id] = pooled
        measured.append(_row(source, row_id, entries))
    ranked = {row.id for row in measured if not row.control}
    ranks = {one.key: _ranks(pools[one.key], one.column, ranked) for one in keyed}
    rows = [replace(row, cells=_cells(row.id, pools, ranks)) for row in measured]
    by_key = {(one.column.name, one.column.extractor): one.key for one in keyed}
    reported = zip(ids[len(measured) :], source.literature, strict=True)
    rows += [_reported(row_id, one, by_key) for row_id, one in reported]
    records = [entry.record for entry in source.records]
    return Board(
        suite=source.suite,
        title=f"Leaderboard: {source.suite}",
        description=describe_suite(source.suite) or _described(records),
        generated=datetime.now(UTC).date().isoformat(),
        genbench_version=__version__,
        rules=source.rules,
        metrics=_metrics(keyed, source, records),
        rows=rows,
        pareto=_fronts(keyed, pools, ranked),
    )


def _described(records: Sequence[Record]) -> str:
    if not records:
        return ""
    data = records[0].dataset
    return f"{data.name}: {data.train:,} training, {data.validation:,} validation and {data.test:,} test images."


def _columns(source: Folder) -> list[_Keyed]:
    """Columns of the records and of the published results, in the order of the report, with unique keys."""
    published = [value.as_metric() for one in source.literature for value in one.metrics]
    stand_ins = [_stand_in(metric) for metric in published]
    found = columns([*(entry.record for entry in source.records), *stand_ins])
    keys = _unique([slug(f"{c.name}.{c.extractor}" if c.extractor else c.name) for c in found])
    return [_Keyed(key, column) for key, column in zip(keys, found, strict=True)]


def _stand_in(metric: MetricResult) -> Record:
    """A record with nothing but one metric, which is all that `columns` looks at."""
    return Record.model_construct(None, metrics=[metric])  # type: ignore[call-arg]


def _metrics(keyed: Sequence[_Keyed], source: Folder, records: Sequence[Record]) -> list[Metric]:
    published = [value.as_metric() for one in source.literature for value in one.metrics]
    units = {(m.name, m.extractor): m.unit for m in (*published, *(m for record in records for m in record.metrics))}
    return [
        Metric(
            key=one.key,
            label=one.column.title,
            unit=units[one.column.name, one.column.extractor],
            higher_is_better=one.column.higher_is_better,
            group=one.column.group,
            meaning=one.column.meaning,
            name=one.column.name,
            extractor=one.column.extractor or "",
        )
        for one in keyed
    ]


def slug(text: str) -> str:
    """``text`` with what an address or a file name cannot hold as hyphens."""
    return re.sub(r"[^A-Za-z0-9_.@-]+", "-", text).strip("-.") or "row"


def _unique(names: Sequence[str]) -> list[str]:
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return made


def _row(source: Folder, row_id: str, entries: Sequence[Entry]) -> Row:
    first = entries[0].record
    verified = all(source.is_verified(entry) for entry in entries)
    tier: Tier = "reproduced" if verified else "self-run"
    training = first.training
    times = [entry.record.training.seconds for entry in entries if entry.record.training is not None]
    environments = [entry.record.environment for entry in entries]
    extractors = Counter(m.extractor for m in first.metrics if m.extractor)
    return Row(
        id=row_id,
        label=first.row,
        model=first.model,
        variant=first.variant or "",
        family=first.family,
        tier=tier,
        control=first.control,
        device=", ".join(dict.fromkeys(_device(environment) for environment in environments)),
        extractor=extractors.most_common(1)[0][0] or "" if extractors else "",
        seeds=[entry.record.seed for entry in entries],
        parameters=training.parameters if training is not None and not first.control else None,
        training_seconds=sum(times) / len(times) if times else None,
        source=f"genbench {first.genbench_version}, {first.created[:10]}",
        confirmed=True,
        card="" if first.control else read_card(first.model),
        grid=read_grid(source.path, first.row),
        record=f"records/{entries[0].path.name}",
        cells={},
    )


def _device(environment: Mapping[str, object]) -> str:
    device = str(environment.get("device") or "")
    return str(environment.get("cpu") or device) if device == "cpu" else device


def _ranks(pools: Mapping[str, Pooled], column: Column, ranked: set[str]) -> dict[str, tuple[int, int]]:
    """Rank intervals of the rows that have one: models of equal `comparable`, two of them at least, with intervals."""
    if column.higher_is_better is None or column.name == UNRANKED:
        return {}
    found: dict[str, tuple[int, int]] = {}
    for group in _groups(pools, ranked).values():
        if len(group) > 1:
            found |= rank_intervals(group, column.higher_is_better)
    return found


def _groups(pools: Mapping[str, Pooled], ranked: set[str]) -> dict[str, dict[str, MetricResult]]:
    groups: dict[str, dict[str, MetricResult]] = {}
    for row_id, pooled in pools.items():
        metric = pooled.metric
        if row_id in ranked and metric.value is not None and (metric.ci95 is not None or metric.kind == "exact"):
            groups.setdefault(group_of(metric), {})[row_id] = metric
    return groups


def _cells(row_id: str, pools: Pools, ranks: Mapping[str, Mapping[str, tuple[int, int]]]) -> dict[str, Cell]:
    return {key: _cell(found[row_id], ranks[key].get(row_id)) for key, found in pools.items() if row_id in found}


def _cell(pooled: Pooled, rank: tuple[int, int] | None) -> Cell:
    metric = pooled.metric
    if metric.value is None:
        text = "failed" if metric.status == "failed" else DASH
        return Cell(text=text, status=metric.status, reason=metric.reason or "")
    low, high = metric.ci95 or (None, None)
    spread = "" if pooled.spread is None else f" ± {format_value(metric.name, pooled.spread)}"
    return Cell(
        value=metric.value,
        low=low,
        high=high,
        kind=metric.kind,
        estimator=metric.estimator,
        text=value_text(metric) + spread,
        interval=interval_text(metric),
        group=group_of(metric),
        rank=rank,
        seeds=list(pooled.values.values()),
        spread=pooled.spread,
        reason=pooled.note,
    )


def _reported(row_id: str, one: Published, keys: Mapping[tuple[str, str | None], str]) -> Row:
    cells = {}
    for value in one.metrics:
        metric, confirmed = value.as_metric(), one.is_confirmed(value)
        cells[keys[value.name, value.extractor]] = Cell(
            value=metric.value,
            kind=value.kind,
            estimator=value.estimator,
            text=value.text + ("" if confirmed else " ?"),
            group=value.group,
            reason="; ".join(part for part in (value.protocol, value.source) if part),
            confirmed=confirmed,
        )
    return Row(
        id=row_id,
        label=one.system,
        model=one.model,
        variant="",
        family=one.family,
        tier="reported",
        control=False,
        device="",
        extractor=next((value.extractor for value in one.metrics if value.extractor), ""),
        seeds=[],
        parameters=None,
        training_seconds=None,
        source="; ".join(part for part in (one.source, one.notes) if part),
        confirmed=all(cell.confirmed for cell in cells.values()),
        card=read_card(one.model),
        grid="",
        record="",
        cells=cells,
    )


def _fronts(keyed: Sequence[_Keyed], pools: Pools, ranked: set[str]) -> list[Pareto]:
    """A front for each metric of quality and each cost, in each pair of groups that has at least two rows."""
    made: list[Pareto] = []
    costs = [one for one in keyed if one.column.name in COSTS]
    for one, cost in product(keyed, costs):
        up = one.column.higher_is_better
        if one.column.group not in QUALITIES or up is None or one.column.name == UNRANKED:
            continue
        found = []
        pairs = product(_groups(pools[one.key], ranked).items(), _groups(pools[cost.key], ranked).items())
        for (group, quality), (cost_group, spent) in pairs:
            both = {row_id: metric for row_id, metric in quality.items() if row_id in spent}
            if len(both) > 1:
                kept = front(both, {row_id: spent[row_id] for row_id in both}, (up, COSTS[cost.column.name]))
                found.append((len(both), Pareto(one.key, cost.key, (group, cost_group), kept)))
        made += [pareto for _, pareto in sorted(found, key=lambda pair: -pair[0])]
    return made
