"""Drawing samples from a model in batches, with its output checked."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from genbench.api import Condition, GenerativeModel, ImageSpec, SampleRequest, SamplerOptions
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


@torch.no_grad()
def draw(
    model: GenerativeModel,
    index: Tensor,
    seed: int,
    options: SamplerOptions | None = None,
    condition: Condition | None = None,
) -> Tensor:
    """Samples of the given indices, (B, C, H, W) uint8 on the model's device."""
    noise = NoiseSource(seed, index.to(model.device), stream="sample")
    request = SampleRequest(noise, options or SamplerOptions(), condition or Condition())
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
