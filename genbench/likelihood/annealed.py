"""log Z of an unnormalised density by annealed importance sampling, forward and in reverse.

A path f_b, 0 <= b <= 1, leads from a base f_0 with a known integral Z_0 to the target f_1. A chain starts at an exact
draw of the base and visits the temperatures 0 = b_0 < b_1 < ... < b_n = 1. At each it multiplies its weight w by the
ratio f_{b_k}(x) / f_{b_{k-1}}(x), then moves by a transition that leaves f_{b_k} invariant. Then E[w] = Z_1 / Z_0, so
that by Jensen's inequality the logarithm of the mean of M weights lies below log Z_1 on average (R. Neal, "Annealed
Importance Sampling", Statistics and Computing 2001; for RBMs R. Salakhutdinov and I. Murray, ICML 2008). log P of
images comes out too high with it.

The same chain run from an exact draw of the target back to the base has E[w] = Z_0 / Z_1, and gives a log Z_1 that lies
above on average (Y. Burda, R. Grosse and R. Salakhutdinov, "Accurate and Conservative Estimates of MRF
Log-likelihood using Reverse Annealing", AISTATS 2015; R. Grosse, Z. Ghahramani and R. Adams, "Sandwiching the
Marginal Likelihood using Bidirectional Monte Carlo", 2015). It needs transitions that are reversible (block Gibbs
seen on the visible units alone, and Metropolis-corrected HMC, are). Draws of a trained model are approximate, so that
this side is a bound only as far as they are good.

Memory is that of M chains, whatever the number of temperatures. Weights are summed in float64.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import torch
from torch import Tensor

from genbench.api import Kind, LogNormaliser
from genbench.errors import NotConverged, UsageError

State = TypeVar("State")
Schedule = Literal["linear", "sigmoid"]

MIN_EFFECTIVE_CHAINS = 10.0
"""Below it the standard error of log Z exceeds 0.3 nats (it is about 1 / sqrt(ESS)) and rests on so few chains that it
is itself no longer to be believed; the bias by Jensen's inequality is about 1 / (2 ESS)."""
MAX_GAP_NATS = 1.0
"""Largest distance of the two directions, which enclose log Z on average."""


class Noise(Protocol):
    """Random numbers for a batch of chains: `genbench.noise.NoiseSource`, or the faster `ChainNoise`."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """(M, *shape) float32 on [0, 1)."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(M, *shape) float32."""


