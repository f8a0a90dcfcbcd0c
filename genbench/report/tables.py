"""The comparative table: as data for the report, as a pandas frame, as CSV and Markdown, and for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from genbench.check.speed import SPEED_METRICS, contended
from genbench.files import write_text
from genbench.record import MetricResult, Record
from genbench.report.likelihood import kind_note
from genbench.report.load import read_run
from genbench.report.markup import Bold, plain
from genbench.report.names import (
    DASH,
    GROUPS,
    ORDER,
    Group,
    arrow,
    direction,
    display,
    format_measured,
    format_value,
    mark,
    metric_name,
)
from genbench.report.ranking import Standing, exceeds_expected, expected_share, standing
from genbench.report.seeds import pooled_seeds, quoted
from genbench.report.sheet import Sheet, markdown

MAIN_COLUMNS = (
    "fid",
    "kid",
    "inception_score",
    "precision",
    "recall",
    "clip_score",
    "bits_per_dim",
    "ssim",
    "memorised_share",
    "images_per_second",
    "parameters",
    "training_seconds",
)
TERMINAL_LABELS = {
    "precision": "Prec.",
    "memorised_share": "Memor.",
    "parameters": "Params",
    "training_seconds": "Train",
}
LEAST_IMPORTANT = ("training_seconds", "parameters", "kid", "inception_score", "ssim", "memorised_share", "recall")
"""Columns that a narrow terminal goes without, the first to go first."""
UNRANKED = "memorised_share"
"""Held against its expected value; a lower one is not better."""
CEILING = "test_split"
"""The control that is as good as samples can be."""


@dataclass(frozen=True)
class Column:
    """One metric with one extractor. Of several estimators a row shows the one to quote."""

    name: str
    extractor: str | None
    higher_is_better: bool | None

    @property
    def label(self) -> str:
        return metric_name(self.name).label

    @property
    def title(self) -> str:
        return display(self.name, self.extractor)

    @property
    def arrow(self) -> str:
        return arrow(self.higher_is_better)

    @property
    def direction(self) -> str:
        return direction(self.higher_is_better)

    @property
    def group(self) -> Group:
        return metric_name(self.name).group

    @property
    def meaning(self) -> str:
        return metric_name(self.name).meaning

    def of(self, record: Record) -> MetricResult | None:
        """This column's result in a record, as `seeds.quoted` chooses it."""
        return quoted(record, self.name, self.extractor)


@dataclass(frozen=True)
class Cell:
    """One value as shown. state: ok, dash (not applicable or absent) or failed; sort: the number, as text.

    flagged: a memorised share above what is expected of honest samples.
    """

    state: str
    text: str
    interval: str = ""
    note: str = ""
    title: str = ""
    sort: str = ""
    best: bool = False
    tied: bool = False
    outside: bool = False
    flagged: bool = False


@dataclass(frozen=True)
class TableRow:
    """One record as shown; a failed one has a reason and no cells."""

    label: str
    record: Record
    cells: list[Cell] = field(default_factory=list)

    @property
    def reason(self) -> str | None:
        return self.record.reason if self.record.status == "failed" else None


@dataclass(frozen=True)
class Comparison:
    """The comparative table: columns in order of the metrics' groups, models apart from controls."""

    columns: list[Column]
    models: list[TableRow]
    controls: list[TableRow]

    @property
    def sections(self) -> list[tuple[str, list[TableRow]]]:
        named = [("Models", self.models), ("Controls", self.controls)]
        return [(name, rows) for name, rows in named if rows]

    @property
    def column_groups(self) -> list[tuple[str, int]]:
        """Heading and number of columns of each group, in order."""
        counts = {group: sum(column.group == group for column in self.columns) for group in GROUPS}
        return [(GROUPS[group], count) for group, count in counts.items() if count]


def labels(records: Sequence[Record]) -> list[str]:
    """Names of rows: ``model@variant``, with the seed where a run has several."""
    several = len({record.seed for record in records}) > 1
    return [f"{record.row} (seed {record.seed})" if several else record.row for record in records]


def columns(records: Sequence[Record]) -> list[Column]:
    """Every (metric, extractor) of the records, by group and then in the order of `names.METRICS`."""
    found: dict[tuple[str, str | None], Column] = {}
    for record in records:
        for metric in record.metrics:
            key = (metric.name, metric.extractor)
            if key not in found or found[key].higher_is_better is None:
                found[key] = Column(metric.name, metric.extractor, metric.higher_is_better)
    groups = list(GROUPS)
    return sorted(
        found.values(), key=lambda c: (groups.index(metric_name(c.name).group), ORDER.get(c.name, len(ORDER)))
    )


