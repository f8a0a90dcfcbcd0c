"""The VAE's bounds against known evidence, and its decoders' normalisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from baselines.latent import vae
from baselines.latent.vae import VAE, VAEConfig
from baselines.nets.observation import OBSERVATIONS, Bernoulli, Categorical, DiscretisedLogistic, Observation
from genbench.api import Batch, ImageSpec, LogLikelihood, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_float, from_levels, levels_to_float, to_levels
from genbench.likelihood import importance
from genbench.noise import NoiseSource

SPEC = ImageSpec(1, 2, 2, levels=17)
SIGMA2 = 0.3
W = torch.tensor([[0.9, 0.0], [0.0, 0.7], [0.4, 0.0], [0.0, -0.5]])
"""(D, Z) with orthogonal columns, so that the true posterior is diagonal."""


class Gaussian:
    """A density of x in [-1, 1] instead of a distribution on levels: its evidence is known."""

    parameters = 1

    def image_log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        x = levels_to_float(levels, SPEC.levels)
        return -0.5 * ((x - output[..., 0]) ** 2 / SIGMA2 + math.log(2 * math.pi * SIGMA2)).flatten(-3).sum(-1)


class Posterior(nn.Module):
    """The true posterior of the linear-Gaussian model, moved by ``shift`` standard deviations and widened."""

    def __init__(self, shift: float = 0.0, widening: float = 1.0) -> None:
        super().__init__()
        self.shift, self.widening = shift, widening

    def forward(self, x: Tensor) -> Tensor:
        M = (W**2).sum(0) + SIGMA2
        mu, variance = x.flatten(1) @ W / M, (SIGMA2 / M).expand(len(x), -1)
        return torch.cat((mu + self.shift * variance.sqrt(), (variance * self.widening**2).log()), dim=1)


def linear_gaussian(shift: float = 0.0, widening: float = 1.0) -> VAE:
    model = VAE(VAEConfig(architecture="mlp", decoder="categorical", latent_dim=2, widths=(4,)), SPEC)
    model.observation = Gaussian()
    model.encoder, model.decoder = Posterior(shift, widening), nn.Linear(2, 4, bias=False)
    model.decoder.weight.data = W.clone()
    return model.eval()


def some_images(count: int = 6, spec: ImageSpec = SPEC, seed: int = 0) -> Batch:
    levels = torch.randint(spec.levels, (count, *spec.shape), generator=torch.Generator().manual_seed(seed))
    return Batch(from_levels(levels, spec.levels), torch.arange(count))


def evidence(batch: Batch) -> np.ndarray:
    C = (W @ W.T + SIGMA2 * torch.eye(4)).double().numpy()
    x = levels_to_float(to_levels(batch.images, SPEC.levels), SPEC.levels).flatten(1).double().numpy()
    return np.atleast_1d(multivariate_normal(np.zeros(4), C).logpdf(x))


def bound(model: VAE, batch: Batch, estimator: str, seed: int = 0) -> LogLikelihood:
    return model.log_likelihood(batch, NoiseSource(seed, batch.index, "likelihood"), estimator)


@pytest.mark.parametrize("estimator", ["iwae-1", "iwae-7", "iwae-500"])
def test_at_the_true_posterior_every_weight_is_the_evidence(estimator: str) -> None:
    batch = some_images()
    found = bound(linear_gaussian(), batch, estimator)
    np.testing.assert_allclose(found.nats.numpy(), evidence(batch), atol=2e-5)
    assert found.standard_error is None or found.standard_error.max() < 1e-5
    assert (found.kind, found.estimator) == ("lower_bound", estimator)


def test_elbo_falls_short_of_the_evidence_by_the_kl_to_the_true_posterior() -> None:
    shift, widening = 0.5, 1.3
    batch = some_images(2)
    many = Batch(batch.images.repeat_interleave(2000, 0), torch.arange(4000))
    found = bound(linear_gaussian(shift, widening), many, "elbo")
    gap = 2 * 0.5 * (shift**2 + widening**2 - 1 - 2 * math.log(widening))
    nats = found.nats.view(2, -1)
    standard_error = nats.std(1) / math.sqrt(2000)
    assert ((nats.mean(1) - torch.from_numpy(evidence(batch) - gap)).abs() < 4.5 * standard_error).all()
    reported = found.standard_error.view(2, -1).square().mean(1).sqrt()
    torch.testing.assert_close(reported, nats.std(1), rtol=0.1, atol=0)


def test_expected_iwae_is_monotone_in_k_and_converges_to_the_evidence() -> None:
    """Means over 4000 repetitions; k = 1 is the ELBO's expectation."""
    batch = some_images(1)
    many = Batch(batch.images.expand(4000, -1, -1, -1), torch.arange(4000))
    model, log_p = linear_gaussian(0.5, 1.3), float(evidence(batch)[0])
    draws = {k: bound(model, many, f"iwae-{k}").nats for k in (1, 4, 16, 128)}
    means = [float(x.mean()) for x in draws.values()]
    errors = [float(x.std()) / math.sqrt(4000) for x in draws.values()]
    assert all(low + 2 * error < high for low, high, error in zip(means[:2], means[1:3], errors[:2], strict=True))
    assert means == sorted(means)
    assert means[-1] - 4 * errors[-1] < log_p < means[-1] + 0.02


