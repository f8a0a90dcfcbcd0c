"""What two sets of seeds say of the difference of one metric, and how surely it lies beyond a margin.

Two sources of noise are told apart. That of the values themselves: paired per-image scores where both sides score the
same images, else the values' intervals (see `genbench.evaluation.compare`). And that of seeds, training included: the
spread within each side, where a side has several. A difference counts only if it lies beyond either noise by itself.
With one seed on each side it is one of these two sets of weights: what another seed of training would change is not in
it. Scores are paired only if that seed is the same: a pair holds everything else fixed, and would take the change that
another seed makes for a change of the model. With one seed sample i is made of the same noise on both sides, so that
scores of samples pair by their numbers as those of test images do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from genbench.check.collect import Entry
from genbench.evaluation.compare import first_difference, of_record, pair_difference, paired_difference
from genbench.evaluation.uncertainty import (
    Difference,
    are_equal,
    metric_half_widths,
    shared_error,
    shares_images,
    widened,
)
from genbench.metrics.statistics import Z95, student_below, student_quantile
from genbench.record import MetricResult


@dataclass(frozen=True)
class Noise:
    """Half widths of a 95 % interval, below and above its value; freedom: of its t distribution, infinite: normal."""

    below: float
    above: float
    freedom: float = math.inf

    def p(self, gap: float, half: float) -> float:
        """One-sided p-value of a distance ``gap`` beyond what is to be rejected, on the side of half width ``half``."""
        if half == 0:
            return float(gap <= 0)
        return student_below(-gap / half * student_quantile(self.freedom), self.freedom)


@dataclass(frozen=True)
class Spread:
    """How one row's values of a metric scatter over seeds.

    variance: of one value, pooled within both sides. unit: what the values' own intervals say of that variance, NaN
    where they do not. weight: sum of 1 / number of seeds over both sides.
    """

    variance: float
    unit: float
    freedom: float
    weight: float

    @property
    def noise(self) -> Noise:
        """Of the difference of the means, by Student's t."""
        half = student_quantile(self.freedom) * math.sqrt(self.variance * self.weight)
        return Noise(half, half, self.freedom)

    @property
    def share(self) -> float:
        """The variance in units of what the intervals say."""
        return self.variance / self.unit

    @property
    def is_measured(self) -> bool:
        """Whether the values scatter at all, and have intervals to scatter by."""
        return self.variance > 0 and self.unit > 0


@dataclass(frozen=True)
class Evidence:
    """candidate - baseline, with its sources of noise, and in words how they were had. spread: of seeds, the first of
    the noises, where a side has several. paired_sum, shares_seeds: see `with_sum`."""

    value: float
    noises: tuple[Noise, ...]
    method: str
    spread: Spread | None = None
    paired_sum: Noise | None = None
    shares_seeds: bool = False

    @property
    def exact(self) -> bool:
        """Whether there is no noise: both values are known exactly, or are equal image by image."""
        return not any(noise.below or noise.above for noise in self.noises)

    @property
    def ci95(self) -> tuple[float, float]:
        """The wider 95 % interval of the difference."""
        below, above = (max(getattr(noise, side) for noise in self.noises) for side in ("below", "above"))
        return self.value - below, self.value + above

    def p_above(self, margin: float) -> float:
        """One-sided p-value of the hypothesis that the difference is at most ``margin``."""
        return max(noise.p(self.value - margin, noise.below) for noise in self.noises)

    def p_below(self, margin: float) -> float:
        """One-sided p-value of the hypothesis that the difference is at least ``margin``."""
        return max(noise.p(margin - self.value, noise.above) for noise in self.noises)

    def p_beyond(self, gap: float) -> float:
        """One-sided p-value of a gap made from both values, whichever of them is the larger."""
        return max(noise.p(gap, max(noise.below, noise.above)) for noise in self.noises)

    def p_sum_beyond(self, gap: float) -> float:
        """One-sided p-value of a gap made from baseline + candidate, whose noise no pairing lessens: see `with_sum`."""
        wider = math.sqrt(2.0) if self.shares_seeds else 1.0
        noises = [(noise, wider) for noise in self.noises]
        if self.paired_sum is not None:
            noises[-1] = (self.paired_sum, 1.0)
        return max(noise.p(gap, factor * max(noise.below, noise.above)) for noise, factor in noises)

    def p_alone_beyond(self, gap: float) -> float:
        """One-sided p-value of a gap made from one of both values: its variance is at most the larger one of their
        difference and their sum."""
        found = self.p_beyond(gap)
        return found if self.paired_sum is None else max(found, self.paired_sum.p(gap, self.paired_sum.above))


