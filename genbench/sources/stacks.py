"""Images in one array: in memory, in a .npy file, or in an npz (``arr_0`` of guided-diffusion, or an array a split)."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genbench.data.arrays import BLOCK_BYTES, Layout, StoredArray, open_npy, open_npz
from genbench.data.base import SplitName
from genbench.data.decode import Decoded
from genbench.data.npz import check_labels, image_keys
from genbench.errors import DataError
from genbench.sources.base import ImageSource, Observations, OnError, SourceImage
from genbench.sources.classes import known, number_names
from genbench.sources.convert import stack_layout, stack_to_images
from genbench.sources.decoding import check_on_error, observe, refuse_nothing
from genbench.sources.hashing import remembered
from genbench.sources.statistics import has_statistics, read_statistics


class StackSource(ImageSource):
    """What sources of one array share. Values out of range are an error even where unreadable images are skipped.

    Args:
        name: of the source.
        where: how errors call the array.
        shape: (N, H, W, C), (N, C, H, W) or (N, H, W).
        layout: which of the first two, where both fit.
        labels: (N,) whole numbers or None.
    """

    def __init__(
        self, name: str, where: str, shape: tuple[int, ...], layout: Layout | None, labels: np.ndarray | None = None
    ) -> None:
        self.name, self.where, self.shape = name, where, shape
        self._last = stack_layout(shape, where, layout)
        self.length = shape[0]
        if not self.length:
            raise DataError(f"{where} has shape {shape}: it has no images.")
        self._labels = None if labels is None else check_labels(where, self.length, labels)
        if self._labels is not None:
            self.class_names = number_names(self._labels, where)

    @abstractmethod
    def blocks(self) -> Iterator[np.ndarray]:
        """The array's rows in order, some at a time."""

    def images(self, on_error: OnError = "fail", seen: Observations | None = None) -> Iterator[SourceImage]:
        """Read all images, see `ImageSource.images`."""
        check_on_error(on_error)
        seen = Observations() if seen is None else seen
        index = 0
        for block in self.blocks():
            rows = f"{self.where}: images {index} to {index + len(block) - 1}"
            for pixels in stack_to_images(block, rows, self._last):
                observe(seen, Decoded(pixels, "array"))
                label = None if self._labels is None else known(int(self._labels[index]))
                yield SourceImage(pixels, f"image {index}", label, None, index)
                index += 1
        refuse_nothing(self.where, index, [])

    def content_hash(self) -> str:
        """SHA-256 of type, shape, order of axes and values, wherever they are kept."""
        digest = hashlib.sha256()
        for number, block in enumerate(self.blocks()):
            if number == 0:
                digest.update(f"{block.dtype.str}{self.shape}{self._last}".encode())
            digest.update(np.ascontiguousarray(block).data)
        return digest.hexdigest()


class ArraySource(StackSource):
    """An array in memory. Its fingerprint is that of its values when it is asked for."""

    kind = "array"

    def __init__(self, array: np.ndarray, layout: Layout | None = None, name: str = "array") -> None:
        super().__init__(name, name, array.shape, layout)
        self._array = array

    def blocks(self) -> Iterator[np.ndarray]:
        """See `StackSource.blocks`."""
        rows = max(1, BLOCK_BYTES // max(self._array[0].nbytes, 1))
        for start in range(0, len(self._array), rows):
            yield self._array[start : start + rows]

    def fingerprint(self, *, verify: bool = False) -> str:  # noqa: ARG002 - nothing is remembered
        """SHA-256 of the array, the same as of a file that holds it."""
        return self.content_hash()


class StoredSource(StackSource):
    """An array in a file, read in blocks; of a compressed file no more is unpacked at a time."""

    def __init__(
        self, array: StoredArray, name: str, kind: str, layout: Layout | None, labels: np.ndarray | None = None
    ) -> None:
        super().__init__(name, array.where, array.shape, layout, labels)
        self._array = array
        self.kind = kind

    def blocks(self) -> Iterator[np.ndarray]:
        """See `StackSource.blocks`."""
        return self._array.blocks()

    def fingerprint(self, *, verify: bool = False) -> str:
        """SHA-256 of the array, whatever the file is called and whether it is compressed."""
        path = self._array.path
        kind = f"array {self._array.key} {self._last}"
        return remembered(kind, path, [("", path)], self.content_hash, verify=verify)


def open_array_file(path: Path, layout: Layout | None) -> StoredSource:
    """A .npy file of images.

    Raises:
        DataError: unreadable, or no stack of images.
    """
    return StoredSource(open_npy(path), path.name, "npy", layout)


def open_archive(path: Path, layout: Layout | None, split: SplitName | None) -> StoredSource:
    """An npz of images; ``arr_0`` is in N H W C wherever that fits.

    Raises:
        DataError: unreadable, without images, or with several splits and none chosen; says which there are.
    """
    arrays = open_npz(path)
    found = image_keys(arrays)
    if not found:
        raise DataError(
            f"{path}: has {', '.join(arrays) or 'nothing'}; expected arr_0, or train or test, or mu and sigma."
        )
    chosen = next(iter(found)) if len(found) == 1 and split is None else split
    if chosen not in found:
        splits = [name for name in found if name is not None]
        ask = f"Choose one: npz:{path}:{splits[0]}." if splits else "Leave the split out."
        raise DataError(f"{path}: has {', '.join(splits) or 'arr_0 and no splits'}. {ask}")
    keys = found[chosen]
    images = arrays[keys.images]
    if chosen is None and layout is None and images.shape[3:] in ((1,), (3,)):
        layout = "NHWC"
    labels = arrays[keys.labels].load() if keys.labels in arrays else None
    source = StoredSource(images, path.name if split is None else f"{path.name}:{split}", "npz", layout, labels)
    if has_statistics(arrays) and split is None:
        source.statistics = read_statistics(path)
    return source
