"""From what a row has stored to its record: metrics are computed without the model."""

from __future__ import annotations

import contextlib
import math
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from genbench import __version__
from genbench.data.base import Splits
from genbench.data.cache import open_splits
from genbench.errors import DataError
from genbench.features import ExtractorOptions, extractor_status, load_extractor
from genbench.features.base import FeatureExtractor, Features
from genbench.features.image_text import ImageTextModel
from genbench.files import hash_file, hash_value, read_npz, write_npz
from genbench.metrics import load_metric, score
from genbench.metrics.base import Estimate, ImageText, MetricInputs, Side
from genbench.metrics.pairs import StoredPairs
from genbench.metrics.statistics import student_quantile
from genbench.record import DatasetInfo, MetricResult, PerImage, Record, Timing, Training, read_record, write_record
from genbench.run.captions import asked_labels, image_text_model, image_text_of
from genbench.run.plan import CellPlan, RowPlan
from genbench.run.stages import read_labels, read_likelihoods, read_samples, read_timing
from genbench.run.store import Store
from genbench.run.task import JobResult, Monitor, Task
from genbench.run.training import environment
from genbench.suite import Suite

TIMED = ("images_per_second", "latency_seconds", "evaluations_per_image", "peak_memory_bytes")
"""Metrics that come from timing the sampler."""


def extractor_for(suite: Suite, device: str) -> FeatureExtractor | None:
    """The suite's feature extractor, or None when it names none or its weights are not here.

    Raises:
        DataError: weights that are here and damaged.
    """
    if suite.extractor is None or not extractor_status(suite.extractor).available:
        return None
    return load_extractor(suite.extractor, ExtractorOptions(device=device, batch_size=256))


def reference_features(task: Task, monitor: Monitor) -> JobResult:
    """Extract the training split's features once for all rows."""
    monitor.stage = "features of the training split"
    extractor = extractor_for(task.suite, task.device)
    if extractor is not None:
        _train_features(task.store, open_splits(task.store.data), extractor)
    return JobResult()


def _reference_cache(store: Store, splits: Splits, extractor: FeatureExtractor | None) -> Path:
    identity = None if extractor is None else extractor.identity
    return store.data / f"reference-{hash_value([identity, splits.train.fingerprint])[:16]}"


def _train_features(store: Store, splits: Splits, extractor: FeatureExtractor) -> Features:
    path = _reference_cache(store, splits, extractor) / "features.npz"
    with contextlib.suppress(DataError, KeyError):
        arrays = read_npz(path)
        return Features(arrays["features"], arrays.get("logits"))
    found = extractor.extract(splits.train.images)
    logits = {} if found.logits is None else {"logits": found.logits}
    write_npz(path, features=found.features, **logits)
    return found


def _reference(store: Store, splits: Splits, extractor: FeatureExtractor | None) -> Side:
    train = splits.train
    extract = None if extractor is None else lambda: _train_features(store, splits, extractor)
    return Side("reference images", len(train), train.images, train.labels, splits.spec.class_names, extract)


def _samples(store: Store, row: RowPlan, splits: Splits, extractor: FeatureExtractor | None) -> Side:
    path = store.samples(row.stem)
    images, labels = read_samples(path), read_labels(path)
    extract = None if extractor is None else lambda: extractor.extract(images)
    names = () if labels is None else splits.spec.class_names
    return Side("samples", len(images), images, labels, names, extract)


def _image_text(task: Task, samples: Side, splits: Splits, model: ImageTextModel | None) -> ImageText | None:
    if model is None:
        return None
    images = samples.kept_images()
    labels = asked_labels(splits, len(images), samples.labels, control=task.cell.control)
    return image_text_of(model, task.suite.caption, splits, images, labels)


