"""Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017, eq. 6).

    FD = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

With S1 = A1 A1^T and S2 = A2 A2^T the last trace is the nuclear norm of A1^T A2, the sum of its singular values. A is
a Cholesky or eigen factor of the covariance, or, for N <= d samples, the centred features themselves: no square root of
rounding noise is ever taken, and the work is N x N.

The interval is a jackknife over samples. It needs no refits: leaving sample i out changes K = A2^T S1 A2 by a matrix of
rank one, and for the eigenvalues l of K (L in a diagonal matrix) and such a change -a u u^T

    tr (L - a u u^T)^(1/2) - tr L^(1/2) = 1/pi int_0^inf log(1 - a sum_k u_k^2 / (l_k + s^2)) ds,

from 2 pi sqrt(l) = int_0^inf t^(-1/2) log(1 + l / t) dt and the determinant lemma; the trapezoid rule in log s
converges exponentially. For N much larger than d this is the influence function of FD, x^T (I - T) x + 2 (m1 - m2)^T x
with the optimal transport map T between the two Gaussians; unlike that, it also holds where N is close to d or below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.linalg

from genbench.errors import DataError
from genbench.metrics.base import Estimate, Metric, MetricInputs
from genbench.metrics.feature_pair import FeaturePair, feature_pair
from genbench.metrics.statistics import blocks, jackknife_error, normal_interval

_STEP = 0.25
_MARGIN = 20.0
_BLOCK = 4096


@dataclass(frozen=True)
class GaussianFit:
    """A Gaussian as its mean (d,), trace of its covariance S (ddof = 1), and a factor A (d, r) with A A^T = S."""

    mean: np.ndarray
    trace: float
    factor: np.ndarray
    n: int

    @property
    def low_rank(self) -> bool:
        """True where there were at most d samples, so that the covariance is singular."""
        return self.n <= len(self.mean)


def fit_gaussian(features: np.ndarray) -> GaussianFit:
    """Fit mean and sample covariance to features (n, d), float64, n >= 2.

    Raises:
        DataError: fewer than two rows.
    """
    n, d = features.shape
    if n < 2:
        raise DataError(f"A covariance needs at least 2 samples, got {n}. Give more.")
    mean = features.mean(0)
    centred = features - mean
    if n <= d:
        factor = centred.T / np.sqrt(n - 1)
        return GaussianFit(mean, float(np.square(factor).sum()), factor, n)
    return gaussian_from_moments(mean, centred.T @ centred / (n - 1), n)


def gaussian_from_moments(mean: np.ndarray, covariance: np.ndarray, n: int) -> GaussianFit:
    """A `GaussianFit` from mean (d,) and covariance (d, d) of n samples."""
    trace = float(np.trace(covariance))
    try:
        factor = scipy.linalg.cholesky(covariance, lower=True, check_finite=False)
        if np.square(np.diag(factor)).min() > np.finfo(float).eps * len(mean) * covariance.diagonal().max():
            return GaussianFit(mean, trace, factor, n)
    except scipy.linalg.LinAlgError:
        pass
    values, vectors = scipy.linalg.eigh(covariance, check_finite=False)
    kept = values > np.finfo(float).eps * len(mean) * max(float(values[-1]), 0.0)
    return GaussianFit(mean, trace, vectors[:, kept] * np.sqrt(values[kept]), n)


def frechet_distance(a: GaussianFit, b: GaussianFit) -> float:
    """FD of two fitted Gaussians; symmetric; never below 0."""
    return _distance(a, b, _root_trace(a, b))


def _distance(a: GaussianFit, b: GaussianFit, root_trace: float) -> float:
    return max(0.0, float(np.square(a.mean - b.mean).sum()) + a.trace + b.trace - 2.0 * root_trace)


def _root_trace(a: GaussianFit, b: GaussianFit) -> float:
    """tr (S1 S2)^(1/2), the nuclear norm of A1^T A2."""
    cross = a.factor.T @ b.factor  # (r1, r2)
    if cross.size == 0:
        return 0.0
    if a.low_rank or b.low_rank:
        return float(scipy.linalg.svdvals(cross, check_finite=False).sum())
    eigenvalues = scipy.linalg.eigvalsh(cross @ cross.T, check_finite=False)
    return float(np.sqrt(np.clip(eigenvalues, 0.0, None)).sum())


def leave_one_out(features: np.ndarray, fit: GaussianFit, reference: GaussianFit) -> np.ndarray:
    """(n,) Fréchet distances to ``reference`` of ``features`` (n, d) without one row each, exact; n >= 3.

    ``fit`` is `fit_gaussian` of the same features.
    """
    n = fit.n
    centred = features - fit.mean
    shrink = (n - 1) / (n - 2)
    removed = n / (n - 1) ** 2
    eigenvalues, change = _spectrum(centred, reference)
    root_change = _root_trace_changes(eigenvalues, change, removed)
    root = np.sqrt(eigenvalues).sum() + root_change
    shift = fit.mean - reference.mean
    square = np.square(centred).sum(1)
    mean_term = shift @ shift - 2.0 / (n - 1) * (centred @ shift) + square / (n - 1) ** 2
    left: np.ndarray = (
        mean_term + shrink * (fit.trace - removed * square) + reference.trace - 2.0 * np.sqrt(shrink) * root
    )
    return left


def _spectrum(centred: np.ndarray, reference: GaussianFit) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (r,) of K = A2^T S1 A2 and squared coordinates (n, r) of each A2^T x in its eigenvectors."""
    n = len(centred)
    projected = centred @ reference.factor  # (n, r2)
    if n <= projected.shape[1]:
        left, singular, _ = scipy.linalg.svd(projected, full_matrices=False, check_finite=False)
        values, squares = singular**2 / (n - 1), np.square(left * singular)
    else:
        values, vectors = scipy.linalg.eigh(projected.T @ projected / (n - 1), check_finite=False)
        squares = np.square(projected @ vectors)
    kept = values > np.finfo(float).eps * len(values) * max(float(values.max(initial=0.0)), 0.0)
    return values[kept], squares[:, kept]


