"""Images as Pillow resizes them, which is how the authors of CLIP, DINOv2 and torchvision's weights feed them.

Pillow resamples 8-bit images in fixed point: along the rows, then along the columns, each result rounded to 8 bits.
On a CPU Pillow itself does it, and for MPS, which has no float64; elsewhere the same integers come from two matrix
products in float64, which hold them exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genbench.errors import DataError

Filter = Literal["bilinear", "bicubic"]

_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
_FIXED_POINT = 1 << 22
_BY_PILLOW = ("cpu", "mps")


@dataclass(frozen=True)
class PillowInput:
    """uint8 images to the normalised input of a network.

    resize: "exact" stretches to ``size``; "shorter side" keeps the image's shape and cuts ``crop`` from its centre.
    size: (height, width) for "exact", or the shorter side. mean, std: of the channels, in units of [0, 1].
    """

    resize: Literal["exact", "shorter side"]
    size: tuple[int, int] | int
    crop: tuple[int, int]
    filter: Filter
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) uint8 to (B, 3, crop) float32; grey is repeated."""
        resized = pillow_resize(images, self._target(images.shape[-2], images.shape[-1]), self.filter)
        return normalise(_centre(resized, self.crop).float() / 255.0, self.mean, self.std)

    @property
    def side(self) -> int:
        """The shorter side of what the network sees, in pixels."""
        return min(self.crop)

    def describe(self) -> str:
        """What ``comparable`` says of it."""
        if self.resize == "exact":
            how = f"to {self.crop[0]}x{self.crop[1]}"
        else:
            how = f"of the shorter side to {self.size}, centre crop {self.crop[0]}x{self.crop[1]}"
        return f"Pillow {self.filter} {how}, 8 bits, mean {_digits(self.mean)}, std {_digits(self.std)}"

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.size, int):
            return self.size
        shorter, longer = sorted((height, width))
        stretched = int(self.size * longer / shorter)
        return (self.size, stretched) if height <= width else (stretched, self.size)


def check_channels(images: np.ndarray, name: str) -> None:
    """Refuse images of other than 1 or 3 channels, and images without a pixel.

    Raises:
        DataError: another shape.
    """
    if images.ndim == 4 and (images.shape[1] not in (1, 3) or 0 in images.shape[2:]):
        raise DataError(
            f"Extractor '{name}' takes images of 1 or 3 channels with at least one pixel, got (C, H, W) = "
            f"{tuple(images.shape[1:])}."
        )


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(B, 1 or 3, H, W) to (B, 3, H, W): (x - mean) / std by channel."""
    centre = torch.tensor(mean, device=images.device)[:, None, None]
    spread = torch.tensor(std, device=images.device)[:, None, None]
    return (images - centre) / spread


def pillow_resize(images: Tensor, size: tuple[int, int], filter: Filter) -> Tensor:
    """(B, C, H, W) uint8 to (B, C, *size) uint8, equal to Pillow's resize bit by bit on every device."""
    if images.shape[-2:] == size:
        return images
    if images.device.type in _BY_PILLOW:
        return _by_pillow(images.cpu(), size, filter).to(images.device)
    return resize_by_matrices(images, size, filter)


def resize_by_matrices(images: Tensor, size: tuple[int, int], filter: Filter) -> Tensor:
    """`pillow_resize` as two products of integers held in float64."""
    rows = _weights(images.shape[-1], size[1], filter).to(images.device)  # (w, W)
    columns = _weights(images.shape[-2], size[0], filter).to(images.device)  # (h, H)
    wide = _round(images.double() @ rows.T)  # (B, C, H, w)
    return _round(columns @ wide).to(torch.uint8)  # (B, C, h, w)


def _round(sums: Tensor) -> Tensor:
    return ((sums + _FIXED_POINT // 2) / _FIXED_POINT).floor().clamp(0, 255)


@lru_cache(maxsize=64)
def _weights(size_in: int, size_out: int, filter: Filter) -> Tensor:
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    support = _SUPPORT[filter] * stretch
    matrix = torch.zeros(size_out, size_in, dtype=torch.float64)
    for i in range(size_out):
        centre = (i + 0.5) * scale
        low = max(int(centre - support + 0.5), 0)
        high = min(int(centre + support + 0.5), size_in)
        taps = _kernel((np.arange(low, high) - centre + 0.5) / stretch, filter)
        fixed = taps / taps.sum() * _FIXED_POINT
        matrix[i, low:high] = torch.from_numpy(np.trunc(fixed + np.copysign(0.5, fixed)))
    return matrix


def _kernel(x: np.ndarray, filter: Filter) -> np.ndarray:
    x = np.abs(x)
    if filter == "bilinear":
        return np.maximum(1.0 - x, 0.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _by_pillow(images: Tensor, size: tuple[int, int], filter: Filter) -> Tensor:
    channels = images.shape[1]
    out = np.empty((*images.shape[:2], *size), np.uint8)
    for i, image in enumerate(images.numpy()):
        pixels = image[0] if channels == 1 else np.ascontiguousarray(image.transpose(1, 2, 0))
        resized = np.asarray(Image.fromarray(pixels).resize(size[::-1], _PILLOW[filter]))
        out[i] = resized[None] if channels == 1 else resized.transpose(2, 0, 1)
    return torch.from_numpy(out)


def _centre(images: Tensor, crop: tuple[int, int]) -> Tensor:
    top = round((images.shape[-2] - crop[0]) / 2.0)
    left = round((images.shape[-1] - crop[1]) / 2.0)
    return images[..., top : top + crop[0], left : left + crop[1]]


def _digits(values: tuple[float, ...]) -> list[Any]:
    return [round(value, 8) for value in values]
