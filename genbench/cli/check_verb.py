"""``genbench check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genbench.check.decide import Waiting
    from genbench.check.finding import Options, Verdicts

EXAMPLES = """
\b
Examples:
  genbench check runs/digits --baseline gate/digits
  genbench check runs/digits --baseline leaderboard:digits --models vae,ddpm --metrics fid,bits_per_dim
  genbench check runs/digits --baseline gate/digits --tolerance fid=2%,images_per_second=20% --junit check.xml --github
  genbench check runs/digits --baseline gate/digits --benchmarks new.json --benchmarks-baseline gate/benchmarks.json
"""


@click.command("check", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("candidate", metavar="RUN_OR_RECORDS")
@click.option("--baseline", required=True, help="A record, a folder of records, or leaderboard:SUITE.")
@click.option("--models", help="Exactly these rows, with commas between them: names, model@variant.")
@click.option("--metrics", help="Only these metrics, with commas between them.")
@click.option(
    "--alpha", default=0.01, show_default=True, help="Chance of any false alarm among all tests; speeds: again."
)
@click.option("--tolerance", default="", help="How much worse is still no regression: fid=2%,latency_seconds=10%.")
@click.option("--benchmarks", type=click.Path(path_type=Path), metavar="FILE|DIR", help="pytest-benchmark's JSON.")
@click.option(
    "--benchmarks-baseline", type=click.Path(path_type=Path), metavar="FILE|DIR", help="What they are held against."
)
@click.option("--all", "every", is_flag=True, help="Also list what stayed the same, and what cannot be judged.")
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write JUnit XML.")
@click.option("--markdown", "markdown_file", type=click.Path(path_type=Path), metavar="FILE", help="Write a table.")
@click.option("--github", is_flag=True, help="Print annotations for GitHub Actions, and write the job's summary.")
def command(
    candidate: str,
    baseline: str,
    models: str | None,
    metrics: str | None,
    alpha: float,
    tolerance: str,
    benchmarks: Path | None,
    benchmarks_baseline: Path | None,
    every: bool,
    junit: Path | None,
    markdown_file: Path | None,
    github: bool,
) -> int:
    """Judge a run's records against a baseline: exit 0 where nothing is worse, 1 for a regression or a missing row or
    metric, 2 for bad input.

    Each metric of each row of the baseline is better, the same within noise, worse, missing or not comparable. What
    counts as noise is said by paired per-image scores, the values' intervals, or the spread over seeds.
    """
    from genbench.check.baseline import baseline_entries
    from genbench.check.collect import earlier_rows, read_entries
    from genbench.check.finding import Options
    from genbench.check.judge import judge
    from genbench.check.render import one_line
    from genbench.check.tolerance import parse_tolerances
    from genbench.cli.names import listed

    options = Options(alpha, parse_tolerances(tolerance), listed("--models", models), listed("--metrics", metrics))
    more = _benchmarks(benchmarks, benchmarks_baseline, options)
    found = judge(read_entries(candidate), baseline_entries(baseline), options, more)
    _write(found, junit, markdown_file, github, every)
    _print(found, every)
    missing = {one.row for one in found.findings if one.verdict == "missing" and not one.metric}
    if old := sorted(missing & earlier_rows(candidate)):
        told = (
            f"Records of {', '.join(old)} are in {candidate}, but of an earlier run than the last, which was not asked "
            "for them. Run the whole suite there again (what is done is not done again), or name the rows to check: "
            "--models."
        )
        click.echo(one_line(told))
    return int(found.failed)


def _benchmarks(new: Path | None, old: Path | None, options: Options) -> Sequence[Waiting]:
    from genbench.check.benchmarks import judge_benchmarks, read_benchmarks
    from genbench.errors import UsageError

    if new is None and old is None:
        return []
    if new is None or old is None:
        raise UsageError("--benchmarks and --benchmarks-baseline belong together: give the new times and the old ones.")
    return judge_benchmarks(read_benchmarks(new), read_benchmarks(old), options)


def _write(found: Verdicts, junit: Path | None, markdown_file: Path | None, github: bool, every: bool) -> None:
    from genbench.check import render
    from genbench.files import write_text

    if junit is not None:
        write_text(junit, render.junit(found))
    if markdown_file is not None:
        write_text(markdown_file, render.markdown(found, every=every))
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if github and summary:
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(render.markdown(found, every=every))
    if github:
        for line in render.workflow_commands(found):
            click.echo(line)


def _print(found: Verdicts, every: bool) -> None:
    from rich.text import Text

    from genbench.check import render
    from genbench.cli.console import console

    styles = {"worse": "red", "missing": "red", "better": "green", "not comparable": "dim"}
    screen = console()
    shown, more = render.gathered(found.findings, every=every)
    for finding in shown:
        screen.print(Text(f"- {render.sentence(finding)}", style=styles.get(finding.verdict, "")), soft_wrap=True)
    for told in more:
        screen.print(Text(f"- {told}", style=styles.get("not comparable", "")), soft_wrap=True)
    if found.new:
        screen.print(Text(render.one_line(f"Not in the baseline: {', '.join(found.new)}")), soft_wrap=True)
    if found.aside:
        screen.print(Text(render.one_line(f"Not asked for: {', '.join(found.aside)}")), soft_wrap=True)
    screen.print(Text(render.summary(found), style="red" if found.failed else "green"))
