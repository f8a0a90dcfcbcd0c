"""How much faster one row is than another, with the 95 % interval of what is shown: a ratio of medians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genbench.check.collect import Entry
from genbench.check.speed import RATE, contest, sides
from genbench.metrics.statistics import student_quantile

_WIDEST = 200.0
"""Of logarithms of rates or paces, and half an interval: what is farther apart is no measurement, and its change may be
no number."""


@dataclass(frozen=True)
class Change:
    """How much faster the candidate is, as a share of the baseline's rate (or time, of a latency), by medians, with the
    95 % interval of the repetitions, None of a single one; paced: at one pace of the machine."""

    share: float
    ci95: tuple[float, float] | None
    paced: bool


def speed_change(baseline: Sequence[Entry], candidate: Sequence[Entry], metric: str) -> Change | None:
    """The change of a speed as a share of the baseline's; None without timing windows. It is infinite where it is too
    large for a number.

    The interval is Student's, of the logarithm of the ratio, with the error of both medians.
    """
    found = sides(baseline, candidate, metric)
    counts = [len(rates) for rates in found.rates]
    if not all(counts):
        return None
    if not all(float(np.ptp(np.concatenate(pair))) <= _WIDEST for pair in (found.rates, found.paces or found.rates)):
        return Change(math.inf, None, found.paces is not None)
    one = contest(found)
    sign = 1.0 if metric == RATE else -1.0
    share = math.expm1(sign * one.log_ratio)
    half = math.inf
    if one.freedom:
        weight = one.weight + sum(_of_median(n) - 1.0 / n for n in counts)
        half = student_quantile(one.freedom) * math.sqrt(one.variance * weight + one.drift)
    if half > _WIDEST:
        return Change(share, None, found.paces is not None)
    low, high = sorted(math.expm1(sign * one.log_ratio + side * half) for side in (-1, 1))
    return Change(share, (low, high), found.paces is not None)


def _of_median(n: int) -> float:
    """Variance of the median of ``n`` normal values, by theirs; within 3 % for any ``n``, and pi / (2 n) for many."""
    return math.pi / 2 / (n + (math.pi / 2 - 1 if n % 2 else math.pi - 2))
