"""Unbiased MMD^2 (Gretton et al. 2012) with the kernel (<x, y> / d + 1)^3, over all pairs or over subsets, in blocks.

With the reference y held fixed, MMD^2 is a U-statistic in the samples with h(x, x') = k(x, x') - g(x) - g(x') + c,
g(x) = mean_j k(x, y_j) and c = mean k(y, y'). Its variance (Hoeffding 1948) is

    (4 (n - 2) zeta1 + 2 zeta2) / (n (n - 1)),  zeta1 = Var E[h | x],  zeta2 = Var h,

and both parts have unbiased estimates in closed form. Sums of the kernel K over a subset of rows and one of columns are
a^T K b with the subsets' indicators a and b, so that a hundred subsets cost two thin matrix products beside K's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genbench.metrics.statistics import blocks

_BLOCK = 2048


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, d) and (m, d) float64 to (n, m): (<x, y> / d + 1)^3."""
    base: np.ndarray = x @ y.T
    base /= x.shape[1]
    base += 1.0
    cube: np.ndarray = np.square(base)
    cube *= base
    return cube


@dataclass(frozen=True)
class MMD:
    """Unbiased MMD^2 (it may be negative) and the parts of its variance over fresh samples.

    cross: variance of k(x, y) that neither x nor y alone explains; from m images of a larger reference, zeta1 comes out
    larger by cross / m than from the whole.
    """

    value: float
    zeta1: float
    zeta2: float
    cross: float

    def variance(self, n: int) -> float:
        """Variance of the estimate from n samples."""
        return (4.0 * (n - 2) * max(self.zeta1, 0.0) + 2.0 * max(self.zeta2, 0.0)) / (n * (n - 1))


@dataclass(frozen=True)
class Subsets:
    """Positions (subsets, size) of the samples x and of the reference y in each subset."""

    x: np.ndarray
    y: np.ndarray


def draw_subsets(n: int, m: int, subsets: int, size: int, seed: int) -> Subsets:
    """Subsets of n samples and m reference points, each without replacement, in turn from ``RandomState(seed)``."""
    rng = np.random.RandomState(seed)
    x, y = np.empty((2, subsets, size), dtype=np.int64)
    for i in range(subsets):
        x[i] = rng.choice(n, size, replace=False)
        y[i] = rng.choice(m, size, replace=False)
    return Subsets(x, y)


def kernel_mean(y: np.ndarray) -> float:
    """Mean of k(y_i, y_j) over pairs i != j of (m, d)."""
    return _inner_sums(y, None)[0] / (len(y) * (len(y) - 1))


def mmd(x: np.ndarray, y: np.ndarray, reference_mean: float | None = None) -> MMD:
    """MMD^2 over all pairs of samples x (n, d) and reference y (m, d), n and m at least 2.

    ``reference_mean`` is ``kernel_mean(y)``, for callers that have it.
    """
    constant = kernel_mean(y) if reference_mean is None else reference_mean
    return _mmd(x, y, constant, None)[0]


def mmd_and_subsets(x: np.ndarray, y: np.ndarray, subsets: Subsets) -> tuple[MMD, np.ndarray]:
    """MMD^2 over all pairs, and (subsets,) that of each subset, from one look at each pair."""
    m, size = len(y), subsets.y.shape[1]
    total, inner_y = _inner_sums(y, subsets.y)
    found, inner_x, across = _mmd(x, y, total / (m * (m - 1)), subsets)
    return found, (inner_x + inner_y) / (size * (size - 1)) - 2.0 * across / size**2


def subset_mmds(x: np.ndarray, y: np.ndarray, subsets: Subsets) -> list[MMD]:
    """MMD^2 of each subset on its own, for sides so large that all pairs would cost more."""
    return [mmd(x[i], y[j]) for i, j in zip(subsets.x, subsets.y, strict=True)]


