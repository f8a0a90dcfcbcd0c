"""Sampling speed of two records, by the ratio of the medians of their timing windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from genbench.check.collect import Entry

SPEED_METRICS = ("images_per_second", "latency_seconds")


def repetitions(entry: Entry, metric: str) -> np.ndarray:
    """Rates (images per second, higher is better) of a record's repetitions, (R,); empty where it was not timed."""
    timing = entry.record.timing
    if timing is None:
        return np.empty(0)
    if metric == "images_per_second":
        return np.array([window.images / window.seconds for window in timing.windows])
    return np.array([1.0 / seconds for seconds in timing.latency_seconds])


def median_ratio(baseline: Sequence[Entry], candidate: Sequence[Entry], metric: str) -> float | None:
    """Median rate of the candidate over that of the baseline; below 1 where it is slower, None without timings."""
    rates = [np.concatenate([repetitions(entry, metric) for entry in entries]) for entries in (baseline, candidate)]
    if not all(len(group) for group in rates):
        return None
    return float(np.median(rates[1]) / np.median(rates[0]))


def p_slower(baseline: Sequence[Entry], candidate: Sequence[Entry], metric: str) -> float:
    """One-sided p-value of the hypothesis that the candidate is not slower, by Welch's t test on logarithms of rates.

    1 where a side has fewer than two repetitions. It sees the scatter within the recorded repetitions alone.
    """
    before, after = (
        np.log(np.concatenate([repetitions(entry, metric) for entry in entries])) for entries in (baseline, candidate)
    )
    if min(len(before), len(after)) < 2:
        return 1.0
    if before.std() == after.std() == 0:
        return float(after.mean() >= before.mean())
    p = float(stats.ttest_ind(after, before, equal_var=False, alternative="less").pvalue)
    return 1.0 if math.isnan(p) else p
