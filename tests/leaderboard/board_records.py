"""Small leaderboards for tests: synthetic records of a suite that is not packaged, and copies of the shipped ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_fixture import HOSTILE, metric, record

from genbench.errors import UsageError
from genbench.files import hash_file, hash_value, write_npz
from genbench.leaderboard.add import add
from genbench.record import MetricResult, Record, write_record

SHIPPED = Path(__file__).parents[2] / "leaderboards"
SUITE = "toy"
__all__ = [
    "HOSTILE",
    "SHIPPED",
    "SUITE",
    "as_seed",
    "board_folder",
    "change_metric",
    "change_scores",
    "edit",
    "fid",
    "metric",
    "refusal",
    "row",
    "shipped_copy",
    "state",
    "taken_out",
]


def fid(value: float, half: float | None = 0.1, **more: Any) -> MetricResult:
    """An FID with a symmetric interval."""
    return metric("fid", value, half, **more)


def row(model: str, *metrics: MetricResult, **more: Any) -> Record:
    """A record of the toy suite, of samples of its own."""
    samples = hash_value([model, more.get("variant"), more.get("seed", 0)])
    return record(model, list(metrics), **({"suite": SUITE, "keys": {"samples": samples}} | more))


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


def change_metric(path: Path, metric_name: str, /, **changes: Any) -> None:
    """Change fields of the first metric of this name in a record file."""
    text = json.loads(path.read_text())
    next(one for one in text["metrics"] if one["name"] == metric_name).update(changes)
    path.write_text(json.dumps(text))


def change_scores(path: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Change the arrays beside a record file in place, and what it says of them."""
    stored = json.loads(path.read_text())["per_image"]
    arrays = dict(np.load(path.with_suffix(".npz")))
    change(arrays)
    write_npz(path.with_suffix(".npz"), **arrays)
    edit(path, per_image=stored | {"sha256": hash_file(path.with_suffix(".npz")), "arrays": sorted(arrays)})


def taken_out(folder: Path, stem: str, home: Path) -> Path:
    """Take a record out of a leaderboard's folder; returns where it lies in ``home`` now, with its scores."""
    home.mkdir(parents=True, exist_ok=True)
    for suffix in ("json", "npz"):
        shutil.move(folder / "records" / f"{stem}.{suffix}", home / f"{stem}.{suffix}")
    return home / f"{stem}.json"


def as_seed(path: Path, seed: int, **changes: Any) -> Path:
    """A copy of a record file and its scores under another seed, or other names; the samples' key is the copy's own
    unless ``keys`` is given."""
    text = json.loads(path.read_text()) | {"seed": seed} | changes
    stem = f"{text['model']}-s{seed}"
    target = path.with_name(f"{stem}.json")
    text["keys"] = changes.get("keys", text["keys"] | {"samples": hash_value([stem])})
    text["per_image"] = text["per_image"] | {"file": f"{stem}.npz"}
    shutil.copyfile(path.with_suffix(".npz"), target.with_suffix(".npz"))
    target.write_text(json.dumps(text))
    return target


def refusal(record: Path, folder: Path, **options: Any) -> str:
    """Why a record is refused; the leaderboard stays as it is."""
    before = state(folder)
    with pytest.raises(UsageError) as error:
        add([record], folder, **options)
    assert state(folder) == before
    return str(error.value)


def state(folder: Path) -> dict[str, str]:
    """Hashes of all files of a folder, by path."""
    return {str(path.relative_to(folder)): hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}
