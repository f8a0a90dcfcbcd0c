"""Sampling speed of two records, by the ratio of the medians of their timing windows.

Three windows say little of their own scatter, but the rows of a run are many: the variance of each row is moderated by
that of all rows (G. K. Smyth, 2004, "Linear models and empirical Bayes methods", section 6.2), which leaves a t test
of enough power to stand a correction for the number of tests. No row counts as quieter than the middle one: three
repetitions that happen to agree are no proof of it. The test sees the scatter within the recorded repetitions alone,
which is why a tolerance belongs to every speed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from genbench.check.collect import Entry

SPEED_METRICS = ("images_per_second", "latency_seconds")
_LEAST_SD = 1e-4
"""Of the logarithm of a rate: what clocks and schedulers leave even where repetitions are equal to the digit."""


def repetitions(entries: Sequence[Entry], metric: str) -> np.ndarray:
    """Rates (per second, higher is better) of the repetitions in all records, (R,); empty where none was timed."""
    timings = [entry.record.timing for entry in entries if entry.record.timing is not None]
    if metric == "images_per_second":
        timed = [(window.images, window.seconds) for timing in timings for window in timing.windows]
    else:
        timed = [(1, seconds) for timing in timings for seconds in timing.latency_seconds]
    return np.array([images / seconds for images, seconds in timed if images > 0 and 0 < seconds < math.inf])


@dataclass(frozen=True)
class Contest:
    """The logarithms of two rates: of their medians, and for the test their means, variances and repetitions.

    freedom: of the pooled variance; 0 where a side has one repetition, and nothing can be tested.
    """

    log_ratio: float
    mean: float
    variance: float
    weight: float
    """1 / n + 1 / m."""
    freedom: float

    @property
    def ratio(self) -> float:
        """Median rate of the candidate over that of the baseline; below 1 where it is slower."""
        return math.exp(self.log_ratio)


def contest(baseline: np.ndarray, candidate: np.ndarray) -> Contest:
    """Of the rates of two sides, (R,) and (S,), each with at least one."""
    before, after = np.log(baseline), np.log(candidate)
    freedom = len(before) + len(after) - 2 if min(len(before), len(after)) > 1 else 0
    squares = float(np.square(before - before.mean()).sum() + np.square(after - after.mean()).sum())
    variance = max(squares / freedom, _LEAST_SD**2) if freedom else math.nan
    ratio = math.log(float(np.median(candidate)) / float(np.median(baseline)))
    weight = 1.0 / len(before) + 1.0 / len(after)
    return Contest(ratio, float(after.mean() - before.mean()), variance, weight, freedom)


def p_slower(contests: Sequence[Contest]) -> list[float]:
    """One-sided p-value of each, of the hypothesis that its candidate is not slower, by the moderated t test.

    That of being faster is 1 minus it. NaN where nothing can be tested.
    """
    tested = [found for found in contests if found.freedom]
    prior, weight = prior_variance([one.variance for one in tested], [one.freedom for one in tested])
    known = sum(one.freedom for one in tested)
    least = float(np.median([one.variance for one in tested])) if tested else 0.0
    found = []
    for one in contests:
        if not one.freedom:
            found.append(math.nan)
            continue
        moderated = (
            prior if math.isinf(weight) else (weight * prior + one.freedom * one.variance) / (weight + one.freedom)
        )
        t = one.mean / math.sqrt(max(moderated, least) * one.weight)
        found.append(float(stats.t.cdf(t, min(weight + one.freedom, known))))
    return found


def prior_variance(variances: Sequence[float], freedoms: Sequence[float]) -> tuple[float, float]:
    """The scaled inverse chi-square prior of variances: its scale and its degrees of freedom (Smyth 2004, 6.2).

    Of fewer than three variances nothing is learned: degrees of freedom 0. They are infinite where the variances differ
    by no more than chance.
    """
    if len(variances) < 3:
        return 1.0, 0.0
    half = np.array(freedoms, dtype=np.float64) / 2
    e = np.log(variances) - special.digamma(half) + np.log(half)
    excess = float(e.var(ddof=1) - special.polygamma(1, half).mean())
    if excess <= special.polygamma(1, 1e6):
        return math.exp(e.mean()), math.inf
    # trigamma falls from infinity to 0, so the root is bracketed: trigamma(1e-4) = 1e8
    prior = float(optimize.brentq(lambda x: special.polygamma(1, x) - min(excess, 1e7), 1e-4, 1e6))
    return math.exp(e.mean() + special.digamma(prior) - math.log(prior)), 2 * prior
