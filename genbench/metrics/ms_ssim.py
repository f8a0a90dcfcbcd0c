"""Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003, eq. 7).

    MS-SSIM = SSIM_5^w5 * prod_{s < 5} contrast_s^ws,      w = (.0448, .2856, .3001, .2363, .1333)

Contrast-structure terms of the four finer scales times SSIM of the coarsest one, each averaged over its map (11 x 11
Gaussian, windows inside the image only); each scale halves the one before by 2 x 2 means. Tools part ways in the rest.
Protocol ``gaussian-11-piq`` equals piq's ``multi_scale_ssim(data_range=255)``: a product for each channel, then the
mean of the channels; negative averages are set to 0 (not to their absolute value); before a plane with an odd side is
halved, its first row and column are doubled. pytorch-msssim and TensorFlow's ``ssim_multiscale`` differ from it at odd
sides alone (zeros around the plane; a doubled last row or column). torchmetrics drops the odd row or column, averages
the channels of each scale before the product, and takes SSIM of the coarsest scale over a border padded by reflection.
"""

from __future__ import annotations

import numpy as np

from genbench.errors import DataError
from genbench.metrics.base import Estimate, MetricInputs, NotApplicable, PairMetric
from genbench.metrics.estimates import pair_estimate
from genbench.metrics.similarity_maps import similarity_and_contrast
from genbench.metrics.statistics import blocks

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW = 11
SMALLEST_SIDE = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1
_BLOCK_VALUES = 1 << 20


def ms_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) MS-SSIM of pairs of images (N, C, H, W) uint8, in [0, 1].

    Raises:
        DataError: unlike shapes, or sides below 161.
    """
    if x.shape != y.shape:
        raise DataError(f"MS-SSIM compares images one to one, got {x.shape} and {y.shape}.")
    num_images, channels, height, width = x.shape
    if min(height, width) < SMALLEST_SIDE:
        raise DataError(f"MS-SSIM: {_too_small(height, width)}.")
    planes_x, planes_y = x.reshape(-1, height, width), y.reshape(-1, height, width)
    size = max(1, _BLOCK_VALUES // (height * width))
    parts = [_planes(planes_x[part], planes_y[part]) for part in blocks(len(planes_x), size)]
    values: np.ndarray = np.concatenate(parts).reshape(num_images, channels).mean(1)
    return values


def _planes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(P,) MS-SSIM of planes (P, H, W)."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    product = np.ones(len(x))
    for weight in WEIGHTS[:-1]:
        _, contrast = similarity_and_contrast(x, y, WINDOW)
        product *= np.maximum(contrast, 0.0) ** weight
        x, y = _halve(x), _halve(y)
    similarity, _ = similarity_and_contrast(x, y, WINDOW)
    product *= np.maximum(similarity, 0.0) ** WEIGHTS[-1]
    return product


def _halve(x: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels of (P, H, W), after doubling the first row and column where either side is odd."""
    if x.shape[1] % 2 or x.shape[2] % 2:
        x = np.pad(x, ((0, 0), (1, 0), (1, 0)), mode="edge")
    tall, wide = x.shape[1] // 2, x.shape[2] // 2
    rows = x[:, : 2 * tall : 2] + x[:, 1 : 2 * tall : 2]
    return (rows[..., : 2 * wide : 2] + rows[..., 1 : 2 * wide : 2]) / 4.0


def _too_small(height: int, width: int) -> str:
    return (
        f"five scales of an {WINDOW} x {WINDOW} window need sides of at least {SMALLEST_SIDE} pixels, "
        f"the images have {height} x {width}; use ssim"
    )


class MultiScaleSimilarity(PairMetric):
    """MS-SSIM between the images of a pair; 1 where they are equal."""

    name = "ms_ssim"
    higher_is_better = True
    summary = "multi-scale structural similarity of image pairs (sides of 161 pixels or more)"

    def score_pairs(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(B,) MS-SSIM.

        Raises:
            NotApplicable: a side is below 161 pixels.
        """
        if min(x.shape[2:]) < SMALLEST_SIDE:
            raise NotApplicable(_too_small(*x.shape[2:]))
        return ms_ssim(x, y)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate: the mean over images.

        Raises:
            NotApplicable: there are no pairs, or the images are too small.
        """
        return [pair_estimate(self.scores(inputs), bounds=(0.0, 1.0), conditions={"protocol": "gaussian-11-piq"})]
