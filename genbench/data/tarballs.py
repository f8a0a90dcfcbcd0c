"""Reader of tar archives, compressed or not, as a stream: each member is met once, and nothing is extracted."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from genbench.data.members import check_size, member_parts, refuse_link
from genbench.errors import DataError


@dataclass(frozen=True)
class Member:
    """A file in an archive. read: its bytes, to be called before the next member is asked for."""

    parts: tuple[str, ...]
    where: str
    read: Callable[[], bytes]


class _Header(tarfile.TarInfo):
    """A header that says so where the archive ends without its end mark, which `tarfile` takes for the end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged or cut off at byte {archive.offset} ({error})") from None


def read_members(path: Path) -> Iterator[Member]:
    """The files of a tar archive (plain, gzip, bzip2, xz) in the order in which it has them.

    Raises:
        DataError: not a tar archive, damaged or truncated, or with members that are links or lead out of it.
    """
    archive = _attempt(path, lambda: tarfile.open(path, "r|*", tarinfo=_Header))  # noqa: SIM115
    with archive:
        while (info := _attempt(path, archive.next)) is not None:
            archive.members = []
            parts = member_parts(str(path), info.name)
            if info.isdir():
                continue
            if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
                raise refuse_link(str(path), info.name)
            yield Member(parts, f"{path}: {info.name}", lambda info=info: _content(path, archive, info))  # type: ignore[misc]


def _content(path: Path, archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    where = f"{path}: {info.name}"
    check_size(where, info.size)

    def read() -> bytes:
        stream = archive.extractfile(info)
        return b"" if stream is None else stream.read()

    data = _attempt(path, read)
    if len(data) != info.size:
        raise DataError(f"{where}: {len(data)} bytes, its header says {info.size}. Fetch or make the archive again.")
    return data


def _attempt(path: Path, step: Callable[[], Any]) -> Any:
    try:
        return step()
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not a readable tar archive: {error}. Fetch or make it again.") from None
