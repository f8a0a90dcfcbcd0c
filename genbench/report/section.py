"""A suite's part of a report: rows side by side with their tables, pictures and charts, ready for the page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from genbench.check.speed import SPEED_METRICS, contended
from genbench.record import MetricResult, Record
from genbench.report.audit import Audit, audit
from genbench.report.charts import Chart, family_colours, time_chart, tradeoff, training_chart
from genbench.report.differences import Differences, differences
from genbench.report.findings import KeyFigure, key_figures, sentence
from genbench.report.grids import Picture
from genbench.report.likelihood import LikelihoodTable, likelihood_table
from genbench.report.load import flat_seconds
from genbench.report.names import DASH, format_seconds, format_value
from genbench.report.pictures import Pictures, pictures_of, real_picture
from genbench.report.rows import Part, Row
from genbench.report.sources import Source
from genbench.report.tables import MAIN_COLUMNS, Column, Comparison, columns, compare, interval_text


@dataclass(frozen=True)
class Gallery:
    """The pictures of one row, by kind."""

    label: str
    record: Record
    pictures: Pictures


@dataclass(frozen=True)
class Making:
    """How one record was made. parts: (title, JSON). metrics: the passport of each number."""

    label: str
    record: Record
    parts: list[tuple[str, str]]
    metrics: list[dict[str, Any]]


@dataclass(frozen=True)
class SeedRow:
    """Each seed's value of the main metrics, as text."""

    label: str
    record: Record
    seeds: list[int]
    cells: list[str]


@dataclass(frozen=True)
class Section:
    """One suite. prefix: of the ids of its elements, empty in a page of one suite."""

    prefix: str
    suite: str
    title: str
    facts: list[tuple[str, str]]
    notes: list[str]
    sentence: str
    key_figures: list[KeyFigure]
    rows: list[Row]
    comparison: Comparison
    likelihoods: LikelihoodTable | None
    differences: Differences | None
    seed_columns: list[Column]
    seeds: list[SeedRow]
    remarks: list[tuple[str, str, str]]
    colours: dict[str, int]
    real: Picture | None
    galleries: list[Gallery]
    tradeoffs: list[Chart]
    training: list[Chart]
    timing: Chart | None
    elapsed: list[tuple[str, str]]
    total_seconds: str | None
    is_run: bool
    audit: Audit | None
    making: list[Making]
    environment: str | None
    suite_fields: str

    @property
    def records(self) -> list[Record]:
        return [row.record for row in self.rows]

    @property
    def labels(self) -> list[str]:
        return [row.label for row in self.rows]

    def with_pictures(self, kind: str) -> list[Gallery]:
        """The galleries that have pictures of a kind."""
        return [gallery for gallery in self.galleries if kind in gallery.pictures]

    @property
    def charts(self) -> list[Chart]:
        return [*self.tradeoffs, *self.training, *([] if self.timing is None else [self.timing])]


def make_section(
    suite: str,
    rows: Sequence[Row],
    sources: Sequence[Source],
    *,
    prefix: str = "",
    baseline: str | None = None,
    notes: Sequence[str] = (),
) -> Section:
    """A suite's section. sources: those of its records; the times of a single run are shown too."""
    rows = list(rows)
    records, names = [row.record for row in rows], [row.label for row in rows]
    colours = family_colours(records)
    run = sources[0].run if len(sources) == 1 else None
    galleries = [Gallery(row.label, row.record, pictures_of(row)) for row in rows]
    real = real_picture(rows)
    manifest = {} if run is None else run.manifest
    seconds = flat_seconds(manifest.get("stage_seconds"))
    elapsed, spent = _split_seconds(seconds)
    parts = [part for row in rows for part in row.parts]
    shared = _shared_environment([part.record for part in parts])
    seed_columns, seeds = _each_seed(rows)
    compared = None if baseline is None else differences(rows, baseline)
    noted = [*notes, *([] if baseline is None or compared else [f"There is no row or source '{baseline}' here."])]
    noted += [f"{s.name}: {note}" if len(sources) > 1 else note for s in sources for note in s.faults]
    return Section(
        prefix=prefix,
        suite=suite,
        title=suite,
        facts=_facts(records, parts, sources, manifest),
        notes=noted,
        sentence=sentence(records, names),
        key_figures=key_figures(records, names),
        rows=rows,
        comparison=compare(records, names),
        likelihoods=likelihood_table(records, names),
        differences=compared,
        seed_columns=seed_columns,
        seeds=seeds,
        remarks=_remarks(records, names),
        colours=colours,
        real=real,
        galleries=galleries,
        tradeoffs=[_prefixed(chart, prefix) for chart in _tradeoffs(records, names, colours)],
        training=[_prefixed(chart, prefix) for chart in _training(rows, colours)],
        timing=_prefixed(chart, prefix) if (chart := time_chart(spent)) else None,
        elapsed=[(name, format_seconds(value)) for name, value in elapsed.items()],
        total_seconds=format_seconds(sum((elapsed or spent).values())) if seconds else None,
        is_run=run is not None,
        audit=audit(records, names),
        making=[_making(part.record, label, shared) for part, label in _part_labels(rows)],
        environment=_pretty(shared) if shared else None,
        suite_fields=_pretty(manifest["suite"]) if manifest.get("suite") else "",
    )


