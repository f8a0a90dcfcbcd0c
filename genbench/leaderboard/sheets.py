"""A board as CSV and as LaTeX: every cell is text that may come from a stranger's record, and is made harmless."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

from genbench.leaderboard.board import Board, Cell, Metric, Row
from genbench.leaderboard.groups import legend, letters
from genbench.report.latex import needs, tabulars
from genbench.report.markup import plain
from genbench.report.names import DASH, arrow
from genbench.report.tables import MAIN_COLUMNS

MAIN = ("nats_per_image", *MAIN_COLUMNS)
"""Metrics of the tables that are read on paper; table.csv and the page have all."""
Letters = Mapping[tuple[str, str], str]
"""Of groups, by metric and group."""
_REPRODUCED = "†"
_CELL_COLUMNS = (
    *("", "_low", "_high", "_kind", "_estimator", "_rank_best", "_rank_worst", "_group", "_seeds", "_reproduced"),
    *("_status", "_reason"),
)


def rank_text(rank: tuple[int, int] | None) -> str:
    """``"1"``, or ``"1–3"`` where the intervals leave it open; empty for what is not ranked."""
    if rank is None:
        return ""
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}–{rank[1]}"


def main_metrics(board: Board, rows: Sequence[Row]) -> list[Metric]:
    """The metrics of `MAIN` that one of ``rows`` has a value of, in that order."""
    return [
        metric
        for name in MAIN
        for metric in board.metrics
        if metric.name == name and any(_has(row, metric.key) for row in rows)
    ]


def by_leading_metric(rows: Sequence[Row], metrics: Sequence[Metric], apart: Letters | None = None) -> list[Row]:
    """Rows by their value in the first of the metrics that has a better direction, best first; rows without one last,
    as they are. Groups that have a letter in ``apart`` stand one after the other."""
    leading = next((metric for metric in metrics if metric.higher_is_better is not None), None)
    if leading is None:
        return list(rows)
    sign = -1.0 if leading.higher_is_better else 1.0
    order = {pair: number for number, pair in enumerate(apart or {})}

    def place(row: Row) -> tuple[bool, int, float]:
        cell = row.cells.get(leading.key, Cell())
        if cell.value is None:
            return True, 0, 0.0
        return False, order.get((leading.key, cell.group), len(order)), sign * cell.value

    return sorted(rows, key=place)


def standing(cell: Cell, key: str, apart: Letters) -> str:
    """Rank and letter of the group in parentheses: ``"(1–3)"``, ``"(2 a)"``, ``"(b)"``; empty without either."""
    parts = [part for part in (rank_text(cell.rank), apart.get((key, cell.group), "")) if part]
    return f"({' '.join(parts)})" if parts and cell.value is not None else ""


def _has(row: Row, key: str) -> bool:
    return key in row.cells and row.cells[key].value is not None


def to_csv(board: Board) -> str:
    """One line a row, every metric with interval, kind, estimator, ranks, group and seeds, and what is to be said of
    the value. What is missing is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    identity = ("id", "label", "model", "variant", "family", "tier", "control", "confirmed", "device", "extractor")
    heads = [*identity, "seeds", "parameters", "training_seconds", "source", "record", "verified"]
    heads += [f"{metric.key}{suffix}" for metric in board.metrics for suffix in _CELL_COLUMNS]
    writer.writerow(plain(head) for head in heads)
    for row in board.rows:
        values: list[object] = [getattr(row, name) for name in identity]
        values += [" ".join(map(str, row.seeds)), row.parameters, row.training_seconds, row.source, row.record]
        values.append(row.verified)
        for metric in board.metrics:
            values += _csv_cell(row.cells.get(metric.key))
        writer.writerow(plain(value) if isinstance(value, str) else value for value in values)
    return out.getvalue()


def _csv_cell(cell: Cell | None) -> list[object]:
    if cell is None:
        return [None] * len(_CELL_COLUMNS)
    if cell.value is None:
        return [*[None] * (len(_CELL_COLUMNS) - 2), cell.status, cell.reason]
    best, worst = cell.rank or (None, None)
    seeds = " ".join("-" if value is None else repr(value) for value in cell.seeds)
    seeds = f"[{seeds}]" if seeds else ""
    status = cell.status if cell.confirmed else "not confirmed"
    value = [cell.value, cell.low, cell.high, cell.kind, cell.estimator, best, worst, cell.group, seeds]
    return [*value, cell.reproduced, status, cell.reason]


def to_latex(board: Board) -> str:
    """The main columns for LaTeX: measured models, controls, and published results."""
    sections = [
        (
            f"Measured (self-run; {_REPRODUCED} reproduced)",
            _of(board, lambda row: row.tier != "reported" and not row.control),
        ),
        ("Controls", _of(board, lambda row: row.control)),
        ("Reported", _of(board, lambda row: row.tier == "reported")),
    ]
    metrics = main_metrics(board, board.rows)
    apart = letters(board, [row for row in board.rows if row.tier != "reported"])
    heads = ["System", *(f"{metric.label} {arrow(metric.higher_is_better)}".strip() for metric in metrics)]
    shown = [
        (title, [_latex_cells(row, metrics, apart) for row in by_leading_metric(rows, metrics, apart)])
        for title, rows in sections
    ]
    notes = [f"{label}: {told}" for label, told in legend(board, apart, [metric.key for metric in metrics])]
    tables = tabulars(heads, shown, 1, notes)
    lines = [
        f"{needs(tables)} Made by `genbench leaderboard build`.",
        "% Ranks in parentheses, 95 % intervals in brackets. Reported rows are as their sources give them and rank",
        "% with none; ?: not checked at its source. Letters tell groups apart that rank by themselves.",
        tables,
    ]
    return "\n".join([*lines, ""])


def _of(board: Board, wanted: Callable[[Row], bool]) -> list[Row]:
    return [row for row in board.rows if wanted(row)]


def _latex_cells(row: Row, metrics: Sequence[Metric], apart: Letters) -> list[str]:
    cells = [f"{row.label} {_REPRODUCED}" if row.tier == "reproduced" else row.label]
    for metric in metrics:
        cell = row.cells.get(metric.key, Cell(text=DASH))
        shown = (cell.text, standing(cell, metric.key, apart), cell.interval)
        cells.append(" ".join(part for part in shown if part))
    return cells
