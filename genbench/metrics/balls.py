"""Nearest neighbours, and which points lie in which balls: exact, as if every distance were computed in float64.

The balls of a set reach from each point to its k-th nearest other point; they cover the set's support. One pass over
the distances between samples and reference counts for several conventions (k, < or <=) at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from genbench.metrics.distances import Distances, Points, centre_of, round_up
from genbench.metrics.occupancy import FEW
from genbench.metrics.statistics import blocks

Inequality = Literal["<=", "<"]

_PART = 2**22
"""Most bounds looked at in one go."""
_OPEN_SHARE = 32
"""A float64 product is cheaper than float64 differences where more than one pair in so many is left open."""


class Convention(NamedTuple):
    """Balls reach to the k-th nearest other point; whether a point on the border is inside."""

    k: int
    inequality: Inequality


@dataclass(frozen=True)
class Neighbours:
    """Nearest other points, ascending. squared: (n, count) squared distances. index: (n, count) positions."""

    squared: np.ndarray
    index: np.ndarray

    @property
    def count(self) -> int:
        return self.squared.shape[1]

    def radii(self, k: int) -> np.ndarray:
        """(n,) squared distance to the k-th nearest other point."""
        column: np.ndarray = self.squared[:, k - 1]
        return column


def nearest_neighbours(points: np.ndarray, count: int) -> Neighbours:
    """The ``count`` nearest other points of each of (n, d), n > count; equal distances in order of position.

    Of equal rows only ``count`` + 1 are searched: the others have as many neighbours at distance 0.

    Raises:
        DataError: features so large that squared distances overflow.
    """
    everything = Points(points, centre_of(points))
    kept, crowd = _split_copies(everything.first, count)
    found = Neighbours(np.zeros((len(points), count)), np.empty((len(points), count), dtype=np.int64))
    if len(crowd):
        copies = np.argsort(everything.first[kept], kind="stable")
        start = np.searchsorted(everything.first[kept][copies], everything.first[crowd])
        found.index[crowd] = kept[copies[start[:, None] + np.arange(count)]]
        everything = Points(points[kept], everything.centre)
    distances = Distances(everything, everything)
    hard: list[np.ndarray] = []
    for block in distances.query_blocks():
        rows = np.arange(block.start, block.stop)
        hard.append(_search(distances, rows, distances.dtype, found, kept))
    remaining = np.concatenate(hard)
    size = max(1, _PART // len(everything))
    for part in blocks(len(remaining), size):
        _search(distances, remaining[part], np.float64, found, kept)
    return found


def _split_copies(first: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of rows with at most ``count`` equal rows before them, and those of the others."""
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(first), dtype=np.int64)
    rank[order] = np.arange(len(first)) - np.searchsorted(first[order], first[order])
    return np.flatnonzero(rank <= count), np.flatnonzero(rank > count)


