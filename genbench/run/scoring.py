"""From what a row has stored to its record: metrics are computed without the model."""

from __future__ import annotations

import math
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from genbench import __version__
from genbench.checkpoint import read_manifest
from genbench.data.base import Splits
from genbench.data.cache import open_splits
from genbench.errors import DataError, GenbenchError
from genbench.features import load_extractor
from genbench.features.base import FeatureExtractor, Features
from genbench.files import hash_file, hash_value, write_npz
from genbench.metrics import load_metric, score
from genbench.metrics.base import Estimate, MetricInputs
from genbench.record import DatasetInfo, PerImage, Record, Timing, Training, read_record, write_record
from genbench.run.plan import CellPlan, RowPlan
from genbench.run.stages import Monitor, Task, read_likelihoods, read_samples, read_timing, read_training
from genbench.run.store import Store
from genbench.suite import Suite
from genbench.timing import cpu_name, device_name


def extractor_for(suite: Suite, device: str) -> FeatureExtractor | None:
    """The suite's feature extractor, or None when it names none or its weights are missing."""
    if suite.extractor is None:
        return None
    try:
        return load_extractor(suite.extractor, device=device)
    except GenbenchError:
        return None


def reference_features(task: Task, monitor: Monitor) -> dict[str, float]:
    """Extract the training split's features once for all rows."""
    monitor.stage = "features of the training split"
    extractor = extractor_for(task.suite, task.device)
    if extractor is not None:
        _train_features(task.store, open_splits(task.store.data), extractor)
    return {}


def _reference_cache(store: Store, splits: Splits, extractor: FeatureExtractor | None) -> Path:
    identity = None if extractor is None else extractor.identity
    return store.data / f"reference-{hash_value([identity, splits.train.fingerprint])[:16]}"


def _train_features(store: Store, splits: Splits, extractor: FeatureExtractor) -> Features:
    path = _reference_cache(store, splits, extractor) / "features.npz"
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return Features(arrays["features"], arrays.get("logits"))
        except (OSError, ValueError, KeyError):
            path.unlink()
    found = extractor.extract(splits.train.images)
    logits = {} if found.logits is None else {"logits": found.logits}
    write_npz(path, features=found.features, **logits)
    return found


def score_row(task: Task, row: RowPlan, monitor: Monitor, *, again: bool = False) -> dict[str, float]:
    """Score one row and write its record; with ``again`` even when a record for the same inputs is there.

    Raises:
        DataError: stored samples that cannot be read.
    """
    monitor.stage = f"score {row.name}"
    store = task.store
    receipts = {name: _any_receipt(store, row.stem, name) for name in ("samples", "likelihood", "gallery", "timing")}
    if receipts["samples"] is None:
        raise DataError(f"{store.samples(row.stem)}: missing or damaged. Delete it and run again to draw the samples.")
    extractor = extractor_for(task.suite, task.device)
    keys = {name: receipt["key"] for name, receipt in receipts.items() if receipt is not None}
    keys["cell"] = task.cell.key
    identity = extractor.identity if extractor is not None else None
    keys["record"] = hash_value(
        [keys, {m: load_metric(m).version for m in task.suite.metrics}, task.suite.options, identity, __version__]
    )
    if not again and _is_current(store.records / f"{row.stem}.json", keys["record"]):
        return {}
    splits = open_splits(store.data)
    training = read_training(read_manifest(store.checkpoint(task.cell.stem)))
    timing = read_timing(receipts["timing"])
    inputs = MetricInputs(
        samples=read_samples(store.samples(row.stem)),
        reference=splits.train,
        test=splits.test,
        extractor=extractor,
        reconstructions=_reconstructions(store, row, receipts["gallery"]),
        likelihoods=read_likelihoods(store, row.stem, receipts["likelihood"]),
        cost=cost_figures(None if task.cell.control else training.parameters, training, timing, task.device),
        reference_features=None if extractor is None else _train_features(store, splits, extractor),
        reference_cache=_reference_cache(store, splits, extractor),
        seed=row.seed,
    )
    comparable = {"dataset": splits.name, "dataset_fingerprint": splits.fingerprint, "reference": "train"}
    metrics, arrays = score(inputs, list(task.suite.metrics), task.suite.options, comparable)
    per_image = _write_per_image(store, row, arrays)
    record = Record(
        **_header(task.suite, task.cell, row, splits),
        status="ok",
        metrics=metrics,
        timing=timing,
        training=training,
        per_image=per_image,
        environment=environment(task),
        keys=keys,
    )
    write_record(store.records, record)
    return {}


