"""Hamiltonian Monte Carlo along an annealing path between differentiable densities.

R. Neal, "MCMC using Hamiltonian dynamics", Handbook of Markov Chain Monte Carlo, 2011: leapfrog steps (section 5.2.3),
a Metropolis test of the end point (5.3.2). Walls of a box are handled exactly: between two kicks the particle flies
freely and is mirrored at each wall it meets, which keeps volume and can be undone, so the transition stays reversible.

Step sizes are found on a preliminary run, one for each temperature, and frozen: chains that adapted while they are
measured would not leave the densities invariant.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from genbench.errors import UsageError
from genbench.likelihood.annealed import Noise

Bounds = tuple[float, float]
LogDensity = Callable[[Tensor], Tensor]
UNBOUNDED: Bounds = (-math.inf, math.inf)
TARGET_ACCEPTANCE = 0.65
"""Share of accepted moves that step sizes are tuned to (Neal 2011, section 5.4.4)."""
_ADAPTATION_RATE = 0.3
_WARM_UP_MOVES = 50


class Base(Protocol):
    """Where a path starts: a density with a known integral that can be drawn from."""

    @property
    def log_normaliser(self) -> float:
        """log of the integral of exp(`log_density`), in nats."""

    def draw(self, noise: Noise) -> Tensor:
        """(M, D) float32."""

    def log_density(self, x: Tensor) -> Tensor:
        """(M, D) to (M,), up to the normaliser; differentiable."""


@dataclass(frozen=True)
class UniformBase:
    """The uniform density on the cube [0, 1]^D."""

    dims: int
    log_normaliser: float = 0.0

    def draw(self, noise: Noise) -> Tensor:
        """(M, D) float32."""
        return noise.uniform((self.dims,))

    def log_density(self, x: Tensor) -> Tensor:
        """(M,) zeros."""
        return 0.0 * x.sum(1)


@dataclass(frozen=True)
class GaussianBase:
    """A normal density with independent values, on all of R^D. mean, scale: (D,)."""

    mean: Tensor
    scale: Tensor

    @property
    def log_normaliser(self) -> float:
        """D/2 log 2 pi + sum log scale."""
        return float(0.5 * len(self.mean) * math.log(2.0 * math.pi) + self.scale.double().log().sum())

    def draw(self, noise: Noise) -> Tensor:
        """(M, D) float32."""
        return self.mean + self.scale * noise.normal((len(self.mean),))

    def log_density(self, x: Tensor) -> Tensor:
        """(M,), without the normaliser."""
        return -0.5 * ((x - self.mean) / self.scale).square().sum(1)


@dataclass(frozen=True)
class Particles:
    """M positions (M, D) with both ends' log densities (M,) and their gradients (M, D)."""

    position: Tensor
    log_base: Tensor
    log_target: Tensor
    base_gradient: Tensor
    target_gradient: Tensor

    def log_density(self, beta: float) -> Tensor:
        """(M,) float64."""
        return (1.0 - beta) * self.log_base.double() + beta * self.log_target.double()

    def gradient(self, beta: float) -> Tensor:
        """(M, D)."""
        return (1.0 - beta) * self.base_gradient + beta * self.target_gradient


@dataclass(frozen=True)
class StepSizes:
    """A leapfrog step size for each temperature, joined by straight lines and constant beyond the ends."""

    betas: tuple[float, ...]
    sizes: tuple[float, ...]

    def at(self, beta: float) -> float:
        """The step size at ``beta``."""
        right = bisect.bisect_left(self.betas, beta)
        if right == 0 or right == len(self.betas):
            return self.sizes[min(right, len(self.betas) - 1)]
        low, high = self.betas[right - 1], self.betas[right]
        share = (beta - low) / (high - low)
        return (1.0 - share) * self.sizes[right - 1] + share * self.sizes[right]


