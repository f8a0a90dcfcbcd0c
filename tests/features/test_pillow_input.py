"""Resizing as Pillow does it, and the inputs of CLIP and torchvision as their own transforms make them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from genbench.errors import DataError
from genbench.features.pillow_input import PillowInput, check_channels, pillow_resize, resize_by_matrices

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIZES = [((8, 8), (24, 24)), ((33, 50), (17, 20)), ((64, 64), (64, 9)), ((5, 40), (31, 40)), ((1, 1), (7, 3))]


def images(height, width, channels=3, count=3, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    noise[0] = np.where(noise[0] > 127, 255, 0)  # edges make bicubic overshoot
    return torch.from_numpy(noise)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_both_routes_equal_pillow_bit_by_bit(before, after, channels, method):
    given = images(*before, channels)
    mode = "L" if channels == 1 else "RGB"
    expected = np.stack([
        np.asarray(
            Image.fromarray(i.permute(1, 2, 0).numpy().squeeze(2) if mode == "L" else i.permute(1, 2, 0).numpy(), mode)
            .resize(after[::-1], RESAMPLING[method])
        ).reshape(*after, channels)
        for i in given
    ]).transpose(0, 3, 1, 2)  # fmt: skip
    assert np.array_equal(pillow_resize(given, after, method).numpy(), expected)
    assert np.array_equal(resize_by_matrices(given, after, method).numpy(), expected)


@pytest.mark.parametrize("size", [(40, 61), (61, 40), (32, 32), (8, 90), (33, 33)])
@pytest.mark.parametrize("method", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
def test_shorter_side_and_crop_equal_torchvision(size, method):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    own = transforms.Compose([
        transforms.Resize(36, method), transforms.CenterCrop(31), transforms.ToTensor(), transforms.Normalize(mean, std)
    ])  # fmt: skip
    given = images(*size)
    prepare = PillowInput("shorter side", 36, (31, 31), method.value, mean, std)
    expected = torch.stack([own(Image.fromarray(i.permute(1, 2, 0).numpy())) for i in given])
    assert torch.equal(prepare(given), expected)


def test_grey_is_repeated_and_the_stretch_is_exact():
    prepare = PillowInput("exact", (6, 9), (6, 9), "bicubic", (0.5, 0.5, 0.5), (0.5, 0.25, 0.125))
    grey = images(12, 5, channels=1)
    assert torch.equal(prepare(grey), prepare(grey.expand(-1, 3, -1, -1)))
    assert prepare(grey).shape == (3, 3, 6, 9)
    resized = pillow_resize(grey, (6, 9), "bicubic").float() / 255
    assert torch.allclose(prepare(grey)[:, 2], (resized[:, 0] - 0.5) / 0.125)


def test_descriptions_tell_settings_apart():
    a = PillowInput("exact", (6, 9), (6, 9), "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    b = PillowInput("shorter side", 8, (6, 9), "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    c = PillowInput("shorter side", 8, (6, 9), "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.4))
    assert len({p.describe() for p in (a, b, c)}) == 3


@pytest.mark.parametrize("shape", [(2, 2, 8, 8), (2, 3, 0, 8), (2, 4, 8, 8)])
def test_other_channels_are_refused(shape):
    with pytest.raises(DataError, match=f"'x' takes images of 1 or 3 channels.*{shape[1]}, {shape[2]}"):
        check_channels(np.zeros(shape, np.uint8), "x")
