"""The stages of a cell, each a function from stored inputs to a stored output with a receipt.

make: train or fit, then sample every row, evaluate likelihood, draw the gallery. time: sampling speed, alone on the
machine. score: metrics from what is stored, without the model.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genbench import registry
from genbench.api import GenerativeModel
from genbench.checkpoint import load_checkpoint
from genbench.data.base import ImageDataset, Splits
from genbench.data.cache import open_splits
from genbench.errors import DataError, Interrupted
from genbench.files import hash_value, read_npz, write_npz
from genbench.likelihood import evaluate_likelihood, likelihood_estimators
from genbench.metrics.base import ImageLikelihoods
from genbench.pace import REFERENCE_LOAD
from genbench.record import Timing
from genbench.run.gallery import make_gallery
from genbench.run.plan import GALLERY_VERSION, LIKELIHOOD_VERSION, SAMPLE_VERSION, RowPlan
from genbench.run.store import Store
from genbench.run.task import JobResult, Monitor, Task, describe
from genbench.run.training import train_stage
from genbench.sample import draw, sample_labels
from genbench.suite import LEAST_WINDOWS, MOST_TIMING
from genbench.timing import joined, time_sampling
from genbench.train import to_device

StageWork = Callable[[Any, RowPlan, GenerativeModel, Splits, Any], tuple[Path | None, dict[str, Any]]]


def sample_key(task: Task, row: RowPlan) -> str:
    """Names a row's samples: weights, sampler options, count and seed; not the batch size."""
    return hash_value([task.cell.key, asdict(row.options), task.suite.num_samples, row.seed, SAMPLE_VERSION])


def make(task: Task, monitor: Monitor) -> JobResult:
    """Train (or fit) one cell, then sample every row, evaluate likelihood and draw the gallery.

    A row that fails leaves the other rows of the cell as they are.
    """
    splits = open_splits(task.store.data)
    result = JobResult({"train": train_stage(task, splits, monitor)})
    row_work = _RowWork(task, splits, monitor, result.seconds)
    for row in task.cell.rows:
        try:
            row_work.do(row)
        except Interrupted:
            raise
        except Exception as error:
            result.failures[row.stem] = describe(error)
    return result


class _RowWork:
    """The stages of a row, sharing one loaded model."""

    def __init__(self, task: Task, splits: Splits, monitor: Monitor, seconds: dict[str, float]) -> None:
        self.task, self.splits, self.monitor, self.seconds = task, splits, monitor, seconds
        self._model: GenerativeModel | None = None

    @property
    def model(self) -> GenerativeModel:
        if self._model is None:
            self._model = _load(self.task)
        return self._model

    def do(self, row: RowPlan) -> None:
        """Do what is missing of a row."""
        key = sample_key(self.task, row)
        self._stage(row, "samples", key, _samples)
        images = self.task.suite.likelihood.num_images
        self._stage(row, "likelihood", hash_value([key, "likelihood", images, LIKELIHOOD_VERSION]), _likelihood)
        self._stage(row, "gallery", hash_value([key, "gallery", GALLERY_VERSION]), _gallery)

    def _stage(self, row: RowPlan, stage: str, key: str, work: StageWork) -> None:
        if self.task.store.receipt(row.stem, stage, key) is not None:
            return
        self.monitor.stage = f"{stage} {row.name}"
        start = time.perf_counter()
        file, figures = work(self.task, row, self.model, self.splits, self.monitor)
        seconds = time.perf_counter() - start
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.task.store.write_receipt(row.stem, stage, key, seconds, file, **figures)


def _load(task: Task) -> GenerativeModel:
    model_class = registry.load_model(task.cell.reference)
    model, _ = load_checkpoint(task.store.checkpoint(task.cell.stem), "cpu", model_class)
    return to_device(model, torch.device(task.device))


def _samples(
    task: Task, row: RowPlan, model: GenerativeModel, _: Splits, monitor: Monitor
) -> tuple[Path | None, dict[str, Any]]:
    """Draw a row's samples, and store their labels beside them where those are known.

    Finished batches are kept until all are there: an interruption loses one at most.
    """
    suite, images = task.suite, []
    parts = task.store.parts(row.stem, sample_key(task, row))
    for start in range(0, suite.num_samples, suite.sample_batch_size):
        stop = min(start + suite.sample_batch_size, suite.num_samples)
        part = parts / f"{start}-{stop}.npz"
        if part.exists():
            images.append(read_npz(part)["images"])
        else:
            images.append(draw(model, torch.arange(start, stop), row.seed, row.options).cpu().numpy())
            if stop < suite.num_samples:
                write_npz(part, images=images[-1])
        monitor.step(stop, suite.num_samples)
    path = task.store.samples(row.stem)
    labels = sample_labels(model, suite.num_samples, row.seed, row.options)
    known = {} if labels is None else {"arr_1": labels}
    write_npz(path, arr_0=np.ascontiguousarray(np.concatenate(images).transpose(0, 2, 3, 1)), **known)
    shutil.rmtree(parts, ignore_errors=True)
    return path, {"labels": labels is not None}


