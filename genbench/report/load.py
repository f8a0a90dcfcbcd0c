"""Reading what a run left behind: missing or damaged pieces become notes; only a folder that is no run is an error."""

from __future__ import annotations

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from genbench.check.collect import record_paths
from genbench.errors import DataError, UsageError
from genbench.record import Record, read_record

GALLERY_DIMS = {
    "real": 4,
    "reconstructions": 4,
    "interpolations": 5,
    "inpaintings": 5,
    "nearest": 4,
    "nearest_samples": 4,
}


@dataclass(frozen=True)
class Row:
    """A record and the stem of its file, under which its samples and gallery lie."""

    stem: str
    record: Record


@dataclass
class Run:
    """A run folder as read. notes: what was missing or damaged. broken: (file, reason) of unreadable records."""

    folder: Path
    manifest: dict[str, Any]
    rows: list[Row]
    broken: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def records(self) -> list[Record]:
        return [row.record for row in self.rows]

    def samples(self, row: Row) -> np.ndarray | None:
        """(N, H, W, C) uint8 samples of a row, or None and a note."""
        path = self.folder / "samples" / f"{row.stem}.npz"
        if not path.exists():
            if row.record.status == "ok":
                self.notes.append(f"samples/{path.name} is missing: no samples are shown for {row.record.row}.")
            return None
        return self._arrays(path, {"arr_0": 4}).get("arr_0")

    def gallery(self, row: Row) -> dict[str, np.ndarray]:
        """The gallery arrays of a row (``real``, ``reconstructions``, ``interpolations``, ...); those it has."""
        path = self.folder / "gallery" / f"{row.stem}.npz"
        return self._arrays(path, GALLERY_DIMS) if path.exists() else {}

    def _arrays(self, path: Path, dims: Mapping[str, int]) -> dict[str, np.ndarray]:
        name = f"{path.parent.name}/{path.name}"
        found: dict[str, np.ndarray] = {}
        try:
            with np.load(path, allow_pickle=False) as archive:
                for key in dims:
                    if key in archive.files:
                        found[key] = archive[key]
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            self.notes.append(f"{name} cannot be read ({error}): its images are left out.")
            return {}
        return {key: array for key, array in found.items() if self._is_images(name, key, array, dims[key])}

    def _is_images(self, name: str, key: str, array: np.ndarray, dims: int) -> bool:
        fits = array.dtype == np.uint8 and array.ndim == dims and array.shape[-1] in (1, 3) and array.size > 0
        if not fits:
            self.notes.append(
                f"{name}: array '{key}' is {array.dtype} {array.shape}, expected uint8 images with {dims} axes, "
                "channels last: left out."
            )
        return fits


def read_run(folder: Path) -> Run:
    """Read ``run.json`` and the records that it lists (all records where it cannot be read).

    Raises:
        UsageError: ``folder`` holds neither ``run.json`` nor ``records``.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists() and not (folder / "records").is_dir():
        raise UsageError(
            f"{folder}: not the folder of a run: neither run.json nor records/ is there. "
            "Give the folder that `genbench run --out` wrote."
        )
    notes: list[str] = []
    manifest = _read_manifest(folder / "run.json", notes)
    run = Run(folder, manifest, [], notes=notes)
    listed = manifest.get("rows")
    if isinstance(listed, list):
        paths = [folder / "records" / f"{Path(str(stem)).name}.json" for stem in listed]
    else:
        paths = record_paths(folder / "records")
    for path in paths:
        _read_row(run, path)
    if not run.rows:
        run.notes.append("No record could be read: there is nothing to compare yet.")
    return run


def _read_manifest(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append("run.json is missing: every record of the folder is shown, in order of names.")
        return {}
    except (OSError, ValueError) as error:
        notes.append(f"run.json cannot be read ({error}): every record of the folder is shown, in order of names.")
        return {}
    if not isinstance(manifest, dict):
        notes.append("run.json is not a JSON object: every record of the folder is shown, in order of names.")
        return {}
    return manifest


def _read_row(run: Run, path: Path) -> None:
    if not path.exists():
        run.notes.append(f"{path.stem} has no record: the run did not finish it.")
        return
    try:
        record = read_record(path)
    except DataError as error:
        run.broken.append((f"records/{path.name}", str(error).replace(f"{path}: ", "", 1)))
        return
    if record.file_stem != path.stem:
        run.notes.append(f"records/{path.name} holds the record of {record.file_stem}: it was renamed or copied.")
    run.rows.append(Row(path.stem, record))


def flat_seconds(stages: Any, prefix: str = "") -> dict[str, float]:
    """Seconds by stage, with nested tables flattened to ``"outer / inner"``; what is no finite number is left out."""
    if not isinstance(stages, Mapping):
        return {}
    flat: dict[str, float] = {}
    for name, value in stages.items():
        if isinstance(value, Mapping):
            flat |= flat_seconds(value, f"{prefix}{name} / ")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            flat[f"{prefix}{name}"] = float(value)
    return flat
