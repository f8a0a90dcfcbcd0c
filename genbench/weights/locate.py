"""Where the file of a standard network is: a user's own, the store's, or a fresh download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genbench.errors import DataError
from genbench.files import hash_file
from genbench.weights import download as downloads
from genbench.weights.catalogue import WeightsEntry, entry
from genbench.weights.store import expected_hash, locked, pin, state, store_folder


@dataclass(frozen=True)
class LocatedWeights:
    """A file of weights. known: its hash is the published one (or the one pinned in the store). note: why it is not."""

    path: Path
    sha256: str
    known: bool
    note: str | None = None


def locate(name: str, given: Path | None = None, *, download: bool = True) -> LocatedWeights:
    """The file of an entry, its hash checked; a file ``given`` by the user is taken whatever its hash.

    The caller puts the hash into ``comparable`` and ``note``, where there is one, among its warnings.

    Raises:
        UsageError: unknown name.
        DataError: no such file, another hash in the store, or a download that failed (says which file to put where).
    """
    weights = entry(name)
    if given is not None:
        return _users_file(weights, Path(given))
    found = state(weights)
    if found.condition == "missing":
        if not download:
            raise missing(weights, "it is not in the store")
        with locked(weights.name):
            found = state(weights)
            if found.condition == "missing":
                _fetch(weights)
                found = state(weights)
    if found.condition == "bad" or found.sha256 is None:
        raise DataError(
            f"{found.path}: {found.problem}. Delete it and run again, or get it from {weights.url} and run "
            f"`genbench weights add FILE`."
        )
    return LocatedWeights(found.path, found.sha256, known=True)


def missing(weights: WeightsEntry, reason: str) -> DataError:
    """The error for weights that cannot be had, with all that helps."""
    return DataError(
        f"The weights '{weights.name}' are missing: {reason}. Download {weights.url} where there is a network and run "
        f"`genbench weights add FILE`, or put it into {store_folder()} as {weights.files[0]}. The packaged extractors "
        "work without a download: digits-cnn, mnist-cnn, cifar10-cnn."
    )


def _users_file(weights: WeightsEntry, path: Path) -> LocatedWeights:
    if not path.is_file():
        raise DataError(f"{path}: no such weights file. Give a file for '{weights.name}' ({weights.url}).")
    found, expected = hash_file(path), expected_hash(weights)
    if found == expected:
        return LocatedWeights(path, found, known=True)
    against = (
        f"is not that of {weights.name} ({expected[:12]}...)" if expected else "cannot be checked: none is published"
    )
    return LocatedWeights(path, found, False, f"weights {path.name}: SHA-256 {found[:12]}... {against}")


def _fetch(weights: WeightsEntry) -> None:
    try:
        sha256 = downloads.fetch(weights.url, store_folder() / weights.files[0], weights.sha256, weights.size_bytes)
    except downloads.DownloadError as error:
        raise missing(weights, str(error)) from None
    if weights.sha256 is None:
        pin(weights, sha256)
