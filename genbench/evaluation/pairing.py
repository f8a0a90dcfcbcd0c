"""Pairs that stream by: each pair metric scores them in batches of one shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field

import numpy as np

from genbench.errors import DataError
from genbench.metrics.base import PairMetric
from genbench.metrics.pairs import ScoredPairs
from genbench.metrics.sides import NotApplicable
from genbench.sources.base import SourceImage

MAX_WAITING_BATCHES = 4


@dataclass
class PairScores:
    """Scores of pairs by key, in blocks; ``index`` tells the place of each row. problems: why a key has no scores."""

    count: int = 0
    index: list[np.ndarray] = field(default_factory=list)
    scores: dict[str, list[np.ndarray]] = field(default_factory=dict)
    problems: dict[str, Exception] = field(default_factory=dict)

    def merge(self, other: PairScores, shift: int = 0) -> None:
        """Add the scores of ``other``, whose places are ``shift`` further on."""
        self.count += other.count
        self.index += [index + shift for index in other.index]
        for key, blocks in other.scores.items():
            self.scores.setdefault(key, []).extend(blocks)
        self.problems |= other.problems

    def ordered(self) -> ScoredPairs:
        """As metrics see them."""
        order = np.argsort(np.concatenate(self.index), kind="stable") if self.index else np.arange(0)
        whole = {key: blocks for key, blocks in self.scores.items() if key not in self.problems and blocks}
        return ScoredPairs(self.count, {k: np.concatenate(b)[order] for k, b in whole.items()}, self.problems)


def fullest(waiting: Mapping[tuple[int, ...], Sized]) -> tuple[int, ...]:
    """The shape of which most images wait."""
    return max(waiting, key=lambda shape: len(waiting[shape]))


class PairCollector:
    """Scores pairs of images for several metrics, into ``found``.

    Pairs wait until there is a batch of their shape, but at most `MAX_WAITING_BATCHES` batches of all shapes together.
    """

    def __init__(self, metrics: Sequence[PairMetric], found: PairScores, batch_size: int = 64) -> None:
        self._metrics = {metric.score_key: metric for metric in metrics}
        self._found, self._batch_size = found, batch_size
        self._waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray, np.ndarray]]] = {}
        self._held = 0

    def add(self, sample: SourceImage, reference: SourceImage, position: int | None = None) -> None:
        """Take one pair.

        Raises:
            DataError: images of unlike shapes.
        """
        if sample.pixels.shape != reference.pixels.shape:
            raise DataError(
                f"Pairs must have one size: {sample.name} is {_size(sample)}, {reference.name} is {_size(reference)}. "
                "Resize one side, or check that both are in the same order."
            )
        place = self._found.count if position is None else position
        self._found.count += 1
        waiting = self._waiting.setdefault(sample.pixels.shape, [])
        waiting.append((place, sample.pixels, reference.pixels))
        self._held += 1
        if len(waiting) == self._batch_size:
            self._run(sample.pixels.shape)
        elif self._held > MAX_WAITING_BATCHES * self._batch_size:
            self._run(fullest(self._waiting))

    def finish(self) -> None:
        """Score what still waits; more pairs may follow."""
        for shape in list(self._waiting):
            self._run(shape)

    def _run(self, shape: tuple[int, ...]) -> None:
        waiting = self._waiting.pop(shape)
        self._held -= len(waiting)
        x, y = np.stack([x for _, x, _ in waiting]), np.stack([y for _, _, y in waiting])
        for key, metric in self._metrics.items():
            if key in self._found.problems:
                continue
            try:
                self._found.scores.setdefault(key, []).append(metric.score_pairs(x, y))
            except (NotApplicable, DataError) as reason:
                self._found.problems[key] = reason
        self._found.index.append(np.array([place for place, _, _ in waiting], dtype=np.int64))


def _size(image: SourceImage) -> str:
    channels, height, width = image.pixels.shape
    return f"{width} x {height} with {channels} channel{'s' if channels > 1 else ''}"
