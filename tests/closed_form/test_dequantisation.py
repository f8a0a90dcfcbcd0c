"""Dequantisation bounds on a density with known bin masses, and the learned dequantiser as a density on the cube."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from baselines.nets.dequantiser import VariationalDequantiser
from genbench.api import ImageSpec
from genbench.errors import UsageError
from genbench.images import bits_per_dim, dequantised_log_offset
from genbench.likelihood.dequantisation import (
    UNIFORM,
    dequantised_log_likelihood,
    dequantised_log_prob,
    estimators,
)
from genbench.noise import NoiseSource

K = 4
LEVELS = torch.cartesian_prod(torch.arange(K), torch.arange(K)).view(-1, 1, 1, 2)
"""All images of two values on four levels."""


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    """The same random inputs at every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def ramp(y: Tensor) -> Tensor:
    """log p(y) of p(y) = prod 2 y_d, a density on the unit cube."""
    return torch.log(2 * y).flatten(1).sum(1)


def exact_log_p(levels: Tensor, num_levels: int = K) -> Tensor:
    """log P(k) under `ramp`: each dimension's bin holds ((k + 1)^2 - k^2) / K^2."""
    return torch.log((2 * levels.double() + 1) / num_levels**2).flatten(1).sum(1)


def uniform_bound(levels: Tensor) -> Tensor:
    """E_u log p((k + u) / K) - D log K under `ramp`, from the integral of log(k + u)."""
    k = levels.double()
    mean_log = torch.xlogy(k + 1, k + 1) - torch.xlogy(k, k) - 1
    return (math.log(2 / K) + mean_log - math.log(K)).flatten(1).sum(1)


class Tilted:
    """q = (1 - share) uniform + share posterior of u under `ramp`; density a + b u, drawn by inversion."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, levels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        k, e = levels.double(), noise.double()
        b = self.share / (k + 0.5)
        a = 1 - self.share + b * k
        u = (torch.sqrt(a.square() + 2 * b * e) - a) / b
        return u, torch.log(a + b * u).flatten(1).sum(1)


def likelihood(estimator: str, draws: int, levels: Tensor = LEVELS, seed: int = 0, **how):
    noise = NoiseSource(seed, torch.arange(len(levels)))
    return dequantised_log_likelihood(lambda y: ramp(y.double()), levels, noise, estimator, draws, K, **how)


@pytest.mark.parametrize(
    ("nats", "dims", "levels", "bits"),
    [
        (0.0, 10, 2, 1.0),
        (0.0, 10, 17, 4.087463),
        (0.0, 10, 256, 8.0),
        (784 * math.log(256), 784, 256, 0.0),
        (1980.5, 784, 256, 4.355539),
        (5371.78, 3072, 128, 4.477266),
    ],
)
def test_bits_per_dim_by_hand(nats: float, dims: int, levels: int, bits: float) -> None:
    log_p = torch.tensor([nats], dtype=torch.float64)
    found = bits_per_dim(log_p + dequantised_log_offset(dims, levels), dims)
    assert found.item() == pytest.approx(bits, abs=2e-6)


def test_one_bit_of_a_binary_image_in_nats() -> None:
    assert bits_per_dim(torch.tensor(-543.427390, dtype=torch.float64), 784).item() == pytest.approx(1.0, abs=1e-8)


def test_uniform_bound_is_its_closed_form_and_below_the_exact_value() -> None:
    found = likelihood("dequantised", 400)
    assert found.kind == "lower_bound"
    assert found.estimator == "dequantised"
    assert found.nats.dtype == torch.float64
    assert ((found.nats - uniform_bound(LEVELS)).abs() < 4.5 * found.standard_error).all()
    assert (uniform_bound(LEVELS) < exact_log_p(LEVELS)).all()


def test_importance_weighted_bound_rises_to_the_exact_value() -> None:
    def mean_bound(draws: int) -> float:
        runs = [likelihood(f"dequantised-iw-{draws}", draws, seed=s).nats for s in range(120)]
        return torch.stack(runs).mean().item()

    exact = exact_log_p(LEVELS)
    ladder = [uniform_bound(LEVELS).mean().item(), mean_bound(2), mean_bound(16), exact.mean().item()]
    assert min(b - a for a, b in pairwise(ladder)) > 2e-3
    many = likelihood("dequantised-iw-4000", 4000)
    assert ((many.nats - exact).abs() < 4.5 * many.standard_error).all()
    assert many.standard_error.max() < 0.02


def test_the_posterior_as_dequantiser_meets_the_exact_value_without_noise() -> None:
    found = likelihood("dequantised-variational", 3, dequantiser=Tilted(1.0), method="variational")
    assert torch.allclose(found.nats, exact_log_p(LEVELS), atol=1e-9, rtol=0)
    assert found.standard_error.max() < 1e-9
    weighted = likelihood("dequantised-variational-iw-3", 3, dequantiser=Tilted(1.0), method="variational")
    assert torch.allclose(weighted.nats, exact_log_p(LEVELS), atol=1e-9, rtol=0)


def test_the_bound_rises_as_the_dequantiser_nears_the_posterior() -> None:
    draws = 1000

    def bound(share: float) -> float:
        how = {"dequantiser": Tilted(share), "method": "variational"}
        return likelihood("dequantised-variational", draws, **how).nats.mean().item()

    ladder = [uniform_bound(LEVELS).mean().item(), bound(0.4), bound(0.8), exact_log_p(LEVELS).mean().item()]
    assert min(b - a for a, b in pairwise(ladder)) > 3e-3


@pytest.mark.parametrize("estimator", ["dequantised", "dequantised-iw-8"])
def test_standard_error_is_the_spread_over_seeds(estimator: str) -> None:
    runs = [likelihood(estimator, 8, seed=s) for s in range(200)]
    spread = torch.stack([run.nats for run in runs]).std(0)
    claimed = torch.stack([run.standard_error for run in runs]).square().mean(0).sqrt()
    assert (spread / claimed).median().item() == pytest.approx(1.0, abs=0.12)


def test_one_draw_at_a_time_and_no_dependence_on_the_batch() -> None:
    seen: list[int] = []

    def density(y: Tensor) -> Tensor:
        seen.append(len(y))
        return ramp(y)

    noise = NoiseSource(0, torch.arange(len(LEVELS)))
    whole = dequantised_log_likelihood(density, LEVELS, noise, "dequantised", 5, K).nats
    assert seen == [len(LEVELS)] * 5
    tail = NoiseSource(0, torch.arange(10, len(LEVELS)))
    assert torch.equal(dequantised_log_likelihood(ramp, LEVELS[10:], tail, "dequantised", 5, K).nats, whole[10:])


def test_bad_settings_say_what_to_do() -> None:
    assert estimators(16) == ("dequantised", "dequantised-iw-16")
    assert estimators(5, "variational") == ("dequantised-variational", "dequantised-variational-iw-5")
    with pytest.raises(UsageError, match=r"Unknown likelihood estimator 'dequantized'.*Did you mean 'dequantised'"):
        likelihood("dequantized", 4)
    with pytest.raises(UsageError, match="at least 2 draws for its standard error, got 1"):
        likelihood("dequantised", 1)
    with pytest.raises(UsageError, match="even height and width, got 3 x 4"):
        VariationalDequantiser(ImageSpec(1, 3, 4, 17))


def learned(spec: ImageSpec, noise: float, **settings: int) -> VariationalDequantiser:
    """A float64 dequantiser with every parameter moved off its start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VariationalDequantiser(spec, hidden=8, **settings).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
    return model