def _root_trace_changes(eigenvalues: np.ndarray, squares: np.ndarray, removed: float) -> np.ndarray:
    """(n,) changes of tr K^(1/2) when K loses ``removed`` times the outer product behind each row of ``squares``."""
    changes = np.zeros(len(squares))
    if len(eigenvalues) == 0:
        return changes
    low = 0.5 * np.log(eigenvalues.min()) - _MARGIN
    high = 0.5 * np.log(eigenvalues.max()) + _MARGIN
    nodes = np.exp(np.arange(low, high + _STEP, _STEP))
    resolvent = removed / (eigenvalues[:, None] + np.square(nodes))  # (r, nodes)
    for part in blocks(len(squares), _BLOCK):
        share = np.minimum(squares[part] @ resolvent, 1.0 - 2.0**-53)  # (block, nodes)
        changes[part] = np.log1p(-share) @ nodes * (_STEP / np.pi)
    return changes


class FrechetInceptionDistance(Metric):
    """FID: Fréchet distance between the samples' and the reference's features; 0 where both Gaussians are equal."""

    name = "fid"
    higher_is_better = False
    needs = frozenset({"moments"})
    summary = "Fréchet distance between Gaussians fitted to features of samples and training images"
    method: ClassVar[str] = "jackknife over samples"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate. The reference is held fixed in the interval."""
        pair = feature_pair(inputs)
        pair = FeaturePair(pair.samples.astype(np.float64), pair.reference.astype(np.float64))
        reference = inputs.shared("frechet_reference", lambda: fit_gaussian(pair.reference))
        fit = fit_gaussian(pair.samples)
        value = frechet_distance(fit, reference)
        interval = None
        if fit.n >= 3:
            error = jackknife_error(leave_one_out(pair.samples, fit, reference))
            interval = normal_interval(value, error, low=0.0)
        return [
            Estimate(
                value=value,
                n=fit.n,
                ci95=interval,
                interval=self.method if interval else None,
                notes=_notes(fit, reference),
            )
        ]


def _notes(fit: GaussianFit, reference: GaussianFit) -> tuple[str, ...]:
    width = len(fit.mean)
    notes = []
    for who, side in (("samples", fit), ("reference images", reference)):
        if side.low_rank:
            notes.append(
                f"{side.n} {who} for {width} features: the covariance is singular and the distance strongly biased "
                "upward; computed exactly by the low-rank route"
            )
    return tuple(notes)