def column_standing(records: Sequence[Record], column: Column) -> Standing:
    """Standing of the models (not the controls) in a column, by position in ``records``."""
    metrics: dict[str, MetricResult] = {}
    outside: set[str] = set()
    if column.name == UNRANKED:
        return Standing()
    for position, record in enumerate(records):
        metric = column.of(record)
        if metric is None or record.control or record.status != "ok":
            continue
        if column.name in SPEED_METRICS and contended(record):
            outside.add(str(position))
        else:
            metrics[str(position)] = metric
    found = standing(metrics)
    return replace(found, outside=found.outside | outside)


def compare(records: Sequence[Record], names: Sequence[str] | None = None) -> Comparison:
    """The comparative table of ``records``. names: of the rows, by default their `labels`."""
    shown = columns(records)
    standings = [column_standing(records, column) for column in shown]
    models: list[TableRow] = []
    controls: list[TableRow] = []
    for position, (record, label) in enumerate(zip(records, names or labels(records), strict=True)):
        row = TableRow(label, record)
        if record.status == "ok":
            row.cells.extend(_cell(column.of(record), s, str(position)) for column, s in zip(shown, standings))
        (controls if record.control else models).append(row)
    return Comparison(shown, models, controls)


def value_text(metric: MetricResult) -> str:
    """``"≤ 2.141"``: the value as shown, with the mark of its kind; a dash where there is none."""
    if metric.value is None:
        return DASH
    return f"{mark(metric.name, metric.kind)} {format_measured(metric.name, metric.value, metric.ci95)[0]}".strip()


def interval_text(metric: MetricResult) -> str:
    """``"[7.2, 11.0]"``, or nothing where the metric has no interval."""
    return "" if metric.value is None else format_measured(metric.name, metric.value, metric.ci95)[1]


def _cell(metric: MetricResult | None, rank: Standing, key: str) -> Cell:
    if metric is None:
        return Cell("dash", DASH, title="not measured")
    if metric.value is None:
        state = "failed" if metric.status == "failed" else "dash"
        return Cell(state, "failed" if state == "failed" else DASH, title=metric.reason or "")
    expected = expected_share(metric) if metric.name == UNRANKED else None
    notes = [kind_note(metric)] if metric_name(metric.name).group == "likelihood" else []
    if expected is not None:
        notes.append(f"expected {format_value(metric.name, expected)}")
    if (seeds := pooled_seeds(metric)) > 1:
        notes.append(f"mean of {seeds} seeds")
    return Cell(
        "ok",
        value_text(metric),
        interval=interval_text(metric),
        note=" · ".join(notes),
        title=_passport(metric),
        sort=repr(metric.value),
        best=key in rank.best,
        tied=key in rank.tied,
        outside=key in rank.outside,
        flagged=expected is not None and bool(exceeds_expected(metric)),
    )


def _passport(metric: MetricResult) -> str:
    parts = [f"{metric.value:.6g}" + (f" {metric.unit}" if metric.unit else "")]
    if metric.ci95 is not None:
        parts.append(f"95 % interval {metric.ci95[0]:.6g} to {metric.ci95[1]:.6g}")
    parts.append(f"{metric.kind.replace('_', ' ')}" + (f", {metric.estimator}" if metric.estimator else ""))
    if metric.n is not None:
        parts.append(f"n = {metric.n}")
    return "; ".join(parts)


def summary_frame(records: Sequence[Record]) -> pd.DataFrame:
    """One row a record: identity, then for each metric its value and ``*_ci95_low`` and ``*_ci95_high``.

    A metric with several extractors or estimators has its further ones in columns ``name[extractor]`` or
    ``name[estimator]``; likelihoods also have ``*_kind`` and ``*_estimator``. What has no value is missing.
    """
    extractors = {c.name: [d.extractor for d in columns(records) if d.name == c.name] for c in columns(records)}
    table = []
    for record in records:
        values: dict[str, object] = {
            "row": record.row,
            "model": record.model,
            "variant": record.variant,
            "seed": record.seed,
            "family": record.family,
            "control": record.control,
            "status": record.status,
            "reason": record.reason,
        }
        for metric in record.metrics:
            name = metric.name
            if len(extractors[name]) > 1 and metric.extractor != extractors[name][0]:
                name = f"{name}[{metric.extractor}]"
            if name in values:
                name = f"{name}[{metric.estimator}]"
            values[name] = metric.value
            if metric.ci95 is not None:
                values[f"{name}_ci95_low"], values[f"{name}_ci95_high"] = metric.ci95
            if metric_name(metric.name).group == "likelihood":
                values[f"{name}_kind"], values[f"{name}_estimator"] = metric.kind, metric.estimator
        table.append(values)
    return pd.DataFrame(table)


