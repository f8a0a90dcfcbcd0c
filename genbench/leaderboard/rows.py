"""Finding a row in the leaderboards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genbench.check.collect import Entry
from genbench.errors import UsageError, unknown
from genbench.leaderboard.build import leaderboards
from genbench.leaderboard.folder import read_folder


def find_row(row: str, folder: Path | None = None) -> tuple[Path, list[Entry]]:
    """The leaderboard that has a row (``model`` or ``model@variant``), and the row's seeds.

    Args:
        folder: of the leaderboard; by default the one in ``leaderboards/`` that has the row.

    Raises:
        UsageError: no such row, or several leaderboards have it.
    """
    folders = leaderboards() if folder is None else [folder]
    boards = {path: read_folder(path).entries for path in folders}
    found = [path for path, entries in boards.items() if row in entries]
    if not found:
        raise unknown(
            f"row of {', '.join(map(str, folders))}", row, {name for rows in boards.values() for name in rows}
        )
    if len(found) > 1:
        raise UsageError(f"{', '.join(map(str, found))} all have a row '{row}'. Name one with --in DIR.")
    return found[0], boards[found[0]][row]


def of_seed(entries: Sequence[Entry], seed: int | None) -> list[Entry]:
    """The entries of one seed, or all without one.

    Raises:
        UsageError: the row does not have that seed.
    """
    kept = [entry for entry in entries if seed in (None, entry.record.seed)]
    if not kept:
        there = ", ".join(str(entry.record.seed) for entry in entries)
        raise UsageError(f"{entries[0].record.row} has no seed {seed} on the leaderboard (seeds: {there}).")
    return kept