def random_levels(n: int, spec: ImageSpec) -> Tensor:
    return torch.randint(spec.levels, (n, *spec.shape), generator=torch.Generator().manual_seed(1))


def test_an_untrained_dequantiser_is_the_uniform_one() -> None:
    spec = ImageSpec(3, 4, 6, 256)
    levels, noise = random_levels(5, spec), torch.rand(5, *spec.shape, dtype=torch.float64)
    u, log_q = learned(spec, 0.0)(levels, noise)
    assert torch.allclose(u, noise, atol=1e-9, rtol=0)
    assert torch.allclose(log_q, UNIFORM(levels, noise)[1], atol=1e-8, rtol=0)


@pytest.mark.parametrize("spec", [ImageSpec(1, 4, 4, 17), ImageSpec(2, 2, 2, 2)])
def test_learned_log_q_is_the_jacobian_of_its_map_of_uniform_noise(spec: ImageSpec) -> None:
    model = learned(spec, 0.15)
    noise = 0.02 + 0.96 * torch.rand(1, *spec.shape, dtype=torch.float64)
    for levels in random_levels(3, spec)[:, None]:
        u, log_q = model(levels, noise)
        jacobian = torch.autograd.functional.jacobian(lambda e, k=levels: model(k, e)[0], noise)
        expected = -torch.linalg.slogdet(jacobian.reshape(noise.numel(), noise.numel())).logabsdet
        assert log_q.item() == pytest.approx(expected.item(), abs=1e-9)
        assert abs(log_q.item()) > 1e-3
        assert ((u > 0) & (u < 1)).all()


def test_learned_noise_depends_on_the_image_and_moves_every_value() -> None:
    spec = ImageSpec(1, 4, 4, 17)
    model, noise = learned(spec, 0.15), torch.rand(1, 1, 4, 4, dtype=torch.float64)
    dark, bright = (model(torch.full((1, 1, 4, 4), k), noise)[0] for k in (0, 16))
    assert ((dark - bright).abs() > 1e-6).all()
    assert ((dark - noise).abs() > 1e-6).all()


def test_the_ends_of_the_noise_stay_finite_in_float32() -> None:
    spec = ImageSpec(1, 2, 2, 256)
    ends = torch.tensor([0.0, 1 - 2.0**-24]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    u, log_q = learned(spec, 0.15).float()(random_levels(2, spec), ends)
    assert torch.isfinite(log_q).all()
    assert ((u > 0) & (u < 1)).all()


def test_training_the_dequantiser_closes_most_of_the_gap() -> None:
    """Of the lowest bin of `ramp`, where the uniform bound is 0.31 nats a dimension too low."""
    spec = ImageSpec(1, 2, 2, 2)
    levels = torch.zeros(32, 1, 2, 2, dtype=torch.int64)
    exact = exact_log_p(levels[:1], 2).item()
    model = learned(spec, 0.0).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        noise = torch.rand(levels.shape, generator=generator)
        loss = -dequantised_log_prob(ramp, levels, noise, 2, model).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        noise = NoiseSource(0, torch.arange(32))
        how = {"dequantiser": model, "method": "variational"}
        found = dequantised_log_likelihood(ramp, levels, noise, "dequantised-variational", 200, 2, **how)
        plain = dequantised_log_likelihood(ramp, levels, noise, "dequantised", 200, 2)
    assert plain.nats.mean().item() == pytest.approx(exact - 4 * (1 - math.log(2)), abs=0.05)
    assert exact - 0.25 < found.nats.mean().item() < exact + 0.02
