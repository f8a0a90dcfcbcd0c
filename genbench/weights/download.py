"""A download that is whole and checked, or not there."""

from __future__ import annotations

import hashlib
import http.client
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import BinaryIO

from genbench.files import atomic_path

TIMEOUT_SECONDS = 30.0
"""Without a byte for so long, a download has failed."""

_BLOCK_BYTES = 1 << 20
_PROGRESS_SECONDS = 0.5


class DownloadError(Exception):
    """A download that failed; the message is the reason, without the advice."""


def fetch(url: str, target: Path, sha256: str | None, size_bytes: int | None = None) -> str:
    """Download ``url`` to ``target`` and return its SHA-256; the file gets its name only when it is right.

    Raises:
        DownloadError: no network, an HTTP error, fewer or more bytes than announced, or another hash than ``sha256``.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "genbench"})
    with atomic_path(target) as temporary, temporary.open("wb") as stream:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                announced = response.headers.get("Content-Length")
                found, got = _copy(response, stream, int(announced) if announced else size_bytes, target.name)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DownloadError(f"{url} could not be downloaded ({_reason(error)})") from None
        expected = int(announced) if announced else size_bytes
        if expected is not None and got != expected:
            raise DownloadError(f"{url} broke off: {got:,} bytes came of {expected:,}")
        if sha256 is not None and found != sha256:
            raise DownloadError(f"{url} gave a file whose SHA-256 is {found}, expected {sha256}")
    return found


def _copy(response: BinaryIO, stream: BinaryIO, total: int | None, name: str) -> tuple[str, int]:
    digest, got, shown = hashlib.sha256(), 0, time.monotonic()
    while block := response.read(_BLOCK_BYTES):
        stream.write(block)
        digest.update(block)
        got += len(block)
        if time.monotonic() - shown > _PROGRESS_SECONDS:
            _progress(name, got, total)
            shown = time.monotonic()
    _progress(name, got, total)
    sys.stderr.write("\n")
    return digest.hexdigest(), got


def _progress(name: str, got: int, total: int | None) -> None:
    of = f" of {total / 1e6:,.1f} MB ({got / total:.0%})" if total else " MB"
    sys.stderr.write(f"\rDownloading {name}: {got / 1e6:,.1f}{of}")
    sys.stderr.flush()


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
