"""The stages of a cell, each a function from stored inputs to a stored output with a receipt.

make: train or fit, then sample every row, evaluate likelihood, draw the gallery. time: sampling speed, alone on the
machine. score: metrics from what is stored, without the model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genbench import __version__, registry
from genbench.api import Fittable, GenerativeModel, HasLikelihood, Trainable
from genbench.checkpoint import Manifest, load_checkpoint, read_manifest, save_checkpoint
from genbench.controls import FitsSplits
from genbench.data.base import ImageDataset, Splits
from genbench.data.cache import open_splits
from genbench.errors import DataError, Interrupted
from genbench.files import hash_value, write_npz
from genbench.likelihood import evaluate_likelihood
from genbench.metrics.base import ImageLikelihoods
from genbench.noise import derive_seed
from genbench.recipe import build_config
from genbench.record import Timing, Training
from genbench.run.gallery import make_gallery
from genbench.run.plan import SAMPLE_VERSION, CellPlan, RowPlan
from genbench.run.store import Store
from genbench.sample import ModelOutputError, draw_samples
from genbench.suite import Suite
from genbench.timing import time_sampling
from genbench.train import STATE_FILE, Trainer, build_model, seeded, to_device


@dataclass(frozen=True)
class Task:
    """What a worker process needs to know: the run's folder, its suite, one cell, and the device."""

    root: Path
    suite: Suite
    cell: CellPlan
    device: str

    @property
    def store(self) -> Store:
        return Store(self.root)


@dataclass
class Monitor:
    """A worker's link to the run: progress goes out, a request to stop comes in."""

    report: Callable[[str, int, int], None]
    stopping: Callable[[], bool]
    stage: str = ""
    _last: float = field(default=0.0, repr=False)

    def step(self, done: int, total: int) -> None:
        """Report progress of the current stage, at most ten times a second.

        Raises:
            Interrupted: the run asked to stop.
        """
        self.tick(done, total)
        if self.stopping():
            raise Interrupted(f"stopped during {self.stage}")

    def tick(self, done: int, total: int) -> None:
        """Report progress without stopping."""
        now = time.perf_counter()
        if done >= total or now - self._last > 0.1:
            self._last = now
            self.report(self.stage, done, total)


def sample_key(task: Task, row: RowPlan) -> str:
    """Names a row's samples: weights, sampler options, count and seed; not the batch size."""
    return hash_value([task.cell.key, asdict(row.options), task.suite.num_samples, row.seed, SAMPLE_VERSION])


def make(task: Task, monitor: Monitor) -> dict[str, float]:
    """Train (or fit), sample, evaluate likelihood and draw the gallery of one cell; returns seconds by stage."""
    store, cell = task.store, task.cell
    splits = open_splits(store.data)
    trained = train_stage(task, splits, monitor)
    seconds = {"train": trained}
    model: GenerativeModel | None = None
    for row in cell.rows:
        key = sample_key(task, row)
        if store.receipt(row.stem, "samples", key) is None:
            model = model or _load(task)
            seconds["sample"] = seconds.get("sample", 0.0) + _sample_row(task, row, key, model, monitor)
        for stage, work in (("likelihood", _likelihood), ("gallery", _gallery)):
            stage_key = hash_value([key, stage, task.suite.likelihood.num_images])
            if store.receipt(row.stem, stage, stage_key) is None:
                model = model or _load(task)
                monitor.stage = f"{stage} {row.name}"
                start = time.perf_counter()
                file, figures = work(task, row, model, splits, monitor)
                spent = time.perf_counter() - start
                seconds[stage] = seconds.get(stage, 0.0) + spent
                store.write_receipt(row.stem, stage, stage_key, spent, file, **figures)
    return seconds


def train_stage(task: Task, splits: Splits, monitor: Monitor) -> float:
    """Leave the cell's checkpoint; does nothing when it is there. Returns the seconds spent now."""
    cell, folder = task.cell, task.store.checkpoint(task.cell.stem)
    if (folder / "manifest.json").exists():
        if read_manifest(folder).key != cell.key:
            raise DataError(
                f"{folder}: its manifest has another key than this run's. Delete the folder to train again."
            )
        return 0.0
    start = time.perf_counter()
    model_class = registry.load_model(cell.reference)
    model = build_model(model_class, build_config(model_class, cell.config), splits.spec, cell.seed)
    monitor.stage = f"train {cell.model}"
    training = _learn(task, model, splits, folder, monitor).model_copy(update={"parameters": count_parameters(model)})
    save_checkpoint(folder, model, _manifest(task, splits, training))
    (folder / STATE_FILE).unlink(missing_ok=True)
    return time.perf_counter() - start


def _learn(task: Task, model: GenerativeModel, splits: Splits, folder: Path, monitor: Monitor) -> Training:
    cell, device = task.cell, torch.device(task.device)
    if isinstance(model, Trainable):
        return Trainer(
            model,
            splits.training_data(),
            cell.recipe.train,
            seed=cell.seed,
            device=device,
            steps=cell.steps,
            state_dir=folder,
            report=monitor.tick,
            should_stop=monitor.stopping,
        ).run()
    start = time.perf_counter()
    with seeded(derive_seed(cell.seed, "fit"), torch.device("cpu")) as rng:
        if isinstance(model, FitsSplits):
            figures = model.fit_splits(splits, rng)
        elif isinstance(model, Fittable):
            figures = model.fit(splits.training_data(), rng)
        else:
            raise ModelOutputError(f"{type(model).__name__} implements neither update() nor fit(); see genbench.api")
    return Training(seconds=time.perf_counter() - start, figures={k: float(v) for k, v in figures.items()})