def _mmd(x: np.ndarray, y: np.ndarray, constant: float, subsets: Subsets | None) -> tuple[MMD, np.ndarray, np.ndarray]:
    """MMD^2 over all pairs, and (subsets,) sums of k over the pairs i != j of x and over the pairs of x and y."""
    n = len(x)
    witness, cross, across = _witness(x, y, subsets)
    of_x = _Indicators(subsets.x if subsets else None, n)
    rows, total, squares = np.zeros(n), 0.0, 0.0
    inner = np.zeros(of_x.count)
    for i, j, kernel in _upper_blocks(x):
        weight = 1.0 if i == j else 2.0
        inner += weight * of_x.sums(i, kernel, of_x, j)
        total += weight * float(kernel.sum())
        kernel -= witness[i, None]
        kernel -= witness[j] - constant
        if i == j:
            np.fill_diagonal(kernel, 0.0)
        else:
            rows[j] += kernel.sum(0)
        rows[i] += kernel.sum(1)
        squares += weight * float(np.vdot(kernel, kernel))
    value = total / (n * (n - 1)) + constant - 2.0 * float(witness.mean())
    return MMD(value, *_variance_parts(rows, squares), cross), inner, across


def _witness(x: np.ndarray, y: np.ndarray, subsets: Subsets | None) -> tuple[np.ndarray, float, np.ndarray]:
    """g(x_i) = mean_j k(x_i, y_j), (n,); the variance of the doubly centred k(x_i, y_j); sums of k over subsets."""
    n, m = len(x), len(y)
    of_x, of_y = _Indicators(subsets.x if subsets else None, n), _Indicators(subsets.y if subsets else None, m)
    rows, columns, squares = np.zeros(n), np.zeros(m), 0.0
    across = np.zeros(of_x.count)
    for i in blocks(n, _BLOCK):
        left = x[i].astype(np.float64)
        for j in blocks(m, _BLOCK):
            kernel = polynomial_kernel(left, y[j].astype(np.float64))
            rows[i] += kernel.sum(1)
            columns[j] += kernel.sum(0)
            squares += float(np.vdot(kernel, kernel))
            across += of_x.sums(i, kernel, of_y, j)
    total = float(rows.sum())
    centred = squares - float(rows @ rows) / m - float(columns @ columns) / n + total**2 / (n * m)
    return rows / m, max(centred, 0.0) / ((n - 1) * (m - 1)), across


def _inner_sums(y: np.ndarray, subsets: np.ndarray | None) -> tuple[float, np.ndarray]:
    """Sum of k over the pairs i != j of y, of all and (subsets,) of each subset."""
    of_y = _Indicators(subsets, len(y))
    total, inner = 0.0, np.zeros(of_y.count)
    for i, j, kernel in _upper_blocks(y):
        weight = 1.0 if i == j else 2.0
        total += weight * float(kernel.sum())
        inner += weight * of_y.sums(i, kernel, of_y, j)
    return total, inner


def _upper_blocks(x: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Blocks (i, j, k(x_i, x_j)) on and above the diagonal, which is set to 0; those off it stand for two."""
    for i in blocks(len(x), _BLOCK):
        left = x[i].astype(np.float64)
        for j in blocks(len(x), _BLOCK):
            if i == j:
                kernel = polynomial_kernel(left, left)
                np.fill_diagonal(kernel, 0.0)
                yield i, j, kernel
            elif i.start < j.start:
                yield i, j, polynomial_kernel(left, x[j].astype(np.float64))


class _Indicators:
    """(subsets, n) float64: 1 where a subset holds a row; no subsets where ``positions`` is None."""

    def __init__(self, positions: np.ndarray | None, n: int) -> None:
        self.count = 0 if positions is None else len(positions)
        self.values = np.zeros((self.count, n))
        if positions is not None:
            np.put_along_axis(self.values, positions, 1.0, axis=1)

    def sums(self, i: slice, kernel: np.ndarray, columns: _Indicators, j: slice) -> np.ndarray:
        """(subsets,) sums of a block of the kernel over each subset's rows and columns."""
        found: np.ndarray = np.einsum("qj,qj->q", self.values[:, i] @ kernel, columns.values[:, j])
        return found


def _variance_parts(rows: np.ndarray, squares: float) -> tuple[float, float]:
    """From the row sums of h (zero diagonal) and the sum of its squares to unbiased zeta1 and zeta2."""
    n = len(rows)
    total, rows_squared = float(rows.sum()), float(np.square(rows).sum())
    pairs = n * (n - 1)
    second = squares / pairs
    if n < 4:
        return second, second
    shared = (rows_squared - squares) / (pairs * (n - 2))
    disjoint = (total**2 - 4 * rows_squared + 2 * squares) / (pairs * (n - 2) * (n - 3))
    return shared - disjoint, second - disjoint
