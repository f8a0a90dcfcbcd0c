"""Content hashes of files, cheap at the second look.

A hash is remembered in the user's cache under the hash of all that would change with the content: the absolute path and
each file's relative name, size, times of modification and change, and inode. An entry is never altered, so that two
processes may write it at once. As with git's index, files that changed just before they were hashed may change again
within one tick of the clock: their hash is not remembered.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from genbench.errors import DataError
from genbench.files import cache_folder, hash_file, hash_value, write_text

RACY_SECONDS = 2.0
_VERSION = 1

NamedFile = tuple[str, Path]
"""A file's name relative to what is hashed, and where it is."""


def relative_files(paths: Sequence[Path]) -> list[NamedFile]:
    """Files with their names relative to the folder that they share; a single file is without a name."""
    if len(paths) == 1:
        return [("", paths[0])]
    base = os.path.commonpath([path.absolute().parent for path in paths])
    return [(path.absolute().relative_to(base).as_posix(), path) for path in paths]


def hash_files(files: Sequence[NamedFile]) -> str:
    """SHA-256 over names and contents, in order."""
    return hash_contents((name, hash_file(path)) for name, path in files)


def hash_contents(pairs: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over (name, SHA-256 of the content), in order."""
    return hash_value([[name, content] for name, content in pairs])


def remembered(
    kind: str, root: Path, files: Sequence[NamedFile], make: Callable[[], str], *, verify: bool = False
) -> str:
    """``make()``, the hash of the content of ``files``, not computed again while they are unchanged.

    Args:
        kind: what is hashed and how; another kind has other entries.
        root: what the user named.
        files: all that ``make`` reads.
        make: reads and hashes them in full.
        verify: compute it in any case, and replace what is remembered.

    Raises:
        DataError: a file that cannot be read; names it.
    """
    start = time.time_ns()
    before = _listing(files)
    entry = _entry(kind, root, before)
    if not verify:
        with contextlib.suppress(OSError, ValueError):
            stored = entry.read_text(encoding="ascii").strip()
            if len(stored) == 64 and int(stored, 16) >= 0:
                return stored
    try:
        value = make()
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be read: {error.strerror or error}.") from None
    newest = max((max(mtime, ctime) for _, _, mtime, ctime, _ in before), default=0)
    if newest < start - int(RACY_SECONDS * 1e9) and _listing(files) == before:
        with contextlib.suppress(OSError):
            write_text(entry, value)
    return value


def _listing(files: Sequence[NamedFile]) -> list[tuple[str, int, int, int, int]]:
    found = []
    for name, path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
        found.append((name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    return found


def _entry(kind: str, root: Path, listing: Sequence[tuple[str, int, int, int, int]]) -> Path:
    place = os.fsencode(root.absolute()).hex()
    key = hash_value([_VERSION, kind, place, [list(row) for row in listing]])
    return cache_folder() / "hashes" / key[:2] / key
