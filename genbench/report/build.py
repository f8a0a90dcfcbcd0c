"""Assembling the report: everything a run left behind in one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from genbench import __version__
from genbench.files import write_text
from genbench.record import SCHEMA_VERSION, Record
from genbench.report.audit import audit
from genbench.report.charts import Chart, family_colours, time_chart, tradeoff, training_chart
from genbench.report.findings import key_figures, sentence
from genbench.report.grids import Picture, pairs, picture, square_grid
from genbench.report.likelihood import likelihood_table
from genbench.report.load import Row, Run, flat_seconds, read_run
from genbench.report.names import format_seconds
from genbench.report.tables import CEILING, columns, compare, interval_text, labels

SCRIPTS = ("vendor/sortable.min.js", "vendor/plotly-basic.min.js", "app.js")


@dataclass(frozen=True)
class Gallery:
    """The pictures of one row, by section; None where the row has none."""

    label: str
    record: Record
    samples: Picture | None = None
    reconstructions: Picture | None = None
    interpolations: Picture | None = None
    inpaintings: Picture | None = None
    neighbours: Picture | None = None


def build_report(run_dir: Path) -> Path:
    """Write ``run_dir/report/index.html`` atomically from the run's records, samples and gallery; returns its path.

    What is missing or damaged is noted in the report.

    Raises:
        UsageError: ``run_dir`` is not the folder of a run.
    """
    run = read_run(Path(run_dir))
    path = Path(run_dir) / "report" / "index.html"
    write_text(path, render(run))
    return path


def render(run: Run) -> str:
    """The report as HTML."""
    records = run.records
    names = labels(records)
    colours = family_colours(records)
    real, galleries = _galleries(run, names)
    charts = _charts(records, names, colours)
    seconds = flat_seconds(run.manifest.get("stage_seconds"))
    elapsed, spent = _split_seconds(seconds)
    timing = time_chart(spent)
    shared = _shared_environment(records)
    drawn = [chart for chart in (*charts["tradeoffs"], *charts["training"], timing) if chart is not None]
    return _template().render(
        run=run,
        suite=_suite_name(run),
        facts=_facts(run),
        sentence=sentence(records),
        key_figures=key_figures(records),
        comparison=compare(records),
        likelihoods=likelihood_table(records, names),
        remarks=_remarks(records, names),
        colours=colours,
        real=real,
        galleries=galleries,
        charts=charts,
        timing=timing,
        elapsed=[(name, format_seconds(value)) for name, value in elapsed.items()],
        total_seconds=format_seconds(sum((elapsed or spent).values())) if seconds else None,
        chart_specs=[chart.spec() for chart in drawn],
        audit=audit(records),
        making=[_making(record, name, shared) for record, name in zip(records, names, strict=True)],
        environment=_pretty(shared) if shared else None,
        suite_fields=_pretty(run.manifest.get("suite", {})),
        versions={"genbench": __version__, "schema": SCHEMA_VERSION},
        policy=_content_policy(),
        style=Markup(_asset("style.css")),
        scripts=[Markup(_asset(name)) for name in SCRIPTS],
    )


@cache
def _asset(name: str) -> str:
    return (files("genbench.report") / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("template.html"))


def _content_policy() -> str:
    """A content security policy: nothing is fetched, and only genbench's own scripts run, known by their hashes."""
    hashes = (base64.b64encode(hashlib.sha256(_asset(name).encode()).digest()).decode() for name in SCRIPTS)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'"


def _charts(records: Sequence[Record], names: Sequence[str], colours: dict[str, int]) -> dict[str, list[Chart]]:
    quality = next((column for column in columns(records) if column.name == "fid"), None)
    costs = ("images_per_second", "parameters") if quality is not None else ()
    tradeoffs = [tradeoff(records, names, cost, quality, colours) for cost in costs if quality is not None]
    trained: dict[tuple[str, int], Chart | None] = {}
    for index, (record, name) in enumerate(zip(records, names, strict=True)):
        key = (record.model, record.seed)
        if not record.control and trained.get(key) is None:
            trained[key] = training_chart(record, name, colours[record.family], index)
    return {
        "tradeoffs": [c for c in tradeoffs if c is not None],
        "training": [c for c in trained.values() if c is not None],
    }


