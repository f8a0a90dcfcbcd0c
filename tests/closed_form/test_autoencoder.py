"""The autoencoder: linear networks against PCA, exact whitening, and the mixture's stepwise EM against batch EM."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture
from torch import Tensor

from baselines.autoencoder.autoencoder import Autoencoder, AutoencoderConfig, CodeDensity
from genbench.api import Batch, ImageSpec, SampleRequest
from genbench.errors import UsageError
from genbench.images import from_levels, to_float
from genbench.noise import NoiseSource

SPEC = ImageSpec(1, 2, 3, levels=256)


class Context:
    """A minimal `TrainContext`: no schedule, no clipping; keeps the loss."""

    def __init__(self, model: Autoencoder, seed: int = 0) -> None:
        self.step, self.progress, self.device = 0, 0.0, torch.device("cpu")
        self.rng = torch.Generator().manual_seed(seed)
        self.optimizers = model.optimizers()
        self.loss = torch.empty(0)

    def backward(self, loss: Tensor) -> None:
        self.loss = loss.detach()
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()


def model_of(spec: ImageSpec = SPEC, **changes: object) -> Autoencoder:
    torch.manual_seed(0)
    settings = {"architecture": "mlp", "widths": (5,), "code_dim": 2, "components": 2, **changes}
    return Autoencoder(AutoencoderConfig(**settings), spec)


def images_of(count: int, spec: ImageSpec = SPEC, seed: int = 0) -> Batch:
    """Images with two strong directions in a floor of noise."""
    rng = np.random.default_rng(seed)
    W = np.random.default_rng(9).normal(size=(2, spec.dims)) * [[25.0], [15.0]]
    y = 128 + rng.normal(size=(count, 2)) @ W + 5 * rng.normal(size=(count, spec.dims))
    levels = torch.from_numpy(np.clip(y.round(), 0, spec.levels - 1)).long().view(-1, *spec.shape)
    return Batch(from_levels(levels, spec.levels), torch.arange(count))


def two_clusters(count: int = 2000) -> Tensor:
    """Codes (N, 3) from two Gaussians with weights 0.3 and 0.7."""
    rng = torch.Generator().manual_seed(0)
    first = torch.rand(count, generator=rng) < 0.3
    noise = torch.randn(count, 3, generator=rng) @ torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [0.0, 0.3, 0.7]])
    return torch.where(first[:, None], noise + torch.tensor([4.0, -3.0, 2.0]), 0.5 * noise)


def fitted(z: Tensor, components: int = 2, steps: int = 60) -> CodeDensity:
    density, rng = CodeDensity(components, z.shape[1], 1.0), torch.Generator().manual_seed(1)
    for _ in range(steps):
        density.update(z, rng)
    return density


def log_density(density: CodeDensity, z: Tensor) -> np.ndarray:
    """(N,) log density of the mixture by scipy."""
    weights, means, factors = (p.numpy() for p in density.gaussians())
    parts = [
        np.log(w) + multivariate_normal(m, L @ L.T).logpdf(z.double().numpy())
        for w, m, L in zip(weights, means, factors, strict=True)
    ]
    return np.logaddexp.reduce(parts)


def test_linear_networks_reach_the_subspace_and_the_error_of_pca() -> None:
    """Baldi and Hornik (1989): the optimum of a linear autoencoder is the projection on the first components."""
    model, batch = model_of(activation="linear"), images_of(400)
    x = to_float(batch.images, 256)
    optimizer = torch.optim.LBFGS(
        [*model.encoder.parameters(), *model.decoder.parameters()], max_iter=300, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 100 * (model.decoder(model.encoder(x)) - x).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    x = x.flatten(1).double()
    centred = x - x.mean(0)
    _, singular, V = torch.linalg.svd(centred, full_matrices=False)
    best = float((singular[2:] ** 2).sum()) / x.numel()
    assert float(model.validate(batch, NoiseSource(0, batch.index)).mean()) == pytest.approx(best, rel=2e-3)
    with torch.no_grad():
        origin = model.decoder(torch.zeros(1, 2)).flatten(1)
        span = (model.decoder(torch.eye(2)).flatten(1) - origin).double()
    outside = span - span @ V[:2].T @ V[:2]
    assert float(outside.norm() / span.norm()) < 0.02


def test_whitened_codes_have_zero_mean_and_unit_covariance_whatever_the_mixture() -> None:
    z = two_clusters()
    for components in (1, 3):
        density = fitted(z, components, steps=5)
        white = density.whiten(z).double()
        torch.testing.assert_close(white.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-5)
        torch.testing.assert_close(white.T @ white / len(z), torch.eye(3, dtype=torch.float64), rtol=0, atol=2e-5)
        torch.testing.assert_close(density.colour(density.whiten(z)), z, rtol=1e-5, atol=1e-5)


def test_moments_of_all_codes_are_running_means_with_the_density_rate() -> None:
    first, second, eta = two_clusters()[:500], two_clusters()[500:] * 2 + 1, 0.25
    density, rng = CodeDensity(3, 3, eta), torch.Generator().manual_seed(0)
    density.update(first, rng)
    density.update(second, rng)

    def running(f: Tensor, s: Tensor) -> Tensor:
        return (1 - eta) * f + eta * s

    a, b = first.double(), second.double()
    mean = running(a.mean(0), b.mean(0))
    covariance = running(a.T @ a / len(a), b.T @ b / len(b)) - torch.outer(mean, mean)
    found_mean, factor = density.moments()
    torch.testing.assert_close(found_mean, mean)
    torch.testing.assert_close(factor @ factor.T, covariance, rtol=1e-4, atol=1e-4)


def test_responsibilities_are_posterior_probabilities_by_scipy() -> None:
    density, z = fitted(two_clusters(), 3, steps=4), two_clusters()[:50]
    weights, means, factors = (p.numpy() for p in density.gaussians())
    joint = np.stack(
        [w * multivariate_normal(m, L @ L.T).pdf(z.double().numpy()) for w, m, L in zip(weights, means, factors)], 1
    )
    np.testing.assert_allclose(density.responsibilities(z).numpy(), joint / joint.sum(1, keepdims=True), atol=1e-8)


def test_at_rate_one_on_all_codes_it_is_batch_em_and_climbs() -> None:
    """The log-likelihood never falls, and ends where scikit-learn's does."""
    z = two_clusters()
    density, rng, values = CodeDensity(2, 3, 1.0), torch.Generator().manual_seed(1), []
    for _ in range(60):
        density.update(z, rng)
        values.append(float(log_density(density, z).mean()))
    assert (np.diff(values) > -1e-9).all()
    reference = GaussianMixture(2, random_state=0, n_init=2, tol=1e-9, max_iter=500, reg_covar=1e-9).fit(z.numpy())
    assert values[-1] == pytest.approx(float(reference.score(z.numpy())), abs=1e-3)
    assert sorted(density.gaussians()[0].tolist()) == pytest.approx(sorted(reference.weights_), abs=1e-2)


