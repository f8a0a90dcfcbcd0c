"""``genbench stats``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from genbench.evaluation.statistics import StatisticsCache, StoredStatistics

EXAMPLES = """
\b
Examples:
  genbench stats make cifar10:train --features
  genbench stats make reference/ --protocol clean --out reference.npz
  genbench stats show
  genbench stats verify
"""


@click.group("stats", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make, show and verify reference statistics.

    They are kept in a cache by the hash of the images, the extractor's weights and its preprocessing; `genbench eval`
    finds them there, wherever the images lie.
    """


@command.command("make")
@click.argument("source")
@click.option("--extractor", metavar="NAME", help="Feature network.  [default: the protocol's]")
@click.option("--protocol", default="tf1", show_default=True, metavar="NAME", help="Sets the preprocessing.")
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="In place of the standard weights.")
@click.option("--features", is_flag=True, help="Keep all features, as KID and the nearest-neighbour metrics need them.")
@click.option("--spatial", is_flag=True, help="Also of the spatial features of sFID.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Changes no number.")
@click.option("--verify", is_flag=True, help="Hash all images in full; sizes and times are not enough.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE.npz", help="Also write mu and sigma there.")
def make(
    source: str,
    extractor: str | None,
    protocol: str,
    weights: Path | None,
    features: bool,
    spatial: bool,
    device: str,
    batch_size: int,
    verify: bool,
    out: Path | None,
) -> int:
    """Statistics of the features of all images of SOURCE, computed unless they are in the cache.

    The file of --out is read by pytorch-fid, clean-fid, guided-diffusion's evaluator and EDM.
    """
    from genbench.cli.eval_verb import progress_bars
    from genbench.environment import resolve_device
    from genbench.errors import UsageError
    from genbench.evaluation.progress import Report
    from genbench.evaluation.reference_statistics import export_statistics, make_statistics
    from genbench.evaluation.statistics import StatisticsCache
    from genbench.features import ExtractorOptions, load_extractor
    from genbench.protocols import load_protocol
    from genbench.sources import open_source

    if out is not None and (out.is_dir() or out.suffix != ".npz"):
        raise UsageError(f"--out {out}: expected a file that ends in .npz.")
    chosen, images = load_protocol(protocol), open_source(source)
    options = ExtractorOptions(
        device=str(resolve_device(device)),
        batch_size=batch_size,
        preprocessing=chosen.preprocessing,
        weights=weights,
        spatial=spatial,
    )
    network = load_extractor(extractor or chosen.extractor, options)
    with progress_bars() as progress:
        report = Report(progress, "images", getattr(images, "length", None))
        made = make_statistics(
            images,
            network,
            StatisticsCache(),
            features=features,
            spatial=spatial,
            batch_size=batch_size,
            verify=verify,
            progress=report,
        )
    stored = made.stored
    for note in network.notes:
        click.echo(f"warning: {note}", err=True)
    what = f"{stored.count:,} images, {stored.moments.width} features of {network.name}"
    click.echo(f"{stored.key}: {what}, {'computed' if made.computed else 'found in the cache'}")
    if out is not None:
        export_statistics(out, stored, features=features, spatial=spatial)
        click.echo(f"Written: {out}")
    return 0


@command.command("show")
@click.argument("which", metavar="[FILE|KEY]", required=False)
def show(which: str | None) -> int:
    """What is in the cache, in one entry of it (the start of its key is enough), or in a statistics file."""
    from genbench.cli.console import console
    from genbench.evaluation.statistics import StatisticsCache

    cache = StatisticsCache()
    if which is None:
        console().print(cache_table(cache))
        return 0
    for name, value in _file_facts(Path(which)) if Path(which).is_file() else _entry_facts(cache.get(which)):
        click.echo(f"{name:<12}{value}")
    return 0


@command.command("verify")
@click.option("--full", is_flag=True, help="Also compute mean and covariance from the stored features again.")
def verify(full: bool) -> int:
    """Hash every file of the cache; the exit status is 1 when one is bad."""
    from genbench.errors import DataError
    from genbench.evaluation.statistics import StatisticsCache, check_entry

    cache, bad = StatisticsCache(), 0
    for key in cache.keys():  # noqa: SIM118
        try:
            problem = check_entry(cache.get(key), full=full)
        except DataError as error:
            problem = str(error)
        if problem is not None:
            bad += 1
            click.echo(f"{key}: {problem}. Delete it with `genbench stats clear {key[:12]}`.")
    click.echo(f"{len(cache.keys())} entries in {cache.folder}, {bad} bad")
    return 1 if bad else 0