def plain_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with every text, heads too, kept from being a formula in a spreadsheet."""
    return frame.rename(columns=plain).map(lambda value: plain(value) if isinstance(value, str) else value)


def write_summary(run_dir: Path) -> tuple[Path, Path]:
    """Write ``summary.csv`` (every metric) and ``summary.md`` (the main ones) of a run; returns their paths.

    Raises:
        UsageError: ``run_dir`` is not the folder of a run.
    """
    run_dir = Path(run_dir)
    records = read_run(run_dir).records
    csv, markdown = run_dir / "summary.csv", run_dir / "summary.md"
    write_text(csv, plain_frame(summary_frame(records)).to_csv(index=False))
    write_text(markdown, summary_markdown(records))
    return csv, markdown


def main_columns(comparison: Comparison) -> list[int]:
    """Positions of the main columns that the records have, in the order of `MAIN_COLUMNS`."""
    return [i for name in MAIN_COLUMNS for i, column in enumerate(comparison.columns) if column.name == name]


LEGEND = (
    "Brackets hold 95 % intervals; bold: best model; ≈: cannot be told from the best; ≤ and ≥: bounds; "
    "~: estimated likelihood; ‡: measured in another way, not ranked."
)


def summary_markdown(records: Sequence[Record]) -> str:
    """The main columns as Markdown: best model in bold, ties with it marked ≈, intervals in brackets."""
    return markdown(replace(comparison_sheet(compare(records)), title="")) + "\n"


def comparison_sheet(comparison: Comparison) -> Sheet:
    """The main columns as a table."""
    chosen = main_columns(comparison)
    heads = ["row", *(f"{comparison.columns[i].title} {comparison.columns[i].arrow}".strip() for i in chosen)]
    lines = []
    for section, rows in comparison.sections:
        for row in rows:
            name = row.label if section == "Models" else f"{row.label} (control)"
            cells = [_sheet_cell(row.cells[i]) for i in chosen] if row.reason is None else [f"failed: {row.reason}"]
            lines.append([name, *cells, *[""] * (len(chosen) - len(cells))])
    return Sheet("Comparison", heads, lines, 1, LEGEND)


def _sheet_cell(cell: Cell) -> str:
    suffix = (" ≈" if cell.tied else "") + (" ‡" if cell.outside else "")
    text = " ".join(part for part in (cell.text + suffix, cell.interval, cell.note) if part)
    return Bold(text) if cell.best else text


def terminal_table(records: Sequence[Record], width: int | None = None) -> Table:
    """The main columns for a terminal: models, then controls; best model in bold, failed rows with their reason.

    width: characters to fit into, by default those of the terminal, if standard output is one. Where the columns need
    more, the least important are left out and the caption says so.
    """
    comparison = compare(records)
    chosen = main_columns(comparison)
    terminal = Console()
    limit = width or (terminal.width if terminal.is_terminal else None)
    table = _terminal_table(comparison, chosen, complete=True)
    for name in LEAST_IMPORTANT:
        if limit is None or Console(width=1000).measure(table).maximum <= limit:
            break
        chosen = [i for i in chosen if comparison.columns[i].name != name]
        table = _terminal_table(comparison, chosen, complete=False)
    return table


def _terminal_table(comparison: Comparison, chosen: Sequence[int], complete: bool) -> Table:
    caption = Text("bold: best model · ≈ tied with it · ≤ ≥ bounds · ~ estimates")
    caption.append("" if complete else "\nFurther columns: summary.md and the report")
    for row in (*comparison.models, *comparison.controls):
        if row.reason is not None:
            caption.append(f"\n{row.label} failed: {_short(row.reason)}", style="red")
    table = Table(caption=caption, caption_justify="left", min_width=60, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(Text("row"), no_wrap=True)
    for i in chosen:
        column = comparison.columns[i]
        label = TERMINAL_LABELS.get(column.name, column.label)
        table.add_column(Text(f"{label} {column.arrow}".strip()), justify="right", no_wrap=True)
    for _, rows in comparison.sections:
        for row in rows:
            name = Text(row.label, style="dim" if row.record.control else "")
            if row.reason is not None:
                table.add_row(name, *([Text("failed", style="red")] if chosen else []))
                continue
            table.add_row(name, *(_terminal_cell(row.cells[i], row.record.control) for i in chosen))
        table.add_section()
    return table


def _terminal_cell(cell: Cell, control: bool) -> Text:
    text = cell.text.replace("≤ ", "≤").replace(" %", "%") + ("≈" if cell.tied else "") + ("‡" if cell.outside else "")
    return Text(text, style="bold" if cell.best else "red" if cell.state == "failed" else "dim" if control else "")


def _short(reason: str, limit: int = 100) -> str:
    line = reason.strip().splitlines()[0] if reason.strip() else reason
    return line if len(line) <= limit else line[: limit - 1] + "…"
