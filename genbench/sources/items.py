"""Python objects one by one: sequences, torch Datasets and iterators of images or batches, with or without labels."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from genbench.data.arrays import Layout
from genbench.data.decode import Decoded, decode_pil
from genbench.errors import DataError, GenbenchError, UsageError
from genbench.files import hash_array, hash_value
from genbench.sources.base import ImageSource, Observations, OnError, SourceImage
from genbench.sources.convert import as_array, one_image, stack_layout, stack_to_images
from genbench.sources.decoding import check_on_error, observe, refuse_nothing

_IMAGE_KEYS = ("image", "images", "img")
_LABEL_KEYS = ("label", "labels")
_CAPTION_KEYS = ("caption", "captions", "text", "prompt")
_FORMS = "an image (array, tensor, Pillow image), a batch, (image, label), or a mapping with image, label and caption"


@dataclass(frozen=True)
class _Item:
    """images: one or a batch of them. labels, captions: as they were given beside it, or None."""

    images: Any
    labels: Any = None
    captions: Any = None


class ItemSource(ImageSource):
    """Images of a Python object, one by one.

    Args:
        items: a sequence or map-style Dataset, read as often as wanted, or any other iterable, read once. Items are
            images (array, tensor, Pillow image), batches (4 axes), either with labels ``(images, labels)``, or mappings
            with ``image``, ``label`` and ``caption``. A label that is no whole number is no class and left out.
        name: of the source.
        layout: the order of axes, where both fit.

    Raises:
        DataError: a sequence without items.
    """

    def __init__(self, items: Any, name: str, layout: Layout | None = None) -> None:
        self.name = name
        self._items = items
        self._layout = layout
        self._read = False
        self._again = has_places(items)
        self.kind = "sequence" if self._again else "iterator"
        classes = getattr(items, "classes", ())
        if isinstance(classes, list | tuple) and all(isinstance(entry, str) for entry in classes):
            self.class_names = tuple(classes)
        if self._again:
            self._look_ahead()

    def _look_ahead(self) -> None:
        """The length where it can be told, and whether there are captions, as the first item tells."""
        count = len(self._items)
        if count == 0:
            raise DataError(f"{self.name}: has no images.")
        if isinstance(self._items, list | tuple):
            self.length = sum(_size(self._unpacked(i, item).images) for i, item in enumerate(self._items))
            first = self._unpacked(0, self._items[0])
        else:
            first = self._unpacked(0, self._fetch(0))
            self.length = None if _is_batch(first.images) else count
        self.has_captions = first.captions is not None

    def images(self, on_error: OnError = "fail", seen: Observations | None = None) -> Iterator[SourceImage]:
        """Read all images, see `ImageSource.images`.

        Raises:
            UsageError: an iterator that was read before.
        """
        check_on_error(on_error)
        seen = Observations() if seen is None else seen
        already, index, count = len(seen.skipped), 0, 0
        for position, fetched in enumerate(self._fetched()):
            for image, label, caption in self._single(position, fetched, on_error):
                if isinstance(image, DataError):
                    seen.skipped.append(str(image))
                else:
                    observe(seen, image)
                    count += 1
                    yield SourceImage(image.pixels, f"image {index}", label, caption, index)
                index += 1
        refuse_nothing(self.name, count, seen.skipped[already:])

    def _fetched(self) -> Iterator[Any]:
        """Items in order; in place of one that cannot be had, the error."""
        if self._again:
            for position in range(len(self._items)):
                try:
                    yield self._fetch(position)
                except DataError as error:
                    yield error
            return
        if self._read:
            raise UsageError(f"{self.name}: can be read only once. Give a list, an array or a Dataset instead.")
        self._read = True
        iterator = iter(self._items)
        while True:
            try:
                item = next(iterator)
            except StopIteration:
                return
            except GenbenchError:
                raise
            except Exception as error:
                raise DataError(f"{self.name}: reading it failed: {type(error).__name__}: {error}") from error
            yield item

    def _fetch(self, position: int) -> Any:
        try:
            return self._items[position]
        except Exception as error:
            raise DataError(f"{self._where(position)} cannot be had: {type(error).__name__}: {error}") from error

    def _where(self, position: int) -> str:
        return f"{self.name}: item {position}"

    def _unpacked(self, position: int, item: Any) -> _Item:
        """Tell images, labels and captions apart."""
        if isinstance(item, Mapping):
            images = _first(item, _IMAGE_KEYS)
            if images is None:
                raise DataError(f"{self._where(position)} has {', '.join(map(str, item))}; expected {_FORMS}.")
            return _Item(images, _first(item, _LABEL_KEYS), _first(item, _CAPTION_KEYS))
        if not isinstance(item, list | tuple):
            return _Item(item)
        labels = captions = None
        for value in item[1:]:
            if isinstance(value, Image.Image) or len(getattr(value, "shape", ())) > 2:
                raise DataError(f"{self._where(position)} has several images; expected {_FORMS}.")
            if isinstance(value, str) or (isinstance(value, list | tuple) and value and isinstance(value[0], str)):
                captions = value if captions is None else captions
            elif labels is None:
                labels = value
        return _Item(item[0] if item else None, labels, captions)

    def _single(
        self, position: int, fetched: Any, on_error: OnError
    ) -> Iterator[tuple[Decoded | DataError, int | None, str | None]]:
        """The images of one item; in place of an unreadable one, where that is wanted, the error."""
        where = self._where(position)
        if isinstance(fetched, DataError):
            if on_error == "fail":
                raise fetched
            yield fetched, None, None
            return
        item = self._unpacked(position, fetched)
        if not _is_batch(item.images):
            yield self._decode(item.images, where, on_error), _label(item.labels), _caption(item.captions)
            return
        images: Sequence[Any] = (
            item.images if isinstance(item.images, list | tuple) else self._stack(item.images, where)
        )
        labels = _one_each(item.labels, len(images), f"{where}: labels")
        captions = _one_each(item.captions, len(images), f"{where}: captions")
        for image, label, caption in zip(images, labels, captions, strict=True):
            yield self._decode(image, where, on_error), _label(label), _caption(caption)

    def _stack(self, images: Any, where: str) -> list[Decoded]:
        array = as_array(images)
        if array is None:
            raise DataError(f"{where} is {type(images).__name__}, expected {_FORMS}.")
        last = stack_layout(array.shape, where, self._layout)
        return [Decoded(pixels, "array") for pixels in stack_to_images(array, where, last)]

    def _decode(self, image: Any, where: str, on_error: OnError) -> Decoded | DataError:
        if isinstance(image, Decoded):
            return image
        if isinstance(image, Image.Image):
            try:
                return decode_pil(image, where)
            except DataError as error:
                if on_error == "fail":
                    raise
                return error
        array = as_array(image)
        if array is None:
            raise DataError(f"{where} is {type(image).__name__}, expected {_FORMS}.")
        return Decoded(one_image(array, where, self._layout), "array")

    def fingerprint(self, *, verify: bool = False) -> str | None:  # noqa: ARG002 - nothing is remembered
        """SHA-256 of the images of a list; None for a Dataset, which may draw at random, and for an iterator.

        An image that cannot be read counts by its place, so that a list has a fingerprint where such are skipped.
        """
        if not isinstance(self._items, list | tuple):
            return None
        every = (
            image
            for position, fetched in enumerate(self._fetched())
            for image, _, _ in self._single(position, fetched, "skip")
        )
        return hash_value([None if isinstance(image, DataError) else hash_array(image.pixels) for image in every])


def has_places(items: Any) -> bool:
    """Whether items can be asked for by their place, again and again."""
    if isinstance(items, Sequence):
        return True
    torch = sys.modules.get("torch")
    streamed = torch is not None and isinstance(items, torch.utils.data.IterableDataset)
    return (
        not streamed and not isinstance(items, Mapping) and hasattr(items, "__getitem__") and hasattr(items, "__len__")
    )


def _first(item: Mapping[Any, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if key in item), None)


def _is_batch(images: Any) -> bool:
    return isinstance(images, list | tuple) or len(getattr(images, "shape", ())) == 4


def _size(images: Any) -> int:
    return len(images) if _is_batch(images) else 1


def _one_each(values: Any, count: int, where: str) -> Sequence[Any]:
    if values is None:
        return [None] * count
    array = None if isinstance(values, list | tuple) else as_array(values)
    listed = (
        list(values) if isinstance(values, list | tuple) else list(array) if array is not None and array.ndim else []
    )
    if len(listed) != count:
        raise DataError(f"{where}: {len(listed)} for {count} images, expected one for each.")
    return listed


def _label(value: Any) -> int | None:
    array = np.asarray(value) if isinstance(value, int | np.generic) else as_array(value)
    if array is None or array.size != 1 or array.dtype.kind not in "iu" or int(array.item()) < 0:
        return None
    return int(array.item())


def _caption(value: Any) -> str | None:
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return value if isinstance(value, str) else None