def test_iwae_standard_error_matches_the_spread_over_repetitions() -> None:
    batch = some_images(1)
    many = Batch(batch.images.expand(500, -1, -1, -1), torch.arange(500))
    found = bound(linear_gaussian(0.5, 1.3), many, "iwae-64")
    assert float(found.nats.std()) == pytest.approx(float(found.standard_error.mean()), rel=0.15)


def test_chunked_iwae_equals_unchunked(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, model = some_images(), linear_gaussian(0.5, 1.3)
    whole = bound(model, batch, "iwae-50")
    monkeypatch.setattr(importance, "CHUNK_VALUES", 7 * 6 * 4)
    pieces = bound(model, batch, "iwae-50")
    torch.testing.assert_close(pieces.nats, whole.nats, rtol=0, atol=1e-5)
    torch.testing.assert_close(pieces.standard_error, whole.standard_error, rtol=1e-4, atol=1e-6)


def test_bound_of_an_image_does_not_depend_on_its_batch() -> None:
    batch, model = some_images(), linear_gaussian(0.5, 1.3)
    alone = Batch(batch.images[4:5], batch.index[4:5])
    torch.testing.assert_close(
        bound(model, alone, "iwae-50").nats, bound(model, batch, "iwae-50").nats[4:5], rtol=0, atol=1e-5
    )


def test_kl_closed_form_equals_monte_carlo() -> None:
    mu, logvar = torch.tensor([[0.7, -1.2, 0.0]]).double(), torch.tensor([[-1.0, 0.5, 0.0]]).double()
    eps = torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = mu + torch.exp(0.5 * logvar) * eps
    draws = (0.5 * (z**2 - eps**2 - logvar)).sum(-1)
    error = float(draws.std()) / math.sqrt(len(draws))
    assert float(vae.kl_to_standard_normal(mu, logvar)) == pytest.approx(float(draws.mean()), abs=4 * error)


@pytest.mark.parametrize(("observation", "num_levels"), [
    (Categorical(17), 17), (DiscretisedLogistic(2), 2), (DiscretisedLogistic(17), 17), (DiscretisedLogistic(256), 256),
    (Bernoulli(2), 2),
])  # fmt: skip
def test_level_probabilities_sum_to_one(observation: Observation, num_levels: int) -> None:
    """Also for locations outside the range and scales from far below a bin to far above the range."""
    output = torch.randn(300, 1, 1, 1, observation.parameters, generator=torch.Generator().manual_seed(0)) * 3
    levels = torch.arange(num_levels)[:, None, None, None, None].expand(-1, 300, 1, 1, 1)
    log_p = torch.stack([observation.log_prob(output, level) for level in levels])
    assert torch.isfinite(log_p).all()
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones(300, 1, 1, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("observation", "num_levels"), [
    (Categorical(5), 5), (DiscretisedLogistic(5), 5), (Bernoulli(2), 2),
])  # fmt: skip
def test_log_prob_of_an_image_is_the_sum_over_its_values(observation: Observation, num_levels: int) -> None:
    """Also for logits at which a sigmoid underflows, and for several draws of each image."""
    rng = torch.Generator().manual_seed(0)
    output = torch.randn(4, 3, 2, 5, 7, observation.parameters, generator=rng) * 60
    levels = torch.randint(num_levels, (3, 2, 5, 7), generator=rng)
    found = observation.image_log_prob(output, levels)
    assert found.shape == (4, 3)
    torch.testing.assert_close(found, observation.log_prob(output, levels).sum((2, 3, 4)), rtol=1e-5, atol=1e-3)


def test_discretised_logistic_is_the_logistic_mass_of_each_bin() -> None:
    location, log_scale, K = 0.2, -1.5, 17
    output = torch.tensor([location, log_scale]).expand(1, 1, 1, K, 2)
    found = DiscretisedLogistic(K).log_prob(output, torch.arange(K)[None, None, None]).exp().flatten()
    middle = -1 + 2 * np.arange(1, K - 1) / (K - 1)
    cdf = lambda x: 1 / (1 + np.exp(-(x - location) / np.exp(log_scale)))  # noqa: E731
    inside = cdf(middle + 1 / (K - 1)) - cdf(middle - 1 / (K - 1))
    expected = [cdf(-1 + 1 / (K - 1)), *inside, 1 - cdf(1 - 1 / (K - 1))]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)


