"""One pass over the images of a side: each is decoded once, and every network sees it once.

What is kept is what the metrics need. Features that only mean and covariance are needed of are kept while they are few,
so that small sets get the exact low-rank distance, and become moments when there are more: memory stops growing there.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genbench.errors import DataError
from genbench.evaluation.pairing import MAX_WAITING_BATCHES, PairScores, fullest
from genbench.features.base import FeatureExtractor, Features
from genbench.features.image_text import ImageTextModel
from genbench.metrics.base import Need, Side
from genbench.metrics.frechet_stream import FrechetStream
from genbench.metrics.moments import Moments
from genbench.metrics.sides import check_features
from genbench.sources.base import Observations, SourceImage

Progress = Callable[[int], None]

MAX_HASHED_IMAGES = 200_000
SPILL_ROWS = 8192
NEARLY_CONSTANT_RANGE = 2


@dataclass(frozen=True)
class Wanted:
    """What to collect. features: each row, not their moments alone."""

    moments: bool = False
    features: bool = False
    logits: bool = False
    spatial: bool = False
    text: bool = False

    @classmethod
    def by(cls, needs: frozenset[Need], *, samples: bool) -> Wanted:
        """What metrics with these needs look at, of the samples or of the reference.

        Spatial features bring moments of the others with them: nothing is kept of a reference without those.
        """
        return cls(
            moments=bool(needs & {"moments", "spatial"}),
            features="features" in needs,
            logits=samples and "logits" in needs,
            spatial="spatial" in needs,
            text=samples and "text" in needs,
        )

    @property
    def network(self) -> bool:
        """Whether the extractor has to run."""
        return self.moments or self.features or self.logits or self.spatial


@dataclass
class Collection:
    """What was collected of one side; parts of it merge. Rows are in the order of ``index``, once sorted.

    placed: whether the caller said where each image stands; parts that were not placed follow one another. hashes: how
    often each image occurs, for the first of them. constant: images with next to no contrast. identity: of the metrics,
    their options and the networks; parts of unlike identity do not merge.
    """

    wanted: Wanted
    count: int = 0
    index: list[np.ndarray] = field(default_factory=list)
    rows: dict[str, list[np.ndarray]] = field(default_factory=dict)
    stream: FrechetStream | None = None
    spatial_stream: FrechetStream | None = None
    labels: list[int | None] = field(default_factory=list)
    prompts: list[str | None] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    placed: bool = False
    pairs: PairScores = field(default_factory=PairScores)
    seen: Observations = field(default_factory=Observations)
    hashes: dict[int, int] = field(default_factory=dict)
    constant: int = 0
    identity: str = ""

    def merge(self, other: Collection) -> None:
        """Add what ``other`` collected.

        Raises:
            DataError: it was collected for other metrics or by other networks, only one of both was placed, or both
                have an image at one position. Nothing is added then.
        """
        self._check_mergeable(other)
        shift = 0 if other.placed else self.count
        self.count += other.count
        self.placed = self.placed or other.placed
        self.index += [index + shift for index in other.index]
        self.pairs.merge(other.pairs, shift)
        for name, blocks in other.rows.items():
            self.rows.setdefault(name, []).extend(blocks)
        self.stream = _merged(self.stream, other.stream)
        self.spatial_stream = _merged(self.spatial_stream, other.spatial_stream)
        self.labels += other.labels
        self.prompts += other.prompts
        self.positions += [position + shift for position in other.positions]
        self.constant += other.constant
        for key, times in other.hashes.items():
            if key in self.hashes or len(self.hashes) < MAX_HASHED_IMAGES:
                self.hashes[key] = self.hashes.get(key, 0) + times
        for counter in ("formats", "sizes", "channels"):
            getattr(self.seen, counter).update(getattr(other.seen, counter))
        self.seen.skipped += other.seen.skipped
        self.seen.transparent += other.seen.transparent
        self.seen.sixteen_bit += other.seen.sixteen_bit
        self.spill()

    def _check_mergeable(self, other: Collection) -> None:
        if (other.wanted, other.identity) != (self.wanted, self.identity):
            raise DataError(
                "Parts of an evaluation that were collected for different metrics, options, protocols or weights "
                "cannot be merged. Make all evaluators with the same arguments."
            )
        if self.count and other.count and other.placed != self.placed:
            raise DataError(
                "A part whose images were given positions (index) cannot be merged with one whose images were not: "
                "where the latter stand is not known. Give index in every update, or in none."
            )
        if self.placed and other.placed:
            _check_positions([*self.positions, *other.positions])

    def observed(self) -> dict[str, int]:
        """Counts that warnings come from, to be kept with statistics."""
        seen = self.seen
        return {"constant": self.constant, "transparent": seen.transparent, "sixteen_bit": seen.sixteen_bit}

    @classmethod
    def from_observed(cls, count: int, hashes: Mapping[int, int], observed: Mapping[str, int]) -> Collection:
        """A collection of which nothing but its hashes and `observed` was kept."""
        found = cls(Wanted(), count=count, constant=observed["constant"], hashes=dict(hashes))
        found.seen.transparent, found.seen.sixteen_bit = observed["transparent"], observed["sixteen_bit"]
        return found

    def add(self, index: np.ndarray, found: Mapping[str, np.ndarray | None]) -> None:
        """Add rows by name for the images at positions ``index`` (b,)."""
        self.index.append(index)
        for name, block in found.items():
            if block is not None:
                self.rows.setdefault(name, []).append(block)
        self.spill()

    def spill(self) -> None:
        """Turn rows into moments where those are all that is needed and there are many rows."""
        held = sum(len(block) for block in self.index)
        if self.wanted.features or held < SPILL_ROWS:
            return
        self.stream = _drained(self.stream, self.rows.pop("features", []))
        self.spatial_stream = _drained(self.spatial_stream, self.rows.pop("spatial", []))
        if not self.rows:
            self.index = []

    def ordered(self, name: str) -> np.ndarray | None:
        """The rows of this name in the images' order, or None where there are none.

        Raises:
            DataError: two images at one position.
        """
        if not self.rows.get(name):
            return None
        if self.placed:
            _check_positions(self.positions)
        rows = np.concatenate(self.rows[name])
        order = np.argsort(np.concatenate(self.index), kind="stable")
        return rows if (order == np.arange(len(order))).all() else rows[order]

    def known_labels(self) -> np.ndarray | None:
        """(N,) int64 labels in the images' order, or None unless every image has one."""
        if not self.labels or any(label is None for label in self.labels):
            return None
        values = np.array(self.labels, dtype=np.int64)
        ordered: np.ndarray = values[np.argsort(self.positions, kind="stable")]
        return ordered

    def known_prompts(self) -> tuple[str, ...] | None:
        """The prompts in the images' order, or None unless every image has one."""
        if not self.prompts or any(prompt is None for prompt in self.prompts):
            return None
        return tuple(str(self.prompts[i]) for i in np.argsort(self.positions, kind="stable"))

    def class_counts(self, class_names: tuple[str, ...] = ()) -> dict[str, int]:
        """Images by class, 0 where a class has none; a class without a name goes by its number.

        Empty unless all images have a label.
        """
        labels = self.known_labels()
        if labels is None:
            return {}
        found = Counter(name_of(label, class_names) for label in labels.tolist())
        return {**dict.fromkeys(class_names, 0), **found}

    def side(self, who: str, class_names: tuple[str, ...] = ()) -> Side:
        """This collection as metrics see it.

        Raises:
            DataError: two images at one position.
        """
        if self.placed:
            _check_positions(self.positions)
        side = Side(who, self.count, labels=self.known_labels(), class_names=class_names)
        if self.stream is not None:
            whole = _filled(self.stream.copy(), self.rows.get("features", []))
            side.given_moments, side.sampled_features = whole.moments, whole.rows
        if self.spatial_stream is not None:
            spatial = _filled(self.spatial_stream.copy(), self.rows.get("spatial", []))
            side.given_spatial_moments, side.sampled_spatial = spatial.moments, spatial.rows
        if self.rows.get("features") and self.stream is None:
            side.extract = self._features
            return side
        side.given_logits = self.ordered("logits")
        alone = self.ordered("spatial") if self.spatial_stream is None else None
        if alone is not None:
            check_features(alone, who)
            side.given_spatial_moments, side.sampled_spatial = Moments.of(alone), alone
        return side

    def _features(self) -> Features:
        features = self.ordered("features")
        assert features is not None
        return Features(features, self.ordered("logits"), self.ordered("spatial"))


