"""The ladder VAE against evidence that is known: exactly where all is normal, by quadrature on a tiny binary space."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, multivariate_normal
from torch import Tensor, nn
from torch.distributions import Normal as TorchNormal

from baselines.latent.ladder_vae import LadderVAE, LadderVAEConfig, Normal, combine, kl_divergence
from genbench.api import Batch, ImageSpec, LogLikelihood, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, levels_to_float, to_levels
from genbench.noise import NoiseSource

SPEC = ImageSpec(1, 2, 2, levels=17)
BINARY = ImageSpec(1, 2, 2, levels=2)
EVERY = torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 1, 2, 2)
W, A, S1, S_X = torch.tensor([0.9, 0.7, 0.4, -0.5]), 1.3, 0.5, 0.3
"""x | z_1 ~ N(W z_1, S_X I), z_1 | z_2 ~ N(A z_2, S1), z_2 ~ N(0, 1)."""


class Gaussian:
    """A density of x in [-1, 1] instead of a distribution on levels."""

    parameters = 1

    def image_log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        x = levels_to_float(levels, SPEC.levels)
        return -0.5 * ((x - output[..., 0]) ** 2 / S_X + math.log(2 * math.pi * S_X)).flatten(-3).sum(-1)


class Evidence(nn.Module):
    """What the image says of each level: exact, or moved and widened."""

    def __init__(self, shift: float, widening: float) -> None:
        super().__init__()
        self.shift, self.widening = shift, widening

    def forward(self, x: Tensor) -> list[Normal]:
        v1 = S_X / float(W @ W)
        mu1 = (x.flatten(1) @ W / float(W @ W))[:, None]
        v2 = 1 / (1 + A**2 / (S1 + v1))
        mu2 = v2 * A / (S1 + v1) * mu1
        moved = [(mu1, v1), (mu2, v2)]
        return [Normal(mu + self.shift * v**0.5, torch.full_like(mu, v * self.widening**2)) for mu, v in moved]


class Prior(nn.Module):
    def forward(self, z: Tensor) -> Normal:
        return Normal(A * z, torch.full_like(z, S1))


def linear_normal(shift: float = 0.0, widening: float = 1.0) -> LadderVAE:
    model = LadderVAE(LadderVAEConfig(decoder="categorical", latent_dims=(1, 1), widths=(4, 4)), SPEC).eval()
    model.observation, model.upward = Gaussian(), Evidence(shift, widening)
    model.downward.layers = nn.ModuleList([nn.Identity(), nn.Identity()])
    model.downward.heads = nn.ModuleList([Prior()])
    model.downward.output = nn.Linear(1, 4, bias=False)
    model.downward.output.weight.data = W[:, None].clone()
    return model


def evidence(batch: Batch) -> Tensor:
    covariance = (A**2 + S1) * torch.outer(W, W) + S_X * torch.eye(4)
    x = levels_to_float(to_levels(batch.images, 17), 17).flatten(1).double().numpy()
    return torch.from_numpy(np.atleast_1d(multivariate_normal(np.zeros(4), covariance.double().numpy()).logpdf(x)))


def some_images(count: int = 6) -> Batch:
    levels = torch.randint(17, (count, *SPEC.shape), generator=torch.Generator().manual_seed(0))
    return Batch(from_levels(levels, 17), torch.arange(count))


def repeated(batch: Batch, times: int) -> Batch:
    return Batch(batch.images.repeat(times, 1, 1, 1), torch.arange(times * len(batch)))


def bound(model: LadderVAE, batch: Batch, estimator: str) -> LogLikelihood:
    return model.log_likelihood(batch, NoiseSource(0, batch.index, "likelihood"), estimator)


@pytest.mark.parametrize("estimator", ["elbo", "iwae-1", "iwae-30"])
def test_inference_is_exact_where_the_model_is_linear_and_normal(estimator: str) -> None:
    """Precision weighting is Bayes' rule: every draw's weight is the evidence, and the ELBO is in expectation."""
    batch = some_images()
    found = bound(linear_normal(), batch, estimator)
    if estimator != "elbo":
        torch.testing.assert_close(found.nats, evidence(batch), rtol=0, atol=3e-5)
        assert (found.kind, found.estimator) == ("lower_bound", estimator)
        return
    many = bound(linear_normal(), repeated(batch, 500), estimator).nats.view(500, 6)
    assert ((many.mean(0) - evidence(batch)).abs() < 4.5 * many.std(0) / math.sqrt(500)).all()


def test_expected_bounds_grow_from_the_elbo_to_the_evidence() -> None:
    batch = some_images(1)
    many, model, log_p = repeated(batch, 4000), linear_normal(0.5, 1.4), float(evidence(batch)[0])
    names = ("elbo", "iwae-1", "iwae-4", "iwae-16", "iwae-128")
    draws = {name: bound(model, many, name).nats for name in names}
    mean = {name: float(nats.mean()) for name, nats in draws.items()}
    error = {name: float(nats.std()) / math.sqrt(4000) for name, nats in draws.items()}
    assert mean["elbo"] == pytest.approx(mean["iwae-1"], abs=4 * math.hypot(error["elbo"], error["iwae-1"]))
    for low, high in itertools.pairwise(names[1:4]):
        assert mean[low] + 3 * math.hypot(error[low], error[high]) < mean[high]
    assert mean["iwae-16"] < mean["iwae-128"] < log_p + 4 * error["iwae-128"]
    assert mean["iwae-128"] > log_p - 0.02


def test_kl_is_listed_by_level_from_the_image_upwards() -> None:
    """The top level's does not depend on the draw: it is that of q(z_2 | x) to a standard normal."""
    batch, model = some_images(), linear_normal()
    top = model.upward(levels_to_float(to_levels(batch.images, 17), 17))[1]
    for seed in (0, 1):
        eps = torch.randn((6, 2), generator=torch.Generator().manual_seed(seed))
        _, kl = model._negative_elbo(batch.images, eps)
        expected = 0.5 * (top.mean**2 + top.variance - 1 - torch.log(top.variance))[:, 0]
        torch.testing.assert_close(kl[:, 1], expected)
        assert not torch.allclose(kl[:, 0], expected, atol=0.1)


