"""``genbench doctor``."""

from __future__ import annotations

import click

from genbench.cli.console import console

EXAMPLES = """
\b
Example:
  genbench doctor
"""


@click.command("doctor", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> int:
    """Show what is installed, which devices and weights there are, and what each suite still needs."""
    from rich.table import Table

    from genbench.cli import diagnosis

    out, healthy = console(), True
    for title, findings in diagnosis.sections():
        out.print(f"\n[bold]{title}[/bold]")
        table = Table(show_header=False, box=None, pad_edge=False)
        for finding in findings:
            mark = {True: "[green]ok[/green]", False: "[red]missing[/red]", None: "-"}[finding.ok]
            table.add_row(mark, finding.name, finding.text)
        out.print(table)
        healthy = healthy and all(finding.ok is not False or finding.optional for finding in findings)
    return 0 if healthy else 1
