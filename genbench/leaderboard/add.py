"""`genbench leaderboard add` and `merge`: records become rows, after all that is wrong with them was said."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genbench.check.collect import Entry, by_row, record_files
from genbench.errors import DataError, UsageError
from genbench.evaluation.result import read_scores
from genbench.files import atomic_path
from genbench.leaderboard.diff import printable
from genbench.leaderboard.folder import GRIDS, RECORDS
from genbench.leaderboard.rules import problems
from genbench.record import Record, read_record
from genbench.report.pictures import write_pictures
from genbench.report.rows import Part, Row
from genbench.report.sources import Source, run_source


@dataclass(frozen=True)
class Refused:
    """A record that is not fit to be a row, and everything that is wrong with it."""

    path: Path
    reasons: Sequence[str]


@dataclass(frozen=True)
class Judged:
    """Records that may be added, and those that may not."""

    accepted: Sequence[Entry]
    refused: Sequence[Refused]


def add(records: Sequence[Path], folder: Path, *, replace: bool = False) -> list[str]:
    """Copy records and their per-image scores into a leaderboard, all of them or none; returns their file stems.

    Args:
        folder: of the leaderboard, named as its suite; made where it is not there.
        replace: whether a record may take the place of one of the same row and seed.

    Raises:
        UsageError: no such file; or something is wrong with a record: the message lists everything.
    """
    files = [file for path in records for file in record_files(path)]
    judged = judge(files, folder, replace=replace)
    if judged.refused:
        counted = f"{len(judged.refused)} of {len(files)} records cannot be"
        raise UsageError(f"Nothing was added to {folder}. {counted}:\n{refusals(judged.refused)}")
    return copy(judged.accepted, folder)


def merge(source: Path, folder: Path) -> tuple[list[str], Sequence[Refused]]:
    """Add the records of another leaderboard that may be added; returns their file stems, and the others.

    Rows that are there stay as they are; records that are there already, byte for byte, are passed over. Marks of
    verification are not taken over.

    Raises:
        UsageError: no records in ``source``.
    """
    there = Path(folder) / RECORDS
    files = [path for path in record_files(source) if not _is_there(path, there / path.name)]
    judged = judge(files, folder, replace=False)
    return copy(judged.accepted, folder), judged.refused


def _is_there(path: Path, other: Path) -> bool:
    return other.is_file() and other.read_bytes() == path.read_bytes()


def refusals(refused: Sequence[Refused]) -> str:
    """Files and everything that is wrong with them, as text of several lines."""
    listed = [(str(one.path), "".join(f"\n  - {printable(reason)}" for reason in one.reasons)) for one in refused]
    return "\n".join(f"{printable(path)}:{reasons}" for path, reasons in listed)


def judge(files: Sequence[Path], folder: Path, *, replace: bool) -> Judged:
    """What may become a row, each record judged beside the rows that are there and those accepted so far."""
    folder = Path(folder)
    suite = folder.resolve().name
    there = _there(folder)
    accepted: dict[str, Entry] = {}
    refused: list[Refused] = []
    for file in files:
        try:
            record = read_record(file)
        except DataError as error:
            refused.append(Refused(file, [str(error).removeprefix(f"{file}: ")]))
            continue
        stem = record.file_stem
        reasons = []
        scores = {}
        try:
            scores = read_scores(file.parent, record.per_image)
            reasons += _files(record, scores)
        except DataError as error:
            reasons.append(f"{error} Hand in the file that the run wrote beside the record.")
        entry = Entry(record, scores, file)
        if stem in accepted:
            reasons.append(f"{accepted[stem].path} has the same row and seed. Give one of them.")
        elif stem in there and not replace:
            reasons.append(f"{record.row} with seed {record.seed} is there already. Use --replace, or another seed.")
        others = [one for name, one in (there | accepted).items() if name != stem]
        reasons += problems(entry, suite, others)
        if reasons:
            refused.append(Refused(file, reasons))
        else:
            accepted[stem] = entry
    return Judged(list(accepted.values()), refused)


def _there(folder: Path) -> dict[str, Entry]:
    """Records of the leaderboard by file stem, without their scores: a damaged one can be replaced."""
    found = {}
    for path in sorted((folder / RECORDS).glob("*.json")):
        try:
            found[path.stem] = Entry(read_record(path), {}, path)
        except DataError:
            continue
    return found


def _files(record: Record, scores: Mapping[str, np.ndarray]) -> list[str]:
    """The scores' file must be a neighbour of the record, under the record's name, and hold what the record lists."""
    stored = record.per_image
    if stored is None:
        return []
    found = []
    if stored.file != f"{record.file_stem}.npz":
        found.append(f"its per-image scores are in {stored.file!r}, expected {record.file_stem}.npz beside the record.")
    unlike = sorted(set(stored.arrays) ^ set(scores))
    if unlike:
        found.append(f"{stored.file} does not hold the arrays that the record lists ({', '.join(unlike)}).")
    return found


def copy(entries: Sequence[Entry], folder: Path) -> list[str]:
    """Copy records and scores; none of them is in its place before all are whole."""
    records = Path(folder) / RECORDS
    with ExitStack() as stack:
        for entry in entries:
            stem = entry.record.file_stem
            shutil.copyfile(entry.path, stack.enter_context(atomic_path(records / f"{stem}.json")))
            if entry.record.per_image is not None:
                scores = entry.path.parent / entry.record.per_image.file
                shutil.copyfile(scores, stack.enter_context(atomic_path(records / f"{stem}.npz")))
    copy_pictures(entries, Path(folder) / GRIDS)
    return [entry.record.file_stem for entry in entries]


def copy_pictures(entries: Sequence[Entry], grids: Path) -> None:
    """Write the pictures of records from the folder of a run or of a leaderboard; of several seeds the first's."""
    homes: dict[Path, Source] = {}
    rows = []
    for row, found in by_row(entries).items():
        home = found[0].path.parent.parent
        if home not in homes:
            stored = home / GRIDS if (home / GRIDS).is_dir() else None
            is_run = (home / "run.json").is_file()
            homes[home] = run_source(home) if is_run else Source(home.name, [], pictures=stored)
        rows.append(Row(row, found[0].record, (Part(found[0], homes[home]),)))
    write_pictures(grids, rows)
