"""Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), by nearest neighbours.

A set's support is estimated by balls around its points that reach to the k-th nearest other point. Defaults are those
of protocol ``tf1``: precision and recall with k = 3 and distance <= radius (the original code, torch-fidelity, ADM's
evaluator, whose distances are float16), density and coverage with k = 5 and distance < radius (prdc). dgm-eval takes
k = 5 and < for all four, on 10 000 images a side.

precision: share of samples inside a ball of the reference. recall: share of reference points inside a ball of the
samples. density: balls of the reference that hold a sample, divided by k, averaged over samples. coverage: share of
the reference's balls that hold a sample. Distances are float64, so that the tools agree wherever their rounding does
not decide.

Intervals hold the reference and its balls fixed. The samples' balls are never drawn again with replacement, which would
shrink them to nothing; where they matter (recall) each sample is left out in turn, and its neighbours' balls widen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from genbench.metrics.balls import BallCounts, Convention, Inequality, Neighbours, count_balls, nearest_neighbours
from genbench.metrics.base import Estimate, Metric, MetricInputs, NotApplicable
from genbench.metrics.estimates import mean_estimate, share_estimate
from genbench.metrics.feature_pair import FeaturePair, feature_pair
from genbench.metrics.occupancy import higher_order_share
from genbench.metrics.options import require_choice, require_count
from genbench.metrics.statistics import jackknife_error, normal_interval

_COMMON = (Convention(3, "<="), Convention(5, "<"))
"""Counted together, since most ask for both."""
_SHARED_NEIGHBOURS = 8


@dataclass(frozen=True)
class NeighbourMetric(Metric):
    """What metrics of nearest neighbours have in common: distances are computed once for all of them."""

    k: int = 3
    inequality: Inequality = "<="

    version = 2
    higher_is_better = True
    needs = frozenset({"features"})

    def __post_init__(self) -> None:
        require_count(self.name, "k", self.k)
        require_choice(self.name, "inequality", self.inequality, ("<=", "<"))

    def counts(self, inputs: MetricInputs) -> BallCounts:
        """Who lies in whose balls.

        Raises:
            NotApplicable: no features, or fewer than k + 1 on a side.
            DataError: as `feature_pair`, or features so large that squared distances overflow.
        """
        pair = feature_pair(inputs)
        for features, who in ((pair.samples, "samples"), (pair.reference, inputs.reference.who)):
            if len(features) <= self.k:
                raise NotApplicable(
                    f"{len(features)} {who} are too few: k = {self.k} nearest others of each need at least {self.k + 1}"
                )
        known: dict[Convention, BallCounts] = inputs.shared("ball counts", dict)
        own = Convention(self.k, self.inequality)
        if own not in known:
            fewest = min(len(pair.samples), len(pair.reference))
            wanted = {own, *(c for c in _COMMON if c.k < fewest)} - known.keys()
            deepest = max(c.k for c in wanted)
            of_samples, of_reference = _sample_neighbours(inputs, pair, deepest), _radii(inputs, pair, deepest)
            known.update(count_balls(pair.samples, pair.reference, of_samples, of_reference, sorted(wanted)))
        return known[own]

    def empty_balls(self, empty: int, who: str) -> tuple[str, ...]:
        """A warning where some balls have no extent."""
        if not empty:
            return ()
        return (f"{empty} of the {who} have {self.k} or more duplicates: their balls have radius 0",)


def _neighbour_count(deepest: int, num_points: int) -> int:
    """How many neighbours to look for, so that one search serves every small k, and the jackknife its k + 1."""
    return min(max(deepest + 1, _SHARED_NEIGHBOURS), num_points - 1)


def _sample_neighbours(inputs: MetricInputs, pair: FeaturePair, deepest: int) -> Neighbours:
    count = _neighbour_count(deepest, len(pair.samples))
    return inputs.shared(("sample neighbours", count), lambda: nearest_neighbours(pair.samples, count))


def _radii(inputs: MetricInputs, pair: FeaturePair, deepest: int) -> np.ndarray:
    """(m, count) squared distances from reference points to their nearest others, kept with the reference."""
    count = _neighbour_count(deepest, len(pair.reference))
    return inputs.of_reference(
        f"neighbours-v{NeighbourMetric.version}-{count}", lambda: nearest_neighbours(pair.reference, count).squared
    )


class Precision(NeighbourMetric):
    """Share of samples that lie in the reference's support: fidelity."""

    name = "precision"
    summary = "share of samples within the k-nearest-neighbour balls of the reference"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; the reference, and so its balls, are held fixed."""
        counts = self.counts(inputs)
        inside = (counts.holding > 0).astype(np.float64)
        notes = self.empty_balls(counts.empty_of_reference, inputs.reference.who)
        return [share_estimate(inside, interval="Wilson over samples", estimator="plug-in", notes=notes)]


class Recall(NeighbourMetric):
    """Share of the reference that lies in the samples' support: diversity."""

    name = "recall"
    summary = "share of the reference within the k-nearest-neighbour balls of the samples"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; the reference is held fixed, the samples' balls follow each sample left out."""
        counts = self.counts(inputs)
        notes = self.empty_balls(counts.empty_of_samples, inputs.samples.who)
        value = float((counts.reaching > 0).mean())
        return [estimate_share(value, recall_error(counts), counts, "corrected jackknife over samples", notes)]


