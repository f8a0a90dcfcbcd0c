"""The training stage of a cell: a checkpoint, trained, fitted or published, and a receipt."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from genbench import __version__, registry
from genbench.api import Fittable, GenerativeModel, ImageSpec, Trainable
from genbench.batches import check_data
from genbench.checkpoint import MANIFEST, load_checkpoint, read_manifest, save_checkpoint
from genbench.controls import FitsSplits
from genbench.data.base import Splits
from genbench.environment import describe_environment
from genbench.errors import DataError, UsageError
from genbench.files import write_json
from genbench.noise import derive_seed
from genbench.recipe import build_config
from genbench.record import Training
from genbench.run.task import Monitor, Task
from genbench.sample import ModelOutputError
from genbench.train import STATE_FILE, Trainer, build_model, seeded


def train_stage(task: Task, splits: Splits, monitor: Monitor) -> float:
    """Leave the cell's checkpoint and a receipt of its training; does nothing when they are there.

    Returns the seconds spent now.
    """
    cell, folder = task.cell, task.store.checkpoint(task.cell.stem)
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        if manifest.key != cell.key:
            raise DataError(
                f"{folder}: its manifest has another key than this run's. Delete the folder to train again."
            )
        if (manifest.sample, manifest.variants) != (cell.recipe.sample, cell.recipe.variants):
            renewed = manifest.model_copy(update={"sample": cell.recipe.sample, "variants": cell.recipe.variants})
            write_json(folder / MANIFEST, renewed.model_dump(mode="json"))
        if task.store.receipt(cell.stem, "training", cell.key) is None:
            _write_training(task, Training.model_validate(manifest.training), manifest.environment)
        return 0.0
    start = time.perf_counter()
    monitor.stage = f"train {cell.model}"
    model, training, trained_in = (
        _published(task, splits) if cell.published else _trained(task, splits, folder, monitor)
    )
    training = training.model_copy(update={"parameters": count_parameters(model)})
    save_checkpoint(folder, model, _manifest(task, splits, training, trained_in))
    (folder / STATE_FILE).unlink(missing_ok=True)
    _write_training(task, training, trained_in)
    return time.perf_counter() - start


def _trained(
    task: Task, splits: Splits, folder: Path, monitor: Monitor
) -> tuple[GenerativeModel, Training, dict[str, Any]]:
    cell = task.cell
    model_class = registry.load_model(cell.reference)
    if issubclass(model_class, Trainable):
        check_data(cell.recipe.train, splits.train.intensities is not None)
    model = build_model(model_class, build_config(model_class, cell.config), splits.spec, cell.seed)
    return model, _learn(task, model, splits, folder, monitor), environment(task)


def _published(task: Task, splits: Splits) -> tuple[GenerativeModel, Training, dict[str, Any]]:
    """The published weights, with the figures and the environment of their training."""
    assert task.cell.published is not None
    model, manifest = load_checkpoint(task.cell.published, "cpu", registry.load_model(task.cell.reference))
    if model.spec != splits.spec:
        raise UsageError(
            f"The published weights of {task.cell.model} are for images {_describe(model.spec)}, this dataset's are "
            f"{_describe(splits.spec)}. Train it on this dataset: run without --from-published."
        )
    training = Training.model_validate(manifest.training).model_copy(update={"source": "published"})
    return model, training, manifest.environment


def _describe(spec: ImageSpec) -> str:
    classes = f", {spec.num_classes} classes" if spec.num_classes else ""
    return f"of {spec.channels} x {spec.height} x {spec.width} and {spec.levels} levels{classes}"


def _write_training(task: Task, training: Training, trained_in: dict[str, Any]) -> None:
    task.store.write_receipt(
        task.cell.stem,
        "training",
        task.cell.key,
        training.seconds,
        training=training.model_dump(mode="json"),
        trained_in=trained_in,
        environment=environment(task),
    )


def environment(task: Task) -> dict[str, Any]:
    """Where a cell is made: versions, device, threads."""
    return describe_environment(task.device, task.suite.threads) | dict(task.commit)


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


def _manifest(task: Task, splits: Splits, training: Training, trained_in: dict[str, Any]) -> dict[str, Any]:
    cell = task.cell
    return {
        "model": cell.reference,
        "suite": task.suite.recipe_table,
        "config": cell.config,
        "spec": asdict(splits.spec),
        "sample": cell.recipe.sample,
        "variants": cell.recipe.variants,
        "seed": cell.seed,
        "key": cell.key,
        "train": cell.train,
        "training": training.model_dump(mode="json"),
        "environment": trained_in,
        "genbench_version": __version__,
    }
