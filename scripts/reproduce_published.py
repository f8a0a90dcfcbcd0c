"""Run the published numbers that a correct pipeline reproduces, and say which it does.

Needs the network on the first run (official CIFAR-10, the standard weights), and hours on a CPU. ImageNet rows need the
sample and reference files of guided-diffusion's evaluations: --adm-samples and --adm-reference. Nothing is claimed from
this table until someone ran it: the result says when, where and with which hashes.

    python scripts/reproduce_published.py --out published.json --device cuda
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from genbench import __version__, evaluate
from genbench.cli.eval_verb import progress_bars
from genbench.environment import describe_environment, resolve_device
from genbench.errors import GenbenchError
from genbench.files import write_json
from genbench.sources import open_source


@dataclass(frozen=True)
class Row:
    """What to evaluate, and for each metric the published value and how far from it a correct pipeline may be."""

    name: str
    source: str
    samples: str
    reference: str | None
    protocol: str
    published: dict[str, tuple[float, float]]
    first: int | None = None
    options: dict[str, dict[str, Any]] = field(default_factory=dict)


CIFAR10_ROWS = (
    Row(
        "CIFAR-10 train, 50 000 images",
        "reported by many papers as 11.24 +/- 0.10 over splits",
        "cifar10:train",
        None,
        "tf1",
        {"inception_score": (11.24, 0.03)},
    ),
    Row(
        "CIFAR-10 train against test",
        "commonly reported with these weights",
        "cifar10:train",
        "cifar10:test",
        "tf1",
        {"fid": (3.15, 0.01)},
    ),
    Row(
        "first 5000 of CIFAR-10 train against first 5000 of test",
        "torch-fidelity's own tests",
        "cifar10:train",
        "cifar10:test",
        "tf1",
        {"inception_score": (10.7505, 1e-3), "fid": (10.3233274, 1e-3), "kid": (-2.908e-5, 1e-6)},
        first=5000,
    ),
    Row(
        "CIFAR-10 test against train, DINOv2 ViT-L/14",
        "Stein et al. 2023, table 11",
        "cifar10:test",
        "cifar10:train",
        "dgm",
        {"fid": (31.07, 0.05)},
    ),
)


def adm_row(samples: Path, reference: Path) -> Row:
    """ADM-G with upsampling on ImageNet 256 x 256, as guided-diffusion's evaluator scores it."""
    published = {
        "inception_score": (215.8, 0.1),
        "fid": (3.943, 0.005),
        "sfid": (6.140, 0.005),
        "precision": (0.8265, 0.0006),
        "recall": (0.5309, 0.0006),
    }
    name, source = "ImageNet 256, ADM-G with upsampling", "Dhariwal and Nichol 2021; guided-diffusion's evaluations"
    return Row(name, source, str(samples), str(reference), "adm", published)


def run(row: Row, device: str, batch_size: int) -> dict[str, Any]:
    """Evaluate a row; a failure is a row too, with its reason."""
    about: dict[str, Any] = {"row": row.name, "source": row.source, "protocol": row.protocol}
    try:
        sides = [None if spec is None else _first(spec, row.first) for spec in (row.samples, row.reference)]
        with progress_bars() as progress:
            result = evaluate(
                *sides,
                list(row.published),
                protocol=row.protocol,
                device=device,
                batch_size=batch_size,
                progress=progress,
            )
    except GenbenchError as error:
        return {**about, "not_run": str(error)}
    found = {}
    for name, (published, tolerance) in row.published.items():
        metric = result[name]
        near = metric.value is not None and abs(metric.value - published) <= tolerance
        found[name] = {
            "published": published,
            "tolerance": tolerance,
            "reproduced": near,
            "result": metric.model_dump(mode="json"),
        }
    return {**about, "samples": result.samples.fingerprint, "reference": result.reference.fingerprint, "metrics": found}


def _first(spec: str, count: int | None) -> Any:
    if count is None:
        return spec
    source = open_source(spec)
    return [image.pixels for image in islice(source.images(), count)]


def main() -> None:
    """Run every row that can be run; exit 1 where a number is off."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("published.json"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--adm-samples", type=Path)
    parser.add_argument("--adm-reference", type=Path)
    arguments = parser.parse_args()
    rows = list(CIFAR10_ROWS)
    if arguments.adm_samples and arguments.adm_reference:
        rows.append(adm_row(arguments.adm_samples, arguments.adm_reference))
    device = str(resolve_device(arguments.device))
    report: dict[str, Any] = {"genbench": __version__, "environment": describe_environment(device), "rows": []}
    for row in rows:
        report["rows"].append(run(row, device, arguments.batch_size))
        write_json(arguments.out, report)
    raise SystemExit(_print(report["rows"]))


def _print(rows: list[dict[str, Any]]) -> int:
    status = 0
    for row in rows:
        print(row["row"])
        if "not_run" in row:
            print(f"  not run: {row['not_run']}")
        for name, found in row.get("metrics", {}).items():
            value = found["result"]["value"]
            shown = found["result"]["reason"] if value is None else f"{value:.6g}"
            verdict = "reproduced" if found["reproduced"] else "OFF"
            status = status or int(not found["reproduced"])
            print(f"  {name}: {shown}, published {found['published']} +/- {found['tolerance']}: {verdict}")
    return status


if __name__ == "__main__":
    main()
