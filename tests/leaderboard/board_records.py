"""Small leaderboards for tests: synthetic records of a suite that is not packaged, and copies of the shipped ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from report_fixture import HOSTILE, metric, record

from genbench.record import MetricResult, Record, write_record

SHIPPED = Path(__file__).parents[2] / "leaderboards"
SUITE = "toy"
__all__ = ["HOSTILE", "SHIPPED", "SUITE", "board_folder", "edit", "fid", "metric", "row", "shipped_copy"]


def fid(value: float, half: float | None = 0.1, **more: Any) -> MetricResult:
    """An FID with a symmetric interval."""
    return metric("fid", value, half, **more)


def row(model: str, *metrics: MetricResult, **more: Any) -> Record:
    """A record of the toy suite."""
    return record(model, list(metrics), **({"suite": SUITE} | more))


def board_folder(home: Path, *records: Record, literature: str = "", rules: str = "") -> Path:
    """A leaderboard of the toy suite in ``home/toy``."""
    folder = home / SUITE
    (folder / "records").mkdir(parents=True, exist_ok=True)
    for one in records:
        write_record(folder / "records", one)
    if literature:
        (folder / "literature.toml").write_text(literature)
    if rules:
        (folder / "rules.md").write_text(rules)
    return folder


def shipped_copy(home: Path, suite: str = "digits") -> Path:
    """A copy of a shipped leaderboard."""
    return Path(shutil.copytree(SHIPPED / suite, home / suite))


def edit(path: Path, **changes: Any) -> None:
    """Change top-level fields of a record file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
