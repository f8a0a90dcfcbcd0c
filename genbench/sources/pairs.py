"""Which image of one source belongs to which of another: by file name where the names agree, else by order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import Literal

from genbench.errors import DataError
from genbench.sources.base import ImageSource, Observations, OnError, SourceImage

Key = str | int


@dataclass(frozen=True)
class Pairing:
    """by: how images are matched. reason: why, for the reader. Keys of images are equal where they belong together."""

    by: Literal["name", "order"]
    reason: str
    warn: bool = False
    """Whether both sources have file names, which do not fit: the order may be wrong."""
    depths: tuple[int, int] = (0, 0)
    """Leading folders that all names of the one and of the other source share, and that are left out."""

    def key(self, side: Literal[0, 1], image: SourceImage) -> Key:
        """What tells the partner of an image."""
        return image.index if self.by == "order" else _stem(image.name, self.depths[side])


def pair_names(a: ImageSource, b: ImageSource) -> Pairing:
    """How to pair two sources.

    By name (relative, without the suffix and without folders that all files share) where both have file names that are
    unique and the same; else by order.

    Raises:
        DataError: both lengths are known and differ; gives both.
    """
    if a.length is not None and b.length is not None and a.length != b.length:
        raise DataError(
            f"Pairs need as many images on both sides: {a.name} has {a.length}, {b.name} has {b.length}. "
            "Remove those without a partner."
        )
    names = a.names(), b.names()
    if names[0] is None or names[1] is None:
        nameless = a if names[0] is None else b
        return Pairing("order", f"{nameless.name} has no file names")
    depths = _shared_depth(names[0]), _shared_depth(names[1])
    stems = [_stem(name, depths[0]) for name in names[0]], [_stem(name, depths[1]) for name in names[1]]
    for source, found in zip((a, b), stems, strict=True):
        if len(set(found)) < len(found):
            return Pairing("order", f"names in {source.name} are not unique without their suffixes", warn=True)
    only = sorted(set(stems[0]) - set(stems[1]))
    if only:
        return Pairing("order", f"the names differ (only {a.name} has {only[0]!r})", warn=True)
    return Pairing("name", "both have the same file names", depths=depths)


def match_pairs(
    a: ImageSource,
    b: ImageSource,
    seen_a: Observations | None = None,
    seen_b: Observations | None = None,
    on_error: OnError = "fail",
) -> Iterator[tuple[SourceImage, SourceImage]]:
    """Pairs in the order in which both partners are met; an image waits until its partner comes.

    An image whose partner was skipped is left out.

    Raises:
        DataError: unequal counts, an unreadable image unless ``on_error`` is "skip", or no pair at all.
    """
    pairing = pair_names(a, b)
    seen_a, seen_b = Observations() if seen_a is None else seen_a, Observations() if seen_b is None else seen_b
    before = len(seen_a.skipped), len(seen_b.skipped)
    waiting: tuple[dict[Key, SourceImage], dict[Key, SourceImage]] = ({}, {})
    counts, pairs = [0, 0], 0
    for both in zip_longest(a.images(on_error, seen_a), b.images(on_error, seen_b)):
        for side, image in enumerate(both):
            if image is None:
                continue
            counts[side] += 1
            key = pairing.key(0 if side == 0 else 1, image)
            partner = waiting[1 - side].pop(key, None)
            if partner is None:
                waiting[side][key] = image
                continue
            pairs += 1
            yield (image, partner) if side == 0 else (partner, image)
    total_a, total_b = counts[0] + len(seen_a.skipped) - before[0], counts[1] + len(seen_b.skipped) - before[1]
    if total_a != total_b:
        raise DataError(f"Pairs need as many images on both sides: {a.name} has {total_a}, {b.name} has {total_b}.")
    if pairs == 0:
        raise DataError(f"{a.name} and {b.name}: no pair of images is left after unreadable ones were skipped.")


def _shared_depth(names: Sequence[str]) -> int:
    depth = 0
    for level in zip(*(PurePosixPath(name).parts[:-1] for name in names)):
        if len(set(level)) > 1:
            break
        depth += 1
    return depth


def _stem(name: str, depth: int) -> str:
    return "/".join(PurePosixPath(name).with_suffix("").parts[depth:])
