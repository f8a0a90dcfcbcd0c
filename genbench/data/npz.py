"""Reader of npz archives: the layout of ADM's evaluator (``arr_0``, ``arr_1``), or one array per split."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from genbench.data.base import SplitName
from genbench.data.labels import index_labels
from genbench.data.split import Part, RawDataset
from genbench.errors import DataError

_SPLIT_KEYS: dict[str, SplitName] = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def read_npz(path: Path) -> RawDataset:
    """Read ``arr_0`` (N, H, W, C) uint8 with optional labels ``arr_1`` (N,), or arrays by split.

    Arrays by split are named ``train``, ``validation`` (or ``val``) and ``test``, or ``train_images`` and so on, with
    optional labels ``train_labels``; their axes are N H W C, N C H W or N H W, told apart by the axis of size 1 or 3.

    Raises:
        DataError: corrupted, no such keys, another type than uint8, or axes that cannot be told; names file and key.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise DataError(f"{path}: holds a single array, expected an npz archive with arr_0 or train.")
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable npz archive: {error}. Fetch or make it again.") from None
    found: dict[SplitName, tuple[np.ndarray, np.ndarray | None]] = {}
    if "arr_0" in arrays:
        found["train"] = (_images(path, "arr_0", arrays["arr_0"], prefer_last=True), arrays.get("arr_1"))
    else:
        for prefix, split in _SPLIT_KEYS.items():
            key = next((key for key in (prefix, f"{prefix}_images") if key in arrays), None)
            if key is not None:
                found[split] = (_images(path, key, arrays[key]), arrays.get(f"{prefix}_labels"))
    if not found:
        raise DataError(f"{path}: has {', '.join(arrays) or 'nothing'}; expected arr_0, or train (and test).")
    labels = [_labels(path, images, values) for images, values in found.values()]
    if any(values is None for values in labels):
        parts = {split: Part(images, None) for split, (images, _) in found.items()}
        return RawDataset(str(path), parts)
    indices, class_names = index_labels(np.concatenate([values for values in labels if values is not None]))
    bounds = np.cumsum([len(images) for images, _ in found.values()])[:-1]
    parts = {
        split: Part(images, part)
        for (split, (images, _)), part in zip(found.items(), np.split(indices, bounds), strict=True)
    }
    return RawDataset(str(path), parts, class_names)


def _images(path: Path, key: str, array: np.ndarray, prefer_last: bool = False) -> np.ndarray:
    """Any of the accepted layouts to (N, C, H, W) uint8."""
    if array.dtype != np.uint8:
        raise DataError(f"{path}: {key} is {array.dtype}, expected uint8 in 0..255. Convert it before saving.")
    if array.ndim == 3:
        return array[:, None]
    last, first = array.ndim == 4 and array.shape[3] in (1, 3), array.ndim == 4 and array.shape[1] in (1, 3)
    if last and (prefer_last or not first):
        return array.transpose(0, 3, 1, 2)
    if first and not last:
        return array
    why = "both N H W C and N C H W fit" if last and first else "one axis, the second or the last, must be 1 or 3"
    raise DataError(f"{path}: {key} has shape {array.shape}: {why}. Save it as arr_0 in N H W C.")


def _labels(path: Path, images: np.ndarray, values: np.ndarray | None) -> np.ndarray | None:
    if values is None:
        return None
    if values.dtype.kind not in "iu" or values.size != len(images):
        raise DataError(
            f"{path}: labels of type {values.dtype} and shape {values.shape} for {len(images)} images; "
            "expected one whole number per image."
        )
    return values.reshape(-1).astype(np.int64)
