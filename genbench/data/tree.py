"""Image folders and image zips: one layout, read from disk or from inside the archive, which is never extracted.

Layout: images anywhere below the root, in subfolders ``train``, ``validation`` (or ``val``) and ``test`` where there
are splits, then in one subfolder per class where there are classes. A ``dataset.json`` in the root, as in the archives
of EDM and StyleGAN (``{"labels": [[FILE, CLASS], ...]}``), takes the place of class subfolders.
"""

from __future__ import annotations

import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from genbench.data.base import SplitName
from genbench.data.decode import SUFFIXES, ImageStack
from genbench.data.labels import index_labels
from genbench.data.members import check_size, member_parts, read_regular, refuse_link
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
_BLOCK_FOLDER = re.compile(r"\d{5,}")

File = tuple[str, ...]
"""A file's folders and name, relative to the root."""


@dataclass(frozen=True)
class Tree:
    """Files below a root, how one is read, and how the root is called in messages."""

    origin: str
    files: list[File]
    read: Callable[[File], bytes]

    def where(self, file: File) -> str:
        """How messages call a file."""
        return f"{self.origin}: {'/'.join(file)}"

    def content(self, file: File) -> bytes:
        """The bytes of a file.

        Raises:
            DataError: it cannot be read; names it.
        """
        try:
            return self.read(file)
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{self.where(file)}: cannot be read: {error}. Replace the file.") from None


@dataclass(frozen=True)
class Survey:
    """What a tree holds. images: sorted. depth: leading folders that all share. manifest: the ``dataset.json``."""

    images: list[File]
    depth: int
    manifest: File | None


