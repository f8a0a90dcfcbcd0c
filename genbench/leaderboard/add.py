"""`genbench leaderboard add` and `merge`: records become rows, after all that is wrong with them was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genbench.check.collect import Entry, record_files, record_paths
from genbench.errors import DataError, UsageError
from genbench.evaluation.result import read_scores
from genbench.leaderboard.diff import printable
from genbench.leaderboard.folder import RECORDS
from genbench.leaderboard.place import copy, unbuildable
from genbench.leaderboard.rules import problems
from genbench.record import Record, read_record

_TO_ADD = "Use --replace, or another seed."
_TO_MERGE = (
    "merge leaves rows that are there as they are; to take this one, give its file to `genbench leaderboard add --to "
    "{folder} --replace`."
)


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
    judged = judge(files, folder, _TO_ADD, replace=replace)
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
    judged = judge(files, folder, _TO_MERGE.format(folder=folder))
    return copy(judged.accepted, folder), judged.refused


def _is_there(path: Path, other: Path) -> bool:
    return other.is_file() and other.read_bytes() == path.read_bytes()


def refusals(refused: Sequence[Refused]) -> str:
    """Files and everything that is wrong with them, as text of several lines."""
    listed = [(str(one.path), "".join(f"\n  - {printable(reason)}" for reason in one.reasons)) for one in refused]
    return "\n".join(f"{printable(path)}:{reasons}" for path, reasons in listed)


def judge(files: Sequence[Path], folder: Path, taken: str, *, replace: bool = False) -> Judged:
    """What may become a row, each record judged beside the rows that are there and those accepted so far; and all of
    them by a trial whether the leaderboard can be made with them.

    Args:
        taken: what to do about a row and seed that is there already.
        replace: whether a record may take the place of one of the same row and seed.
    """
    folder = Path(folder)
    suite = folder.resolve().name
    there = _there(folder)
    accepted: dict[str, Entry] = {}
    refused: list[Refused] = []
    for file in files:
        entry, reasons = _read(file)
        if entry is None:
            refused.append(Refused(file, reasons))
            continue
        stem = entry.record.file_stem
        if stem in accepted:
            reasons.append(f"{accepted[stem].path} has the same row and seed. Give one of them.")
        elif stem in there and not replace:
            reasons.append(f"{entry.record.row} with seed {entry.record.seed} is there already. {taken}")
        others = [one for name, one in (there | accepted).items() if name != stem]
        reasons += problems(entry, suite, others)
        if reasons:
            refused.append(Refused(file, reasons))
        else:
            accepted[stem] = entry
    broken = unbuildable(list(accepted.values()), folder)
    told = "the leaderboard cannot be made with it: {}"
    refused += [Refused(accepted.pop(stem).path, [told.format(reason)]) for stem, reason in broken.items()]
    return Judged(list(accepted.values()), refused)


def _read(file: Path) -> tuple[Entry | None, list[str]]:
    """A record with its scores, and what is wrong with the files; None where the record cannot be read."""
    try:
        record = read_record(file)
    except DataError as error:
        return None, [str(error).removeprefix(f"{file}: ")]
    try:
        scores = read_scores(file.parent, record.per_image)
    except DataError as error:
        return Entry(record, {}, file), [f"{error} Hand in the file that the run wrote beside the record."]
    return Entry(record, scores, file), _files(record, scores)


def _there(folder: Path) -> dict[str, Entry]:
    """Records of the leaderboard by file stem, without their scores: a damaged one can be replaced."""
    found = {}
    for path in record_paths(folder / RECORDS):
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
