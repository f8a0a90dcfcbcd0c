"""The result record: everything that report, leaderboard and check read, one JSON file a row.

A record is written atomically and validated on reading and writing; `schema` exports its JSON Schema. Per-image scores
lie beside it in ``<row>.npz``, whose SHA-256 the record holds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genbench.errors import DataError
from genbench.files import write_json

SCHEMA_VERSION = 1

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""By schema version: what turns a record of it into one of the next. Who raises the version adds the old one's."""

MetricStatus = Literal["ok", "not_applicable", "failed"]
MetricKind = Literal["exact", "upper_bound", "lower_bound", "estimate"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


REPEATED = ("images_per_second", "latency_seconds")
"""Metrics whose ``n`` counts repetitions of one measurement: it says how well the value is known, not of what it is."""


class MetricResult(_Strict):
    """A number and how it was made. (name, estimator, extractor) is unique in a record."""

    name: str
    value: float | None
    ci95: tuple[float, float] | None = None
    """95 % interval of the metric's expectation at this n, over fresh samples."""
    n: int | None = None
    unit: str = ""
    higher_is_better: bool | None = None
    """None where the metric has a right value or is no measure of quality."""
    kind: MetricKind = "estimate"
    estimator: str = ""
    status: MetricStatus = "ok"
    reason: str | None = None
    extractor: str | None = None
    comparable: dict[str, Any] = {}
    """Identity of the measurement: rows rank together only where it is equal."""
    provenance: dict[str, Any] = {}
    """Where this value came from: interval method, warnings, cache keys, reference values."""

    @model_validator(mode="after")
    def _consistent(self) -> MetricResult:
        numbers = [self.value, *(self.ci95 or ())]
        if any(x is not None and not math.isfinite(x) for x in numbers):
            raise ValueError(
                f"metric '{self.name}': value and interval must be finite; else status 'failed' and a reason"
            )
        if self.status == "ok" and self.value is None:
            raise ValueError(f"metric '{self.name}': status 'ok' needs a value")
        if self.status != "ok" and (self.value is not None or not self.reason):
            raise ValueError(f"metric '{self.name}': status '{self.status}' needs a reason and no value")
        return self

    @property
    def measured_as(self) -> dict[str, Any]:
        """What must be equal for two values to be compared: ``comparable``, without the number of repetitions."""
        return {key: value for key, value in self.comparable.items() if key != "n" or self.name not in REPEATED}


class Curve(_Strict):
    """A training curve: y over optimisation steps."""

    step: list[int]
    value: list[float | None]


class Training(_Strict):
    """What training did. Steps count optimisation steps; seconds exclude interruptions."""

    steps: int = 0
    budget_steps: int = 0
    best_step: int | None = None
    stopped_early: bool = False
    diverged: str | None = None
    """When and why training was stopped for figures that are not finite; the weights are the last good ones."""
    source: Literal["trained", "published"] = "trained"
    """Whether these weights were trained by this run, or are the published ones (the figures are of their training)."""
    seconds: float = 0.0
    images_per_second: float | None = None
    parameters: int = 0
    """Learned numbers: parameters, or the fitted buffers of a model that has none."""
    curves: dict[str, Curve] = {}
    figures: dict[str, float] = {}


class TimingWindow(_Strict):
    """Whole batches, one after the other.

    seconds: without those of the reference load. pace: its repetitions a second meanwhile (see `genbench.pace`). given:
    share of the time for which others did not hold the processor. Both are None where the load was not run.
    """

    images: int
    seconds: float
    pace: float | None = None
    given: float | None = None


class Timing(_Strict):
    """Sampling speed, from noise to uint8 pixels."""

    batch_size: int
    windows: list[TimingWindow]
    latency_seconds: list[float]
    """One image at a time, one entry a repetition."""
    latency_pace: list[float] | None = None
    """As that of windows, one entry a repetition."""
    reference_load: str | None = None
    """Name of the load behind the paces."""
    evaluations_per_image: float
    precision: str
    compiled: bool = False
    device: str
    threads: int
    peak_memory_bytes: int | None = None


class PerImage(_Strict):
    """The file of per-image arrays beside the record."""

    file: str
    sha256: str
    arrays: list[str]


class DatasetInfo(_Strict):
    name: str
    fingerprint: str
    levels: int
    shape: tuple[int, int, int]
    train: int
    validation: int
    test: int


class Record(_Strict):
    """One row of a suite: a model (or control), a variant of its sampler, and a seed."""

    schema_version: int = SCHEMA_VERSION
    genbench_version: str
    suite: str
    dataset: DatasetInfo
    model: str
    variant: str | None = None
    family: str
    control: bool = False
    config: dict[str, Any]
    seed: int
    status: Literal["ok", "failed"]
    reason: str | None = None
    metrics: list[MetricResult] = []
    timing: Timing | None = None
    training: Training | None = None
    per_image: PerImage | None = None
    environment: dict[str, Any] = {}
    keys: dict[str, str] = {}
    """Content keys of the stages that made this record (checkpoint, samples, ...)."""
    created: str = Field(description="UTC time, ISO 8601")

    @model_validator(mode="after")
    def _unique_metrics(self) -> Record:
        seen: set[tuple[str, str, str | None]] = set()
        for metric in self.metrics:
            key = (metric.name, metric.estimator, metric.extractor)
            if key in seen:
                raise ValueError(f"metric {key} appears twice; (name, estimator, extractor) must be unique")
            seen.add(key)
        if self.status == "failed" and not self.reason:
            raise ValueError("a failed record needs a reason")
        return self

    @property
    def row(self) -> str:
        """``model`` or ``model@variant``."""
        return f"{self.model}@{self.variant}" if self.variant else self.model

    @property
    def file_stem(self) -> str:
        return f"{self.row}-s{self.seed}"

    def find(self, name: str, estimator: str | None = None) -> MetricResult | None:
        """The first metric of this name (and estimator), or None."""
        for metric in self.metrics:
            if metric.name == name and estimator in (None, metric.estimator):
                return metric
        return None


def write_record(folder: Path, record: Record) -> Path:
    """Write ``folder/<row>-s<seed>.json`` atomically; returns its path."""
    path = Path(folder) / f"{record.file_stem}.json"
    checked = Record.model_validate(record.model_dump())
    write_json(path, checked.model_dump(mode="json"))
    return path


def read_record(path: Path) -> Record:
    """Read and validate a record.

    Raises:
        DataError: not JSON (truncated), unknown schema version, or fields that do not fit; the message names the file.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        json.dumps(value, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a readable record: {error}. Delete it and run again to make it anew.") from None
    try:
        return Record.model_validate(_migrated(path, value))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: not a valid record: {where}: {first['msg']}") from None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _migrated(path: Path, value: Any) -> dict[str, Any]:
    """A record of any released schema as one of this schema."""
    version = value.get("schema_version") if isinstance(value, dict) else None
    if type(version) is not int or version < 1 or version > SCHEMA_VERSION:
        mend = (
            "A newer genbench wrote it: update genbench, or make the record again with this one."
            if isinstance(version, int) and version > SCHEMA_VERSION
            else "It is no record of a released genbench: make it again with `genbench run`, or `genbench rescore` of "
            "its run."
        )
        known = "version 1" if SCHEMA_VERSION == 1 else f"versions 1 to {SCHEMA_VERSION}"
        raise DataError(f"{path}: record schema version {version!r}, this genbench reads {known}. {mend}")
    for older in range(version, SCHEMA_VERSION):
        value = MIGRATIONS[older](value) | {"schema_version": older + 1}
    return dict(value)


def schema() -> dict[str, Any]:
    """The JSON Schema of a record."""
    return Record.model_json_schema()
