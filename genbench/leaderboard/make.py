"""From a leaderboard's folder to its `Board`: pooled seeds, ranks, Pareto fronts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

from genbench import __version__, registry
from genbench.check.collect import Entry
from genbench.check.speed import SPEED_METRICS, contended
from genbench.errors import DataError
from genbench.leaderboard.board import Board, Cell, Metric, Pareto, Row, Tier
from genbench.leaderboard.folder import Folder, describe_suite, read_card, read_folder, read_grid
from genbench.leaderboard.groups import group_texts
from genbench.leaderboard.ids import metric_key, published_id, row_id
from genbench.leaderboard.literature import Published
from genbench.leaderboard.marks import Mark
from genbench.leaderboard.rank import front, rank_intervals
from genbench.leaderboard.rules import QUALITIES, unfit_for_print
from genbench.metrics import load_metric
from genbench.record import MetricResult, Record
from genbench.report.names import DASH, format_value
from genbench.report.seeds import Pooled, group_of, pool
from genbench.report.tables import UNRANKED, Column, columns, interval_text, value_text

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
    """The board of a folder that was read.

    Raises:
        DataError: a record holds what cannot be written down; the message names the file.
    """
    for entry in source.records:
        unfit = unfit_for_print(entry.record)
        if unfit:
            raise DataError(f"{entry.path}: {unfit}")
    keyed = _columns(source)
    pools: Pools = {one.key: {} for one in keyed}
    measured = []
    marks: dict[str, dict[int, Mark]] = {}
    for name, entries in source.entries.items():
        key = row_id(name)
        for one in keyed:
            pooled = pool([entry.record for entry in entries], one.column.name, one.column.extractor)
            if pooled is not None:
                pools[one.key][key] = _unless_slowed(pooled, entries) if one.column.name in SPEED_METRICS else pooled
        marks[key] = {e.record.seed: source.marks[e.path.stem] for e in entries if source.is_verified(e)}
        measured.append(_row(source, key, entries, marks[key]))
    ranked = {row.id for row in measured if not row.control}
    ranks = {one.key: _ranks(pools[one.key], one.column, ranked) for one in keyed}
    rows = [replace(row, cells=_cells(row.id, pools, ranks, marks[row.id])) for row in measured]
    by_key = {(one.column.name, one.column.extractor): one.key for one in keyed}
    rows += [_reported(one, by_key) for one in source.literature]
    records = [entry.record for entry in source.records]
    return Board(
        suite=source.suite,
        title=f"Leaderboard: {source.suite}",
        description=describe_suite(source.suite) or _described(records),
        generated=datetime.now(UTC).date().isoformat(),
        genbench_version=__version__,
        rules=source.rules,
        metrics=_metrics(keyed, source, records, pools),
        rows=rows,
        pareto=_fronts(keyed, pools, ranked),
    )


def _unless_slowed(pooled: Pooled, entries: Sequence[Entry]) -> Pooled:
    """A speed; one that says more of the machine than of the model is shown with a note and has no rank."""
    told = next((told for entry in entries if (told := contended(entry.record))), "")
    notes = [note for note in (pooled.note, f"{told}: not ranked") if note]
    return replace(pooled, note="; ".join(notes), fair=False) if told else pooled


def _described(records: Sequence[Record]) -> str:
    if not records:
        return ""
    data = records[0].dataset
    return f"{data.name}: {data.train:,} training, {data.validation:,} validation and {data.test:,} test images."


def _columns(source: Folder) -> list[_Keyed]:
    """Columns of the records and of the published results, in the order of the report; nats per image lead, for a suite
    that measures them is about them.

    Which direction is better is a registered metric's own word, not that of a record.
    """
    published = [value.as_metric() for one in source.literature for value in one.metrics]
    stand_ins = [_stand_in(metric) for metric in published]
    found = columns([*(entry.record for entry in source.records), *stand_ins])
    found.sort(key=lambda column: column.name != "nats_per_image")
    return [_Keyed(metric_key(one.name, one.extractor), _with_own_direction(one)) for one in found]


def _with_own_direction(column: Column) -> Column:
    known = column.name in registry.names("metrics")
    return replace(column, higher_is_better=load_metric(column.name).higher_is_better) if known else column


def _stand_in(metric: MetricResult) -> Record:
    """A record with nothing but one metric, which is all that `columns` looks at."""
    return Record.model_construct(None, metrics=[metric])  # type: ignore[call-arg]


def _metrics(keyed: Sequence[_Keyed], source: Folder, records: Sequence[Record], pools: Pools) -> list[Metric]:
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
            groups=group_texts(_examples(one, pools[one.key], source)),
        )
        for one in keyed
    ]


def _examples(keyed: _Keyed, pools: Mapping[str, Pooled], source: Folder) -> dict[str, MetricResult]:
    """A result of each group of a column, those of published results too."""
    found = {group_of(one.metric): one.metric for one in pools.values() if one.metric.value is not None}
    for value in (value for one in source.literature for value in one.metrics):
        if (value.name, value.extractor) == (keyed.column.name, keyed.column.extractor):
            found[value.group] = value.as_metric()
    return found


def _row(source: Folder, key: str, entries: Sequence[Entry], marks: Mapping[int, Mark]) -> Row:
    first = entries[0].record
    tier: Tier = "reproduced" if len(marks) == len(entries) else "self-run"
    training = first.training
    times = [entry.record.training.seconds for entry in entries if entry.record.training is not None]
    environments = [entry.record.environment for entry in entries]
    extractors = Counter(m.extractor for m in first.metrics if m.extractor)
    return Row(
        id=key,
        label=first.row,
        model=first.model,
        variant=first.variant or "",
        family=first.family,
        tier=tier,
        control=first.control,
        devices=[name for name in dict.fromkeys(map(_device, environments)) if name],
        extractors=[name for name, _ in extractors.most_common()],
        seeds=[entry.record.seed for entry in entries],
        parameters=training.parameters if training is not None and not first.control else None,
        training_seconds=sum(times) / len(times) if times else None,
        source=f"genbench {first.genbench_version}, {first.created[:10]}",
        confirmed=True,
        card="" if first.control else read_card(first.model),
        grid=read_grid(source.path, first.row),
        record=f"records/{entries[0].path.name}",
        cells={},
        verified="; ".join(
            f"seed {seed}: {mark.told}" if len(entries) > 1 else mark.told for seed, mark in marks.items()
        ),
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
    for row, pooled in pools.items():
        metric = pooled.metric
        known = metric.ci95 is not None or metric.kind == "exact"
        if row in ranked and pooled.fair and known and metric.value is not None:
            groups.setdefault(group_of(metric), {})[row] = metric
    return groups


def _cells(
    row: str, pools: Pools, ranks: Mapping[str, Mapping[str, tuple[int, int]]], marks: Mapping[int, Mark]
) -> dict[str, Cell]:
    return {key: _cell(found[row], ranks[key].get(row), marks) for key, found in pools.items() if row in found}


def _cell(pooled: Pooled, rank: tuple[int, int] | None, marks: Mapping[int, Mark]) -> Cell:
    metric = pooled.metric
    if metric.value is None:
        text = "failed" if metric.status == "failed" else DASH
        return Cell(text=text, status=metric.status, reason=metric.reason or "")
    low, high = metric.ci95 or (None, None)
    spread = "" if not pooled.spread else f" ± {format_value(metric.name, pooled.spread)}"
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
        reproduced=all(
            seed in marks and f"{metric.name}.{metric.estimator}" in marks[seed].metrics
            for seed, value in pooled.values.items()
            if value is not None
        ),
    )


def _reported(one: Published, keys: Mapping[tuple[str, str | None], str]) -> Row:
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
        id=published_id(one.system),
        label=one.system,
        model=one.model,
        variant="",
        family=one.family,
        tier="reported",
        control=False,
        devices=[],
        extractors=list(dict.fromkeys(value.extractor for value in one.metrics if value.extractor)),
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
            both = {row: metric for row, metric in quality.items() if row in spent}
            if len(both) > 1:
                kept = front(both, {row: spent[row] for row in both}, (up, COSTS[cost.column.name]))
                found.append((len(both), Pareto(one.key, cost.key, (group, cost_group), kept)))
        made += [pareto for _, pareto in sorted(found, key=lambda pair: -pair[0])]
    return made
