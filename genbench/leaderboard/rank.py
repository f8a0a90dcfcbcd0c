"""Ranks as intervals, and Pareto fronts: what the 95 % intervals leave open stays open.

One value is surely better than another where the 95 % interval of their difference, by the square-and-add rule (Zou &
Donner 2008, eq. 3; see `genbench.report.ranking`), lies on the better side of zero. The best rank of a row is one plus
the number of rows that are surely better, its worst rank the number of rows less those that are surely worse.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from genbench.record import MetricResult


def surely_better(metrics: Mapping[str, MetricResult], higher_is_better: bool) -> np.ndarray:
    """(n, n) bool: whether row i is better than row j beyond both intervals; rows in the order of ``metrics``.

    A value without an interval counts as known exactly.

    Raises:
        ValueError: a metric without a value.
    """
    values, low, high = _bounds(metrics)
    below, above = values - low, high - values
    difference = values[:, None] - values[None, :]
    if higher_is_better:
        return np.asarray(difference - np.hypot(below[:, None], above[None, :]) > 0)
    return np.asarray(difference + np.hypot(above[:, None], below[None, :]) < 0)


def rank_intervals(metrics: Mapping[str, MetricResult], higher_is_better: bool) -> dict[str, tuple[int, int]]:
    """Best and worst rank of each row, by key.

    Raises:
        ValueError: a metric without a value.
    """
    better = surely_better(metrics, higher_is_better)
    best, worst = 1 + better.sum(axis=0), len(metrics) - better.sum(axis=1)
    return {key: (int(lo), int(hi)) for key, lo, hi in zip(metrics, best, worst, strict=True)}


def front(
    quality: Mapping[str, MetricResult], cost: Mapping[str, MetricResult], higher_is_better: tuple[bool, bool]
) -> list[str]:
    """Keys of the rows that no other row surely dominates, in the order of ``quality``.

    A row dominates another surely if it is surely better in one metric, and in the other surely better or equal to it
    with both known exactly (the parameters of two samplers of one model). Both mappings have the same keys.

    Raises:
        ValueError: a metric without a value, or keys that differ.
    """
    if set(quality) != set(cost):
        raise ValueError(f"front: other rows have a quality ({sorted(quality)}) than a cost ({sorted(cost)})")
    sides = [quality, {key: cost[key] for key in quality}]
    better = [surely_better(side, up) for side, up in zip(sides, higher_is_better, strict=True)]
    no_worse = [one | _equal(side) for one, side in zip(better, sides, strict=True)]
    dominated = (no_worse[0] & no_worse[1] & (better[0] | better[1])).any(axis=0)
    return [key for key, beaten in zip(quality, dominated, strict=True) if not beaten]


def _bounds(metrics: Mapping[str, MetricResult]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    missing = [key for key, metric in metrics.items() if metric.value is None]
    if missing:
        raise ValueError(f"rows without a value cannot be ranked: {', '.join(missing)}")
    values = np.array([metric.value for metric in metrics.values()], dtype=np.float64)
    intervals = [metric.ci95 or (metric.value, metric.value) for metric in metrics.values()]
    low, high = np.array(intervals, dtype=np.float64).reshape(-1, 2).T
    return values, np.minimum(low, values), np.maximum(high, values)


def _equal(metrics: Mapping[str, MetricResult]) -> np.ndarray:
    values, low, high = _bounds(metrics)
    exact = low == high
    return np.asarray((values[:, None] == values[None, :]) & exact[:, None] & exact[None, :])
