"""``genbench run``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench.cli.console import console
from genbench.cli.names import listed
from genbench.errors import UsageError
from genbench.suite import LEAST_WINDOWS

if TYPE_CHECKING:
    from genbench.record import Record

EXAMPLES = """
\b
Examples:
  genbench run --suite digits
  genbench run --suite digits --models vae,my_model.py:MyModel --seed 1 --out runs/mine
  genbench run --suite mnist --data-root ~/data --budget-scale 0.1
  genbench run --suite mnist-binary --models made,nade --from-published
"""


@click.command("run", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--suite", required=True, metavar="NAME|FILE.toml", help="Packaged suite, or a suite file of your own.")
@click.option("--models", metavar="A,B,...", help="Exactly these rows: names, model@variant, FILE.py:Class.")
@click.option("--seed", "seeds", metavar="N,N,...", help="One or several seeds in place of the suite's.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/SUITE]")
@click.option("--data-root", type=click.Path(path_type=Path), help="Where data sets lie (or GENBENCH_DATA_ROOT).")
@click.option(
    "--dataset",
    metavar="SPEC",
    help="folder:DIR, zip:FILE, npz:FILE, parquet:DIR or amat:DIR in place of the suite's; ?levels=2 at the end says "
    "that images are binary.",
)
@click.option("--budget-scale", type=float, default=1.0, show_default=True, help="Factor on every training budget.")
@click.option(
    "--windows",
    type=click.IntRange(min=LEAST_WINDOWS),
    metavar="N",
    help="Timing windows of each row in place of the suite's; those that are there count.",
)
@click.option(
    "--from-published", is_flag=True, help="Score the published weights instead of training; rows without are left out."
)
def command(
    suite: str,
    models: str | None,
    seeds: str | None,
    device: str,
    out: Path | None,
    data_root: Path | None,
    dataset: str | None,
    budget_scale: float,
    windows: int | None,
    from_published: bool,
) -> int:
    """Train or load every model of a suite, sample, score and time it, and write a report.

    The same command goes on where an interrupted run stopped, and does nothing again that is done.
    """

    names, numbers = tuple(listed("--models", models)), parse_seeds(seeds)
    from genbench.run.server import start_early

    start_early(suite, names)
    from genbench.report.tables import terminal_table
    from genbench.run.run import RunOptions, run_suite

    result = run_suite(
        RunOptions(
            suite=suite,
            out=out,
            models=names,
            seeds=numbers,
            device=device,
            data_root=data_root,
            dataset=dataset,
            budget_scale=budget_scale,
            windows=windows,
            from_published=from_published,
            command="genbench " + shlex.join(sys.argv[1:]),
        )
    )
    console().print(terminal_table(result.records))
    print_ending(result.stage_seconds, result.broken)
    for told in slowed(result.records):
        click.echo(told)
    click.echo(f"Report: {result.report}")
    return 0 if result.ok else 1


def parse_seeds(text: str | None) -> tuple[int, ...]:
    """``"0,1,2"`` as numbers; none of None.

    Raises:
        UsageError: anything but different whole numbers from 0 up.
    """
    parts = listed("--seed", text)
    if not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise UsageError(f"--seed: got '{text}', expected different whole numbers from 0 up, as in 0,1,2.")
    return tuple(map(int, parts))


def slowed(records: Sequence[Record]) -> list[str]:
    """A line on the models whose speed says more of the machine than of the model; none where there is no such row."""
    from genbench.check.speed import contended

    found = {record.row: told for record in records if not record.control and (told := contended(record))}
    if not found:
        return []
    row, told = next(iter(found.items()))
    also = f" and {len(found) - 1} more rows" if len(found) > 1 else ""
    return [
        f"Speeds of {row}{also} cannot be compared: {told}. On a quiet machine the same command with --windows 24 adds "
        "windows to those that are there."
    ]


def print_ending(seconds: dict[str, float], broken: list[str]) -> None:
    """Say where the time went and which records could not be read."""
    phases = {k.removesuffix(" (wall)"): v for k, v in seconds.items() if k.endswith("(wall)") or k == "report"}
    rest = sorted(((v, k) for k, v in seconds.items() if k not in phases and not k.endswith("(wall)")), reverse=True)
    click.echo("Where the time went: " + ", ".join(f"{k} {v:.0f} s" for k, v in phases.items()))
    if rest:
        click.echo("Most of it: " + ", ".join(f"{k} {v:.0f} s" for v, k in rest[:8]))
    for problem in broken:
        click.echo(problem, err=True)