def _search(distances: Distances, rows: np.ndarray, dtype: type, found: Neighbours, kept: np.ndarray) -> np.ndarray:
    """Fill in the neighbours of some queries; return those that float32 leaves too open.

    Each of the ``count`` lowest bounds gives an upper bound of its distance; no point whose lower bound exceeds the
    largest of these is among the nearest.
    """
    import torch  # its topk of rows is many times as fast as numpy's partition

    bounds = distances.lower(rows, dtype)
    bounds[np.arange(len(rows)), rows] = np.inf
    others = bounds.shape[1]
    hard = []
    for part in blocks(len(rows), max(1, _PART // others)):
        lower, queries = bounds[part], rows[part]
        lowest = torch.topk(torch.from_numpy(lower), found.count, dim=1, largest=False)
        upper = lowest.values.numpy() + distances.slack(queries[:, None], lowest.indices.numpy(), dtype)
        row, column = _where(lower <= round_up(upper.max(1), dtype)[:, None])
        if dtype is np.float32:
            too_open = np.bincount(row, minlength=len(queries)) > max(4 * found.count, others // _OPEN_SHARE)
            hard.append(queries[too_open])
            row, column = row[~too_open[row]], column[~too_open[row]]
        _keep_nearest(distances, queries[row], column, found, kept)
    return np.concatenate(hard) if hard else rows[:0]


def _keep_nearest(
    distances: Distances, queries: np.ndarray, column: np.ndarray, found: Neighbours, kept: np.ndarray
) -> None:
    """Order candidates, pairs (p,) grouped by query, by their exact distance."""
    squared = distances.exact(queries, column)
    order = np.lexsort((column, squared, queries))
    asked, start = np.unique(queries, return_index=True)
    take = order[start[:, None] + np.arange(found.count)]
    found.squared[kept[asked]] = squared[take]
    found.index[kept[asked]] = kept[column[take]]


def _where(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (p,) where a mask (b, m) is true, in order of rows."""
    row, column = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return row, column


@dataclass
class BallCounts:
    """Who lies in whose balls, under one convention.

    holding: (n,) number of reference balls that hold each sample. held: (m,) number of samples in each reference ball.
    held_members: (m, FEW) their positions, ascending, where they are few. reaching, reaching_members: (m,), (m, FEW)
    number and positions of the samples whose balls hold each reference point. lost: (n,) how many fewer reference
    points are in some ball without each sample, negative where its absence widens the balls of others enough to reach
    more; None where without one there are only k left. empty_of_samples, empty_of_reference: number of balls with
    radius 0.
    """

    holding: np.ndarray
    held: np.ndarray
    held_members: np.ndarray
    reaching: np.ndarray
    reaching_members: np.ndarray
    lost: np.ndarray | None
    empty_of_samples: int
    empty_of_reference: int


def count_balls(
    samples: np.ndarray,
    reference: np.ndarray,
    of_samples: Neighbours,
    of_reference: np.ndarray,
    conventions: Sequence[Convention],
) -> dict[Convention, BallCounts]:
    """`BallCounts` of samples (n, d) and reference (m, d) by convention, in one pass over their distances.

    of_samples: the samples' nearest neighbours among themselves, at least as many as the largest k. of_reference:
    (m, count) squared distances from reference points to their nearest others, likewise.

    Raises:
        DataError: features so large that squared distances overflow.
    """
    centre = centre_of(samples, reference)
    distances = Distances(Points(reference, centre), Points(samples, centre))
    counts = {c: _no_counts(of_samples, of_reference, c.k) for c in conventions}
    deepest = max(c.k for c in conventions)
    held_within = round_up(of_reference[:, deepest - 1], distances.dtype)
    reached_within = round_up(of_samples.radii(min(deepest + 1, of_samples.count)), distances.dtype)
    for block in distances.query_blocks():
        bounds = distances.lower(block, distances.dtype)
        for part in blocks(len(bounds), max(1, _PART // len(samples))):
            rows = np.arange(block.start + part.start, block.start + part.stop)
            held = _pairs_within(bounds[part], held_within[rows, None], rows)
            _resolve(distances, held, [of_reference[held.reference, c.k - 1] for c in conventions])
            reaching = _pairs_within(bounds[part], reached_within, rows)
            depths = _depths(conventions, of_samples)
            _resolve(distances, reaching, [of_samples.radii(k)[reaching.sample] for k in depths])
            for convention, count in counts.items():
                _count_held(count, held, rows, of_reference[:, convention.k - 1], convention)
                _count_reached(count, reaching, rows, of_samples, convention)
    return counts


def _no_counts(of_samples: Neighbours, of_reference: np.ndarray, k: int) -> BallCounts:
    n, m = len(of_samples.squared), len(of_reference)
    return BallCounts(
        holding=np.zeros(n, dtype=np.int64),
        held=np.zeros(m, dtype=np.int64),
        held_members=np.zeros((m, FEW), dtype=np.int64),
        reaching=np.zeros(m, dtype=np.int64),
        reaching_members=np.zeros((m, FEW), dtype=np.int64),
        lost=np.zeros(n, dtype=np.int64) if of_samples.count > k else None,
        empty_of_samples=int((of_samples.radii(k) == 0).sum()),
        empty_of_reference=int((of_reference[:, k - 1] == 0).sum()),
    )


def _depths(conventions: Sequence[Convention], near: Neighbours) -> set[int]:
    """Which neighbours' radii matter: the k-th, and the next, to which a ball grows when one goes."""
    return {depth for c in conventions for depth in (c.k, c.k + 1) if depth <= near.count}


@dataclass
class _Pairs:
    """Positions (p,) of pairs, and values that compare with radii as their squared distances do."""

    reference: np.ndarray
    sample: np.ndarray
    value: np.ndarray

    def inside(self, radii: np.ndarray, inequality: Inequality) -> np.ndarray:
        """(p,) whether each lies within its radius."""
        found: np.ndarray = self.value <= radii if inequality == "<=" else self.value < radii
        return found


def _pairs_within(bounds: np.ndarray, limit: np.ndarray, rows: np.ndarray) -> _Pairs:
    row, sample = _where(bounds <= limit)
    return _Pairs(rows[row], sample, bounds[row, sample].astype(np.float64))


def _resolve(distances: Distances, pairs: _Pairs, radii: Sequence[np.ndarray]) -> None:
    """Put exact distances in place of the lower bounds that leave open whether a pair is within one of its radii."""
    left = _open(distances, pairs, radii, distances.dtype)
    rows, row = np.unique(pairs.reference[left], return_inverse=True)
    if distances.dtype is np.float32 and len(left) * _OPEN_SHARE > len(rows) * len(distances.centres):
        pairs.value[left] = distances.lower(rows, np.float64)[row, pairs.sample[left]]
        sharper = _Pairs(pairs.reference[left], pairs.sample[left], pairs.value[left])
        left = left[_open(distances, sharper, [radius[left] for radius in radii], np.float64)]
    pairs.value[left] = distances.exact(pairs.reference[left], pairs.sample[left])


def _open(distances: Distances, pairs: _Pairs, radii: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    upper = pairs.value + distances.slack(pairs.reference, pairs.sample, dtype)
    unclear = np.zeros(len(upper), dtype=bool)
    for radius in radii:
        unclear |= (pairs.value <= radius) & (upper >= radius)
    return np.flatnonzero(unclear)


def _count_held(count: BallCounts, pairs: _Pairs, rows: np.ndarray, radii: np.ndarray, convention: Convention) -> None:
    inside = pairs.inside(radii[pairs.reference], convention.inequality)
    row, sample = pairs.reference[inside] - rows[0], pairs.sample[inside]
    count.holding += np.bincount(sample, minlength=len(count.holding))
    count.held[rows], count.held_members[rows] = _members(row, sample, len(rows))


def _members(row: np.ndarray, sample: np.ndarray, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Of pairs (p,) in order of rows: how many each row has, and the first FEW of them, padded with 0."""
    number = np.bincount(row, minlength=num_rows)
    rank = np.arange(len(row)) - (np.cumsum(number) - number)[row]
    members = np.zeros((num_rows, FEW), dtype=np.int64)
    members[row[rank < FEW], rank[rank < FEW]] = sample[rank < FEW]
    return number, members


def _count_reached(
    count: BallCounts, pairs: _Pairs, rows: np.ndarray, near: Neighbours, convention: Convention
) -> None:
    """Which reference points are reached, and which would be lost or won without each sample.

    Without sample i, a ball that had i among its k nearest reaches to the (k + 1)-th: it may rescue a point that only
    i's own ball held, or win one that no ball held.
    """
    k, n = convention.k, len(count.holding)
    inside = pairs.inside(near.radii(k)[pairs.sample], convention.inequality)
    row = pairs.reference - rows[0]
    reaching, count.reaching_members[rows] = _members(row[inside], pairs.sample[inside], len(rows))
    count.reaching[rows] = reaching
    if count.lost is None:
        return
    wider = (reaching[row] <= 1) & pairs.inside(near.radii(k + 1)[pairs.sample], convention.inequality)
    rescuers = np.unique((row[wider] * n)[:, None] + near.index[pairs.sample[wider], :k])
    won = reaching[rescuers // n] == 0
    count.lost -= np.bincount(rescuers[won] % n, minlength=n)
    once = inside & (reaching[row] == 1)
    owner = pairs.sample[once]
    count.lost += np.bincount(owner[~np.isin(row[once] * n + owner, rescuers)], minlength=n)
