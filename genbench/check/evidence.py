"""What two sets of seeds say of the difference of one metric, and how surely it lies beyond a margin.

One seed on both sides: paired per-image scores where both score the same images, else both intervals (see
`genbench.evaluation.compare`). Such a difference is one of these two sets of samples or weights: what another seed of
training would change is not in it. Several seeds on a side: the difference of means, with the spread over seeds, which
holds training and sampling; it is never taken smaller than the values' own intervals say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from genbench.check.collect import Entry
from genbench.evaluation.compare import of_record, pair_difference
from genbench.evaluation.uncertainty import metric_half_widths
from genbench.record import MetricResult


@dataclass(frozen=True)
class Evidence:
    """candidate - baseline. below, above: half widths of its 95 % interval, 0 where both values are exact.

    freedom: degrees of freedom of the interval's t distribution, infinite for a normal one.
    """

    value: float
    below: float
    above: float
    method: str
    freedom: float = math.inf

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % interval of the difference."""
        return self.value - self.below, self.value + self.above

    def p_above(self, margin: float) -> float:
        """One-sided p-value of the hypothesis that the difference is at most ``margin``."""
        return self._p(self.value - margin, self.below)

    def p_below(self, margin: float) -> float:
        """One-sided p-value of the hypothesis that the difference is at least ``margin``."""
        return self._p(margin - self.value, self.above)

    def _p(self, gap: float, half: float) -> float:
        if half == 0:
            return float(gap <= 0)
        return float(stats.t.sf(gap / half * stats.t.ppf(0.975, self.freedom), self.freedom))


Measurement = tuple[Entry, MetricResult]
"""A seed's record and its metric."""


def evidence(baseline: Sequence[Measurement], candidate: Sequence[Measurement]) -> Evidence | None:
    """The difference of one metric between two sets of seeds; None where a value without an interval leaves it open."""
    if len(baseline) == len(candidate) == 1:
        return _of_two(baseline[0], candidate[0])
    return _over_seeds([metric for _, metric in baseline], [metric for _, metric in candidate])


def _of_two(baseline: Measurement, candidate: Measurement) -> Evidence | None:
    (a, x), (b, y) = baseline, candidate
    found, _ = pair_difference(of_record(a.record, a.scores), of_record(b.record, b.scores), x, y)
    if found.ci95 is None:
        exact = x.kind == y.kind == "exact" or found.value == 0
        return Evidence(found.value, 0.0, 0.0, "exact values") if exact else None
    low, high = found.ci95
    freedom = math.inf if found.paired_n is None else found.paired_n - 1
    return Evidence(found.value, found.value - low, high - found.value, found.method, freedom)


def _over_seeds(baseline: Sequence[MetricResult], candidate: Sequence[MetricResult]) -> Evidence | None:
    groups = [np.array([metric.value for metric in metrics], dtype=np.float64) for metrics in (baseline, candidate)]
    around = [metric_half_widths(metric) for metric in (*baseline, *candidate)]
    own = float(np.mean([0.0 if half is None else half.standard_error**2 for half in around]))
    freedom = sum(len(group) for group in groups) - 2
    spread = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / freedom
    error = math.sqrt(max(own, spread) * sum(1.0 / len(group) for group in groups))
    value = float(groups[1].mean() - groups[0].mean())
    from_seeds = spread >= own
    quantile = float(stats.t.ppf(0.975, freedom if from_seeds else math.inf))
    method = f"means of {len(groups[0])} and {len(groups[1])} seeds, " + (
        "from their spread" if from_seeds else "from their intervals"
    )
    half = quantile * error
    return Evidence(value, half, half, method, float(freedom) if from_seeds else math.inf)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down method (S. Holm, 1979): the share of families in which any
    true hypothesis is rejected at level alpha is at most alpha, whatever their dependence."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted
