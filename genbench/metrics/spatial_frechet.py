"""sFID (Nash et al. 2021): the Fréchet distance of features that keep their place in the image.

On inception-v3 these are the first 7 channels of ``mixed_6/conv``, 17 x 17 x 7 = 2023 values (guided-diffusion's
evaluator). An arrangement that pooled features average away shows here.
"""

from __future__ import annotations

from genbench.metrics.base import Estimate, Metric, MetricInputs
from genbench.metrics.frechet import Measured, fitted_spatial_side


class SpatialFrechetDistance(Metric):
    """sFID: as FID, of spatial features."""

    name = "sfid"
    higher_is_better = False
    needs = frozenset({"spatial"})
    summary = "Fréchet distance between Gaussians fitted to spatial features of samples and reference"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate. The reference is held fixed in the interval.

        Raises:
            NotApplicable: the extractor gives no spatial features.
            DataError: NaN or infinite features or statistics, fewer than two images, or unlike widths.
        """
        found = Measured.of(fitted_spatial_side(inputs.samples), fitted_spatial_side(inputs.reference))
        return [found.estimate()]
