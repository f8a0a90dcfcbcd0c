"""The pictures of a row: samples, reconstructions, interpolations, inpaintings, nearest training images.

They are made from a run's samples and gallery, or read from a folder of PNG files: ``<row>.png`` (samples),
``<kind>/<row>.png`` and ``real/test.png``, which `write_pictures` wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from genbench.files import atomic_path
from genbench.report import load
from genbench.report.grids import Picture, pairs, picture, read_picture, square_grid
from genbench.report.load import Run
from genbench.report.rows import Row
from genbench.report.tables import CEILING

Pictures = dict[str, Picture]
"""By kind; what a row does not have is not there."""

ALTS = {
    "samples": "Samples of {}",
    "reconstructions": "Test images above their reconstructions by {}",
    "interpolations": "Latent interpolations of {}, one path a row",
    "inpaintings": "Upper halves of test images and completions by {}, one image a row",
    "neighbours": "Samples of {} above their nearest training images",
}
REAL = "Real images of the test split"
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=-]*")


def is_safe_name(name: str) -> bool:
    """Whether a row's name can name a file."""
    return _SAFE_NAME.fullmatch(name) is not None


def pictures_of(row: Row) -> Pictures:
    """The pictures of the first seed whose source has any."""
    for part in row.parts:
        source = part.source
        found: Pictures = {}
        if source.run is not None:
            stem = part.entry.path.stem
            found = run_pictures(source.run, load.Row(stem, part.record), row.label)
        elif source.pictures is not None:
            found = _stored(source.pictures, row)
        if found:
            return found
    return {}


def run_pictures(run: Run, row: load.Row, label: str) -> Pictures:
    """Pictures from a run's arrays; what does not fit together is a note of the run."""
    arrays = run.gallery(row)
    samples = run.samples(row)

    def drawn(make: Callable[..., Picture], kind: str, *parts: str) -> Pictures:
        if not all(part in arrays for part in parts):
            return {}
        try:
            return {kind: make(*(arrays[part] for part in parts), alt=ALTS[kind].format(label))}
        except ValueError as error:
            run.notes.append(f"gallery/{row.stem}.npz: {' and '.join(parts)} do not fit together ({error}): left out.")
            return {}

    return {
        **({} if samples is None else {"samples": square_grid(samples, ALTS["samples"].format(label))}),
        **drawn(pairs, "reconstructions", "real", "reconstructions"),
        **drawn(_paths, "interpolations", "interpolations"),
        **drawn(_paths, "inpaintings", "inpaintings"),
        **drawn(pairs, "neighbours", "nearest_samples", "nearest"),
    }


def _paths(images: np.ndarray, alt: str) -> Picture:
    return picture(images[:6, :12], alt)


def real_picture(rows: Sequence[Row]) -> Picture | None:
    """Real images of the test split: the most that a gallery has, else the samples of the control that shows them."""
    for folder in dict.fromkeys(part.source.pictures for row in rows for part in row.parts):
        if folder is not None and (folder / "real" / "test.png").is_file():
            return read_picture(folder / "real" / "test.png", REAL)
    parts = [part for row in rows for part in row.parts if part.source.run is not None]
    found = [load.Row(part.entry.path.stem, part.record) for part in parts]
    runs = [part.source.run for part in parts]
    real = max(
        (array for run, row in zip(runs, found) if run and (array := run.gallery(row).get("real")) is not None),
        key=len,
        default=None,
    )
    if real is None or len(real) < 64:
        for run, row in zip(runs, found):
            test = run.samples(row) if run and row.record.control and row.record.model == CEILING else None
            real = test if test is not None else real
    return None if real is None else square_grid(real, REAL)


def _stored(folder: Path, row: Row) -> Pictures:
    name = row.record.row
    if not is_safe_name(name):
        return {}
    files = {kind: picture_file(folder, kind, name) for kind in ALTS}
    return {kind: read_picture(file, ALTS[kind].format(row.label)) for kind, file in files.items() if file.is_file()}


def picture_file(folder: Path, kind: str, row: str) -> Path:
    """Where a row's picture lies in a folder of them."""
    return folder / f"{row}.png" if kind == "samples" else folder / kind / f"{row}.png"


def write_pictures(folder: Path, rows: Sequence[Row]) -> None:
    """Write the pictures of rows, and real images beside them, as PNG files; each atomically."""
    for row in rows:
        if is_safe_name(row.record.row):
            for kind, made in pictures_of(row).items():
                _write(picture_file(folder, kind, row.record.row), made)
    real = real_picture(rows)
    if real is not None:
        _write(folder / "real" / "test.png", real)


def _write(path: Path, made: Picture) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(made.png)
