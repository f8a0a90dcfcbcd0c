"""``genbench report``."""

from __future__ import annotations

from pathlib import Path

import click

EXAMPLES = """
\b
Example:
  genbench report runs/digits
"""


@click.command("report", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
def command(folder: Path) -> int:
    """Render the report and the summary of a run again from its records."""
    from genbench.report import build_report
    from genbench.report.tables import write_summary
    from genbench.run.run import read_run_file

    read_run_file(folder)
    write_summary(folder)
    click.echo(f"Report: {build_report(folder)}")
    return 0
