"""Where the file of a standard network is: a user's own, the store's, or a fresh download."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from genbench.errors import DataError
from genbench.files import hash_file
from genbench.weights.catalogue import WeightsEntry, entries, entry
from genbench.weights.download import DownloadError, fetch
from genbench.weights.store import State, expected_hash, locked, mismatch, pin, state, store_folder


@dataclass(frozen=True)
class LocatedWeights:
    """A file of weights. known: its hash is the published one (or the one pinned in the store). note: why it is not."""

    path: Path
    sha256: str
    known: bool
    note: str | None = None


def locate(
    weights: str | WeightsEntry, given: Path | None = None, *, download: bool = True, packaged: bool = True
) -> LocatedWeights:
    """The file of an entry (or of an entry's name), its hash checked; a ``given`` file is taken whatever its hash.

    The caller puts the hash into ``comparable`` and ``note``, where there is one, among its warnings. packaged: the
    packaged extractors can stand in for these weights, and the message about missing ones names them.

    Raises:
        UsageError: unknown name.
        DataError: no such file, another hash in the store, or a download that failed (says which file to put where).
    """
    weights = entry(weights) if isinstance(weights, str) else weights
    if given is not None:
        return _users_file(weights, Path(given))
    found = state(weights)
    if found.condition == "missing":
        if not download:
            raise _missing(weights, "no such file in the store", packaged)
        found = _download(weights, packaged)
    if found.condition != "there" or found.sha256 is None:
        raise DataError(f"{found.path}: {found.problem}. Delete it and run again. {_by_hand(weights)}")
    if not found.pinned:
        with contextlib.suppress(OSError):
            pin(weights, found.sha256)
    return LocatedWeights(found.path, found.sha256, known=True)


def _users_file(weights: WeightsEntry, path: Path) -> LocatedWeights:
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected weights of the kind of '{weights.name}' ({weights.url}).")
    found, expected = hash_file(path), expected_hash(weights)
    if found == expected:
        return LocatedWeights(path, found, known=True)
    against = f"not {expected[:12]}, that of '{weights.name}'" if expected else f"that of '{weights.name}' is not known"
    note = f"the weights {path.name} are used as given: SHA-256 is {found[:12]}, {against}"
    return LocatedWeights(path, found, known=False, note=note)


def _download(weights: WeightsEntry, packaged: bool) -> State:
    try:
        with locked(weights.file):
            found = state(weights)
            if found.condition == "missing":
                target = store_folder() / weights.file
                fetch(weights.url, target, lambda sha256: mismatch(weights, sha256), weights.size_bytes)
                found = state(weights)
        return found
    except DownloadError as error:
        raise _missing(weights, str(error), packaged) from None
    except OSError as error:
        raise _missing(weights, f"they cannot be stored in {store_folder()} ({error})", packaged) from None


def _missing(weights: WeightsEntry, reason: str, packaged: bool) -> DataError:
    hint = (
        " The packaged extractors work without a download: digits-cnn, mnist-cnn, cifar10-cnn, and digits-clip for "
        "images with texts."
    )
    return DataError(
        f"The weights '{weights.name}' are missing: {reason}. {_by_hand(weights)}{hint if packaged else ''}"
    )


def _by_hand(weights: WeightsEntry) -> str:
    where = f"put it into {store_folder()} as {weights.file}"
    if weights in entries():
        where = f"run `genbench weights add FILE`, or {where}"
    return f"By hand: download {weights.url} where there is a network and {where}."
