"""The local statistics behind SSIM (Wang et al. 2004, eqs. 6 and 13-15), averaged over each plane.

With the Gaussian-weighted means m, variances v (biased) and covariance c in a window around a pixel,

    luminance = (2 mx my + C1) / (mx^2 + my^2 + C1)      contrast and structure = (2 c + C2) / (vx + vy + C2)

and SSIM is their product; C1 = (.01 * 255)^2, C2 = (.03 * 255)^2. Only windows that lie inside the image count. Each
axis is filtered by a product with a narrow band matrix, tile by tile, in float64: single precision loses 1e-4 in the
variances of bright flat regions.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from genbench.metrics.statistics import blocks

SIGMA = 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_TILE = 16
_BLOCK_VALUES = 1 << 16
_MIN_ROWS = 64


def gaussian_window(size: int) -> np.ndarray:
    """(size,) Gaussian of sigma 1.5, normalised; size is odd."""
    position = np.arange(size) - size // 2
    window: np.ndarray = np.exp(-0.5 * np.square(position / SIGMA))
    return window / window.sum()


def similarity_and_contrast(x: np.ndarray, y: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean SSIM (P,) and mean contrast-structure term (P,) of pairs of planes (P, H, W), values in 0..255.

    H and W are at least ``window``.
    """
    planes, height, width = x.shape
    tall, wide = height - window + 1, width - window + 1
    strip = max(_MIN_ROWS, _BLOCK_VALUES // width)
    group = max(1, _BLOCK_VALUES // (width * min(height, strip)))
    sums = np.zeros((2, planes))
    for rows in blocks(tall, strip):
        part = slice(rows.start, rows.stop + window - 1)
        for some in blocks(planes, group):
            sums[:, some] += _sums(x[some, part].astype(np.float64), y[some, part].astype(np.float64), window)
    similarity, contrast = sums / (tall * wide)
    return similarity, contrast


def _sums(x: np.ndarray, y: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    mean_x, mean_y = _smooth(x, window), _smooth(y, window)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = _smooth(x * y, window) - product
    variances = _smooth(x * x + y * y, window) - squares
    contrast = (2 * covariance + _C2) / (variances + _C2)
    similarity = (2 * product + _C1) / (squares + _C1) * contrast
    return similarity.sum((1, 2)), contrast.sum((1, 2))


def _smooth(x: np.ndarray, window: int) -> np.ndarray:
    """Separable Gaussian filter of (P, H, W), windows inside only: (P, H - window + 1, W - window + 1)."""
    tall, wide = x.shape[1] - window + 1, x.shape[2] - window + 1
    rows = np.empty((len(x), tall, x.shape[2]))
    for tile in blocks(tall, _TILE):
        band = _band(window, tile.stop - tile.start)
        np.matmul(band, x[:, tile.start : tile.stop + window - 1], out=rows[:, tile])
    smoothed = np.empty((len(x), tall, wide))
    for tile in blocks(wide, _TILE):
        band = _band(window, tile.stop - tile.start)
        np.matmul(rows[:, :, tile.start : tile.stop + window - 1], band.T, out=smoothed[:, :, tile])
    return smoothed


@lru_cache(maxsize=64)
def _band(window: int, outputs: int) -> np.ndarray:
    """(outputs, outputs + window - 1) matrix whose row i holds the window from column i on."""
    band = np.zeros((outputs, outputs + window - 1))
    for row in range(outputs):
        band[row, row : row + window] = gaussian_window(window)
    band.flags.writeable = False
    return band
