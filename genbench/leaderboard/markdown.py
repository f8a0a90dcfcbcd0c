"""A board as README.md: measured rows and controls with ranks, seeds, likelihoods by kind, fronts, published rows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from genbench.leaderboard.board import TIERS, Board, Cell, Metric, Row
from genbench.leaderboard.groups import legend, letters
from genbench.leaderboard.sheets import Letters, by_leading_metric, main_metrics, standing
from genbench.record import Record
from genbench.report.likelihood import likelihood_sheet, likelihood_table
from genbench.report.markup import escape, table
from genbench.report.names import DASH, arrow, format_value
from genbench.report.sheet import markdown
from genbench.report.tables import labels

LEGEND = """Brackets hold 95 % intervals. In parentheses stands the rank among the models that were measured in the
same way, as an interval: its ends are the best and the worst rank that the intervals leave open (1–3 is a tie of
three). Of several seeds the mean is shown, ± their standard deviation. ≤ and ≥: bounds; ~: estimated likelihood; ✓:
measured again with the same outcome; –: not applicable or not measured."""
LETTERS = (
    "Letters in parentheses tell cells apart that were measured in unlike ways, or are of another kind, and rank apart:"
)


def to_markdown(board: Board, records: Sequence[Record]) -> str:
    """The README of a leaderboard. records: those of the board, for the table of likelihoods."""
    models = [row for row in board.rows if row.tier != "reported" and not row.control]
    controls = [row for row in board.rows if row.control]
    published = [row for row in board.rows if row.tier == "reported"]
    parts = [
        f"# {escape(board.title)}",
        escape(board.description),
        "Made by `genbench leaderboard build`; do not edit. [rules.md](rules.md) says what a row must state and which\n"
        "rows rank together; [table.csv](table.csv) has every metric.",
        "Tiers:\n\n" + "\n".join(f"- `{tier}`: {meaning}." for tier, meaning in TIERS.items()),
    ]
    if models or controls:
        parts += ["## Measured", *_measured(board, models, controls)]
        parts += _verified([*models, *controls]) + _likelihoods(records) + _seeds(board, models) + _fronts(board)
    if published:
        parts += ["## Published (tier `reported`)", _reported_note(published), _reported(board, published)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(metric: Metric) -> str:
    return escape(f"{metric.label} {arrow(metric.higher_is_better)}".strip())


def _measured(board: Board, models: Sequence[Row], controls: Sequence[Row]) -> list[str]:
    """The table of models and controls, and what its signs and letters say."""
    metrics = main_metrics(board, [*models, *controls])
    apart = letters(board, [*models, *controls])
    lines = []
    for row in [*by_leading_metric(models, metrics, apart), *by_leading_metric(controls, metrics, apart)]:
        cells = [_cell(row.cells.get(metric.key), metric.key, apart) for metric in metrics]
        lines.append([_name(row), "control" if row.control else row.tier, *cells])
    told = [f"- {escape(f'{name}: {texts}')}" for name, texts in legend(board, apart, [one.key for one in metrics])]
    return [
        table(["System", "Tier", *(_head(metric) for metric in metrics)], lines, 2),
        LEGEND,
        "\n".join([LETTERS, "", *told]) if told else "",
    ]


def _name(row: Row) -> str:
    return f"`{row.label}`" if re.fullmatch(r"[\w@.+-]+", row.label) else escape(row.label)


def _cell(cell: Cell | None, key: str, apart: Letters) -> str:
    if cell is None:
        return DASH
    again = "✓" if cell.reproduced else ""
    shown = (escape(cell.text), again, escape(cell.interval), standing(cell, key, apart))
    return " ".join(part for part in shown if part)


def _verified(rows: Sequence[Row]) -> list[str]:
    """Who measured rows again, when and from what."""
    found = [f"- {_name(row)}: {escape(row.verified)}" for row in rows if row.verified]
    return ["## Measured again", "\n".join(found)] if found else []


def _seeds(board: Board, models: Sequence[Row]) -> list[str]:
    """Every seed of the rows that have several."""
    rows = [row for row in models if len(row.seeds) > 1]
    if not rows:
        return []
    metrics = main_metrics(board, rows)
    lines = [
        [escape(row.label), ", ".join(map(str, row.seeds)), *(_each_seed(row.cells.get(m.key), m) for m in metrics)]
        for row in rows
    ]
    return ["## Every seed", table(["System", "Seeds", *(_head(metric) for metric in metrics)], lines, 2)]


def _each_seed(cell: Cell | None, metric: Metric) -> str:
    if cell is None or cell.value is None:
        return DASH
    note = f" ({escape(cell.reason)})" if cell.reason else ""
    return ", ".join(DASH if value is None else format_value(metric.name, value) for value in cell.seeds) + note


def _likelihoods(records: Sequence[Record]) -> list[str]:
    """What is exact apart from bounds and from estimates, one column an estimator."""
    found = likelihood_table(records, labels(records))
    if found is None:
        return []
    return [markdown(likelihood_sheet(found))]


def _fronts(board: Board) -> list[str]:
    """The fronts of the main metrics; letters are those of the table of measured rows."""
    main = {metric.key: metric for metric in main_metrics(board, board.rows)}
    names = {row.id: row.label for row in board.rows}
    apart = letters(board, [row for row in board.rows if row.tier != "reported"])
    lines = []
    for front in board.pareto:
        pair = (front.quality, front.cost)
        if set(pair) <= set(main):
            groups = [apart.get(side, "") for side in zip(pair, front.groups, strict=True)]
            heads = [
                escape(f"{main[key].label} ({letter})" if letter else main[key].label)
                for key, letter in zip(pair, groups, strict=True)
            ]
            lines.append([*heads, ", ".join(escape(names[row]) for row in front.rows)])
    if not lines:
        return []
    told = "Rows that no other row, measured in the same way, surely beats in both."
    return ["## Pareto fronts", told, table(["Quality", "Against", "Rows"], lines, 3)]


def _reported_note(rows: Sequence[Row]) -> str:
    note = "As their sources give them; nothing of it was measured here, and these rows rank with none."
    if any(not cell.confirmed for row in rows for cell in row.cells.values()):
        note += " A question mark: not checked at its source."
    note += ' A dash under "Measured how": not known.'
    return note


def _reported(board: Board, rows: Sequence[Row]) -> str:
    metrics = [metric for metric in board.metrics if any(metric.key in row.cells for row in rows)]
    metrics = [*main_metrics(board, rows), *(m for m in metrics if m not in main_metrics(board, rows))]
    lines = []
    for row in by_leading_metric(rows, metrics):
        cells, protocols = [], []
        for metric in metrics:
            cell = row.cells.get(metric.key)
            cells.append(DASH if cell is None else escape(f"{cell.text} {_estimator(cell)}".strip()))
            if cell is not None and cell.reason:
                protocols.append(f"{metric.label}: {cell.reason}" if len(metrics) > 1 else cell.reason)
        told = escape("; ".join(protocols)) or DASH
        lines.append([escape(row.label), *cells, told, escape(row.source)])
    head = ["System", *(_head(metric) for metric in metrics), "Measured how", "Source"]
    return table(head, lines, len(head))


def _estimator(cell: Cell) -> str:
    return "" if cell.estimator in ("", "exact") else f"({cell.estimator})"
