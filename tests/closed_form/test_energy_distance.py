"""The energy distance of two normal distributions is known; equal distributions give zero on average."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.nets.energy_distance import energy_distance


def normal_images(count: int, mean: float, seed: int) -> torch.Tensor:
    return mean + torch.randn(count, 1, 1, 1, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shift", [0.5, 2.0])
def test_distance_of_shifted_normals(shift: float) -> None:
    """E|N(m, 2)| = 2 exp(-m^2 / 4) / sqrt(pi) + m erf(m / 2); quantiles stand for the expectations."""
    across = 2 * math.exp(-(shift**2) / 4) / math.sqrt(math.pi) + shift * math.erf(shift / 2)
    expected = 2 * across - 2 * 2 / math.sqrt(math.pi)
    quantiles = torch.special.ndtri((torch.arange(2000, dtype=torch.float64) + 0.5) / 2000).reshape(-1, 1, 1, 1)
    value = energy_distance(quantiles, quantiles + shift).mean()
    assert float(value) == pytest.approx(expected, abs=0.004)


def test_unbiased_at_small_sizes() -> None:
    values = torch.stack(
        [energy_distance(normal_images(5, 0.0, 2 * k), normal_images(5, 0.0, 2 * k + 1)).mean() for k in range(2000)]
    )
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(len(values))


def test_one_figure_an_image_in_units_of_the_pixels() -> None:
    real, generated = torch.zeros(3, 2, 4, 4), torch.ones(7, 2, 4, 4)
    assert energy_distance(real, generated).tolist() == pytest.approx([2.0] * 3)
    assert energy_distance(real[:1], generated[:1]).tolist() == pytest.approx([2.0])