ROUNDING = 1e-5
"""Share of a value by which float32 arithmetic in another order moves it: another processor, thread count or build."""
Measurement = tuple[Entry, MetricResult]
"""A seed's record and its metric."""
Identity = tuple[str, str, str | None]
"""Name, estimator and extractor of a metric."""
_MUST_AGREE = {"kind", "unit", "higher_is_better"}


def measurements(entries: Iterable[Entry], identity: Identity) -> list[Measurement]:
    """One metric of several records, of those that have a value of it."""
    return [
        (entry, metric)
        for entry in entries
        for metric in entry.record.metrics
        if (metric.name, metric.estimator, metric.extractor) == identity and metric.status == "ok"
    ]


def _spelled(metric: MetricResult) -> str:
    return json.dumps([metric.measured_as, metric.kind, metric.unit, metric.higher_is_better], sort_keys=True)


def has_interval(found: Iterable[Measurement]) -> bool:
    """Whether each measurement says how uncertain it is."""
    return all(metric_half_widths(metric) is not None for _, metric in found)


def first_unlike(found: Sequence[Measurement]) -> str | None:
    """The first difference between any two measurements in how they were made; None where they may be compared."""
    first = found[0][1]
    same = _spelled(first)
    for _, metric in found[1:]:
        if _spelled(metric) == same:
            continue
        unlike = first_difference(first.measured_as, metric.measured_as) or first_difference(
            first.model_dump(include=_MUST_AGREE), metric.model_dump(include=_MUST_AGREE)
        )
        if unlike is not None:
            return unlike
    return None


def evidence(baseline: Sequence[Measurement], candidate: Sequence[Measurement]) -> Evidence | None:
    """The difference of one metric between two sets of seeds; None where a value without an interval leaves it open."""
    if len(baseline) == len(candidate) == 1:
        return _of_two(baseline[0], candidate[0])
    return _over_seeds(baseline, candidate)


def with_sum(found: Evidence, baseline: Sequence[Measurement], candidate: Sequence[Measurement]) -> Evidence:
    """Evidence that also knows the noise of baseline + candidate.

    paired_sum is that of paired scores, by their sums. Else it is that of the difference, whose sides count as
    independent; where they share seeds (shares_seeds) they may not be, which at most doubles the variance of the sum.
    """
    shared = {entry.record.seed for entry, _ in baseline} & {entry.record.seed for entry, _ in candidate}
    own = found.noises[-1]
    paired = math.isfinite(own.freedom) and (found.spread is None or len(found.noises) > 1)
    return replace(found, paired_sum=_sum_noise(baseline, candidate) if paired else None, shares_seeds=bool(shared))


def _sum_noise(baseline: Sequence[Measurement], candidate: Sequence[Measurement]) -> Noise:
    """Of the sum of paired scores, each the mean over its side's seeds."""
    key = f"{baseline[0][1].name}.{baseline[0][1].estimator}"
    before, after = (
        np.stack([np.asarray(entry.scores[key], dtype=np.float64) for entry, _ in side]).mean(0)
        for side in (baseline, candidate)
    )
    known = np.isfinite(before) & np.isfinite(after)
    found = paired_difference(-before[known], after[known], "score")
    shared = sum(shared_error(metric) / len(side) for side in (baseline, candidate) for _, metric in side)
    return _noise(widened(found, shared))


def evidence_of_spread(baseline: Sequence[Measurement], candidate: Sequence[Measurement]) -> Evidence | None:
    """The difference of values without intervals, by what seeds alone tell of their noise; None where no side has
    several, or where none of them scatters: values that are equal by chance are no measure of it."""
    groups = [np.array([metric.value for _, metric in side], dtype=np.float64) for side in (baseline, candidate)]
    if max(map(len, groups)) < 2:
        return None
    value = float(groups[1].mean() - groups[0].mean())
    spread = _spread(groups, [*baseline, *candidate])
    if spread.variance == 0:
        equal = are_equal(np.concatenate(groups), ROUNDING)
        return Evidence(0.0, (Noise(0.0, 0.0),), "equal values") if equal else None
    method = f"means of {len(groups[0])} and {len(groups[1])} seeds without intervals, beyond their spread"
    return Evidence(value, (spread.noise,), method, spread)


