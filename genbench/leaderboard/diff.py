"""`genbench leaderboard diff`: what changed between two leaderboards, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from genbench.leaderboard.board import Board, Cell, Row
from genbench.leaderboard.sheets import rank_text

ABSENT = Cell(status="not_applicable", reason="not measured")
_STATED = ("tier", "family", "model", "variant", "device", "extractor", "source", "parameters", "confirmed")


def diff(old: Board, new: Board) -> list[str]:
    """Rows that were added or removed, statements, values and ranks that changed; empty where nothing did."""
    before, after = ({row.id: row for row in board.rows} for board in (old, new))
    labels = {metric.key: metric.label for board in (old, new) for metric in board.metrics}
    lines = [] if old.suite == new.suite else [f"suite: {old.suite} -> {new.suite}"]
    lines += [f"+ {printable(row.label)} ({row.tier})" for key, row in after.items() if key not in before]
    lines += [f"- {printable(row.label)} ({row.tier})" for key, row in before.items() if key not in after]
    for key, row in after.items():
        if key in before:
            changes = [*_statements(before[key], row), *_cells(before[key], row, labels)]
            lines += [f"  {printable(row.label)}: {printable(change)}" for change in changes]
    if old.rules != new.rules:
        lines.append("  rules.md changed")
    return lines


def _statements(old: Row, new: Row) -> list[str]:
    pairs = [(name, getattr(old, name), getattr(new, name)) for name in _STATED]
    changed = [f"{name}: {before} -> {after}" for name, before, after in pairs if before != after]
    if list(old.seeds) != list(new.seeds):
        changed.append(f"seeds: {_listed(old.seeds)} -> {_listed(new.seeds)}")
    return changed


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds)) or "none"


def _cells(old: Row, new: Row, labels: dict[str, str]) -> list[str]:
    changed = []
    for key in dict.fromkeys((*old.cells, *new.cells)):
        before, after = (row.cells.get(key, ABSENT) for row in (old, new))
        label = labels[key]
        if (before.value, before.low, before.high, before.kind) != (after.value, after.low, after.high, after.kind):
            changed.append(f"{label}: {_shown(before)} -> {_shown(after)}")
        elif _absence(before) != _absence(after):
            changed.append(f"{label}: {_absence(before)} -> {_absence(after)}")
        if before.rank != after.rank:
            changed.append(f"{label}: rank {rank_text(before.rank) or 'none'} -> {rank_text(after.rank) or 'none'}")
        if before.value is not None and after.value is not None and before.group != after.group:
            changed.append(f"{label}: measured in another way")
    return changed


def _absence(cell: Cell) -> str:
    return "" if cell.value is not None else f"{cell.status.replace('_', ' ')}: {cell.reason}"


def _shown(cell: Cell) -> str:
    """A value with its interval; with all digits where rounding would hide a change."""
    if cell.value is None:
        return cell.text
    return f"{cell.text} {cell.interval}".strip() + f" ({cell.value:.6g})"


def printable(text: str) -> str:
    """Text without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)
