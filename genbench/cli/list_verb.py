"""``genbench list``."""

from __future__ import annotations

import click

from genbench.cli.console import console

EXAMPLES = """
\b
Example:
  genbench list models
"""
KINDS = ["suites", "models", "metrics", "extractors"]


@click.command("list", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("kind", type=click.Choice(KINDS))
def command(kind: str) -> int:
    """List what is installed: suites, models, metrics or extractors."""
    from rich.table import Table

    from genbench.cli import listing

    columns, rows = getattr(listing, kind)()
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console().print(table)
    return 0
