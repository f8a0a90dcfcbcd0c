"""The conditional VAE's bound on log p(x) against known evidence, and its samples against the classes asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from baselines.latent.conditional_vae import ConditionalVAE, ConditionalVAEConfig
from genbench.api import Batch, Condition, ImageSpec, LogLikelihood, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_float, from_levels, levels_to_float, to_levels
from genbench.likelihood import importance
from genbench.noise import NoiseSource

SPEC = ImageSpec(1, 2, 2, levels=17, class_names=("a", "b", "c"))
SIGMA2 = 0.3
W = torch.tensor([[0.9, 0.0], [0.0, 0.7], [0.4, 0.0], [0.0, -0.5]])
"""(D, Z) with orthogonal columns, so that the true posterior is diagonal."""
CENTRES = torch.tensor([[0.5, 0.5, -0.5, 0.5], [-0.5, 0.5, 0.5, 0.5], [0.0, -0.5, 0.0, -0.5]])
"""(C, D): the image of z = 0 for each class."""


class Gaussian:
    """A density of x in [-1, 1] instead of a distribution on levels: its evidence is known."""

    parameters = 1

    def image_log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        x = levels_to_float(levels, SPEC.levels)
        return -0.5 * ((x - output[..., 0]) ** 2 / SIGMA2 + math.log(2 * math.pi * SIGMA2)).flatten(-3).sum(-1)


class Posterior(nn.Module):
    """The true posterior of z given image and class, moved by ``shift`` standard deviations and widened."""

    def __init__(self, shift: float = 0.0, widening: float = 1.0) -> None:
        super().__init__()
        self.shift, self.widening = shift, widening

    def forward(self, told: Tensor) -> Tensor:
        x, y = told[:, :4], told[:, 4:]
        M = (W**2).sum(0) + SIGMA2
        mu, variance = (x - y @ CENTRES) @ W / M, (SIGMA2 / M).expand(len(x), -1)
        return torch.cat((mu + self.shift * variance.sqrt(), (variance * self.widening**2).log()), dim=1)


def linear_gaussian(shift: float = 0.0, widening: float = 1.0) -> ConditionalVAE:
    """x = W z + centre of its class + noise."""
    config = ConditionalVAEConfig(architecture="mlp", decoder="categorical", latent_dim=2, widths=(4,))
    model = ConditionalVAE(config, SPEC)
    model.observation = Gaussian()
    model.encoder, model.decoder = Posterior(shift, widening), nn.Linear(2 + 3, 4, bias=False)
    model.decoder.weight.data = torch.cat((W, CENTRES.T), dim=1)
    return model.eval()


def small(spec: ImageSpec = SPEC, seed: int = 0, **config: object) -> ConditionalVAE:
    torch.manual_seed(seed)
    settings = {"architecture": "mlp", "decoder": "categorical", "latent_dim": 2, "widths": (8,), **config}
    return ConditionalVAE(ConditionalVAEConfig(**settings), spec).eval()


def some_images(count: int = 6, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    levels = torch.randint(SPEC.levels, (count, *SPEC.shape), generator=generator)
    return Batch(from_levels(levels, SPEC.levels), torch.arange(count), torch.arange(count) % 3)


def log_p_given(batch: Batch) -> np.ndarray:
    """(C, B) log p(x | y)."""
    C = (W @ W.T + SIGMA2 * torch.eye(4)).double().numpy()
    x = levels_to_float(to_levels(batch.images, SPEC.levels), SPEC.levels).flatten(1).double().numpy()
    return np.stack([np.atleast_1d(multivariate_normal(m, C).logpdf(x)) for m in CENTRES.double().numpy()])


def evidence(batch: Batch) -> np.ndarray:
    return logsumexp(log_p_given(batch), axis=0) - math.log(3)


def repeated(batch: Batch, times: int) -> Batch:
    assert batch.labels is not None
    return Batch(
        batch.images.repeat_interleave(times, 0),
        torch.arange(times * len(batch)),
        batch.labels.repeat_interleave(times),
    )


def bound(model: ConditionalVAE, batch: Batch, estimator: str, seed: int = 0) -> LogLikelihood:
    return model.log_likelihood(batch, NoiseSource(seed, batch.index, "likelihood"), estimator)


@pytest.mark.parametrize("estimator", ["iwae-3", "iwae-21", "iwae-501"])
def test_at_the_true_posterior_the_bound_is_the_evidence_over_all_classes(estimator: str) -> None:
    batch = some_images()
    found = bound(linear_gaussian(), batch, estimator)
    np.testing.assert_allclose(found.nats.numpy(), evidence(batch), atol=2e-5)
    assert found.standard_error is None or found.standard_error.max() < 1e-5
    assert (found.kind, found.estimator) == ("lower_bound", estimator)


def test_bound_does_not_look_at_the_labels() -> None:
    batch, model = some_images(), linear_gaussian(0.5, 1.3)
    without = bound(model, Batch(batch.images, batch.index), "iwae-30")
    assert torch.equal(bound(model, batch, "iwae-30").nats, without.nats)


def test_expected_bound_is_monotone_in_k_and_converges_to_the_evidence() -> None:
    one = some_images(1)
    many, model, log_p = repeated(one, 4000), linear_gaussian(0.5, 1.3), float(evidence(one)[0])
    draws = {k: bound(model, many, f"iwae-{3 * k}").nats for k in (1, 4, 16, 128)}
    means = [float(x.mean()) for x in draws.values()]
    errors = [float(x.std()) / math.sqrt(4000) for x in draws.values()]
    assert all(low + 2 * error < high for low, high, error in zip(means[:2], means[1:3], errors[:2], strict=True))
    assert means == sorted(means)
    assert means[-1] - 4 * errors[-1] < log_p < means[-1] + 0.02


def test_standard_error_matches_the_spread_over_repetitions() -> None:
    """Also where two classes share the image: their draws are strata, not one sample."""
    batch = some_images(4)
    share = np.exp(log_p_given(batch) - logsumexp(log_p_given(batch), axis=0)).max(0)
    assert share.min() < 0.7 < share.max()
    found = bound(linear_gaussian(0.5, 1.3), repeated(batch, 300), "iwae-96")
    spread = found.nats.view(4, -1).std(1)
    torch.testing.assert_close(found.standard_error.view(4, -1).mean(1), spread, rtol=0.2, atol=0)


def test_every_draw_goes_with_the_class_of_its_image() -> None:
    model, batch = linear_gaussian(), some_images(5)
    assert batch.labels is not None
    levels = to_levels(batch.images, SPEC.levels)
    z = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(1))
    together = model.log_prob_given(z, batch.labels, levels)
    for i in range(5):
        alone = model.log_prob_given(z[:, i : i + 1], batch.labels[i : i + 1], levels[i : i + 1])
        torch.testing.assert_close(together[:, i], alone[:, 0])


def test_validation_figure_is_the_elbo_of_the_class_that_is_given() -> None:
    """At the true posterior the ELBO is log p(x | y)."""
    batch = some_images(3)
    many = repeated(batch, 3000)
    figures = linear_gaussian().validate(many, NoiseSource(0, many.index, "validation")).view(3, -1)
    error = figures.std(1).numpy() / math.sqrt(3000)
    expected = -log_p_given(batch)[np.arange(3) % 3, np.arange(3)]
    assert (np.abs(figures.mean(1).numpy() - expected) < 4.5 * error).all()


def test_chunked_and_split_batches_give_the_same_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, model = some_images(), linear_gaussian(0.5, 1.3)
    whole = bound(model, batch, "iwae-51")
    alone = bound(model, Batch(batch.images[4:5], batch.index[4:5]), "iwae-51")
    torch.testing.assert_close(alone.nats, whole.nats[4:5], rtol=0, atol=1e-5)
    monkeypatch.setattr(importance, "CHUNK_VALUES", 7 * 6 * 4)
    pieces = bound(model, batch, "iwae-51")
    torch.testing.assert_close(pieces.nats, whole.nats, rtol=0, atol=1e-5)
    torch.testing.assert_close(pieces.standard_error, whole.standard_error, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_probabilities_of_all_binary_images_sum_to_one(architecture: str) -> None:
    """p(x) of all 2^4 images, by quadrature over a one-dimensional latent and a sum over classes; IWAE meets it."""
    spec = ImageSpec(1, 2, 2, levels=2, class_names=("a", "b"))
    model = small(spec, architecture=architecture, decoder="bernoulli", latent_dim=1, widths=(8, 8))
    for parameter in model.decoder.parameters():
        parameter.data *= 2
    every = torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 1, 2, 2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    log_weight = torch.from_numpy(np.log(weights / weights.sum()))[:, None]
    z = torch.from_numpy(nodes).float()[:, None, None].expand(-1, 16, 1)
    with torch.no_grad():
        given = [model.log_prob_given(z, torch.full((16,), y), every).double() + log_weight for y in (0, 1)]
    assert [float(g.exp().sum()) for g in given] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert not torch.allclose(given[0].logsumexp(0), given[1].logsumexp(0), atol=0.01), "the class makes no difference"
    log_p = torch.cat(given).logsumexp(0) - math.log(2)
    many = Batch(from_levels(every, 2).repeat(40, 1, 1, 1), torch.arange(640))
    iwae = bound(model, many, "iwae-60").nats.view(40, 16)
    assert ((iwae.mean(0) - log_p).abs() < 4.5 * iwae.std(0) / math.sqrt(40) + 0.02).all()


def test_samples_are_of_the_classes_asked_for() -> None:
    """A decoder that looks at the class alone: level 5 y everywhere."""
    model = small()
    level = torch.full((3, 17), -50.0)
    level[torch.arange(3), 5 * torch.arange(3)] = 50.0
    model.decoder = nn.Linear(2 + 3, 4 * 17, bias=False)
    model.decoder.weight.data = torch.cat((torch.zeros(4 * 17, 2), level.repeat(1, 4).T), dim=1)

    def drawn(count: int, labels: Tensor | None) -> Tensor:
        request = SampleRequest(NoiseSource(0, torch.arange(count)), condition=Condition(labels=labels))
        return to_levels(model.sample(request), 17).flatten(1)

    asked = torch.tensor([2, 0, 1, 1])
    assert torch.equal(drawn(4, asked), 5 * asked[:, None].expand(-1, 4))
    free = drawn(3000, None)
    assert torch.equal(free, free[:, :1].expand(-1, 4))
    counts = torch.bincount(free[:, 0] // 5, minlength=3)
    assert ((counts - 1000).abs() < 4.5 * math.sqrt(3000 * 2 / 9)).all()


def test_zero_temperature_is_the_central_image_and_one_is_the_default() -> None:
    model, labels = small(), torch.arange(20) % 3

    def sample(temperature: float | None) -> Tensor:
        noise = NoiseSource(0, torch.arange(20))
        return model.sample(SampleRequest(noise, SamplerOptions(temperature=temperature), Condition(labels=labels)))

    z = NoiseSource(0, torch.arange(20)).normal((2,))
    with torch.no_grad():
        centre = model.observation.centre(model.decode_parameters(z, labels))
    assert torch.equal(sample(0.0), from_float(centre, 17))
    assert torch.equal(sample(1.0), sample(None))
    assert not torch.equal(sample(0.0), sample(1.0))


def test_draws_are_a_multiple_of_the_classes() -> None:
    assert small().likelihood_estimators() == ("iwae-501",)
    ten = ImageSpec(1, 2, 2, levels=17, class_names=tuple("0123456789"))
    assert small(ten).likelihood_estimators() == ("iwae-500",)
    assert small(ten, importance_draws=(5000, 45)).likelihood_estimators() == ("iwae-5000", "iwae-50")
    for estimator in ("iwae-500", "iwae-0", "elbo"):
        with pytest.raises(UsageError, match="K a multiple of 3"):
            bound(small(), some_images(), estimator)


def test_unlabelled_data_is_refused() -> None:
    with pytest.raises(UsageError, match="this dataset has no labels"):
        small(ImageSpec(1, 2, 2, levels=17))
    batch = some_images()
    with pytest.raises(UsageError, match="these have no labels"):
        small().validate(Batch(batch.images, batch.index), NoiseSource(0, batch.index))
