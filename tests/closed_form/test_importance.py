"""The bounds against a linear-Gaussian model whose evidence is known, whatever the chunks."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from genbench.errors import UsageError
from genbench.likelihood import importance
from genbench.likelihood.importance import (
    Draws,
    LogMeanExp,
    Mean,
    importance_weighted_bound,
    mean_bound,
    variational_bound,
)
from genbench.noise import NoiseSource

S2 = 0.4
"""x | z ~ N(z, S2), z ~ N(0, 1): x ~ N(0, 1 + S2), z | x ~ N(x / (1 + S2), S2 / (1 + S2))."""


def log_normal(x: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    return -0.5 * ((x - mean) ** 2 / variance + torch.log(2 * math.pi * torch.as_tensor(variance)))


def evidence(x: Tensor) -> Tensor:
    return log_normal(x, 0.0, 1 + S2)


def weights(x: Tensor, shift: float = 0.0, widening: float = 1.0, seed: int = 0) -> Draws:
    """Draws of log w under the true posterior moved by ``shift`` of its deviations and widened."""
    noise = NoiseSource(seed, torch.arange(len(x)))
    deviation = math.sqrt(S2 / (1 + S2))

    def draws(count: int) -> Tensor:
        eps = torch.stack([noise.normal(()) for _ in range(count)]).double()
        mean = x / (1 + S2) + shift * deviation
        z = mean + widening * deviation * eps
        return log_normal(z, 0.0, 1.0) + log_normal(x, z, S2) - log_normal(z, mean, (widening * deviation) ** 2)

    return draws


def points(count: int) -> Tensor:
    return torch.linspace(-2, 2, count, dtype=torch.float64)


def repeated(x: float, count: int) -> Tensor:
    return torch.full((count,), x, dtype=torch.float64)


@pytest.mark.parametrize("num_draws", [1, 2, 500])
def test_at_the_true_posterior_both_bounds_are_the_evidence(num_draws: int) -> None:
    x = points(5)
    for bound in (importance_weighted_bound, mean_bound):
        found = bound(weights(x), num_draws, 7)
        torch.testing.assert_close(found.nats, evidence(x), rtol=0, atol=1e-6)
        assert (found.kind, found.nats.dtype) == ("lower_bound", torch.float64)
        assert (found.standard_error is None) == (num_draws == 1)


def test_elbo_falls_short_by_the_kl_to_the_true_posterior() -> None:
    shift, widening = 0.6, 1.4
    found = mean_bound(weights(repeated(0.8, 3000), shift, widening), 16, 5)
    gap = 0.5 * (shift**2 + widening**2 - 1 - 2 * math.log(widening))
    error = float(found.nats.std()) / math.sqrt(3000)
    assert float(found.nats.mean()) == pytest.approx(float(evidence(points(1) * 0 + 0.8)) - gap, abs=4 * error)
    assert float(found.standard_error.square().mean().sqrt()) == pytest.approx(float(found.nats.std()), rel=0.06)


def test_expected_bound_grows_with_k_up_to_the_evidence() -> None:
    """Means over 4000 repetitions; k = 1 is the ELBO's expectation."""
    x, log_p = repeated(0.8, 4000), float(evidence(repeated(0.8, 1)))
    found = {k: importance_weighted_bound(weights(x, 0.8, 1.5, seed=k), k, 64).nats for k in (1, 3, 10, 200)}
    means = [float(nats.mean()) for nats in found.values()]
    errors = [float(nats.std()) / math.sqrt(4000) for nats in found.values()]
    for (low, high), (a, b) in zip(itertools.pairwise(means), itertools.pairwise(errors)):
        assert low + 3 * math.hypot(a, b) < high
    assert means[-1] < log_p + 4 * errors[-1]
    assert means[-1] > log_p - 0.02
    assert means[0] == pytest.approx(float(mean_bound(weights(x, 0.8, 1.5, seed=1), 1, 1).nats.mean()), abs=1e-12)


