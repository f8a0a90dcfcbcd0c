"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017): `fid`.

The arithmetic is in `gaussian`, the interval in `frechet_interval`. What each side is known by decides the route:
features of at most d images go in as they are; more of them, streams and statistics files as mean and covariance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from genbench.metrics.base import Estimate, Metric, MetricInputs, NotApplicable, Side
from genbench.metrics.frechet_interval import SamplingVariance, Spectrum, sampling_variance
from genbench.metrics.gaussian import GaussianFit, fit_gaussian, frechet_distance, gaussian_of
from genbench.metrics.moments import Moments
from genbench.metrics.sides import check_features
from genbench.metrics.statistics import positive_interval, student_quantile

INTERVAL = "jackknife over samples, corrected for curvature, on the scale of cube roots"
KnownBy = Literal["features", "moments"]


@dataclass(frozen=True, eq=False)
class FittedSide:
    """A side's Gaussian. rows: (k, d) features, all or drawn at random, or None. known_by: what it was fitted to."""

    who: str
    fit: GaussianFit
    rows: np.ndarray | None
    known_by: KnownBy

    @classmethod
    def of_features(cls, who: str, features: np.ndarray, moments: Moments | None = None) -> FittedSide:
        """Of features (n, d), checked; ``moments`` are theirs, where they are known already.

        Raises:
            DataError: NaN or infinite features, or fewer than two.
        """
        check_features(features, who)
        known = moments is not None and len(features) > features.shape[1]
        fit = gaussian_of(moments) if moments is not None and known else fit_gaussian(features)
        return cls(who, fit, features, "features")

    def notes(self) -> tuple[str, ...]:
        """Warnings about the number of images behind the Gaussian."""
        fit = self.fit
        if fit.n is None:
            return (
                f"the statistics of the {self.who} do not say how many images made them: whether these were fewer than "
                f"the {fit.width} features cannot be told",
            )
        if not fit.low_rank:
            return ()
        how = "by the low-rank route" if self.known_by == "features" else "from the covariance's own rank"
        return (
            f"{fit.n} {self.who} for {fit.width} features: the covariance is singular and the distance strongly biased "
            f"upward; computed exactly {how}",
        )


@dataclass(frozen=True, eq=False)
class Measured:
    """A Fréchet distance of two sides. variance: over fresh samples, or None where nothing tells it."""

    samples: FittedSide
    reference: FittedSide
    value: float
    variance: SamplingVariance | None

    @classmethod
    def of(cls, samples: FittedSide, reference: FittedSide) -> Measured:
        """Distance and variance from one decomposition; without rows, or with fewer than three, the distance alone.

        Raises:
            DataError: unlike widths.
        """
        if samples.rows is None or samples.fit.n is None or samples.fit.width != reference.fit.width:
            return cls(samples, reference, frechet_distance(samples.fit, reference.fit), None)
        spectrum = Spectrum(samples.fit, reference.fit)
        return cls(samples, reference, spectrum.distance, sampling_variance(samples.rows, spectrum))

    def estimate(self) -> Estimate:
        """The distance with its interval; the reference is held fixed in it."""
        error, interval = None, None
        if self.variance is not None:
            error = self.variance.standard_error
            interval = positive_interval(self.value, error, student_quantile(self.variance.rows - 1))
        return Estimate(
            value=self.value,
            n=self.samples.fit.n,
            ci95=interval,
            interval=INTERVAL if interval else None,
            standard_error=error,
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = self.samples.notes() + self.reference.notes()
        if self.variance is not None:
            return notes
        if self.samples.rows is None:
            return (*notes, "no interval: of the samples only mean and covariance are known, not their features")
        return (*notes, "no interval: it takes at least 3 samples, and their number")


def fitted_side(side: Side) -> FittedSide:
    """The Gaussian of a side's features; that of given statistics where there are any, whatever else is known.

    Raises:
        NotApplicable: there is no extractor.
        DataError: NaN or infinite features or statistics, or fewer than two images.
    """
    if side.given_moments is None and side.has_features:
        features = side.features().features
        moments = side.moments() if len(features) > features.shape[1] else None
        return FittedSide.of_features(side.who, features, moments)
    return FittedSide(side.who, gaussian_of(side.moments()), side.sampled_features, "moments")


def fitted_spatial_side(side: Side) -> FittedSide:
    """The Gaussian of a side's spatial features. Raises as `fitted_side`, and NotApplicable where there are none."""
    if side.given_spatial_moments is None and side.has_features:
        spatial = side.features().spatial
        if spatial is None:
            raise NotApplicable("this extractor gives no spatial features; sFID is defined on inception-v3")
        return FittedSide.of_features(side.who, spatial)
    return FittedSide(side.who, gaussian_of(side.spatial_moments()), side.sampled_spatial, "moments")


def measured(inputs: MetricInputs) -> Measured:
    """The Fréchet distance of both sides' features, computed once for all metrics that need it."""
    return inputs.shared("frechet", lambda: Measured.of(fitted_side(inputs.samples), fitted_side(inputs.reference)))


class FrechetInceptionDistance(Metric):
    """FID: Fréchet distance between the samples' and the reference's features; 0 where both Gaussians are equal."""

    name = "fid"
    higher_is_better = False
    needs = frozenset({"moments"})
    summary = "Fréchet distance between Gaussians fitted to features of samples and reference"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate. The reference is held fixed in the interval.

        Raises:
            NotApplicable: there is no extractor.
            DataError: NaN or infinite features or statistics, fewer than two images, or unlike widths.
        """
        return [measured(inputs).estimate()]
