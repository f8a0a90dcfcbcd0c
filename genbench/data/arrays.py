"""Reader of .npy files and of the members of .npz archives, in blocks of rows, and the order of an image array's axes.

Nothing is loaded beyond the rows asked for, whether an archive is compressed or not, and nothing in it can be code.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, get_args

import numpy as np
from numpy.lib import format as npy_format

from genbench.errors import DataError, UsageError

Layout = Literal["NHWC", "NCHW"]
BLOCK_BYTES = 2**22
_CHANNELS = (1, 3)
_KINDS = "?biuf"


@dataclass(frozen=True)
class StoredArray:
    """An array in a file. key: its name in an npz, or None for a .npy file. offset: where its values start."""

    path: Path
    key: str | None
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool
    offset: int

    @property
    def where(self) -> str:
        """How messages call it."""
        return str(self.path) if self.key is None else f"{self.path}: {self.key}"

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[np.ndarray]:
        """The rows in order, some at a time, as read-only arrays.

        Raises:
            DataError: truncated or corrupted, or of a type other than booleans, integers and floats.
        """
        if self.dtype.kind not in _KINDS:
            raise DataError(f"{self.where} is {self.dtype}, expected numbers.{_object_hint(self.dtype)}")
        if not self.shape or self.fortran:
            yield self.load()
            return
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        rows = max(1, block_bytes // max(row_bytes, 1))
        with self._opened() as stream:
            for start in range(0, self.shape[0] if row_bytes else 0, rows):
                count = min(rows, self.shape[0] - start)
                data = self._exactly(stream, count * row_bytes)
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def load(self) -> np.ndarray:
        """The whole array.

        Raises:
            DataError: as `blocks`.
        """
        if self.dtype.kind not in _KINDS:
            raise DataError(f"{self.where} is {self.dtype}, expected numbers.{_object_hint(self.dtype)}")
        with self._opened() as stream:
            data = self._exactly(stream, math.prod(self.shape) * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(self.shape, order="F" if self.fortran else "C")

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """The file at the array's first value."""
        with _opened(self.path, self.key) as stream:
            self._exactly(stream, self.offset)
            yield stream

    def _exactly(self, stream: IO[bytes], count: int) -> bytes:
        try:
            data = stream.read(count)
        except Exception as error:
            raise _unreadable(self.path, error) from None
        if len(data) != count:
            raise _unreadable(self.path, f"{self.key or 'the array'} ends before its shape {self.shape} is filled")
        return data


def open_npz(path: Path) -> dict[str, StoredArray]:
    """The arrays of an npz by name; only their headers are read.

    Raises:
        DataError: not an npz, a single array, or a header that is damaged or promises more than the file holds.
    """
    try:
        with path.open("rb") as file:
            if file.read(6) == npy_format.MAGIC_PREFIX:
                raise DataError(f"{path}: holds a single array, expected an npz archive with arr_0 or train.")
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
    except DataError:
        raise
    except Exception as error:
        raise _unreadable(path, error) from None
    names = {name.removesuffix(".npy"): size for name, size in sizes.items() if name.endswith(".npy")}
    return {key: _header(path, key, size) for key, size in names.items()}


def open_npy(path: Path) -> StoredArray:
    """The array of a .npy file; only its header is read.

    Raises:
        DataError: not a .npy file, or a header that is damaged or promises more than the file holds.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from None
    return _header(path, None, size)


@contextmanager
def _opened(path: Path, key: str | None) -> Iterator[IO[bytes]]:
    try:
        archive = None if key is None else zipfile.ZipFile(path)
        stream = path.open("rb") if archive is None else archive.open(f"{key}.npy")
    except Exception as error:
        raise _unreadable(path, error) from None
    try:
        yield stream
    finally:
        stream.close()
        if archive is not None:
            archive.close()


def _header(path: Path, key: str | None, size: int) -> StoredArray:
    """``size``: bytes of the file or member, header included, which the shape must not exceed."""
    with _opened(path, key) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            version = npy_format.read_magic(stream)
            read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, fortran, dtype = read(stream)
            offset = stream.tell()
        except Exception as error:
            raise _unreadable(path, f"{key or 'header'}: {error}") from None
    needed = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or (dtype.kind in _KINDS and needed != size - offset):
        raise _unreadable(path, f"shape {shape} of {dtype} needs {needed} bytes, {size - offset} are there")
    return StoredArray(path, key, shape, dtype, fortran, offset)


def _object_hint(dtype: np.dtype) -> str:
    return " Object arrays may hold code and are never opened; save numbers." if dtype.hasobject else ""


def _unreadable(path: Path, reason: object) -> DataError:
    kind = "npy file" if path.suffix.lower() == ".npy" else "npz archive"
    return DataError(f"{path}: not a readable {kind}: {reason}. Fetch or make it again.")


def channels_last(shape: tuple[int, ...], where: str, layout: Layout | None = None) -> bool:
    """Whether images of shape (N, H, W, C) rather than (N, C, H, W); the axis of size 1 or 3 tells.

    Args:
        shape: four axes.
        where: how messages call the array.
        layout: the caller's word for it, where both fit.

    Raises:
        DataError: neither fits, both fit and ``layout`` is None, or ``layout`` does not fit.
    """
    if layout is not None and layout not in get_args(Layout):
        raise UsageError(f"Unknown layout {layout!r}. Known: {', '.join(get_args(Layout))}.")
    fits = {
        "NHWC": len(shape) == 4 and shape[3] in _CHANNELS,
        "NCHW": len(shape) == 4 and shape[1] in _CHANNELS,
    }
    if layout is not None and not fits[layout]:
        raise DataError(f"{where} has shape {shape}, which is no {layout} of 1 or 3 channels.")
    if layout is None and all(fits.values()):
        raise DataError(
            f'{where} has shape {shape}: both N H W C and N C H W fit. Say which: layout="NHWC" or "NCHW", or save it '
            "as arr_0 of an npz in N H W C."
        )
    if not any(fits.values()):
        why = "4 channels: composite the alpha away first" if 4 in (shape[1:2] + shape[-1:]) else "found none"
        raise DataError(
            f"{where} has shape {shape}: one axis, the second or the last, must be 1 or 3 channels ({why}). "
            "Save it as arr_0 in N H W C."
        )
    return fits["NHWC"] if layout is None else layout == "NHWC"
