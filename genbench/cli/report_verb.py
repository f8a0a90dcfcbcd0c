"""``genbench report``."""

from __future__ import annotations

from pathlib import Path

import click

EXAMPLES = """
\b
Examples:
  genbench report runs/digits
  genbench report runs/a runs/b leaderboard:digits --out compared.html
  genbench report before=runs/a after=runs/b --baseline before --out differences.md
  genbench report runs/a runs/b --diff --models vae --out diff.html
  genbench report history/ now=runs/a --series fid --models vae --out fid.html
"""


@click.command("report", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sources", nargs=-1, required=True, metavar="[NAME=]SOURCE...")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write this .html, .md, .tex or .csv file."
)
@click.option("--baseline", metavar="ROW|NAME", help="Also differences from this row, or from the rows of a source.")
@click.option("--models", metavar="A,B", help="Only these models or rows; all by default.")
@click.option("--diff", is_flag=True, help="What changed between two sources: settings, environment, numbers.")
@click.option(
    "--series", metavar="METRIC", help="A metric over the commits in folders of dated records, with its steps."
)
def command(
    sources: tuple[str, ...], out: Path | None, baseline: str | None, models: str | None, diff: bool, series: str | None
) -> int:
    """Render a run's report again (DIR alone), or put any runs and records side by side (with --out).

    A SOURCE is the folder of a run or of records, one record, a baseline, or leaderboard:SUITE. Several seeds of one
    system are joined, several suites become sections.
    """
    from genbench.cli.names import listed
    from genbench.errors import UsageError

    asked = listed("--models", models)
    if out is None:
        if len(sources) > 1 or baseline or asked or diff or series:
            raise UsageError("Say where to write the report: --out FILE.html, .md, .tex or .csv.")
        click.echo(f"Report: {_render_run(Path(sources[0]))}")
        return 0
    if sum((baseline is not None, diff, series is not None)) > 1:
        raise UsageError("Give one of --baseline, --diff and --series.")
    click.echo(f"Report: {_write(sources, out, baseline, asked, diff, series)}")
    return 0


def _render_run(folder: Path) -> Path:
    from genbench.report.build import build_report, check_writable
    from genbench.report.tables import write_summary
    from genbench.run.run import read_run_file

    read_run_file(folder)
    check_writable(folder / "report" / "index.html")
    write_summary(folder)
    return build_report(folder)


def _write(
    sources: tuple[str, ...], out: Path, baseline: str | None, models: list[str], diff: bool, series: str | None
) -> Path:
    from genbench.errors import UsageError
    from genbench.report.build import check_writable, write_changes, write_report, write_series
    from genbench.report.sources import read_sources

    check_writable(out)
    if series is not None:
        return write_series(sources, series, out, rows=models)
    found = read_sources(sources)
    if diff:
        if len(found) != 2:
            raise UsageError(f"--diff is between two sources, got {len(found)}.")
        return write_changes(found[0], found[1], out, models=models)
    return write_report(found, out, baseline=baseline, models=models)
