"""Writing images for other tools: one npz, or a folder of PNG files."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from genbench.errors import UsageError
from genbench.files import write_npz


def check_target(out: Path) -> None:
    """Check that `write_images` could write to ``out``, leaving nothing behind.

    Raises:
        UsageError: another ending than ``.npz``, a folder with files in it, a file where a folder is asked for (or the
            reverse), or a place that cannot be written.
    """
    if out.suffix not in ("", ".npz"):
        raise UsageError(f"--out {out}: expected FILE.npz or a folder (a name without an ending).")
    try:
        if out.suffix and out.is_dir():
            raise UsageError(f"--out {out}: a folder has this name; expected FILE.npz or a folder without an ending.")
        if not out.suffix and out.exists():
            if not out.is_dir():
                raise UsageError(f"--out {out}: a file is in the way. Name FILE.npz or another folder.")
            if any(out.iterdir()):
                raise UsageError(f"--out {out}: the folder is not empty; samples would mix with what is there.")
        place = out.resolve()
        if not place.is_dir():
            place = place.parent
        while not place.exists():
            place = place.parent
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise _cannot_write(out, error) from None


def write_images(
    out: Path,
    images: np.ndarray,
    report: Callable[[int, int], None] | None = None,
    labels: np.ndarray | None = None,
) -> None:
    """Write (N, C, H, W) uint8 images to ``out``: ``FILE.npz`` (``arr_0``, N H W C) or a folder of ``000000.png``, ...

    When writing fails or is interrupted, ``out`` is as it was before, so the same call can be made again.

    Args:
        report: called with (written, N) after each PNG file, or once after the npz.
        labels: (N,) int64 classes of the images, for the npz (``arr_1``); a folder holds none.

    Raises:
        UsageError: as `check_target`, or a write that fails, on a full disk say.
    """
    check_target(out)
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    try:
        if out.suffix:
            write_npz(out, arr_0=channels_last, **({} if labels is None else {"arr_1": labels}))
            if report is not None:
                report(len(images), len(images))
            return
        with _whole_folder(out.resolve()) as folder:
            digits = max(6, len(str(len(images) - 1)))
            for number, image in enumerate(channels_last):
                gray = image.shape[-1] == 1
                Image.fromarray(image[..., 0] if gray else image).save(folder / f"{number:0{digits}d}.png")
                if report is not None:
                    report(number + 1, len(images))
    except OSError as error:
        raise _cannot_write(out, error) from None


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to fill that becomes ``out`` when the block succeeds and is gone when it fails.

    It is a temporary sibling, renamed at the end. An existing empty ``out`` is filled in place (a mount point cannot be
    replaced, and its permissions stay) and emptied again on failure.
    """
    if out.is_dir():
        try:
            yield out
        except BaseException:
            for path in out.glob("*.png"):
                path.unlink(missing_ok=True)
            raise
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _cannot_write(out: Path, error: OSError) -> UsageError:
    return UsageError(f"Cannot write to {out}: {error.strerror or error}. Choose another place with --out.")