def _likelihood(
    task: Task, row: RowPlan, model: GenerativeModel, splits: Splits, monitor: Monitor
) -> tuple[Path | None, dict[str, Any]]:
    estimators = () if row.variant is not None else likelihood_estimators(model)
    if not estimators:
        return None, {"estimators": []}
    test = _first(splits.test, task.suite.likelihood.num_images)
    arrays: dict[str, np.ndarray] = {}
    found = []
    for position, estimator in enumerate(estimators):
        monitor.stage = f"likelihood {row.name} ({estimator})"
        result = evaluate_likelihood(model, test, estimator, row.seed, task.suite.sample_batch_size, monitor.step)
        arrays[f"nats_{position}"] = result.nats
        if result.standard_error is not None:
            arrays[f"error_{position}"] = result.standard_error
        found.append(
            {
                "kind": result.kind,
                "estimator": result.estimator,
                "shared_error": result.shared_error,
                "details": dict(result.details),
                "failure": result.failure,
            }
        )
    path = task.store.likelihood(row.stem)
    write_npz(path, **arrays)
    return path, {"estimators": found}


def _first(data: ImageDataset, count: int | str) -> ImageDataset:
    if count == "all" or int(count) >= len(data):
        return data
    labels = None if data.labels is None else data.labels[: int(count)]
    return replace(data, images=data.images[: int(count)], labels=labels, intensities=None, known_fingerprint=None)


def read_likelihoods(store: Store, row: str, receipt: dict[str, Any] | None) -> list[ImageLikelihoods]:
    """The likelihoods that `make` stored for a row."""
    if not receipt or not receipt.get("estimators"):
        return []
    arrays = read_npz(store.likelihood(row))
    return [
        ImageLikelihoods(nats=arrays[f"nats_{i}"], standard_error=arrays.get(f"error_{i}"), **entry)
        for i, entry in enumerate(receipt["estimators"])
    ]


def _gallery(
    task: Task, row: RowPlan, model: GenerativeModel, splits: Splits, monitor: Monitor
) -> tuple[Path | None, dict[str, Any]]:
    samples = read_samples(task.store.samples(row.stem))
    plain = row.variant is None
    arrays = make_gallery(model, splits, samples, row.seed, monitor.step, options=row.options, of_model=plain)
    path = task.store.gallery(row.stem)
    write_npz(path, **arrays)
    return path, {"arrays": sorted(arrays)}


def read_samples(path: Path) -> np.ndarray:
    """Stored samples (npz, ``arr_0``, N H W C) as (N, C, H, W) uint8.

    Raises:
        DataError: missing, truncated, or of another layout; the message names the file.
    """
    images = read_npz(path).get("arr_0")
    if images is None or images.ndim != 4 or images.dtype != np.uint8:
        found = "missing" if images is None else f"{images.dtype} {images.shape}"
        raise DataError(f"{path}: arr_0 is {found}, expected uint8 (N, H, W, C). Delete it and run again.")
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def read_labels(path: Path) -> np.ndarray | None:
    """Labels (N,) int64 stored beside samples (npz, ``arr_1``), or None.

    Raises:
        DataError: missing, truncated, or of another layout; the message names the file.
    """
    labels = read_npz(path).get("arr_1")
    if labels is not None and (labels.ndim != 1 or labels.dtype != np.int64):
        raise DataError(
            f"{path}: arr_1 is {labels.dtype} {labels.shape}, expected int64 (N,). Delete it and run again."
        )
    return labels


def time_row(task: Task, row: RowPlan, monitor: Monitor) -> JobResult:
    """Time one row's sampler once more; nothing else should run meanwhile. One that fails leaves a receipt that says
    why."""
    monitor.stage = f"time {row.name}"
    start = time.perf_counter()
    settings, key = task.suite.timing, timing_key(task, row)
    earlier = task.store.receipt(row.stem, "timing", key)
    before = read_timing(earlier)
    monitor.step(0 if before is None else len(before.windows), settings.windows)
    figures: dict[str, Any] = {}
    try:
        timing = time_sampling(
            _load(task),
            batch_size=settings.batch_size,
            seed=row.seed,
            options=row.options,
            window_seconds=settings.window_seconds,
        )
        timing = timing if before is None else joined(before, timing)
        figures["timing"] = timing.model_dump(mode="json")
    except Exception as error:
        figures["failed"] = describe(error)
    seconds = time.perf_counter() - start
    total = seconds + (0.0 if earlier is None else earlier["seconds"])
    task.store.write_receipt(row.stem, "timing", key, total, **figures)
    return JobResult({"time": seconds}, {row.stem: figures["failed"]} if "failed" in figures else {})


def is_timed(task: Task, row: RowPlan) -> bool:
    """Whether a row has all its windows, or as many as its time allows, where one takes longer than was asked for."""
    timing = read_timing(task.store.receipt(row.stem, "timing", timing_key(task, row)))
    if timing is None:
        return False
    settings, windows = task.suite.timing, timing.windows
    planned = settings.windows * settings.window_seconds
    late = sum(window.seconds for window in windows) > MOST_TIMING * planned
    return len(windows) >= settings.windows or (late and len(windows) >= LEAST_WINDOWS)


def timing_key(task: Task, row: RowPlan) -> str:
    """Names a row's timing: weights, sampler options, batch and length of windows, and the load that paces them; not
    how many windows there are to be."""
    settings = task.suite.timing.model_dump(mode="json", exclude={"windows"})
    return hash_value([task.cell.key, asdict(row.options), settings, task.suite.threads, REFERENCE_LOAD])


def read_timing(receipt: dict[str, Any] | None) -> Timing | None:
    """The timing in a receipt."""
    return None if receipt is None or "timing" not in receipt else Timing.model_validate(receipt["timing"])
