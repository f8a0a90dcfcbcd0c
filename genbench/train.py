"""Training: the harness owns budget, data order, precision, device, EMA, early stopping and resume.

Every step is a function of (seed, step) and the state before it: the data order is a permutation keyed by the epoch,
the generator is reseeded for each step, and all state is saved; so a resumed training equals an uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from genbench.api import Batch, GenerativeModel, Trainable, TrainingData
from genbench.batches import Batches
from genbench.checkpoint import load_state, load_tensors, save_tensors
from genbench.errors import DataError, GenbenchError, Interrupted
from genbench.noise import NoiseSource, derive_seed
from genbench.recipe import TrainRecipe
from genbench.record import Curve, Training

STATE_FILE = "training.safetensors"
CURVE_POINTS = 200
VALIDATION_BATCH = 256


class TrainingError(GenbenchError):
    """Training broke: a loss that is not finite, or a model that returned the wrong thing."""


class _Diverged(Exception):  # noqa: N818
    """Raised inside the loop by a figure that is not finite."""


class _StopAsked(Exception):  # noqa: N818
    """Raised inside the loop when the run asked to stop."""


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """Run a block with torch's default generators seeded, and restore them after; yields a generator on ``device``."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield torch.Generator(device).manual_seed(seed)


def build_model(model_class: type[GenerativeModel], config: Any, spec: Any, seed: int) -> GenerativeModel:
    """Construct a model on the CPU with its initial weights drawn from ``seed``."""
    with seeded(derive_seed(seed, "init"), torch.device("cpu")):
        return model_class(config, spec)


def to_device(model: GenerativeModel, device: torch.device) -> GenerativeModel:
    """Move a model; on CUDA its convolutions take channels-last weights, which its tensor cores prefer."""
    model.to(device)
    if device.type == "cuda":
        model.to(memory_format=torch.channels_last)
    return model


