"""``genbench rescore``."""

from __future__ import annotations

from pathlib import Path

import click

from genbench.cli.console import console

EXAMPLES = """
\b
Example:
  genbench rescore runs/digits
"""


@click.command("rescore", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def command(folder: Path) -> int:
    """Recompute the metrics of a run from its stored samples, without the models."""

    from genbench.report.tables import terminal_table
    from genbench.run.run import rescore

    result = rescore(folder)
    console().print(terminal_table(result.records))
    for problem in result.broken:
        click.echo(problem, err=True)
    click.echo(f"Report: {result.report}")
    return 0 if result.ok else 1
