"""Gaussians fitted to features, and the Fréchet distance between two of them (Heusel et al. 2017, eq. 6).

    FD = |m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2)

With S1 = A1 A1^T and S2 = A2 A2^T the last trace is the nuclear norm of A1^T A2, the sum of its singular values. For
N <= d samples A is the centred features themselves: no square root of rounding noise is ever taken, and the work is
N x N. Where both covariances are regular, A2 is a Cholesky factor and the trace is the sum of the roots of the
eigenvalues of A2^T S1 A2, which is cheaper. Features by falling variance make that matrix a graded one, whose small
eigenvalues a symmetric eigensolver finds to high relative accuracy (Barlow and Demmel 1990).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from genbench.errors import DataError
from genbench.metrics.moments import Moments

_EPS = float(np.finfo(float).eps)
_INDEFINITE = 1e-3


@dataclass(frozen=True, eq=False)
class GaussianFit:
    """A Gaussian by its mean (d,) and one of two forms of its covariance S (ddof = 1).

    rows: (n, d) centred features over sqrt(n - 1), where there were at most d. covariance: (d, d) elsewhere.
    n: number of samples behind it, None where statistics came without it.
    """

    mean: np.ndarray
    n: int | None
    rows: np.ndarray | None = None
    covariance: np.ndarray | None = None

    @property
    def width(self) -> int:
        return len(self.mean)

    @property
    def low_rank(self) -> bool:
        """True where there were at most d samples, so that the covariance is singular."""
        return self.n is not None and self.n <= self.width

    @cached_property
    def trace(self) -> float:
        """tr S."""
        if self.rows is not None:
            return float(np.square(self.rows).sum())
        return float(np.trace(self._known_covariance()))

    @cached_property
    def cholesky(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Features by falling variance, (d,) indices, and lower L (d, d) with L L^T = S in that order.

        None where S is singular within rounding. The order keeps small eigenvalues of `overlap` accurate.
        """
        if self.rows is not None or self.low_rank:
            return None
        covariance = self._known_covariance()
        order = np.argsort(-covariance.diagonal(), kind="stable")
        try:
            lower: np.ndarray = scipy.linalg.cholesky(
                _ordered(covariance, order), lower=True, overwrite_a=True, check_finite=False
            )
        except scipy.linalg.LinAlgError:
            return None
        least = float(np.square(lower.diagonal()).min())
        return (order, lower) if least > _EPS * self.width * float(covariance.diagonal().max()) else None

    @cached_property
    def factor(self) -> np.ndarray:
        """A (d, r) with A A^T = S: centred features, a Cholesky factor, or eigenvectors times roots of eigenvalues.

        Raises:
            DataError: the covariance has eigenvalues far below 0.
        """
        if self.rows is not None:
            return self.rows.T
        if self.cholesky is None:
            return self._eigen_factor()
        order, lower = self.cholesky
        factor = np.empty_like(lower)
        factor[order] = lower
        return factor

    def _eigen_factor(self) -> np.ndarray:
        values, vectors = scipy.linalg.eigh(self._known_covariance(), driver="evd", check_finite=False)
        largest = max(float(values[-1]), 0.0)
        if values[0] < -_INDEFINITE * largest or values[-1] < 0:
            raise DataError(
                f"The covariance of {self.width} features has an eigenvalue of {values[0]:.3g} (largest: "
                f"{values[-1]:.3g}), which no covariance has. Make the statistics again with `genbench stats make`."
            )
        kept = values > _EPS * self.width * largest
        if self.n is not None:
            kept[: max(0, self.width - (self.n - 1))] = False
        factor: np.ndarray = vectors[:, kept] * np.sqrt(values[kept])
        return factor

    def _known_covariance(self) -> np.ndarray:
        assert self.covariance is not None
        return self.covariance


def fit_gaussian(features: np.ndarray) -> GaussianFit:
    """Fit mean and sample covariance to features (n, d), in float64 and in blocks; n >= 2.

    Raises:
        DataError: fewer than two rows.
    """
    n, d = features.shape
    if n < 2:
        raise DataError(f"A covariance needs at least 2 samples, got {n}. Give more.")
    if n > d:
        return gaussian_of(Moments.of(features))
    rows = features.astype(np.float64)
    mean = rows.mean(0)
    rows -= mean
    rows /= np.sqrt(n - 1)
    return GaussianFit(mean, n, rows=rows)