def score_row(task: Task, row: RowPlan, monitor: Monitor, *, again: bool = False) -> JobResult:
    """Score one row and write its record; with ``again`` even when a record for the same inputs is there.

    Raises:
        DataError: something stored for the row is missing or damaged; the message names it.
    """
    monitor.stage = f"score {row.name}"
    store = task.store
    stages = ("samples", "likelihood", "gallery", "timing")
    receipts = {name: _whole_receipt(store, row.stem, name) for name in stages}
    trained = _whole_receipt(store, task.cell.stem, "training")
    extractor = extractor_for(task.suite, task.device)
    keys = {name: receipt["key"] for name, receipt in receipts.items()} | {"cell": task.cell.key}
    texts = image_text_model(task.suite, task.device)
    identity = [None if network is None else network.identity for network in (extractor, texts)]
    versions = {m: load_metric(m).version for m in task.suite.metrics}
    seconds = receipts["timing"]["seconds"]
    settings = [task.suite.options, task.suite.caption]
    keys["record"] = hash_value([keys, seconds, versions, settings, identity, __version__])
    if not again and _is_current(store.records / f"{row.stem}.json", keys["record"]):
        return JobResult()
    splits = open_splits(store.data)
    training, timing = Training.model_validate(trained["training"]), read_timing(receipts["timing"])
    made_in = trained["environment"]
    samples = _samples(store, row, splits, extractor)
    inputs = MetricInputs(
        samples=samples,
        reference=_reference(store, splits, extractor),
        test=splits.test,
        extractor=extractor,
        pairs=_reconstructions(store, row, receipts["gallery"], splits),
        image_text=_image_text(task, samples, splits, texts),
        likelihoods=read_likelihoods(store, row.stem, receipts["likelihood"]),
        cost=cost_figures(None if task.cell.control else training.parameters, training, timing, trained["trained_in"]),
        reference_cache=_reference_cache(store, splits, extractor),
        seed=row.seed,
    )
    comparable = {"dataset": splits.name, "dataset_fingerprint": splits.fingerprint, "reference": "train"}
    metrics, arrays = score(inputs, list(task.suite.metrics), task.suite.options, comparable)
    failure = receipts["timing"].get("failed")
    record = Record(
        **_header(task.suite, task.cell, row, splits),
        status="ok",
        metrics=metrics if failure is None else [_untimed(metric, failure) for metric in metrics],
        timing=timing,
        training=training,
        per_image=_write_per_image(store, row, arrays),
        environment=made_in,
        keys=keys,
    )
    write_record(store.records, record)
    return JobResult()


def _whole_receipt(store: Store, owner: str, stage: str) -> dict[str, Any]:
    key = store.receipt_key(owner, stage)
    receipt = None if key is None else store.receipt(owner, stage, key)
    if receipt is None:
        what = f"the {stage} of {owner}" if key is None else f"the file of the {stage} of {owner}"
        raise DataError(
            f"{store.root}: {what} is missing or damaged. Run the suite again in this folder to make it anew."
        )
    return receipt


def _untimed(metric: MetricResult, reason: str) -> MetricResult:
    """A figure that timing would have given, as failed."""
    if metric.name not in TIMED:
        return metric
    return metric.model_copy(update={"status": "failed", "reason": reason})


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
    whole = record.status == "ok" and all(metric.status != "failed" for metric in record.metrics)
    return whole and record.keys.get("record") == key


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
        "config": {
            "model": cell.config,
            "train": cell.train,
            "sample": {k: v for k, v in vars(row.options).items() if v is not None},
        },
        "seed": row.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _reconstructions(store: Store, row: RowPlan, receipt: dict[str, Any], splits: Splits) -> StoredPairs | None:
    if "reconstructions" not in receipt.get("arrays", ()):
        return None
    made = np.ascontiguousarray(read_npz(store.gallery(row.stem))["reconstructions"].transpose(0, 3, 1, 2))
    return StoredPairs(made, splits.test.images[: len(made)])


def _write_per_image(store: Store, row: RowPlan, arrays: dict[str, np.ndarray]) -> PerImage | None:
    if not arrays:
        return None
    path = store.records / f"{row.stem}.npz"
    write_npz(path, **arrays)
    return PerImage(file=path.name, sha256=hash_file(path), arrays=sorted(arrays))


def cost_figures(
    parameters: int | None, training: Training, timing: Timing | None, trained_in: dict[str, Any]
) -> dict[str, Estimate]:
    """Size, training and sampling figures by metric name; those not measured are left out.

    trained_in: the environment of the training; empty where it is not known.
    """
    figures = {}
    if trained_in:
        on = {"device": trained_in["cpu"] if trained_in["device"] == "cpu" else trained_in["device"]}
        figures["training_seconds"] = Estimate(training.seconds, 1, estimator="wall clock", conditions=on)
        if training.images_per_second is not None:
            figures["training_images_per_second"] = Estimate(
                training.images_per_second, 1, estimator="mean over the training", conditions=on
            )
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
    half = student_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    interval = (max(0.0, middle - half), middle + half)
    how = "Student t over repetitions"
    return Estimate(middle, len(values), interval, how, estimator=estimator, conditions=conditions)
