"""Images and the same images in every kind of file."""

from __future__ import annotations

import io
import json
import signal
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from genbench.sources import ImageSource, Observations, SourceImage, open_source

LABELS = [k % 3 for k in range(12)]
CAPTIONS = [f"picture number {k}" for k in range(12)]


def made(count: int = 12, channels: int = 3, seed: int = 0) -> np.ndarray:
    """(N, C, 6, 9) uint8, no two alike, height and width unlike."""
    return np.random.RandomState(seed).randint(0, 256, (count, channels, 6, 9)).astype(np.uint8)


def encode(image: np.ndarray, kind: str = "png") -> bytes:
    """(C, H, W) uint8 to the bytes of an image file."""
    stream = io.BytesIO()
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(stream, kind)
    return stream.getvalue()


def members(images: np.ndarray, kind: str = "png") -> dict[str, bytes]:
    return {f"img{k:04d}.{kind}": encode(image, kind) for k, image in enumerate(images)}


def edm_json(names: list[str], labels: list[Any] | None = None) -> bytes:
    return json.dumps({"labels": [list(pair) for pair in zip(names, labels or LABELS)]}).encode()


def write_folder(root: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def write_tar(path: Path, content: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def webdataset(images: np.ndarray, start: int = 0) -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    for k, image in enumerate(images, start):
        content[f"{k:06d}.cls"] = str(LABELS[k]).encode()
        content[f"{k:06d}.png"] = encode(image)
        content[f"{k:06d}.txt"] = CAPTIONS[k].encode()
    return content


def write_parquet(path: Path, images: np.ndarray, start: int = 0, **columns: list[Any]) -> Path:
    rows = [{"bytes": encode(image), "path": None} for image in images]
    stop = start + len(images)
    table = pa.table({"image": rows, "label": LABELS[start:stop], "caption": CAPTIONS[start:stop], **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=5)
    return path


@contextmanager
def in_time(seconds: int = 10) -> Iterator[None]:
    """An error where the block takes longer."""

    def late(*_: Any) -> None:
        raise AssertionError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def opened(spec: Any, **options: Any) -> ImageSource:
    source = open_source(spec, **options)
    assert isinstance(source, ImageSource)
    return source


def read(spec: Any, seen: Observations | None = None, on_error: Any = "fail", **options: Any) -> list[SourceImage]:
    return list(opened(spec, **options).images(on_error, seen))


def pixels(images: list[SourceImage]) -> np.ndarray:
    return np.stack([image.pixels for image in images])
