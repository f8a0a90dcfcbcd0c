"""The energy distance between two sets of images: a figure to watch where a model has no likelihood."""

from __future__ import annotations

import torch
from torch import Tensor


def energy_distance(real: Tensor, generated: Tensor) -> Tensor:
    """Per real image, a term whose mean is the energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'|.

    The distance is zero if and only if both sets come from one distribution (Szekely and Rizzo, "Energy statistics: a
    class of statistics based on distances", 2013). Pairs of an image with itself are left out, so the mean is unbiased
    and can be slightly negative. |.| is the root mean square over pixels.

    Args:
        real: (B, C, H, W) float, X.
        generated: (N, C, H, W) float, Y, on the same scale.

    Returns:
        (B,) float32.
    """
    x, y = real.float().flatten(1), generated.float().flatten(1)
    scale = x.shape[1] ** -0.5
    across = torch.cdist(x, y).mean(1)  # (B,)
    within_real = torch.cdist(x, x).sum(1) / max(1, len(x) - 1)  # (B,)
    within_generated = torch.cdist(y, y).sum() / max(1, len(y) * (len(y) - 1))
    return scale * (2.0 * across - within_real - within_generated)
