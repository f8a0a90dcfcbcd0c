"""The standard error of a Fréchet distance: a jackknife over samples without refits, corrected for curvature.

Leaving a set B of samples out changes K = A2^T S1 A2 by a matrix of rank |B|. For the eigenvalues l of K, the
coordinates z_i of A2^T (x_i - m1) in its eigenvectors, R_ij(s) = sum_k z_ik z_jk / (l_k + s^2) / (n - 1) for i, j in
B, and G = I + 1 1^T / (n - |B|),

    tr K_B^(1/2) - tr K^(1/2) = 1/pi int_0^inf log det(I - G R(s)) ds

up to the scale (n - 1) / (n - 1 - |B|) of K, from 2 pi sqrt(l) = int_0^inf t^(-1/2) log(1 + l / t) dt and the
determinant lemma; the trapezoid rule in log s converges exponentially. For N much larger than d this is the influence
function of FD, x^T (I - T) x + 2 (m1 - m2)^T x with the optimal transport map T between the two Gaussians; unlike that,
it also holds where N is close to d or below.

The jackknife counts what is quadratic in the samples twice, which shows where both Gaussians are nearly equal or N is
close to d. Second differences over pairs of samples measure that part (`SamplingVariance`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg

from genbench.metrics.gaussian import GaussianFit, frechet_distance, graded_eigh, overlap
from genbench.metrics.statistics import blocks

INTERVAL_ROWS = 1024
"""Samples over which a standard error is taken; more would not be seen in it."""

_STEP = 0.25
_MARGIN = 20.0
_BLOCK = 4096


@dataclass(frozen=True)
class SamplingVariance:
    """What left-out values tell of the variance of a statistic of n samples.

    jackknife: sum over k of k V_k, where V_k is the variance of the part of order k in the samples (Efron and Stein
    1981). quadratic: sum of k (k - 1) V_k, the variance of second differences. rows: number of samples left out.
    """

    n: int
    rows: int
    jackknife: float
    quadratic: float = 0.0

    @property
    def standard_error(self) -> float:
        """Of the statistic, as if V_k fell like a geometric series, whose sum is V_1 + V_2 + ...

        That is the jackknife less half of the quadratic part where that is small, and never 0.
        """
        if self.jackknife <= 0.0:
            return 0.0
        return self.jackknife / math.sqrt(self.jackknife + self.quadratic / 2.0)

    @property
    def first(self) -> float:
        """n V_1, for large n the variance of the influence of one sample, taking parts above order 2 as none."""
        return self.n * max(self.jackknife - self.quadratic, 0.0)

    @property
    def second(self) -> float:
        """2 n^2 V_2, for large n the variance of the part that two samples share."""
        return self.n**2 * min(self.jackknife, self.quadratic)


class Spectrum:
    """Eigenvalues (r,) of K = A2^T S1 A2 and what turns samples into coordinates in its eigenvectors."""

    def __init__(self, fit: GaussianFit, reference: GaussianFit) -> None:
        self.fit, self.reference = fit, reference
        self._of_rows: np.ndarray | None = None
        matrix = overlap(fit, reference)
        self.of_overlap: np.ndarray | None = None
        if matrix is not None:
            values, self._vectors = graded_eigh(matrix)
            self.of_overlap = values
        else:
            values = self._decompose(fit.factor.T @ reference.factor)
        self._kept = values > np.finfo(float).eps * len(values) * max(float(values.max(initial=0.0)), 0.0)
        self.eigenvalues = values[self._kept]

    def _decompose(self, cross: np.ndarray) -> np.ndarray:
        if self.fit.rows is not None and cross.shape[0] <= cross.shape[1]:
            values, left = scipy.linalg.eigh(cross @ cross.T, driver="evd", check_finite=False)
            self._of_rows = left * np.sqrt(np.clip(values, 0.0, None) * (len(cross) - 1))
        else:
            values, self._vectors = scipy.linalg.eigh(cross.T @ cross, driver="evd", check_finite=False)
        return values

    def coordinates(self, centred: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        """(M, r) coordinates of samples (M, d) less the fitted mean, which are those at ``chosen`` (M,) of the fit."""
        if self._of_rows is not None and chosen is not None:
            rows: np.ndarray = self._of_rows[np.ix_(chosen, self._kept)]
            return rows
        found: np.ndarray = (centred @ self.reference.factor) @ self._vectors[:, self._kept]
        return found

    @cached_property
    def distance(self) -> float:
        """The Fréchet distance, with these eigenvalues where they are accurate enough for it."""
        return frechet_distance(self.fit, self.reference, self.of_overlap)


@dataclass(frozen=True)
class _Nodes:
    """Nodes s (k,) of the quadrature with 1 / (l + s^2) / (n - 1), (r, k); complement: that at 0 less that at s."""

    s: np.ndarray
    resolvent: np.ndarray
    complement: bool = False

    def shares(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """R(s), or R(0) - R(s), between rows of coordinates (b, r): (b, k)."""
        return (u * v) @ self.resolvent

    def integrate(self, product: np.ndarray, less_one: np.ndarray) -> np.ndarray:
        """(b,) integrals of log det, where det is ``product`` of the complement, or else 1 + ``less_one``, (b, k)."""
        if self.complement:
            logarithm = np.log(np.maximum(product, np.finfo(float).tiny))
        else:
            logarithm = np.log1p(np.maximum(less_one, 2.0**-53 - 1.0))
        integral: np.ndarray = logarithm @ self.s * (_STEP / np.pi)
        return integral


class LeftOut:
    """Exact Fréchet distances without some of the samples, n of which were fitted.

    samples: (M, d), some of those fitted, or all; chosen: (M,) their places among those fitted, where known.
    """

    def __init__(self, samples: np.ndarray, spectrum: Spectrum, chosen: np.ndarray | None = None) -> None:
        fit = spectrum.fit
        assert fit.n is not None
        self._n, self._spectrum = fit.n, spectrum
        self._shift = fit.mean - spectrum.reference.mean
        self._centred = samples.astype(np.float64) - fit.mean
        self._coordinates = spectrum.coordinates(self._centred, chosen)
        self._root = float(np.sqrt(spectrum.eigenvalues).sum())

    def __len__(self) -> int:
        return len(self._centred)

    def singles(self) -> np.ndarray:
        """(M,) distances without one sample each; n >= 3."""
        x, u, g = self._centred, self._coordinates, self._n / (self._n - 1)
        change = np.zeros(len(x))
        for part in blocks(len(x), _BLOCK):
            for nodes in self._quadrature:
                share = g * nodes.shares(u[part], u[part])
                change[part] += nodes.integrate(share, -share)
        square = np.square(x).sum(1)
        return self._without(1, g * square, x, change)

    def pairs(self) -> np.ndarray:
        """(M // 2,) distances without samples 0 and 1, without 2 and 3, and so on; n >= 4."""
        half = len(self) // 2
        x, y = self._centred[: 2 * half : 2], self._centred[1 : 2 * half : 2]
        u, v = self._coordinates[: 2 * half : 2], self._coordinates[1 : 2 * half : 2]
        change, c = np.zeros(half), 1.0 / (self._n - 2)
        for part in blocks(half, _BLOCK):
            for nodes in self._quadrature:
                xx, yy = nodes.shares(u[part], u[part]), nodes.shares(v[part], v[part])
                xy = nodes.shares(u[part], v[part])
                product = (1.0 + 2.0 * c) * (xx * yy - xy * xy)
                change[part] += nodes.integrate(product, product - (1.0 + c) * (xx + yy) - 2.0 * c * xy)
        square = np.square(x).sum(1) + np.square(y).sum(1) + c * np.square(x + y).sum(1)
        return self._without(2, square, x + y, change)

    @cached_property
    def _quadrature(self) -> list[_Nodes]:
        """The nodes s of the integral.

        Where K has rank n - 1, the most that n samples give, G R(0) = I, and below all eigenvalues the determinant is
        that of G (R(0) - R(s)): the other form would be the difference of nearly equal numbers there.
        """
        values = self._spectrum.eigenvalues
        if len(values) == 0:
            return []
        low, high = 0.5 * np.log(values.min()), 0.5 * np.log(values.max())
        s = np.exp(np.arange(low - _MARGIN, high + _MARGIN + _STEP, _STEP))
        resolvent = 1.0 / ((values[:, None] + np.square(s)) * (self._n - 1))  # (r, k)
        if len(values) < self._n - 1:
            return [_Nodes(s, resolvent)]
        below = s < np.exp(low)
        complement = resolvent[:, below] * (np.square(s[below]) / values[:, None])
        return [_Nodes(s[below], complement, True), _Nodes(s[~below], resolvent[:, ~below])]

    def _without(self, size: int, removed: np.ndarray, total: np.ndarray, change: np.ndarray) -> np.ndarray:
        """Distances without sets of ``size`` samples, from what each takes off the scatter's trace (b,), the sum of
        its deviations from the mean (b, d), and the change of tr K^(1/2) (b,)."""
        n, fit = self._n, self._spectrum.fit
        shrink = (n - 1) / (n - 1 - size)
        mean_term = self._shift @ self._shift - 2.0 / (n - size) * (total @ self._shift)
        mean_term = mean_term + np.square(total).sum(1) / (n - size) ** 2
        trace = shrink * (fit.trace - removed / (n - 1))
        found: np.ndarray = (
            mean_term + trace + self._spectrum.reference.trace - 2.0 * np.sqrt(shrink) * (self._root + change)
        )
        return found


def spread_rows(features: np.ndarray, count: int = INTERVAL_ROWS) -> np.ndarray:
    """Indices (min(count, n),) of rows of (n, d), spread evenly over their projections on a fixed direction.

    The same rows whatever their order, and copies in proportion. Neighbours in the answer are unlike.
    """
    n, d = features.shape
    direction = np.random.RandomState(0).standard_normal(d)
    projection = np.concatenate([features[part].astype(np.float64) @ direction for part in blocks(n, _BLOCK)])
    order = np.argsort(projection, kind="stable")
    kept = min(count, n)
    even = order[(np.arange(kept) * 2 + 1) * n // (2 * kept)]
    return even[np.random.RandomState(0).permutation(kept)]


def leave_one_out(features: np.ndarray, fit: GaussianFit, reference: GaussianFit) -> np.ndarray:
    """(n,) Fréchet distances to ``reference`` of ``features`` (n, d) without one row each, exact; n >= 3.

    ``fit`` is `fit_gaussian` of the same features.
    """
    return LeftOut(features, Spectrum(fit, reference), np.arange(len(features))).singles()


def sampling_variance(samples: np.ndarray, spectrum: Spectrum) -> SamplingVariance | None:
    """Variance of the Fréchet distance over fresh samples, the reference held fixed.

    Args:
        samples: (M, d), all that were fitted or some of them, drawn at random.
        spectrum: of the fit and the reference.

    Returns:
        None where fewer than three samples were fitted, or given, or where their number is not known.
    """
    n = spectrum.fit.n
    if n is None or n < 3 or len(samples) < 3:
        return None
    chosen = spread_rows(samples)
    left_out = LeftOut(samples[chosen], spectrum, chosen if len(samples) == n else None)
    singles = left_out.singles()
    whole = len(singles) == n
    jackknife = (n - 1) * float(singles.var(ddof=0 if whole else 1))
    quadratic = 0.0
    if n > 3 and len(singles) > 3:
        ends = singles[: len(singles) // 2 * 2].reshape(-1, 2).sum(1)
        differences = n * spectrum.distance - (n - 1) * ends + (n - 2) * left_out.pairs()
        quadratic = float(differences.var())
    return SamplingVariance(n, len(singles), jackknife, quadratic)
