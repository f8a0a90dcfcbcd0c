"""Baselines: records that were accepted, with who accepted them and why.

A baseline is a folder: ``baseline.json`` (reason, author, the values in rows and columns, the history of updates), made
to be read as a diff, and ``records/``, the records and per-image scores as the run wrote them, with their hashes in it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from genbench import __version__
from genbench.check.collect import Entry, by_row, read_entries, record_paths
from genbench.errors import DataError, UsageError, unknown
from genbench.files import hash_file, write_json

MANIFEST, RECORDS = "baseline.json", "records"


class Update(BaseModel):
    """One entry of a baseline's history."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    date: str
    author: str
    reason: str
    rows: list[str]
    """Rows that were replaced or added."""
    dropped: list[str] = []
    """Rows that were taken out."""
    genbench_version: str


class Baseline(BaseModel):
    """What ``baseline.json`` holds. values: by row and seed, then by metric (and estimator)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    suite: str
    values: dict[str, dict[str, float]]
    hashes: dict[str, str]
    """SHA-256 of each record file."""
    history: list[Update]


def read_baseline(folder: Path) -> Baseline | None:
    """Read and verify a baseline's manifest; None where the folder has none.

    Raises:
        DataError: unreadable, a record is missing or was changed since, or hashes and values are not of the same ones.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    try:
        found = Baseline.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise DataError(f"{path}: not a readable baseline: {str(error).splitlines()[0]}") from None
    records = path.parent / RECORDS
    for added in sorted({record.name for record in record_paths(records)} - set(found.hashes)):
        raise DataError(
            f"{records / added}: not in {MANIFEST}. Remove it, or accept it with `genbench baseline update`."
        )
    for name, expected in found.hashes.items():
        record = records / _file_name(name)
        if not record.is_file():
            raise DataError(f"{record}: missing, though {MANIFEST} lists it. Restore it, or update the baseline.")
        if hash_file(record) != expected:
            raise DataError(
                f"{record}: changed since the baseline was written. Restore it, or accept new records with "
                "`genbench baseline update`."
            )
    _check_stems(found, path)
    return found


def _check_stems(found: Baseline, path: Path) -> None:
    """Both tables name the same records: else what a reviewer reads of a row goes on when its record is gone."""
    hashed = {name.removesuffix(".json") for name in found.hashes}
    for stems, has, lacks in (
        (hashed - set(found.values), "a hash", "no values"),
        (set(found.values) - hashed, "values", "no hash"),
    ):
        if stems:
            raise DataError(
                f"{path}: it has {has} but {lacks} of {', '.join(sorted(stems))}. Restore it, or take a row out with "
                "`genbench baseline drop`, which says why."
            )


def baseline_entries(source: str | Path) -> list[Entry]:
    """All records of a baseline, verified; also of a record, a folder of records or ``leaderboard:SUITE``.

    Records that are named in a baseline's folder are verified as those of the baseline.

    Raises:
        UsageError: none there. DataError: a damaged baseline or record.
    """
    made = read_baseline(_manifest_folder(Path(source)))
    entries = read_entries(source)
    for entry in entries:
        told = None if made is None else made.values.get(entry.record.file_stem)
        if made is not None and told != _values(entry):
            raise DataError(
                f"{source}: {MANIFEST} does not hold the values that {entry.path.name} has, so that what was reviewed "
                "is not what is judged. Restore both, or write them with `genbench baseline update`."
            )
    return entries


def _manifest_folder(path: Path) -> Path:
    """Where the manifest lies that tells of what is at ``path``, however that is spelled or linked."""
    for place in (path, path.resolve()):
        for folder in (place, place.parent):
            if folder.name == RECORDS and (folder.parent / MANIFEST).is_file():
                return folder.parent
    return path.parent if path.name == MANIFEST else path


def update_baseline(folder: Path, entries: Sequence[Entry], *, reason: str, author: str) -> Baseline:
    """Write a baseline of ``entries``; of a baseline that is there, rows that they do not have are kept.

    The old folder stays as it is until the new one is whole; what else lies in it is kept. A link is followed.

    Raises:
        UsageError: no reason or author, no records, failed ones, or records of another suite than the baseline's.
        DataError: the baseline that is there is damaged.
    """
    _check_told(reason, author)
    _check(entries)
    folder = Path(folder).resolve()
    old = read_baseline(folder)
    suite = entries[0].record.suite
    if old is not None and old.suite != suite:
        raise UsageError(f"{folder} is a baseline of suite '{old.suite}', these records are of '{suite}'.")
    if old is None and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty and holds no {MANIFEST}. Name a new folder.")
    rows = set(by_row(entries))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    done = Update(date=now, author=author, reason=reason, rows=sorted(rows), genbench_version=__version__)
    return _write(folder, suite, entries, old, rows, done)