def test_codes_are_drawn_from_the_mixture() -> None:
    density, count = fitted(two_clusters()), 40_000
    z = density.sample(NoiseSource(0, torch.arange(count))).double()
    mean, factor = density.moments()
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.06)
    torch.testing.assert_close(z.T.cov(), factor @ factor.T, rtol=0.03, atol=0.05)
    weights = density.gaussians()[0]
    found = density.responsibilities(z).argmax(1).bincount(minlength=2) / count
    assert found.tolist() == pytest.approx(weights.tolist(), abs=0.01)
    entropy = -float(log_density(density, z.float()).mean())
    again = density.sample(NoiseSource(1, torch.arange(count)))
    assert -float(log_density(density, again).mean()) == pytest.approx(entropy, abs=0.03)


def test_loss_is_squared_error_plus_penalty_per_value() -> None:
    model, batch = model_of(code_penalty=0.3), images_of(7)
    x = to_float(batch.images, 256)
    with torch.no_grad():
        z = model.encoder(x)
        error = (model.decoder(z) - x).square().flatten(1).sum(1)
        expected = (error + 0.5 * 0.3 * z.square().sum(1)).mean() / 6
    context = Context(model)
    model.update(batch, context)
    assert float(context.loss) == pytest.approx(float(expected), rel=1e-6)


def test_decoding_an_encoded_image_is_its_reconstruction() -> None:
    model, batch = model_of(), images_of(50)
    for _ in range(5):
        model.update(batch, Context(model))
    rebuilt = model.reconstruct(batch, NoiseSource(0, batch.index))
    assert (model.decode(model.encode(batch)).int() - rebuilt.int()).abs().max() <= 1
    assert (rebuilt != rebuilt[:1]).any()


def test_with_one_component_samples_are_decoded_standard_normal_latents() -> None:
    model, batch = model_of(components=1), images_of(200)
    for _ in range(3):
        model.update(batch, Context(model))
    index = torch.arange(20)
    noise = NoiseSource(4, index)
    noise.categorical(torch.ones(20, 1))
    expected = model.decode(noise.normal((2,)))
    found = model.sample(SampleRequest(NoiseSource(4, index)))
    assert (found.int() - expected.int()).abs().max() <= 1


def test_the_density_is_state_and_a_fresh_model_has_none() -> None:
    model, batch = model_of(), images_of(50)
    for act in (
        lambda: model.sample(SampleRequest(NoiseSource(0, torch.arange(2)))),
        lambda: model.encode(batch),
        lambda: model.decode(torch.zeros(2, 2)),
    ):
        with pytest.raises(UsageError, match="Train it"):
            act()
    model.update(batch, Context(model))
    other = model_of()
    other.load_state_dict(model.state_dict())
    request = [SampleRequest(NoiseSource(0, torch.arange(5))) for _ in range(2)]
    assert torch.equal(model.sample(request[0]), other.sample(request[1]))


@pytest.mark.parametrize(("channels", "side", "widths"), [(1, 28, (8, 16)), (3, 32, (8, 8, 16))])
def test_convolutional_networks_of_both_suites(channels: int, side: int, widths: tuple[int, ...]) -> None:
    spec = ImageSpec(channels, side, side)
    model = model_of(spec, architecture="conv", widths=widths, code_dim=4)
    x = torch.rand(3, *spec.shape)
    z = model.encoder(x)
    assert z.shape == (3, 4)
    assert model.decoder(z).shape == x.shape
    torch.testing.assert_close(model.encoder(x[:1]), z[:1])


@pytest.mark.parametrize("widths", [(8, 8, 8), (12, 8)])
def test_sides_and_widths_that_do_not_divide_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="Give other widths"):
        model_of(ImageSpec(1, 28, 28), architecture="conv", widths=widths)


def test_an_empty_component_keeps_the_mixture_finite() -> None:
    """A component without codes has weight 0 and the ridge as its covariance, and never becomes NaN."""
    density = CodeDensity(2, 2, 0.5)
    z = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    density.update(z, torch.Generator().manual_seed(0))
    density.total[1], density.first[1], density.second[1] = 0.0, 0.0, 0.0
    density.update(z, torch.Generator().manual_seed(0))
    weights, means, factors = density.gaussians()
    assert float(weights[1]) < 1e-6
    assert all(bool(torch.isfinite(p).all()) for p in (means, factors))
    assert math.isfinite(float(density.responsibilities(z).sum()))
