"""Decoding image files to uint8 arrays, and stacking them with one size and one mode insisted on."""

from __future__ import annotations

import io
import struct
import sys
import warnings
import zlib
from typing import Any

import numpy as np
from PIL import Image

from genbench.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)
_EXIF_ORIENTATION = 0x0112
_SINGLE_FRAME_FORMATS = {"PNG", "WEBP", "TIFF"}
_LITTLE_IS_NATIVE = sys.byteorder == "little"
_OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if _LITTLE_IS_NATIVE else "L"))
}
"""Raw modes of which Pillow keeps the high byte, and the byte-swapped raw mode that makes it keep the low one."""


class ImageStack:
    """Collects encoded images of one size and mode (greyscale or RGB) into one array of ``count`` images."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._array: np.ndarray | None = None
        self._size = 0
        self._first = ""
        self._transparent: list[str] = []

    def add(self, data: bytes, where: str) -> None:
        """Decode one image and append it.

        Raises:
            DataError: unreadable (names ``where``), or of another size or mode than the first one (names both).
        """
        image, transparent = decode(data, where)
        if transparent:
            self._transparent.append(where)
        if self._array is None:
            self._array, self._first = np.empty((self._count, *image.shape), dtype=np.uint8), where
        if image.shape != self._array.shape[1:]:
            raise DataError(
                f"Images must have one size and mode: {self._first} is {_describe(self._array.shape[1:])}, {where} is "
                f"{_describe(image.shape)}. Convert them to one size, all greyscale or all RGB."
            )
        self._array[self._size] = image
        self._size += 1

    def finish(self) -> np.ndarray:
        """All images, (N, C, H, W) uint8; warns of transparency that was laid over white."""
        if self._transparent:
            warnings.warn(
                f"{len(self._transparent)} images have transparent pixels, which were composited over white "
                f"(first: {self._transparent[0]}).",
                stacklevel=2,
            )
        if self._array is None:
            return np.empty((0, 1, 1, 1), dtype=np.uint8)
        return self._array[: self._size]


def _describe(shape: tuple[int, ...]) -> str:
    return f"{'greyscale' if shape[0] == 1 else 'RGB'} {shape[2]} x {shape[1]} (width x height)"


def decode(data: bytes, where: str) -> tuple[np.ndarray, bool]:
    """Decode one image file to ((C, H, W) uint8, whether it had transparent pixels), C = 1 or 3.

    EXIF rotation is applied, 16-bit values are divided by 257, alpha is composited over white, palettes and other
    colour spaces become RGB. Of 16-bit greyscale with alpha only the high bytes are used.

    Raises:
        DataError: not an image, truncated, animated or of floating-point values; the message names ``where``.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format in _SINGLE_FRAME_FORMATS and getattr(image, "n_frames", 1) > 1:
                raise DataError(f"{where}: has {getattr(image, 'n_frames', 0)} frames, expected a single image.")
            low = _low_bytes(image, data)
            image.load()
            values, maximum, has_alpha = _values(image, where)
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not a readable image: {error}. Replace or remove it.") from None
    if low is not None:
        values, maximum = values.astype(np.int64) * 256 + low, 65535
    pixels, transparent = _to_uint8(values, maximum, has_alpha)
    return np.ascontiguousarray(_oriented(pixels, orientation).transpose(2, 0, 1)), transparent


def _low_bytes(image: Image.Image, data: bytes) -> np.ndarray | None:
    """The low bytes of a 16-bit colour image, (H, W, C); None for any other image."""
    tiles: Any = getattr(image, "tile", [])
    swapped = []
    for tile in tiles:
        arguments = tile[3]
        raw_mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        if raw_mode not in _OTHER_BYTE:
            return None
        other: Any = _OTHER_BYTE[raw_mode]
        swapped.append((*tile[:3], (other, *arguments[1:]) if isinstance(arguments, tuple) else other))
    if not swapped:
        return None
    with Image.open(io.BytesIO(data)) as second:
        setattr(second, "tile", swapped)  # noqa: B010 - Pillow's own type of a tile differs between its versions
        second.load()
        return np.asarray(second)


def _values(image: Image.Image, where: str) -> tuple[np.ndarray, int, bool]:
    """Pixel values (H, W, C), their maximum, and whether the last channel is alpha."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        return np.asarray(image).astype(np.int64)[:, :, None], 65535, False
    if mode in ("I", "F"):
        raise DataError(f"{where}: has 32-bit pixels (mode {mode}), expected 8 or 16 bits. Convert it.")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        target = "LA" if mode in ("1", "L", "LA", "La") else "RGBA"
    else:
        target = "L" if mode in ("1", "L") else "RGB"
    array = np.asarray(image if mode == target else image.convert(target))
    return array.reshape(*array.shape[:2], -1), 255, target in ("LA", "RGBA")


def _to_uint8(values: np.ndarray, maximum: int, has_alpha: bool) -> tuple[np.ndarray, bool]:
    """Values to the nearest of 0..255, over white where there is alpha, and whether any of it was transparent."""
    transparent = False
    if has_alpha:
        alpha = values[:, :, -1:].astype(np.int64)
        transparent = bool(alpha.min() < maximum)
        values = values[:, :, :-1]
        if transparent:
            blended = values.astype(np.int64) * alpha + maximum * (maximum - alpha)
            values, maximum = blended, maximum * maximum
    if maximum != 255:
        values = (2 * 255 * values.astype(np.int64) + maximum) // (2 * maximum)
    return values.astype(np.uint8), transparent


def _oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) turned upright, by the EXIF orientation 1 to 8."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