def drop_rows(folder: Path, names: Sequence[str], *, reason: str, author: str) -> Baseline:
    """Take rows out of a baseline, so that no check asks for them.

    Raises:
        UsageError: no reason or author, no baseline there, a name that it does not have, or no row that would stay.
        DataError: the baseline is damaged.
    """
    _check_told(reason, author)
    folder = Path(folder).resolve()
    entries = baseline_entries(folder)
    old = read_baseline(folder)
    if old is None:
        raise UsageError(f"{folder} holds no {MANIFEST}. Name the folder of a baseline.")
    rows = set(by_row(choose(entries, names))) if names else set()
    if not rows:
        raise UsageError("Name the rows to drop.")
    if rows == set(by_row(entries)):
        raise UsageError(f"{', '.join(sorted(rows))}: no row would stay. Remove the folder {folder} instead.")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    done = Update(date=now, author=author, reason=reason, rows=[], dropped=sorted(rows), genbench_version=__version__)
    return _write(folder, old.suite, [], old, rows, done)


def _write(
    folder: Path, suite: str, entries: Sequence[Entry], old: Baseline | None, replaced: set[str], done: Update
) -> Baseline:
    """A baseline of ``entries`` and of those rows of the old one that are not ``replaced``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        fresh = Path(name) / "new"
        (fresh / RECORDS).mkdir(parents=True)
        if old is not None:
            _copy_kept(folder, fresh, replaced)
            _copy_others(folder, fresh)
        values = _kept_values(old, replaced)
        for entry in entries:
            _copy(entry, fresh / RECORDS)
            values[entry.record.file_stem] = _values(entry)
        hashes = {path.name: hash_file(path) for path in record_paths(fresh / RECORDS)}
        history = [*(old.history if old else []), done]
        made = Baseline(suite=suite, values=dict(sorted(values.items())), hashes=hashes, history=history)
        write_json(fresh / MANIFEST, made.model_dump(mode="json"))
        _replace_folder(folder, fresh, Path(name) / "old")
    return made


def _replace_folder(folder: Path, fresh: Path, aside: Path) -> None:
    """Put ``fresh`` in the place of ``folder``; if that fails, the old one goes back to its place."""
    existed = folder.exists()
    if existed:
        folder.rename(aside)
    try:
        fresh.rename(folder)
    except BaseException:
        if existed:
            aside.rename(folder)
        raise


def _check_told(reason: str, author: str) -> None:
    for what, text in (("reason", reason), ("author", author)):
        if not text.strip():
            raise UsageError(f"A baseline needs its {what}: give --{what} TEXT, so that a reviewer can judge it.")


def _check(entries: Sequence[Entry]) -> None:
    if not entries:
        raise UsageError("There are no records to make a baseline of.")
    suites = sorted({entry.record.suite for entry in entries})
    if len(suites) > 1:
        raise UsageError(f"A baseline is of one suite, these records are of {', '.join(suites)}.")
    failed = [entry.record.file_stem for entry in entries if entry.record.status == "failed"]
    if failed:
        raise UsageError(f"Failed rows are no baseline: {', '.join(failed)}. Mend them, or choose rows with --models.")


def choose(entries: Sequence[Entry], models: Sequence[str]) -> list[Entry]:
    """The entries of the named rows, of a model each variant one of its own; all without names.

    Raises:
        UsageError: a name that no entry has.
    """
    rows = by_row(entries)
    for model in models:
        if model not in rows:
            raise unknown("row", model, rows)
    return [entry for entry in entries if not models or entry.record.row in models]


def _copy(entry: Entry, records: Path) -> None:
    shutil.copyfile(entry.path, records / _file_name(f"{entry.record.file_stem}.json"))
    stored = entry.record.per_image
    if stored is not None:
        shutil.copyfile(entry.path.parent / stored.file, records / _file_name(stored.file))


def _file_name(name: str) -> str:
    """A file's name that a record gives, which must not lead out of its folder.

    Raises:
        DataError: it has a folder in it.
    """
    if Path(name).name != name or "\\" in name or "\0" in name:
        raise DataError(f"{name!r}: a record names this as its file; expected a plain file name. Rename the row.")
    return name


def _copy_kept(folder: Path, fresh: Path, replaced: set[str]) -> None:
    for path in (folder / RECORDS).iterdir():
        if path.is_file() and _row_of(path.stem) not in replaced:
            shutil.copyfile(path, fresh / RECORDS / path.name)


def _copy_others(folder: Path, fresh: Path) -> None:
    """What is no part of a baseline, as a note that somebody laid beside it."""
    for path in folder.iterdir():
        if path.name in (MANIFEST, RECORDS):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, fresh / path.name, symlinks=True)
        else:
            shutil.copy2(path, fresh / path.name, follow_symlinks=False)


def _kept_values(old: Baseline | None, replaced: set[str]) -> dict[str, dict[str, float]]:
    return {} if old is None else {stem: v for stem, v in old.values.items() if _row_of(stem) not in replaced}


def _row_of(stem: str) -> str:
    """The row of a record's file stem, ``<row>-s<seed>``."""
    return stem.rpartition("-s")[0]


def _values(entry: Entry) -> dict[str, float]:
    """Values by ``metric`` or ``metric.estimator`` (and extractor), to six digits: what a reviewer reads."""
    found: dict[str, float] = {}
    for metric in entry.record.metrics:
        if metric.value is not None:
            alike = [other for other in entry.record.metrics if other.name == metric.name]
            name = f"{metric.name}.{metric.estimator}" if len(alike) > 1 else metric.name
            if len({other.estimator for other in alike}) < len(alike):
                name += f" ({metric.extractor})"
            found[name] = float(f"{metric.value:.6g}")
    return found
