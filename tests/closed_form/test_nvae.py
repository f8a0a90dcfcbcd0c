"""NVAE against evidence that is known: exactly where all is normal, by quadrature on a tiny binary space; its parts."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, multivariate_normal
from torch import Tensor, nn
from torch.distributions import Normal

from baselines.latent.nvae import NVAE, Conv2d, NVAEConfig, balancing, residual_kl
from genbench.api import Batch, ImageSpec, LogLikelihood, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, levels_to_float, to_levels
from genbench.noise import NoiseSource

SPEC = ImageSpec(1, 2, 2, levels=17)
BINARY = ImageSpec(1, 2, 2, levels=2)
EVERY = torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 1, 2, 2)
SMALL = {"channels": 8, "halvings": 1, "groups": (2,), "latent_channels": 1, "expansion": 2}
"""Two groups of one latent each on 2 x 2 images."""
W, A, S2, S_X = torch.tensor([0.9, 0.7, 0.4, -0.5]), 1.3, 0.5, 0.3
"""x | z_2 ~ N(W z_2, S_X I), z_2 | z_1 ~ N(A z_1, S2), z_1 ~ N(0, 1)."""


class Gaussian:
    """A density of x in [-1, 1] instead of a distribution on levels."""

    parameters = 1

    def image_log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        x = levels_to_float(levels, SPEC.levels)
        return -0.5 * ((x - output[..., 0]) ** 2 / S_X + math.log(2 * math.pi * S_X)).flatten(-3).sum(-1)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def before_clamp(*values: Tensor) -> Tensor:
    """The channels whose soft clamp is ``values``."""
    return 5 * torch.atanh(torch.cat(values, dim=1) / 5)


def linear_normal(shift: float = 0.0, widening: float = 1.0) -> NVAE:
    """The exact posterior in both groups, moved by ``shift`` of its deviations and widened.

    The state is the last latent; the features are the image's estimate of z_2, whose variance is S_X / |W|^2. The model
    adds features and state, so the second posterior gets the estimate and the prior's mean as one complex tensor.
    """
    model = NVAE(NVAEConfig(decoder="categorical", **SMALL), SPEC).eval()
    model.observation = Gaussian()
    precision = float(W @ W) / S_X
    model.encoder = Function(lambda x: [(x.flatten(1) @ W / float(W @ W))[:, None, None, None]] * 2)
    v1 = 1 / (1 + A**2 / (S2 + 1 / precision))
    v2 = 1 / (1 / S2 + precision)
    first, second = model.top_down.groups

    def posterior_1(z_hat: Tensor) -> Tensor:
        mu = v1 * A / (S2 + 1 / precision) * z_hat + shift * v1**0.5
        return before_clamp(mu, torch.full_like(mu, math.log(v1**0.5 * widening)))

    def posterior_2(z_hat_and_prior: Tensor) -> Tensor:
        z_hat, mu = z_hat_and_prior.real, z_hat_and_prior.imag
        dmu = v2 * precision * (z_hat - mu) + shift * v2**0.5
        return before_clamp(dmu, torch.full_like(dmu, math.log(v2**0.5 * widening / S2**0.5)))

    first.posterior, second.posterior = Function(posterior_1), Function(posterior_2)
    second.cells = nn.Identity()
    second.prior = Function(lambda z: before_clamp(A * z, torch.full_like(z, math.log(S2**0.5))))
    second.from_state = Function(lambda z: A * z * 1j)
    first.combine = second.combine = Function(lambda both: both[:, -1:])
    model.top_down.post = Function(lambda z: (z.flatten(1) * W).view(-1, 1, 2, 2))
    return model


def evidence(batch: Batch) -> Tensor:
    covariance = ((A**2 + S2) * torch.outer(W, W) + S_X * torch.eye(4)).double().numpy()
    x = levels_to_float(to_levels(batch.images, 17), 17).flatten(1).double().numpy()
    return torch.from_numpy(np.atleast_1d(multivariate_normal(np.zeros(4), covariance).logpdf(x)))


def some_images(count: int = 6) -> Batch:
    levels = torch.randint(17, (count, *SPEC.shape), generator=torch.Generator().manual_seed(0))
    return Batch(from_levels(levels, 17), torch.arange(count))


def repeated(batch: Batch, times: int) -> Batch:
    return Batch(batch.images.repeat(times, 1, 1, 1), torch.arange(times * len(batch)))


def bound(model: NVAE, batch: Batch, estimator: str) -> LogLikelihood:
    return model.log_likelihood(batch, NoiseSource(0, batch.index, "likelihood"), estimator)


@pytest.mark.parametrize("estimator", ["iwae-1", "iwae-30"])
def test_at_the_true_posterior_every_weight_is_the_evidence(estimator: str) -> None:
    batch = some_images()
    found = bound(linear_normal(), batch, estimator)
    torch.testing.assert_close(found.nats, evidence(batch), rtol=0, atol=3e-5)
    assert (found.kind, found.estimator) == ("lower_bound", estimator)


def test_expected_bounds_grow_from_the_elbo_to_the_evidence() -> None:
    batch = some_images(1)
    many, model, log_p = repeated(batch, 3000), linear_normal(0.5, 1.4), float(evidence(batch)[0])
    names = ("elbo", "iwae-1", "iwae-4", "iwae-16", "iwae-128")
    draws = {name: bound(model, many, name).nats for name in names}
    mean = {name: float(nats.mean()) for name, nats in draws.items()}
    error = {name: float(nats.std()) / math.sqrt(3000) for name, nats in draws.items()}
    gap = 2 * 0.5 * (0.5**2 + 1.4**2 - 1 - 2 * math.log(1.4))
    assert mean["iwae-1"] < log_p - 0.5 * gap
    assert mean["elbo"] == pytest.approx(mean["iwae-1"], abs=4 * math.hypot(error["elbo"], error["iwae-1"]))
    for low, high in itertools.pairwise(names[1:4]):
        assert mean[low] + 3 * math.hypot(error[low], error[high]) < mean[high]
    assert mean["iwae-16"] < mean["iwae-128"] < log_p + 4 * error["iwae-128"]
    assert mean["iwae-128"] > log_p - 0.02


def test_residual_kl_is_that_of_torch() -> None:
    rng = torch.Generator().manual_seed(0)
    mu, dmu, log_sigma, log_dsigma = torch.randn(4, 5, 2, 3, 3, generator=rng)
    q, p = Normal(mu + dmu, (log_sigma + log_dsigma).exp()), Normal(mu, log_sigma.exp())
    expected = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(residual_kl(dmu, log_dsigma, log_sigma), expected)


def tiny(settings: dict | None = None, spec: ImageSpec = BINARY) -> NVAE:
    """A model with random weights, large enough that its latents matter."""
    torch.manual_seed(1)
    model = NVAE(NVAEConfig(decoder="bernoulli", **(settings or SMALL)), spec).eval()
    with torch.no_grad():
        for group in model.top_down.groups:
            group.combine.weight *= 4
        model.top_down.post[-1].weight *= 4
    return model


def log_evidence(model: NVAE) -> Tensor:
    """log P of the 16 images by Gauss-Hermite quadrature over both latents, (16,)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    eps = torch.cartesian_prod(*[torch.from_numpy(nodes).float()] * 2)
    log_weight = torch.cartesian_prod(*[torch.from_numpy(np.log(weights / weights.sum()))] * 2).sum(1)
    with torch.no_grad():
        output = model._output(model.top_down(model._split(eps)))
        log_p = model.observation.image_log_prob(output[:, None], EVERY).double()
    return (log_p + log_weight[:, None]).logsumexp(0)


