"""Reader of npz archives: the layout of ADM's evaluator (``arr_0``, ``arr_1``), or one array per split."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genbench.data.arrays import Layout, channels_last, open_npz
from genbench.data.base import SplitName
from genbench.data.labels import index_labels
from genbench.data.split import Part, RawDataset
from genbench.errors import DataError

_PREFIXES: dict[str, SplitName] = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class ImageKeys:
    """Names of arrays in an npz: of the images, and of the labels where there may be some."""

    images: str
    labels: str


def image_keys(keys: Collection[str]) -> dict[SplitName | None, ImageKeys]:
    """Where an npz has images, by split; under None where it is ``arr_0`` and has no splits. Empty without any."""
    if "arr_0" in keys:
        return {None: ImageKeys("arr_0", "arr_1")}
    found: dict[SplitName | None, ImageKeys] = {}
    for prefix, split in _PREFIXES.items():
        key = next((key for key in (prefix, f"{prefix}_images") if key in keys), None)
        if key is not None:
            found.setdefault(split, ImageKeys(key, f"{prefix}_labels"))
    return found


def read_npz(path: Path) -> RawDataset:
    """Read ``arr_0`` (N, H, W, C) uint8 with optional labels ``arr_1`` (N,), or arrays by split.

    Arrays by split are named ``train``, ``validation`` (or ``val``) and ``test``, or ``train_images`` and so on, with
    optional labels ``train_labels``; their axes are N H W C, N C H W or N H W, told apart by the axis of size 1 or 3.

    Raises:
        DataError: corrupted, no such keys, another type than uint8, or axes that cannot be told; names file and key.
    """
    stored = open_npz(path)
    keys = image_keys(stored)
    if not keys:
        raise DataError(f"{path}: has {', '.join(stored) or 'nothing'}; expected arr_0, or train (and test).")
    found: dict[SplitName, tuple[np.ndarray, np.ndarray | None]] = {}
    for split, names in keys.items():
        images = _images(stored[names.images].load(), stored[names.images].where, prefer_last=split is None)
        values = stored[names.labels].load() if names.labels in stored else None
        found[split or "train"] = (images, None if values is None else check_labels(str(path), len(images), values))
    labels = [values for _, values in found.values() if values is not None]
    if len(labels) < len(found):
        return RawDataset(str(path), {split: Part(images, None) for split, (images, _) in found.items()})
    indices, class_names = index_labels(np.concatenate(labels))
    bounds = np.cumsum([len(images) for images, _ in found.values()])[:-1]
    parts = {
        split: Part(images, part)
        for (split, (images, _)), part in zip(found.items(), np.split(indices, bounds), strict=True)
    }
    return RawDataset(str(path), parts, class_names)


def _images(array: np.ndarray, where: str, prefer_last: bool) -> np.ndarray:
    """Any of the accepted layouts to (N, C, H, W) uint8."""
    if array.dtype != np.uint8:
        raise DataError(f"{where} is {array.dtype}, expected uint8 in 0..255. Convert it before saving.")
    if array.ndim == 3:
        return array[:, None]
    known: Layout | None = "NHWC" if prefer_last and array.shape[-1:] in ((1,), (3,)) else None
    return array.transpose(0, 3, 1, 2) if channels_last(array.shape, where, known) else array


def check_labels(where: str, count: int, values: np.ndarray) -> np.ndarray:
    """Labels as (N,) int64.

    Raises:
        DataError: no whole numbers, or not one per image.
    """
    if values.dtype.kind not in "iu" or values.size != count:
        raise DataError(
            f"{where}: labels of type {values.dtype} and shape {values.shape} for {count} images; "
            "expected one whole number per image."
        )
    return values.reshape(-1).astype(np.int64)