def _of_two(baseline: Measurement, candidate: Measurement) -> Evidence | None:
    (a, x), (b, y) = baseline, candidate
    alike = a.record.seed == b.record.seed
    sides = [of_record(entry.record, entry.scores if alike else {}) for entry in (a, b)]
    found, _ = pair_difference(sides[0], sides[1], x, y)
    if found.paired_n is None and alike:
        found = _paired_samples(baseline, candidate) or found
    if found.ci95 is None:
        if x.kind == y.kind == "exact":
            return Evidence(found.value, (Noise(0.0, 0.0),), "exact values")
        return Evidence(0.0, (Noise(0.0, 0.0),), "equal values") if found.value == 0 else None
    seeds = "one seed each" if alike else f"seed {a.record.seed} against seed {b.record.seed}, not paired"
    return Evidence(found.value, (_noise(found),), f"{found.method}, {seeds}")


def _paired_samples(baseline: Measurement, candidate: Measurement) -> Difference | None:
    """The difference over samples of one number, which one seed gives the same noise; None where the values are not the
    means of scores of as many samples."""
    scores = []
    for entry, metric in (baseline, candidate):
        found = entry.scores.get(f"{metric.name}.{metric.estimator}")
        if found is None or metric.provenance.get("paired_by") or found.ndim != 1 or len(found) < 2:
            return None
        if metric.value is None or not math.isclose(found.mean(), metric.value, rel_tol=1e-6, abs_tol=1e-6):
            return None
        scores.append(found.astype(np.float64))
    return paired_difference(scores[0], scores[1], "sample") if len(scores[0]) == len(scores[1]) else None


def _noise(found: Difference) -> Noise:
    assert found.ci95 is not None
    freedom = math.inf if found.paired_n is None else found.paired_n - 1
    return Noise(found.value - found.ci95[0], found.ci95[1] - found.value, freedom)


def _over_seeds(baseline: Sequence[Measurement], candidate: Sequence[Measurement]) -> Evidence | None:
    groups = [np.array([metric.value for _, metric in side], dtype=np.float64) for side in (baseline, candidate)]
    paired = _paired_means(baseline, candidate)
    own = _from_intervals(baseline, candidate) if paired is None else _noise(paired)
    if own is None:
        return None
    value = float(groups[1].mean() - groups[0].mean())
    method = f"means of {len(groups[0])} and {len(groups[1])} seeds, beyond their spread and "
    method += "their intervals" if paired is None else paired.method
    spread = _spread(groups, [*baseline, *candidate])
    return Evidence(value, (spread.noise, own), method, spread)


def _spread(groups: Sequence[np.ndarray], found: Sequence[Measurement]) -> Spread:
    """Of two groups of values, each (seeds,), which are those of ``found``."""
    freedom = sum(len(group) for group in groups) - 2
    squares = [0.0 if are_equal(group, ROUNDING) else float(np.square(group - group.mean()).sum()) for group in groups]
    variance = sum(squares) / freedom
    around = [metric_half_widths(metric) for _, metric in found]
    own = [math.nan if one is None else one.standard_error**2 for one in around]
    return Spread(variance, float(np.mean(own)), freedom, sum(1.0 / len(group) for group in groups))


def _from_intervals(baseline: Sequence[Measurement], candidate: Sequence[Measurement]) -> Noise | None:
    """From each value's own interval; that of scores over the same images is no smaller for a mean of seeds."""
    variance = 0.0
    for side in (baseline, candidate):
        count = 1 if shares_images([metric for _, metric in side]) else len(side)
        for _, metric in side:
            around = metric_half_widths(metric)
            if around is None:
                return None
            variance += around.standard_error**2 / len(side) / count
    half = Z95 * math.sqrt(variance)
    return Noise(half, half)


def _paired_means(baseline: Sequence[Measurement], candidate: Sequence[Measurement]) -> Difference | None:
    """The paired difference of each image's mean score over seeds; None where any two records cannot be paired."""
    entry, first = baseline[0]
    key = f"{first.name}.{first.estimator}"
    start = of_record(entry.record, entry.scores)
    for other, metric in (*baseline, *candidate):
        found, _ = pair_difference(start, of_record(other.record, other.scores), first, metric)
        if found.paired_n is None or found.paired_n != len(other.scores[key]):
            return None
    means = [np.stack([entry.scores[key] for entry, _ in side]).mean(0) for side in (baseline, candidate)]
    found = paired_difference(means[0], means[1], str(first.provenance["paired_by"]))
    shared = [shared_error(metric) / len(side) for side in (baseline, candidate) for _, metric in side]
    return widened(found, math.hypot(*shared))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's step-down method (S. Holm, 1979): the share of families in which any
    true hypothesis is rejected at level alpha is at most alpha, whatever their dependence."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted
