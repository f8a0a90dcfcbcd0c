"""Putting records, scores and pictures into a leaderboard's folder, after a trial that the board can still be made."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from genbench.check.collect import Entry, by_row, record_paths
from genbench.errors import GenbenchError
from genbench.files import atomic_path
from genbench.leaderboard.build import build
from genbench.leaderboard.folder import GRIDS, RECORDS
from genbench.report.pictures import write_pictures
from genbench.report.rows import Part, Row
from genbench.report.sources import Source, run_source

_MADE = ("README.md", "table.csv", "table.tex", "index.html", ".*")


def copy(entries: Sequence[Entry], folder: Path) -> list[str]:
    """Copy records, scores and pictures; none of them is in its place before all are whole. Returns file stems.

    Raises:
        DataError: a picture beside the records that cannot be read.
    """
    records = Path(folder) / RECORDS
    with TemporaryDirectory() as home, ExitStack() as stack:
        drawn = Path(home)
        _draw(_first_seeds(entries, records), drawn)
        for entry in entries:
            stem = entry.record.file_stem
            shutil.copyfile(entry.path, stack.enter_context(atomic_path(records / f"{stem}.json")))
            if entry.record.per_image is not None:
                scores = entry.path.parent / entry.record.per_image.file
                shutil.copyfile(scores, stack.enter_context(atomic_path(records / f"{stem}.npz")))
        for path in (path for path in sorted(drawn.rglob("*")) if path.is_file()):
            shutil.copyfile(path, stack.enter_context(atomic_path(folder / GRIDS / path.relative_to(drawn))))
    return [entry.record.file_stem for entry in entries]


def _first_seeds(entries: Sequence[Entry], records: Path) -> dict[str, Entry]:
    """By row, the record whose pictures the row shows: that of its lowest seed, where that is not there already."""
    found = {row: seeds[0] for row, seeds in by_row(entries).items()}
    there = _seeds_there(records)
    return {row: one for row, one in found.items() if one.record.seed <= there.get(row, math.inf)}


def _seeds_there(records: Path) -> dict[str, int]:
    """The lowest seed of each row, by the names of the files."""
    found: dict[str, int] = {}
    for path in record_paths(records):
        row, _, seed = path.stem.rpartition("-s")
        if seed.removeprefix("-").isdecimal():
            found[row] = min(int(seed), found.get(row, int(seed)))
    return found


def _draw(first: Mapping[str, Entry], grids: Path) -> None:
    """Write the pictures of records from the folder of a run or of a leaderboard."""
    homes: dict[Path, Source] = {}
    rows = []
    for row, entry in first.items():
        home = entry.path.parent.parent
        if home not in homes:
            stored = home / GRIDS if (home / GRIDS).is_dir() else None
            is_run = (home / "run.json").is_file()
            homes[home] = run_source(home) if is_run else Source(home.name, [], pictures=stored)
        rows.append(Row(row, entry.record, (Part(entry, homes[home]),)))
    write_pictures(grids, rows)


def unbuildable(entries: Sequence[Entry], folder: Path) -> dict[str, str]:
    """Records with which the leaderboard cannot be made, by file stem, each with the reason.

    A leaderboard that cannot be made as it stands is left aside, so that what is broken in it can be replaced piece by
    piece: the records then have to make one of their own.
    """
    if not entries or _fault(entries, folder) is None:
        return {}
    alone = {one.record.file_stem: fault for one in entries if (fault := _fault([one], folder, beside=False))}
    rest = [one for one in entries if one.record.file_stem not in alone]
    if alone:
        return alone | unbuildable(rest, folder)
    is_whole = not record_paths(folder / RECORDS) or _fault([], folder) is None
    fault = _fault(entries, folder, beside=is_whole)
    return {} if fault is None else {one.record.file_stem: fault for one in entries}


def _fault(entries: Sequence[Entry], folder: Path, *, beside: bool = True) -> str | None:
    """Why a leaderboard cannot be made of records, and of what is there where ``beside`` is set; None where it can."""
    with TemporaryDirectory() as home:
        trial = Path(home) / folder.resolve().name
        if beside and folder.is_dir():
            shutil.copytree(folder, trial, ignore=shutil.ignore_patterns(*_MADE))
        try:
            copy(entries, trial)
            build(trial)
        except Exception as error:
            told = str(error) if isinstance(error, GenbenchError) else f"{type(error).__name__}: {error}"
            return told.replace(str(trial), str(folder))
    return None
