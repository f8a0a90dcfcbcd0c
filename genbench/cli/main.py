"""The command line: ``genbench VERB``. Each verb is a file of this package, imported only when it is called."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Any

import click

from genbench import __version__
from genbench.errors import GenbenchError, nearest

VERBS = {
    "run": "train or load, sample, score and time a suite's models, and write a report",
    "eval": "score anybody's images against a reference: FID, KID, IS and more, with intervals",
    "compare": "the difference of two results, with its interval",
    "power": "how many samples it takes to see a difference",
    "stats": "make, show and verify reference statistics",
    "weights": "list, add and verify the standard networks' weights",
    "list": "list suites, models, metrics or extractors",
    "sample": "draw samples from published weights or a checkpoint",
    "check": "judge a run against a baseline: exit 1 for a regression",
    "baseline": "accept a run's records as the baseline of checks",
    "leaderboard": "rank accepted records, and publish them as a page and as tables",
    "report": "render a run's report again, or put runs side by side",
    "rescore": "recompute a run's metrics from its stored samples",
    "doctor": "show what is installed, cached and missing",
}


class _Verbs(click.Group):
    """Loads a verb on use, and names the nearest one when it is unknown."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"genbench.cli.{cmd_name}_verb")
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"Unknown verb '{args[0]}'.{nearest(args[0], VERBS)} Verbs: {', '.join(VERBS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="genbench")
def cli() -> None:
    """Evaluate and benchmark image generative models.

    Start with: genbench run --suite digits
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    0: all well. 1: a model or a metric failed, a check found a regression, or what was to be verified does not hold.
    2: bad usage or input. 130: interrupted.

    To be terminated, as schedulers and containers do it, is to be interrupted: workers save their state.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = cli.main(arguments, prog_name="genbench", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = 2
    except GenbenchError as error:
        click.echo(f"genbench: {_shown(str(error))}", err=True)
        status = 2
    except BrokenPipeError:
        sys.stderr.close()
        status = 0
    except OSError as error:
        click.echo(
            f"genbench: {error}. What was written before is whole; the same command goes on from here.", err=True
        )
        status = 2
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("Interrupted. Files are whole; a run goes on from here with the same command.", err=True)
        status = 130
    sys.exit(status if isinstance(status, int) else 0)


def _shown(message: str) -> str:
    """A message without control characters, which a terminal would obey, and without lines that a CI service would."""
    lines = ("".join(c if c.isprintable() else " " for c in line) for line in message.split("\n"))
    return "\n".join(line.replace("::", ": :") if line.lstrip().startswith("::") else line for line in lines)