def test_bounds_on_a_tiny_space_are_of_probabilities_that_sum_to_one() -> None:
    model = tiny()
    log_p = log_evidence(model)
    assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(log_p.std()) > 0.3
    many = repeated(Batch(from_levels(EVERY, 2), torch.arange(16)), 30)
    elbo, iwae = (bound(model, many, name).nats.view(30, 16) for name in ("elbo", "iwae-60"))
    assert (elbo.mean(0) < log_p + 4.5 * elbo.std(0) / math.sqrt(30)).all()
    assert ((iwae.mean(0) - log_p).abs() < 4.5 * iwae.std(0) / math.sqrt(30) + 0.01).all()
    assert float(iwae.mean(0).exp().sum()) == pytest.approx(1.0, abs=0.02)


def test_sampling_frequencies_match_the_evidence() -> None:
    model, count = tiny(), 3000
    drawn = to_levels(model.sample(SampleRequest(NoiseSource(3, torch.arange(count)))), 2).view(-1, 4)
    counts = torch.bincount(drawn @ torch.tensor([8, 4, 2, 1]), minlength=16).numpy()
    expected = log_evidence(model).exp().numpy()
    assert chisquare(counts, expected / expected.sum() * count).pvalue > 1e-3
    assert chisquare(counts).pvalue < 1e-6


