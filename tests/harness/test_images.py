"""Conversions between stored values, levels, floats and dequantised values."""

import math

import pytest
import torch

from genbench import images

LEVELS = [2, 3, 16, 17, 100, 255, 256]


@pytest.mark.parametrize("k", LEVELS)
def test_levels_survive_storage_and_floats(k):
    levels = torch.arange(k)
    stored = images.from_levels(levels, k)
    assert torch.equal(images.to_levels(stored, k), levels)
    assert torch.equal(images.from_float(images.to_float(stored, k), k), stored)
    expected = [math.floor(255 * i / (k - 1) + 0.5) for i in range(k)]
    assert stored.tolist() == expected


@pytest.mark.parametrize("k", LEVELS)
def test_every_stored_value_has_its_nearest_level(k):
    stored = torch.arange(256, dtype=torch.uint8)
    positions = 255.0 * torch.arange(k).double() / (k - 1)
    distance = (stored.double()[:, None] - positions).abs()
    found = images.to_levels(stored, k)
    assert torch.allclose(distance.gather(1, found[:, None])[:, 0], distance.min(1).values)


def test_floats_outside_are_clipped():
    x = torch.tensor([-7.0, -1.0, 1.0, 9.0])
    assert images.from_float(x, 17).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize("k", LEVELS)
def test_dequantised_values_return_to_their_level(k):
    levels = torch.arange(k).repeat(50)
    u = torch.rand(levels.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = images.dequantise(levels, u, k)
    assert y.min() >= 0 and y.max() < 1
    assert torch.equal(images.quantise(y, k), levels)


@pytest.mark.parametrize("k", LEVELS)
def test_uniform_density_has_log2_k_bits(k):
    """A uniform density on [0, 1] gives each level probability 1 / K: log2 K bits per dimension."""
    dims = 12
    nats = torch.zeros(3) + images.dequantised_log_offset(dims, k)
    assert torch.allclose(images.bits_per_dim(nats, dims), torch.full((3,), math.log2(k)))


@pytest.mark.parametrize("k", LEVELS)
def test_offset_of_the_symmetric_range(k):
    """A uniform density over the K bins around the levels of [-1, 1] gives each level probability 1 / K."""
    density = (k - 1) / (2 * k)
    nats = math.log(density) + images.unit_bin_log_offset(1, k)
    assert nats == pytest.approx(-math.log(k))


def test_only_uint8_is_taken():
    with pytest.raises(TypeError, match="uint8"):
        images.to_levels(torch.zeros(3), 17)
