"""Write the README of a likelihood leaderboard: measured rows and published ones, by kind of number.

    python scripts/likelihood_leaderboard.py leaderboards/mnist-binary

Reads FOLDER/records/*.json (tier self-run) and FOLDER/literature.toml (tier reported); writes FOLDER/README.md.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

from genbench.files import write_text
from genbench.record import Record, read_record
from genbench.report.likelihood import HEADINGS, KIND_LABELS, LikelihoodTable, likelihood_table
from genbench.report.names import format_seconds, mark
from genbench.report.tables import labels

INTRODUCTION = """# {title}

{description} Lower is better. What is exact stands apart from bounds (the truth is at or below them) and from estimates
(which may err to either side); intervals are 95 % over test images, with the estimator's own error where it has one.

Made by `python scripts/likelihood_leaderboard.py {folder}` from `records/` and `literature.toml`.
"""


def escape(text: str) -> str:
    """Text as it may stand in a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def made_with(record: Record) -> list[str]:
    """Parameters, training time and where it was, seed."""
    training, environment = record.training, record.environment
    time = "" if training is None or not training.steps else format_seconds(training.seconds)
    size = "" if training is None or not training.parameters else f"{training.parameters:,}"
    threads = environment.get("threads")
    device = " ".join(str(environment.get(key) or "") for key in ("device", "cpu")).strip()
    return [size, time, escape(f"{device}, {threads} thread(s)" if threads else device), str(record.seed)]


def measured(found: LikelihoodTable) -> str:
    """The rows that were measured, one column an estimator."""
    columns = [f"{HEADINGS[kind]}: {estimator}" for kind, estimator in found.columns]
    columns = [column.replace("Exact: exact", "Exact") for column in columns]
    rows = []
    for row in found.rows:
        cells = [f"no number: {escape(c.failed)}" if c.failed else f"{c.text} {c.interval}".strip() for c in row.cells]
        rows.append([f"`{escape(row.label)}`", *cells, *made_with(row.record)])
    return table(["System", *columns, "Parameters", "Training", "Device", "Seed"], rows)


def reported(path: Path) -> str:
    """The published rows, best first; a question mark where the value was not checked at its source."""
    results = tomllib.loads(path.read_text(encoding="utf-8"))["result"]
    rows = []
    for result in sorted(results, key=lambda r: r["nats"]):
        value = f"{mark('nats_per_image', result['kind'])} {result['nats']:.2f}".strip()
        rows.append(
            [
                escape(result["system"]),
                value if result["confirmed"] else f"{value} ?",
                KIND_LABELS[result["kind"]],
                escape(result["estimator"]),
                result["binarisation"],
                escape(result["source"]),
            ]
        )
    return table(["System", "Nats/image", "Kind", "Estimator", "Binarisation", "Source"], rows)


def build(folder: Path) -> Path:
    """Write ``folder/README.md``; returns its path."""
    records = [read_record(path) for path in sorted((folder / "records").glob("*.json"))]
    found = likelihood_table(records, labels(records))
    description = "Negative log-likelihood of the test images."
    if records:
        data = records[0].dataset
        description = (
            f"Negative log-likelihood of the {data.test:,} test images of {data.name} (fingerprint "
            f"`{data.fingerprint[:12]}`), {data.train:,} training and {data.validation:,} validation images."
        )
    parts = [
        INTRODUCTION.format(
            title=f"Likelihood on {folder.name}", description=description, folder=f"leaderboards/{folder.name}"
        )
    ]
    if found is not None:
        parts += ["## Measured (tier `self-run`)\n", measured(found), ""]
    parts += [
        "## Published (tier `reported`)\n",
        "Not measured here. A question mark: not checked at its source. Other binarisations are other data, so these",
        "rows say where a system should be, and do not rank with the measured ones.\n",
        reported(folder / "literature.toml"),
        "",
    ]
    path = folder / "README.md"
    write_text(path, "\n".join(parts))
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of a leaderboard")
    print(build(parser.parse_args().folder))
