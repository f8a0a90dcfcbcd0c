"""F1 of precision and recall: their harmonic mean, so that fidelity cannot be bought with diversity."""

from __future__ import annotations

import math

import numpy as np

from genbench.metrics.balls import BallCounts
from genbench.metrics.base import Estimate, MetricInputs
from genbench.metrics.neighbours import NeighbourMetric, estimate_share, recall_error


class F1(NeighbourMetric):
    """Harmonic mean of precision and recall (torch-fidelity's f_score)."""

    name = "f1"
    summary = "harmonic mean of precision and recall"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; the reference is held fixed."""
        counts = self.counts(inputs)
        precision, recall = float((counts.holding > 0).mean()), float((counts.reaching > 0).mean())
        both = precision + recall
        value = 2.0 * precision * recall / both if both > 0 else 0.0
        notes = (
            *self.empty_balls(counts.empty_of_samples, inputs.samples.who),
            *self.empty_balls(counts.empty_of_reference, inputs.reference.who),
        )
        error = _error(counts, precision, recall)
        method = "delta method over precision and the corrected jackknife of recall"
        return [estimate_share(value, error, counts, method, notes, precision=precision, recall=recall)]


def _error(counts: BallCounts, precision: float, recall: float) -> float:
    """Standard error by the delta method.

    Precision is a mean over samples, so that its covariance with recall is of first order alone, where the jackknife
    needs no correction.
    """
    both, n = precision + recall, len(counts.holding)
    if counts.lost is None or both == 0.0:
        return 0.0
    by_precision, by_recall = 2.0 * (recall / both) ** 2, 2.0 * (precision / both) ** 2
    inside, lost = (counts.holding > 0).astype(np.float64), counts.lost / len(counts.reaching)
    covariance = float(((inside - precision) * (lost - lost.mean())).sum()) / n
    variance = (
        by_precision**2 * precision * (1.0 - precision) / (n - 1)
        + 2.0 * by_precision * by_recall * covariance
        + by_recall**2 * recall_error(counts) ** 2
    )
    return math.sqrt(max(variance, 0.0))
