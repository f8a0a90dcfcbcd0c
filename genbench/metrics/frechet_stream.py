"""The Fréchet distance of a stream of features of any length, in memory that does not grow.

    stream = FrechetStream(2048)
    for batch in batches:
        stream.update(features_of(batch))
    print(stream.compute(reference))

A stream holds mean and scatter (d, d) in float64 and `INTERVAL_ROWS` of the rows it has seen, for the interval: those
whose hashes are lowest. Which these are depends neither on order nor on how the stream was cut into parts, so that
merged parts equal the whole. Copies of a row share its hash: they are kept together or not at all, so that the interval
of a stream with many copies is rougher than its value.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np

from genbench.errors import DataError
from genbench.features.base import Features
from genbench.metrics.base import Estimate, Side
from genbench.metrics.frechet import Measured, fitted_side
from genbench.metrics.frechet_interval import INTERVAL_ROWS
from genbench.metrics.moments import Moments
from genbench.metrics.statistics import blocks

_BLOCK = 1024
_KEY_SEED = 2020
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class FrechetStream:
    """Features of width d that stream by.

    Attributes:
        moments: count, mean and scatter of all features so far.
        rows: (k, d) as they came, up to `INTERVAL_ROWS` drawn at random; all of them while there are no more.
    """

    def __init__(self, width: int) -> None:
        self.moments = Moments.empty(width)
        self.rows = np.zeros((0, width), dtype=np.float32)
        self._keys = np.zeros(0, dtype=np.uint64)

    @property
    def count(self) -> int:
        """Number of features so far."""
        return self.moments.count or 0

    def update(self, features: np.ndarray) -> None:
        """Add features (n, d).

        Raises:
            DataError: another width, or NaN or infinite features.
        """
        features = np.asarray(features)
        if not np.issubdtype(features.dtype, np.floating):
            features = features.astype(np.float64)
        if features.ndim != 2 or features.shape[1] != self.moments.width:
            raise DataError(f"Features have shape {features.shape}, expected (n, {self.moments.width}).")
        if not np.isfinite(features).all():
            raise DataError("Features are NaN or infinite. Check the images and the extractor's weights.")
        self.moments.update(features)
        for part in blocks(len(features), _BLOCK):
            self._keep(features[part], row_keys(features[part].astype(np.float32)))

    def merge(self, other: FrechetStream) -> None:
        """Add what ``other`` has seen.

        Raises:
            DataError: unlike widths.
        """
        self.moments.merge(other.moments)
        self._keep(other.rows, other._keys)

    def copy(self) -> FrechetStream:
        """A stream of its own that has seen the same."""
        return deepcopy(self)

    def side(self, who: str = "samples") -> Side:
        """What metrics see: the moments and the rows kept; the features themselves while all of them are kept."""
        if self.count == len(self.rows) <= self.moments.width:
            return Side.of(who, Features(self.rows))
        return Side(who, self.count, given_moments=self.moments, sampled_features=self.rows)

    def compute(self, reference: FrechetStream | Side) -> Estimate:
        """The distance to ``reference`` with its interval.

        Raises:
            DataError: fewer than two features on either side, or unlike widths.
        """
        other = reference.side("reference images") if isinstance(reference, FrechetStream) else reference
        return Measured.of(fitted_side(self.side()), fitted_side(other)).estimate()

    def _keep(self, rows: np.ndarray, keys: np.ndarray) -> None:
        if len(self._keys) == INTERVAL_ROWS:
            low = keys < self._keys[-1]
            rows, keys = rows[low], keys[low]
        if len(keys) == 0:
            return
        joined = np.concatenate([self._keys, keys])
        chosen = np.argsort(joined, kind="stable")[:INTERVAL_ROWS]
        self.rows, self._keys = np.concatenate([self.rows, rows])[chosen], joined[chosen]


def row_keys(rows: np.ndarray) -> np.ndarray:
    """(n,) uint64 hashes of the bytes of float32 rows (n, d); 0 and -0 count as equal."""
    words = (rows + np.float32(0.0)).view(np.uint32).astype(np.uint64)
    factors = np.random.RandomState(_KEY_SEED).randint(0, 2**63, words.shape[1], dtype=np.uint64) | np.uint64(1)
    keys = (words * factors).sum(1, dtype=np.uint64)
    for factor in _MIX:
        keys = (keys ^ (keys >> np.uint64(31))) * factor
    mixed: np.ndarray = keys ^ (keys >> np.uint64(31))
    return mixed
