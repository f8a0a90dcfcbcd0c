"""FFJORD: the map inverts, its density is autograd's and integrates to one, Hutchinson's mean is the exact trace."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from baselines.flow.ffjord import FFJORD, FFJORDConfig, plan
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.likelihood.dequantisation import logit_transform
from genbench.likelihood.ode import exact_divergence, hutchinson_divergence
from genbench.noise import NoiseSource


def exact(_):
    return exact_divergence


def ffjord(spec: ImageSpec, seed: int = 0, scale: float = 0.4, **settings) -> FFJORD:
    """A flow with random weights everywhere, in float64."""
    config = FFJORDConfig(**{"architecture": "conv", "hidden": (5,), "blocks": 1, "likelihood_steps": 6, **settings})
    model = FFJORD(config, spec).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.eval()


class DoubleNoise(NoiseSource):
    """Noise in float64, for a model in float64."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return super().uniform(shape).double()


class Context:
    """A training context that differentiates and does not step."""

    step, rng = 0, None

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        pass


SMALL = ImageSpec(1, 4, 4, 5)
CASES = [
    {"architecture": "mlp", "blocks": 2},
    {"scales": 2, "likelihood_steps": 12},
    {"activation": "tanh", "scales": 1},
]


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

    model = ffjord(ImageSpec(1, 1, 2, 5), architecture="mlp", solver_steps=2, likelihood_steps=None)
    model.fields = Linear()
    y = torch.rand(4, 1, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x, log_det = logit_transform(y, model.config.alpha)
    z = x.flatten(1) @ torch.linalg.matrix_exp(a).T
    truth = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + torch.trace(a) + log_det
    with torch.no_grad():
        assert torch.allclose(model.log_density(y, exact), truth, atol=1e-5)
        assert not torch.allclose(model.log_density(y, exact, steps=2), truth, atol=1e-4)
        assert torch.allclose(model.log_density(y, exact, steps=80), truth, atol=1e-9)


@pytest.mark.parametrize("settings", CASES)
def test_the_likelihood_is_nearer_to_a_fine_solve_than_the_training_solve_is(settings):
    """At four times the steps the error of order 4 falls by 4^4; half of that order is asked for."""

    def nats(likelihood_steps: int | None) -> Tensor:
        steps = {"solver_steps": 2, "likelihood_steps": likelihood_steps}
        model = ffjord(SMALL, **{**settings, **steps}, trace="exact", likelihood_draws=2)
        batch = Batch(from_levels(torch.arange(32).view(2, 1, 4, 4) % 5, 5), torch.arange(2))
        return model.log_likelihood(batch, DoubleNoise(0, batch.index), "dequantised").nats

    fine = nats(24)
    coarse_error, error = (nats(2) - fine).abs().mean(), (nats(None) - fine).abs().mean()
    assert coarse_error.item() > 1e-5
    assert error.item() < coarse_error.item() / 16


def test_training_solves_on_its_own_grid_and_all_else_on_the_finer_one():
    model, calls = ffjord(SMALL, scales=2, solver_steps=2, likelihood_steps=3, likelihood_draws=2).float(), []
    model.fields.register_forward_hook(lambda *_: calls.append(1))
    batch = Batch(from_levels(torch.ones(2, 1, 4, 4, dtype=torch.int64), 5), torch.arange(2))

    def evaluations(run: Callable[[], object]) -> int:
        calls.clear()
        run()
        return len(calls) // len(model.shapes)

    def noise() -> NoiseSource:
        return NoiseSource(0, batch.index)

    assert evaluations(lambda: model.update(batch, Context())) == 4 * 2
    assert evaluations(lambda: model.validate(batch, noise())) == 4 * 3
    assert evaluations(lambda: model.log_likelihood(batch, noise(), "dequantised")) == 2 * 4 * 3
    assert evaluations(lambda: model.sample(SampleRequest(noise()))) == 4 * 3
    assert evaluations(lambda: model.sample(SampleRequest(noise(), SamplerOptions(steps=5)))) == 4 * 5
    assert evaluations(lambda: model.encode(batch)) == 4 * 3
    assert evaluations(lambda: model.decode(torch.zeros(2, 16))) == 4 * 3


def test_density_integrates_to_one_over_the_plane():
    model = ffjord(ImageSpec(1, 1, 2, 5), architecture="mlp", likelihood_steps=8, scale=0.6)
    grid = torch.linspace(-9, 9, 121, dtype=torch.float64)
    x = torch.cartesian_prod(grid, grid).reshape(-1, 1, 1, 2)
    with torch.no_grad():
        z, change = model.forward_flow(x, exact)
    log_p = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + change
    assert float(log_p.exp().sum() * (grid[1] - grid[0]) ** 2) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("settings", [{"architecture": "mlp", "blocks": 2}, {"scales": 2}])
def test_sampling_frequencies_match_the_probabilities(settings):
    """All sixteen binary 2 x 2 images; P(k) is the mean of the density over the bin, here on 512 points of it."""
    spec, n = ImageSpec(1, 2, 2, 2), 6000
    model = ffjord(spec, alpha=1e-4, likelihood_steps=4, scale=0.3, **settings)
    levels = torch.cartesian_prod(*[torch.arange(2)] * 4).view(16, 1, 1, 2, 2)
    u = torch.quasirandom.SobolEngine(4, scramble=True, seed=0).draw(512, dtype=torch.float64).view(512, 1, 2, 2)
    with torch.no_grad():
        density = model.log_density((levels + u).flatten(0, 1) / 2, exact).exp()
    p = density.view(16, 512).mean(1) / 2**4
    assert p.sum().item() == pytest.approx(1.0, abs=0.02)
    drawn = to_levels(model.float().sample(SampleRequest(NoiseSource(0, torch.arange(n)))), 2).flatten(1)
    counts = torch.bincount((drawn * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16)
    assert p.min().item() * n > 20
    assert chisquare(counts.double().numpy(), (p / p.sum() * n).numpy()).pvalue > 1e-3


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
