"""The pass that all sources of encoded images share: decode one by one, note what was seen, skip or fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from genbench.data.decode import Decoded, decode_image
from genbench.errors import DataError, UsageError
from genbench.sources.base import Observations, OnError, SourceImage


@dataclass(frozen=True)
class Encoded:
    """An image before it is read. where: how errors call it, with its origin. read: its bytes, or a `DataError`."""

    name: str
    where: str
    read: Callable[[], bytes]
    label: int | None = None
    caption: str | None = None


def decoded(
    encoded: Iterable[Encoded], origin: str, on_error: OnError, seen: Observations | None
) -> Iterator[SourceImage]:
    """Decode images in order.

    Raises:
        DataError: an unreadable image unless ``on_error`` is "skip"; no image, or none that can be read.
    """
    seen = Observations() if seen is None else seen
    check_on_error(on_error)
    first_skipped, count, index = len(seen.skipped), 0, -1
    for index, item in enumerate(encoded):
        try:
            image = decode_image(item.read(), item.where)
        except DataError as error:
            if on_error == "fail":
                raise
            seen.skipped.append(str(error))
            continue
        observe(seen, image)
        count += 1
        yield SourceImage(image.pixels, item.name, item.label, item.caption, index)
    refuse_nothing(origin, count, seen.skipped[first_skipped:])


def check_on_error(on_error: str) -> None:
    """Raises:
    UsageError: neither "fail" nor "skip".
    """
    if on_error not in ("fail", "skip"):
        raise UsageError(f"on_error is {on_error!r}, expected 'fail' or 'skip'.")


def observe(seen: Observations, image: Decoded) -> None:
    """Count one image."""
    seen.formats[image.format] += 1
    seen.sizes[image.pixels.shape[1], image.pixels.shape[2]] += 1
    seen.channels[image.pixels.shape[0]] += 1
    seen.transparent += image.transparent
    seen.sixteen_bit += image.sixteen_bit


def refuse_nothing(origin: str, count: int, skipped: list[str]) -> None:
    """Refuse a pass that gave no image.

    Raises:
        DataError: ``count`` is 0; says whether all images were skipped.
    """
    if count == 0 and skipped:
        raise DataError(f"{origin}: none of {len(skipped)} images can be read (first: {skipped[0]})")
    if count == 0:
        raise DataError(f"{origin}: has no images.")
