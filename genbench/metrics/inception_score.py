"""Inception Score (Salimans et al. 2016, sec. 4): exp E_x KL(p(y|x) || p(y)), averaged over splits of the samples.

Conventions of protocol ``tf1`` (torch-fidelity): 10 splits with bounds i N // 10, order permuted by
``RandomState(2020)``, softmax of logits without bias, float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, xlogy

from genbench.errors import DataError
from genbench.metrics.base import Estimate, Metric, MetricInputs, NotApplicable
from genbench.metrics.options import require_count
from genbench.metrics.statistics import jackknife_error, normal_interval

SHUFFLE_SEED = 2020


def split_score(probabilities: np.ndarray) -> float:
    """exp of the mean KL divergence between rows of (n, classes) and their mean."""
    entropy = xlogy(probabilities, probabilities).sum(1).mean()
    marginal = probabilities.mean(0)
    return float(np.exp(entropy - xlogy(marginal, marginal).sum()))


def left_out_scores(probabilities: np.ndarray) -> np.ndarray:
    """(n,) `split_score` without one row each; n >= 2."""
    n = len(probabilities)
    negative_entropy = xlogy(probabilities, probabilities).sum(1)
    marginal = np.clip((n * probabilities.mean(0) - probabilities) / (n - 1), 0.0, None)  # (n, classes)
    mean = (negative_entropy.sum() - negative_entropy) / (n - 1)
    scores: np.ndarray = np.exp(mean - xlogy(marginal, marginal).sum(1))
    return scores


def inception_score(logits: np.ndarray, splits: int = 10, seed: int = SHUFFLE_SEED) -> tuple[np.ndarray, float]:
    """Scores of the splits (splits,) and the standard error of their mean (jackknife over images within splits).

    Args:
        logits: (N, classes), N >= 2 * splits.
        splits: number of splits.
        seed: seed of the permutation.
    """
    n = len(logits)
    order = np.random.RandomState(seed).permutation(n)
    scores, variance = np.empty(splits), 0.0
    for i in range(splits):
        rows = order[i * n // splits : (i + 1) * n // splits]
        probabilities = np.exp(log_softmax(logits[rows].astype(np.float64), axis=1))
        scores[i] = split_score(probabilities)
        variance += jackknife_error(left_out_scores(probabilities)) ** 2
    return scores, math.sqrt(variance) / splits


@dataclass(frozen=True)
class InceptionScore(Metric):
    """IS: high where each sample has a clear class and all classes occur; it never looks at real images."""

    splits: int = 10

    name = "inception_score"
    higher_is_better = True
    needs = frozenset({"logits"})
    summary = "exp of the mutual information between samples and the extractor's classes, over 10 splits"

    def __post_init__(self) -> None:
        require_count(self.name, "splits", self.splits)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate. The spread over splits, as other tools print it, is ``extra["std_over_splits"]``.

        Raises:
            NotApplicable: the extractor has no classes, or there are fewer than two samples a split.
        """
        logits = inputs.samples.features().logits
        if logits is None:
            raise NotApplicable("this extractor gives no class probabilities")
        if not np.isfinite(logits).all():
            raise DataError("Class logits of the samples are NaN or infinite. Check the extractor's weights.")
        if len(logits) < 2 * self.splits:
            raise NotApplicable(f"{len(logits)} samples are fewer than 2 for each of {self.splits} splits")
        scores, error = inception_score(logits, self.splits)
        value = float(scores.mean())
        return [
            Estimate(
                value=value,
                n=len(logits),
                ci95=normal_interval(value, error, low=1.0),
                interval="jackknife over images within splits",
                estimator=f"mean-of-{self.splits}-splits",
                extra={"std_over_splits": float(scores.std()), "classes": logits.shape[1]},
            )
        ]
