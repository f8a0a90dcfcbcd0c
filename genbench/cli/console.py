"""The console that verbs print tables to."""

from __future__ import annotations

from rich.console import Console

PIPED_WIDTH = 160
"""Columns where the output is no terminal, whose width would be known."""


def console() -> Console:
    """A console on standard output; wide where the output goes to a file or a pipe."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=PIPED_WIDTH)
