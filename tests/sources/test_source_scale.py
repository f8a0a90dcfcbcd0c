"""Large inputs in little memory, and real images where GENBENCH_DATA_ROOT has them."""

from __future__ import annotations

import io
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from source_files import encode, made, opened, write_tar

from genbench.sources import Observations

ROOT = Path(os.environ.get("GENBENCH_DATA_ROOT") or "/nonexistent")
MIB = 2**20


def peak_of_reading(path: Path) -> tuple[int, int]:
    """Images read, and the most memory held at a time, in bytes."""
    source = opened(path)
    tracemalloc.start()
    count = sum(1 for _ in source.images())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return count, peak


@pytest.mark.parametrize("kind", ["npz", "npz compressed", "npy"])
def test_arrays_are_read_in_blocks(kind: str, tmp_path: Path) -> None:
    images = np.zeros((1000, 128, 128, 3), dtype=np.uint8)
    path = tmp_path / f"x.{kind[:3]}"
    if kind == "npy":
        np.save(path, images)
    else:
        (np.savez_compressed if "compressed" in kind else np.savez)(path, arr_0=images)
    count, peak = peak_of_reading(path)
    assert count == 1000
    assert images.nbytes > 46 * MIB
    assert peak < 20 * MIB


def test_tars_are_read_as_a_stream(tmp_path: Path) -> None:
    data = encode(made(1)[0]) + b"\0" * 80_000
    path = write_tar(tmp_path / "x.tar", {f"{k:05d}.png": data for k in range(400)})
    count, peak = peak_of_reading(path)
    assert count == 400
    assert path.stat().st_size > 30 * MIB
    assert peak < 4 * MIB


def test_floats_in_memory_are_converted_in_blocks() -> None:
    array = np.zeros((2000, 3, 64, 64), dtype=np.float32)
    source = opened(array)
    tracemalloc.start()
    count = sum(1 for _ in source.images())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 2000
    assert peak < 20 * MIB


@pytest.mark.skipif(not (ROOT / "cifar10-jpeg").is_dir(), reason="needs GENBENCH_DATA_ROOT with cifar10-jpeg/")
def test_ten_thousand_real_images() -> None:
    start, seen = time.process_time(), Observations()
    source = opened(f"parquet:{ROOT / 'cifar10-jpeg'}:test")
    images = list(source.images(seen=seen))
    seconds = time.process_time() - start
    rows = pq.read_table(ROOT / "cifar10-jpeg" / "test-00000-of-00001.parquet").to_pylist()
    assert source.length == len(images) == 10_000
    assert source.class_names[0] == "airplane"
    assert seen.formats == {"JPEG": 10_000}
    assert seen.sizes == {(32, 32): 10_000}
    assert [image.label for image in images] == [row["label"] for row in rows]
    for image, row in zip(images[::50], rows[::50], strict=True):
        expected = np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))).transpose(2, 0, 1)
        assert np.array_equal(image.pixels, expected)
    assert seconds < 20


@pytest.mark.skipif(not (ROOT / "cifar10-jpeg").is_dir(), reason="needs GENBENCH_DATA_ROOT with cifar10-jpeg/")
def test_fingerprint_of_real_files() -> None:
    source = opened(f"parquet:{ROOT / 'cifar10-jpeg'}:test")
    first = source.fingerprint()
    assert first == opened(ROOT / "cifar10-jpeg" / "test-00000-of-00001.parquet").fingerprint()
    assert first != opened(f"parquet:{ROOT / 'cifar10-jpeg'}:train").fingerprint()
    start = time.process_time()
    assert source.fingerprint() == first
    assert time.process_time() - start < 0.1
