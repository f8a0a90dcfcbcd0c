"""``genbench baseline``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import click

EXAMPLES = """
\b
Example:
  genbench baseline update runs/digits gate/digits --reason "first baseline"
"""
DROP_EXAMPLES = """
\b
Example:
  genbench baseline drop gate/digits pixelcnn --reason "no longer trained"
"""


@click.group("baseline", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Keep the records that `genbench check` judges against."""


@command.command("update", epilog=EXAMPLES)
@click.argument("source", metavar="RUN_OR_RECORDS")
@click.argument("folder", type=click.Path(path_type=Path), metavar="BASELINE")
@click.option("--reason", required=True, help="Why these records are right; a reviewer reads it.")
@click.option("--author", help="Who says so; by default the name that git knows.")
@click.option("--models", help="Exactly these rows, with commas between them; others stay as they are.")
def update(source: str, folder: Path, reason: str, author: str | None, models: str | None) -> int:
    """Accept a run's records as the baseline, with reason and author; review the change as a diff of baseline.json."""
    from genbench.check.baseline import choose, update_baseline
    from genbench.check.collect import by_row, read_entries
    from genbench.check.render import one_line
    from genbench.cli.names import listed
    from genbench.cli.run_verb import slowed

    names = listed("--models", models)
    entries = choose(read_entries(source), names)
    made = update_baseline(folder, entries, reason=reason, author=author or git_author())
    click.echo(one_line(f"Baseline of suite '{made.suite}': {len(made.hashes)} records in {folder}."))
    single = [row for row, found in by_row(entries).items() if len(found) == 1 and not found[0].record.control]
    if single:
        told = (
            f"One seed of {', '.join(single)}: how much training varies with its seed is not known, and a check may "
            "call another seed worse. Run the suite with --seed 0,1,2 to have it measured."
        )
        click.echo(one_line(told))
    for told in slowed([entry.record for entry in entries]):
        click.echo(one_line(told))
    for entry in entries:
        for metric in entry.record.metrics:
            if metric.status == "failed":
                told = f"{entry.record.file_stem} has no {metric.name} ({metric.reason}): no check will ask for it."
                click.echo(one_line(told))
    return 0


@command.command("drop", epilog=DROP_EXAMPLES)
@click.argument("folder", type=click.Path(path_type=Path), metavar="BASELINE")
@click.argument("models", metavar="ROW,ROW,...")
@click.option("--reason", required=True, help="Why no check need ask for these rows; a reviewer reads it.")
@click.option("--author", help="Who says so; by default the name that git knows.")
def drop(folder: Path, models: str, reason: str, author: str | None) -> int:
    """Take rows (of a model, each variant is one) out of a baseline: what was retired is else missing for ever."""
    from genbench.check.baseline import drop_rows
    from genbench.check.render import one_line
    from genbench.cli.names import listed

    names = listed("ROW,ROW,...", models)
    made = drop_rows(folder, names, reason=reason, author=author or git_author())
    gone = ", ".join(made.history[-1].dropped)
    told = f"Baseline of suite '{made.suite}': {gone} dropped, {len(made.hashes)} records left in {folder}."
    click.echo(one_line(told))
    return 0


def git_author() -> str:
    """The name in git's settings, or the user's; empty where neither is known."""
    try:
        found = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, timeout=10, check=False)
        name = found.stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        name = ""
    return name or os.environ.get("USER", "")