def test_a_posterior_without_residual_is_the_prior() -> None:
    """Then the KL is zero and a weight is p(x | z) of a path that sampling would take."""
    settings = {**SMALL, "groups": (1, 2), "latent_channels": 2}
    spec = ImageSpec(1, 4, 4, levels=2)
    model = tiny(settings, spec)
    for group in model.top_down.groups:
        nn.init.zeros_(group.posterior[-1].weight)
        nn.init.zeros_(group.posterior[-1].bias)
    images = from_levels(torch.randint(2, (3, 1, 4, 4)), 2)
    eps = torch.randn(3, sum(model.sizes))
    with torch.no_grad():
        features = model.encoder(levels_to_float(to_levels(images, 2), 2))
        inferred, drawn = model.top_down(model._split(eps), features), model.top_down(model._split(eps))
    assert inferred.kl.shape == (3, 3)
    assert inferred.kl.abs().max() == 0
    assert inferred.log_ratio.abs().max() < 1e-5
    torch.testing.assert_close(inferred.output, drawn.output)


def test_every_group_has_the_size_of_its_scale_and_sees_the_image() -> None:
    settings = {**SMALL, "halvings": 1, "groups": (1, 2, 1), "latent_channels": 3}
    model = tiny(settings, ImageSpec(1, 8, 8, levels=2))
    assert model.top_down.shapes == [(3, 1, 1), (3, 2, 2), (3, 2, 2), (3, 4, 4)]
    features = model.encoder(torch.randn(2, 1, 8, 8))
    assert [tuple(f.shape) for f in features] == [(2, 64, 1, 1), (2, 32, 2, 2), (2, 32, 2, 2), (2, 16, 4, 4)]
    x = torch.randn(1, 1, 8, 8, requires_grad=True)
    kl = model.top_down(model._split(torch.randn(1, sum(model.sizes))), model.encoder(x)).kl[0]
    for of_group in kl:
        (slope,) = torch.autograd.grad(of_group, x, retain_graph=True)
        assert slope.abs().max() > 0


def test_spectral_norm_is_the_largest_singular_value_and_so_is_its_gradient() -> None:
    torch.manual_seed(0)
    for layer in (Conv2d(6, 10, 3), Conv2d(8, 8, 5, groups=8)):
        for _ in range(300):
            found = layer.spectral_norm()
        exact = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=0)
        slopes = [torch.autograd.grad(norm, layer.weight, retain_graph=True)[0] for norm in (found, exact)]
        torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-2)


