"""Peak signal-to-noise ratio of reconstructions: 10 log10(255^2 / MSE) of each image, averaged over images."""

from __future__ import annotations

import numpy as np

from genbench.errors import DataError
from genbench.metrics.base import Estimate, MetricInputs, NotApplicable, PairMetric
from genbench.metrics.statistics import mean_interval


def psnr(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) PSNR in dB of pairs of images (N, C, H, W) uint8; infinite where both are equal.

    Raises:
        DataError: unlike shapes.
    """
    if x.shape != y.shape:
        raise DataError(f"PSNR compares images one to one, got {x.shape} and {y.shape}.")
    axes = tuple(range(1, x.ndim))
    error = np.square(x.astype(np.float64) - y.astype(np.float64)).mean(axes)
    with np.errstate(divide="ignore"):
        decibels: np.ndarray = 10.0 * np.log10(255.0**2 / error)
    return decibels


class PeakSignalToNoiseRatio(PairMetric):
    """PSNR between the images of a pair: the mean over images, not the PSNR of a pooled error.

    An image that is rebuilt exactly has an infinite PSNR. Such images are left out of the mean and counted in a note.
    """

    name = "psnr"
    unit = "dB"
    higher_is_better = True
    summary = "peak signal-to-noise ratio of reconstructions, mean over images"

    def score_pairs(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(B,) PSNR in dB."""
        return psnr(x, y)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate.

        Raises:
            NotApplicable: there are no pairs, or all are identical.
        """
        values = self.scores(inputs)
        finite = values[np.isfinite(values)]
        identical = len(values) - len(finite)
        if len(finite) == 0:
            raise NotApplicable("every reconstruction is identical to its image, so that PSNR is infinite")
        note = f"{identical} of {len(values)} images are rebuilt exactly (infinite PSNR) and left out of the mean"
        return [
            Estimate(
                value=float(finite.mean()),
                n=len(values),
                ci95=mean_interval(finite),
                interval="normal over images" if len(finite) > 1 else None,
                estimator="mean",
                per_image=values,
                paired_by="reference image",
                notes=(note,) if identical else (),
                extra={"identical_images": identical},
            )
        ]