def test_standard_error_matches_the_spread_over_repetitions() -> None:
    found = importance_weighted_bound(weights(repeated(0.8, 1000), 0.5, 1.4), 100, 30)
    assert float(found.nats.std()) == pytest.approx(float(found.standard_error.mean()), rel=0.1)


@pytest.mark.parametrize("estimator", ["elbo", "iwae-1", "iwae-50"])
def test_chunks_do_not_change_the_numbers(estimator: str) -> None:
    x = points(6)
    found = [
        variational_bound(estimator, weights(x, 0.5), weights(x, 0.5), chunk, "toy") for chunk in (1, 3, 16, 50, 1000)
    ]
    for other in found[1:]:
        torch.testing.assert_close(other.nats, found[0].nats, rtol=0, atol=1e-12)
        if found[0].standard_error is not None:
            torch.testing.assert_close(other.standard_error, found[0].standard_error, rtol=1e-9, atol=1e-12)


def test_no_chunk_is_larger_than_asked_and_the_last_is_the_rest() -> None:
    asked: list[int] = []

    def draws(count: int) -> Tensor:
        asked.append(count)
        return torch.zeros(count, 2)

    importance_weighted_bound(draws, 17, 5)
    assert asked == [5, 5, 5, 2]


def test_log_mean_exp_survives_weights_that_underflow() -> None:
    offset = torch.tensor([5000.0, 0.0, -5000.0], dtype=torch.float64)
    log_w = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 30 - offset
    stream = LogMeanExp()
    for piece in torch.split(log_w, 9):
        stream.add(piece)
    torch.testing.assert_close(stream.value(), log_w.logsumexp(0) - math.log(40))
    w = torch.exp(log_w - log_w.max(0).values)
    torch.testing.assert_close(stream.standard_error(), w.std(0) / w.mean(0) / math.sqrt(40))


def test_weights_of_zero_count_as_draws() -> None:
    stream = LogMeanExp()
    for log_w in ([-math.inf, -math.inf], [-math.inf, 0.0], [1.0, -math.inf], [-math.inf, -math.inf]):
        stream.add(torch.tensor([log_w]))
    torch.testing.assert_close(stream.value(), torch.tensor([1.0, 0.0]).double() - math.log(4))


def test_streaming_mean_is_the_mean_and_its_error() -> None:
    draws = torch.randn(23, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 1e6
    stream = Mean()
    for piece in torch.split(draws, 5):
        stream.add(piece)
    torch.testing.assert_close(stream.mean, draws.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(stream.standard_error(), draws.std(0) / math.sqrt(23), rtol=1e-6, atol=0)


def test_elbo_is_of_its_own_draws_and_iwae_of_the_weights() -> None:
    elbo, log_weights = (lambda count, value=value: torch.full((count, 2), value) for value in (-3.0, -5.0))
    assert variational_bound("elbo", elbo, log_weights, 4, "toy").nats.tolist() == [-3.0, -3.0]
    assert variational_bound("iwae-9", elbo, log_weights, 4, "toy").nats.tolist() == pytest.approx([-5.0, -5.0])


def test_names() -> None:
    assert importance.estimators((5000, 50)) == ("iwae-5000", "iwae-50", "elbo")
    assert importance.num_importance_draws("iwae-5000") == 5000
    x = points(2)
    assert variational_bound("iwae-3", weights(x), weights(x), 2, "toy").estimator == "iwae-3"
    assert variational_bound("elbo", weights(x), weights(x), 2, "toy").estimator == "elbo"
    for name in ("iwae-0", "iwae", "iwae-05", "iwae-1.5", "exact"):
        with pytest.raises(UsageError, match=f"Unknown estimator of toy '{name}'.*iwae-K with a number K"):
            variational_bound(name, weights(x), weights(x), 2, "toy")
    with pytest.raises(UsageError, match="at least one draw, got 0"):
        importance_weighted_bound(weights(x), 0, 2)


def test_a_chunk_has_at_least_one_draw() -> None:
    assert importance.chunk_size(importance.CHUNK_VALUES // 4) == 4
    assert importance.chunk_size(importance.CHUNK_VALUES * 9) == 1
