"""Kernel Inception Distance (Binkowski et al. 2018): unbiased MMD^2 of features with the kernel (<x, y> / d + 1)^3.

``kid`` is the mean over 100 subsets of 1000, drawn without replacement by ``RandomState(2020)``, the samples' before
the reference's (torch-fidelity). clean-fid and dgm-eval draw from numpy's global generator and torchmetrics from
torch's, so that their numbers differ by the choice of subsets alone, whose error is part of the interval here; after
``np.random.seed(2020)`` clean-fid draws the same ones. ``kid_full`` is the mean over all pairs, which no choice of
subsets blurs: the limit of ``kid`` with many of them.

Intervals are of the expectation over fresh samples, with the reference held fixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

import numpy as np

from genbench.metrics.base import Estimate, Metric, MetricInputs
from genbench.metrics.feature_pair import FeaturePair, feature_pair
from genbench.metrics.kernel import MMD, draw_subsets, kernel_mean, mmd, mmd_and_subsets, subset_mmds
from genbench.metrics.options import require_count
from genbench.metrics.statistics import normal_interval

SUBSET_SEED = 2020
_SUBSETS, _SUBSET_SIZE = 100, 1000
_CLOSED_FORM = "closed-form variance of the U-statistic"


@dataclass(frozen=True)
class _Sums:
    """MMD^2 over all pairs, and of each subset where there are some."""

    full: MMD
    of_subsets: np.ndarray = field(default_factory=lambda: np.empty(0))


def _all_pairs(inputs: MetricInputs, subsets: int, size: int) -> _Sums:
    """All pairs, together with the subsets unless a side is too small for them or all pairs would cost far more."""
    pair = feature_pair(inputs)
    n, m = len(pair.samples), len(pair.reference)
    if size <= min(n, m) and _pairs_cost_less(pair, subsets, size):
        draws = draw_subsets(n, m, subsets, size, SUBSET_SEED)
        return inputs.shared(
            ("kernel sums", subsets, size), lambda: _Sums(*mmd_and_subsets(pair.samples, pair.reference, draws))
        )
    constant = inputs.of_reference("kid-v1-kernel-mean", lambda: np.array(kernel_mean(pair.reference)))
    return inputs.shared("kernel sums", lambda: _Sums(mmd(pair.samples, pair.reference, float(constant))))


def _pairs_cost_less(pair: FeaturePair, subsets: int, size: int) -> bool:
    """Whether all pairs take no more kernel values than the subsets do, one by one."""
    n, m = len(pair.samples), len(pair.reference)
    return (n * n + m * m) / 2 + n * m <= 2 * subsets * size * size


def _full_estimate(full: MMD, n: int, notes: tuple[str, ...] = ()) -> Estimate:
    error = math.sqrt(full.variance(n))
    return Estimate(
        value=full.value,
        n=n,
        ci95=normal_interval(full.value, error),
        interval=_CLOSED_FORM,
        estimator="full",
        standard_error=error,
        notes=notes,
        conditions={"estimator": "full"},
    )


@dataclass(frozen=True)
class KernelInceptionDistance(Metric):
    """KID: unbiased, so that 0 is expected where both distributions are equal, and small negative values occur.

    subsets, subset_size: number and size of the subsets; all pairs are used where a side has fewer than subset_size.
    """

    subsets: int = _SUBSETS
    subset_size: int = _SUBSET_SIZE

    name = "kid"
    higher_is_better = False
    needs = frozenset({"features"})
    summary = "unbiased squared maximum mean discrepancy of features, cubic kernel, mean over subsets"

    def __post_init__(self) -> None:
        require_count(self.name, "subsets", self.subsets)
        require_count(self.name, "subset_size", self.subset_size, least=2)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate, ``full`` where either side has fewer images than a subset. The reference is held fixed."""
        pair = feature_pair(inputs)
        smallest = min(len(pair.samples), len(pair.reference))
        if smallest < self.subset_size:
            note = f"KID subset of {self.subset_size} shrunk to N = {smallest}: all pairs are used once"
            return [_full_estimate(_all_pairs(inputs, self.subsets, self.subset_size).full, len(pair.samples), (note,))]
        return [self._of_subsets(inputs, pair)]

    def _of_subsets(self, inputs: MetricInputs, pair: FeaturePair) -> Estimate:
        n, m = len(pair.samples), len(pair.reference)
        if _pairs_cost_less(pair, self.subsets, self.subset_size):
            sums = _all_pairs(inputs, self.subsets, self.subset_size)
            values, variance = sums.of_subsets, sums.full.variance(n)
        else:
            draws = draw_subsets(n, m, self.subsets, self.subset_size, SUBSET_SEED)
            found = subset_mmds(pair.samples, pair.reference, draws)
            values = np.array([one.value for one in found])
            variance = self._mean_parts(found, m).variance(n)
        value = float(values.mean())
        error = math.sqrt(variance + float(values.var(ddof=1)) / len(values)) if len(values) > 1 else None
        estimator = f"subset-{self.subsets}x{self.subset_size}"
        return Estimate(
            value=value,
            n=n,
            ci95=None if error is None else normal_interval(value, error),
            interval=f"{_CLOSED_FORM}, and of the choice of subsets",
            estimator=estimator,
            standard_error=error,
            notes=() if error is not None else ("no interval: one subset does not tell how far others are off",),
            extra={"std_over_subsets": float(values.std())},
            conditions={"estimator": estimator},
        )

    def _mean_parts(self, found: list[MMD], m: int) -> MMD:
        """Parts of the variance with a reference of m, from those with references of the subsets' size."""
        value, zeta1, zeta2, cross = (float(np.mean([getattr(one, f.name) for one in found])) for f in fields(MMD))
        return MMD(value, zeta1 - cross * (1 / self.subset_size - 1 / m), zeta2, cross)


class FullKernelInceptionDistance(Metric):
    """KID over all pairs: exact, free of order, and the same when samples and reference change places."""

    name = "kid_full"
    higher_is_better = False
    needs = frozenset({"features"})
    summary = "unbiased squared maximum mean discrepancy of features, cubic kernel, over all pairs"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; the reference is held fixed."""
        return [_full_estimate(_all_pairs(inputs, _SUBSETS, _SUBSET_SIZE).full, len(feature_pair(inputs).samples))]
