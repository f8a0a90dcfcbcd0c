"""A download that is whole and checked, or not there."""

from __future__ import annotations

import hashlib
import http.client
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from genbench.files import atomic_path

TIMEOUT_SECONDS = 30.0
"""A download that gives no byte for so long has failed."""

_BLOCK_BYTES = 1 << 20
_PROGRESS_SECONDS = 0.5


class DownloadError(Exception):
    """A download that failed; the message is the reason, without the advice."""


def fetch(url: str, target: Path, problem: Callable[[str], str | None], size_bytes: int | None = None) -> str:
    """Download ``url`` to ``target`` and return its SHA-256; the file gets its name only when it is right.

    problem: what is wrong with a hash, or None. size_bytes: expected where the server announces no length.

    Raises:
        DownloadError: no network, an HTTP error, fewer or more bytes than expected, or a hash with a problem.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "genbench"})
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                announced = response.headers.get("Content-Length")
                total = int(announced) if announced else size_bytes
                found, got = _copy(response, stream, total, target.name)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DownloadError(f"{url} could not be downloaded ({_reason(error)})") from None
        if total is not None and got != total:
            raise DownloadError(f"{url} broke off: {got:,} bytes of {total:,} came")
        wrong = problem(found)
        if wrong:
            raise DownloadError(f"{url} gave another file: {wrong}")
    return found


def _copy(response: BinaryIO, stream: BinaryIO, total: int | None, name: str) -> tuple[str, int]:
    digest, got, shown = hashlib.sha256(), 0, time.monotonic()
    moving = sys.stderr.isatty()
    while block := response.read(_BLOCK_BYTES):
        stream.write(block)
        digest.update(block)
        got += len(block)
        if moving and time.monotonic() - shown > _PROGRESS_SECONDS:
            sys.stderr.write(f"\r{_progress(name, got, total)}")
            sys.stderr.flush()
            shown = time.monotonic()
    sys.stderr.write(f"\r{_progress(name, got, total)}\n" if moving else f"{_progress(name, got, total)}\n")
    return digest.hexdigest(), got


def _progress(name: str, got: int, total: int | None) -> str:
    of = f" of {total / 1e6:,.1f} MB ({got / total:.0%})" if total else " MB"
    return f"Downloading {name}: {got / 1e6:,.1f}{of}"


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
