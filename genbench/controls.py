"""Control rows: what a metric should make of real images, of copies, of half the classes and of noise.

They cost next to nothing and show which metrics catch which cheat. What they learn may come from any split, which no
model may do, so they implement `FitsSplits` in place of `genbench.api.Fittable`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest
from genbench.data.base import ImageDataset, Splits
from genbench.errors import UsageError, unknown
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

_ROWS_AT_ONCE = 2048


@runtime_checkable
class FitsSplits(Protocol):
    """A control: learns in closed form and may look at every split."""

    def fit_splits(self, splits: Splits, rng: torch.Generator) -> dict[str, float]:
        """Learn from ``splits``; returns figures for the record.

        Raises:
            UsageError: the control has no meaning for this dataset; the message is the reason.
        """


class Control(GenerativeModel):
    """Base of the controls. Its buffers take the size that a loaded state has, so a fresh instance can load any."""

    control: ClassVar[bool] = True

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, buffer in self._buffers.items():
            value = state_dict.get(prefix + name)
            if buffer is not None and value is not None and value.shape != buffer.shape:
                self._buffers[name] = torch.empty(value.shape, dtype=buffer.dtype, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _set(self, name: str, value: Tensor) -> None:
        old = self.get_buffer(name)
        setattr(self, name, value.to(old.device, old.dtype))


class ReplayConfig(ModelConfig):
    """Settings of the controls that replay stored images."""

    max_images: int = Field(10_000, ge=1)
    """Number of images kept."""


class _Replay(Control):
    """Replays stored images with their labels: sample i is image i mod n of a random order drawn when it was fitted."""

    Config = ReplayConfig
    config: ReplayConfig
    images: Tensor
    labels: Tensor

    def __init__(self, config: ReplayConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("images", torch.zeros((0, *spec.shape), dtype=torch.uint8))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    def sample(self, request: SampleRequest) -> Tensor:
        if not len(self.images):
            raise UsageError(f"{type(self).__name__} has no images yet: call fit_splits or load a checkpoint first.")
        return self.images[request.noise.index.to(self.device) % len(self.images)]

    def labels_of(self, request: SampleRequest) -> Tensor | None:
        """(B,) labels of the replayed images, or None where the dataset has none."""
        if not len(self.labels):
            return None
        return self.labels[request.noise.index.to(self.device) % len(self.labels)]

    def _keep(self, dataset: ImageDataset, candidates: np.ndarray, rng: torch.Generator) -> dict[str, float]:
        order = torch.randperm(len(candidates), generator=rng)[: self.config.max_images].numpy()
        chosen = np.asarray(dataset.images)[candidates[order]]
        self._set("images", torch.from_numpy(np.ascontiguousarray(chosen)))
        if dataset.labels is not None:
            self._set("labels", torch.from_numpy(np.asarray(dataset.labels)[candidates[order]]))
        return {"images": float(len(chosen))}


class TestSplit(_Replay):
    """The test split as if it were samples: the best that a metric can be asked to see."""

    __test__ = False

    def fit_splits(self, splits: Splits, rng: torch.Generator) -> dict[str, float]:
        return self._keep(splits.test, np.arange(len(splits.test)), rng)


class Memoriser(_Replay):
    """Replays training images, none twice while there are enough."""

    def fit_splits(self, splits: Splits, rng: torch.Generator) -> dict[str, float]:
        return self._keep(splits.train, np.arange(len(splits.train)), rng)


class ModeDropper(_Replay):
    """Replays training images of the first half of the classes."""

    def fit_splits(self, splits: Splits, rng: torch.Generator) -> dict[str, float]:
        train = splits.train
        if train.labels is None or splits.spec.num_classes < 2:
            raise UsageError(f"mode_dropper drops half of the classes, and the dataset '{splits.name}' has no labels.")
        kept = splits.spec.num_classes // 2
        candidates = np.flatnonzero(np.asarray(train.labels) < kept)
        if not len(candidates):
            raise UsageError(f"mode_dropper: '{splits.name}' has no training images of its first {kept} classes.")
        return {**self._keep(train, candidates, rng), "classes": float(kept)}


class Gaussian(Control):
    """The Gaussian with the training images' mean and full covariance over pixels, rounded to levels.

    The factor of the covariance comes from its eigenvectors, so that pixels which never change need no jitter.
    Statistics and sampling are in float64 (float32 on devices without it).
    """

    mean: Tensor
    factor: Tensor

    def __init__(self, config: ModelConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("mean", torch.zeros(spec.dims))
        self.register_buffer("factor", torch.zeros(spec.dims, spec.dims))

    def fit_splits(self, splits: Splits, rng: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        mean, covariance = self._moments(splits.train)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
        self._set("mean", mean)
        self._set("factor", eigenvectors * eigenvalues.clamp(min=0).sqrt())  # (D, D)
        rank = int((eigenvalues > eigenvalues[-1] * 1e-12).sum())
        return {"rank": float(rank)}

    def _moments(self, dataset: ImageDataset) -> tuple[Tensor, Tensor]:
        """Sample mean (D,) and covariance (D, D), ddof = 1, of the levels, float64."""
        blocks = range(0, len(dataset), _ROWS_AT_ONCE)
        mean = torch.zeros(self.spec.dims, dtype=torch.float64)
        for start in blocks:
            mean += self._levels(dataset, start).sum(0)
        mean /= len(dataset)
        scatter = torch.zeros(self.spec.dims, self.spec.dims, dtype=torch.float64)
        for start in blocks:
            centred = self._levels(dataset, start) - mean
            scatter += centred.T @ centred
        return mean, scatter / max(1, len(dataset) - 1)

    def _levels(self, dataset: ImageDataset, start: int) -> Tensor:
        index = np.arange(start, min(start + _ROWS_AT_ONCE, len(dataset)))
        return to_levels(dataset.batch(index).images, self.spec.levels).reshape(len(index), -1).double()

    def sample(self, request: SampleRequest) -> Tensor:
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        z = request.noise.normal((self.spec.dims,)).to(self.device, dtype)  # (B, D)
        values = self.mean.to(dtype) + z @ self.factor.to(dtype).T
        levels = values.add(0.5).floor().clamp(0, self.spec.levels - 1)
        return from_levels(levels, self.spec.levels).reshape(len(request), *self.spec.shape)


class UniformNoise(Control):
    """Every pixel uniform over the levels: the floor. log P(x) = -D log K."""

    def fit_splits(self, splits: Splits, rng: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        return {}

    def sample(self, request: SampleRequest) -> Tensor:
        u = request.noise.uniform(self.spec.shape)
        return from_levels((u * self.spec.levels).floor(), self.spec.levels)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("exact",)

    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:  # noqa: ARG002
        _check_estimator(estimator)
        nats = torch.full((len(batch),), -self.spec.dims * math.log(self.spec.levels), dtype=torch.float64)
        return LogLikelihood(nats, "exact", "exact")


class IndependentPixels(Control):
    """Each pixel drawn from its own histogram over the training images: the likelihood to beat.

    P(x_d = k) = (count_dk + a) / (N + a K), additive smoothing with the pseudo-count a that gives the validation split
    the highest likelihood, out of `PSEUDO_COUNTS`.
    """

    PSEUDO_COUNTS: ClassVar[tuple[float, ...]] = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    counts: Tensor
    pseudo_count: Tensor

    def __init__(self, config: ModelConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.register_buffer("counts", torch.zeros(spec.dims, spec.levels, dtype=torch.int64))
        self.register_buffer("pseudo_count", torch.ones(()))

    def fit_splits(self, splits: Splits, rng: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        counts, held_out = self._histogram(splits.train), self._histogram(splits.validation)
        self._set("counts", counts)
        scores = [float((held_out * _log_probabilities(counts, a)).sum()) for a in self.PSEUDO_COUNTS]
        best = self.PSEUDO_COUNTS[max(range(len(scores)), key=scores.__getitem__)]
        self._set("pseudo_count", torch.tensor(best))
        return {"pseudo_count": best}

    def _histogram(self, dataset: ImageDataset) -> Tensor:
        """(D, K) int64: how often each pixel has each level."""
        dims, levels = self.spec.dims, self.spec.levels
        counts = torch.zeros(dims * levels, dtype=torch.int64)
        offset = torch.arange(dims) * levels
        for start in range(0, len(dataset), _ROWS_AT_ONCE):
            index = np.arange(start, min(start + _ROWS_AT_ONCE, len(dataset)))
            k = to_levels(dataset.batch(index).images, levels).reshape(len(index), dims)
            counts += torch.bincount((k + offset).reshape(-1), minlength=dims * levels)
        return counts.reshape(dims, levels)

    def log_probabilities(self) -> Tensor:
        """(D, K) float64 on the CPU: log P(x_d = k)."""
        return _log_probabilities(self.counts.cpu(), float(self.pseudo_count))

    def sample(self, request: SampleRequest) -> Tensor:
        cumulative = self.log_probabilities().exp().cumsum(1)
        u = request.noise.uniform((self.spec.dims,)).cpu().double()  # (B, D)
        k = torch.searchsorted(cumulative, u.T.contiguous(), right=True)  # (D, B)
        levels = k.T.clamp(max=self.spec.levels - 1).reshape(len(request), *self.spec.shape)
        return from_levels(levels, self.spec.levels).to(self.device)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("exact",)

    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:  # noqa: ARG002
        _check_estimator(estimator)
        k = to_levels(batch.images.cpu(), self.spec.levels).reshape(len(batch), -1)  # (B, D)
        nats = self.log_probabilities().gather(1, k.T).sum(0)
        return LogLikelihood(nats, "exact", "exact")


def _log_probabilities(counts: Tensor, pseudo_count: float) -> Tensor:
    """Smoothed histogram (D, K) as float64 log-probabilities."""
    smoothed = counts.double() + pseudo_count
    return smoothed.log() - smoothed.sum(1, keepdim=True).log()


def _check_estimator(estimator: str) -> None:
    if estimator != "exact":
        raise unknown("likelihood estimator", estimator, ["exact"])