def _prefixed(chart: Chart, prefix: str) -> Chart:
    return replace(chart, id=prefix + chart.id)


def _tradeoffs(records: Sequence[Record], names: Sequence[str], colours: dict[str, int]) -> list[Chart]:
    quality = next((column for column in columns(records) if column.name == "fid"), None)
    if quality is None:
        return []
    made = [tradeoff(records, names, cost, quality, colours) for cost in ("images_per_second", "parameters")]
    return [chart for chart in made if chart is not None]


def _training(rows: Sequence[Row], colours: dict[str, int]) -> list[Chart]:
    """One chart a training: variants of a model share theirs."""
    trained: dict[tuple[str, ...], Chart | None] = {}
    for index, row in enumerate(rows):
        record = row.record
        origin = row.parts[0]
        key = (record.model, str(origin.record.seed), origin.source.name, json.dumps(record.config, sort_keys=True))
        if not record.control and trained.get(key) is None:
            trained[key] = training_chart(record, row.label, colours[record.family], index)
    return [chart for chart in trained.values() if chart is not None]


def _part_labels(rows: Sequence[Row]) -> list[tuple[Part, str]]:
    """Every record of every row, with the row's label and the seed where there are several in the report."""
    several = len({part.record.seed for row in rows for part in row.parts}) > 1
    return [(p, f"{row.label} (seed {p.record.seed})" if several else row.label) for row in rows for p in row.parts]


def _each_seed(rows: Sequence[Row]) -> tuple[list[Column], list[SeedRow]]:
    """The main columns of rows that have several seeds, with each seed's value and their standard deviation."""
    several = [row for row in rows if len(row.parts) > 1]
    found = columns([row.record for row in several])
    shown = [column for name in MAIN_COLUMNS for column in found if column.name == name]
    made = [SeedRow(r.label, r.record, r.seeds, [_seed_cell(r, column) for column in shown]) for r in several]
    return shown, made


def _seed_cell(row: Row, column: Column) -> str:
    mean = column.of(row.record)
    seeds = None if mean is None else mean.provenance.get("seeds")
    if mean is None or not isinstance(seeds, dict):
        return DASH
    values = [None if value is None else float(value) for value in seeds.values()]
    known = [value for value in values if value is not None]
    text = ", ".join(DASH if value is None else format_value(column.name, value) for value in values)
    if len(known) < 2:
        return text
    spread = math.hypot(*(value - sum(known) / len(known) for value in known)) / math.sqrt(len(known) - 1)
    return f"{text} (± {format_value(column.name, spread)})"


