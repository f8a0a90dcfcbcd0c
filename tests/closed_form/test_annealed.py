"""Annealed importance sampling and HMC where log Z, the densities and the transitions are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from genbench.errors import NotConverged, UsageError
from genbench.likelihood.annealed import (
    AnnealedWeights,
    ChainNoise,
    Noise,
    anneal,
    annealed_normaliser,
    check_converged,
    forward_estimate,
    reverse_estimate,
    summarise,
    temperatures,
)
from genbench.likelihood.hmc import (
    UNBOUNDED,
    GaussianBase,
    HamiltonianPath,
    StepSizes,
    UniformBase,
    fold,
    tune_step_sizes,
)

MEAN, SCALE = torch.tensor([0.7, -0.4]), torch.tensor([0.5, 1.5])
TARGET_LOG_Z = float(math.log(2 * math.pi) + SCALE.double().log().sum()) + 3.0


def log_target(x: Tensor) -> Tensor:
    """A normal density times e^3 / its normaliser removed: log Z is TARGET_LOG_Z."""
    return 3.0 - 0.5 * ((x - MEAN) / SCALE).square().sum(1)


def gaussian_path(size: float = 0.6) -> HamiltonianPath:
    base = GaussianBase(torch.zeros(2), torch.ones(2))
    return HamiltonianPath(base, log_target, StepSizes((0.0,), (size,)), leapfrog_steps=3)


def draws_of_target(chains: int, seed: int) -> Tensor:
    return MEAN + SCALE * ChainNoise(seed, chains).normal((2,))


@dataclass(frozen=True)
class ExactMoves:
    """N(0, 1) to N(shift, 1) up to e^log_z, with independent exact draws at each temperature: weights are known."""

    shift: float
    log_z: float
    log_base_normaliser: float = 0.0

    def start(self, noise: Noise) -> Tensor:
        return noise.normal((1,))[:, 0].double()

    def log_ratio(self, state: Tensor, beta: float, next_beta: float) -> Tensor:
        return (next_beta - beta) * (self.shift * state - 0.5 * self.shift**2 + self.log_z)

    def move(self, state: Tensor, beta: float, noise: Noise) -> Tensor:
        del state
        return self.shift * beta + noise.normal((1,))[:, 0].double()


@pytest.mark.parametrize("schedule", ["linear", "sigmoid"])
def test_temperatures_rise_from_zero_to_one(schedule: str) -> None:
    betas = temperatures(50, schedule)
    assert len(betas) == 51
    assert (betas[0], betas[-1]) == (0.0, 1.0)
    assert np.all(np.diff(betas) > 0)
    np.testing.assert_allclose(np.array(betas) + betas[::-1], 1.0, atol=1e-12)
    assert (np.diff(betas)[0] < 0.5 / 50) == (schedule == "sigmoid")


def test_log_weights_have_the_moments_of_exact_moves() -> None:
    """With n exact moves the log weight is normal: mean log Z - shift^2 / 2n, variance shift^2 / n."""
    shift, n, chains = 2.0, 8, 20_000
    path = ExactMoves(shift, 5.0)
    log_weight, _ = anneal(path, path.start(ChainNoise(0, chains)), temperatures(n), ChainNoise(1, chains))
    assert float(log_weight.mean()) == pytest.approx(5.0 - shift**2 / (2 * n), abs=5 * math.sqrt(0.5 / chains))
    assert float(log_weight.var()) == pytest.approx(shift**2 / n, rel=5 * math.sqrt(2 / chains))
    assert summarise(log_weight, 0.0).spread == pytest.approx(shift / math.sqrt(n), rel=0.05)


def test_forward_lies_below_and_reverse_above_on_average() -> None:
    """Both agree with log Z within their errors when chains are many, and enclose it in the mean when they are few."""
    path, betas = ExactMoves(4.0, -7.0), temperatures(8)
    below, above = [], []
    for seed in range(300):
        noise = ChainNoise(seed, 10)
        below.append(forward_estimate(path, betas, noise)[0].log_normaliser)
        above.append(reverse_estimate(path, 4.0 + noise.normal((1,))[:, 0].double(), betas, noise).log_normaliser)
    for values, sign in ((below, -1.0), (above, 1.0)):
        gap = sign * (np.mean(values) + 7.0)
        assert gap > 4 * np.std(values) / math.sqrt(len(values))
        assert gap < 0.5


def test_summary_of_known_weights() -> None:
    w = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
    found = summarise(w.log() + 4000.0, 1.5)
    assert found.log_normaliser == pytest.approx(4001.5 + math.log(3.0))
    assert found.effective_sample_size == pytest.approx(144 / 50)
    assert found.standard_error == pytest.approx(float(w.std()) / 3.0 / 2.0)
    above = np.log([3.0, 6.0]) - 0.5 * np.log(6.0)
    assert found.spread == pytest.approx(np.sqrt(np.square(above).mean()))
    assert summarise(w.log() - 4000.0, 1.5, reverse=True).log_normaliser == pytest.approx(4001.5 - math.log(3.0))


def test_standard_error_covers_log_z_in_repeated_runs() -> None:
    """Intervals of 1.96 standard errors hold the truth in about 95 of 100 runs, and their width is the real spread."""
    path, betas = ExactMoves(1.0, 2.0), temperatures(4)
    for reverse in (False, True):
        runs = []
        for seed in range(400):
            noise = ChainNoise(seed, 200)
            state = 1.0 + noise.normal((1,))[:, 0].double()
            found = reverse_estimate(path, state, betas, noise) if reverse else forward_estimate(path, betas, noise)[0]
            runs.append((found.log_normaliser, found.standard_error))
        value, error = np.array(runs).T
        covered = np.mean(np.abs(value - 2.0) < 1.96 * error)
        assert 0.91 < covered < 0.98
        assert np.mean(error) == pytest.approx(np.std(value), rel=0.12)


@pytest.mark.parametrize("bounds", [UNBOUNDED, (-3.0, 3.5)])
def test_hmc_path_between_gaussians_finds_log_z_from_both_sides(bounds: tuple[float, float]) -> None:
    """In a box the truth is the integral over the box, and the base is cut to it."""
    chains, betas = 400, temperatures(60)
    if bounds == UNBOUNDED:
        path, truth, state = gaussian_path(), TARGET_LOG_Z, draws_of_target(chains, 5)
    else:
        low, high = bounds
        base = UniformBase(2)
        sizes = StepSizes((0.0,), (0.1,))
        path = HamiltonianPath(base, lambda u: log_target(low + (high - low) * u), sizes, 3, (0.0, 1.0))
        inside = stats.norm.cdf(high, MEAN, SCALE) - stats.norm.cdf(low, MEAN, SCALE)
        truth = TARGET_LOG_Z + float(np.log(inside).sum()) - 2 * math.log(high - low)
        every = draws_of_target(2 * chains, 5)
        state = (every[((every > low) & (every < high)).all(1)][:chains] - low) / (high - low)
    forward, _ = forward_estimate(path, betas, ChainNoise(0, chains))
    reverse = reverse_estimate(path, path.at(state), betas, ChainNoise(1, chains))
    for found in (forward, reverse):
        assert found.standard_error < 0.1
        assert abs(found.log_normaliser - truth) < 3.5 * found.standard_error
    check_converged(forward, reverse)


def test_hmc_leaves_a_gaussian_invariant() -> None:
    """Draws of the target keep its moments and its law after many moves with a coarse step."""
    path, chains = gaussian_path(), 20_000
    noise, state = ChainNoise(1, chains), path.at(draws_of_target(chains, 0))
    accepted = []
    for _ in range(10):
        state, probability = path.transition(state, 1.0, 0.8, noise)
        accepted.append(float(probability.mean()))
    assert 0.5 < np.mean(accepted) < 0.97, "the Metropolis test must matter here"
    standard = (state.position - MEAN) / SCALE
    assert standard.mean(0).abs().max() < 4.5 / math.sqrt(chains)
    assert (standard.var(0) - 1).abs().max() < 4.5 * math.sqrt(2 / chains)
    assert stats.kstest(standard[:, 0].numpy(), "norm").pvalue > 1e-3


def test_hmc_in_a_box_leaves_the_cut_density_invariant() -> None:
    """exp(a x) on [0, 1]^2 by its distribution function; a step as long as the box meets both walls."""
    a, chains, sizes = 2.0, 20_000, StepSizes((0.0,), (0.7,))
    path = HamiltonianPath(UniformBase(2), lambda x: a * x.sum(1), sizes, 3, (0.0, 1.0))
    noise = ChainNoise(0, chains)
    state = path.at(torch.log1p(noise.uniform((2,)) * math.expm1(a)) / a)
    for _ in range(6):
        state = path.move(state, 1.0, noise)
    assert state.position.min() >= 0
    assert state.position.max() <= 1
    for x in state.position.T:
        assert stats.kstest(x.numpy(), lambda x: np.expm1(a * x) / math.expm1(a)).pvalue > 1e-3


@pytest.mark.parametrize("bounds", [UNBOUNDED, (-0.5, 0.8)])
def test_leapfrog_is_reversible_and_keeps_volume(bounds: tuple[float, float]) -> None:
    path = HamiltonianPath(
        GaussianBase(torch.zeros(2), torch.ones(2)),
        lambda x: -(x**4).sum(1) - (x[:, 0] * x[:, 1]).square(),
        StepSizes((0.0,), (0.3,)),
        leapfrog_steps=4,
        bounds=bounds,
    )
    x, p = torch.tensor([[0.3, -0.4], [0.7, 0.1]]).double(), torch.tensor([[1.3, -0.8], [2.0, 1.5]]).double()
    end, q = path.leapfrog(path.at(x), p, 0.7, 0.3)
    back, minus_p = path.leapfrog(end, -q, 0.7, 0.3)
    torch.testing.assert_close(back.position, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(-minus_p, p, rtol=0, atol=1e-12)

    def flow(z: Tensor) -> Tensor:
        found, momentum = path.leapfrog(path.at(z[None, :2]), z[None, 2:], 0.7, 0.3)
        return torch.cat((found.position, momentum), 1)[0]

    z, h = torch.cat((x[0], p[0])), 1e-6
    columns = [(flow(z + h * e) - flow(z - h * e)) / (2 * h) for e in torch.eye(4).double()]
    assert abs(float(torch.linalg.det(torch.stack(columns)))) == pytest.approx(1.0, abs=1e-6)


def test_transitions_are_in_detailed_balance() -> None:
    """Started from the target, pairs (x, x') and (x', x) are equally likely: counts of a 4 x 4 grid are symmetric."""
    path, chains = gaussian_path(0.8), 60_000
    state = path.at(draws_of_target(chains, 3))
    moved = path.move(state, 1.0, ChainNoise(4, chains))
    edges = MEAN[0] + SCALE[0] * torch.tensor([-0.7, 0.0, 0.7])
    before, after = (torch.bucketize(s.position[:, 0].contiguous(), edges) for s in (state, moved))
    counts = torch.bincount(4 * before + after, minlength=16).view(4, 4).double()
    rows, columns = torch.triu_indices(4, 4, 1)
    up, down = counts[rows, columns], counts[columns, rows]
    statistic = ((up - down).square() / (up + down)).sum()
    assert float(stats.chi2.sf(float(statistic), len(rows))) > 1e-3
    assert float((up + down).sum()) > 0.3 * chains


def test_fold_mirrors_at_both_walls() -> None:
    position, sign = fold(torch.tensor([-0.25, 0.5, 1.25, 2.25, -1.25]), (0.0, 1.0))
    torch.testing.assert_close(position, torch.tensor([0.25, 0.5, 0.75, 0.25, 0.75]))
    assert sign.tolist() == [-1.0, 1.0, -1.0, 1.0, 1.0]


def test_tuned_step_sizes_follow_the_width_and_are_accepted() -> None:
    """From scale 1 to scale 0.01: the step shrinks with it, and moves at both ends are accepted about as aimed for."""
    base, betas = GaussianBase(torch.zeros(8), torch.ones(8)), temperatures(150)

    def narrow(x: Tensor) -> Tensor:
        return -0.5 * (x / 0.01).square().sum(1)

    sizes = tune_step_sizes(base, narrow, betas, ChainNoise(0, 100), leapfrog_steps=3)
    assert sizes.at(0.0) > 20 * sizes.at(1.0)
    path = HamiltonianPath(base, narrow, sizes, 3)
    noise = ChainNoise(1, 500)
    for beta, scale in ((0.0, 1.0), (1.0, 0.01)):
        state = path.at(scale * noise.normal((8,)))
        _, acceptance = path.transition(state, beta, sizes.at(beta), noise)
        assert 0.5 < float(acceptance.mean()) < 0.85


def test_step_sizes_are_joined_by_lines() -> None:
    sizes = StepSizes((0.0, 0.5, 1.0), (4.0, 2.0, 1.0))
    assert [sizes.at(beta) for beta in (0.0, 0.25, 0.5, 0.9, 1.0)] == pytest.approx([4.0, 3.0, 2.0, 1.2, 1.0])


def test_too_short_a_schedule_is_reported() -> None:
    path, noise = ExactMoves(10.0, 0.0), ChainNoise(0, 100)

    def run(n: int) -> None:
        forward, _ = forward_estimate(path, temperatures(n), noise)
        state = 10.0 + noise.normal((1,))[:, 0].double()
        check_converged(forward, reverse_estimate(path, state, temperatures(n), noise))

    run(400)
    with pytest.raises(NotConverged, match=r"effective sample size of .* of 100 chains.* more temperatures"):
        run(4)
    with pytest.raises(NotConverged, match=r"spread of .* which takes about"):
        check_converged(AnnealedWeights(0.0, 0.1, 50.0, 2.5, 100), AnnealedWeights(0.0, 0.1, 50.0, 0.5, 100))


def test_directions_that_disagree_are_reported() -> None:
    """Reverse chains that start far from the target's mass give a log Z that the forward run contradicts."""
    good = AnnealedWeights(10.0, 0.1, 80.0, 0.5, 100)
    with pytest.raises(NotConverged, match=r"10\.00 forward and 12\.50 in reverse, 2\.50 nats apart"):
        check_converged(good, AnnealedWeights(12.5, 0.1, 80.0, 0.5, 100))
    with pytest.raises(NotConverged, match="not finite"):
        check_converged(good, summarise(torch.tensor([0.0, math.nan]), 0.0))


def test_normaliser_quotes_one_direction_and_records_both() -> None:
    forward, reverse = AnnealedWeights(10.0, 0.1, 80.0, 0.5, 100), AnnealedWeights(10.4, 0.2, 60.0, 0.5, 100)
    for direction, quoted in (("forward", forward), ("reverse", reverse)):
        found = annealed_normaliser(forward, reverse, direction, 1000)
        assert (found.value, found.standard_error) == (quoted.log_normaliser, quoted.standard_error)
        assert found.kind == "estimate"
        assert found.details["effective_sample_size"] == quoted.effective_sample_size
        assert found.details["log_normaliser_forward"] == 10.0
        assert found.details["log_normaliser_reverse"] == 10.4


def test_misuse_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 temperature"):
        temperatures(0)
    with pytest.raises(UsageError, match="at least 2 chains"):
        summarise(torch.zeros(1), 0.0)
    with pytest.raises(UsageError, match="at least 1 leapfrog step"):
        HamiltonianPath(UniformBase(1), log_target, StepSizes((0.0,), (1.0,)), 0)
    with pytest.raises(UsageError, match="two finite walls"):
        HamiltonianPath(UniformBase(1), log_target, StepSizes((0.0,), (1.0,)), 1, (0.0, math.inf))