def write_failure(task: Task, row: RowPlan, reason: str) -> Record:
    """Write and return the record of a row whose model failed."""
    splits = open_splits(task.store.data)
    record = Record(
        **_header(task.suite, task.cell, row, splits),
        status="failed",
        reason=reason,
        environment=environment(task),
        keys={"cell": task.cell.key},
    )
    write_record(task.store.records, record)
    return record


def _is_current(path: Path, key: str) -> bool:
    if not path.exists():
        return False
    try:
        record = read_record(path)
        if record.per_image is not None and hash_file(path.parent / record.per_image.file) != record.per_image.sha256:
            return False
    except (DataError, OSError):
        return False
    return record.status == "ok" and record.keys.get("record") == key


def _any_receipt(store: Store, owner: str, stage: str) -> dict[str, Any] | None:
    key = store.receipt_key(owner, stage)
    return None if key is None else store.receipt(owner, stage, key)


def _header(suite: Suite, cell: CellPlan, row: RowPlan, splits: Splits) -> dict[str, Any]:
    return {
        "genbench_version": __version__,
        "suite": suite.name,
        "dataset": DatasetInfo(
            name=splits.name,
            fingerprint=splits.fingerprint,
            levels=splits.spec.levels,
            shape=splits.spec.shape,
            train=len(splits.train),
            validation=len(splits.validation),
            test=len(splits.test),
        ),
        "model": cell.model,
        "variant": row.variant,
        "family": cell.family,
        "control": cell.control,
        "config": {"model": cell.config, "train": cell.recipe.train.model_dump(mode="json") | {"steps": cell.steps}}
        | {"sample": {k: v for k, v in vars(row.options).items() if v is not None}},
        "seed": row.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _reconstructions(store: Store, row: RowPlan, receipt: dict[str, Any] | None) -> np.ndarray | None:
    if receipt is None or "reconstructions" not in receipt.get("arrays", ()):
        return None
    with np.load(store.gallery(row.stem), allow_pickle=False) as arrays:
        return np.ascontiguousarray(arrays["reconstructions"].transpose(0, 3, 1, 2))


def _write_per_image(store: Store, row: RowPlan, arrays: dict[str, np.ndarray]) -> PerImage | None:
    if not arrays:
        return None
    path = store.records / f"{row.stem}.npz"
    write_npz(path, **arrays)
    return PerImage(file=path.name, sha256=hash_file(path), arrays=sorted(arrays))


def cost_figures(parameters: int | None, training: Training, timing: Timing | None, device: str) -> dict[str, Estimate]:
    """Size, training and sampling figures by metric name; those not measured are left out."""
    trained_on = {"device": device_name(torch.device(device))}
    figures = {"training_seconds": Estimate(training.seconds, 1, estimator="wall clock", conditions=trained_on)}
    if parameters is not None:
        figures["parameters"] = Estimate(float(parameters), 1, kind="exact", estimator="count")
    if timing is not None:
        timed_on = {"device": timing.device, "threads": timing.threads, "precision": timing.precision}
        batch = {**timed_on, "batch_size": timing.batch_size}
        rates = [window.images / window.seconds for window in timing.windows]
        figures["images_per_second"] = _median(rates, "median of windows", batch)
        figures["latency_seconds"] = _median(timing.latency_seconds, "median of single images", timed_on)
        figures["evaluations_per_image"] = Estimate(
            timing.evaluations_per_image, 1, kind="exact", estimator="forward calls"
        )
        if timing.peak_memory_bytes is not None:
            figures["peak_memory_bytes"] = Estimate(
                float(timing.peak_memory_bytes), 1, estimator="peak while sampling", conditions=batch
            )
    return figures


def _median(values: list[float], estimator: str, conditions: dict[str, Any]) -> Estimate:
    """Median with a Student t interval of its repetitions, around the median."""
    middle = statistics.median(values)
    if len(values) < 2:
        return Estimate(middle, len(values), estimator=estimator, conditions=conditions)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    interval = (max(0.0, middle - half), middle + half)
    how = "Student t over repetitions"
    return Estimate(middle, len(values), interval, how, estimator=estimator, conditions=conditions)


def environment(task: Task) -> dict[str, Any]:
    """Where a row was made: versions, device, threads."""
    device = torch.device(task.device)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": task.suite.threads,
    }
