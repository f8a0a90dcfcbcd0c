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
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_matrix

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


@dataclass(frozen=True)
class Neighbours:
    """Nearest other points, ascending. squared: (n, count) squared distances. index: (n, count) positions."""

    squared: np.ndarray
    index: np.ndarray

    def radii(self, k: int) -> np.ndarray:
        """(n,) squared distance to the k-th nearest other point."""
        column: np.ndarray = self.squared[:, k - 1]
        return column


def nearest_neighbours(points: np.ndarray, count: int) -> Neighbours:
    """The ``count`` nearest other points of each of (n, d), n > count, in blocks."""
    n = len(points)
    squared, index = np.empty((n, count)), np.empty((n, count), dtype=np.int64)
    for part in blocks(n, _BLOCK):
        distances = squared_distances(points[part], points)
        np.fill_diagonal(distances[:, part], np.inf)
        found = torch.topk(torch.from_numpy(distances), count, dim=1, largest=False)
        squared[part], index[part] = found.values.numpy(), found.indices.numpy()
    return Neighbours(squared, index)


def _inside(squared: np.ndarray, radii: np.ndarray, inequality: Inequality) -> np.ndarray:
    inside: np.ndarray = squared <= radii if inequality == "<=" else squared < radii
    return inside


@dataclass(frozen=True)
class BallCounts:
    """Which queries (n,) lie in which balls (m,).

    holding: (n,) number of balls that hold each query. held: (m,) number of queries in each ball. only: (n,) number of
    balls that hold this query and no other.
    """

    holding: np.ndarray
    held: np.ndarray
    only: np.ndarray


def count_balls(queries: np.ndarray, centres: np.ndarray, radii: np.ndarray, inequality: Inequality) -> BallCounts:
    """Count in blocks of queries. ``radii`` are squared."""
    holding = np.zeros(len(queries), dtype=np.int64)
    held, last = np.zeros(len(centres), dtype=np.int64), np.zeros(len(centres), dtype=np.int64)
    for part in blocks(len(queries), _BLOCK):
        inside = _inside(squared_distances(queries[part], centres), radii, inequality)
        holding[part] = inside.sum(1)
        held += inside.sum(0)
        np.copyto(last, part.start + inside.argmax(0), where=inside.any(0))
    return BallCounts(holding, held, np.bincount(last[held == 1], minlength=len(queries)))


@dataclass(frozen=True)
class Reach:
    """Queries in balls around centres whose radii are the centres' own k-th neighbours.

    reached: (m,) whether each query is in a ball. lost: (n,) how many fewer queries are reached without each centre,
    negative where its absence widens the balls of others enough to reach more.
    """

    reached: np.ndarray
    lost: np.ndarray


def reach(queries: np.ndarray, centres: np.ndarray, near: Neighbours, k: int, inequality: Inequality) -> Reach:
    """`Reach` of queries (m, d) from centres (n, d), in blocks of queries; ``near`` holds at least k + 1 neighbours.

    Without centre i, a ball that had i among its k nearest reaches to the (k + 1)-th.
    """
    n = len(centres)
    rows = np.repeat(np.arange(n), k)
    neighbour_of = csr_matrix((np.ones(n * k), (rows, near.index[:, :k].ravel())), shape=(n, n))
    reached, lost = np.zeros(len(queries), dtype=bool), np.zeros(n)
    for part in blocks(len(queries), _BLOCK):
        squared = squared_distances(queries[part], centres)
        inside = _inside(squared, near.radii(k), inequality)
        holding = inside.sum(1)
        reached[part] = holding > 0
        rescued = (csr_matrix(_inside(squared, near.radii(k + 1), inequality)) @ neighbour_of).tocsr() > 0
        once = np.flatnonzero(holding == 1)
        owner = inside[once].argmax(1)
        owners = csr_matrix((np.ones(len(once)), (np.arange(len(once)), owner)), shape=(len(once), n))
        still = np.asarray(rescued[once].multiply(owners).sum(1)).ravel() > 0
        lost += np.bincount(owner[~still], minlength=n)
        lost -= np.asarray(rescued[holding == 0].sum(0)).ravel()
    return Reach(reached, lost)


def precision_recall_density_coverage(
    samples: np.ndarray, reference: np.ndarray, k: int, inequality: Inequality
) -> dict[str, float]:
    """All four figures of samples (n, d) against reference (m, d) with one k and one inequality."""
    balls = count_balls(samples, reference, nearest_neighbours(reference, k).radii(k), inequality)
    back = count_balls(reference, samples, nearest_neighbours(samples, k).radii(k), inequality)
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
    needs = frozenset({"features"})

    def __post_init__(self) -> None:
        require_count(self.name, "k", self.k)
        require_choice(self.name, "inequality", self.inequality, ("<=", "<"))

    def _pair(self, inputs: MetricInputs) -> FeaturePair:
        pair = feature_pair(inputs)
        pair = FeaturePair(pair.samples.astype(np.float64), pair.reference.astype(np.float64))
        for features, who in ((pair.samples, "samples"), (pair.reference, "reference images")):
            if len(features) < self.k + 2:
                raise NotApplicable(f"{len(features)} {who} are too few for k = {self.k} nearest neighbours")
        return pair

    def _shared_count(self, num_points: int) -> int:
        """How many neighbours to look for, so that one pass over the distances serves every small k."""
        return min(max(self.k + 1, _SHARED_NEIGHBOURS), num_points - 1)

    def _reference_balls(self, inputs: MetricInputs) -> BallCounts:
        """Samples in balls around reference points."""
        pair = self._pair(inputs)
        count = self._shared_count(len(pair.reference))
        nearest = inputs.of_reference(
            f"neighbours-v{self.version}-{count}", lambda: nearest_neighbours(pair.reference, count).squared
        )
        radii = nearest[:, self.k - 1]
        return inputs.shared(
            ("reference_balls", self.k, self.inequality),
            lambda: count_balls(pair.samples, pair.reference, radii, self.inequality),
        )


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
        """One estimate; the reference is held fixed, the samples' balls follow each sample left out."""
        pair = self._pair(inputs)
        near = nearest_neighbours(pair.samples, self._shared_count(len(pair.samples)))
        found = reach(pair.reference, pair.samples, near, self.k, self.inequality)
        return [_share_of_reference(found.reached, found.lost)]


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
        return [_share_of_reference(counts.held > 0, counts.only)]


def _share_of_reference(reached: np.ndarray, lost: np.ndarray) -> Estimate:
    """A share of reference points with the jackknife over samples; ``lost`` (n,) points go with each sample."""
    share = float(reached.mean())
    error = jackknife_error(share - lost / len(reached))
    low, high = normal_interval(share, error, low=0.0)
    return Estimate(
        value=share,
        n=len(lost),
        ci95=(low, min(high, 1.0)) if error > 0 else None,
        interval="jackknife over samples" if error > 0 else None,
        notes=() if error > 0 else ("no interval: leaving out any one sample changes nothing",),
        extra={"reference_images": len(reached)},
    )
