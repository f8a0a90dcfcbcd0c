"""Squared Euclidean distances: searched by matrix products in float32, decided in float64.

A block of |x|^2 + |y|^2 - 2 <x, y>, features taken around a common centre, costs one matrix product. With unit roundoff
u and gamma = d u / (1 - d u), whatever the order of summation (Higham 2002, sections 3.1 and 3.5),

    |computed - exact| <= kappa (|x|^2 + |y|^2),  kappa = gamma + 16 u + 5 (d + 2) 2^-53,

where 16 u covers the rounding of centred features and the sum of three terms, and the last part the norms and the
distance that decides, both float64. That distance is the sum of squared differences: 0 for duplicates, and the same
from x to y as from y to x, so that ties are ties.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from genbench.errors import DataError
from genbench.metrics.statistics import blocks

_BLOCK = 2**25
"""Most bounds in one block: 128 MiB in float32."""
_PANEL = 2**23
"""Most features converted at once."""
_DIFFERENCES = 2**20
"""Most differences held at once."""
_SAFE_NORMS = (1e-24, 1e24)
"""Largest squared norms between which float32 products neither overflow nor vanish."""


def centre_of(*sets: np.ndarray) -> np.ndarray:
    """(d,) mean of all rows of sets (n, d), each rounded to float32 so that subtracting it rounds once."""
    total = sum(rows[part].sum(0, dtype=np.float64) for rows in sets for part in _panels(rows))
    mean: np.ndarray = np.asarray(total / sum(map(len, sets)), dtype=np.float64)
    with np.errstate(over="ignore"):
        return mean.astype(np.float32).astype(np.float64)


class Points:
    """Rows (n, d) of features seen from a centre (d,); converted in panels, never as a whole."""

    def __init__(self, rows: np.ndarray, centre: np.ndarray) -> None:
        """Raises `DataError` where squared distances overflow."""
        self.rows, self.centre = rows, centre
        self.norms = np.empty(len(rows))
        with np.errstate(over="ignore"):
            for part in _panels(rows):
                self.norms[part] = np.square(self.panel(part, np.float64)).sum(1)
        if not np.isfinite(self.norms).all():
            raise DataError(
                f"Features reach {np.abs(rows).max():.3g}, so that their squared distances overflow. Rescale them."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def panel(self, part: slice | np.ndarray, dtype: type) -> np.ndarray:
        """(b, d) centred rows, each entry rounded once."""
        if dtype is np.float32 and self.rows.dtype == np.float32:
            exact: np.ndarray = self.rows[part] - self.centre.astype(np.float32)
            return exact
        centred: np.ndarray = self.rows[part].astype(np.float64) - self.centre
        return centred.astype(dtype, copy=False)

    @cached_property
    def first(self) -> np.ndarray:
        """(n,) position of the first row equal to each."""
        seen: dict[bytes, int] = {}
        digests = (hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=16).digest() for row in self.rows)
        return np.array([seen.setdefault(digest, i) for i, digest in enumerate(digests)], dtype=np.int64)


class Distances:
    """Squared distances from queries (n, d) to centres (m, d), which see their features from one centre."""

    def __init__(self, queries: Points, centres: Points) -> None:
        self.queries, self.centres = queries, centres
        self.width = queries.rows.shape[1]
        largest = max(queries.norms.max(), centres.norms.max())
        fits = _SAFE_NORMS[0] < largest < _SAFE_NORMS[1] and self.width * _roundoff(np.float32) < 0.1
        self.dtype: type = np.float32 if fits else np.float64
        """In which a search starts."""

    def query_blocks(self) -> Iterator[slice]:
        """Slices of queries whose bounds fit in memory."""
        return blocks(len(self.queries), max(1, min(_BLOCK // len(self.centres), _PANEL // self.width)))

    def lower(self, part: slice | np.ndarray, dtype: type) -> np.ndarray:
        """(b, m) lower bounds of the squared distances from some queries to all centres, which may be negative."""
        kappa, tiny = self._kappa(dtype), self._tiny(dtype)
        left = self.queries.panel(part, dtype)
        left *= -2.0
        found: np.ndarray = np.empty((len(left), len(self.centres)), dtype=dtype)
        for panel in _panels(self.centres.rows):
            np.matmul(left, self.centres.panel(panel, dtype).T, out=found[:, panel])
        found += ((1.0 - kappa) * self.centres.norms - tiny).astype(dtype)
        found += ((1.0 - kappa) * self.queries.norms[part] - tiny).astype(dtype)[:, None]
        return found

    def slack(self, queries: np.ndarray, centres: np.ndarray, dtype: type) -> np.ndarray:
        """By how much at most a lower bound falls short of the squared distance, for pairs of positions."""
        norms = self.queries.norms[queries] + self.centres.norms[centres]
        return 2.0 * self._kappa(dtype) * norms + 4.0 * self._tiny(dtype)

    def exact(self, queries: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """(p,) squared distances of pairs of positions, float64 sums of squared differences; equal pairs once."""
        x, y = self.queries, self.centres
        keys, inverse = np.unique(x.first[queries] * len(y) + y.first[centres], return_inverse=True)
        found = np.empty(len(keys))
        for part in blocks(len(keys), max(1, _DIFFERENCES // self.width)):
            i, j = np.divmod(keys[part], len(y))
            difference = x.rows[i].astype(np.float64)
            difference -= y.rows[j]
            found[part] = np.square(difference, out=difference).sum(1)
        return found[inverse]

    def _kappa(self, dtype: type) -> float:
        products = self.width * _roundoff(dtype)
        return products / (1.0 - products) + 16.0 * _roundoff(dtype) + 5.0 * (self.width + 2) * _roundoff(np.float64)

    def _tiny(self, dtype: type) -> float:
        """Error of products that underflow."""
        return 2.0 * self.width * float(np.finfo(dtype).tiny)


def round_up(values: np.ndarray, dtype: type) -> np.ndarray:
    """Values in ``dtype``, none smaller than before."""
    rounded: np.ndarray = values.astype(dtype)
    return np.where(rounded < values, np.nextafter(rounded, np.array(np.inf, dtype)), rounded)


def _roundoff(dtype: type) -> float:
    return float(np.finfo(dtype).eps) / 2.0


def _panels(rows: np.ndarray) -> Iterator[slice]:
    return blocks(len(rows), max(1, _PANEL // rows.shape[1]))
