"""Sampling speed of two records, by the ratio of the medians of their timing windows.

Three windows say little of their own scatter, but the rows of a run are many: the variance of each row is moderated by
that of all rows (G. K. Smyth, 2004, "Linear models and empirical Bayes methods", section 6.2), which leaves a t test
of enough power to stand a correction for the number of tests. No row counts as quieter than the middle one: three
repetitions that happen to agree are no proof of it. The test sees the scatter within the recorded repetitions alone,
which is why a tolerance belongs to every speed. What slowed the whole machine is taken out where the records know it
(see `genbench.pace`); a change that slows the reference load as much as the models, as another build of torch may, is
taken out with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from genbench.check.collect import Entry
from genbench.check.moderation import posterior_variance, prior_variance
from genbench.metrics.statistics import student_below, student_quantile
from genbench.record import REPEATED, Record

RATE = "images_per_second"
SPEED_METRICS = REPEATED
_LEAST_SD = 1e-4
"""Of the logarithm of a rate: what clocks and schedulers leave even where repetitions are equal to the digit."""
_POWER_SD = 0.25
"""Of the power of the pace that a row's rate goes by, around 1: 0.4 to 1.4 were seen in rows of `digits`."""
_POWER_DRIFT = 0.05
"""How far the power between two runs is off that within them."""
LEAST_GIVEN = 0.8
"""Share of its time for which a timing must have been given the processor; with less, caches are cold as well, which
slows models more than the reference load."""


@dataclass(frozen=True)
class Sides:
    """Logarithms of the rates of the baseline's and the candidate's repetitions, (R,) and (S,), and those of the
    machine's paces meanwhile; the latter are None where a repetition lacks its own, or their loads differ."""

    rates: tuple[np.ndarray, np.ndarray]
    paces: tuple[np.ndarray, np.ndarray] | None


def sides(baseline: Sequence[Entry], candidate: Sequence[Entry], metric: str) -> Sides:
    """What there is to compare of two sides."""
    both = _repetitions(baseline, metric), _repetitions(candidate, metric)
    loads = {one.load for side in both for one in side}
    before, after = (np.log([one.rate for one in side]) for side in both)
    if len(loads) != 1 or None in loads or any(one.pace is None for side in both for one in side):
        return Sides((before, after), None)
    slow, fast = (np.log(np.array([one.pace for one in side], dtype=np.float64)) for side in both)
    return Sides((before, after), (slow, fast))


def given(entries: Sequence[Entry]) -> float:
    """Share of the time for which other processes did not hold the processor: the median of the windows, of the record
    where it is least; 1 where it is not known."""
    timings = [entry.record.timing for entry in entries if entry.record.timing is not None]
    shares = [[window.given for window in timing.windows if window.given is not None] for timing in timings]
    return min((float(np.median(known)) for known in shares if known), default=1.0)


def contended(record: Record) -> str:
    """What is to be said of a speed that says more of the machine than of the model; nothing of another one."""
    share = given([Entry(record)])
    return "" if share >= LEAST_GIVEN else f"timed while other processes held the processor {1 - share:.0%} of the time"


@dataclass(frozen=True)
class _Repetition:
    rate: float
    pace: float | None
    load: str | None


def _repetitions(entries: Sequence[Entry], metric: str) -> list[_Repetition]:
    found = []
    for timing in (entry.record.timing for entry in entries):
        if timing is None:
            continue
        if metric == RATE:
            timed = [(window.images, window.seconds, window.pace) for window in timing.windows]
        else:
            paces = timing.latency_pace or []
            timed = [(1, *one) for one in zip_longest(timing.latency_seconds, paces[: len(timing.latency_seconds)])]
        for images, seconds, pace in timed:
            if images > 0 and 0 < seconds < math.inf:
                known = pace if pace is not None and 0 < pace < math.inf else None
                found.append(_Repetition(images / seconds, known, timing.reference_load))
    return found


