"""The one place where stored images, levels, model inputs and dequantised values are converted.

Stored: uint8 in 0..255. Level k of K (0 <= k < K) is stored as round(255 k / (K - 1)); with K = 256 a stored value is
its own level. Models work in float32 on [-1, 1], where level k sits at x = 2 k / (K - 1) - 1.
Dequantised: y = (k + u) / K with u uniform on [0, 1), so log P(k) >= E_u log p(y) - D log K for a density p of y.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def from_levels(levels: Tensor, num_levels: int) -> Tensor:
    """Integer levels in 0..K-1, any shape, to stored uint8 values round(255 k / (K - 1))."""
    k = levels.to(torch.int64)
    return torch.div(2 * 255 * k + (num_levels - 1), 2 * (num_levels - 1), rounding_mode="floor").to(torch.uint8)


def to_levels(images: Tensor, num_levels: int) -> Tensor:
    """Stored uint8 values to the nearest integer level in 0..K-1 (int64), the inverse of `from_levels`."""
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    x = images.to(torch.int64)
    return torch.div(2 * x * (num_levels - 1) + 255, 2 * 255, rounding_mode="floor")


def levels_to_float(levels: Tensor, num_levels: int) -> Tensor:
    """Levels to float32 in [-1, 1]: x = 2 k / (K - 1) - 1."""
    return levels.to(torch.float32) * (2.0 / (num_levels - 1)) - 1.0


def to_float(images: Tensor, num_levels: int) -> Tensor:
    """Stored uint8 values to float32 in [-1, 1], at the exact position of their level."""
    return levels_to_float(to_levels(images, num_levels), num_levels)


def float_to_levels(x: Tensor, num_levels: int) -> Tensor:
    """Float values to the nearest level; values outside [-1, 1] go to the end levels."""
    k = torch.floor((x.float() + 1.0) * (0.5 * (num_levels - 1)) + 0.5)
    return k.clamp(0, num_levels - 1).to(torch.int64)


def from_float(x: Tensor, num_levels: int) -> Tensor:
    """Float values in [-1, 1] to stored uint8 values of the nearest level; values outside are clipped."""
    return from_levels(float_to_levels(x, num_levels), num_levels)


def dequantise(levels: Tensor, uniform: Tensor, num_levels: int) -> Tensor:
    """Levels and uniform noise u in [0, 1) to y = (k + u) / K in [0, 1), in the dtype of ``uniform``."""
    return (levels.to(uniform.dtype) + uniform) / num_levels


def quantise(y: Tensor, num_levels: int) -> Tensor:
    """Dequantised values to the level whose bin holds them: floor(K y), clipped to 0..K-1."""
    return torch.floor(y * num_levels).clamp(0, num_levels - 1).to(torch.int64)


def dequantised_log_offset(num_dims: int, num_levels: int) -> float:
    """Nats to add to log p(y) to bound log P(k): the bin's volume is K^-D, so the offset is -D log K."""
    return -num_dims * math.log(num_levels)


def unit_bin_log_offset(num_dims: int, num_levels: int) -> float:
    """Nats to add to a density of x in [-1, 1] to get mass per level: adjacent levels are 2 / (K - 1) apart."""
    return num_dims * math.log(2.0 / (num_levels - 1))


def bits_per_dim(nats: Tensor, num_dims: int) -> Tensor:
    """Log-probability of the discrete image in nats to bits per dimension: -log P / (D ln 2)."""
    return -nats / (num_dims * math.log(2.0))