def _merged(a: FrechetStream | None, b: FrechetStream | None) -> FrechetStream | None:
    if a is None or b is None:
        return b.copy() if a is None and b is not None else a
    a.merge(b)
    return a


def _check_positions(positions: Sequence[int]) -> None:
    twice = next((position for position, times in Counter(positions).items() if times > 1), None)
    if twice is not None:
        raise DataError(
            f"Two images have position {twice}. Give each index once: let each process take samples of its own."
        )


def name_of(label: int, class_names: Sequence[str]) -> str:
    """The name of a class, or its number where it has no name."""
    return class_names[label] if 0 <= label < len(class_names) else str(label)


def _drained(stream: FrechetStream | None, blocks: list[np.ndarray]) -> FrechetStream | None:
    if not blocks:
        return stream
    return _filled(stream or FrechetStream(blocks[0].shape[1]), blocks)


def _filled(stream: FrechetStream, blocks: list[np.ndarray]) -> FrechetStream:
    for block in blocks:
        stream.update(block)
    return stream


class Collector:
    """Feeds images to the networks in batches of one shape, and keeps what the metrics need.

    Images wait until there is a batch of their shape, but at most `MAX_WAITING_BATCHES` batches of all shapes together.
    """

    def __init__(
        self,
        wanted: Wanted,
        extractor: FeatureExtractor | None,
        image_text: ImageTextModel | None = None,
        batch_size: int = 64,
        progress: Progress | None = None,
        identity: str = "",
    ) -> None:
        self.collection = Collection(wanted, identity=identity)
        self._extractor, self._image_text = extractor, image_text
        self._batch_size, self._progress = batch_size, progress
        self._waiting: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        self._held = 0

    def add(self, image: SourceImage, position: int | None = None) -> None:
        """Take one image; ``position`` (by default the next one) decides where its rows stand in the end.

        Raises:
            DataError: a position, where images before had none, or the other way round.
        """
        found = self.collection
        if found.count and found.placed != (position is not None):
            raise DataError("Some images have positions (index), others not. Give index in every update, or in none.")
        place = found.count if position is None else position
        found.placed = position is not None
        found.count += 1
        found.positions.append(place)
        found.labels.append(image.label)
        found.prompts.append(image.caption)
        self._look_at(image.pixels)
        waiting = self._waiting.setdefault(image.pixels.shape, [])
        waiting.append((place, image.pixels))
        self._held += 1
        if len(waiting) == self._batch_size:
            self._run(image.pixels.shape)
        elif self._held > MAX_WAITING_BATCHES * self._batch_size:
            self._run(fullest(self._waiting))

    def finish(self) -> Collection:
        """Run what still waits for a full batch; more images may follow."""
        for shape in list(self._waiting):
            self._run(shape)
        return self.collection

    def _look_at(self, pixels: np.ndarray) -> None:
        found = self.collection
        found.constant += int(int(pixels.max()) - int(pixels.min()) <= NEARLY_CONSTANT_RANGE)
        digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=8, salt=str(pixels.shape).encode()[:16])
        key = int.from_bytes(digest.digest(), "little")
        if key in found.hashes or len(found.hashes) < MAX_HASHED_IMAGES:
            found.hashes[key] = found.hashes.get(key, 0) + 1

    def _run(self, shape: tuple[int, ...]) -> None:
        waiting = self._waiting.pop(shape)
        self._held -= len(waiting)
        index = np.array([place for place, _ in waiting], dtype=np.int64)
        images = np.stack([pixels for _, pixels in waiting])
        wanted, found = self.collection.wanted, dict[str, Any]()
        if wanted.network and self._extractor is not None:
            features = self._extractor.extract(images)
            found["features"] = features.features if wanted.features or wanted.moments else None
            found["logits"] = features.logits if wanted.logits else None
            found["spatial"] = features.spatial if wanted.spatial else None
        if wanted.text and self._image_text is not None:
            found["text"] = self._image_text.encode_images(images)
        if found:
            self.collection.add(index, found)
        if self._progress is not None:
            self._progress(len(waiting))


def collect(images: Iterable[SourceImage], collector: Collector, seen: Observations | None = None) -> Collection:
    """Feed all images to the collector; ``seen`` is what the source fills while it is read."""
    for image in images:
        collector.add(image)
    found = collector.finish()
    if seen is not None:
        found.seen = seen
    return found


def batches(images: np.ndarray, names: str = "image") -> Iterator[SourceImage]:
    """Images (N, C, H, W) uint8 one by one."""
    for i, pixels in enumerate(images):
        yield SourceImage(pixels, f"{names} {i}")
