"""Metrics of image pairs: a score for each pair, computed while both images are at hand, then averaged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from genbench.errors import DataError
from genbench.metrics.statistics import blocks

PairScore = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From two stacks of images (B, C, H, W) uint8, samples first, to a score for each pair (B,)."""

_BLOCK_VALUES = 1 << 23


class ImagePairs(Protocol):
    """Pairs of samples and the images that they should resemble."""

    count: int

    @abstractmethod
    def scores(self, key: str, score: PairScore) -> np.ndarray:
        """(count,) scores; ``key`` names the score with all its settings."""


class StoredPairs:
    """Pairs of images at hand, x and y (N, C, H, W) uint8, scored on demand in blocks.

    Raises:
        DataError: unlike shapes, or not uint8.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        if x.shape != y.shape or x.dtype != np.uint8 or y.dtype != np.uint8:
            raise DataError(
                f"Pairs are {x.dtype} {x.shape} and {y.dtype} {y.shape}, expected uint8 (N, C, H, W) of one shape."
            )
        self.x, self.y, self.count = x, y, len(x)

    def scores(self, key: str, score: PairScore) -> np.ndarray:  # noqa: ARG002
        size = max(1, _BLOCK_VALUES // max(1, int(np.prod(self.x.shape[1:]))))
        return np.concatenate([score(self.x[part], self.y[part]) for part in blocks(self.count, size)])


class ScoredPairs:
    """Pairs that streamed by: their scores by key, or why there are none."""

    def __init__(
        self, count: int, scores: Mapping[str, np.ndarray], problems: Mapping[str, Exception] | None = None
    ) -> None:
        self.count, self._scores, self._problems = count, scores, problems or {}

    def scores(self, key: str, score: PairScore) -> np.ndarray:  # noqa: ARG002
        if key in self._problems:
            raise self._problems[key]
        return self._scores[key]
