"""Metrics: pure functions of arrays, and `Metric` subclasses that give them intervals and a name.

Found through the entry-point group ``genbench.metrics``; `score` runs a list of them.
"""

from typing import TYPE_CHECKING

from genbench.lazy import lazy as _lazy

if TYPE_CHECKING:
    from genbench.metrics.base import Estimate as Estimate
    from genbench.metrics.base import ImageLikelihoods as ImageLikelihoods
    from genbench.metrics.base import ImageText as ImageText
    from genbench.metrics.base import Metric as Metric
    from genbench.metrics.base import MetricInputs as MetricInputs
    from genbench.metrics.base import NotApplicable as NotApplicable
    from genbench.metrics.base import PairMetric as PairMetric
    from genbench.metrics.base import Side as Side
    from genbench.metrics.frechet_stream import FrechetStream as FrechetStream
    from genbench.metrics.scoring import load_metric as load_metric
    from genbench.metrics.scoring import score as score

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

if not TYPE_CHECKING:
    __getattr__, __dir__ = _lazy(
        __name__,
        {
            **dict.fromkeys(__all__, "genbench.metrics.base"),
            "FrechetStream": "genbench.metrics.frechet_stream",
            "load_metric": "genbench.metrics.scoring",
            "score": "genbench.metrics.scoring",
        },
    )
