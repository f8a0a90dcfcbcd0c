"""DDPM's probability-flow ODE on Gaussian data, whose optimal denoiser and densities are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from baselines.diffusion.ddpm import DDPM, Chain, DDPMConfig, discretised_gaussian_log_prob
from genbench import images
from genbench.api import Batch, ImageSpec
from genbench.errors import UsageError
from genbench.noise import NoiseSource

SPEC = ImageSpec(channels=1, height=2, width=2, levels=17)
STD = 0.4


class OptimalNetwork(nn.Module):
    """Knows N(0, STD^2 I) at every real time; log(s / a) is linear between the chain's times, as the ODE takes it."""

    def __init__(self, chain: Chain, prediction: str) -> None:
        super().__init__()
        self.prediction, self.steps = prediction, len(chain)
        scales = [chain.scales(i) for i in range(1, len(chain) + 1)]
        self.log_ratio = np.array([math.log(s / a) for a, s in scales])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        ratio = math.exp(np.interp(1 + float(t[0]) * self.steps / 1000, np.arange(1, self.steps + 1), self.log_ratio))
        a = 1 / math.sqrt(1 + ratio**2)
        s = ratio * a
        x0 = x * a * STD**2 / (a * a * STD**2 + s * s)
        eps = (x - a * x0) / s
        return eps if self.prediction == "eps" else a * eps - s * x0


def gaussian_model(timesteps: int = 40, **config: object) -> DDPM:
    settings = {"schedule": "cosine", "prediction": "v", "clip_x0": False, "ode_steps": 40, **config}
    model = DDPM(DDPMConfig(timesteps=timesteps, channels=2, multipliers=(1,), blocks=1, **settings), SPEC)
    model.network = OptimalNetwork(model.chain, model.config.prediction)
    return model.eval()


def log_normal(x: Tensor, variance: float) -> Tensor:
    return (-0.5 * (x.double().square() / variance + math.log(2 * math.pi * variance))).sum(dim=(1, 2, 3))


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_density_of_x1_is_that_of_noised_gaussian_data(prediction: str, trace: str) -> None:
    model = gaussian_model(prediction=prediction, ode_trace=trace)
    x1 = 0.5 * torch.randn(6, *SPEC.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.ode_log_prob(x1, NoiseSource(0, torch.arange(6)))
    a, s = model.chain.scales(1)
    truth = log_normal(x1, a * a * STD**2 + s * s)
    assert torch.allclose(found, truth, atol=0.02), (found - truth).abs().max()


def test_more_steps_come_closer() -> None:
    x1 = 0.5 * torch.randn(4, *SPEC.shape, generator=torch.Generator().manual_seed(1))
    errors = []
    for steps in (4, 8):
        model = gaussian_model(ode_steps=steps, ode_trace="exact", schedule="linear", timesteps=60)
        a, s = model.chain.scales(1)
        with torch.no_grad():
            found = model.ode_log_prob(x1, NoiseSource(0, torch.arange(4)))
        errors.append(float((found - log_normal(x1, a * a * STD**2 + s * s)).abs().mean()))
    assert errors[1] < errors[0] / 4


def test_the_bound_is_below_the_probability_of_the_discrete_image_and_near_it() -> None:
    """Data are Gaussians rounded to levels; the bound's mean over noise stays below their exact log P."""
    model = gaussian_model(timesteps=100, ode_trace="exact")
    count = 4000
    levels = torch.tensor([[[7, 8], [9, 10]]]).expand(count, 1, 2, 2)
    batch = Batch(images.from_levels(levels, 17), torch.arange(count))
    with torch.no_grad():
        draws = model.ode_bound(batch, NoiseSource(3, batch.index))
    exact = float(discretised_gaussian_log_prob(levels[:1], torch.zeros(1, 1, 2, 2), STD, 17).sum())
    error = float(draws.std()) / math.sqrt(count)
    assert float(draws.mean()) < exact + 3 * error
    assert float(draws.mean()) > exact - 4.0


def test_ode_is_offered_where_it_has_steps() -> None:
    assert gaussian_model().likelihood_estimators() == ("vlb", "ode")
    silent = gaussian_model(ode_steps=0)
    assert silent.likelihood_estimators() == ("vlb",)
    batch = Batch(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), torch.arange(1))
    with pytest.raises(UsageError, match="Unknown estimator 'ode'"):
        silent.log_likelihood(batch, NoiseSource(0, batch.index), "ode")
    found = gaussian_model().log_likelihood(batch, NoiseSource(0, batch.index), "ode")
    assert found.kind == "estimate" and found.nats.dtype == torch.float64
