"""Decoding image files to uint8 arrays, and stacking them with one size and one mode insisted on."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from genbench.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF")
_FORMAT_NAMES = {"MPO": "JPEG", "DIB": "BMP"}
_EXIF_ORIENTATION = 0x0112
_SINGLE_FRAME_FORMATS = {"PNG", "WEBP", "TIFF"}
_LITTLE_IS_NATIVE = sys.byteorder == "little"
_OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if _LITTLE_IS_NATIVE else "L"))
}
"""Raw modes of which Pillow keeps the high byte, and the byte-swapped raw mode that makes it keep the low one."""


@dataclass(frozen=True)
class Decoded:
    """pixels: (C, H, W) uint8, C = 1 or 3. format: "PNG", "JPEG", ... or "array" for what came from no file.

    transparent: alpha was composited over white. sixteen_bit: values were divided by 257.
    """

    pixels: np.ndarray
    format: str
    transparent: bool = False
    sixteen_bit: bool = False


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
    """Decode one image file to ((C, H, W) uint8, whether it had transparent pixels); see `decode_image`."""
    decoded = decode_image(data, where)
    return decoded.pixels, decoded.transparent


def decode_image(data: bytes, where: str) -> Decoded:
    """Decode one image file.

    EXIF rotation is applied, 16-bit values are divided by 257, alpha is composited over white, palettes and other
    colour spaces become RGB by Pillow's conversion, colour profiles are ignored. Greyscale keeps one channel. Of 16-bit
    greyscale with alpha only the high bytes are used.

    Raises:
        DataError: not an image, truncated, animated, of floating-point values, or of more pixels than Pillow's limit
            against decompression bombs; the message names ``where``.
    """
    with _named(where):
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except UnidentifiedImageError:
            raise DataError(
                f"{where}: not a readable image: cannot identify it as PNG, JPEG, WebP, BMP or TIFF. "
                "Replace or remove it."
            ) from None
        with image:
            _refuse_bomb(image, where)
            if image.format in _SINGLE_FRAME_FORMATS and getattr(image, "n_frames", 1) > 1:
                raise DataError(f"{where}: has {getattr(image, 'n_frames', 0)} frames, expected a single image.")
            deep = any(";16" in str(_raw_mode(tile)) for tile in getattr(image, "tile", ()))
            decoded = _decoded(image, where, _low_bytes(image, data))
            return replace(decoded, sixteen_bit=decoded.sixteen_bit or deep)


def decode_pil(image: Image.Image, where: str) -> Decoded:
    """The pixels of an open Pillow image, by the rules of `decode_image`.

    Raises:
        DataError: it cannot be loaded, has floating-point values or too many pixels; the message names ``where``.
    """
    with _named(where):
        _refuse_bomb(image, where)
        return _decoded(image, where, None)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Whatever Pillow raises over a file's content becomes an error that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{where}: not a readable image: {reason}. Replace or remove it.") from None


def _refuse_bomb(image: Image.Image, where: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise DataError(
            f"{where}: {image.width} x {image.height} pixels are more than the limit of {limit} against decompression "
            "bombs. Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it."
        )


def _decoded(image: Image.Image, where: str, low: np.ndarray | None) -> Decoded:
    """``low``: the low bytes of 16-bit colour, of which Pillow keeps only the high ones."""
    image.load()
    values, maximum, has_alpha = _values(image, where)
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    if low is not None:
        values, maximum = values.astype(np.int64) * 256 + low, 65535
    pixels, transparent = _to_uint8(values, maximum, has_alpha)
    upright = np.ascontiguousarray(_oriented(pixels, orientation).transpose(2, 0, 1))  # (C, H, W)
    kind = _FORMAT_NAMES.get(image.format or "", image.format or "array")
    return Decoded(upright, kind, transparent, maximum == 65535)


def _raw_mode(tile: Any) -> Any:
    arguments = tile[3]
    return arguments[0] if isinstance(arguments, tuple) and arguments else arguments


def _low_bytes(image: Image.Image, data: bytes) -> np.ndarray | None:
    """The low bytes of a 16-bit colour image, (H, W, C); None for any other image."""
    tiles: Any = getattr(image, "tile", [])
    swapped = []
    for tile in tiles:
        arguments, raw_mode = tile[3], _raw_mode(tile)
        if raw_mode not in _OTHER_BYTE:
            return None
        other: Any = _OTHER_BYTE[raw_mode]
        swapped.append((*tile[:3], (other, *arguments[1:]) if isinstance(arguments, tuple) else other))
    if not swapped:
        return None
    with Image.open(io.BytesIO(data), formats=_FORMATS) as second:
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
