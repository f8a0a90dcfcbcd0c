"""``genbench weights``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench.cli.console import console

if TYPE_CHECKING:
    from genbench.weights import State

EXAMPLES = """
\b
Examples:
  genbench weights list
  genbench weights add ~/Downloads/ViT-B-32.pt
  genbench weights verify
"""


@click.group("weights", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """List, add and verify the standard weights of feature extractors and metrics."""


@command.command("list")
def list_weights() -> int:
    """Show every known file: who uses it, its size, licence, hash, and whether it is there.

    Files that are there are hashed, so a damaged one shows as bad.
    """

    from rich.table import Table

    from genbench.weights import states, store_folder

    table = Table("name", "used by", "size", "licence", "state", "SHA-256", title=f"Weights in {store_folder()}")
    found = states()
    for state in found:
        size = state.entry.size_bytes
        table.add_row(
            state.entry.name,
            ", ".join(state.entry.used_by),
            f"{size / 1e6:,.2f} MB" if size else "not published",
            state.entry.licence,
            state.condition,
            _hash(state),
        )
    console().print(table)
    for state in found:
        click.echo(f"{state.entry.name}: {state.problem or state.entry.url}")
        click.echo(f"  SHA-256 {state.entry.sha256 or state.sha256 or 'pinned at the first use'}")
    return 0


@command.command("add")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--name", metavar="NAME", help="Which weights these are, where the hash does not tell.")
def add_weights(file: Path, name: str | None) -> int:
    """Copy FILE into the store; it is recognised by its hash and checked."""

    from genbench.weights import add

    state = add(file, name)
    click.echo(f"{state.entry.name}: {state.path}, SHA-256 {state.sha256}")
    return 0


@command.command("verify")
def verify_weights() -> int:
    """Hash every file of the store; the exit status is 1 when one is bad."""

    from genbench.weights import states, store_folder

    found = [state for state in states() if state.condition != "missing"]
    for state in found:
        verdict = state.problem or ("ok" if state.pinned else "no hash to compare with; pinned at the first use")
        click.echo(f"{state.entry.name}: {state.path}: {verdict}")
    bad = sum(state.condition == "bad" for state in found)
    click.echo(f"{len(found)} files in {store_folder()}, {bad} bad")
    return 1 if bad else 0


def _hash(state: State) -> str:
    sha256 = state.entry.sha256 or (state.sha256 if state.condition == "there" else None)
    if sha256 is None:
        return "hash on first use"
    by = {"author": "", "record": " (recorded)", "first use": " (pinned)"}[state.entry.hash_source]
    return f"{sha256[:16]}{by}"
