"""Image folders and image zips: one layout, read from disk or from inside the archive, which is never extracted.

Layout: images anywhere below the root, in subfolders ``train``, ``validation`` (or ``val``) and ``test`` where there
are splits, then in one subfolder per class where there are classes. A ``dataset.json`` in the root, as in the archives
of EDM and StyleGAN (``{"labels": [[FILE, CLASS], ...]}``), takes the place of class subfolders.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from genbench.data.base import SplitName
from genbench.data.decode import SUFFIXES, ImageStack
from genbench.data.labels import index_labels
from genbench.data.split import Part, RawDataset
from genbench.errors import DataError

MANIFEST = "dataset.json"
SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class _Tree:
    """Files below a root: their names (parts, relative), how one is read, and how it is called in messages."""

    origin: str
    files: list[tuple[str, ...]]
    read: Callable[[tuple[str, ...]], bytes]

    def where(self, file: tuple[str, ...]) -> str:
        return f"{self.origin}: {'/'.join(file)}"


def read_folder(path: Path) -> RawDataset:
    """Read a folder of images, see the module's docstring. Hidden files and other types of files are skipped.

    Raises:
        DataError: no images, an unreadable one, images of different sizes or modes, or an unfit ``dataset.json``.
    """
    if not path.is_dir():
        raise DataError(f"{path}: not a folder. For an archive give zip:FILE, npz:FILE or parquet:FILE.")
    files: list[tuple[str, ...]] = []
    visited: set[str] = set()
    for folder, subfolders, names in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in visited else sorted(subfolders)
        if real not in visited:
            files += [(*Path(folder).relative_to(path).parts, name) for name in names]
        visited.add(real)
    return _read(_Tree(str(path), files, lambda file: path.joinpath(*file).read_bytes()))


def read_zip(path: Path) -> RawDataset:
    """Read a zip of images, see the module's docstring.

    Raises:
        DataError: as `read_folder`, or an archive or member that is corrupted or encrypted.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {PurePosixPath(info.filename).parts: info for info in archive.infolist() if not info.is_dir()}
            return _read(_Tree(str(path), list(names), lambda file: archive.read(names[file])))
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable zip archive: {error}. Fetch or make it again.") from None


def _read(tree: _Tree) -> RawDataset:
    images, manifests = [], []
    for file in sorted(tree.files):
        if any(part.startswith((".", "__MACOSX")) for part in file):
            continue
        if PurePosixPath(file[-1]).suffix.lower() in SUFFIXES:
            images.append(file)
        elif file[-1] == MANIFEST:
            manifests.append(file)
    if not images:
        raise DataError(f"{tree.origin}: no images found ({', '.join(sorted(SUFFIXES))}, in any subfolder).")
    depth = _common_depth(images + manifests)
    manifest = next((file for file in manifests if len(file) == depth + 1), None)
    splits = _assign_splits(tree, images, depth)
    classes = _manifest_classes(tree, manifest, images) if manifest else _folder_classes(splits, depth)
    labels, class_names = index_labels([classes[file] for file in images]) if classes else (None, ())
    row = {file: i for i, file in enumerate(images)}
    parts: dict[SplitName, Part] = {}
    for split, files in splits.items():
        chosen = None if labels is None else labels[[row[file] for file in files]]
        parts[split] = Part(_decode_all(tree, files), chosen)
    return RawDataset(tree.origin, parts, class_names)


def _common_depth(files: list[tuple[str, ...]]) -> int:
    """Number of leading folders that all files share, those named like a split not counted."""
    depth = 0
    for level in zip(*(file[:-1] for file in files)):
        if len(set(level)) > 1 or level[0].lower() in SPLIT_FOLDERS:
            break
        depth += 1
    return depth


def _assign_splits(tree: _Tree, images: list[tuple[str, ...]], depth: int) -> dict[SplitName, list[tuple[str, ...]]]:
    """Images by split; all of them are "train" where there is no folder of that name."""
    if not any(len(file) > depth + 1 and file[depth].lower() == "train" for file in images):
        only = {file[depth].lower() if len(file) > depth + 1 else "" for file in images}
        if only <= SPLIT_FOLDERS.keys():
            raise DataError(f"{tree.origin}: has {' and '.join(sorted(only))} but no train folder. Add one.")
        return {"train": images}
    splits: dict[SplitName, list[tuple[str, ...]]] = {}
    for file in images:
        split = SPLIT_FOLDERS.get(file[depth].lower()) if len(file) > depth + 1 else None
        if split is None:
            raise DataError(
                f"{tree.where(file)}: lies outside the folders train, validation and test. Move it into one of them."
            )
        splits.setdefault(split, []).append(file)
    return splits


def _folder_classes(splits: dict[SplitName, list[tuple[str, ...]]], depth: int) -> dict[tuple[str, ...], str | int]:
    """The class subfolder of each image; empty unless all images lie in such, and there are at least two."""
    if len(splits) > 1 or any(file[depth].lower() == "train" for file in splits["train"] if len(file) > depth + 1):
        depth += 1
    files = [file for part in splits.values() for file in part]
    if any(len(file) < depth + 2 for file in files) or len({file[depth] for file in files}) < 2:
        return {}
    return {file: file[depth] for file in files}


def _manifest_classes(
    tree: _Tree, manifest: tuple[str, ...], images: list[tuple[str, ...]]
) -> dict[tuple[str, ...], str | int]:
    """The class of each image by ``dataset.json``; empty where its labels are null."""
    where = tree.where(manifest)
    try:
        pairs = json.loads(_bytes(tree, manifest))["labels"]
        entries = [] if pairs is None else [(str(file), label) for file, label in pairs]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f'{where}: expected {{"labels": [[FILE, CLASS], ...]}} or null labels ({error!r}).') from None
    if not entries:
        return {}
    bad = next((entry for entry in entries if type(entry[1]) is not int or entry[1] < 0), None)
    if bad is not None:
        raise DataError(f"{where}: the label of {bad[0]} is {bad[1]!r}, expected a class number from 0 on.")
    labels = {(*manifest[:-1], *PurePosixPath(file).parts): label for file, label in entries}
    missing = next((file for file in images if file not in labels), None)
    if missing is not None:
        raise DataError(f"{where}: has no label for {'/'.join(missing)}. Label all images or none.")
    return {file: labels[file] for file in images}


def _bytes(tree: _Tree, file: tuple[str, ...]) -> bytes:
    try:
        return tree.read(file)
    except (OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{tree.where(file)}: cannot be read: {error}. Replace the file.") from None


def _decode_all(tree: _Tree, files: list[tuple[str, ...]]) -> np.ndarray:
    stack = ImageStack(len(files))
    for file in files:
        stack.add(_bytes(tree, file), tree.where(file))
    return stack.finish()
