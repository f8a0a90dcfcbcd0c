"""Finding the records that a check is about: a run, a folder of records, one file, a leaderboard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import genbench
from genbench.errors import DataError, UsageError
from genbench.evaluation.result import read_scores
from genbench.record import Record, read_record

LEADERBOARD, RUN_FILE = "leaderboard:", "run.json"


@dataclass(frozen=True)
class Entry:
    """A record, with its per-image scores by ``METRIC.ESTIMATOR`` and the file it came from."""

    record: Record
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    path: Path = Path()


def read_entries(source: str | Path) -> list[Entry]:
    """All records of ``source``, in order of their file names.

    Args:
        source: a record, the folder of a run (the rows that it was last asked for), of a baseline or of records, or
            ``leaderboard:SUITE``.

    Raises:
        UsageError: no such file, or no record in it.
        DataError: a record that is damaged or whose per-image scores are not those it was written with; two records of
            one row and seed.
    """
    entries = [_read(path) for path in record_files(source)]
    seen: dict[tuple[str, str, int], Path] = {}
    for entry in entries:
        key = (entry.record.suite, entry.record.row, entry.record.seed)
        if key in seen:
            raise DataError(
                f"{seen[key]} and {entry.path} both hold {entry.record.row} with seed {entry.record.seed} of suite "
                f"'{entry.record.suite}'. Remove one of them."
            )
        seen[key] = entry.path
    return entries


def record_files(source: str | Path) -> list[Path]:
    """The record files that ``source`` names.

    Raises:
        UsageError: there are none.
    """
    folder = _leaderboard(str(source)) if str(source).startswith(LEADERBOARD) else Path(source)
    if folder.is_file() and folder.name != "baseline.json":
        return [folder]
    if folder.is_file():
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError(
            f"{source}: no such file or folder. Give a record, the folder of a run, a baseline that "
            "`genbench baseline update` wrote, or leaderboard:SUITE."
        )
    records = folder / "records" if (folder / "records").is_dir() else folder
    found = [path for path in record_paths(records) if path.name not in (RUN_FILE, "baseline.json")]
    if records != folder and (folder / RUN_FILE).is_file():
        rows = _rows_of_run(folder / RUN_FILE)
        found = [path for path in found if path.stem in rows]
    if not found:
        raise UsageError(f"{source}: no records (*.json) in {records}. Has the run finished a row?")
    return found


def earlier_rows(source: str | Path) -> set[str]:
    """Rows of which the folder of a run holds records, though the last run there was not asked for them."""
    folder = Path(source)
    if not (folder / RUN_FILE).is_file() or not (folder / "records").is_dir():
        return set()
    rows = _rows_of_run(folder / RUN_FILE)
    return {path.stem.rpartition("-s")[0] for path in record_paths(folder / "records") if path.stem not in rows}


def record_paths(folder: Path) -> list[Path]:
    """The JSON files of a folder by name, without what an interrupted writing left behind (`atomic_path`)."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))


def _rows_of_run(path: Path) -> list[str]:
    """File stems of the rows that the last run in a folder was asked for; what an earlier one left beside them is old.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        if not isinstance(rows, list):
            raise ValueError(f"'rows' is {type(rows).__name__}, expected a list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: which rows the run was asked for cannot be read ({type(error).__name__}: {error}). Run the suite "
            f"again in this folder, or give {path.parent / 'records'} to take all records there."
        ) from None
    return rows


def _leaderboard(source: str) -> Path:
    suite = source.removeprefix(LEADERBOARD)
    places = [Path("leaderboards"), Path(genbench.__file__).parents[1] / "leaderboards"]
    for place in places:
        if (place / suite / "records").is_dir():
            return place / suite
    known = sorted({path.parent.name for place in places for path in place.glob("*/records")})
    raise UsageError(
        f"No leaderboard of suite '{suite}' in {places[0].resolve()} or beside the package (found: "
        f"{', '.join(known) or 'none'}). Run from a checkout of genbench, or give a folder of records."
    )


def _read(path: Path) -> Entry:
    try:
        record = read_record(path)
    except RecursionError:
        raise DataError(f"{path}: not a readable record: it is nested too deeply.") from None
    scores = read_scores(path.parent, record.per_image)
    for name, array in scores.items():
        if array.dtype.kind not in "biuf":
            raise DataError(f"{path}: per-image scores '{name}' are {array.dtype}, expected numbers. Make them again.")
    return Entry(record, scores, path)


def by_row(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Entries by row (``model`` or ``model@variant``), each with its seeds in order; rows in order of appearance."""
    rows: dict[str, list[Entry]] = {}
    for entry in entries:
        rows.setdefault(entry.record.row, []).append(entry)
    return {row: sorted(found, key=lambda entry: entry.record.seed) for row, found in rows.items()}


def one_suite(candidate: Sequence[Entry], baseline: Sequence[Entry]) -> str:
    """The suite that both are of.

    Raises:
        UsageError: they are of different suites, or one of several.
    """
    suites = [sorted({entry.record.suite for entry in entries}) for entries in (candidate, baseline)]
    if suites[0] != suites[1] or len(suites[0]) != 1:
        told = " against ".join(" and ".join(f"'{name}'" for name in names) for names in suites)
        raise UsageError(f"A check is about one suite: got records of {told}. Check each suite by itself.")
    return suites[0][0]
