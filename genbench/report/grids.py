"""Images as PNG data URIs: pixel-exact grids of small images, transparent in the gaps so that both themes show."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genbench.errors import DataError

TILE = 32
"""Side in pixels up to which small images are enlarged; large ones are shrunk to four times it."""

MAX_BYTES = 256 * 1024
"""Of a stored picture: a page of many rows cannot hold large ones."""
PNG = b"\x89PNG\r\n\x1a\n"
_URI = "data:image/png;base64,"


@dataclass(frozen=True)
class Picture:
    """An image for the page. width, height: in CSS pixels, so that the page does not move while it loads."""

    uri: str
    width: int
    height: int
    alt: str

    @property
    def png(self) -> bytes:
        """The image as a file."""
        return base64.b64decode(self.uri.removeprefix(_URI))


def read_picture(path: Path, alt: str) -> Picture:
    """A stored picture.

    Raises:
        DataError: no PNG, or a large one.
    """
    image = Path(path).read_bytes()
    if not image.startswith(PNG) or len(image) > MAX_BYTES:
        raise DataError(
            f"{path}: {len(image) // 1024} KiB, expected a PNG of at most {MAX_BYTES // 1024} KiB. Make it anew."
        )
    width, height = int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big")
    return Picture(_URI + base64.b64encode(image).decode("ascii"), width, height, alt)


def mosaic(images: np.ndarray, gap: int = 2) -> np.ndarray:
    """Tile (R, S, H, W, C) uint8 into one (height, width, C + 1) image with an alpha channel that is 0 in the gaps."""
    rows, across, height, width, channels = images.shape
    canvas = np.zeros((rows, height + gap, across, width + gap, channels + 1), np.uint8)
    canvas[:, :height, :, :width, :channels] = images.transpose(0, 2, 1, 3, 4)
    canvas[:, :height, :, :width, channels] = 255
    flat = canvas.reshape(rows * (height + gap), across * (width + gap), channels + 1)
    return flat[: rows * (height + gap) - gap, : across * (width + gap) - gap]


def enlarge(images: np.ndarray, tile: int = TILE) -> np.ndarray:
    """Repeat the pixels of (..., H, W, C) images by the largest whole factor that keeps them within ``tile``.

    Images with a side of more than 4 ``tile`` become means over whole blocks instead.
    """
    *lead, height, width, channels = images.shape
    side = max(height, width)
    if side > 4 * tile:
        step = math.ceil(side / (4 * tile))
        kept = images[..., : height // step * step, : width // step * step, :]
        blocks = kept.reshape(*lead, height // step, step, width // step, step, channels)
        return np.rint(blocks.mean(axis=(-4, -2))).astype(np.uint8)
    factor = max(1, tile // side)
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def png_uri(pixels: np.ndarray) -> str:
    """(H, W, 2) grey or (H, W, 4) colour with alpha, uint8, to a ``data:`` URI."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=4)
    return _URI + base64.b64encode(buffer.getvalue()).decode("ascii")


def picture(images: np.ndarray, alt: str, gap: int = 2) -> Picture:
    """A mosaic of (R, S, H, W, C) uint8 images."""
    pixels = mosaic(enlarge(images), gap)
    return Picture(png_uri(pixels), pixels.shape[1], pixels.shape[0], alt)


def square_grid(images: np.ndarray, alt: str, side: int = 8) -> Picture:
    """The first ``side`` x ``side`` of (N, H, W, C) images in a square; fewer of few or large images."""
    if max(images.shape[1:3]) > 2 * TILE:
        side = min(side, 4)
    side = max(1, min(side, math.isqrt(len(images))))
    chosen = images[: side * side]
    return picture(chosen.reshape(side, side, *images.shape[1:]), alt)


def pairs(top: np.ndarray, bottom: np.ndarray, alt: str, across: int = 10) -> Picture:
    """Two rows: the first images of ``top`` (N, H, W, C) and below each its partner in ``bottom``."""
    count = min(len(top), len(bottom), across)
    return picture(np.stack([top[:count], bottom[:count]]), alt)
