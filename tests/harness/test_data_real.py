"""Real MNIST and a JPEG edition of CIFAR-10, where GENBENCH_DATA_ROOT has them."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest

from genbench.data import load_dataset

ROOT = Path(os.environ.get("GENBENCH_DATA_ROOT") or "/nonexistent")


@pytest.mark.skipif(not (ROOT / "mnist").is_dir(), reason="needs GENBENCH_DATA_ROOT with mnist/")
def test_mnist_has_the_published_contents() -> None:
    splits = load_dataset("mnist", data_root=ROOT)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [50_000, 10_000, 10_000]
    header = bytes.fromhex("00000803000027100000001c0000001c")
    assert hashlib.md5(header + splits.test.images.tobytes()).hexdigest() == "2646ac647ad5339dbf082846283269ea"
    pixels = np.concatenate([splits.train.images.reshape(-1), splits.validation.images.reshape(-1)])
    assert abs(pixels.mean() / 255 - 0.1307) < 5e-5
    assert splits.validation.labels is not None
    assert np.bincount(splits.validation.labels).tolist() == [987, 1124, 993, 1022, 974, 904, 986, 1044, 975, 991]


@pytest.mark.skipif(not (ROOT / "cifar10-jpeg").is_dir(), reason="needs GENBENCH_DATA_ROOT with cifar10-jpeg/")
def test_sixty_thousand_jpegs_are_decoded_in_seconds() -> None:
    start = time.process_time()
    splits = load_dataset(f"parquet:{ROOT / 'cifar10-jpeg'}")
    seconds = time.process_time() - start
    assert splits.name == "cifar10-jpeg"
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [45_000, 5_000, 10_000]
    assert splits.spec.shape == (3, 32, 32)
    assert splits.spec.class_names[0] == "airplane"
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels is not None
        assert np.bincount(part.labels).tolist() == [len(part) // 10] * 10
    mean = splits.train.images.mean(axis=(0, 2, 3)) / 255
    assert np.abs(mean - [0.4914, 0.4822, 0.4465]).max() < 2e-3
    assert seconds < 30