class ChainNoise:
    """Random numbers for ``chains`` chains from one generator: reproducible as a whole, not chain by chain."""

    def __init__(self, seed: int, chains: int, device: torch.device | str = "cpu") -> None:
        self._rng = torch.Generator(device).manual_seed(seed)
        self._chains = chains

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """(M, *shape) float32 on [0, 1)."""
        return torch.rand((self._chains, *shape), generator=self._rng, device=self._rng.device)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(M, *shape) float32."""
        return torch.randn((self._chains, *shape), generator=self._rng, device=self._rng.device)


class AnnealingPath(Protocol[State]):
    """Densities f_b between a base and a target, with transitions. A state holds all M chains, in any form."""

    @property
    def log_base_normaliser(self) -> float:
        """log Z_0 in nats."""

    def start(self, noise: Noise) -> State:
        """M exact draws of the base."""

    def log_ratio(self, state: State, beta: float, next_beta: float) -> Tensor:
        """(M,) float64, log f_{next_beta}(x) - log f_beta(x)."""

    def move(self, state: State, beta: float, noise: Noise) -> State:
        """A transition that leaves f_beta invariant; reversible, where the path is to be run in reverse."""


@dataclass(frozen=True)
class AnnealedWeights:
    """log Z as one direction of the path gives it, from the M log weights."""

    log_normaliser: float
    standard_error: float
    """Of log Z in nats, by the delta method: sqrt(1 / ESS - 1 / M) up to M / (M - 1)."""
    effective_sample_size: float
    """(sum w)^2 / sum w^2, between 1 and M."""
    spread: float
    """Of the log weights above their median, which make up the mean: their root mean square distance from it, the
    standard deviation where they are normal."""
    chains: int


def temperatures(count: int, schedule: Schedule = "linear", steepness: float = 4.0) -> tuple[float, ...]:
    """The ``count`` + 1 values 0 = b_0 < ... < b_count = 1.

    linear: evenly spaced. sigmoid: dense at both ends, the logistic function on evenly spaced points of
    [-steepness, steepness], shifted and scaled to end at 0 and 1.

    Raises:
        UsageError: fewer than one temperature, or a steepness that is not positive.
    """
    if count < 1 or steepness <= 0:
        raise UsageError(
            f"An annealing path takes at least 1 temperature and a positive steepness, got {count} and {steepness}."
        )
    position = torch.linspace(0.0, 1.0, count + 1, dtype=torch.float64)
    if schedule == "sigmoid":
        curve = torch.sigmoid(steepness * (2.0 * position - 1.0))
        position = (curve - curve[0]) / (curve[-1] - curve[0])
    return tuple(position.tolist())


def anneal(path: AnnealingPath[State], state: State, betas: Sequence[float], noise: Noise) -> tuple[Tensor, State]:
    """Run the chains along ``betas``, in either direction; returns their log weights, (M,) float64, and the end states.

    There is no move at the last temperature, whose density no later ratio needs.
    """
    log_weight = path.log_ratio(state, betas[0], betas[1])
    for beta, next_beta in itertools.pairwise(betas[1:]):
        state = path.move(state, beta, noise)
        log_weight = log_weight + path.log_ratio(state, beta, next_beta)
    return log_weight, state


def summarise(log_weight: Tensor, log_base_normaliser: float, reverse: bool = False) -> AnnealedWeights:
    """log Z from the log weights of a forward run, or of one in reverse, with its Monte Carlo error.

    Weights that are not finite give figures that are not, which `check_converged` refuses.

    Raises:
        UsageError: fewer than two chains, which have no spread.
    """
    chains = len(log_weight)
    if chains < 2:
        raise UsageError(f"An error estimate needs at least 2 chains, got {chains}.")
    log_sum = torch.logsumexp(log_weight, 0)
    log_mean = float(log_sum) - math.log(chains)
    ess = float(torch.exp(2.0 * log_sum - torch.logsumexp(2.0 * log_weight, 0)))
    relative_variance = (chains / ess - 1.0) * chains / (chains - 1)
    return AnnealedWeights(
        log_base_normaliser + (-log_mean if reverse else log_mean),
        math.sqrt(max(0.0, relative_variance) / chains),
        ess,
        _upper_spread(log_weight),
        chains,
    )


def _upper_spread(log_weight: Tensor) -> float:
    middle = torch.quantile(log_weight, 0.5)
    return float((log_weight[log_weight >= middle] - middle).square().mean().sqrt())


def forward_estimate(path: AnnealingPath[State], betas: Sequence[float], noise: Noise) -> tuple[AnnealedWeights, State]:
    """log Z from the base to the target, too low on average; also the end states, which approach the target."""
    log_weight, state = anneal(path, path.start(noise), betas, noise)
    return summarise(log_weight, path.log_base_normaliser), state


def reverse_estimate(path: AnnealingPath[State], state: State, betas: Sequence[float], noise: Noise) -> AnnealedWeights:
    """log Z from draws of the target (``state``) to the base, too high on average if the draws are exact.

    ``betas`` are those of the forward run, rising.
    """
    log_weight, _ = anneal(path, state, tuple(reversed(betas)), noise)
    return summarise(log_weight, path.log_base_normaliser, reverse=True)


def check_converged(forward: AnnealedWeights, reverse: AnnealedWeights) -> None:
    """Accept an estimate only if enough chains carry weight in both directions, and the two agree.

    Chains with log weights of spread s need, for a mean that includes the rare heavy ones, about exp(s^2 / 2 + s) of
    them (S. Chatterjee and P. Diaconis, "The sample size required in importance sampling", 2018, for normal log
    weights); with fewer, the effective sample size only tells about the light ones. Light weights do no harm, however
    far they spread.

    Raises:
        NotConverged: says which test failed, with the figures, and what to raise.
    """
    for name, found in (("forward", forward), ("reverse", reverse)):
        if not math.isfinite(found.spread):
            raise NotConverged(f"a weight of the {name} run is not finite: the density overflows along the path.")
        ess, needed = found.effective_sample_size, math.exp(min(700.0, found.spread**2 / 2 + found.spread))
        if ess < MIN_EFFECTIVE_CHAINS:
            raise NotConverged(
                f"the {name} run has an effective sample size of {ess:.1f} of {found.chains} chains, at least "
                f"{MIN_EFFECTIVE_CHAINS:.0f} are needed; use more temperatures or more chains."
            )
        if needed > found.chains:
            raise NotConverged(
                f"the log weights of the {name} run have a spread of {found.spread:.1f} nats, which takes about "
                f"{needed:.0f} chains where {found.chains} ran; use more temperatures."
            )
    gap = reverse.log_normaliser - forward.log_normaliser
    if abs(gap) > MAX_GAP_NATS:
        raise NotConverged(
            f"log Z is {forward.log_normaliser:.2f} forward and {reverse.log_normaliser:.2f} in reverse, "
            f"{abs(gap):.2f} nats apart where at most {MAX_GAP_NATS:g} is trusted; use more temperatures."
        )


def annealed_normaliser(
    forward: AnnealedWeights, reverse: AnnealedWeights, direction: Literal["forward", "reverse"], num_temperatures: int
) -> LogNormaliser:
    """What a model returns from `log_normaliser`: the value of one direction, the other in the details.

    Raises:
        NotConverged: see `check_converged`.
    """
    check_converged(forward, reverse)
    quoted = forward if direction == "forward" else reverse
    kind: Kind = "estimate"
    details = {
        "chains": float(quoted.chains),
        "temperatures": float(num_temperatures),
        "effective_sample_size": quoted.effective_sample_size,
        "log_normaliser_forward": forward.log_normaliser,
        "log_normaliser_reverse": reverse.log_normaliser,
    }
    return LogNormaliser(quoted.log_normaliser, quoted.standard_error, kind, details)