@command.command("clear")
@click.argument("which", metavar="[KEY]", required=False)
@click.option("--older-than", type=click.FloatRange(min=0), metavar="DAYS", help="Only what was made before then.")
def clear(which: str | None, older_than: float | None) -> int:
    """Delete an entry of the cache, or all of them; they are made again when they are needed."""
    from genbench.evaluation.statistics import StatisticsCache

    cache = StatisticsCache()
    chosen = cache.keys() if which is None else [cache.complete(which)]
    limit = None if older_than is None else datetime.now(UTC) - timedelta(days=older_than)
    removed = [key for key in chosen if limit is None or _made_before(cache, key, limit)]
    for key in removed:
        cache.remove(key)
    cache.sweep()
    click.echo(f"{len(removed)} entries deleted, {len(cache.keys())} left in {cache.folder}")
    return 0


def _made_before(cache: StatisticsCache, key: str, limit: datetime) -> bool:
    """Whether an entry was made before then; a damaged one always counts as old."""
    from genbench.errors import DataError

    try:
        return datetime.fromisoformat(cache.get(key).manifest["created"]) < limit
    except (DataError, KeyError, ValueError):
        return True


def cache_table(cache: StatisticsCache) -> Table:
    """All entries, one a line."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from genbench.errors import DataError
    from genbench.report.names import format_value

    table = Table(title=f"Statistics in {escape(str(cache.folder))}", box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("key", "source", "images", "width", "extractor", "kept", "size", "created"):
        table.add_column(head, justify="right" if head in ("images", "width", "size") else "left")
    for key in cache.keys():  # noqa: SIM118
        try:
            entry = cache.get(key)
        except DataError:
            table.add_row(key[:12], "damaged; see `genbench stats verify`", style="red")
            continue
        table.add_row(
            key[:12],
            escape(str(entry.manifest["source"].get("name", "?"))),
            f"{entry.count:,}",
            str(entry.moments.width),
            escape(_extractor(entry)),
            _kept(entry),
            format_value("peak_memory_bytes", entry.size_bytes),
            str(entry.manifest["created"]),
        )
    return table


def _extractor(entry: StoredStatistics) -> str:
    identity = entry.manifest["extractor"]
    preprocessing = identity.get("preprocessing")
    return f"{identity.get('name', '?')}" + (f", {preprocessing}" if isinstance(preprocessing, str) else "")


def _kept(entry: StoredStatistics) -> str:
    parts = [("mu, sigma", True), ("features", entry.features is not None), ("sFID", entry.spatial_moments is not None)]
    return ", ".join(name for name, kept in parts if kept)


def _entry_facts(entry: StoredStatistics) -> list[tuple[str, object]]:
    manifest = entry.manifest
    facts: list[tuple[str, object]] = [("key", entry.key), ("folder", entry.folder)]
    facts += [(name, manifest[name]) for name in ("created", "genbench_version", "fingerprint")]
    facts += [("source", manifest["source"].get("name", "?")), ("images", entry.count), ("width", entry.moments.width)]
    facts += [("extractor", ""), *((f"  {name}", value) for name, value in manifest["extractor"].items())]
    facts += [("files", ""), *((f"  {name}", f"{f['size']:,} bytes, {f['sha256']}") for name, f in entry.files.items())]
    return facts


def _file_facts(path: Path) -> list[tuple[str, object]]:
    from genbench.evaluation.reference_statistics import read_passport
    from genbench.sources import read_statistics

    found, passport = read_statistics(path), read_passport(path)
    facts: list[tuple[str, object]] = [("file", path), ("width", len(found.mean))]
    facts += [("images", "not known" if found.count is None else found.count)]
    facts += [("trace", f"{found.covariance.trace():.6g}"), ("|mean|", f"{(found.mean @ found.mean) ** 0.5:.6g}")]
    if found.spatial_mean is not None:
        facts.append(("mu_s", f"{len(found.spatial_mean)} spatial features"))
    facts.append(("fingerprint", found.fingerprint()))
    if passport is None:
        return [*facts, ("made by", "not known: the file does not say which extractor and images made it")]
    return [*facts, ("made by", f"genbench {passport.get('genbench_version')}, {passport.get('created')}")] + [
        (name, passport.get(name)) for name in ("source", "extractor")
    ]
