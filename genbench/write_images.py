"""Writing images for other tools: one npz, or a folder of PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from genbench.errors import UsageError
from genbench.files import atomic_path, write_npz


def write_images(out: Path, images: np.ndarray) -> None:
    """Write (N, C, H, W) uint8 images to ``out``: ``FILE.npz`` (``arr_0``, N H W C) or a folder of ``000000.png``, ...

    Raises:
        UsageError: a place that cannot be written, or a folder that already holds other files.
    """
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    try:
        if out.suffix == ".npz":
            write_npz(out, arr_0=channels_last)
            return
        if out.suffix:
            raise UsageError(f"--out {out}: expected FILE.npz or a folder (a name without an ending).")
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise UsageError(f"--out {out}: the folder is not empty; samples would mix with what is there.")
        for number, image in enumerate(channels_last):
            with atomic_path(out / f"{number:06d}.png") as temporary:
                Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(temporary, format="PNG")
    except OSError as error:
        raise UsageError(
            f"Cannot write to {out}: {error.strerror or error}. Choose another place with --out."
        ) from None
