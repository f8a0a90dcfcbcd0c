"""Small records for tests of the check: one or several seeds of a row, with what a test needs and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from report_fixture import DATASET, metric, record

from genbench.check.collect import Entry
from genbench.files import hash_file, write_npz
from genbench.record import MetricResult, PerImage, Timing, TimingWindow, write_record

LEADERBOARD = Path(__file__).parents[2] / "leaderboards" / "digits"


def exact(name: str, value: float, **more: Any) -> MetricResult:
    """A value without noise."""
    return metric(name, value, kind="exact", **more)


def timed(rates: list[float], latencies: list[float] | None = None) -> Timing:
    """Windows of these rates."""
    return Timing(
        batch_size=64,
        windows=[TimingWindow(images=128, seconds=128 / rate) for rate in rates],
        latency_seconds=latencies or [],
        evaluations_per_image=1,
        precision="fp32",
        device="cpu",
        threads=1,
    )


def entry(row: str, metrics: list[MetricResult], seed: int = 0, scores: dict | None = None, **more: Any) -> Entry:
    """An entry as `read_entries` makes it, without files."""
    model, _, variant = row.partition("@")
    return Entry(record(model, metrics, seed=seed, variant=variant or None, **more), scores or {})


def scored(name: str, scores: np.ndarray, **more: Any) -> tuple[MetricResult, dict[str, np.ndarray]]:
    """A metric that is the mean of per-image scores (n,), with them."""
    half = 1.96 * float(scores.std(ddof=1)) / len(scores) ** 0.5
    where = {"paired_by": "test image", "standard_error": half / 1.96}
    found = metric(name, float(scores.mean()), half, n=len(scores), estimator="mean", provenance=where, **more)
    return found, {f"{name}.mean": scores}


def write(folder: Path, *entries: Entry) -> Path:
    """Write records with their scores into ``folder/records``; returns the folder."""
    records = folder / "records"
    records.mkdir(parents=True, exist_ok=True)
    for one in entries:
        stored = None
        if one.scores:
            path = records / f"{one.record.file_stem}.npz"
            write_npz(path, **one.scores)
            stored = PerImage(file=path.name, sha256=hash_file(path), arrays=sorted(one.scores))
        write_record(records, one.record.model_copy(update={"per_image": stored}))
    return folder


__all__ = ["DATASET", "LEADERBOARD", "entry", "exact", "metric", "record", "scored", "timed", "write"]