def _facts(
    records: Sequence[Record], parts: Sequence[Part], sources: Sequence[Source], manifest: dict[str, Any]
) -> list[tuple[str, str]]:
    """Sources, dataset, device, date and size, as (term, description)."""
    facts: list[tuple[str, str]] = []
    if len(sources) > 1:
        facts.append(("Sources", " · ".join(source.name for source in sources)))
    if records:
        data = records[0].dataset
        channels, height, width = data.shape
        facts.append(("Dataset", f"{data.name} · {channels} × {height} × {width}, {data.levels} levels"))
        facts.append(("Split", f"{data.train:,} train · {data.validation:,} validation · {data.test:,} test"))
        facts.append(("Fingerprint", ", ".join(dict.fromkeys(record.dataset.fingerprint[:12] for record in records))))
        models = sum(not record.control for record in records)
        facts.append(("Rows", f"{models} models · {len(records) - models} controls"))
        seeds = sorted({part.record.seed for part in parts})
        if len(seeds) > 1:
            facts.append(("Seeds", ", ".join(map(str, seeds))))
    devices = dict.fromkeys(_device(part.record) for part in parts)
    facts.append(("Device", ", ".join(device for device in devices if device) or "not recorded"))
    created = [str(manifest.get("finished") or ""), *sorted((p.record.created for p in parts), reverse=True)]
    date = next((text for text in created if text), "")
    facts.append(("Date", date[:16].replace("T", " ") + " UTC" if date else "not recorded"))
    command = manifest.get("command")
    if command:
        facts.append(("Command", " ".join(map(str, command)) if isinstance(command, list) else str(command)))
    return facts


def _device(record: Record) -> str:
    """Device, processor and threads, as far as the record knows them."""
    known = record.environment
    threads = known.get("threads", record.timing.threads if record.timing else None)
    parts = [
        str(known.get("device") or (record.timing.device if record.timing else "")),
        str(known.get("cpu") or ""),
        "" if threads is None else f"{threads} thread" + ("s" if threads != 1 else ""),
    ]
    return " · ".join(part for part in parts if part)


def _split_seconds(seconds: dict[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Elapsed time by phase (entries named ``"... (wall)"``), and time spent in processes by stage."""
    wall = " (wall)"
    elapsed = {name.removesuffix(wall): value for name, value in seconds.items() if name.endswith(wall)}
    return elapsed, {name: value for name, value in seconds.items() if not name.endswith(wall)}


def _remarks(records: Sequence[Record], names: Sequence[str]) -> list[tuple[str, str, str]]:
    """(metric, remark, rows) of every value that is missing for a reason or comes with a warning."""
    rows: dict[tuple[str, str], list[str]] = {}
    titles = {(c.name, c.extractor): c.title for c in columns(records)}
    for record, name in zip(records, names, strict=True):
        for metric in record.metrics:
            notes = metric.provenance.get("notes")
            remarks = [str(note) for note in notes] if isinstance(notes, list) else []
            if metric.name in SPEED_METRICS and metric.status == "ok" and contended(record):
                remarks.append(f"{contended(record)}: not ranked, not compared")
            if metric.status != "ok":
                remarks.append(f"{metric.status.replace('_', ' ')}: {metric.reason}")
            for remark in remarks:
                rows.setdefault((titles[metric.name, metric.extractor], remark), []).append(name)
    return [(title, reason, ", ".join(found)) for (title, reason), found in rows.items()]


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _shared_environment(records: Sequence[Record]) -> dict[str, Any]:
    """Entries of the environment that all records share."""
    if not records:
        return {}
    first = records[0].environment
    return {key: value for key, value in first.items() if all(r.environment.get(key) == value for r in records)}


def _making(record: Record, name: str, shared: dict[str, Any]) -> Making:
    """How one record was made: settings, training, timing, keys, and the passport of each metric."""
    training = record.training.model_dump(exclude={"curves"}) if record.training else None
    metrics = [
        _passport(column, metric)
        for column in columns([record])
        for metric in record.metrics
        if (metric.name, metric.extractor) == (column.name, column.extractor)
    ]
    parts = {
        "Config": record.config,
        "Training": training,
        "Timing": record.timing.model_dump() if record.timing else None,
        "Environment of this row alone": {k: v for k, v in record.environment.items() if k not in shared},
        "Keys": record.keys,
    }
    return Making(name, record, [(title, _pretty(value)) for title, value in parts.items() if value], metrics)


def _passport(column: Column, metric: MetricResult) -> dict[str, Any]:
    return {
        "title": column.title,
        "estimator": metric.estimator,
        "value": DASH if metric.value is None else f"{metric.value:.6g} {interval_text(metric)}".strip(),
        "n": metric.n,
        "comparable": _flat(metric.comparable),
        "provenance": _flat(metric.provenance),
    }


def _flat(values: dict[str, Any]) -> str:
    texts = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in values.items()}
    return "; ".join(f"{key}: {text}" for key, text in texts.items())