def folder_tree(path: Path) -> Tree:
    """All files below a folder; links are followed, each folder is entered once.

    Raises:
        DataError: not a folder, or one below it that may not be listed.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed: {error.strerror}. Make it readable or move it away.")

    if not path.is_dir():
        raise DataError(f"{path}: not a folder. For an archive give zip:FILE, npz:FILE or parquet:FILE.")
    files: list[File] = []
    visited: set[str] = set()
    for folder, subfolders, names in os.walk(path, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in visited else sorted(subfolders)
        if real not in visited:
            files += [(*Path(folder).relative_to(path).parts, name) for name in names]
        visited.add(real)
    return Tree(str(path), files, lambda file: read_regular(path.joinpath(*file)))


@contextmanager
def open_zip(path: Path) -> Iterator[Tree]:
    """The members of a zip, open while the context lasts.

    Raises:
        DataError: not a zip archive, or members that are links or whose names lead out of it.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:
        raise DataError(f"{path}: not a readable zip archive: {error}. Fetch or make it again.") from None
    with archive:
        members: dict[File, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            parts = member_parts(str(path), info.filename)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise refuse_link(str(path), info.filename)
            if not info.is_dir():
                members[parts] = info

        def read(file: File) -> bytes:
            check_size(f"{path}: {'/'.join(file)}", members[file].file_size)
            return archive.read(members[file])

        yield Tree(str(path), list(members), read)


def is_hidden(file: File) -> bool:
    """Whether it is a hidden file, or lies in a hidden folder or in one of those that macOS adds to archives."""
    return any(part.startswith((".", "__MACOSX")) for part in file)


def is_image(name: str) -> bool:
    """Whether the suffix, in any case, is that of an image file."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def survey(origin: str, files: Iterable[File]) -> Survey:
    """Find the images and the ``dataset.json`` among files.

    Raises:
        DataError: no images.
    """
    visible = sorted(file for file in files if not is_hidden(file))
    images = [file for file in visible if is_image(file[-1])]
    if not images:
        raise DataError(f"{origin}: no images found ({', '.join(sorted(SUFFIXES))}, in any subfolder).")
    manifests = [file for file in visible if file[-1] == MANIFEST]
    depth = _common_depth(images + manifests)
    return Survey(images, depth, next((file for file in manifests if len(file) == depth + 1), None))


def read_classes(tree: Tree, found: Survey) -> dict[File, str | int]:
    """The class of each image, by ``dataset.json`` or by subfolder; empty where there are no classes.

    Raises:
        DataError: a ``dataset.json`` that is malformed or lacks an image.
    """
    if found.manifest is not None:
        return manifest_classes(tree.where(found.manifest), tree.content(found.manifest), found)
    return folder_classes(found)


def read_folder(path: Path) -> RawDataset:
    """Read a folder of images, see the module's docstring. Hidden files and other types of files are skipped.

    Raises:
        DataError: no images, an unreadable one, images of different sizes or modes, or an unfit ``dataset.json``.
    """
    return _read(folder_tree(path))


def read_zip(path: Path) -> RawDataset:
    """Read a zip of images, see the module's docstring.

    Raises:
        DataError: as `read_folder`, or an archive or member that is corrupted or encrypted.
    """
    with open_zip(path) as tree:
        return _read(tree)


def _read(tree: Tree) -> RawDataset:
    found = survey(tree.origin, tree.files)
    splits = _assign_splits(tree, found)
    classes = read_classes(tree, found)
    labels, class_names = index_labels([classes[file] for file in found.images]) if classes else (None, ())
    row = {file: i for i, file in enumerate(found.images)}
    parts: dict[SplitName, Part] = {}
    for split, files in splits.items():
        chosen = None if labels is None else labels[[row[file] for file in files]]
        parts[split] = Part(_decode_all(tree, files), chosen)
    return RawDataset(tree.origin, parts, class_names)


def _common_depth(files: list[File]) -> int:
    """Number of leading folders that all files share, those named like a split not counted."""
    depth = 0
    for level in zip(*(file[:-1] for file in files)):
        if len(set(level)) > 1 or level[0].lower() in SPLIT_FOLDERS:
            break
        depth += 1
    return depth


def _assign_splits(tree: Tree, found: Survey) -> dict[SplitName, list[File]]:
    """Images by split; all of them are "train" where there is no folder of that name."""
    images, depth = found.images, found.depth
    if not any(len(file) > depth + 1 and file[depth].lower() == "train" for file in images):
        only = {file[depth].lower() if len(file) > depth + 1 else "" for file in images}
        if only <= SPLIT_FOLDERS.keys():
            raise DataError(f"{tree.origin}: has {' and '.join(sorted(only))} but no train folder. Add one.")
        return {"train": images}
    splits: dict[SplitName, list[File]] = {}
    for file in images:
        split = SPLIT_FOLDERS.get(file[depth].lower()) if len(file) > depth + 1 else None
        if split is None:
            raise DataError(
                f"{tree.where(file)}: lies outside the folders train, validation and test. Move it into one of them."
            )
        splits.setdefault(split, []).append(file)
    return splits


def folder_classes(found: Survey) -> dict[File, str | int]:
    """The class subfolder of each image; empty unless all images lie in such, and there are at least two.

    Subfolders that are all called by five digits or more number blocks of images (``00000``, ``01000``), not classes.
    """
    depth = found.depth
    if all(len(file) > depth + 1 and file[depth].lower() in SPLIT_FOLDERS for file in found.images):
        depth += 1
    if any(len(file) < depth + 2 for file in found.images):
        return {}
    names = {file[depth] for file in found.images}
    if len(names) < 2 or all(_BLOCK_FOLDER.fullmatch(name) for name in names):
        return {}
    return {file: file[depth] for file in found.images}


def manifest_classes(where: str, content: bytes, found: Survey) -> dict[File, str | int]:
    """The class of each image by the content of ``dataset.json``; empty where its labels are null.

    Raises:
        DataError: malformed, labels that are no whole numbers, or an image without one.
    """
    try:
        pairs = json.loads(content)["labels"]
        entries = [] if pairs is None else [(str(file), label) for file, label in pairs]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f'{where}: expected {{"labels": [[FILE, CLASS], ...]}} or null labels ({error!r}).') from None
    if not entries:
        return {}
    bad = next((entry for entry in entries if type(entry[1]) is not int or entry[1] < 0), None)
    if bad is not None:
        raise DataError(f"{where}: the label of {bad[0]} is {bad[1]!r}, expected a class number from 0 on.")
    folders = () if found.manifest is None else found.manifest[:-1]
    labels = {(*folders, *PurePosixPath(file).parts): label for file, label in entries}
    missing = next((file for file in found.images if file not in labels), None)
    if missing is not None:
        raise DataError(f"{where}: has no label for {'/'.join(missing)}. Label all images or none.")
    return {file: labels[file] for file in found.images}


def _decode_all(tree: Tree, files: list[File]) -> np.ndarray:
    stack = ImageStack(len(files))
    for file in files:
        stack.add(tree.content(file), tree.where(file))
    return stack.finish()
