"""What every kind of input becomes: a stream of uint8 images, with notes of what was seen on the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from genbench.sources.statistics import StatisticsSource

OnError = Literal["fail", "skip"]


@dataclass(frozen=True)
class SourceImage:
    """One image. pixels: (C, H, W) uint8, C = 1 or 3. name: how messages call it and how pairs are matched.

    index: its place in the source, where images that were skipped count too.
    """

    pixels: np.ndarray
    name: str
    label: int | None = None
    caption: str | None = None
    index: int = 0


@dataclass
class Observations:
    """What a pass over a source has met; the result's warnings come from it.

    formats: images by file format ("PNG", "JPEG", ..., "array"). sizes: images by (H, W). skipped: one message for each
    unreadable image that was left out. transparent, sixteen_bit: images composited over white, or divided by 257.
    """

    formats: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    transparent: int = 0
    sixteen_bit: int = 0


class ImageSource(ABC):
    """Images in a fixed order that can be read more than once (a Python iterator can be read only once).

    Attributes:
        name: short, for tables and the result ("samples.zip", "cifar10:test").
        length: number of images where it is known before reading, else None.
        class_names: label k is class ``class_names[k]``; empty where there are no labels or they are not known before
            reading. Whole numbers are their own labels, and their names are 0, 1, ... up to the largest.
        has_captions: whether there are captions, as far as is known before reading.
        statistics: of features of these images, where the file that holds them has those too.
    """

    kind: str
    name: str
    length: int | None = None
    class_names: tuple[str, ...] = ()
    has_captions: bool = False
    statistics: StatisticsSource | None = None

    @abstractmethod
    def images(self, on_error: OnError = "fail", seen: Observations | None = None) -> Iterator[SourceImage]:
        """Read all images in order, filling ``seen``.

        Raises:
            DataError: an unreadable image (names it) unless ``on_error`` is "skip", or no image at all.
        """

    @abstractmethod
    def fingerprint(self, *, verify: bool = False) -> str | None:
        """SHA-256 of the content (not of where it lies); None for what may be another thing when read again.

        Content that was hashed before and whose files are unchanged by size and times is not read again, unless
        ``verify``. Labels and captions are not part of it.
        """

    def names(self) -> Sequence[str] | None:
        """The names of all images in order, where they are file names known before reading; else None."""
        return None
