"""IS-infinity (Chong and Forsyth 2020): what the Inception Score of one split tends to, by `extrapolation` in 1 / N."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from genbench.metrics.base import Estimate, Metric, MetricInputs
from genbench.metrics.extrapolation import Extrapolation, Line
from genbench.metrics.frechet_interval import SamplingVariance
from genbench.metrics.inception_score import softmax_block
from genbench.metrics.statistics import blocks, normal_interval

_BLOCK = 2048


def nested_scores(logits: np.ndarray, order: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(k,) one-split Inception Scores of the first ``sizes`` (k,), rising, rows of ``logits[order]``, (n, classes)."""
    scores = np.empty(len(sizes))
    marginal, entropy, done = np.zeros(logits.shape[1]), 0.0, 0
    for i, size in enumerate(map(int, sizes)):
        for part in blocks(size - done, _BLOCK):
            p, entropies = softmax_block(logits[order[done:size][part]])
            marginal += p.sum(0)
            entropy += float(entropies.sum())
        done = size
        scores[i] = np.exp(entropy / size - xlogy(marginal / size, marginal / size).sum())
    return scores


def influences(logits: np.ndarray) -> np.ndarray:
    """(n,) influence of each image on the one-split score S: S (sum_c p log (p / p_mean) - log S)."""
    marginal, found = np.zeros(logits.shape[1]), np.empty(len(logits))
    for part in blocks(len(logits), _BLOCK):
        marginal += softmax_block(logits[part])[0].sum(0)
    log_marginal = np.log(np.maximum(marginal / len(logits), np.finfo(float).tiny))
    for part in blocks(len(logits), _BLOCK):
        p, entropies = softmax_block(logits[part])
        found[part] = entropies - p @ log_marginal
    log_score = found.mean()
    return np.exp(log_score) * (found - log_score)


@dataclass(frozen=True)
class InceptionScoreInfinity(Extrapolation, Metric):
    """The one-split Inception Score at infinitely many samples: IS without its downward bias from N."""

    name = "is_infinity"
    higher_is_better = True
    needs = frozenset({"logits"})
    summary = "Inception Score of one split, extrapolated to infinitely many samples"

    def __post_init__(self) -> None:
        self.check(self.name)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate. ``extra`` has the fit. The interval is for the score of the samples' distribution.

        Raises:
            NotApplicable: the extractor has no classes, or there are too few samples.
            DataError: NaN or infinite logits.
        """
        logits = inputs.samples.logits()
        n = len(logits)
        sizes = self.sizes(n)
        line = Line.through(sizes, nested_scores(logits, self.order(n), sizes))
        variance = SamplingVariance(n, n, jackknife=float(influences(logits).var(ddof=1)) / n)
        error = line.standard_error(variance)
        return [
            Estimate(
                value=line.intercept,
                n=n,
                ci95=normal_interval(line.intercept, error),
                interval="influence of each sample on the intercept",
                estimator=f"linear-in-1/N-{self.points}-sizes",
                standard_error=error,
                extra=line.extra(),
            )
        ]
