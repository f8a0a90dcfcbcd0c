"""Pictures for the report beside plain samples: reconstructions, interpolations, nearest training images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from genbench.api import Encodes, GenerativeModel, HasLatent, Reconstructs, SamplerOptions
from genbench.data.base import ImageDataset, Splits
from genbench.metrics.memorisation import nearest_images
from genbench.noise import NoiseSource
from genbench.sample import check_images, draw, inpainting_condition

RECONSTRUCTIONS = 1000
"""Test images reconstructed at most; SSIM and PSNR are means over them."""
REAL = 64
PATHS, PATH_STEPS = 4, 9
INPAINTED, COMPLETIONS = 4, 8
MISSING_GREY = 128
NEIGHBOURS = 16
BATCH = 250


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation of standard normal latents (White 2016): norms stay typical along the path.

    a, b: (P, ...). t: (S,) in [0, 1]. Returns (P, S, ...).
    """
    shape = a.shape
    a, b = a.flatten(1), b.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1.0, 1.0)
    angle = torch.arccos(cosine)[:, None, None]
    t = t[None, :, None].to(a)
    weight_a, weight_b = torch.sin((1 - t) * angle), torch.sin(t * angle)
    small = angle.abs() < 1e-4
    weight_a, weight_b = torch.where(small, 1 - t, weight_a), torch.where(small, t, weight_b)
    scale = torch.where(small, torch.ones_like(angle), torch.sin(angle))
    path = (weight_a * a[:, None] + weight_b * b[:, None]) / scale  # (P, S, d)
    return path.reshape(shape[0], -1, *shape[1:])


def _nhwc(images: np.ndarray | Tensor) -> np.ndarray:
    array = images.cpu().numpy() if isinstance(images, Tensor) else images
    return np.ascontiguousarray(np.moveaxis(array, -3, -1))


@torch.no_grad()
def make_gallery(
    model: GenerativeModel,
    splits: Splits,
    samples: np.ndarray,
    seed: int,
    step: Callable[[int, int], None],
    *,
    options: SamplerOptions | None = None,
    of_model: bool = True,
) -> dict[str, np.ndarray]:
    """Arrays for the report, uint8 with channels last.

    ``nearest_samples`` and ``nearest`` (M, H, W, C) always; with ``of_model`` also ``real`` (first test images),
    ``reconstructions`` of the first test images, ``interpolations`` (P, S, H, W, C) and ``inpaintings`` (P, 1 + S,
    H, W, C), each row a test image without its lower half and then completions of it, where the model can.
    """
    shown = samples[:NEIGHBOURS]
    neighbours = splits.train.images[nearest_images(shown, splits.train.images).index]
    arrays = {"nearest_samples": _nhwc(shown), "nearest": _nhwc(neighbours)}
    if of_model:
        arrays["real"] = _nhwc(splits.test.images[:REAL])
        if isinstance(model, Reconstructs):
            arrays["reconstructions"] = _reconstructions(model, splits.test, seed, step)
        if isinstance(model, HasLatent):
            arrays["interpolations"] = _interpolations(model, splits.test, seed)
        if "mask" in model.conditions:
            arrays["inpaintings"] = _inpaintings(model, splits.test, seed, options)
    return arrays


def _reconstructions(
    model: Reconstructs, test: ImageDataset, seed: int, step: Callable[[int, int], None]
) -> np.ndarray:
    assert isinstance(model, GenerativeModel)
    count, pieces = min(len(test), RECONSTRUCTIONS), []
    for start in range(0, count, BATCH):
        batch = test.batch(np.arange(start, min(start + BATCH, count))).to(model.device)
        images = model.reconstruct(batch, NoiseSource(seed, batch.index, stream="reconstruct"))
        pieces.append(_nhwc(check_images(images, len(batch), test.spec, "reconstruct()")))
        step(min(start + BATCH, count), count)
    return np.concatenate(pieces)


def _interpolations(model: HasLatent, test: ImageDataset, seed: int) -> np.ndarray:
    assert isinstance(model, GenerativeModel)
    if isinstance(model, Encodes):
        ends = model.encode(test.batch(np.arange(2 * PATHS) % len(test)).to(model.device))
    else:
        index = torch.arange(2 * PATHS, device=model.device)
        ends = NoiseSource(seed, index, stream="interpolate").normal(tuple(model.latent_shape))
    path = slerp(ends[0::2], ends[1::2], torch.linspace(0.0, 1.0, PATH_STEPS, device=ends.device))
    images = check_images(model.decode(path.flatten(0, 1)), PATHS * PATH_STEPS, test.spec, "decode()")
    return _nhwc(images.reshape(PATHS, PATH_STEPS, *test.spec.shape))


def _inpaintings(model: GenerativeModel, test: ImageDataset, seed: int, options: SamplerOptions | None) -> np.ndarray:
    """Completions of test images whose upper half is given; class-conditional models are told the true class."""
    which = np.repeat(np.arange(INPAINTED) % len(test), COMPLETIONS)
    batch = test.batch(which)
    index = torch.arange(len(which))
    mask = torch.zeros(len(which), 1, test.spec.height, test.spec.width, dtype=torch.bool)
    mask[:, :, : test.spec.height // 2] = True
    condition = inpainting_condition(model, index, batch.images, mask)
    if condition.labels is not None and batch.labels is not None:
        condition = replace(condition, labels=batch.labels.to(model.device))
    filled = draw(model, index, seed, options, condition).cpu().reshape(INPAINTED, COMPLETIONS, *test.spec.shape)
    given = torch.where(mask, batch.images, torch.full_like(batch.images, MISSING_GREY))
    given = given.reshape(INPAINTED, COMPLETIONS, *test.spec.shape)[:, :1]
    return _nhwc(torch.cat((given, filled), dim=1))
