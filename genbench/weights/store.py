"""The folder that holds checked weights, and a lock file that pins the hashes nobody has published."""

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

from genbench.errors import DataError
from genbench.files import atomic_path, cache_folder, hash_file, write_json
from genbench.weights.catalogue import WeightsEntry, entries, entry

PINS = "pins.json"
"""File of the store: SHA-256 by entry name, of the first file added for an entry without a published hash."""

Condition = Literal["there", "missing", "bad"]


@dataclass(frozen=True)
class State:
    """What the store holds of an entry. path: the file, or where it would be. problem: what is wrong with a bad file."""

    entry: WeightsEntry
    condition: Condition
    path: Path
    sha256: str | None = None
    problem: str | None = None


def store_folder() -> Path:
    """Where weights are kept: the folder in GENBENCH_WEIGHTS, or ``weights`` in genbench's cache."""
    given = os.environ.get("GENBENCH_WEIGHTS")
    return Path(given).expanduser() if given else cache_folder() / "weights"


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the store's lock of one entry, or of the pins; other processes wait."""
    folder = store_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        yield


def expected_hash(weights: WeightsEntry) -> str | None:
    """The published SHA-256, else the one pinned in this store, else None.

    Raises:
        DataError: an unreadable file of pins.
    """
    return weights.sha256 or _pins().get(weights.name)


def find(weights: WeightsEntry) -> Path | None:
    """The entry's file in the store under any of its names, unchecked."""
    folder = store_folder()
    return next((folder / name for name in weights.files if (folder / name).is_file()), None)


def state(weights: WeightsEntry) -> State:
    """Look for an entry's file and hash it.

    Raises:
        DataError: an unreadable file of pins.
    """
    path = find(weights)
    if path is None:
        return State(weights, "missing", store_folder() / weights.files[0])
    found, expected = hash_file(path), expected_hash(weights)
    if expected is None:
        found_at = f"{path.name} was put into the store by hand and {weights.name} has no published hash"
        problem = f"{found_at}: run `genbench weights add {path} --name {weights.name}` to pin it"
        return State(weights, "bad", path, found, problem)
    if found != expected:
        return State(weights, "bad", path, found, f"SHA-256 is {found}, expected {expected}")
    return State(weights, "there", path, found)


def verify() -> list[State]:
    """The states of all entries that the store holds a file of, hashed in full."""
    return [found for found in map(state, entries()) if found.condition != "missing"]


def pin(weights: WeightsEntry, sha256: str) -> None:
    """Remember the hash of the first file of an entry that has no published one."""
    with locked("pins"):
        write_json(store_folder() / PINS, {**_pins(), weights.name: sha256})


def add(file: Path, name: str | None = None) -> State:
    """Copy a user's file into the store, recognised by its hash, or by its file name where no hash is published.

    Raises:
        DataError: no such file, an unknown one, or one whose hash is not that of ``name``.
        UsageError: unknown ``name``.
    """
    file = Path(file)
    if not file.is_file():
        raise DataError(f"{file}: no such file. `genbench weights list` says which files are known.")
    found = hash_file(file)
    weights = _recognise(file, found) if name is None else entry(name)
    with locked(weights.name):
        expected = expected_hash(weights)
        if expected is not None and found != expected:
            pinned = "" if weights.sha256 else f", the first one added (delete it and its line in {PINS} to pin anew)"
            raise DataError(
                f"{file}: SHA-256 is {found}, but that of {weights.name} is {expected}{pinned}. "
                f"Get it again from {weights.url}, or use this file as it is with --weights."
            )
        target = store_folder() / weights.files[0]
        if not (target.is_file() and target.samefile(file)):
            with atomic_path(target) as temporary:
                shutil.copyfile(file, temporary)
                if hash_file(temporary) != found:
                    raise DataError(f"{file}: changed while it was copied. Add it again once it is written.")
        if expected is None:
            pin(weights, found)
    return State(weights, "there", target, found)


def _recognise(file: Path, sha256: str) -> WeightsEntry:
    for weights in entries():
        if sha256 == expected_hash(weights):
            return weights
    for weights in entries():
        if weights.sha256 is None and file.name in weights.files:
            return weights
    named = next((weights for weights in entries() if file.name in weights.files), None)
    reason = f" Its name is that of {named.name}, whose SHA-256 is {expected_hash(named)}." if named else ""
    known = "; ".join(f"{weights.name} ({weights.files[0]})" for weights in entries())
    raise DataError(f"{file}: SHA-256 {sha256} is that of no known weights.{reason} Known: {known}.")


def _pins() -> dict[str, str]:
    path = store_folder() / PINS
    try:
        pins = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: not readable ({error}). Delete it; the next `genbench weights add` makes it anew."
        ) from None
    if not (isinstance(pins, dict) and all(isinstance(value, str) for value in pins.values())):
        raise DataError(f"{path}: expected hashes by name. Delete it; the next `genbench weights add` makes it anew.")
    return pins
