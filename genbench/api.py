"""The contract between the harness and a model: what a model file writes, and the values that travel.

A model subclasses `GenerativeModel` and implements either `update` (one optimisation step) or `fit` (closed-form
learning), and `sample`. Optional capabilities are the protocols at the end of this file; the harness asks what a model
can do with ``isinstance``, never who it is. Images cross this border as uint8 (B, C, H, W), see `genbench.images`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.optim import Optimizer

from genbench.errors import UsageError
from genbench.images import to_levels
from genbench.noise import NoiseSource

Kind = Literal["exact", "lower_bound", "estimate"]


@dataclass(frozen=True)
class ImageSpec:
    """What the images of a dataset are: (C, H, W), the number of levels a value can take, and the classes."""

    channels: int
    height: int
    width: int
    levels: int = 256
    class_names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.height, self.width)

    @property
    def dims(self) -> int:
        """D = C H W."""
        return self.channels * self.height * self.width

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


@dataclass(frozen=True)
class Batch:
    """Images with what is known of them; what is not known is None.

    images: (B, C, H, W) uint8. index: (B,) int64, positions in the split. labels: (B,) int64. source: (B, C', H', W')
    uint8, the image to translate. mask: (B, 1, H, W) bool, True where pixels are given.
    """

    images: Tensor
    index: Tensor
    labels: Tensor | None = None
    captions: tuple[str, ...] | None = None
    source: Tensor | None = None
    mask: Tensor | None = None

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device) -> Batch:
        """This batch with every tensor on ``device``."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Condition:
    """What samples are conditioned on; fields as in `Batch`."""

    labels: Tensor | None = None
    captions: tuple[str, ...] | None = None
    source: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Given:
    """Values that an inpainting request gives. mask: (B, C, H, W) bool, where. levels: (B, C, H, W) int64, which."""

    mask: Tensor
    levels: Tensor


@dataclass(frozen=True)
class SamplerOptions:
    """Sampling options. A model lists those it honours in `sampler_options`; others must stay None.

    Raises:
        UsageError: fewer than 1 step.
    """

    steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None
    solver: str | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise UsageError(f"A sampler takes at least 1 step, got steps = {self.steps}.")


@dataclass(frozen=True)
class SampleRequest:
    """A request for ``len(noise)`` samples; ``noise.index`` (B,) holds their indices.

    All randomness must come from ``noise``, so that sample i depends on (seed, i) alone.
    """

    noise: NoiseSource
    options: SamplerOptions = field(default_factory=SamplerOptions)
    condition: Condition = field(default_factory=Condition)

    def __len__(self) -> int:
        return len(self.noise)

    def given(self, spec: ImageSpec) -> Given | None:
        """The values that the condition's mask gives of its source, None without a mask.

        Raises:
            UsageError: a mask without its source, or shapes other than (B, 1, H, W) and (B, C, H, W).
        """
        mask, source = self.condition.mask, self.condition.source
        if mask is None:
            return None
        mask_shape, shape = (len(self), 1, *spec.shape[1:]), (len(self), *spec.shape)
        if source is None or tuple(source.shape) != shape or tuple(mask.shape) != mask_shape:
            has = "no source" if source is None else f"a source of shape {tuple(source.shape)}"
            raise UsageError(
                f"Inpainting {len(self)} images: got a mask of shape {tuple(mask.shape)} and {has}, expected "
                f"{mask_shape} and {shape}. Give one mask and one source for each sample."
            )
        return Given(mask.expand(shape), to_levels(source, spec.levels))


@dataclass(frozen=True)
class LogLikelihood:
    """log P(x) of discrete images in nats, (B,) float64, with what kind of number it is.

    kind: "exact", "lower_bound" on log P, or "estimate" (neither). estimator: "exact", "elbo", "iwae-500", ...
    standard_error: (B,) float64, the estimator's own Monte Carlo error per image, or None where there is none.
    """

    nats: Tensor
    kind: Kind
    estimator: str
    standard_error: Tensor | None = None


@dataclass(frozen=True)
class LogNormaliser:
    """log Z of an unnormalised model, estimated once and shared by all images.

    value: nats. standard_error: of ``value``, 0 where it is exact. kind: what log P = log p~ - value is with it; an
    estimated log Z makes it an "estimate". details: figures for the record (effective sample size, chains, ...).
    """

    value: float
    standard_error: float
    kind: Kind
    details: Mapping[str, float] = field(default_factory=dict)


class ModelConfig(BaseModel):
    """Base of model configs: frozen, typed, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainContext(Protocol):
    """What `update` may use besides its batch."""

    step: int
    """0-based number of this step."""
    progress: float
    """Share of the budget already spent, in [0, 1)."""
    rng: torch.Generator
    """A generator on the training device, reseeded for every step from (seed, step)."""

    @property
    def device(self) -> torch.device: ...

    def backward(self, loss: Tensor) -> None:
        """Backpropagate, with loss scaling where precision needs it."""

    def step_optimizer(self, name: str) -> None:
        """Clip gradients as the recipe says, step the named optimiser at the scheduled rate, zero its gradients."""


@dataclass(frozen=True)
class TrainingData:
    """What a model may learn from: the training and the validation split, whole, as CPU tensors.

    intensities: (N, C, H, W) uint8 grey values that binary training images were drawn from, where there are such.
    """

    train: Batch
    validation: Batch
    spec: ImageSpec
    intensities: Tensor | None = None


class GenerativeModel(nn.Module):
    """Base class of every model. Parameters and buffers (replay buffers, running means, ...) are its whole state.

    Class attributes:
        Config: the model's config class.
        networks: names of submodules called (only through ``__call__`` in `update`) as networks; their calls are
            counted as network evaluations.
        averaged: names among ``networks`` whose parameters are averaged over steps (EMA) for validation and sampling.
        sampler_options: names of the `SamplerOptions` fields that `sample` honours.
        conditions: what `sample` can be conditioned on: "labels", "captions", "source", "mask". A model that lists
            "labels" is asked for the classes in turn: sample i is to be of class i mod num_classes. One that lists
            "mask" inpaints: where the condition's mask is set, its samples equal the condition's source, and the
            harness asks for it only with both.
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig
    networks: ClassVar[tuple[str, ...]] = ()
    averaged: ClassVar[tuple[str, ...]] = ()
    sampler_options: ClassVar[frozenset[str]] = frozenset()
    conditions: frozenset[str] = frozenset()

    def __init__(self, config: ModelConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.config = config
        self.spec = spec

    def sample(self, request: SampleRequest) -> Tensor:
        """Draw samples: (B, C, H, W) uint8 on the levels of ``self.spec``."""
        raise TypeError(f"{type(self).__name__} does not implement sample() ({len(request)} images asked).")

    @property
    def device(self) -> torch.device:
        """The device of the model's parameters and buffers."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")


@runtime_checkable
class Trainable(Protocol):
    """A model learned by gradient steps."""

    def optimizers(self) -> dict[str, Optimizer]:
        """The optimisers by name, with their base learning rates; the recipe's schedule scales those."""

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One optimisation step; returns scalar figures for the training curve (detached)."""

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) figure per image that early stopping minimises on the validation split."""


@runtime_checkable
class Fittable(Protocol):
    """A model learned in closed form."""

    def fit(self, data: TrainingData, rng: torch.Generator) -> dict[str, float]:
        """Learn from ``data``; returns figures for the record."""


@runtime_checkable
class HasLikelihood(Protocol):
    """A model with a probability of discrete images."""

    def likelihood_estimators(self) -> tuple[str, ...]:
        """Names of the estimators offered, the one to quote first."""

    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        """Per-image log P(x); randomness from ``noise``, whose index is ``batch.index``."""


@runtime_checkable
class HasNormaliser(Protocol):
    """A model that knows its probability up to a constant, log P(x) = log p~(x) - log Z, and can find log Z.

    The harness finds log Z once for an estimator and takes it from every image's log p~.
    """

    def likelihood_estimators(self) -> tuple[str, ...]:
        """Names of the estimators of log Z offered, the one to quote first; empty where none applies."""

    def log_unnormalised(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) float64 log p~(x) in nats of discrete images; randomness from ``noise`` alone."""

    def log_normaliser(self, estimator: str, seed: int) -> LogNormaliser:
        """log Z; all randomness from ``seed``.

        Raises:
            NotConverged: the estimate cannot be trusted; the message says why.
        """


@runtime_checkable
class KnowsLabels(Protocol):
    """A model that knows the classes of its samples without being asked for them, as one that replays images does."""

    def labels_of(self, request: SampleRequest) -> Tensor | None:
        """(B,) int64 class of each image that `sample` gives for this request, or None where it is not known."""


@runtime_checkable
class Reconstructs(Protocol):
    """A model that can rebuild an image from its own code of it."""

    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B, C, H, W) uint8."""


@runtime_checkable
class HasLatent(Protocol):
    """A model that decodes latents with a standard normal prior."""

    @property
    def latent_shape(self) -> tuple[int, ...]: ...

    def decode(self, z: Tensor) -> Tensor:
        """(B, *latent_shape) float32 to the most likely or mean image, (B, C, H, W) uint8."""


@runtime_checkable
class Encodes(HasLatent, Protocol):
    """A model that also maps images to latents."""

    def encode(self, batch: Batch) -> Tensor:
        """(B, *latent_shape) float32, deterministic (the posterior's mean where there is a posterior)."""
