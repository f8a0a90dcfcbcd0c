"""FID-infinity (Chong and Forsyth 2020): what FID tends to as the number of samples grows, by `extrapolation` in 1 / N.

The plug-in FID is biased upward, and by how much depends on the model, so that even at equal N it may rank two models
wrongly. The reference is taken as it is: its own bias stays.

Cost: one pass over the samples and a trace term for each size, with the reference's Cholesky factor shared: about 1 s
each at d = 2048 on one core, 15 s in all. Sizes up to d take the low-rank route.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genbench.metrics.base import Estimate, Metric, MetricInputs
from genbench.metrics.extrapolation import Extrapolation, Line
from genbench.metrics.frechet import measured
from genbench.metrics.gaussian import GaussianFit, fit_gaussian, frechet_distance, gaussian_of
from genbench.metrics.moments import Moments
from genbench.metrics.statistics import normal_interval


def nested_fits(features: np.ndarray, order: np.ndarray, sizes: np.ndarray) -> Iterator[GaussianFit]:
    """The Gaussians of the first rows of ``features[order]``, (n, d), for each of ``sizes`` (k,), rising."""
    d = features.shape[1]
    moments, done = Moments.empty(d), 0
    for size in map(int, sizes):
        if size <= d:
            yield fit_gaussian(features[order[:size]])
            continue
        moments.update(features[order[done:size]])
        done = size
        yield gaussian_of(moments)


@dataclass(frozen=True)
class FrechetInfinity(Extrapolation, Metric):
    """FID at infinitely many samples, the reference as it is. It has no bias from N, and more noise than FID."""

    name = "fid_infinity"
    higher_is_better = False
    needs = frozenset({"features"})
    summary = "FID extrapolated to infinitely many samples"

    def __post_init__(self) -> None:
        self.check(self.name)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; it may be below 0. ``extra`` has the fit.

        The interval is for the distance between the Gaussian that the samples come from and the reference as given. It
        counts the noise of the samples, not what curvature of the bias in 1 / N adds where N is not far above d.

        Raises:
            NotApplicable: the samples' features were not kept, or they are too few.
        """
        features = inputs.samples.features().features
        n, d = features.shape
        sizes = self.sizes(n)
        whole = measured(inputs)
        fits = nested_fits(features, self.order(n), sizes)
        line = Line.through(sizes, np.array([frechet_distance(fit, whole.reference.fit) for fit in fits]))
        error = None if whole.variance is None else line.standard_error(whole.variance)
        notes = whole.reference.notes()
        if sizes[0] <= d:
            notes += (
                f"subsets of {sizes[0]} and more samples for {d} features: up to the number of features the bias is "
                "not linear in 1 / N, and the intercept is off",
            )
        return [
            Estimate(
                value=line.intercept,
                n=n,
                ci95=None if error is None else normal_interval(line.intercept, error),
                interval=None if error is None else "influence of each sample on the intercept",
                estimator=f"linear-in-1/N-{self.points}-sizes",
                standard_error=error,
                notes=notes,
                extra=line.extra(),
            )
        ]
