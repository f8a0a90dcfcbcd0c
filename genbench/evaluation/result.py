"""The result of an evaluation: its metrics are those of a run's record, and it says what was compared, and how.

Per-image scores lie beside the JSON in ``<stem>.scores.npz``, whose SHA-256 the result holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from genbench.errors import DataError
from genbench.files import hash_file, read_npz, write_json, write_npz
from genbench.metrics.names import metric_name
from genbench.record import MetricResult, PerImage

SCHEMA_VERSION = 1


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Warn(_Strict):
    """Something that makes a number mean less than it seems. code: stable, for programs."""

    code: str
    message: str


class SideInfo(_Strict):
    """One side: where it came from and what was met on reading it.

    kind: "folder", "zip", "npz", "statistics", "array", ... fingerprint: SHA-256 of the content, None for what could
    be read only once. count: None where a statistics file does not say. sizes: images by "WIDTHxHEIGHT".
    """

    name: str
    kind: str
    count: int | None
    fingerprint: str | None = None
    formats: dict[str, int] = {}
    sizes: dict[str, int] = {}
    skipped: list[str] = []


class EvalResult(_Strict):
    """What `genbench.evaluate` returns and ``--json`` writes."""

    schema_version: int = SCHEMA_VERSION
    genbench_version: str
    samples: SideInfo
    reference: SideInfo
    protocol: str
    extractor: dict[str, Any] | None = None
    """Identity of the feature extractor: name, weights' SHA-256, preprocessing."""
    image_text: dict[str, Any] | None = None
    metrics: list[MetricResult]
    warnings: list[Warn] = []
    per_image: PerImage | None = None
    seed: int = 0
    environment: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    created: str = Field(description="UTC time, ISO 8601")
    _arrays: dict[str, np.ndarray] = PrivateAttr(default_factory=dict)

    @property
    def scores(self) -> Mapping[str, np.ndarray]:
        """Per-image scores (n,) by ``METRIC.ESTIMATOR``; those that were computed or read with the result."""
        return self._arrays

    def find(self, name: str, estimator: str | None = None) -> MetricResult | None:
        """The first metric of this name (and estimator), or None."""
        known = metric_name(name)
        return next((m for m in self.metrics if m.name == known and estimator in (None, m.estimator)), None)

    def __getitem__(self, name: str) -> MetricResult:
        found = self.find(name)
        if found is None:
            raise KeyError(f"no metric '{name}' in this result, which has {', '.join(m.name for m in self.metrics)}")
        return found


def with_scores(result: EvalResult, arrays: Mapping[str, np.ndarray]) -> EvalResult:
    """The result, holding its per-image scores."""
    result._arrays.update(arrays)
    return result


def write_result(path: Path, result: EvalResult) -> None:
    """Write ``path`` (JSON), and ``<stem>.scores.npz`` beside it where there are per-image scores; both atomically."""
    path = Path(path)
    if result.scores:
        arrays = path.with_suffix(".scores.npz")
        write_npz(arrays, **result.scores)
        stored = PerImage(file=arrays.name, sha256=hash_file(arrays), arrays=sorted(result.scores))
        result = result.model_copy(update={"per_image": stored})
    write_json(path, result.model_dump(mode="json"))


def read_result(path: Path) -> EvalResult:
    """Read and validate what `write_result` wrote, per-image scores included.

    Raises:
        DataError: not JSON, another schema version, fields that do not fit, or scores of another hash; names the file.
    """
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable result: {error}. Make it again with `genbench eval --json`.") from None
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION or "metrics" not in value:
        raise DataError(f"{path}: not the result of `genbench eval` (schema version {version!r}).")
    try:
        result = EvalResult.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: not a valid result: {where}: {first['msg']}") from None
    return with_scores(result, read_scores(path.parent, result.per_image))


def read_scores(folder: Path, stored: PerImage | None) -> dict[str, np.ndarray]:
    """The per-image scores beside a result or a record; empty where there are none.

    Raises:
        DataError: missing, or of another hash than the record says.
    """
    if stored is None:
        return {}
    path = Path(folder) / stored.file
    if not path.is_file() or hash_file(path) != stored.sha256:
        raise DataError(f"{path}: missing, or not the per-image scores that the record was written with.")
    return read_npz(path)