@dataclass(frozen=True)
class Density(NeighbourMetric):
    """How many reference balls hold a sample, relative to k: fidelity, with outliers of the reference counting less."""

    k: int = 5
    inequality: Inequality = "<"

    name = "density"
    summary = "the reference's k-nearest-neighbour balls that hold a sample, divided by k"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; the reference, and so its balls, are held fixed."""
        counts = self.counts(inputs)
        share = counts.holding / self.k
        notes = self.empty_balls(counts.empty_of_reference, inputs.reference.who)
        return [mean_estimate(share, interval="normal over samples", estimator="plug-in", notes=notes)]


@dataclass(frozen=True)
class Coverage(NeighbourMetric):
    """Share of the reference's balls that hold a sample: diversity."""

    k: int = 5
    inequality: Inequality = "<"

    name = "coverage"
    summary = "share of the reference's k-nearest-neighbour balls that hold a sample"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; the reference, and so its balls, are held fixed."""
        counts = self.counts(inputs)
        notes = self.empty_balls(counts.empty_of_reference, inputs.reference.who)
        value = float((counts.held > 0).mean())
        return [estimate_share(value, coverage_error(counts), counts, "corrected jackknife over samples", notes)]


def recall_error(counts: BallCounts) -> float:
    """Standard error of recall; 0 where no one sample matters.

    The jackknife over samples, whose balls follow each sample left out, times the share of it that is no excess of
    higher orders (`genbench.metrics.occupancy`, with the balls fixed). Above a recall of 0.9 it remains up to 1.4 times
    too wide.
    """
    if counts.lost is None:
        return 0.0
    share = higher_order_share(counts.reaching, counts.reaching_members, len(counts.holding))
    return jackknife_error(counts.lost / len(counts.reaching)) * math.sqrt(share)


def coverage_error(counts: BallCounts) -> float:
    """Standard error of coverage, with the reference's balls fixed; 0 where no one sample matters."""
    alone = counts.held_members[counts.held == 1, 0]
    lost = np.bincount(alone, minlength=len(counts.holding)) / len(counts.held)
    return jackknife_error(lost) * math.sqrt(higher_order_share(counts.held, counts.held_members, len(counts.holding)))


def estimate_share(
    value: float, error: float, counts: BallCounts, interval: str, notes: tuple[str, ...], **extra: Any
) -> Estimate:
    """An estimate of a share with a normal interval within [0, 1], or none and a note where ``error`` is 0."""
    if error == 0.0:
        notes = (*notes, "no interval: leaving out any one sample changes nothing, or leaves too few neighbours")
    low, high = normal_interval(value, error, low=0.0)
    return Estimate(
        value=value,
        n=len(counts.holding),
        ci95=(low, min(high, 1.0)) if error > 0.0 else None,
        interval=interval if error > 0.0 else None,
        standard_error=error if error > 0.0 else None,
        notes=notes,
        extra={"reference_images": len(counts.held), **extra},
    )
