"""Resizes that published numbers rest on, each as a pair of matrices: the same numbers on every device.

Every one of them is separable and linear, so an axis is resized by a (size_out, size_in) matrix. Its weights are made
on the CPU by the arithmetic of the tool that it stands for; the products are in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Kernel = Callable[[int, int], Tensor]
"""(size_in, size_out) to the (size_out, size_in) float32 weights of one axis."""

BAND_ROWS = 40


def tensorflow_bilinear(size_in: int, size_out: int) -> Tensor:
    """Weights of TensorFlow 1's bilinear resize (``align_corners=False``).

    Output i reads position i * size_in / size_out: no half-pixel shift, no antialias, clamped at the last pixel.
    """
    position = torch.arange(size_out, dtype=torch.float32) * (size_in / size_out)
    low = position.floor().long().clamp(max=size_in - 1)
    weight = position - low
    matrix = torch.zeros(size_out, size_in)
    rows = torch.arange(size_out)
    matrix.index_put_((rows, low), 1.0 - weight, accumulate=True)
    matrix.index_put_((rows, (low + 1).clamp(max=size_in - 1)), weight, accumulate=True)
    return matrix


def torch_bilinear(size_in: int, size_out: int) -> Tensor:
    """Weights of torch's ``interpolate(mode="bilinear", align_corners=False)``."""
    return _torch_weights(size_in, size_out, antialias=False)


def torch_bilinear_antialias(size_in: int, size_out: int) -> Tensor:
    """Weights of torch's ``interpolate(mode="bilinear", align_corners=False, antialias=True)``."""
    return _torch_weights(size_in, size_out, antialias=True)


def _torch_weights(size_in: int, size_out: int, antialias: bool) -> Tensor:
    """What torch makes of every unit vector, three to an image: it rounds positions otherwise for one channel."""
    groups = math.ceil(size_in / 3)
    unit = torch.eye(3 * groups, size_in).reshape(groups, 3, 1, size_in)
    resized = F.interpolate(unit, size=(1, size_out), mode="bilinear", align_corners=False, antialias=antialias)
    return resized.reshape(3 * groups, size_out)[:size_in].T.contiguous()  # (size_out, size_in)


def pillow_bicubic(size_in: int, size_out: int) -> Tensor:
    """Weights of Pillow's bicubic resize of a float channel (Keys 1981 with a = -1/2), made in float64.

    The kernel is stretched by size_in / size_out where the image shrinks, cut off at the border and normalised.
    """
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    centre = (np.arange(size_out)[:, None] + 0.5) * scale
    pixel = np.arange(size_in)[None, :]
    first = np.maximum(np.floor(centre - 2.0 * stretch + 0.5), 0)
    last = np.minimum(np.floor(centre + 2.0 * stretch + 0.5), size_in)
    weights = _keys_cubic((pixel - centre + 0.5) * (1.0 / stretch)) * ((pixel >= first) & (pixel < last))
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).float()


def _keys_cubic(x: np.ndarray, a: float = -0.5) -> np.ndarray:
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x**2 + 1.0
    far = a * (((x - 5.0) * x + 8.0) * x - 4.0)
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


class Band(NamedTuple):
    """Some rows of an axis matrix, without the columns first and last on which all of them are zero.

    matrix: (rows, last - first).
    """

    first: int
    last: int
    matrix: Tensor


@lru_cache(maxsize=64)
def bands(kernel: Kernel, size_in: int, size_out: int, device: torch.device) -> tuple[Band, ...]:
    """An axis matrix cut into bands, on the device: the work no longer grows with size_in * size_out."""
    matrix = kernel(size_in, size_out)
    found = []
    for rows in torch.tensor_split(matrix, math.ceil(size_out / BAND_ROWS)):
        used = rows.ne(0).any(0).nonzero()
        first, last = int(used[0]), int(used[-1]) + 1
        found.append(Band(first, last, rows[:, first:last].contiguous().to(device)))
    return tuple(found)


def resize(images: Tensor, kernel: Kernel, size: int, to_float: Callable[[Tensor], Tensor]) -> Tensor:
    """(B, C, H, W) of any type to (B, C, size, size) float32; ``to_float`` turns a slice of pixels into float32."""
    height, width = images.shape[2:]
    rows = bands(kernel, height, size, images.device)
    columns = bands(kernel, width, size, images.device)
    x = torch.cat([band.matrix @ to_float(images[:, :, band.first : band.last]) for band in rows], 2)
    return torch.cat([x[..., band.first : band.last] @ band.matrix.T for band in columns], 3)  # (B, C, size, size)