def test_balancing_favours_groups_with_a_large_kl_for_their_size() -> None:
    """Two groups at the coarse scale (a = 1/2 each), one at the fine one (a = 4)."""
    kl = torch.tensor([[1.0, 3.0, 8.0], [3.0, 5.0, 8.0]], requires_grad=True)
    gamma = balancing(kl, (2, 1))
    share = torch.tensor([2.01 / 0.5, 4.01 / 0.5, 8.01 / 4])
    torch.testing.assert_close(gamma, share / share.mean())
    assert not gamma.requires_grad


class Recorder(SimpleNamespace):
    """A training context that keeps the loss."""

    def backward(self, loss: Tensor) -> None:
        self.loss = float(loss.detach())

    def step_optimizer(self, name: str) -> None:
        pass


def test_loss_is_warmed_up_balanced_and_regularised() -> None:
    settings = {**SMALL, "kl_warmup": 0.4}
    batch = Batch(from_levels(EVERY, 2), torch.arange(16))
    eps = torch.randn((16, 2), generator=torch.Generator().manual_seed(0))
    for progress, beta, spectral in ((0.0, 0.0, 0.0), (0.1, 0.25, 0.0), (0.5, 1.0, 0.0), (0.5, 1.0, 0.3)):
        model = tiny({**settings, "spectral": spectral}).train()
        with torch.no_grad():
            distortion, kl = model._negative_elbo(batch.images, eps)
            gamma = balancing(kl, (2,)) if beta < 1 else torch.ones(2)
            penalty = float(tiny({**settings, "spectral": spectral}).regularisation())
        context = Recorder(progress=progress, rng=torch.Generator().manual_seed(0))
        figures = model.update(batch, context)
        expected = distortion.mean() + beta * (gamma * kl).sum(1).mean() + spectral * penalty
        assert context.loss == pytest.approx(float(expected), rel=1e-5)
        assert float(figures["negative_elbo"]) == pytest.approx(float((distortion + kl.sum(1)).mean()), rel=1e-5)
    assert gamma.tolist() == [1.0, 1.0]


def test_temperature_scales_the_deviations_of_the_latents() -> None:
    model = tiny()
    still, eps = torch.zeros(5, 2), torch.randn(5, 2)
    with torch.no_grad():
        frozen = model.top_down(model._split(eps), temperature=0.0)
        halved = model.top_down(model._split(eps), temperature=0.5)
        expected = [model.top_down(model._split(x)) for x in (still, 0.5 * eps)]
    torch.testing.assert_close(frozen.output, expected[0].output)
    torch.testing.assert_close(halved.output, expected[1].output)
    one, default = (
        model.sample(SampleRequest(NoiseSource(0, torch.arange(30)), SamplerOptions(temperature=t)))
        for t in (1.0, None)
    )
    assert torch.equal(one, default)


def test_numbers_and_reconstructions_do_not_depend_on_the_batch() -> None:
    model, batch = tiny(), Batch(from_levels(EVERY, 2), torch.arange(16))
    alone = Batch(batch.images[5:6], batch.index[5:6])
    torch.testing.assert_close(
        bound(model, alone, "iwae-9").nats, bound(model, batch, "iwae-9").nats[5:6], rtol=0, atol=1e-4
    )
    whole = model.reconstruct(batch, NoiseSource(0, batch.index))
    assert torch.equal(model.reconstruct(alone, NoiseSource(9, alone.index)), whole[5:6])


def test_misfits_are_refused() -> None:
    with pytest.raises(UsageError, match="sides divisible by 8, the images are 28 x 28"):
        NVAE(NVAEConfig(halvings=2, groups=(3, 3)), ImageSpec(1, 28, 28))
    with pytest.raises(UsageError, match="2 levels, these have 17"):
        NVAE(NVAEConfig(decoder="bernoulli", **SMALL), SPEC)
    with pytest.raises(UsageError, match="estimator of nvae"):
        bound(tiny(), Batch(from_levels(EVERY, 2), torch.arange(16)), "iwae")
