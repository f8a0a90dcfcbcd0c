"""Per-image scores of a record: those that must be there, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from genbench.check.collect import Entry
from genbench.leaderboard.arithmetic import RELATIVE, contradicted, is_close
from genbench.metrics.statistics import mean_interval, wilson_interval
from genbench.record import MetricResult
from genbench.report.names import metric_name

SHARES = frozenset({"precision", "memorised_share", "clip_accuracy", "clip_r_precision"})
"""Metrics that are shares of images, with Wilson's interval."""
MEANS = SHARES | {
    *("density", "nearest_train_distance", "clip_score", "ssim", "ms_ssim", "psnr", "psnr_pooled", "lpips"),
    *("bits_per_dim", "nats_per_image"),
}
"""Metrics that are means over images, whatever their estimator."""
MAY_BE_INFINITE = "psnr"
"""Identical images are infinite, and left out of the mean."""

_AGAIN = "Hand in the record and the npz file as the run wrote them, or run `genbench rescore`."


def faults_of_scores(entry: Entry, others: Sequence[Entry]) -> list[str]:
    """Arrays that are missing, that no metric claims, or that do not give the values that the record states.

    Args:
        others: the rows that are there; what they have scores of, this one has, too.
    """
    claimed = {_key(metric): metric for metric in entry.record.metrics if metric.status == "ok"}
    found = _missing(entry, claimed, others)
    for key, array in entry.scores.items():
        metric = claimed.get(key)
        if metric is None:
            found.append(f"its per-image scores '{key}' belong to no metric that has a value. {_AGAIN}")
            continue
        fault = _unfit(key, array, metric)
        found += [fault] if fault else _unequal(metric, array)
    return found


def numbers(array: np.ndarray) -> np.ndarray | None:
    """An array as float64; None where it holds no real numbers."""
    return array.astype(np.float64) if array.dtype.kind in "biuf" else None


def _key(metric: MetricResult) -> str:
    return f"{metric.name}.{metric.estimator}"


def _missing(entry: Entry, claimed: Mapping[str, MetricResult], others: Sequence[Entry]) -> list[str]:
    stored = entry.record.per_image
    mine = set() if stored is None else set(stored.arrays)
    known = {key for other in others if other.record.per_image for key in other.record.per_image.arrays}
    missing = [key for key, metric in claimed.items() if (metric.name in MEANS or key in known) and key not in mine]
    if not missing:
        return []
    return [f"the per-image scores of {', '.join(missing)} are missing. {_AGAIN}"]


def _unfit(key: str, array: np.ndarray, metric: MetricResult) -> str:
    """Why an array cannot be the scores of a metric's images; empty where it can."""
    values = numbers(array)
    what = f"its per-image scores '{key}' are"
    if values is None:
        return f"{what} {array.dtype}, expected numbers. {_AGAIN}"
    if values.shape != (metric.n,):
        return f"{what} of shape {values.shape}, expected {(metric.n,)}: one for each image. {_AGAIN}"
    finite = np.isfinite(values)
    left_out = values == np.inf if metric.name == MAY_BE_INFINITE else np.zeros_like(finite)
    if not finite.any() or (metric.name in MEANS and not (finite | left_out).all()):
        return f"{what} not finite for {int((~finite).sum())} of {len(values)} images. {_AGAIN}"
    return ""


def _unequal(metric: MetricResult, array: np.ndarray) -> list[str]:
    """A value that is not the mean of its scores, or an interval that is narrower than theirs."""
    scores = array.astype(np.float64)
    scores = scores[np.isfinite(scores)]
    value = float(scores.mean())
    assert metric.value is not None
    if not is_close(metric.value, value):
        return [contradicted(metric, f"is {metric.value:.6g}", f"{value:.6g}")]
    if metric.name not in MEANS or metric.ci95 is None:
        return []
    share = metric.name in SHARES
    around = wilson_interval(float(scores.sum()), len(scores)) if share else mean_interval(scores)
    if around is None:
        return []
    least, most = metric_name(metric.name).range
    low, high = max(around[0], least), min(around[1], most)
    slack = RELATIVE * max(abs(low), abs(high)) + 1e-12
    if metric.ci95[0] <= low + slack and metric.ci95[1] >= high - slack:
        return []
    stated = f"[{metric.ci95[0]:.6g}, {metric.ci95[1]:.6g}]"
    return [contradicted(metric, f"has the interval {stated}", f"[{low:.6g}, {high:.6g}]")]
