"""DDPM against what is known in closed form: Bayes' rule on Gaussians and the optimal denoiser of Gaussian data."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from baselines.diffusion.ddpm import (
    DDPM,
    Chain,
    DDPMConfig,
    bound_error,
    discretised_gaussian_log_prob,
    make_chain,
)
from genbench import images
from genbench.api import Batch, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.noise import NoiseSource

SPEC = ImageSpec(channels=1, height=4, width=4, levels=256)
STD = 0.3


class OptimalNetwork(nn.Module):
    """The network of a DDPM that has learned N(0, STD^2 I) perfectly."""

    def __init__(self, chain: Chain, prediction: str) -> None:
        super().__init__()
        self.chain, self.prediction = chain, prediction

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a, s = self.chain.scales(1 + round(float(t[0]) * len(self.chain) / 1000))
        x0 = x * shrinkage(a, s)
        eps = (x - a * x0) / s
        return eps if self.prediction == "eps" else a * eps - s * x0


def shrinkage(a: float, s: float) -> float:
    """E[x0 | xt] / xt for x0 ~ N(0, STD^2)."""
    return a * STD**2 / (a * a * STD**2 + s * s)


def gaussian_model(timesteps: int = 100, **config: object) -> DDPM:
    settings = {"schedule": "cosine", "prediction": "v", "clip_x0": False, **config}
    model = DDPM(DDPMConfig(timesteps=timesteps, channels=2, multipliers=(1,), blocks=1, **settings), SPEC)
    model.network = OptimalNetwork(model.chain, model.config.prediction)
    return model.eval()


def noise(count: int, seed: int = 0) -> NoiseSource:
    return NoiseSource(seed, torch.arange(count))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_marginals_are_compositions_of_one_step_kernels(schedule: str) -> None:
    chain = make_chain(50, schedule)
    scale, variance = 1.0, 0.0
    for i in range(1, 51):
        scale *= math.sqrt(1 - chain.beta(i))
        variance = (1 - chain.beta(i)) * variance + chain.beta(i)
        a, s = chain.scales(i)
        assert (scale, variance) == pytest.approx((a, s * s), rel=1e-9)


@pytest.mark.parametrize("i", [1, 2, 30, 50])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_posterior_is_bayes_rule(schedule: str, i: int) -> None:
    chain = make_chain(50, schedule)
    c0, ct, variance = chain.posterior(i)
    prior_scale, prior_std = chain.scales(i - 1)
    if i == 1:
        assert (c0, ct, variance) == pytest.approx((1, 0, 0))
        return
    precision = 1 / prior_std**2 + (1 - chain.beta(i)) / chain.beta(i)
    assert variance == pytest.approx(1 / precision)
    assert c0 == pytest.approx(prior_scale / prior_std**2 / precision)
    assert ct == pytest.approx(math.sqrt(1 - chain.beta(i)) / chain.beta(i) / precision)


def test_linear_schedule_is_the_papers() -> None:
    chain = make_chain(1000, "linear")
    assert [chain.beta(1), chain.beta(1000)] == pytest.approx([1e-4, 0.02])
    assert chain.alphas_cumprod[-1] == pytest.approx(4.0358e-5, rel=1e-4)


@pytest.mark.parametrize("steps", [1, 7, 33, 100])
def test_respaced_chain_keeps_the_marginals_of_its_times(steps: int) -> None:
    full = make_chain(100, "cosine")
    chain = full.respaced(steps)
    assert len(chain) == steps
    assert (chain.times[0], chain.times[-1]) == (0, 100)
    assert list(chain.alphas_cumprod) == [full.alphas_cumprod[t] for t in chain.times]
    kept = torch.tensor([1 - chain.beta(i) for i in range(1, steps + 1)], dtype=torch.float64).cumprod(0)
    assert kept.tolist() == pytest.approx(list(chain.alphas_cumprod[1:]))


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("t", [1, 40, 90])
def test_the_training_target_is_turned_back_into_x0_and_eps(prediction: str, t: int) -> None:
    model = gaussian_model(prediction=prediction)
    x0, eps = noise(5).normal(SPEC.shape), noise(5, seed=1).normal(SPEC.shape)
    a, s = model.chain.scales(t)
    target = eps if prediction == "eps" else a * eps - s * x0
    model.network = Constant(target)
    assert model.simple_loss(x0, torch.full((5,), t), eps).max() < 1e-12
    estimate, noise_estimate = model.denoise(a * x0 + s * eps, t)
    torch.testing.assert_close(estimate, x0, atol=2e-4, rtol=0)
    torch.testing.assert_close(noise_estimate, eps, atol=2e-4, rtol=0)


class Constant(nn.Module):
    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.output.expand_as(x)


def test_clipped_estimates_still_explain_xt() -> None:
    model = gaussian_model(clip_x0=True)
    xt = 8 * noise(3).normal(SPEC.shape)
    x0, eps = model.denoise(xt, 50)
    a, s = model.chain.scales(50)
    assert x0.abs().max() == 1
    torch.testing.assert_close(a * x0 + s * eps, xt)


@pytest.mark.parametrize("variance", ["beta", "posterior"])
@pytest.mark.parametrize("steps", [10, 100])
def test_ancestral_variance_on_gaussian_data(variance: str, steps: int) -> None:
    model = gaussian_model(reverse_variance=variance)
    x = images.to_float(model.sample(SampleRequest(noise(2000), SamplerOptions(steps=steps))), SPEC.levels)
    expected = ancestral_variance(model, steps)
    assert x.mean().item() == pytest.approx(0, abs=4 * STD / math.sqrt(x.numel()))
    assert x.var().item() == pytest.approx(expected, rel=4 * math.sqrt(2 / x.numel()))


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_ancestral_variance_tends_to_the_datas(variance: str) -> None:
    errors = [abs(ancestral_variance(gaussian_model(400, reverse_variance=variance), n) - STD**2) for n in (100, 400)]
    assert errors[1] < 0.33 * errors[0]


def ancestral_variance(model: DDPM, steps: int) -> float:
    """Variance of x_0 when x_{i-1} = (c0 k + ct) x_i + sigma_i z: a recursion."""
    chain, variance = model.chain.respaced(steps), 1.0
    for i in range(steps, 0, -1):
        c0, ct, posterior = chain.posterior(i)
        sigma2 = chain.beta(i) if model.config.reverse_variance == "beta" else posterior
        variance = (c0 * shrinkage(*chain.scales(i)) + ct) ** 2 * variance + (sigma2 if i > 1 else 0.0)
    return variance


def test_ddim_converges_to_the_probability_flow_at_first_order() -> None:
    model = gaussian_model(1600)
    z = noise(4).normal(SPEC.shape)
    a, s = model.chain.scales(1600)
    exact = z * STD / math.sqrt((a * STD) ** 2 + s * s)
    errors = [(model.ddim(z, model.chain.respaced(n)) - exact).abs().max().item() for n in (50, 100, 200)]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.2)


def test_ddim_inverse_leads_back() -> None:
    model = gaussian_model(400)
    x0 = STD * noise(4).normal(SPEC.shape)
    chain = model.chain.respaced(400)
    z = model.ddim_inverse(x0, chain)
    assert (z / x0).mean().item() == pytest.approx(1 / STD, rel=0.03)
    torch.testing.assert_close(model.ddim(z, chain), x0, atol=0.02, rtol=0)


@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_all_steps_are_the_default(solver: str) -> None:
    model = gaussian_model(20)
    default = model.sample(SampleRequest(noise(3), SamplerOptions(solver=solver)))
    assert torch.equal(default, model.sample(SampleRequest(noise(3), SamplerOptions(solver=solver, steps=20))))
    assert not torch.equal(default, model.sample(SampleRequest(noise(3), SamplerOptions(solver=solver, steps=5))))


def test_default_solver_is_ancestral() -> None:
    model = gaussian_model(20)
    ancestral = model.sample(SampleRequest(noise(3), SamplerOptions(solver="ddpm")))
    assert torch.equal(ancestral, model.sample(SampleRequest(noise(3))))


@pytest.mark.parametrize("options", [SamplerOptions(steps=21), SamplerOptions(solver="ddmp")])
def test_impossible_options_are_refused(options: SamplerOptions) -> None:
    with pytest.raises(UsageError):
        gaussian_model(20).sample(SampleRequest(noise(1), options))


def test_a_size_that_does_not_halve_is_refused() -> None:
    with pytest.raises(UsageError, match="divisible by 4"):
        DDPM(DDPMConfig(channels=2, multipliers=(1, 1, 1)), ImageSpec(1, 6, 6))


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("std", [0.004, 0.1, 3.0])
def test_decoder_is_a_distribution_over_levels(levels: int, std: float) -> None:
    mean = torch.tensor([[-1.4], [-0.9], [0.013], [0.5], [1.0]])
    k = torch.arange(levels).expand(5, levels)
    total = discretised_gaussian_log_prob(k, mean.expand(5, levels), std, levels).logsumexp(1)
    torch.testing.assert_close(total, torch.zeros(5, dtype=torch.float64), atol=1e-9, rtol=0)


def test_decoder_is_finite_and_symmetric_far_from_the_mean() -> None:
    k, mean = torch.arange(17), torch.full((17,), 0.97)
    log_prob = discretised_gaussian_log_prob(k, mean, 0.004, 17)
    assert torch.isfinite(log_prob).all()
    torch.testing.assert_close(discretised_gaussian_log_prob(16 - k, -mean, 0.004, 17), log_prob)


def gaussian_batch(count: int, repeats: int = 1) -> tuple[Batch, Tensor]:
    x0 = STD * noise(count, seed=5).normal(SPEC.shape).repeat_interleave(repeats, 0)
    stored = images.from_float(x0, SPEC.levels)
    return Batch(images=stored, index=torch.arange(len(stored))), images.to_float(stored, SPEC.levels)


@pytest.mark.parametrize("variance", ["beta", "posterior"])
@pytest.mark.parametrize("timesteps", [2, 50])
def test_bound_is_the_closed_form(variance: str, timesteps: int) -> None:
    model = gaussian_model(timesteps, reverse_variance=variance)
    batch, x0 = gaussian_batch(1, repeats=2000)
    bound = model.log_likelihood(batch, noise(2000, seed=2), "vlb").nats
    expected = expected_bound(model, x0[:1]).item()
    assert bound.mean().item() == pytest.approx(expected, abs=4 * bound.std().item() / math.sqrt(2000))


def expected_bound(model: DDPM, x0: Tensor) -> Tensor:
    """(B,) nats: KLs of scalar Gaussians, with E|x0 - k xt|^2 = (1 - k a)^2 x0^2 + (k s)^2 over draws of xt."""
    timesteps, square = len(model.chain), x0.double().square()
    total = expected_decoder(model, x0)
    for t in range(2, timesteps + 1):
        a, s = model.chain.scales(t)
        k = shrinkage(a, s)
        c0, _, posterior = model.chain.posterior(t)
        sigma2 = model.chain.beta(t) if model.config.reverse_variance == "beta" else posterior
        error = (1 - k * a) ** 2 * square + (k * s) ** 2
        total += 0.5 * (posterior / sigma2 - 1 - math.log(posterior / sigma2) + c0**2 * error / sigma2)
    a, s = model.chain.scales(timesteps)
    total += 0.5 * (a * a * square + s * s - 1 - math.log(s * s))
    return -total.sum(dim=(1, 2, 3))


def expected_decoder(model: DDPM, x0: Tensor) -> Tensor:
    """E -log p(x0 | x1), as x0, by averaging over a grid of quantiles of eps."""
    a, s = model.chain.scales(1)
    eps = torch.special.ndtri((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
    mean = shrinkage(a, s) * (a * x0[..., None].double() + s * eps)
    sigma2 = model.chain.beta(1) if model.config.reverse_variance == "beta" else model.chain.posterior(2)[2]
    levels = images.float_to_levels(x0, SPEC.levels)[..., None].expand(mean.shape)
    return -discretised_gaussian_log_prob(levels, mean, math.sqrt(sigma2), SPEC.levels).mean(-1)


def test_prior_term_is_the_kl_to_a_standard_normal() -> None:
    model = gaussian_model(2)
    a, s = model.chain.scales(2)
    x0 = noise(3).normal(SPEC.shape).double()
    standard = torch.distributions.Normal(torch.zeros_like(x0), 1.0)
    kl = torch.distributions.kl_divergence(torch.distributions.Normal(a * x0, s), standard)
    torch.testing.assert_close(model.prior_term(x0), kl.sum(dim=(1, 2, 3)), rtol=1e-9, atol=0)


def test_likelihood_counts_the_prior_term() -> None:
    model = gaussian_model(20)
    batch, _ = gaussian_batch(3)
    with_prior = model.log_likelihood(batch, noise(3), "vlb").nats
    model.prior_term = lambda x0: torch.full((len(x0),), 100.0)  # type: ignore[method-assign]
    torch.testing.assert_close(model.log_likelihood(batch, noise(3), "vlb").nats, with_prior - 100, atol=0.01, rtol=0)


def test_bound_tends_to_the_true_likelihood() -> None:
    """With the optimal denoiser and sigma^2 = beta, only the discretisation of time is lost, in proportion to 1 / T."""
    _, x0 = gaussian_batch(50)
    log_density = -0.5 * (x0.double() / STD).square() - math.log(STD * math.sqrt(2 * math.pi))
    truth = log_density.sum(dim=(1, 2, 3)) + images.unit_bin_log_offset(SPEC.dims, SPEC.levels)
    gaps = []
    for timesteps in (100, 200, 400):
        model = gaussian_model(timesteps, reverse_variance="beta")
        gaps.append((truth - expected_bound(model, x0)).mean().item() / SPEC.dims)
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.3)
    assert gaps[1] / gaps[2] == pytest.approx(2, abs=0.3)


def test_standard_error_is_the_spread_of_fresh_estimates() -> None:
    model = gaussian_model(100)
    batch, _ = gaussian_batch(20, repeats=200)
    result = model.log_likelihood(batch, noise(4000, seed=4), "vlb")
    assert result.standard_error is not None
    observed = result.nats.reshape(20, 200).var(1).mean().sqrt().item()
    assert result.standard_error.square().mean().sqrt().item() == pytest.approx(observed, rel=0.1)


@pytest.mark.parametrize("count", [0, 1, 16])
def test_error_of_independent_draws_is_unbiased(count: int) -> None:
    generator = torch.Generator().manual_seed(0)
    terms, repeats = (torch.randn(n, 5000, generator=generator, dtype=torch.float64) for n in (100, count))
    expected = count / 2 + (100 - count)
    assert bound_error(terms, repeats).square().mean().item() == pytest.approx(expected, rel=0.03)