def _galleries(run: Run, names: Sequence[str]) -> tuple[Picture | None, list[Gallery]]:
    real: np.ndarray | None = None
    galleries = []
    for row, name in zip(run.rows, names, strict=True):
        arrays = run.gallery(row)
        samples = run.samples(row)
        if "real" in arrays and (real is None or len(arrays["real"]) > len(real)):
            real = arrays["real"]
        galleries.append(_row_gallery(run, row, name, samples, arrays))
    if real is None or len(real) < 64:
        for row in run.rows:
            test = run.samples(row) if row.record.control and row.record.model == CEILING else None
            real = test if test is not None else real
    return None if real is None else square_grid(real, "Real images of the test split"), galleries


def _row_gallery(run: Run, row: Row, name: str, samples: np.ndarray | None, arrays: dict[str, np.ndarray]) -> Gallery:
    def drawn(make: Callable[..., Picture], what: str, *parts: str) -> Picture | None:
        if not all(part in arrays for part in parts):
            return None
        try:
            return make(*(arrays[part] for part in parts), alt=what)
        except ValueError as error:
            run.notes.append(f"gallery/{row.stem}.npz: {' and '.join(parts)} do not fit together ({error}): left out.")
            return None

    return Gallery(
        name,
        row.record,
        None if samples is None else square_grid(samples, f"Samples of {name}"),
        drawn(pairs, f"Test images above their reconstructions by {name}", "real", "reconstructions"),
        drawn(_paths, f"Latent interpolations of {name}, one path a row", "interpolations"),
        drawn(_paths, f"Upper halves of test images and completions by {name}, one image a row", "inpaintings"),
        drawn(pairs, f"Samples of {name} above their nearest training images", "nearest_samples", "nearest"),
    )


def _paths(images: np.ndarray, alt: str) -> Picture:
    return picture(images[:6, :12], alt)


def _suite_name(run: Run) -> str:
    suite = run.manifest.get("suite")
    if isinstance(suite, dict) and suite.get("name"):
        return str(suite["name"])
    return run.records[0].suite if run.records else run.folder.name


def _facts(run: Run) -> list[tuple[str, str]]:
    """Dataset, device, date and size of the run, as (term, description)."""
    facts: list[tuple[str, str]] = []
    if run.records:
        data = run.records[0].dataset
        channels, height, width = data.shape
        facts.append(("Dataset", f"{data.name} · {channels} × {height} × {width}, {data.levels} levels"))
        facts.append(("Split", f"{data.train:,} train · {data.validation:,} validation · {data.test:,} test"))
        facts.append(("Fingerprint", data.fingerprint[:12]))
        models = sum(not record.control for record in run.records)
        facts.append(("Rows", f"{models} models · {len(run.records) - models} controls"))
    devices = dict.fromkeys(_device(record) for record in run.records)
    facts.append(("Device", ", ".join(device for device in devices if device) or "not recorded"))
    created = [str(run.manifest.get("finished") or ""), *sorted((r.created for r in run.records), reverse=True)]
    date = next((text for text in created if text), "")
    facts.append(("Date", date[:16].replace("T", " ") + " UTC" if date else "not recorded"))
    command = run.manifest.get("command")
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
            remarks = [str(note) for note in _listed(metric.provenance.get("notes"))]
            if metric.status != "ok":
                remarks.append(f"{metric.status.replace('_', ' ')}: {metric.reason}")
            for remark in remarks:
                rows.setdefault((titles[metric.name, metric.extractor], remark), []).append(name)
    return [(title, reason, ", ".join(found)) for (title, reason), found in rows.items()]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _shared_environment(records: Sequence[Record]) -> dict[str, Any]:
    """Entries of the environment that all records share."""
    if not records:
        return {}
    first = records[0].environment
    return {key: value for key, value in first.items() if all(r.environment.get(key) == value for r in records)}


def _making(record: Record, name: str, shared: dict[str, Any]) -> dict[str, Any]:
    """How one row was made: settings, training, timing, keys, and the passport of each metric."""
    training = record.training.model_dump(exclude={"curves"}) if record.training else None
    metrics = [
        {
            "title": f"{column.title}",
            "estimator": metric.estimator,
            "value": "–" if metric.value is None else f"{metric.value:.6g} {interval_text(metric)}".strip(),
            "n": metric.n,
            "comparable": _flat(metric.comparable),
            "provenance": _flat(metric.provenance),
        }
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
    return {
        "label": name,
        "record": record,
        "parts": [(title, _pretty(value)) for title, value in parts.items() if value],
        "metrics": metrics,
    }


def _flat(values: dict[str, Any]) -> str:
    texts = {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in values.items()}
    return "; ".join(f"{key}: {text}" for key, text in texts.items())
