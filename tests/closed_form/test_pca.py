"""PCA against known Gaussians: its density, its fit, its likelihood bound and its geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from baselines.autoencoder.pca import PCA, PCAConfig, log_densities_by_rank
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, TrainingData
from genbench.errors import UsageError
from genbench.images import bits_per_dim, dequantise, dequantised_log_offset, from_levels, to_levels
from genbench.noise import NoiseSource

SPEC = ImageSpec(1, 2, 3, levels=256)
D, Q, K = SPEC.dims, 2, SPEC.levels


def known_covariance() -> np.ndarray:
    """W W^T + sigma^2 I in units of levels: two strong directions in a floor of 36."""
    W = np.random.default_rng(0).normal(size=(D, Q)) * [14.0, 9.0]
    return W @ W.T + 36.0 * np.eye(D)


def batch_of(covariance: np.ndarray, count: int, seed: int, spec: ImageSpec = SPEC) -> Batch:
    y = np.random.default_rng(seed).multivariate_normal(np.full(spec.dims, spec.levels / 2), covariance, count)
    levels = torch.from_numpy(np.clip(np.floor(y), 0, spec.levels - 1)).long().view(count, *spec.shape)
    return Batch(from_levels(levels, spec.levels), torch.arange(count))


def fitted(latent_dim: int | str = Q, covariance: np.ndarray | None = None, count: int = 20_000) -> PCA:
    C = known_covariance() if covariance is None else covariance
    model = PCA(PCAConfig(latent_dim=latent_dim), SPEC)
    model.fit(TrainingData(batch_of(C, count, 1), batch_of(C, 2000, 2), SPEC), torch.Generator())
    return model


def implied_covariance(model: PCA) -> np.ndarray:
    W = model.W.double()
    return (W @ W.T + float(model.noise_variance) * torch.eye(model.spec.dims)).numpy()


def test_density_equals_scipy() -> None:
    model = fitted()
    y = torch.rand(50, D, dtype=torch.float64)
    expected = multivariate_normal(model.mu.double().numpy(), implied_covariance(model)).logpdf(y.numpy())
    np.testing.assert_allclose(model.log_density(y).numpy(), expected, rtol=1e-5, atol=1e-4)


def test_log_likelihood_is_the_density_of_the_dequantised_image_on_bins_of_volume_k_to_the_minus_d() -> None:
    """At the bins' middles, by scipy in float64 and the closed-form expectation's share tr(C^-1) / (24 K^2)."""
    model, batch = fitted(), batch_of(known_covariance(), 50, 7)
    C = implied_covariance(model)
    y = (to_levels(batch.images, K).flatten(1).double().numpy() + 0.5) / K
    expected = multivariate_normal(model.mu.double().numpy(), C).logpdf(y) - D * math.log(K)
    expected -= np.trace(np.linalg.inv(C)) / (24 * K**2)
    found = model.log_likelihood(batch, NoiseSource(0, batch.index), "dequantised").nats
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_closed_form_fit_is_the_numerical_maximum_of_the_likelihood(rank: int) -> None:
    """From another start, an optimiser of the mean log-density in (W, log sigma^2) ends at the same value and C."""
    S = np.random.default_rng(3).normal(size=(D, 2 * D))
    S = S @ S.T / D + 0.3 * np.eye(D)
    identity = torch.eye(D, dtype=torch.float64)
    target = torch.from_numpy(S)

    def implied(theta: torch.Tensor) -> torch.Tensor:
        W = theta[:-1].view(D, rank)
        return W @ W.T + theta[-1].exp() * identity

    def negative(values: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.tensor(values, requires_grad=True)
        C = implied(theta)
        loss = 0.5 * (D * math.log(2 * math.pi) + torch.logdet(C) + torch.trace(torch.linalg.solve(C, target)))
        (gradient,) = torch.autograd.grad(loss, theta)
        return float(loss.detach()), gradient.numpy()

    start = np.append(np.random.default_rng(4).normal(size=D * rank), 0.0)
    found = minimize(
        negative, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-9}
    )
    ascending, vectors = np.linalg.eigh(S)
    eigenvalues, U = torch.from_numpy(ascending[::-1].copy()), torch.from_numpy(vectors[:, ::-1].copy())
    assert float(log_densities_by_rank(eigenvalues, eigenvalues)[rank - 1]) == pytest.approx(-found.fun, abs=1e-8)
    model = PCA(PCAConfig(latent_dim=rank), SPEC)
    model._set(torch.zeros(D), U[:, :rank], eigenvalues[:rank], float(eigenvalues[rank:].mean()))
    numerical = implied(torch.tensor(found.x)).numpy()
    np.testing.assert_allclose(implied_covariance(model), numerical, rtol=1e-4, atol=1e-4)


def test_inpainting_draws_from_the_conditional_gaussian() -> None:
    model, count = fitted(), 40_000
    source = batch_of(known_covariance(), 1, 8).images.expand(count, -1, -1, -1)
    mask = torch.tensor([[True, False, True], [False, False, True]]).expand(count, 1, 2, 3)
    request = SampleRequest(NoiseSource(0, torch.arange(count)), condition=Condition(source=source, mask=mask))
    images = model.sample(request)
    assert torch.equal(images[mask], source[mask])
    given = mask[0].flatten().numpy()
    C = implied_covariance(model) * K**2
    gain = C[~given][:, given] @ np.linalg.inv(C[given][:, given])
    levels = to_levels(images, K).flatten(1).double().numpy()
    mean = model.mu.double().numpy() * K
    expected = mean[~given] + gain @ (levels[0, given] + 0.5 - mean[given]) - 0.5
    covariance = C[~given][:, ~given] - gain @ C[given][:, ~given]
    free = levels[:, ~given]
    assert np.abs(free.mean(0) - expected).max() < 4.5 * math.sqrt(covariance.diagonal().max() / count)
    # Rounding to levels adds 1/12 to each variance.
    assert np.abs(np.cov(free.T) - covariance - np.eye(3) / 12).max() < 0.03 * covariance.diagonal().max()


def test_fit_recovers_a_known_covariance() -> None:
    C = known_covariance()
    model = fitted(count=200_000)
    found = implied_covariance(model) * K**2
    assert np.linalg.norm(found - C - np.eye(D) / 12) < 0.01 * np.linalg.norm(C)
    assert float(model.noise_variance) * K**2 == pytest.approx(36.0, rel=0.01)


def test_components_are_orthonormal_and_of_falling_variance() -> None:
    model = fitted(4)
    torch.testing.assert_close(model.U.T @ model.U, torch.eye(4), rtol=0, atol=1e-6)
    assert (model.eigenvalues.diff() <= 0).all()
    assert float(model.noise_variance) <= float(model.eigenvalues[-1])


def test_auto_takes_the_rank_of_the_best_validation_likelihood() -> None:
    C = known_covariance()
    validation = batch_of(C, 2000, 2)

    def figure(model: PCA) -> float:
        noise = NoiseSource(0, validation.index)
        return float(model.log_likelihood(validation, noise, "dequantised").nats.mean())

    by_rank = [figure(fitted(q, C, 200)) for q in range(1, D)]
    auto = fitted("auto", C, 200)
    assert auto.latent_shape == (1 + int(np.argmax(by_rank)),)
    assert figure(auto) == pytest.approx(max(by_rank), abs=1e-6)


def test_log_densities_by_rank_equal_those_of_the_fitted_models() -> None:
    C, held_out = known_covariance(), batch_of(known_covariance(), 500, 3)
    levels = to_levels(held_out.images, K).flatten(1)
    full = fitted(D - 1)
    eigenvalues = torch.cat((full.eigenvalues, full.noise_variance[None])).double()
    last = torch.linalg.svd(full.U.T.double())[2][-1:]
    U = torch.cat((full.U.double(), last.T), dim=1)
    y = (levels.double() + 0.5) / K
    by_rank = log_densities_by_rank(eigenvalues, (((y - full.mu) @ U) ** 2).mean(0))
    for q in range(1, D):
        assert float(by_rank[q - 1]) == pytest.approx(float(fitted(q, C).log_density(y).mean()), abs=1e-3)


def test_training_bits_per_dim_of_white_data_are_the_entropy() -> None:
    """Under the maximum-likelihood C, tr(C^-1 S) = D: the mean bound is the entropy of N(mu, C) on unit bins."""
    white = 400.0 * np.eye(D)
    model, data = fitted(covariance=white), batch_of(white, 20_000, 1)
    found = bits_per_dim(model.log_likelihood(data, NoiseSource(0, data.index), "dequantised").nats, D).mean()
    variance = np.diag(np.full(D, 400.0 + 1 / 12))
    assert float(found) == pytest.approx(0.5 * math.log2(2 * math.pi * math.e * variance[0, 0]), abs=3e-3)
    log_det = np.linalg.slogdet(implied_covariance(model))[1]
    closed_form = (0.5 * (D * math.log(2 * math.pi * math.e) + log_det)) / (D * math.log(2)) + math.log2(K)
    assert float(found) == pytest.approx(closed_form, abs=1e-5)


def test_closed_form_bound_equals_its_monte_carlo_mean_over_noise() -> None:
    """On coarse levels, where the noise inside the bins is a large part of the bound."""
    spec = ImageSpec(1, 2, 2, levels=3)
    data = batch_of(np.diag([0.3, 0.2, 0.1, 0.1]), 3000, 1, spec)
    model = PCA(PCAConfig(latent_dim=2), spec)
    model.fit(TrainingData(data, data, spec), torch.Generator())
    some = Batch(data.images[:8], data.index[:8])
    bound = model.log_likelihood(some, NoiseSource(0, some.index), "dequantised")
    levels = to_levels(some.images, 3).flatten(1)[:, None, :].expand(-1, 20_000, -1)
    y = dequantise(levels, NoiseSource(0, some.index).uniform((20_000, 4)), 3)
    draws = model.log_density(y.flatten(0, 1)).view(8, -1) + dequantised_log_offset(4, 3)
    standard_error = draws.std(1) / math.sqrt(20_000)
    assert ((draws.mean(1) - bound.nats).abs() < 4.5 * standard_error).all()
    assert bound.kind == "lower_bound"


def test_probabilities_of_all_images_sum_to_less_than_one() -> None:
    """exp of a lower bound on log P cannot sum to more than P does."""
    spec = ImageSpec(1, 2, 2, levels=3)
    data = batch_of(np.diag([0.3, 0.2, 0.1, 0.1]), 500, 1, spec)
    model = PCA(PCAConfig(latent_dim=2), spec)
    model.fit(TrainingData(data, data, spec), torch.Generator())
    every = torch.cartesian_prod(*[torch.arange(3)] * 4).view(-1, 1, 2, 2)
    batch = Batch(from_levels(every, 3), torch.arange(len(every)))
    total = float(model.log_likelihood(batch, NoiseSource(0, batch.index), "dequantised").nats.exp().sum())
    assert 0.3 < total < 1.0


def test_posterior_mean_is_that_of_the_joint_gaussian() -> None:
    model = fitted()
    batch = batch_of(known_covariance(), 10, 4)
    y = (to_levels(batch.images, K).flatten(1).double() + 0.5) / K
    expected = (y - model.mu) @ torch.from_numpy(np.linalg.inv(implied_covariance(model))) @ model.W.double()
    torch.testing.assert_close(model.encode(batch).double(), expected, rtol=1e-3, atol=1e-3)


def test_reconstruction_is_the_orthogonal_projection() -> None:
    model = fitted()
    batch = batch_of(known_covariance(), 500, 5)
    levels, rebuilt = (to_levels(x, K).flatten(1).double() for x in (batch.images, model.reconstruct(batch, None)))
    along = (rebuilt - levels) @ model.U.double()
    assert along.abs().max() < 1.0
    twice = model.reconstruct(Batch(from_levels(rebuilt.long().view(-1, *SPEC.shape), K), batch.index), None)
    assert (to_levels(twice, K).flatten(1) - rebuilt).abs().max() <= 1


def test_samples_have_the_covariance_of_the_model() -> None:
    model = fitted()
    samples = model.sample(SampleRequest(NoiseSource(0, torch.arange(50_000))))
    found = np.cov(to_levels(samples, K).flatten(1).double().numpy().T)
    C = implied_covariance(model) * K**2
    assert np.linalg.norm(found - C) < 0.03 * np.linalg.norm(C)


def test_a_state_brings_its_own_number_of_components() -> None:
    model, other = fitted(4), PCA(PCAConfig(latent_dim="auto"), SPEC)
    other.load_state_dict(model.state_dict())
    assert other.latent_shape == (4,)
    first, second = (m.sample(SampleRequest(NoiseSource(0, torch.arange(5)))) for m in (model, other))
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="size mismatch"):
        PCA(PCAConfig(latent_dim=3), SPEC).load_state_dict(model.state_dict())


def test_too_many_components_and_unknown_estimators_are_refused() -> None:
    with pytest.raises(UsageError, match="latent_dim = 6"):
        PCA(PCAConfig(latent_dim=D), SPEC)
    model, batch = fitted(), batch_of(known_covariance(), 2, 6)
    with pytest.raises(UsageError, match="dequantised"):
        model.log_likelihood(batch, NoiseSource(0, batch.index), "dequantized")