def fold(position: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """Where a free flight to ``position`` ends between mirrors at ``bounds``, and the sign that momenta leave with."""
    low, high = bounds
    if math.isinf(low) and math.isinf(high):
        return position, torch.ones_like(position)
    width = high - low
    phase = torch.remainder(position - low, 2.0 * width)
    mirrored = phase > width
    return low + torch.where(mirrored, 2.0 * width - phase, phase), torch.where(mirrored, -1.0, 1.0)


class HamiltonianPath:
    """The geometric path f_b = f_0^(1 - b) f_1^b, moved along by HMC; an `AnnealingPath` of `Particles`.

    Args:
        base: where the path starts.
        log_target: (M, D) to (M,) log f_1, differentiable; each chain's value depends on its own row alone.
        step_sizes: frozen step sizes, as `tune_step_sizes` finds them.
        leapfrog_steps: steps of a move; each costs one gradient of the target.
        bounds: the walls of a cube, or `UNBOUNDED`.

    Raises:
        UsageError: fewer than one leapfrog step, or bounds with one side open.
    """

    def __init__(
        self,
        base: Base,
        log_target: LogDensity,
        step_sizes: StepSizes,
        leapfrog_steps: int = 5,
        bounds: Bounds = UNBOUNDED,
    ) -> None:
        if leapfrog_steps < 1:
            raise UsageError(f"HMC takes at least 1 leapfrog step a move, got {leapfrog_steps}.")
        if bounds != UNBOUNDED and not (math.isfinite(bounds[0]) and bounds[0] < bounds[1] < math.inf):
            raise UsageError(f"HMC takes two finite walls in rising order or none, got {bounds}.")
        self.base, self.log_target = base, log_target
        self.step_sizes, self.leapfrog_steps, self.bounds = step_sizes, leapfrog_steps, bounds

    @property
    def log_base_normaliser(self) -> float:
        """log Z_0 in nats."""
        return self.base.log_normaliser

    def start(self, noise: Noise) -> Particles:
        """M exact draws of the base."""
        return self.at(self.base.draw(noise))

    def at(self, position: Tensor) -> Particles:
        """Particles at given positions (M, D)."""
        log_base, base_gradient = _with_gradient(self.base.log_density, position)
        log_target, target_gradient = _with_gradient(self.log_target, position)
        return Particles(position, log_base, log_target, base_gradient, target_gradient)

    def log_ratio(self, state: Particles, beta: float, next_beta: float) -> Tensor:
        """(M,) float64, log f_{next_beta}(x) - log f_beta(x)."""
        return (next_beta - beta) * (state.log_target.double() - state.log_base.double())

    def move(self, state: Particles, beta: float, noise: Noise) -> Particles:
        """One HMC transition, which leaves f_beta invariant and is reversible."""
        return self.transition(state, beta, self.step_sizes.at(beta), noise)[0]

    def transition(self, state: Particles, beta: float, step_size: float, noise: Noise) -> tuple[Particles, Tensor]:
        """A move with a given step size, and each chain's probability of acceptance (M,) float64."""
        dims = state.position.shape[1]
        momentum = noise.normal((dims,)).to(state.position.dtype)
        proposal, end = self.leapfrog(state, momentum, beta, step_size)
        before = state.log_density(beta) - 0.5 * momentum.double().square().sum(1)
        after = proposal.log_density(beta) - 0.5 * end.double().square().sum(1)
        acceptance = torch.nan_to_num(torch.exp((after - before).clamp(max=0.0)), nan=0.0)
        accepted = noise.uniform((1,))[:, 0] < acceptance
        return _choose(accepted, proposal, state), acceptance

    def leapfrog(self, state: Particles, momentum: Tensor, beta: float, step_size: float) -> tuple[Particles, Tensor]:
        """`leapfrog_steps` leapfrog steps with unit masses; running them again with -momentum leads back."""
        for _ in range(self.leapfrog_steps):
            momentum = momentum + 0.5 * step_size * state.gradient(beta)
            position, sign = fold(state.position + step_size * momentum, self.bounds)
            state = self.at(position)
            momentum = sign * momentum + 0.5 * step_size * state.gradient(beta)
        return state, momentum


def tune_step_sizes(
    base: Base,
    log_target: LogDensity,
    betas: Sequence[float],
    noise: Noise,
    *,
    leapfrog_steps: int = 5,
    bounds: Bounds = UNBOUNDED,
    initial: float = 0.1,
) -> StepSizes:
    """Step sizes for `HamiltonianPath` from a preliminary run along ``betas``.

    After each move the logarithm of the step size goes up or down by the mean acceptance's distance from
    `TARGET_ACCEPTANCE`. The run's weights are thrown away.
    """
    path = HamiltonianPath(base, log_target, StepSizes((0.0,), (initial,)), leapfrog_steps, bounds)
    state, log_size, sizes = path.start(noise), math.log(initial), []
    for beta in (*[betas[0]] * _WARM_UP_MOVES, *betas):
        state, acceptance = path.transition(state, beta, math.exp(log_size), noise)
        sizes.append(math.exp(log_size))
        log_size += _ADAPTATION_RATE * (float(acceptance.mean()) - TARGET_ACCEPTANCE)
        if bounds != UNBOUNDED:
            log_size = min(log_size, math.log(bounds[1] - bounds[0]))
    return StepSizes(tuple(betas), tuple(sizes[_WARM_UP_MOVES:]))


def _with_gradient(function: LogDensity, position: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = position.detach().requires_grad_()
        value = function(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def _choose(accepted: Tensor, new: Particles, old: Particles) -> Particles:
    """Row by row, the new particle where it is accepted."""
    rows = accepted[:, None]
    return Particles(
        torch.where(rows, new.position, old.position),
        torch.where(accepted, new.log_base, old.log_base),
        torch.where(accepted, new.log_target, old.log_target),
        torch.where(rows, new.base_gradient, old.base_gradient),
        torch.where(rows, new.target_gradient, old.target_gradient),
    )
