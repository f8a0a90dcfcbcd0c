"""Arrays: the order of their axes, and floats to levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from source_files import made, opened, pixels, read

from genbench.errors import DataError, UsageError
from genbench.sources import open_source

IMAGES = made()


def test_both_layouts_fit(tmp_path: Path) -> None:
    array = np.random.RandomState(0).randint(0, 256, (5, 3, 8, 3)).astype(np.uint8)
    saved = tmp_path / "x.npy"
    np.save(saved, array)
    np.savez(tmp_path / "x.npz", arr_0=array)
    for spec in (array, torch.from_numpy(array), list(array), saved):
        with pytest.raises(DataError, match='layout="NHWC" or "NCHW"'):
            read(spec)
        assert np.array_equal(pixels(read(spec, layout="NCHW")), array)
        assert np.array_equal(pixels(read(spec, layout="NHWC")), array.transpose(0, 3, 1, 2))
    assert np.array_equal(pixels(read(tmp_path / "x.npz")), array.transpose(0, 3, 1, 2))
    assert opened(array, layout="NCHW").fingerprint() != opened(array, layout="NHWC").fingerprint()
    with pytest.raises(UsageError, match="Unknown layout"):
        open_source(array, layout="HWCN")
    with pytest.raises(DataError, match="no NHWC"):
        open_source(IMAGES, layout="NHWC")


def test_float_values_are_rounded_to_the_nearest_level() -> None:
    levels = np.arange(256)
    for dtype in (np.float16, np.float32, np.float64):
        image = (levels / 255).astype(dtype).reshape(1, 1, 16, 16)
        assert np.array_equal(read(image)[0].pixels.reshape(-1), levels)
    halves = np.arange(2**15, dtype=np.uint16).view(np.float16)
    halves = halves[halves <= 1].reshape(1, 1, 1, -1)
    assert np.array_equal(read(halves)[0].pixels, np.rint(halves[0].astype(np.float64) * 255))
    assert read(torch.full((1, 1, 4, 5), 0.5, dtype=torch.bfloat16))[0].pixels.max() == 128
    assert read(np.full((1, 1, 4, 5), 0.7 / 255))[0].pixels.max() == 1
    assert read(np.array([[[[False, True]]]]))[0].pixels.tolist() == [[[0, 255]]]
