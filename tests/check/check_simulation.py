"""Another run of the same thing, from a record: values, scores and timing windows move by their recorded noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from genbench.check.collect import Entry
from genbench.check.speed import SPEED_METRICS, sides
from genbench.evaluation.uncertainty import metric_half_widths
from genbench.record import MetricResult, Timing, TimingWindow


def residuals(entries: Sequence[Entry]) -> np.ndarray:
    """Standardised residuals of the logarithms of all rows' repetitions, with the variance lost to their means.

    Three windows drawn with replacement are one window three times in every ninth row, so residuals of all rows are
    drawn in place of a row's own windows (B. Efron & R. J. Tibshirani, 1993, chapter 9).
    """
    found = []
    for metric in SPEED_METRICS:
        for entry in entries:
            logs, _ = _at_pace(entry, metric)
            found.append((logs - logs.mean()) / logs.std(ddof=1) * math.sqrt(len(logs) / (len(logs) - 1)))
    return np.concatenate(found)


def _at_pace(found: Entry, metric: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Logarithms of the repetitions' rates, at the machine's pace where it is known, and of the paces."""
    side = sides([found], [found], metric)
    return (side.rates[0], None) if side.paces is None else (side.rates[0] - side.paces[0], side.paces[0])


def another_run(
    found: Entry, rng: np.random.Generator, *, seed: int, fresh_images: bool, scatter: np.ndarray | None = None
) -> Entry:
    """The entry as another seed would have it; scatter: see `residuals`, by default windows are drawn as they are.

    Scores of test images move by the estimator's own noise alone (the images are the same), or with ``fresh_images``
    are drawn again with replacement; those of samples are drawn again; other values move by their interval.
    """
    scores: dict[str, np.ndarray] = {}
    metrics = []
    timing = _timing_again(found, rng, scatter)
    for metric in found.record.metrics:
        key = f"{metric.name}.{metric.estimator}"
        if metric.value is None or (metric.kind == "exact" and metric.ci95 is None):
            metrics.append(metric)
        elif metric.name in ("images_per_second", "latency_seconds"):
            metrics.append(_moved(metric, _median(timing, metric.name)))
        elif key in found.scores:
            scores[key] = _scores_again(metric, found.scores[key], rng, fresh_images)
            metrics.append(_moved(metric, float(scores[key][np.isfinite(scores[key])].mean())))
        else:
            around = metric_half_widths(metric)
            error = 0.0 if around is None else around.standard_error
            metrics.append(_moved(metric, metric.value + error * rng.normal()))
    record = found.record.model_copy(update={"metrics": metrics, "timing": timing, "seed": seed})
    return replace(found, record=record, scores=scores)


def slowed(found: Entry, loss: float) -> Entry:
    """The entry with every timing window ``loss`` (a share of the rate) slower."""
    timing = found.record.timing
    windows = [window.model_copy(update={"seconds": window.seconds / (1 - loss)}) for window in timing.windows]
    timing = timing.model_copy(update={"windows": windows})
    metrics = [
        _moved(metric, _median(timing, metric.name)) if metric.name == "images_per_second" else metric
        for metric in found.record.metrics
    ]
    return replace(found, record=found.record.model_copy(update={"metrics": metrics, "timing": timing}))


def _scores_again(metric: MetricResult, scores: np.ndarray, rng: np.random.Generator, fresh: bool) -> np.ndarray:
    if fresh or not metric.provenance.get("paired_by"):
        return rng.choice(scores, len(scores))
    error = float(metric.provenance["extra"].get("monte_carlo_error", 0.0))
    return scores + error * np.sqrt(len(scores)) * rng.normal(size=len(scores))


def _moved(metric: MetricResult, value: float) -> MetricResult:
    shift = value - metric.value
    ci95 = None if metric.ci95 is None else (metric.ci95[0] + shift, metric.ci95[1] + shift)
    return metric.model_copy(update={"value": value, "ci95": ci95})


def _timing_again(found: Entry, rng: np.random.Generator, scatter: np.ndarray | None) -> Timing:
    timing = found.record.timing
    made = {metric: _rates_again(*_at_pace(found, metric), rng, scatter) for metric in SPEED_METRICS}
    rates, paces = made["images_per_second"]
    windows = [
        TimingWindow(images=128, seconds=128 / rate, pace=pace)
        for rate, pace in zip(rates, [None] * len(rates) if paces is None else paces)
    ]
    rates, paces = made["latency_seconds"]
    single = {"latency_seconds": (1 / rates).tolist(), "latency_pace": None if paces is None else paces.tolist()}
    return timing.model_copy(update={"windows": windows} | single)


def _rates_again(
    logs: np.ndarray, paces: np.ndarray | None, rng: np.random.Generator, scatter: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    if scatter is None:
        drawn = rng.choice(logs, len(logs))
    else:
        drawn = logs.mean() + logs.std(ddof=1) * rng.choice(scatter, len(logs))
    if paces is None:
        return np.exp(drawn), None
    paces = rng.choice(paces, len(paces))
    return np.exp(drawn + paces), np.exp(paces)


def _median(timing: Timing, name: str) -> float:
    if name == "latency_seconds":
        return float(np.median(timing.latency_seconds))
    return float(np.median([window.images / window.seconds for window in timing.windows]))
