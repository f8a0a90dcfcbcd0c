"""Drawing samples from a model in batches, with its output checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genbench.api import Condition, GenerativeModel, ImageSpec, KnowsLabels, SampleRequest, SamplerOptions
from genbench.errors import GenbenchError
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource


class ModelOutputError(GenbenchError):
    """A model returned something other than what the contract asks for."""


def check_images(images: Tensor, count: int, spec: ImageSpec, what: str) -> Tensor:
    """Return ``images`` when they are (count, C, H, W) uint8 on the levels of ``spec``.

    Raises:
        ModelOutputError: wrong type, dtype, shape, or values that are no level (255 k / (K - 1), rounded).
    """
    if not isinstance(images, Tensor):
        raise ModelOutputError(f"{what} returned {type(images).__name__}, expected a uint8 tensor")
    if images.dtype != torch.uint8:
        finite = not images.is_floating_point() or bool(torch.isfinite(images).all())
        hint = "" if finite else " holding NaN or infinity"
        raise ModelOutputError(
            f"{what} returned dtype {images.dtype}{hint}, expected torch.uint8 (see genbench.images.from_float)"
        )
    if tuple(images.shape) != (count, *spec.shape):
        raise ModelOutputError(f"{what} returned shape {tuple(images.shape)}, expected {(count, *spec.shape)}")
    if spec.levels != 256 and not torch.equal(from_levels(to_levels(images, spec.levels), spec.levels), images):
        raise ModelOutputError(f"{what} returned values that are not among the {spec.levels} levels of this dataset")
    return images


def default_condition(model: GenerativeModel, index: Tensor) -> Condition:
    """What samples are asked to be where nobody says so: of a class-conditional model, its classes in turn.

    Sample i is of class i mod num_classes, so that classes are balanced and a sample's label depends on i alone. Models
    of imbalanced data pay for that in distribution metrics, whose reference keeps its own proportions.
    """
    if "labels" not in model.conditions or not model.spec.num_classes:
        return Condition()
    return Condition(labels=index.to(model.device, torch.int64) % model.spec.num_classes)


def inpainting_condition(model: GenerativeModel, index: Tensor, source: Tensor, mask: Tensor) -> Condition:
    """The condition for filling in ``source`` (B, C, H, W) where ``mask`` (B, 1, H, W) is False."""
    return replace(default_condition(model, index), source=source.to(model.device), mask=mask.to(model.device))


def sample_labels(
    model: GenerativeModel, num_samples: int, seed: int, options: SamplerOptions | None = None
) -> np.ndarray | None:
    """(N,) int64 classes of samples 0..N-1 as `draw_samples` gives them: those asked for, or those the model knows.

    None for a model that knows none.

    Raises:
        ModelOutputError: labels of the wrong shape, or that are no classes.
    """
    index = torch.arange(num_samples, device=model.device)
    condition = default_condition(model, index)
    labels = condition.labels
    if labels is None and isinstance(model, KnowsLabels):
        labels = model.labels_of(SampleRequest(NoiseSource(seed, index), options or SamplerOptions(), condition))
    if labels is None:
        return None
    values: np.ndarray = labels.cpu().numpy()
    if values.shape != (num_samples,) or values.dtype != np.int64:
        raise ModelOutputError(f"labels_of() returned {values.dtype} {values.shape}, expected int64 ({num_samples},)")
    if num_samples and not 0 <= values.min() <= values.max() < model.spec.num_classes:
        raise ModelOutputError(f"labels_of() returned labels outside 0..{model.spec.num_classes - 1}")
    return values


@torch.no_grad()
def draw(
    model: GenerativeModel,
    index: Tensor,
    seed: int,
    options: SamplerOptions | None = None,
    condition: Condition | None = None,
) -> Tensor:
    """Samples of the given indices, (B, C, H, W) uint8 on the model's device, by default under `default_condition`."""
    noise = NoiseSource(seed, index.to(model.device), stream="sample")
    request = SampleRequest(noise, options or SamplerOptions(), condition or default_condition(model, index))
    return check_images(model.sample(request), len(index), model.spec, "sample()")


def draw_samples(
    model: GenerativeModel,
    num_samples: int,
    seed: int,
    batch_size: int,
    options: SamplerOptions | None = None,
    report: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Samples 0..num_samples-1 as (N, C, H, W) uint8 in memory; the batch size does not change them.

    Args:
        model: a model in evaluation mode.
        report: called with (drawn, num_samples) after each batch.
    """
    images = np.empty((num_samples, *model.spec.shape), dtype=np.uint8)
    for start in range(0, num_samples, batch_size):
        stop = min(start + batch_size, num_samples)
        images[start:stop] = draw(model, torch.arange(start, stop), seed, options).cpu().numpy()
        if report is not None:
            report(stop, num_samples)
    return images
