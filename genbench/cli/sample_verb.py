"""``genbench sample``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

EXAMPLES = """
\b
Examples:
  genbench sample vae -n 64 --out vae.npz
  genbench sample runs/digits/checkpoints/ddpm-s0 -n 297 --seed 1 --steps 20 --solver ddim --out samples/
"""


@click.command("sample", epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", metavar="MODEL|CHECKPOINT")
@click.option("-n", "--num-samples", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Does not change samples."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="FILE.npz (arr_0, uint8, N H W C; arr_1, classes) or a folder.",
)
@click.option("--suite", help="Which published weights, where a model has several.")
@click.option("--model", metavar="FILE.py:Class", help="The class of a checkpoint that was trained from a file.")
@click.option("--variant", help="A named variant of the sampler, such as ddim20.")
@click.option("--steps", type=click.IntRange(min=1), help="Sampler steps.")
@click.option("--solver", help="Sampler.")
@click.option("--temperature", type=float, help="Sampling temperature.")
@click.option("--guidance", type=float, help="Guidance scale.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True)
def command(
    source: str,
    num_samples: int,
    seed: int,
    batch_size: int,
    out: Path,
    suite: str | None,
    model: str | None,
    variant: str | None,
    device: str,
    **options: Any,
) -> int:
    """Draw samples from a model's published weights, or from a checkpoint folder that a run left."""
    from genbench.write_images import check_target, write_images

    check_target(out)

    from genbench.checkpoint import load_checkpoint
    from genbench.environment import resolve_device
    from genbench.errors import GenbenchError, UsageError, unknown
    from genbench.published import find_checkpoint
    from genbench.recipe import sampler_options
    from genbench.registry import load_model
    from genbench.sample import ModelOutputError, draw_samples, sample_labels

    folder = find_checkpoint(source, suite)
    chosen = resolve_device(device)
    loaded, manifest = load_checkpoint(folder, chosen, load_model(model) if model else None)
    values = dict(manifest.sample)
    if variant is not None:
        if variant not in manifest.variants:
            raise unknown(f"variant of {manifest.model}", variant, manifest.variants)
        values |= manifest.variants[variant]
    values |= {name: value for name, value in options.items() if value is not None}
    request = sampler_options(type(loaded), values)
    try:
        with _progress() as stage:
            images = draw_samples(loaded, num_samples, seed, batch_size, request, stage("sampling", num_samples))
            labels = sample_labels(loaded, num_samples, seed, request)
            write_images(out, images, stage("writing", num_samples), labels)
    except ModelOutputError as error:
        click.echo(f"genbench: {manifest.model}: {error}", err=True)
        return 1
    except MemoryError:
        raise UsageError(
            f"{num_samples} samples do not fit in memory. Ask for fewer with -n; another --seed draws others."
        ) from None
    except (GenbenchError, OSError):
        raise
    except Exception as error:
        click.echo(f"genbench: {manifest.model}: sample() raised {type(error).__name__}: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        click.echo(f"Interrupted; nothing was written to {out}.", err=True)
        return 130
    click.echo(f"{num_samples} samples of {manifest.model} ({manifest.suite}, seed {seed}): {out}")
    return 0


@contextmanager
def _progress() -> Iterator[Callable[[str, int], Callable[[int, int], None]]]:
    """Yield a function that starts a stage and returns its report: one bar a stage, on a terminal's standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    label, rate = TextColumn("{task.description}"), TextColumn("{task.fields[rate]}")
    columns = (label, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    silent = not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=silent) as bars:

        def stage(name: str, total: int) -> Callable[[int, int], None]:
            task, start = bars.add_task(name, total=total, rate=""), time.perf_counter()

            def report(done: int, total: int) -> None:
                speed = done / max(time.perf_counter() - start, 1e-9)
                bars.update(task, completed=done, total=total, rate=f"{speed:.3g}/s")

            return report

        yield stage
