"""Peak signal-to-noise ratio of image pairs: `psnr` averages decibels, `psnr_pooled` averages squared errors.

    PSNR = 10 log10(255^2 / MSE) dB

`psnr` is the mean over images of each image's PSNR (scikit-image's ``peak_signal_noise_ratio(data_range=255)`` image by
image). `psnr_pooled` is the PSNR of the mean of the images' MSE, never above the former (torchmetrics'
``PeakSignalNoiseRatio(data_range=255)`` over images of one size). They are different numbers and never share a column.
Identical images are infinite, where piq adds 1e-8 to the error and reports 80 dB.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from genbench.errors import DataError
from genbench.metrics.base import Estimate, MetricInputs, NotApplicable, PairMetric
from genbench.metrics.estimates import pair_estimate

PEAK = 255.0


def squared_error(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) mean squared difference of the pixels of pairs of images (N, C, H, W) uint8, exact before the division.

    Raises:
        DataError: unlike shapes.
    """
    if x.shape != y.shape:
        raise DataError(f"PSNR compares images one to one, got {x.shape} and {y.shape}.")
    difference = x.reshape(len(x), -1).astype(np.int32) - y.reshape(len(y), -1)
    error: np.ndarray = np.square(difference, out=difference).mean(1, dtype=np.float64)
    return error


def decibels(error: np.ndarray) -> np.ndarray:
    """PSNR in dB of mean squared errors; infinite where they are 0."""
    with np.errstate(divide="ignore"):
        found: np.ndarray = 10.0 * np.log10(PEAK**2 / error)
    return found


def psnr(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) PSNR in dB of pairs of images (N, C, H, W) uint8; infinite where both are equal.

    Raises:
        DataError: unlike shapes.
    """
    return decibels(squared_error(x, y))


class _SquaredDifference(PairMetric):
    """The score that both metrics share is the mean squared error."""

    unit = "dB"
    higher_is_better = True

    @property
    def score_key(self) -> str:
        return f"squared-error-v{_SquaredDifference.version}"

    def score_pairs(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(B,) mean squared error of each pair."""
        return squared_error(x, y)


class PeakSignalToNoiseRatio(_SquaredDifference):
    """PSNR between the images of a pair: the mean over images, not the PSNR of a pooled error.

    An image that is rebuilt exactly has an infinite PSNR. Such images are left out of the mean and counted in a note.
    """

    name = "psnr"
    summary = "peak signal-to-noise ratio of image pairs, mean over images"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate.

        Raises:
            NotApplicable: there are no pairs, or all are identical.
        """
        values = decibels(self.scores(inputs))
        finite = values[np.isfinite(values)]
        identical = len(values) - len(finite)
        if len(finite) == 0:
            raise NotApplicable("the images of every pair are identical, so that PSNR is infinite")
        note = f"{identical} of {len(values)} pairs are identical (infinite PSNR) and left out of the mean"
        found = pair_estimate(finite, notes=(note,) if identical else (), extra={"identical_images": identical})
        return [replace(found, n=len(values), per_image=values)]


class PooledPeakSignalToNoiseRatio(_SquaredDifference):
    """PSNR of the mean squared error over all images; identical pairs count with an error of 0.

    The interval is a normal one by the delta method. ``per_image`` holds the linearised shares behind it,
    PSNR - 10 / ln 10 (MSE_i / MSE - 1), whose mean is the value: two runs are compared with these in pairs.
    """

    name = "psnr_pooled"
    summary = "peak signal-to-noise ratio of the squared error averaged over all images"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate.

        Raises:
            NotApplicable: there are no pairs, or all are identical.
        """
        errors = self.scores(inputs)
        pooled = errors.mean()
        if pooled == 0:
            raise NotApplicable("the images of every pair are identical, so that PSNR is infinite")
        shares = decibels(pooled) - 10.0 / math.log(10.0) * (errors / pooled - 1.0)
        identical = int((errors == 0).sum())
        found = pair_estimate(
            shares, estimator="pooled", interval="delta method over images", extra={"identical_images": identical}
        )
        return [replace(found, value=float(decibels(pooled)))]
