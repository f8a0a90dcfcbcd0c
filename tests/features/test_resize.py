"""Resizes as matrices: equal to the tools whose names they carry, over sizes up and down."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from genbench.features import resize as r

KERNELS = [r.tensorflow_bilinear, r.torch_bilinear, r.torch_bilinear_antialias, r.pillow_bicubic]
SIZES = [
    (1, 1),
    (1, 7),
    (3, 2),
    (8, 8),
    (28, 33),
    (150, 149),
    (298, 300),
    (299, 64),
    (597, 598),
    (480, 640),
    (1024, 333),
]
ONE_LEVEL = 1 / 127.5
TOLERANCE = 1e-5 / ONE_LEVEL


def black_and_white(height, width):
    """(1, 3, H, W) uint8: the sharpest edges there are, uniform noise, and a grey that stays below the extremes."""
    rng = np.random.default_rng(height * 1000 + width)
    noise = rng.integers(0, 256, (3, height, width))
    return torch.from_numpy(np.stack([(noise[0] > 127) * 255, noise[1], 100 + noise[2] // 8])[None].astype(np.uint8))


def resized(images, kernel, size=299):
    return r.resize(images, kernel, size, torch.Tensor.float)


@pytest.mark.parametrize("size", SIZES)
def test_pillows_float_bicubic(size):
    images = black_and_white(*size)
    channels = [Image.fromarray(c.astype(np.float32)) for c in images[0].numpy()]
    expected = np.stack([np.asarray(c.resize((299, 299), Image.Resampling.BICUBIC)) for c in channels])
    np.testing.assert_allclose(resized(images, r.pillow_bicubic)[0], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_torchs_bilinear(size, antialias):
    images = black_and_white(*size)
    options = {"mode": "bilinear", "align_corners": False, "antialias": antialias}
    expected = F.interpolate(images.float(), size=(299, 299), **options)
    kernel = r.torch_bilinear_antialias if antialias else r.torch_bilinear
    torch.testing.assert_close(resized(images, kernel), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("size_in", [1, 8, 32, 299, 512])
def test_tensorflows_bilinear_reads_position_i_in_out(size_in):
    matrix = r.tensorflow_bilinear(size_in, 299)
    position = torch.clamp(torch.arange(299) * size_in / 299, max=size_in - 1)
    torch.testing.assert_close(matrix @ torch.arange(size_in, dtype=torch.float32), position, rtol=1e-5, atol=1e-4)
    assert (matrix > 0).sum(1).max() <= 2


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size_in", [1, 5, 299, 700])
def test_weights_sum_to_one_and_the_own_size_is_left_alone(kernel, size_in):
    matrix = kernel(size_in, 299)
    torch.testing.assert_close(matrix.sum(1), torch.ones(299))
    if size_in == 299:
        torch.testing.assert_close(matrix, torch.eye(299), rtol=0, atol=0)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(13, 700), (299, 1), (7, 299)])
def test_bands_are_the_whole_matrix(kernel, size):
    images = black_and_white(*size)
    whole = kernel(size[0], 45) @ images.float() @ kernel(size[1], 45).T
    torch.testing.assert_close(resized(images, kernel, 45), whole, rtol=1e-6, atol=1e-4)
    bands = r.bands(kernel, 700, 299, torch.device("cpu"))
    assert sum(len(band.matrix) for band in bands) == 299
    assert max(band.last - band.first for band in bands) < 150


def test_pillow_overshoots_where_bilinear_cannot():
    edge = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    edge[..., 4:] = 255
    assert resized(edge, r.pillow_bicubic).min() < -10
    for kernel in KERNELS[:3]:
        found = resized(edge, kernel)
        assert found.min() >= 0 and found.max() <= 255.001
