"""From what a reader found to train, validation and test: stratified, seeded, the same on every machine.

`numpy.random.RandomState` is used on purpose: NumPy keeps its stream frozen, and a split is part of a dataset's
identity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from genbench.api import ImageSpec
from genbench.data.base import ImageDataset, SplitName, Splits
from genbench.errors import DataError
from genbench.images import from_levels

SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Part:
    """Images (N, C, H, W) uint8 with labels (N,) int64 or None."""

    images: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray) -> Part:
        """The images at ``index``."""
        return Part(self.images[index], None if self.labels is None else self.labels[index])


@dataclass(frozen=True)
class RawDataset:
    """What a reader found: one to three parts ("train" among them) of images with K levels, and where, for messages."""

    origin: str
    parts: dict[SplitName, Part]
    class_names: tuple[str, ...] = ()
    levels: int = 256


def stratified_choice(labels: np.ndarray, count: int, rng: np.random.RandomState) -> np.ndarray:
    """``count`` positions, ascending, with every class in proportion (largest remainders get what is left over)."""
    inverse = np.unique(labels, return_inverse=True)[1]
    sizes = np.bincount(inverse)
    take, remainder = np.divmod(sizes * count, len(labels))
    take[np.argsort(-remainder, kind="stable")[: count - take.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(inverse == c))[:k] for c, k in enumerate(take)]
    return np.sort(np.concatenate(chosen))


def carve(part: Part, count: int, rng: np.random.RandomState) -> tuple[Part, Part]:
    """Split a part into (the rest, ``count`` images), stratified where there are labels; both keep their order."""
    labels = np.zeros(len(part), dtype=np.int64) if part.labels is None else part.labels
    chosen = stratified_choice(labels, count, rng)
    rest = np.setdiff1d(np.arange(len(part)), chosen, assume_unique=True)
    return part.take(rest), part.take(chosen)


def complete(raw: RawDataset, seed: int, sizes: dict[SplitName, int] | None = None) -> RawDataset:
    """Carve the missing splits, test first, out of the training part.

    Args:
        raw: what was read.
        seed: seed of the choice.
        sizes: number of images of the splits to carve; a tenth of the training part by default.

    Raises:
        DataError: no training part, or one too small to be split.
    """
    if "train" not in raw.parts:
        raise DataError(f"{raw.origin}: has {' and '.join(raw.parts)} but no train split. Add one.")
    rng = np.random.RandomState(seed)
    parts = dict(raw.parts)
    missing: list[SplitName] = [name for name in ("test", "validation") if name not in parts]
    total = len(parts["train"])
    for name in missing:
        count = (sizes or {}).get(name, max(1, total // 10))
        if count >= len(parts["train"]):
            raise DataError(f"{raw.origin}: {total} images are too few to carve a {name} split. Give at least 10.")
        parts["train"], parts[name] = carve(parts["train"], count, rng)
    return replace(raw, parts=parts)


def shuffled(raw: RawDataset, seed: int) -> RawDataset:
    """Put each part into a seeded random order, so that a prefix is a fair sample (files come sorted by class)."""
    rng = np.random.RandomState(seed)
    return replace(raw, parts={name: part.take(rng.permutation(len(part))) for name, part in raw.parts.items()})


def with_levels(raw: RawDataset, levels: int) -> RawDataset:
    """The same images on ``levels`` levels.

    Raises:
        DataError: a value that is none of theirs.
    """
    allowed = from_levels(torch.arange(levels), levels).numpy()
    for split, part in raw.parts.items():
        strange = np.setdiff1d(np.unique(part.images), allowed)
        if len(strange):
            shown = ", ".join(map(str, allowed[:4])) + (", ..." if levels > 4 else "")
            raise DataError(
                f"{raw.origin}: the {split} split has the value {strange[0]}, images of {levels} levels hold {shown}. "
                "Give another number of levels, or convert the images."
            )
    return replace(raw, levels=levels)


def to_splits(name: str, raw: RawDataset) -> Splits:
    """Wrap three parts as `Splits`. Labels are kept only where every part has them.

    Raises:
        DataError: an empty part, or parts whose images differ in shape.
    """
    for split, part in raw.parts.items():
        if not len(part):
            raise DataError(f"{raw.origin}: the {split} split has no images.")
    shapes = {split: part.images.shape[1:] for split, part in raw.parts.items()}
    if len(set(shapes.values())) > 1:
        found = ", ".join(f"{split} {'x'.join(map(str, shape))}" for split, shape in shapes.items())
        raise DataError(f"{raw.origin}: the splits differ in image shape (C x H x W): {found}. Make them one size.")
    labelled = all(part.labels is not None for part in raw.parts.values())
    channels, height, width = shapes["train"]
    spec = ImageSpec(channels, height, width, raw.levels, raw.class_names if labelled else ())
    datasets = {
        split: ImageDataset(
            name=name,
            split=split,
            images=np.ascontiguousarray(raw.parts[split].images),
            labels=raw.parts[split].labels if labelled else None,
            spec=spec,
        )
        for split in SPLIT_NAMES
    }
    return Splits(name, datasets["train"], datasets["validation"], datasets["test"])
