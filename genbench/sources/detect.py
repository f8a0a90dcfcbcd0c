"""What kind of input a path is, by its content, and which files a pattern names."""

from __future__ import annotations

import glob
import os
import re
import stat
import zipfile
from itertools import islice, product
from pathlib import Path
from typing import Literal, get_args

from genbench.data.decode import SUFFIXES
from genbench.data.tree import folder_tree, is_hidden, is_image
from genbench.errors import DataError, UsageError

Kind = Literal["folder", "zip", "tar", "npz", "npy", "parquet"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_SHARDS = 100_000
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})")


def detect_kind(path: Path) -> Kind:
    """The kind of a file or folder that exists.

    Raises:
        DataError: neither, or content of no known kind; says what was expected.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _kind_of_folder(path)
        if not stat.S_ISREG(mode):
            raise DataError(f"{path}: neither a file nor a folder.")
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[257:262] == b"ustar" or head.startswith(_COMPRESSED) or path.name.lower().endswith(_TAR_SUFFIXES):
        return "tar"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _kind_of_zip(path)
    by_suffix: dict[str, Kind] = {".zip": "zip", ".npz": "npz", ".npy": "npy", ".parquet": "parquet"}
    if path.suffix.lower() in by_suffix:
        return by_suffix[path.suffix.lower()]
    raise _unknown_content(path, head)


def _unknown_content(path: Path, head: bytes) -> DataError:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return DataError(f"{path}: a single image. Give the folder that it is in.")
    if suffix in (".pkl", ".pickle", ".pt", ".pth") or head[:1] == b"\x80":
        return DataError(
            f"{path}: pickles are never opened, as they may hold code. Save images as npz (arr_0, N H W C), statistics "
            "as npz (mu and sigma)."
        )
    return DataError(f"{path}: neither {', '.join(KINDS[1:])} nor a folder by its content. {forms()}")


def _kind_of_folder(path: Path) -> Kind:
    """A folder of images, unless it has none but parquet files or tar archives."""
    names = [file[-1].lower() for file in folder_tree(path).files if not is_hidden(file)]
    if not any(map(is_image, names)):
        if any(name.endswith(".parquet") for name in names):
            return "parquet"
        if any(name.endswith(_TAR_SUFFIXES) for name in names):
            return "tar"
    return "folder"


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:
        raise DataError(f"{path}: not a readable zip or npz archive: {error}. Fetch or make it again.") from None
    if any(name.endswith("/data.pkl") for name in names):
        raise _unknown_content(path, b"\x80")
    return "npz" if any(name.endswith(".npy") for name in names) and not any(map(is_image, names)) else "zip"


def expand(pattern: str) -> list[Path] | None:
    """The files that a pattern with ``{000..123}``, ``{a,b}``, ``*``, ``?`` or ``[...]`` names; None without any of it.

    Raises:
        UsageError: braces that make more than `MAX_SHARDS` names, or a range that goes down.
        DataError: a name by braces that is not there, or a pattern that fits no file.
    """
    if not _BRACES.search(pattern) and not glob.has_magic(pattern):
        return None
    pieces = _BRACES.split(pattern)
    choices = [[piece] if i % 2 == 0 else _alternatives(piece, pattern) for i, piece in enumerate(pieces)]
    names = ["".join(parts) for parts in islice(product(*choices), MAX_SHARDS + 1)]
    if len(names) > MAX_SHARDS:
        raise UsageError(f"{pattern}: names more than {MAX_SHARDS} files.")
    found: list[Path] = []
    for name in names:
        magic = glob.has_magic(name)
        fitting = sorted(glob.glob(name, recursive=True)) if magic else [name]  # noqa: PTH207 - the pattern is absolute
        if not fitting or not os.path.exists(fitting[0]):  # noqa: PTH110 - raises for no name, however long
            raise DataError(f"{pattern}: there is no {name}.")
        found += [Path(file) for file in fitting]
    return found


def _alternatives(inside: str, pattern: str) -> list[str]:
    found = _RANGE.fullmatch(inside)
    if found is None:
        return inside.split(",")
    first, last = int(found[1]), int(found[2])
    if last < first or last - first >= MAX_SHARDS:
        raise UsageError(f"{pattern}: the range {inside} is empty or longer than {MAX_SHARDS}.")
    width = len(found[1]) if found[1].startswith("0") else 0
    return [str(number).zfill(width) for number in range(first, last + 1)]


def shards_of(path: Path) -> list[Path]:
    """The tar archives below a folder, sorted; or the file itself.

    Raises:
        DataError: a folder without any.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in folder_tree(path).files if not is_hidden(file))
    shards = [path.joinpath(*file) for file in files if file[-1].lower().endswith(_TAR_SUFFIXES)]
    if not shards:
        raise DataError(f"{path}: no tar archives in this folder.")
    return shards


def forms() -> str:
    """The ways to name an input, for errors."""
    kinds = ", ".join(f"{kind}:PATH" for kind in KINDS)
    return f"Give a path, one of {kinds} (parquet and npz also as parquet:PATH:test), or a dataset as cifar10:test."