def count_parameters(model: GenerativeModel) -> int:
    """Number of parameters; of floating-point buffers for a model that was fitted and has no parameters."""
    parameters = sum(p.numel() for p in model.parameters())
    return parameters or sum(b.numel() for b in model.buffers() if b.is_floating_point())


def _manifest(task: Task, splits: Splits, training: Training) -> dict[str, Any]:
    cell = task.cell
    return {
        "model": cell.reference,
        "suite": task.suite.name,
        "config": cell.config,
        "spec": asdict(splits.spec),
        "sample": cell.recipe.sample,
        "variants": cell.recipe.variants,
        "seed": cell.seed,
        "key": cell.key,
        "training": training.model_dump(mode="json"),
        "genbench_version": __version__,
    }


def _load(task: Task) -> GenerativeModel:
    model_class = registry.load_model(task.cell.reference)
    model, _ = load_checkpoint(task.store.checkpoint(task.cell.stem), "cpu", model_class)
    return to_device(model, torch.device(task.device))


def _sample_row(task: Task, row: RowPlan, key: str, model: GenerativeModel, monitor: Monitor) -> float:
    monitor.stage = f"sample {row.name}"
    start = time.perf_counter()
    images = draw_samples(
        model, task.suite.num_samples, row.seed, task.suite.sample_batch_size, row.options, monitor.step
    )
    path = task.store.samples(row.stem)
    write_npz(path, arr_0=np.ascontiguousarray(images.transpose(0, 2, 3, 1)))
    seconds = time.perf_counter() - start
    task.store.write_receipt(row.stem, "samples", key, seconds, path)
    return seconds


def _likelihood(
    task: Task, row: RowPlan, model: GenerativeModel, splits: Splits, monitor: Monitor
) -> tuple[Path | None, dict[str, Any]]:
    if row.variant is not None or not isinstance(model, HasLikelihood):
        return None, {"estimators": []}
    test = _first(splits.test, task.suite.likelihood.num_images)
    arrays: dict[str, np.ndarray] = {}
    found = []
    for position, estimator in enumerate(model.likelihood_estimators()):
        monitor.stage = f"likelihood {row.name} ({estimator})"
        result = evaluate_likelihood(model, test, estimator, row.seed, task.suite.sample_batch_size, monitor.step)
        arrays[f"nats_{position}"] = result.nats
        if result.standard_error is not None:
            arrays[f"error_{position}"] = result.standard_error
        found.append({"kind": result.kind, "estimator": result.estimator})
    path = task.store.likelihood(row.stem)
    write_npz(path, **arrays)
    return path, {"estimators": found}


def _first(data: ImageDataset, count: int | str) -> ImageDataset:
    if count == "all" or int(count) >= len(data):
        return data
    labels = None if data.labels is None else data.labels[: int(count)]
    return replace(data, images=data.images[: int(count)], labels=labels, known_fingerprint=None)


def read_likelihoods(store: Store, row: str, receipt: dict[str, Any] | None) -> list[ImageLikelihoods]:
    """The likelihoods that `make` stored for a row."""
    if not receipt or not receipt.get("estimators"):
        return []
    with np.load(store.likelihood(row), allow_pickle=False) as arrays:
        return [
            ImageLikelihoods(arrays[f"nats_{i}"], e["kind"], e["estimator"], arrays.get(f"error_{i}"))
            for i, e in enumerate(receipt["estimators"])
        ]


def _gallery(
    task: Task, row: RowPlan, model: GenerativeModel, splits: Splits, monitor: Monitor
) -> tuple[Path | None, dict[str, Any]]:
    samples = read_samples(task.store.samples(row.stem))
    arrays = make_gallery(model, splits, samples, row.seed, monitor.step, of_model=row.variant is None)
    path = task.store.gallery(row.stem)
    write_npz(path, **arrays)
    return path, {"arrays": sorted(arrays)}


def read_samples(path: Path) -> np.ndarray:
    """Stored samples (npz, ``arr_0``, N H W C) as (N, C, H, W) uint8.

    Raises:
        DataError: missing, truncated, or of another layout; the message names the file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images = arrays["arr_0"]
    except Exception as error:
        raise DataError(f"{path}: not readable samples ({error}). Delete it to draw them again.") from None
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(f"{path}: arr_0 is {images.dtype} {images.shape}, expected uint8 (N, H, W, C).")
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def time_row(task: Task, row: RowPlan, monitor: Monitor) -> dict[str, float]:
    """Time one row's sampler; nothing else should run meanwhile. Returns seconds by stage."""
    monitor.stage = f"time {row.name}"
    start = time.perf_counter()
    settings = task.suite.timing
    timing = time_sampling(
        _load(task),
        batch_size=settings.batch_size,
        seed=row.seed,
        options=row.options,
        windows=settings.windows,
        window_seconds=settings.window_seconds,
        report=monitor.step,
    )
    seconds = time.perf_counter() - start
    task.store.write_receipt(row.stem, "timing", timing_key(task, row), seconds, timing=timing.model_dump(mode="json"))
    return {"time": seconds}


def timing_key(task: Task, row: RowPlan) -> str:
    """Names a row's timing: weights, sampler options, batch and windows."""
    return hash_value(
        [task.cell.key, asdict(row.options), task.suite.timing.model_dump(mode="json"), task.suite.threads]
    )


def read_timing(receipt: dict[str, Any] | None) -> Timing | None:
    """The timing in a receipt."""
    return None if receipt is None else Timing.model_validate(receipt["timing"])


def read_training(manifest: Manifest) -> Training:
    """The training summary in a checkpoint's manifest."""
    return Training.model_validate(manifest.training)
