"""``genbench leaderboard``."""

from __future__ import annotations

from pathlib import Path

import click

from genbench.cli.baseline_verb import git_author

EXAMPLES = """
\b
Examples:
  genbench leaderboard build
  genbench leaderboard add runs/digits/records/vae-s0.json --to leaderboards/digits
  genbench leaderboard verify vae --in leaderboards/digits --run runs/digits
  genbench leaderboard diff old/digits leaderboards/digits
  genbench leaderboard merge theirs/digits --to leaderboards/digits
"""


@click.group("leaderboard", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Keep a suite's accepted records, rank them, and publish them as a page and as tables."""


@command.command("build")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
def build(folders: tuple[Path, ...]) -> int:
    """Write README.md, table.csv, table.tex and index.html of leaderboards; by default of all in leaderboards/."""
    from genbench.leaderboard.build import build as build_one
    from genbench.leaderboard.build import leaderboards

    for folder in folders or leaderboards():
        board = build_one(folder)
        tiers = [row.tier for row in board.rows if not row.control]
        counts = ", ".join(f"{tiers.count(tier)} {tier}" for tier in dict.fromkeys(tiers)) or "no rows"
        click.echo(f"{folder / 'index.html'}: {counts}")
    return 0


@command.command("add")
@click.argument("records", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORD...")
@click.option("--to", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Default: leaderboards/<suite>.")
@click.option("--replace", is_flag=True, help="Let a record take the place of one of the same row and seed.")
def add(records: tuple[Path, ...], folder: Path | None, replace: bool) -> int:
    """Check records (files, or the folder of a run) and copy them with their scores into a leaderboard: all or none."""
    from genbench.leaderboard.add import add as add_all

    folder = folder or _default_folder(records)
    added = add_all(records, folder, replace=replace)
    click.echo(f"Added to {folder}: {', '.join(added)}. Now: genbench leaderboard build {folder}")
    return 0


def _default_folder(records: tuple[Path, ...]) -> Path:
    from genbench.check.collect import record_files
    from genbench.leaderboard.build import HOME
    from genbench.record import read_record

    return HOME / read_record(record_files(records[0])[0]).suite


@command.command("merge")
@click.argument("source", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--to", "folder", type=click.Path(path_type=Path), metavar="DIR", help="Default: leaderboards/<suite>.")
def merge(source: Path, folder: Path | None) -> int:
    """Add the records of another leaderboard that may be added; the others are named, and the exit status is 1."""
    from genbench.leaderboard.add import merge as merge_one
    from genbench.leaderboard.add import refusals

    folder = folder or _default_folder((source,))
    added, refused = merge_one(source, folder)
    click.echo(f"Added to {folder}: {', '.join(added) or 'nothing'}.")
    if refused:
        click.echo(f"Not added:\n{refusals(refused)}", err=True)
    return 1 if refused else 0


@command.command("verify")
@click.argument("row")
@click.option("--in", "folder", type=click.Path(path_type=Path), metavar="DIR", help="The row's leaderboard.")
@click.option("--run", type=click.Path(path_type=Path), metavar="DIR", help="Score the stored samples of this run.")
@click.option("--weights", metavar="DIR|MODEL", help="Sample from this checkpoint, or a model's published weights.")
@click.option("--seed", type=int, help="Only this seed of the row.")
@click.option("--device", default="auto", show_default=True)
@click.option("--data-root", type=click.Path(path_type=Path), help="Where the dataset lies.")
@click.option("--by", help="Who verifies; by default the name that git knows.")
def verify(
    row: str,
    folder: Path | None,
    run: Path | None,
    weights: str | None,
    seed: int | None,
    device: str,
    data_root: Path | None,
    by: str | None,
) -> int:
    """Measure a row again and mark it as reproduced where the numbers come out the same; exit status 1 where not."""
    from genbench.checkpoint import read_manifest
    from genbench.errors import UsageError
    from genbench.leaderboard.marks import FILE as MARKS
    from genbench.leaderboard.marks import read_marks, write_marks
    from genbench.leaderboard.rows import find_row, of_seed
    from genbench.leaderboard.verify import told, verify_samples, verify_weights
    from genbench.published import find_checkpoint

    if (run is None) == (weights is None):
        raise UsageError("Give one of --run DIR (stored samples) and --weights DIR|MODEL (a checkpoint).")
    folder, entries = find_row(row, folder)
    checkpoint = None if weights is None else find_checkpoint(weights, entries[0].record.suite)
    if seed is None and checkpoint is not None:
        seed = read_manifest(checkpoint).seed
    failed: list[str] = []
    for entry in of_seed(entries, seed):
        if run is not None:
            found = verify_samples(entry, run, device=device, data_root=data_root)
        else:
            assert checkpoint is not None
            found = verify_weights(entry, checkpoint, device=device, data_root=data_root)
        for line in told(found):
            click.echo(line)
        if found.ok:
            marks = read_marks(folder)
            mark = found.mark(by or git_author()).joined(marks.get(entry.path.stem))
            write_marks(folder, marks | {entry.path.stem: mark})
        else:
            failed.append(entry.path.stem)
    if failed:
        click.echo(f"Not marked as reproduced now: {', '.join(failed)}.", err=True)
        if standing := [stem for stem in failed if stem in read_marks(folder)]:
            where = f"earlier marks of {', '.join(standing)} stand in {folder / MARKS}"
            click.echo(f"But {where}. Take them out if the numbers no longer come out the same elsewhere.", err=True)
    click.echo(f"Now: genbench leaderboard build {folder}")
    return 1 if failed else 0


@command.command("diff")
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
def diff(old: Path, new: Path) -> int:
    """Say which rows came and went between two folders of a leaderboard, and which values and ranks changed."""
    from genbench.leaderboard.diff import diff as changes
    from genbench.leaderboard.make import make_board

    lines = changes(make_board(old), make_board(new))
    click.echo("\n".join(lines) or "No difference.")
    return 0
