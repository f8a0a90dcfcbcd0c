"""What is common to reading files, and members of archives, that somebody else made: their names and their sizes."""

from __future__ import annotations

import re
import stat
from pathlib import Path, PurePosixPath

from genbench.errors import DataError

MAX_FILE_BYTES = 2**30
"""Of one encoded image or table of labels; no image within Pillow's limit of pixels needs as much."""


def member_parts(origin: str, name: str) -> tuple[str, ...]:
    """The folders and the file of an archive member's name.

    Raises:
        DataError: a name that is empty, absolute or climbs out of the archive with ``..``.
    """
    climbs = ".." in re.split(r"[\\/]", name)
    if not name or climbs or name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:[\\/]", name):
        raise DataError(
            f"{origin}: member {name!r} {'climbs out of' if climbs else 'does not name a place in'} the archive. "
            "Nothing of it is read; pack the images again with relative names."
        )
    return PurePosixPath(name).parts


def refuse_link(origin: str, name: str) -> DataError:
    """The error for a member that is a link or a device."""
    return DataError(f"{origin}: member {name!r} is a link or a special file, expected plain files. Pack them again.")


def check_size(where: str, size: int) -> None:
    """Refuse what is too large to be one image.

    Raises:
        DataError: more than `MAX_FILE_BYTES`.
    """
    if size > MAX_FILE_BYTES:
        raise DataError(f"{where}: {size} bytes are more than the limit of {MAX_FILE_BYTES} for one file. Remove it.")


def read_regular(path: Path) -> bytes:
    """The content of a regular file; nothing else (a pipe, a device) is opened.

    Raises:
        DataError: no regular file, or one that is too large. OSError: it cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}: not a regular file. Remove it.")
    check_size(str(path), status.st_size)
    return path.read_bytes()
