"""``genbench compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from genbench.evaluation.compare import Comparison, Row
    from genbench.record import MetricResult

EXAMPLES = """
\b
Examples:
  genbench compare before.json after.json
  genbench compare runs/digits/records/vae-s0.json runs/digits/records/ddpm-s0.json --metrics fid,kid
"""
STYLES = {"better": "green", "worse": "red", "different": "yellow", "not comparable": "dim"}


@click.command("compare", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("a", type=click.Path(path_type=Path), metavar="A.json")
@click.argument("b", type=click.Path(path_type=Path), metavar="B.json")
@click.option("--metrics", help="Only these, with commas between them.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all numbers.")
@click.option(
    "--tolerance-free",
    is_flag=True,
    help="Count any difference of the values, whatever their intervals; exit with 1 if there is one.",
)
def command(a: Path, b: Path, metrics: str | None, json_file: Path | None, tolerance_free: bool) -> int:
    """Compare two results of `genbench eval --json`, or records of runs, metric by metric.

    Each difference B - A has a 95 % interval: over paired per-image scores where both files score the same images, else
    from both standard errors. What was measured in unlike ways is refused, with the first difference.
    """
    from genbench.cli.console import console
    from genbench.cli.names import listed
    from genbench.evaluation.compare import compare, load_measured
    from genbench.files import write_json
    from genbench.metrics.names import metric_name

    names = None if metrics is None else [metric_name(name) for name in listed("--metrics", metrics)]
    found = compare(load_measured(a), load_measured(b), names, tolerance_free=tolerance_free)
    if json_file is not None:
        write_json(json_file, found.as_dict())
    console().print(comparison_table(found))
    return int(tolerance_free and any(row.verdict != "equal" for row in found.rows))


def comparison_table(found: Comparison) -> Table:
    """The comparison for a terminal: a row a metric, with the notes below."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    caption = Text(f"A: {found.a} · B: {found.b}\nbrackets: 95 % intervals, each difference on its own")
    for row in found.rows:
        for note in row.notes:
            caption.append(f"\n{row.name}: {note}")
    table = Table(caption=caption, caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, min_width=60)
    table.add_column("metric", no_wrap=True)
    for head in ("A", "B", "B − A", "p"):
        table.add_column(head, justify="right")
    table.add_column("B is", no_wrap=True)
    table.add_column("how")
    for row in found.rows:
        table.add_row(*_cells(row), style="dim" if row.refused else None)
    return table


def _cells(row: Row) -> list[Text]:
    from rich.text import Text

    from genbench.report.names import arrow, display

    title = f"{display(row.name, row.extractor)} {arrow(row.higher_is_better)}".strip()
    p = None if row.difference is None else row.difference.p
    return [
        Text(title),
        Text(_value(row.a)),
        Text(_value(row.b)),
        Text(_difference(row)),
        Text("" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"),
        Text(row.verdict, style=STYLES.get(row.verdict, "")),
        Text(row.refused or (row.difference.method if row.difference else "")),
    ]


def _value(metric: MetricResult | None) -> str:
    from genbench.report.names import format_measured, mark

    if metric is None or metric.value is None:
        return "–"
    value, interval = format_measured(metric.name, metric.value, metric.ci95)
    return " ".join(part for part in (mark(metric.name, metric.kind), value, interval) if part)


def _difference(row: Row) -> str:
    from genbench.report.names import format_measured

    if row.difference is None:
        return "–"
    value, interval = format_measured("difference", row.difference.value, row.difference.ci95)
    return f"{'+' if row.difference.value > 0 else ''}{value} {interval}".strip()