@dataclass(frozen=True)
class Contest:
    """The logarithms of two rates, at one pace of the machine where it is known: of their medians, and for the test
    their means, variances and repetitions.

    freedom: of the pooled variance; 0 where a side has one repetition, and nothing can be tested.
    """

    log_ratio: float
    mean: float
    variance: float
    weight: float
    """1 / n + 1 / m, and more where the power of the pace is unsure."""
    freedom: float
    drift: float = 0.0
    """Variance of the mean that repetitions cannot show: the pace's power is not quite the same from run to run."""

    @property
    def ratio(self) -> float:
        """Median rate of the candidate over that of the baseline; below 1 where it is slower."""
        return math.exp(self.log_ratio)


def contest(found: Sides) -> Contest:
    """Of two sides, each with at least one repetition; see `_at_pace` for those with paces."""
    before, after = found.rates
    freedom = len(before) + len(after) - 2 if min(len(before), len(after)) > 1 else 0
    weight = 1.0 / len(before) + 1.0 / len(after)
    drift = 0.0
    if found.paces is not None:
        apart = float(found.paces[1].mean() - found.paces[0].mean())
        drift = (_POWER_DRIFT * apart) ** 2
        before, after, unsure = _at_pace(found.rates, found.paces, freedom)
        weight += apart**2 * unsure
        freedom = max(freedom - 1, 0)
    squares = _squares(before, before) + _squares(after, after)
    variance = max(squares / freedom, _LEAST_SD**2) if freedom else math.nan
    ratio = math.log(np.median(np.exp(after)) / np.median(np.exp(before)))
    return Contest(ratio, float(after.mean() - before.mean()), variance, weight, freedom, drift)


def _squares(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a - a.mean()) * (b - b.mean())).sum())


def _at_pace(
    rates: tuple[np.ndarray, np.ndarray], paces: tuple[np.ndarray, np.ndarray], freedom: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Both sides' logarithms of rates as they were at one pace of the machine, by analysis of covariance.

    A row's rate goes as the pace to some power: near 1, its prior, and found more closely from its repetitions, for
    rows lean on different parts of a processor. Returns with the rates the variance of that power, in units of theirs.
    """
    xx = sum(_squares(pace, pace) for pace in paces)
    xy = sum(_squares(pace, rate) for pace, rate in zip(paces, rates))
    yy = sum(_squares(rate, rate) for rate in rates)
    left = yy - xy**2 / xx if xx > 0 else yy
    prior = max(left / max(freedom - 1, 1), _LEAST_SD**2) / _POWER_SD**2
    power = min(max((xy + prior) / (xx + prior), 0.0), 2.0)
    middle = float(np.concatenate(paces).mean())
    before, after = (rate - power * (pace - middle) for rate, pace in zip(rates, paces))
    return before, after, 1.0 / (xx + prior)


@dataclass(frozen=True)
class SpeedP:
    """p-values of the hypotheses that a candidate is not slower than by its margin, and not faster, with the standard
    error of the difference of logarithms and its degrees of freedom; all are NaN where nothing can be tested."""

    slower: float
    faster: float
    error: float
    freedom: float
    margin: float

    def least_loss(self, alpha: float) -> float:
        """The loss of the mean rate (a share) from which ``slower`` is at most ``alpha``."""
        if math.isnan(self.error):
            return math.nan
        return -math.expm1(-math.log1p(self.margin) + student_quantile(self.freedom, alpha) * self.error)


def p_values(contests: Sequence[Contest], margins: Sequence[float]) -> list[SpeedP]:
    """Of each contest, by the moderated t test; margins: shares of the rate."""
    tested = [found for found in contests if found.freedom]
    prior, weight = prior_variance([one.variance for one in tested], [one.freedom for one in tested])
    known = sum(one.freedom for one in tested)
    least = float(np.median([one.variance for one in tested])) if tested else 0.0
    found = []
    for one, margin in zip(contests, margins):
        if not one.freedom:
            found.append(SpeedP(math.nan, math.nan, math.nan, 0.0, margin))
            continue
        variance = max(posterior_variance(one.variance, one.freedom, prior, weight), least)
        error = math.sqrt(variance * one.weight + one.drift)
        freedom, shift = min(weight + one.freedom, known), math.log1p(margin)
        slower, faster = (student_below((sign * one.mean + shift) / error, freedom) for sign in (1, -1))
        found.append(SpeedP(slower, faster, error, freedom, margin))
    return found
