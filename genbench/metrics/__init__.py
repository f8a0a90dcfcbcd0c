"""Metrics: pure functions of arrays, and `Metric` subclasses that give them intervals and a name.

Found through the entry-point group ``genbench.metrics``; `score` runs a list of them.
"""

from genbench.metrics.base import (
    Estimate,
    ImageLikelihoods,
    ImageText,
    Metric,
    MetricInputs,
    NotApplicable,
    PairMetric,
    Side,
)
from genbench.metrics.frechet_stream import FrechetStream
from genbench.metrics.scoring import load_metric, score

__all__ = [
    "Estimate",
    "FrechetStream",
    "ImageLikelihoods",
    "ImageText",
    "Metric",
    "MetricInputs",
    "NotApplicable",
    "PairMetric",
    "Side",
    "load_metric",
    "score",
]