class Average:
    """Exponential moving average of networks' parameters; their buffers are copied, not averaged.

    The decay at step n is min(decay, (1 + n) / (10 + n)), so that short trainings are not averages of their start.
    """

    def __init__(self, networks: dict[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self._networks = networks
        self.shadow = {f"{name}.{key}": p.detach().clone() for name, key, p in self._parameters()}

    def _parameters(self) -> Iterator[tuple[str, str, Tensor]]:
        for name, network in self._networks.items():
            for key, parameter in network.named_parameters():
                yield name, key, parameter

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the current parameters."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [p.detach() for _, _, p in self._parameters()]
        torch._foreach_lerp_(list(self.shadow.values()), current, 1.0 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Run a block with the averaged parameters in place of the current ones."""
        kept = {f"{name}.{key}": p.detach().clone() for name, key, p in self._parameters()}
        self.copy_in(self.shadow)
        try:
            yield
        finally:
            self.copy_in(kept)

    @torch.no_grad()
    def copy_in(self, values: dict[str, Tensor]) -> None:
        """Set the networks' parameters to ``values``, keyed as `shadow` is."""
        for name, key, parameter in self._parameters():
            parameter.copy_(values[f"{name}.{key}"])


@dataclass
class _Progress:
    """The part of the training state that is not tensors."""

    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None
    kept_step: int | None = None
    since_best: int = 0
    stopped_early: bool = False
    diverged: str | None = None
    validated: int = 0
    sums: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    curves: dict[str, dict[str, list]] = field(default_factory=dict)

    def add_point(self, name: str, step: int, value: float) -> None:
        curve = self.curves.setdefault(name, {"step": [], "value": []})
        curve["step"].append(step)
        curve["value"].append(value)


class _Context:
    """The `TrainContext` handed to `update`."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.step = 0
        self.progress = 0.0
        self.rng = torch.Generator(trainer.device)

    @property
    def device(self) -> torch.device:
        return self._trainer.device

    def backward(self, loss: Tensor) -> None:
        self._trainer.accelerator.backward(loss)

    def step_optimizer(self, name: str) -> None:
        self._trainer.step_optimizer(name, self.step)


class Trainer:
    """Trains one `Trainable` model by its recipe.

    Args:
        model: a freshly built model; it is moved to ``device`` and ends with its final weights, in evaluation mode.
        steps: the budget in steps (the recipe's, scaled).
        state_dir: where the resumable state lives; a state found there is continued.
        report: called with (step, steps) after each step.
        should_stop: asked after each step; True saves the state and raises `Interrupted`.
    """

    def __init__(
        self,
        model: GenerativeModel,
        data: TrainingData,
        recipe: TrainRecipe,
        *,
        seed: int,
        device: torch.device,
        steps: int | None = None,
        state_dir: Path | None = None,
        report: Callable[[int, int], None] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        if not isinstance(model, Trainable):
            raise TrainingError(f"{type(model).__name__} has no optimizers(), update() and validate()")
        self.model: Any = model
        self.recipe, self.seed, self.device = recipe, seed, device
        self.steps = recipe.steps if steps is None else steps
        self.state_path = None if state_dir is None else state_dir / STATE_FILE
        self._report, self._should_stop = report, should_stop
        precision = recipe.precision if device.type == "cuda" else "fp32"
        self.accelerator = Accelerator(
            mixed_precision="bf16" if precision == "bf16" else "no", cpu=device.type == "cpu"
        )
        to_device(model, device)
        self.batches = Batches(data, recipe, seed, device)
        self.validation_data = data.validation.to(device)
        self.optimizers = model.optimizers()
        self._base_rates = {n: [g["lr"] for g in o.param_groups] for n, o in self.optimizers.items()}
        averaged = {name: model.get_submodule(name) for name in model.averaged}
        self.average = Average(averaged, recipe.ema_decay) if recipe.ema_decay and averaged else None
        self.kept_state: dict[str, Tensor] | None = None
        """Weights of the best validation, or of the last one where the recipe does not keep the best."""
        self.progress = _Progress()

    def run(self) -> Training:
        """Train to the end of the budget (or to an early stop) and leave the final weights in the model.

        Raises:
            Interrupted: stopped on request; the state is saved.
            TrainingError: a figure that is not finite before the first validation (after it, training stops and keeps
                the last good weights), or a `validate` of the wrong shape.
        """
        self._resume()
        start = time.perf_counter() - self.progress.seconds
        context = _Context(self)
        try:
            self._validate_if_due()
            while self.progress.step < self.steps and not self.progress.stopped_early:
                self._one_step(context)
                self.progress.seconds = time.perf_counter() - start
                self._log_if_due()
                self._validate_if_due()
                if self._report is not None:
                    self._report(self.progress.step, self.steps)
                if self.progress.step < self.steps:
                    self._stop_if_asked()
                    if self.progress.step % self.recipe.checkpoint_every == 0:
                        self._save()
        except _StopAsked:
            self._save()
            step = self.progress.step
            raise Interrupted(f"stopped at step {step} of {self.steps}; the state is saved") from None
        except _Diverged as reason:
            advice = "lower the learning rate or clip gradients"
            if self.kept_state is None:
                raise TrainingError(f"{reason}; {advice}") from None
            self.progress.diverged = f"{reason}; the weights are those of step {self.progress.kept_step}; {advice}"
        self._finish()
        self.progress.seconds = time.perf_counter() - start
        return self._summary()

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise _StopAsked

    def _one_step(self, context: _Context) -> None:
        step = self.progress.step
        context.step, context.progress = step, step / self.steps
        self.model.train()
        with seeded(derive_seed(self.seed, "step", step), self.device) as rng, self.accelerator.autocast():
            context.rng = rng
            figures = self.model.update(self.batches.of_step(step, rng), context)
        for name, value in figures.items():
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value.detach().float()
            self.progress.counts[name] = self.progress.counts.get(name, 0) + 1
        self.progress.step = step + 1
        if self.average is not None:
            self.average.update(step + 1)

    def step_optimizer(self, name: str, step: int) -> None:
        """Clip, set the scheduled rate, step and zero gradients of one optimiser."""
        optimizer = self.optimizers[name]
        scale = rate_scale(self.recipe, step, self.steps)
        for group, base in zip(optimizer.param_groups, self._base_rates[name], strict=True):
            group["lr"] = base * scale
        if self.recipe.grad_clip is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self.accelerator.clip_grad_norm_(parameters, self.recipe.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.clear_autocast_cache()  # it holds casts of the weights as they were before this step

    def _log_if_due(self) -> None:
        step = self.progress.step
        if step % max(1, self.steps // CURVE_POINTS) and step != self.steps:
            return
        for name, total in self.progress.sums.items():
            value = float(total) / self.progress.counts[name]
            if not math.isfinite(value):
                raise _Diverged(f"'{name}' is {value} at step {step}")
            self.progress.add_point(name, step, value)
        self.progress.sums, self.progress.counts = {}, {}

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        self.model.eval()
        if self.average is None:
            yield
        else:
            with self.average.swapped_in():
                yield

    def _validate_if_due(self) -> None:
        step = self.progress.step
        due = step > 0 and (step % self.recipe.validate_every == 0 or step == self.steps)
        if not due or self.progress.validated == step:
            return
        with self._evaluating():
            value = self._validation_figure()
            if not math.isfinite(value):
                raise _Diverged(f"validation is {value} at step {step}")
            self.progress.validated = step
            self.progress.add_point("validation", step, value)
            if self.progress.best is None or value < self.progress.best:
                self.progress.best, self.progress.best_step, self.progress.since_best = value, step, 0
            else:
                self.progress.since_best += 1
            if self.progress.since_best == 0 or not self.recipe.keep_best:
                self.kept_state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
                self.progress.kept_step = step
        patience = self.recipe.patience
        self.progress.stopped_early = patience is not None and self.progress.since_best >= patience

    @torch.no_grad()
    def _validation_figure(self) -> float:
        data, total = self.validation_data, 0.0
        for start in range(0, len(data), VALIDATION_BATCH):
            self._stop_if_asked()
            piece = slice(start, start + VALIDATION_BATCH)
            labels = None if data.labels is None else data.labels[piece]
            batch = Batch(images=data.images[piece], index=data.index[piece], labels=labels)
            noise = NoiseSource(self.seed, batch.index, stream="validation")
            figure = self.model.validate(batch, noise)
            if tuple(figure.shape) != (len(batch),):
                raise TrainingError(f"validate() returned shape {tuple(figure.shape)}, expected ({len(batch)},)")
            total += float(figure.cpu().double().sum())
        return total / len(data)

    def _finish(self) -> None:
        if self.kept_state is not None and (self.recipe.keep_best or self.progress.diverged):
            self.model.load_state_dict(self.kept_state)
        elif self.average is not None:
            self.average.copy_in(self.average.shadow)
        self.model.eval()

    def _summary(self) -> Training:
        done = self.progress
        size = self.batches.size
        return Training(
            steps=done.step,
            budget_steps=self.steps,
            best_step=done.best_step if self.recipe.keep_best else None,
            stopped_early=done.stopped_early,
            diverged=done.diverged,
            seconds=done.seconds,
            images_per_second=done.step * size / done.seconds if done.seconds > 0 else None,
            curves={name: Curve(**curve) for name, curve in done.curves.items()},
        )

    def _save(self) -> None:
        if self.state_path is None:
            return
        tensors = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        for k, v in (self.kept_state or {}).items():
            tensors[f"kept/{k}"] = v
        for k, v in (self.average.shadow if self.average else {}).items():
            tensors[f"average/{k}"] = v
        scalars: dict[str, Any] = {}
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                for key, value in state.items():
                    if isinstance(value, Tensor):
                        tensors[f"optimizer/{name}/{index}/{key}"] = value
                    else:
                        scalars[f"{name}/{index}/{key}"] = value
        done = {**vars(self.progress), "sums": {k: float(v) for k, v in self.progress.sums.items()}}
        save_tensors(self.state_path, tensors, {"progress": done, "optimizer": scalars})

    def _resume(self) -> None:
        if self.state_path is None or not self.state_path.exists():
            return
        tensors, metadata = load_tensors(self.state_path)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "kept": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, key = name.split("/", 1)
            parts[part][key] = tensor
        try:
            load_state(self.model, parts["model"], str(self.state_path))
            self.kept_state = {k: v.to(self.device) for k, v in parts["kept"].items()} or None
            if self.average is not None:
                self.average.shadow = {k: parts["average"][k].to(self.device) for k in self.average.shadow}
            for name, optimizer in self.optimizers.items():
                _load_optimizer(optimizer, name, parts["optimizer"], metadata["optimizer"])
            self.progress = _Progress(**metadata["progress"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.state_path}: not the state of this training ({error!r}). Delete it to start over."
            ) from None


def _load_optimizer(
    optimizer: torch.optim.Optimizer, name: str, tensors: dict[str, Tensor], scalars: dict[str, Any]
) -> None:
    state: dict[int, dict[str, Any]] = {}
    for path, value in (*tensors.items(), *scalars.items()):
        owner, index, key = path.split("/", 2)
        if owner == name:
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def rate_scale(recipe: TrainRecipe, step: int, steps: int) -> float:
    """Factor on the base learning rate: linear warm-up, then the recipe's schedule to the end of the budget."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return 1.0
    done = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    return 1.0 - done if recipe.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
