"""Where a run keeps things, and how it knows what is done: every stage leaves a receipt that names its inputs' key."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genbench.checkpoint import MANIFEST
from genbench.files import hash_file, write_json


@dataclass(frozen=True)
class Store:
    """The folder of a run.

    records/, samples/, gallery/, checkpoints/, report/, summary.* and run.json are for the user. stages/ holds the
    receipts, data/ the dataset as arrays, superseded/ what belongs to other settings (another budget or config).
    """

    root: Path

    @property
    def records(self) -> Path:
        return self.root / "records"

    @property
    def data(self) -> Path:
        return self.root / "data"

    def checkpoint(self, cell: str) -> Path:
        return self.root / "checkpoints" / cell

    def samples(self, row: str) -> Path:
        return self.root / "samples" / f"{row}.npz"

    def gallery(self, row: str) -> Path:
        return self.root / "gallery" / f"{row}.npz"

    def parts(self, row: str, key: str) -> Path:
        """Where finished batches of a row's samples wait for the others."""
        return self.root / "stages" / row / f"parts-{key[:12]}"

    def likelihood(self, cell: str) -> Path:
        return self.root / "stages" / cell / "likelihood.npz"

    def receipt_path(self, owner: str, stage: str) -> Path:
        return self.root / "stages" / owner / f"{stage}.json"

    def receipt(self, owner: str, stage: str, key: str) -> dict[str, Any] | None:
        """The receipt of a finished stage, or None when it is missing, made from other inputs, or its file is gone."""
        path = self.receipt_path(owner, stage)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if value.get("key") != key:
            return None
        file = value.get("file")
        if file is not None:
            target = self.root / file
            if not target.is_file() or hash_file(target) != value.get("sha256"):
                return None
        return value

    def receipt_key(self, owner: str, stage: str) -> str | None:
        """The key in a stage's receipt, or None when there is no readable receipt."""
        return _read_key(self.receipt_path(owner, stage))

    def write_receipt(
        self, owner: str, stage: str, key: str, seconds: float, file: Path | None = None, **figures: Any
    ) -> dict[str, Any]:
        """Record that a stage is done: its key, the seconds it took, and the hash of the file it left."""
        value = {"key": key, "seconds": seconds, **figures}
        if file is not None:
            value |= {"file": str(file.relative_to(self.root)), "sha256": hash_file(file)}
        write_json(self.receipt_path(owner, stage), value)
        return value

    def claim_cell(self, cell: str, key: str) -> None:
        """Make the cell's places belong to ``key``: set aside what another key left, bring back what this one had."""
        owner = self.receipt_path(cell, "cell")
        current = _read_key(owner) or _read_key(self.checkpoint(cell) / MANIFEST)
        if current not in (None, key):
            self._move_cell(cell, self.root, self._aside(cell, current))
        if _read_key(owner) != key:
            write_json(owner, {"key": key})
        aside = self._aside(cell, key)
        if aside.exists():
            self._move_cell(cell, aside, self.root)
            shutil.rmtree(aside)

    def _aside(self, cell: str, key: str | None) -> Path:
        return self.root / "superseded" / f"{cell}-{(key or '')[:12]}"

    def _move_cell(self, cell: str, source: Path, target: Path) -> None:
        """Move everything of a cell between the run folder and a folder of the same layout; the marker moves last."""
        rows = sorted(_all_rows(source, cell))
        names = [f"checkpoints/{cell}"]
        for row in rows:
            names += [f"records/{row}.json", f"records/{row}.npz", f"samples/{row}.npz", f"gallery/{row}.npz"]
        names += [f"stages/{owner}" for owner in (*(r for r in rows if r != cell), cell)]
        for name in names:
            if (source / name).exists():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                if (target / name).is_dir():
                    shutil.rmtree(target / name)
                (source / name).replace(target / name)


def _read_key(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["key"])
    except (OSError, ValueError, KeyError):
        return None


def _all_rows(root: Path, cell: str) -> set[str]:
    """Rows of a cell (``ddpm-s0``, ``ddpm@ddim20-s0``) that have left anything in ``root``."""
    model, seed = cell.rsplit("-s", 1)
    found = {cell}
    for folder in ("stages", "samples", "gallery", "records"):
        for path in (root / folder).glob("*"):
            name = path.name.removesuffix(".json").removesuffix(".npz")
            if name.startswith(f"{model}@") and name.endswith(f"-s{seed}"):
                found.add(name)
    return found
