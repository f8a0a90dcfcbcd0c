"""Kernel Inception Distance (Binkowski et al. 2018): unbiased MMD^2 with the kernel (<x, y> / d + 1)^3.

Estimators: ``subset-100x1000`` is the mean over 100 subsets of 1000, drawn without replacement by
``RandomState(2020)`` (torch-fidelity); ``full`` uses all pairs and serves where there are fewer images than a subset.

With the reference y held fixed, MMD^2 is a U-statistic in the samples with h(x, x') = k(x, x') - g(x) - g(x') + c,
g(x) = mean_j k(x, y_j) and c = mean k(y, y'). Its variance (Hoeffding 1948) is

    (4 (n - 2) zeta1 + 2 zeta2) / (n (n - 1)),  zeta1 = Var E[h | x],  zeta2 = Var h,

and both parts have unbiased estimates in closed form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from genbench.metrics.base import Estimate, Metric, MetricInputs
from genbench.metrics.feature_pair import FeaturePair, feature_pair
from genbench.metrics.options import require_count
from genbench.metrics.statistics import blocks, normal_interval

SUBSET_SEED = 2020
_BLOCK = 2048


def polynomial_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, d) and (m, d) to (n, m): (<x, y> / d + 1)^3."""
    base = x @ y.T / x.shape[1] + 1.0
    cube: np.ndarray = base * base * base
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
        return (4.0 * (n - 2) * max(self.zeta1, 0.0) + 2.0 * self.zeta2) / (n * (n - 1))


def kernel_mean(y: np.ndarray) -> float:
    """Mean of k(y_i, y_j) over pairs i != j of (m, d), in blocks."""
    m = len(y)
    total = 0.0
    for part in blocks(m, _BLOCK):
        kernel = polynomial_kernel(y[part], y)
        total += float(kernel.sum()) - float(kernel[:, part].trace())
    return total / (m * (m - 1))


def mmd(x: np.ndarray, y: np.ndarray, reference_mean: float | None = None) -> MMD:
    """Unbiased MMD^2 over all pairs of samples x (n, d) and reference y (m, d), n and m at least 2, in blocks.

    ``reference_mean`` is ``kernel_mean(y)``, for callers that have it.
    """
    n = len(x)
    constant = kernel_mean(y) if reference_mean is None else reference_mean
    witness, cross = _witness(x, y)
    rows, squares = np.empty(n), 0.0
    for part in blocks(n, _BLOCK):
        h = polynomial_kernel(x[part], x) - witness[part, None] - witness + constant
        np.fill_diagonal(h[:, part], 0.0)
        rows[part] = h.sum(1)
        squares += float(np.square(h).sum())
    return _u_statistic(rows, squares, cross)


def _witness(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float]:
    """g(x_i) = mean_j k(x_i, y_j), (n,), and the variance of the doubly centred k(x_i, y_j)."""
    n, m = len(x), len(y)
    rows, columns, squares = np.zeros(n), np.zeros(m), 0.0
    for i in blocks(n, _BLOCK):
        for j in blocks(m, _BLOCK):
            kernel = polynomial_kernel(x[i], y[j])
            rows[i] += kernel.sum(1)
            columns[j] += kernel.sum(0)
            squares += float(np.square(kernel).sum())
    total = float(rows.sum())
    centred = squares - float(rows @ rows) / m - float(columns @ columns) / n + total**2 / (n * m)
    return rows / m, max(centred, 0.0) / ((n - 1) * (m - 1))


def _u_statistic(rows: np.ndarray, squares: float, cross: float) -> MMD:
    """From the row sums of h (zero diagonal) and the sum of its squares to value and unbiased variance parts."""
    n = len(rows)
    total, rows_squared = float(rows.sum()), float(np.square(rows).sum())
    pairs = n * (n - 1)
    value = total / pairs
    second = squares / pairs
    if n < 4:
        return MMD(value, second, second, cross)
    shared = (rows_squared - squares) / (pairs * (n - 2))
    disjoint = (total**2 - 4 * rows_squared + 2 * squares) / (pairs * (n - 2) * (n - 3))
    return MMD(value, shared - disjoint, second - disjoint, cross)


def subset_mmds(x: np.ndarray, y: np.ndarray, subsets: int, size: int) -> list[MMD]:
    """MMD^2 of ``subsets`` pairs of subsets of ``size`` images, drawn as torch-fidelity draws them."""
    rng = np.random.RandomState(SUBSET_SEED)
    found = []
    for _ in range(subsets):
        chosen = rng.choice(len(x), size, replace=False)
        found.append(mmd(x[chosen], y[rng.choice(len(y), size, replace=False)]))
    return found


@dataclass(frozen=True)
class KernelInceptionDistance(Metric):
    """KID: unbiased, so that 0 is expected where both distributions are equal, and small negative values occur."""

    subsets: int = 100
    subset_size: int = 1000

    name = "kid"
    higher_is_better = False
    needs = frozenset({"features"})
    summary = "unbiased squared maximum mean discrepancy of features, cubic kernel"

    def __post_init__(self) -> None:
        require_count(self.name, "subsets", self.subsets)
        require_count(self.name, "subset_size", self.subset_size, least=2)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate, ``full`` where either side has fewer images than a subset. The reference is held fixed."""
        pair = feature_pair(inputs)
        pair = FeaturePair(pair.samples.astype(np.float64), pair.reference.astype(np.float64))
        smallest = min(len(pair.samples), len(pair.reference))
        if smallest < self.subset_size:
            note = f"{smallest} images are fewer than a subset of {self.subset_size}: all pairs are used instead"
            return [self._full(inputs, pair, note)]
        return [self._subsets(pair)]

    def _full(self, inputs: MetricInputs, pair: FeaturePair, note: str) -> Estimate:
        key = f"kid-v{self.version}-kernel-mean"
        constant = inputs.of_reference(key, lambda: np.array(kernel_mean(pair.reference)))
        found = mmd(pair.samples, pair.reference, float(constant))
        n = len(pair.samples)
        return Estimate(
            value=found.value,
            n=n,
            ci95=normal_interval(found.value, math.sqrt(found.variance(n))),
            interval="closed-form variance of the U-statistic",
            estimator="full",
            notes=(note,),
            conditions={"estimator": "full"},
        )

    def _subsets(self, pair: FeaturePair) -> Estimate:
        found = subset_mmds(pair.samples, pair.reference, self.subsets, self.subset_size)
        values = np.array([m.value for m in found])
        n = len(pair.samples)
        value, zeta1, zeta2, cross = (float(np.mean([getattr(m, f.name) for m in found])) for f in fields(MMD))
        surplus = cross * (1 / self.subset_size - 1 / len(pair.reference))
        mean = MMD(value, zeta1 - surplus, zeta2, cross)
        variance = mean.variance(n) + float(values.var()) / self.subsets
        estimator = f"subset-{self.subsets}x{self.subset_size}"
        return Estimate(
            value=mean.value,
            n=n,
            ci95=normal_interval(mean.value, math.sqrt(variance)),
            interval="closed-form variance of the U-statistic, and of the choice of subsets",
            estimator=estimator,
            extra={"std_over_subsets": float(values.std())},
            conditions={"estimator": estimator},
        )
