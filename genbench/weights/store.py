"""The folder that holds checked weights, and the pins: hashes of files for which none is published."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock
from pydantic import ValidationError

from genbench.errors import DataError
from genbench.files import atomic_path, cache_folder, hash_file, write_json
from genbench.weights.catalogue import WeightsEntry, entries, entry

PINS = "pins.json"
"""File of the store: entries by file name, with the SHA-256 of the first file that was used for them."""

Condition = Literal["there", "missing", "bad"]


@dataclass(frozen=True)
class State:
    """What the store holds of an entry.

    path: the file, or where it would be. sha256: of the file. pinned: a hash to compare with is known, from the
    catalogue or from the first use. problem: what is wrong with a bad file.
    """

    entry: WeightsEntry
    condition: Condition
    path: Path
    sha256: str | None = None
    pinned: bool = True
    problem: str | None = None


def store_folder() -> Path:
    """Where weights are kept: the folder in GENBENCH_WEIGHTS, or ``weights`` in genbench's cache."""
    given = os.environ.get("GENBENCH_WEIGHTS")
    return Path(given).expanduser() if given else cache_folder() / "weights"


@contextmanager
def locked(file_name: str) -> Iterator[None]:
    """Hold the store's lock of one file; other processes wait."""
    folder = store_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{file_name}.lock"):
        yield


def expected_hash(weights: WeightsEntry) -> str | None:
    """The SHA-256 of the catalogue, else the one pinned in this store, else None.

    Raises:
        DataError: an unreadable file of pins.
    """
    if weights.sha256 is not None:
        return weights.sha256
    pinned = pins().get(weights.file)
    return pinned.sha256 if pinned else None


def mismatch(weights: WeightsEntry, sha256: str) -> str | None:
    """What is wrong with a file of this hash, or None where nothing is known against it."""
    expected = expected_hash(weights)
    if expected is not None and sha256 != expected:
        of_first = "" if weights.sha256 else f", that of the first file used (its line in {PINS} can be deleted)"
        return f"SHA-256 is {sha256}, expected {expected}{of_first}"
    if expected is None and not sha256.startswith(weights.sha256_prefix or ""):
        return f"SHA-256 is {sha256}, expected one that begins with {weights.sha256_prefix}"
    return None


def state(weights: WeightsEntry) -> State:
    """Look for an entry's file and hash it.

    Raises:
        DataError: an unreadable file of pins.
    """
    folder = store_folder()
    path = next((folder / name for name in weights.files if (folder / name).is_file()), None)
    if path is None:
        return State(weights, "missing", folder / weights.file)
    found = hash_file(path)
    problem = mismatch(weights, found)
    return State(weights, "bad" if problem else "there", path, found, expected_hash(weights) is not None, problem)


def states() -> list[State]:
    """The states of all entries of the catalogue and of all pinned files, hashed in full.

    Raises:
        DataError: an unreadable file of pins.
    """
    listed = entries()
    known = {name for weights in listed for name in weights.files}
    return [state(weights) for weights in (*listed, *(p for name, p in pins().items() if name not in known))]


def pin(weights: WeightsEntry, sha256: str) -> None:
    """Remember the hash of the first file that was used for an entry without a published one."""
    with locked(PINS):
        stored = {**pins(), weights.file: weights.model_copy(update={"sha256": sha256})}
        write_json(store_folder() / PINS, {name: p.model_dump(mode="json") for name, p in stored.items()})


def pins() -> dict[str, WeightsEntry]:
    """Pinned entries by file name, with the hash found at their first use.

    Raises:
        DataError: an unreadable file of pins.
    """
    path = store_folder() / PINS
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {name: WeightsEntry.model_validate(values) for name, values in stored.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: not readable ({reason}). Delete it: hashes are pinned anew at the next use."
        ) from None


def add(file: Path, name: str | None = None) -> State:
    """Copy a user's file into the store, recognised by its hash, or by its file name where no hash is known.

    Raises:
        DataError: no such file, an unknown one, or one whose hash is not that of ``name``.
        UsageError: unknown ``name``.
    """
    file = Path(file)
    if not file.is_file():
        raise DataError(f"{file}: no such file. `genbench weights list` says which files are known.")
    found = hash_file(file)
    weights = _recognise(file, found) if name is None else entry(name)
    with locked(weights.file):
        problem = mismatch(weights, found)
        if problem:
            raise DataError(
                f"{file}: not the weights '{weights.name}': {problem}. Get them again from {weights.url}, or use this "
                "file as it is with --weights."
            )
        target = store_folder() / weights.file
        if not (target.is_file() and target.samefile(file)):
            with atomic_path(target) as temporary:
                shutil.copyfile(file, temporary)
                if hash_file(temporary) != found:
                    raise DataError(f"{file}: changed while it was copied. Add it again once it is written.")
        if expected_hash(weights) is None:
            pin(weights, found)
    return State(weights, "there", target, found)


def _recognise(file: Path, sha256: str) -> WeightsEntry:
    listed = entries()
    for weights in listed:
        if sha256 == expected_hash(weights):
            return weights
    named = next((weights for weights in listed if file.name in weights.files), None)
    if named is not None:
        return named
    known = "; ".join(f"{weights.name} ({weights.file})" for weights in listed)
    raise DataError(
        f"{file}: SHA-256 {sha256} is that of no known weights. Give its entry with --name where the hash is not "
        f"published, or use the file as it is with --weights. Known: {known}."
    )
