"""``genbench eval``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genbench.cli.console import console
from genbench.protocols import PROTOCOLS

if TYPE_CHECKING:
    from genbench.evaluation.result import EvalResult

EXAMPLES = """
\b
Examples:
  genbench eval samples/ cifar10:train
  genbench eval samples.npz reference.zip --metrics fid,kid,is --protocol clean --json result.json
  genbench eval rebuilt/ originals/ --pairs --metrics ssim,psnr,lpips
  genbench eval samples/ digits:train --extractor digits-cnn        (works offline)

\b
Inputs: a folder or archive (zip, tar) of images, npz, npy, parquet, a named set and split (cifar10:test), or an npz of
statistics (mu, sigma). Protocols: {protocols}.
"""


@click.command(
    "eval",
    epilog=EXAMPLES.format(protocols=", ".join(PROTOCOLS)),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("samples")
@click.argument("reference", required=False)
@click.option("--metrics", metavar="A,B,...|all", help="Metrics by name.  [default: FID, KID, IS and the k-NN metrics]")
@click.option("--protocol", default="tf1", show_default=True, metavar="NAME", help="Whose conventions to follow.")
@click.option("--extractor", metavar="NAME", help="Feature network.  [default: the protocol's]")
@click.option("--image-text", metavar="NAME", help="Of CLIP score.  [default: the extractor, or clip:ViT-B-32]")
@click.option("--weights", type=click.Path(path_type=Path), metavar="FILE", help="In place of the standard weights.")
@click.option("--pairs", is_flag=True, help="Sample i belongs to reference image i (files: by name).")
@click.option("--pairs-by-order", is_flag=True, help="Match pairs by order where file names differ.")
@click.option("--layout", type=click.Choice(["NHWC", "NCHW"]), help="Axes of arrays, where the shape fits both.")
@click.option("--prompts", type=click.Path(path_type=Path), metavar="FILE", help="One text for each sample.")
@click.option("--labels", type=click.Path(path_type=Path), metavar="FILE", help="One class for each sample.")
@click.option(
    "--option",
    "settings",
    multiple=True,
    metavar="METRIC.NAME=VALUE",
    help="A metric's setting: ssim.window=7.",
)
@click.option("--data-root", type=click.Path(path_type=Path), help="Where named sets lie (or GENBENCH_DATA_ROOT).")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Changes no number.")
@click.option("--precision", type=click.Choice(["float32", "tf32", "bfloat16"]), default="float32", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), help="Of metrics that draw at random, in place of their own.")
@click.option(
    "--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True, help="Unreadable images."
)
@click.option("--no-cache", is_flag=True, help="Neither use nor keep the reference's features.")
@click.option("--verify", is_flag=True, help="Hash all files in full; sizes and times are not enough.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the result here.")
def command(
    samples: str,
    reference: str | None,
    metrics: str | None,
    protocol: str,
    extractor: str | None,
    image_text: str | None,
    weights: Path | None,
    pairs: bool,
    pairs_by_order: bool,
    layout: str | None,
    prompts: Path | None,
    labels: Path | None,
    settings: tuple[str, ...],
    data_root: Path | None,
    device: str,
    batch_size: int,
    precision: str,
    seed: int | None,
    on_error: str,
    no_cache: bool,
    verify: bool,
    json_file: Path | None,
) -> int:
    """Score SAMPLES against REFERENCE, with a 95 % interval for every value."""
    from genbench.environment import resolve_device
    from genbench.evaluation.evaluate import evaluate
    from genbench.evaluation.result import write_result

    if json_file is not None:
        _check_target(json_file)
    with progress_bars() as progress:
        result = evaluate(
            samples,
            reference,
            metrics,
            protocol=protocol,
            extractor=extractor,
            image_text=image_text,
            weights=weights,
            pairs=pairs or pairs_by_order,
            by_order=pairs_by_order,
            layout=layout,  # type: ignore[arg-type]
            prompts=prompts,
            labels=labels,
            options=parse_settings(settings),
            data_root=data_root,
            device=str(resolve_device(device)),
            batch_size=batch_size,
            precision=precision,  # type: ignore[arg-type]
            seed=seed,
            on_error=on_error,  # type: ignore[arg-type]
            cache=not no_cache,
            verify=verify,
            progress=progress,
        )
    if json_file is not None:
        write_result(json_file, result)
    show(result)
    return 0 if all(metric.status != "failed" for metric in result.metrics) else 1


def parse_settings(settings: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """``METRIC.NAME=VALUE`` texts to options by metric; values are TOML, or else text.

    Raises:
        UsageError: a text of another form.
    """
    import tomllib

    from genbench.errors import UsageError

    found: dict[str, dict[str, Any]] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        metric, dot, name = key.partition(".")
        if not (equals and dot and metric and name):
            raise UsageError(f"--option {text}: expected METRIC.NAME=VALUE, such as ssim.window=7.")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        found.setdefault(metric, {})[name] = parsed
    return found


def _check_target(path: Path) -> None:
    from genbench.errors import UsageError

    if path.is_dir() or path.suffix != ".json":
        raise UsageError(f"--json {path}: expected a file that ends in .json.")


def show(result: EvalResult) -> None:
    """Print what was compared, the table and the warnings."""
    from rich.markup import escape
    from rich.table import Table

    out = console()
    out.print(f"samples    {escape(_side(result.samples))}")
    out.print(f"reference  {escape(_side(result.reference))}")
    network = "" if result.extractor is None else f", {result.extractor['name']}"
    out.print(f"protocol   {result.protocol}{escape(network)}\n")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name in ("95 % interval", "n", "how"):
        table.add_column(name)
    for metric in result.metrics:
        name = f"{metric.name} {_ARROWS[metric.higher_is_better]}".strip()
        if metric.value is None:
            table.add_row(name, "-", "", "", escape(f"{metric.status.replace('_', ' ')}: {metric.reason}"))
            continue
        interval = "-" if metric.ci95 is None else f"[{metric.ci95[0]:.5g}, {metric.ci95[1]:.5g}]"
        how = ", ".join(x for x in (metric.estimator, metric.extractor, metric.provenance.get("interval")) if x)
        unit = f" {metric.unit}" if metric.unit else ""
        table.add_row(name, f"{metric.value:.6g}{unit}", escape(interval), str(metric.n), escape(how))
    out.print(table)
    for warning in result.warnings:
        out.print(f"[yellow]warning[/yellow] {escape(warning.message)}", highlight=False)


_ARROWS = {True: "↑", False: "↓", None: ""}


def _side(info: object) -> str:
    count = getattr(info, "count", None)
    return f"{getattr(info, 'name', '')} ({getattr(info, 'kind', '')}, {'?' if count is None else count} images)"


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """Yield a progress function: one bar a stage, on a terminal's standard error; silent where that is a file."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:
        tasks: dict[str, tuple[TaskID, float]] = {}

        def report(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                for task, _ in tasks.values():
                    bars.update(task, visible=False)
                tasks[stage] = (bars.add_task(stage, total=total, rate=""), time.perf_counter())
            task, start = tasks[stage]
            rate = f"{done / max(time.perf_counter() - start, 1e-9):.3g} images/s" if done else ""
            bars.update(task, completed=done, total=total, rate=rate)

        yield report
