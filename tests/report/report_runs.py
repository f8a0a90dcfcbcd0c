"""Run folders and record folders of a few rows under several seeds, for reports of several sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from report_fixture import DATASET, metric, record, training

from genbench.files import hash_file, write_json, write_npz
from genbench.record import MetricResult, PerImage, Record, write_record

IMAGES = {"paired_by": "test image", "interval": "t over images"}


def bits(value: float, **more: Any) -> MetricResult:
    """An exact likelihood of 297 images."""
    fields = {"kind": "exact", "estimator": "exact", "provenance": IMAGES}
    return metric("bits_per_dim", value, 0.03, **(fields | more))


def row(model: str, seed: int = 0, fid: float = 2.0, nll: float = 2.0, **more: Any) -> Record:
    """A record with a FID, a likelihood and a count of parameters."""
    metrics = [metric("fid", fid, 0.2), bits(nll), metric("parameters", 1000.0)]
    fields: dict[str, Any] = {"seed": seed, "training": training(4.0, nll, 9.0), "metrics": metrics}
    given = fields | more
    return record(model, given.pop("metrics"), **given)


def with_scores(folder: Path, made: Record, shift: float = 0.0) -> Record:
    """The record with likelihoods of images beside it; their spread is the same in every record, ``shift`` aside."""
    noise = np.random.default_rng(0).normal(size=DATASET.test)
    found = made.find("bits_per_dim")
    assert found is not None and found.value is not None
    scores = found.value + shift + 0.3 * (noise - noise.mean())
    path = folder / f"{made.file_stem}.npz"
    write_npz(path, **{"bits_per_dim.exact": scores.astype(np.float64)})
    stored = PerImage(file=path.name, sha256=hash_file(path), arrays=["bits_per_dim.exact"])
    return made.model_copy(update={"per_image": stored})


def write_records(folder: Path, *records: Record, scores: bool = False) -> Path:
    """A folder with ``records/``; returns it."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    for made in records:
        write_record(folder / "records", with_scores(folder / "records", made) if scores else made)
    return folder


def write_run_folder(folder: Path, *records: Record) -> Path:
    """The folder of a run, with samples of each row."""
    write_records(folder, *records)
    rows = [made.file_stem for made in records]
    write_json(folder / "run.json", {"suite": {"name": records[0].suite}, "rows": rows})
    (folder / "samples").mkdir()
    rng = np.random.default_rng(0)
    for stem in rows:
        write_npz(folder / "samples" / f"{stem}.npz", arr_0=rng.integers(0, 256, (64, 8, 8, 1)).astype(np.uint8))
    return folder