def test_combination_is_the_normalised_product_of_the_densities() -> None:
    a, b = (Normal(torch.tensor([[0.7]]), torch.tensor([[v]])) for v in (0.4, 1.5))
    b = b._replace(mean=torch.tensor([[-1.1]]))
    z = torch.linspace(-6, 6, 4001)
    product = sum(TorchNormal(n.mean[0, 0], n.variance[0, 0].sqrt()).log_prob(z) for n in (a, b)).exp()
    q = combine(a, b)
    expected = TorchNormal(q.mean[0, 0], q.variance[0, 0].sqrt()).log_prob(z).exp()
    torch.testing.assert_close(product / torch.trapezoid(product, z), expected, rtol=1e-4, atol=1e-5)


def test_kl_is_that_of_torch() -> None:
    rng = torch.Generator().manual_seed(0)
    q, p = (Normal(torch.randn(5, 3, generator=rng), torch.rand(5, 3, generator=rng) + 0.1) for _ in range(2))
    expected = torch.distributions.kl_divergence(*(TorchNormal(n.mean, n.variance.sqrt()) for n in (q, p))).sum(-1)
    torch.testing.assert_close(kl_divergence(q, p), expected)


def tiny(latent_dims: tuple[int, ...] = (1, 1)) -> LadderVAE:
    """A model of 2 x 2 binary images with random weights, its running averages moved off their start.

    Its posteriors are wide, so that a few hundred draws find the evidence.
    """
    torch.manual_seed(0)
    config = LadderVAEConfig(decoder="bernoulli", latent_dims=latent_dims, widths=(8,) * len(latent_dims))
    model = LadderVAE(config, BINARY)
    with torch.no_grad():
        for parameter in model.downward.parameters():
            parameter *= 1.5
        for head in model.upward.heads:
            head.linear.weight *= 0.3
            head.linear.bias[head.linear.out_features // 2 :] = 1.0
        for _ in range(20):
            eps = torch.randn(64, sum(latent_dims))
            model._negative_elbo(from_levels(EVERY, 2).repeat(4, 1, 1, 1), eps)
    return model.eval()


def log_evidence(model: LadderVAE) -> Tensor:
    """log P of the 16 images by Gauss-Hermite quadrature over both latents, (16,)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    eps = torch.cartesian_prod(*[torch.from_numpy(nodes).float()] * 2)
    log_weight = torch.cartesian_prod(*[torch.from_numpy(np.log(weights / weights.sum()))] * 2).sum(1)
    with torch.no_grad():
        output = model._output(model.downward((eps[:, :1], eps[:, 1:])))
        log_p = model.observation.image_log_prob(output[:, None], EVERY).double()
    return (log_p + log_weight[:, None]).logsumexp(0)


def test_bounds_on_a_tiny_space_are_of_probabilities_that_sum_to_one() -> None:
    model = tiny()
    log_p = log_evidence(model)
    assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(log_p.std()) > 0.3
    many = repeated(Batch(from_levels(EVERY, 2), torch.arange(16)), 100)
    elbo, iwae = (bound(model, many, name).nats.view(100, 16) for name in ("elbo", "iwae-200"))
    assert (elbo.mean(0) < log_p + 4.5 * elbo.std(0) / 10).all()
    assert ((iwae.mean(0) - log_p).abs() < 4.5 * iwae.std(0) / 10 + 0.01).all()
    assert float(iwae.mean(0).exp().sum()) == pytest.approx(1.0, abs=0.01)


def test_sampling_frequencies_match_the_evidence() -> None:
    model, count = tiny(), 6000
    drawn = to_levels(model.sample(SampleRequest(NoiseSource(3, torch.arange(count)))), 2).view(-1, 4)
    counts = torch.bincount(drawn @ torch.tensor([8, 4, 2, 1]), minlength=16).numpy()
    expected = log_evidence(model).exp().numpy()
    assert chisquare(counts, expected / expected.sum() * count).pvalue > 1e-3
    assert chisquare(counts).pvalue < 1e-6


def test_warm_up_weighs_the_kl_alone() -> None:
    model = tiny((2, 3, 2))
    batch = Batch(from_levels(EVERY, 2), torch.arange(16))
    losses = {}
    for progress in (0.0, 0.05, 0.1, 0.7):
        context = SimpleNamespace(
            progress=progress, rng=torch.Generator().manual_seed(0), step_optimizer=lambda name: None
        )
        context.backward = lambda loss, progress=progress: losses.__setitem__(progress, float(loss.detach()) * 4)
        figures = model.update(batch, context)
    kl = sum(float(figures[f"kl_{i}"]) for i in (1, 2, 3))
    assert kl > 0.01
    distortion = float(figures["negative_elbo"]) - kl
    for progress, beta in ((0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.7, 1.0)):
        assert losses[progress] == pytest.approx(distortion + beta * kl, abs=1e-4)


def test_numbers_and_reconstructions_do_not_depend_on_the_batch() -> None:
    model = tiny((3, 2))
    batch = Batch(from_levels(EVERY, 2), torch.arange(16))
    alone = Batch(batch.images[5:6], batch.index[5:6])
    torch.testing.assert_close(
        bound(model, alone, "iwae-9").nats, bound(model, batch, "iwae-9").nats[5:6], rtol=0, atol=1e-5
    )
    whole = model.reconstruct(batch, NoiseSource(0, batch.index))
    assert torch.equal(model.reconstruct(alone, NoiseSource(9, alone.index)), whole[5:6])


def test_reconstruction_decodes_the_posterior_means() -> None:
    """In the linear model the mean of z_1 at the mean of z_2 is the mean of the exact posterior."""
    batch = some_images()
    model = linear_normal()
    model.observation.centre = lambda output: output[..., 0]
    x = levels_to_float(to_levels(batch.images, 17), 17).flatten(1)
    variance = 1 / (1 / (A**2 + S1) + float(W @ W) / S_X)
    expected = (x @ W / S_X * variance)[:, None] * W
    found = levels_to_float(to_levels(model.reconstruct(batch, NoiseSource(0, batch.index)), 17), 17).flatten(1)
    assert (found - expected.clamp(-1, 1)).abs().max() <= 1 / 16 + 1e-5


def test_zero_temperature_shows_the_central_image() -> None:
    model = tiny((3, 2))
    asked = [SampleRequest(NoiseSource(0, torch.arange(40)), SamplerOptions(temperature=t)) for t in (0.0, 1.0, None)]
    cold, one, default = (model.sample(request) for request in asked)
    eps = NoiseSource(0, torch.arange(40)).normal((5,))
    with torch.no_grad():
        logits = model._output(model.downward(model._split(eps)))[..., 0]
    assert torch.equal(cold == 255, logits > 0)
    assert torch.equal(one, default)
    assert not torch.equal(cold, one)


def test_misfits_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 levels .* need as many hidden layers, got widths = \[8, 8\]"):
        LadderVAE(LadderVAEConfig(latent_dims=(4, 3, 2), widths=(8, 8)), BINARY)
    with pytest.raises(UsageError, match="2 levels, these have 17"):
        LadderVAE(LadderVAEConfig(latent_dims=(2,), widths=(8,)), SPEC)
    for estimator in ("iwae-0", "exact"):
        with pytest.raises(UsageError, match="estimator of ladder_vae"):
            bound(linear_normal(), some_images(), estimator)
