"""FFJORD: the map inverts, its density is autograd's and integrates to one, Hutchinson's mean is the exact trace."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from baselines.flow.ffjord import FFJORD, FFJORDConfig, plan
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, quantise
from genbench.likelihood.dequantisation import inverse_logit_transform, logit_transform
from genbench.likelihood.ode import exact_divergence, hutchinson_divergence
from genbench.noise import NoiseSource


def exact(_):
    return exact_divergence


def ffjord(spec: ImageSpec, seed: int = 0, scale: float = 0.4, **settings) -> FFJORD:
    """A flow with random weights everywhere, in float64."""
    config = FFJORDConfig(**{"architecture": "conv", "hidden": (5,), "blocks": 1, "solver_steps": 6, **settings})
    model = FFJORD(config, spec).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.eval()


SMALL = ImageSpec(1, 4, 4, 5)
CASES = [{"architecture": "mlp", "blocks": 2}, {"scales": 2, "solver_steps": 12}, {"activation": "tanh", "scales": 1}]


@pytest.mark.parametrize("settings", CASES)
def test_the_map_inverts(settings):
    model = ffjord(SMALL, **settings)
    x = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        z, _ = model.forward_flow(x, exact)
        assert float((z - x.flatten(1)).abs().max()) > 0.1, "the flow does nothing"
        assert torch.allclose(model.inverse_flow(z), x, atol=1e-4)


@pytest.mark.parametrize("settings", CASES)
def test_log_density_is_that_of_autograds_jacobian(settings):
    model = ffjord(SMALL, **settings)
    y = torch.rand(1, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def to_latent(v: Tensor) -> Tensor:
        return model.forward_flow(logit_transform(v.reshape(1, 1, 4, 4), model.config.alpha)[0], exact)[0][0]

    jacobian = torch.autograd.functional.jacobian(to_latent, y.flatten())
    z = to_latent(y.flatten()).detach()
    truth = -0.5 * (z.square() + math.log(2 * math.pi)).sum() + torch.linalg.slogdet(jacobian)[1]
    with torch.no_grad():
        assert float(model.log_density(y, exact)) == pytest.approx(float(truth), abs=2e-3)


def test_hutchinsons_mean_is_the_exact_trace():
    model = ffjord(ImageSpec(1, 2, 2, 5), architecture="mlp")
    y = torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64).expand(16, -1, -1, -1).contiguous()
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4).reshape(16, 1, 2, 2)
    with torch.no_grad():
        estimates = model.log_density(y, lambda _: hutchinson_divergence(signs))
        truth = model.log_density(y[:1], exact)
    assert float(estimates.std()) > 1e-3
    assert float(estimates.mean()) == pytest.approx(float(truth), rel=1e-10)


def test_a_linear_flow_is_the_gaussian_it_should_be():
    """Under dx/dt = A x, x(0) is exp(-A) z: log p(x) = N(exp(A) x; 0, I) + tr A."""
    a = torch.tensor([[0.5, -0.8], [0.3, 0.2]], dtype=torch.float64)

    class Linear(nn.Module):
        def forward(self, which, t, x):
            return (x.flatten(1) @ a.T).reshape(x.shape)

    model = ffjord(ImageSpec(1, 1, 2, 5), architecture="mlp", solver_steps=40)
    model.fields = Linear()
    y = torch.rand(4, 1, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x, log_det = logit_transform(y, model.config.alpha)
    z = x.flatten(1) @ torch.linalg.matrix_exp(a).T
    truth = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + torch.trace(a) + log_det
    with torch.no_grad():
        assert torch.allclose(model.log_density(y, exact), truth, atol=1e-6)


def test_density_integrates_to_one_over_the_plane():
    model = ffjord(ImageSpec(1, 1, 2, 5), architecture="mlp", solver_steps=8, scale=0.6)
    grid = torch.linspace(-9, 9, 121, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid).reshape(-1, 1, 1, 2)
    with torch.no_grad():
        z, change = model.forward_flow(x, exact)
    log_p = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + change
    assert float(log_p.exp().sum() * (grid[1] - grid[0]) ** 2) == pytest.approx(1.0, abs=2e-3)


def test_samples_have_the_density():
    """Shares of sampled images agree with the probabilities of their bins, by integrating the density over them."""
    spec = ImageSpec(1, 1, 2, 3)
    model = ffjord(spec, architecture="mlp", solver_steps=8, scale=0.5, alpha=0.2)
    count = 20_000
    z = torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        levels = quantise(inverse_logit_transform(model.inverse_flow(z), 0.2), 3).flatten(1)
        found = torch.bincount(levels[:, 0] * 3 + levels[:, 1], minlength=9) / count
        cell = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
        y = torch.cartesian_prod(cell, cell).reshape(-1, 1, 1, 2)
        mass = (model.log_density(y, exact).exp() / 3600).reshape(3, 20, 3, 20).sum((1, 3)).flatten()
    # the centre cell takes no clipped mass: there the two must agree; the border cells hold the clipped rest as well
    error = math.sqrt(float(mass[4]) * (1 - float(mass[4])) / count)
    assert float(found[4]) == pytest.approx(float(mass[4]), abs=4 * error)
    assert (found >= mass - 4 * (mass / count).sqrt()).all()


def test_the_bound_is_an_estimate_and_the_weighted_one_needs_the_exact_trace():
    model = ffjord(SMALL, likelihood_draws=3).float()
    assert model.likelihood_estimators() == ("dequantised",)
    batch = Batch(from_levels(torch.ones(2, 1, 4, 4, dtype=torch.int64), 5), torch.arange(2))
    found = model.log_likelihood(batch, NoiseSource(0, batch.index), "dequantised")
    assert found.kind == "estimate" and found.standard_error is not None and float(found.standard_error.min()) > 0
    exact_trace = ffjord(SMALL, likelihood_draws=3, trace="exact").float()
    assert exact_trace.likelihood_estimators() == ("dequantised", "dequantised-iw-3")
    weighted = exact_trace.log_likelihood(batch, NoiseSource(0, batch.index), "dequantised-iw-3")
    plain = exact_trace.log_likelihood(batch, NoiseSource(0, batch.index), "dequantised")
    assert (weighted.nats > plain.nats).all()


def test_latents_and_options():
    model = ffjord(SMALL, scales=2).float()
    batch = Batch(from_levels(torch.arange(16).reshape(1, 1, 4, 4) % 5, 5), torch.arange(1))
    assert torch.equal(model.decode(model.encode(batch)), batch.images)
    request = SampleRequest(NoiseSource(0, torch.arange(4)), SamplerOptions(temperature=0.0), Condition())
    cold = model.sample(request)
    assert torch.equal(cold, cold[:1].expand_as(cold))
    for bad in ({"temperature": -1.0}, {"steps": 0}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            model.sample(SampleRequest(NoiseSource(0, torch.arange(1)), SamplerOptions(**bad)))


def test_sides_that_do_not_halve_are_refused():
    with pytest.raises(UsageError, match=r"scales = 3 needs a height and width divisible by 4, the images are 6 x 8"):
        plan(FFJORDConfig(scales=3), ImageSpec(1, 6, 8, 5))
