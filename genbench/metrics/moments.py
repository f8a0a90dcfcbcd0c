"""Mean and covariance of a stream of features, in memory that does not grow, exact under merging.

Sums are float64 and taken around a running mean (Chan, Golub and LeVeque 1983), so that merging parts gives the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genbench.errors import DataError
from genbench.metrics.statistics import blocks

_BLOCK = 4096


@dataclass
class Moments:
    """Count, mean (d,) and scatter sum (x - mean)(x - mean)^T (d, d) of features, float64.

    count is None where statistics came without it; such moments cannot be merged.
    """

    count: int | None
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, width: int) -> Moments:
        """Moments of no features of this width."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """Moments of features (n, d), in blocks."""
        moments = cls.empty(features.shape[1])
        moments.update(features)
        return moments

    @classmethod
    def from_covariance(cls, mean: np.ndarray, covariance: np.ndarray, count: int | None) -> Moments:
        """Moments from a mean and a sample covariance (ddof = 1)."""
        scale = 1 if count is None else count - 1
        return cls(count, np.asarray(mean, np.float64), np.asarray(covariance, np.float64) * scale)

    @property
    def width(self) -> int:
        return len(self.mean)

    def update(self, features: np.ndarray) -> None:
        """Add features (n, d)."""
        for part in blocks(len(features), _BLOCK):
            block = features[part].astype(np.float64)
            mean = block.mean(0)
            block -= mean
            self.merge(Moments(len(block), mean, block.T @ block))

    def merge(self, other: Moments) -> None:
        """Add what ``other`` has seen.

        Raises:
            DataError: unlike widths, or an unknown count.
        """
        if self.count is None or other.count is None:
            raise DataError("Statistics without a count cannot be merged. Make them again with `genbench stats make`.")
        if self.width != other.width:
            raise DataError(f"Features of width {other.width} cannot be merged with those of width {self.width}.")
        total = self.count + other.count
        if total == 0:
            return
        shift = other.mean - self.mean
        self.scatter += other.scatter
        self.scatter += np.outer(shift, shift) * (self.count * other.count / total)
        self.mean = self.mean + shift * (other.count / total)
        self.count = total

    def covariance(self) -> np.ndarray:
        """Sample covariance (d, d), ddof = 1.

        Raises:
            DataError: fewer than two features.
        """
        if self.count is None:
            return self.scatter
        if self.count < 2:
            raise DataError(f"A covariance needs at least 2 images, got {self.count}. Give more.")
        covariance: np.ndarray = self.scatter / (self.count - 1)
        return covariance