def gaussian_of(moments: Moments) -> GaussianFit:
    """The Gaussian of given moments.

    Raises:
        DataError: fewer than two features, or NaN or infinite statistics.
    """
    return gaussian_from_moments(moments.mean, moments.covariance(), moments.count)


def gaussian_from_moments(mean: np.ndarray, covariance: np.ndarray, n: int | None) -> GaussianFit:
    """A `GaussianFit` from mean (d,) and covariance (d, d) of n samples (None: not known).

    Raises:
        DataError: NaN or infinite statistics.
    """
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise DataError("Mean or covariance is NaN or infinite. Make the statistics again with `genbench stats make`.")
    return GaussianFit(mean, n, covariance=covariance)


def frechet_distance(a: GaussianFit, b: GaussianFit, eigenvalues: np.ndarray | None = None) -> float:
    """FD of two fitted Gaussians; symmetric; never below 0.

    ``eigenvalues`` are those of `overlap`, for callers that have them.

    Raises:
        DataError: Gaussians of unlike widths, or a covariance that is none.
    """
    if a.width != b.width:
        raise DataError(
            f"Features of width {a.width} cannot be compared with those of width {b.width}. "
            "Extract both with one extractor."
        )
    shift = a.mean - b.mean
    return max(0.0, float(shift @ shift) + a.trace + b.trace - 2.0 * root_trace(a, b, eigenvalues))


def _ordered(covariance: np.ndarray, order: np.ndarray) -> np.ndarray:
    """A covariance (d, d) with its features in another order, laid out as LAPACK has it."""
    found: np.ndarray = covariance[np.ix_(order, order)].T
    return found


def overlap(a: GaussianFit, b: GaussianFit) -> np.ndarray | None:
    """A2^T S1 A2 (d, d), the lower half of it, where both covariances are regular; else None."""
    if a.cholesky is None or b.cholesky is None:
        return None
    order, lower = b.cholesky
    assert a.covariance is not None
    matrix: np.ndarray = lapack.dsygst(_ordered(a.covariance, order), lower, itype=2, lower=1, overwrite_a=1)[0]
    return matrix


def graded_eigh(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (d,), rising, and eigenvectors (d, d) of an `overlap`, which is overwritten.

    As `scipy.linalg.eigh` of the lower half, in the same time, but small eigenvalues keep their digits: those of the
    tridiagonal form come from its own root-free QR iteration, only the vectors from divide and conquer.
    """
    size = len(matrix)
    if size < 3:
        small: tuple[np.ndarray, np.ndarray] = scipy.linalg.eigh(matrix, lower=True, check_finite=False)
        return small
    work = int(lapack.dsytrd_lwork(size, lower=1)[0])
    reflectors, diagonal, beside, tau, _ = lapack.dsytrd(matrix, lower=1, lwork=work, overwrite_a=1)
    values, failed = lapack.dsterf(diagonal, beside)
    _, vectors, failed_too = lapack.dstevd(diagonal, beside, compute_v=1)
    if failed or failed_too:
        raise scipy.linalg.LinAlgError("The eigenvalues of the covariances' product did not converge.")
    vectors[1:] = lapack.dormqr("L", "N", reflectors[1:, :-1], tau, vectors[1:], lwork=64 * size)[0]
    return values, vectors


def root_trace(a: GaussianFit, b: GaussianFit, eigenvalues: np.ndarray | None = None) -> float:
    """tr (S1 S2)^(1/2); ``eigenvalues`` are those of `overlap`, for callers that have them."""
    if eigenvalues is None:
        matrix = overlap(a, b)
        if matrix is None:
            cross = a.factor.T @ b.factor  # (r1, r2)
            return float(scipy.linalg.svdvals(cross, check_finite=False).sum()) if cross.size else 0.0
        eigenvalues = scipy.linalg.eigvalsh(matrix, lower=True, overwrite_a=True, check_finite=False)
    return float(np.sqrt(np.clip(eigenvalues, 0.0, None)).sum())
