"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), by nearest neighbours.

A set's support is estimated by balls around its points that reach to the k-th nearest other point. Conventions of
protocol ``tf1``: precision and recall with k = 3 and distance <= radius (the original code and ADM), density and
coverage with k = 5 and distance < radius (prdc).

precision: share of samples inside a ball of the reference. recall: share of reference points inside a ball of the
samples. density: balls of the reference that hold a sample, divided by k, averaged over samples. coverage: share of
the reference's balls that hold a sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from genbench.metrics.base import Estimate, Metric, MetricInputs, NotApplicable
from genbench.metrics.feature_pair import FeaturePair, feature_pair
from genbench.metrics.options import require_choice, require_count
from genbench.metrics.statistics import blocks, jackknife_error, mean_interval, normal_interval, wilson_interval

Inequality = Literal["<=", "<"]

_BLOCK = 1024
_SHARED_NEIGHBOURS = 8


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n, d) and (m, d) to (n, m) squared Euclidean distances, never negative."""
    product = x @ y.T
    product *= -2.0
    product += np.square(x).sum(1)[:, None]
    product += np.square(y).sum(1)
    return np.maximum(product, 0.0, out=product)


def neighbour_distances(points: np.ndarray, count: int) -> np.ndarray:
    """(n, count) squared distances from each point of (n, d) to its nearest other points, ascending, in blocks.

    With n <= count the missing neighbours are infinitely far.
    """
    n = len(points)
    nearest = np.full((n, count), np.inf)
    kept = min(count, n - 1)
    for part in blocks(n, _BLOCK):
        distances = squared_distances(points[part], points)
        np.fill_diagonal(distances[:, part], np.inf)
        nearest[part, :kept] = np.sort(np.partition(distances, kept - 1, axis=1)[:, :kept], axis=1)
    return nearest


@dataclass(frozen=True)
class BallCounts:
    """Who lies in whose balls, queries q (n,) against balls b (m,).

    holding: (n,) number of balls that hold each query. held: (m,) number of queries in each ball. only: (n,) number of
    balls that hold this query and no other. alone: (m,) number of queries that lie in this ball and no other.
    """

    holding: np.ndarray
    held: np.ndarray
    only: np.ndarray
    alone: np.ndarray


def count_balls(queries: np.ndarray, centres: np.ndarray, radii: np.ndarray, inequality: Inequality) -> BallCounts:
    """Count in blocks of queries. ``radii`` are squared."""
    holding = np.zeros(len(queries), dtype=np.int64)
    held, alone = np.zeros(len(centres), dtype=np.int64), np.zeros(len(centres), dtype=np.int64)
    last = np.zeros(len(centres), dtype=np.int64)
    for part in blocks(len(queries), _BLOCK):
        distances = squared_distances(queries[part], centres)
        inside = distances <= radii if inequality == "<=" else distances < radii
        holding[part] = inside.sum(1)
        held += inside.sum(0)
        alone += inside[holding[part] == 1].sum(0)
        np.copyto(last, part.start + inside.argmax(0), where=inside.any(0))
    only = np.bincount(last[held == 1], minlength=len(queries))
    return BallCounts(holding, held, only, alone)


def precision_recall_density_coverage(
    samples: np.ndarray, reference: np.ndarray, k: int, inequality: Inequality
) -> dict[str, float]:
    """All four figures of samples (n, d) against reference (m, d) with one k and one inequality."""
    balls = count_balls(samples, reference, neighbour_distances(reference, k)[:, k - 1], inequality)
    back = count_balls(reference, samples, neighbour_distances(samples, k)[:, k - 1], inequality)
    return {
        "precision": float((balls.holding > 0).mean()),
        "recall": float((back.holding > 0).mean()),
        "density": float(balls.holding.mean()) / k,
        "coverage": float((balls.held > 0).mean()),
    }


@dataclass(frozen=True)
class _Neighbours(Metric):
    """What the four have in common: distances are computed once for equal k and inequality."""

    k: int = 3
    inequality: Inequality = "<="

    higher_is_better = True
    uses_extractor = True

    def __post_init__(self) -> None:
        require_count(self.name, "k", self.k)
        require_choice(self.name, "inequality", self.inequality, ("<=", "<"))

    def _pair(self, inputs: MetricInputs) -> FeaturePair:
        pair = feature_pair(inputs)
        for features, who in ((pair.samples, "samples"), (pair.reference, "reference images")):
            if len(features) <= self.k:
                raise NotApplicable(f"{len(features)} {who} have no {self.k}-th nearest neighbour")
        return pair

    def _reference_balls(self, inputs: MetricInputs) -> BallCounts:
        """Samples in balls around reference points."""
        pair = self._pair(inputs)
        radii = self._radii(inputs, "reference", pair.reference)
        return inputs.shared(
            ("reference_balls", self.k, self.inequality),
            lambda: count_balls(pair.samples, pair.reference, radii, self.inequality),
        )

    def _sample_balls(self, inputs: MetricInputs) -> BallCounts:
        """Reference points in balls around samples."""
        pair = self._pair(inputs)
        radii = self._radii(inputs, "samples", pair.samples)
        return inputs.shared(
            ("sample_balls", self.k, self.inequality),
            lambda: count_balls(pair.reference, pair.samples, radii, self.inequality),
        )

    def _radii(self, inputs: MetricInputs, side: str, features: np.ndarray) -> np.ndarray:
        """Squared radii (n,); one pass over the distances serves every small k."""
        count = max(self.k, _SHARED_NEIGHBOURS)
        nearest = inputs.shared(("neighbours", side, count), lambda: neighbour_distances(features, count))
        radii: np.ndarray = nearest[:, self.k - 1]
        return radii


class Precision(_Neighbours):
    """Share of samples that lie in the reference's support: fidelity."""

    name = "precision"
    summary = "share of samples within the k-nearest-neighbour balls of the training images"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; the reference, and so its balls, are held fixed."""
        inside = (self._reference_balls(inputs).holding > 0).astype(np.float64)
        return [
            Estimate(
                value=float(inside.mean()),
                n=len(inside),
                ci95=wilson_interval(float(inside.sum()), len(inside)),
                interval="Wilson over samples",
                per_image=inside,
            )
        ]


class Recall(_Neighbours):
    """Share of the reference that lies in the samples' support: diversity."""

    name = "recall"
    summary = "share of training images within the k-nearest-neighbour balls of the samples"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; its interval leaves samples out with the radii of the others held fixed."""
        counts = self._sample_balls(inputs)
        return [_share_of_reference(counts.holding > 0, counts.alone, "jackknife over samples, radii held fixed")]


@dataclass(frozen=True)
class Density(_Neighbours):
    """How many reference balls hold a sample, relative to k: fidelity, with outliers of the reference counting less."""

    k: int = 5
    inequality: Inequality = "<"

    name = "density"
    summary = "training images' k-nearest-neighbour balls that hold a sample, divided by k"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; the reference, and so its balls, are held fixed."""
        share = self._reference_balls(inputs).holding / self.k
        return [
            Estimate(
                value=float(share.mean()),
                n=len(share),
                ci95=mean_interval(share),
                interval="normal over samples",
                per_image=share,
            )
        ]


@dataclass(frozen=True)
class Coverage(_Neighbours):
    """Share of the reference's balls that hold a sample: diversity."""

    k: int = 5
    inequality: Inequality = "<"

    name = "coverage"
    summary = "share of the training images' k-nearest-neighbour balls that hold a sample"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; the reference, and so its balls, are held fixed."""
        counts = self._reference_balls(inputs)
        return [_share_of_reference(counts.held > 0, counts.only, "jackknife over samples, reference balls fixed")]


def _share_of_reference(reached: np.ndarray, lost: np.ndarray, interval: str) -> Estimate:
    """A share of reference points with the jackknife over samples; ``lost`` (n,) points go with each sample."""
    share = float(reached.mean())
    error = jackknife_error(share - lost / len(reached))
    low, high = normal_interval(share, error, low=0.0)
    extra: dict[str, Any] = {"reference_images": len(reached)}
    return Estimate(share, len(lost), (low, min(high, 1.0)), interval, extra=extra)
