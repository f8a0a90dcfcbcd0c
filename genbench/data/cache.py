"""Splits as files that worker processes open memory-mapped: arrays in .npy, all else in a JSON manifest.

The arrays are named by their dataset's fingerprint, and the manifest is written last, so that a folder holds one whole
dataset at any moment, whatever was interrupted.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from genbench.api import ImageSpec
from genbench.data.base import ImageDataset, Splits
from genbench.data.split import SPLIT_NAMES
from genbench.errors import DataError
from genbench.files import atomic_path, write_json

_MANIFEST = "splits.json"
_VERSION = 2


def store_splits(splits: Splits, folder: Path) -> None:
    """Write the splits under ``folder`` atomically; arrays that are there already are not written again."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = {}
    for dataset in (splits.train, splits.validation, splits.test):
        stem = f"{dataset.split}-{dataset.fingerprint[:16]}"
        entries[dataset.split] = {
            "fingerprint": dataset.fingerprint,
            "images": _store(folder / f"{stem}-images.npy", dataset.images),
            "labels": _store_optional(folder / f"{stem}-labels.npy", dataset.labels),
            "intensities": _store_optional(folder / f"{stem}-intensities.npy", dataset.intensities),
        }
    spec = {**asdict(splits.spec), "class_names": list(splits.spec.class_names)}
    write_json(folder / _MANIFEST, {"version": _VERSION, "name": splits.name, "spec": spec, "splits": entries})


def open_splits(folder: Path) -> Splits:
    """Open what `store_splits` wrote: read-only, memory-mapped, with the stored fingerprints.

    Raises:
        DataError: manifest or arrays missing, truncated or of another shape than stored; the message names the file.
    """
    path = Path(folder) / _MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["version"] != _VERSION:
            raise ValueError(f"version {manifest['version']!r}, expected {_VERSION}")
        stored = manifest["spec"]
        spec = ImageSpec(**{**stored, "class_names": tuple(stored["class_names"])})
        entries, name = manifest["splits"], manifest["name"]
        datasets = {
            split: ImageDataset(
                name=name,
                split=split,
                images=_open(path.parent, entries[split]["images"]),
                labels=_open_optional(path.parent, entries[split]["labels"]),
                intensities=_open_optional(path.parent, entries[split]["intensities"]),
                spec=spec,
                known_fingerprint=entries[split]["fingerprint"],
            )
            for split in SPLIT_NAMES
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a readable stored dataset: {error}. Delete its folder and run again.") from None
    return Splits(name, datasets["train"], datasets["validation"], datasets["test"])


def _store(path: Path, array: np.ndarray) -> dict[str, Any]:
    entry = {"file": path.name, "shape": list(array.shape), "dtype": array.dtype.str}
    if not _is_whole(path, entry):
        with atomic_path(path) as temporary:
            np.save(temporary, np.ascontiguousarray(array), allow_pickle=False)
    return entry


def _store_optional(path: Path, array: np.ndarray | None) -> dict[str, Any] | None:
    return None if array is None else _store(path, array)


def _open_optional(folder: Path, entry: dict[str, Any] | None) -> np.ndarray | None:
    return None if entry is None else _open(folder, entry)


def _is_whole(path: Path, entry: dict[str, Any]) -> bool:
    try:
        _open(path.parent, entry)
    except (OSError, ValueError, DataError):
        return False
    return True


def _open(folder: Path, entry: dict[str, Any]) -> np.ndarray:
    path = folder / entry["file"]
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable array: {error}. Delete its folder and run again.") from None
    if list(array.shape) != entry["shape"] or array.dtype.str != entry["dtype"]:
        raise DataError(f"{path}: is {array.dtype} {array.shape}, expected {entry['dtype']} {entry['shape']}.")
    return array
