"""``genbench power``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from genbench.evaluation.power import Power

EXAMPLES = """
\b
Examples:
  genbench power samples/ cifar10:train --metric fid --difference 2%
  genbench power features.npz reference-features.npz --metric kid --difference 0.0005 --power 0.9
"""
POSITIVE = click.IntRange(min=1)
SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command("power", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("pilot", metavar="PILOT")
@click.argument("reference", metavar="[REFERENCE]", required=False)
@click.option("--metric", required=True, help="fid, kid, precision, recall, inception_score, ...")
@click.option("--difference", required=True, help="To be seen: a share of the metric (2%) or a number in its unit.")
@click.option("--power", type=SHARE, default=0.8, show_default=True, help="Chance of seeing the difference.")
@click.option("--alpha", type=SHARE, default=0.05, show_default=True, help="Chance of seeing one that is not there.")
@click.option("--protocol", default="tf1", show_default=True, metavar="NAME")
@click.option("--extractor", help="NAME or NAME:ARGUMENT; the protocol's own by default.")
@click.option("--weights", type=click.Path(path_type=Path), help="A file in place of the standard weights.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option("--batch-size", type=POSITIVE, default=64, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the cuts of the pilot.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write all numbers.")
def command(
    pilot: str,
    reference: str | None,
    metric: str,
    difference: str,
    power: float,
    alpha: float,
    protocol: str,
    extractor: str | None,
    weights: Path | None,
    device: str,
    batch_size: int,
    seed: int,
    json_file: Path | None,
) -> int:
    """How many samples of each of two models are needed to see a difference in a metric.

    PILOT holds samples of one of them: images, or an npz with `features` (n, d). REFERENCE is what both are compared
    with. From the metric's standard errors on parts of the pilot follows the answer at any number of samples.
    """
    from genbench.cli.console import console
    from genbench.cli.eval_verb import progress_bars
    from genbench.environment import resolve_device
    from genbench.evaluation.pilot import power_from_pilot
    from genbench.files import write_json

    with progress_bars() as progress:
        found = power_from_pilot(
            pilot,
            reference,
            metric,
            difference,
            power=power,
            alpha=alpha,
            protocol=protocol,
            extractor=extractor,
            weights=weights,
            device=str(resolve_device(device)),
            batch_size=batch_size,
            seed=seed,
            progress=progress,
        )
    if json_file is not None:
        write_json(json_file, found.as_dict())
    click.echo(answer(found))
    console().print(power_table(found))
    for note in found.notes:
        click.echo(f"- {note}")
    return 0


def answer(found: Power) -> str:
    """The answer in one sentence."""
    from genbench.report.names import metric_name

    share = f" ({100 * found.difference / abs(found.value):.3g} %)" if found.value else ""
    return (
        f"{metric_name(found.metric).label}: {found.n:,} samples of each model show a difference of "
        f"{found.difference:.3g}{share} in {100 * found.power:.3g} % of comparisons, at alpha {found.alpha:g}."
    )


def power_table(found: Power) -> Table:
    """Standard errors by number of samples."""
    from rich import box
    from rich.table import Table

    from genbench.report.names import metric_name, significant

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    label = metric_name(found.metric).label
    for head in ("n", label, "standard error", f"difference seen at {100 * found.power:.3g} %", ""):
        table.add_column(head, justify="right" if head else "left")
    for size in found.sizes:
        measured = f"measured on {size.parts} part{'s' if size.parts > 1 else ''}" if size.parts else "fit"
        table.add_row(
            f"{size.n:,}",
            significant(size.value, 4),
            significant(size.standard_error),
            significant(size.seen),
            f"{measured}{', the answer' if size.n == found.n else ''}",
        )
    return table