@pytest.mark.parametrize(("decoder", "levels"), [("categorical", 5), ("discretised_logistic", 5), ("bernoulli", 2)])
def test_draws_follow_the_level_probabilities(decoder: str, levels: int) -> None:
    observation = OBSERVATIONS[decoder](levels)
    one = torch.randn(observation.parameters, generator=torch.Generator().manual_seed(3)) * 0.8
    count = 20_000
    output = one.expand(count, 1, 1, 1, observation.parameters)
    x = observation.draw(output, NoiseSource(0, torch.arange(count)))
    drawn = to_levels(from_float(x, levels), levels).flatten()
    found = torch.bincount(drawn, minlength=levels) / count
    every = torch.arange(levels)[:, None, None, None]
    p = observation.log_prob(output[:levels], every).exp().flatten()
    assert ((found - p).abs() < 4.5 * (p * (1 - p) / count).sqrt() + 1e-6).all()


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_probabilities_of_all_binary_images_sum_to_one(architecture: str) -> None:
    """p(x) of all 2^4 images by quadrature over a one-dimensional latent; ELBO and IWAE lie below it."""
    spec = ImageSpec(1, 2, 2, levels=2)
    torch.manual_seed(0)
    config = VAEConfig(architecture=architecture, decoder="bernoulli", latent_dim=1, widths=(8, 8))
    model = VAE(config, spec).eval()
    for parameter in model.decoder.parameters():
        parameter.data *= 2
    every = torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 1, 2, 2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    log_weight = torch.from_numpy(np.log(weights / weights.sum()))
    z = torch.from_numpy(nodes).float()[:, None, None].expand(-1, 16, 1)
    with torch.no_grad():
        log_p = (model.log_prob_given(z, every).double() + log_weight[:, None]).logsumexp(0)
    assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    many = Batch(from_levels(every, 2).repeat(200, 1, 1, 1), torch.arange(3200))
    elbo, iwae = (bound(model, many, name).nats.view(200, 16) for name in ("elbo", "iwae-50"))
    elbo_error, iwae_error = (x.std(0) / math.sqrt(200) for x in (elbo, iwae))
    assert (elbo.mean(0) < log_p + 4 * elbo_error).all()
    assert (elbo.mean(0) < iwae.mean(0)).all()
    assert ((iwae.mean(0) - log_p).abs() < 4.5 * iwae_error + 0.02).all()


def test_the_config_names_the_bounds() -> None:
    config = VAEConfig(architecture="mlp", decoder="categorical", latent_dim=2, widths=(8,))
    assert VAE(config, SPEC).likelihood_estimators() == ("iwae-500", "elbo")
    several = config.model_copy(update={"importance_draws": (5000, 50)})
    assert VAE(several, SPEC).likelihood_estimators() == ("iwae-5000", "iwae-50", "elbo")


def test_zero_temperature_is_the_decoded_image_and_one_is_the_default() -> None:
    torch.manual_seed(0)
    model = VAE(VAEConfig(architecture="mlp", decoder="categorical", latent_dim=2, widths=(8,)), SPEC).eval()

    def sample(temperature: float | None) -> Tensor:
        noise = NoiseSource(0, torch.arange(20))
        return model.sample(SampleRequest(noise, SamplerOptions(temperature=temperature)))

    z = NoiseSource(0, torch.arange(20)).normal((2,))
    assert torch.equal(sample(0.0), model.decode(z))
    assert torch.equal(sample(1.0), sample(None))
    assert not torch.equal(sample(0.0), sample(1.0))


def test_misfits_are_refused() -> None:
    with pytest.raises(UsageError, match="2 levels, these have 17"):
        VAE(VAEConfig(architecture="mlp", decoder="bernoulli"), SPEC)
    with pytest.raises(UsageError, match="divisible by 4"):
        VAE(VAEConfig(architecture="conv", widths=(8, 8, 8)), SPEC)
    for estimator in ("iwae-0", "iwae", "exact"):
        with pytest.raises(UsageError, match="iwae-K"):
            bound(linear_gaussian(), some_images(), estimator)
