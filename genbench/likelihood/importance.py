"""The ELBO and importance-weighted bounds of a latent-variable model, in memory that does not grow with the draws.

    ELBO(x) = E_q [log w], w = p(x, z) / q(z | x)                              (Kingma and Welling, ICLR 2014, eq. 2)
    L_k(x) = E_q [log 1/k sum_i w_i], z_1 .. z_k ~ q(z | x)                (Burda et al., "Importance Weighted
    L_1 = ELBO <= L_k <= L_{k+1} <= log P(x)                                Autoencoders", ICLR 2016, eq. 8, thm. 1)

A model gives log weights as a `Draws`: a function that makes the next c draws of every image of a batch. The bounds
call it until they have as many as the estimator's name says, "elbo" or "iwae-K". Draw i is to be made from noise draw
i, whatever c is, so that chunks change nothing but rounding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from genbench.api import LogLikelihood
from genbench.errors import UsageError, unknown

Draws = Callable[[int], Tensor]
"""c to (c, B) log weights in nats, those of the next c draws."""

ELBO_DRAWS = 16
"""Draws that "elbo" is the mean of."""

CHUNK_VALUES = 2**19
"""Values that a chunk's largest tensor should hold: 2 MiB of float32, which a processor's cache keeps."""


def estimators(importance_draws: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the importance-weighted bounds with so many draws, as listed, then of the ELBO."""
    return (*(f"iwae-{draws}" for draws in importance_draws), "elbo")


def num_importance_draws(estimator: str) -> int | None:
    """K of "iwae-K", or None for another name."""
    match = re.fullmatch(r"iwae-([1-9]\d*)", estimator)
    return None if match is None else int(match[1])


def chunk_size(values_per_draw: int) -> int:
    """Draws of one chunk, for a largest tensor of ``values_per_draw`` values a draw (all images together)."""
    return max(1, CHUNK_VALUES // values_per_draw)


class LogMeanExp:
    """Streaming log 1/k sum_i w_i per image of log weights, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.peak = torch.tensor(-math.inf, dtype=torch.float64)
        self.sum = self.sum_of_squares = torch.tensor(0.0, dtype=torch.float64)

    def add(self, log_w: Tensor) -> None:
        """Add draws (c, B), in nats."""
        log_w = log_w.cpu().double()
        peak = torch.maximum(self.peak, log_w.max(0).values)
        finite = peak.masked_fill(peak == -math.inf, 0.0)
        scale, w = torch.exp(self.peak - finite), torch.exp(log_w - finite)
        self.sum = self.sum * scale + w.sum(0)
        self.sum_of_squares = self.sum_of_squares * scale**2 + (w**2).sum(0)
        self.peak, self.count = peak, self.count + len(log_w)

    def value(self) -> Tensor:
        """(B,) nats."""
        return self.peak + torch.log(self.sum / self.count)

    def standard_error(self) -> Tensor | None:
        """(B,) nats by the delta method, sd(w) / (sqrt(k) mean(w)); None for a single draw.

        It does not see the bound's bias, and is too small where one weight rules.
        """
        if self.count < 2:
            return None
        relative = self.count * self.sum_of_squares / self.sum**2 - 1.0
        return (relative.clamp(min=0) / (self.count - 1)).sqrt()


class Mean:
    """Streaming mean per image, in float64, with its standard error (Chan, Golub and LeVeque 1983, eq. 1.5)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.tensor(0.0, dtype=torch.float64)

    def add(self, draws: Tensor) -> None:
        """Add draws (c, B), in nats."""
        draws = draws.cpu().double()
        total, mean = self.count + len(draws), draws.mean(0)
        moved = mean - self.mean
        self.squares = self.squares + ((draws - mean) ** 2).sum(0) + moved**2 * (self.count * len(draws) / total)
        self.mean, self.count = self.mean + moved * (len(draws) / total), total

    def standard_error(self) -> Tensor | None:
        """(B,) nats; None for a single draw."""
        return (self.squares / (self.count - 1) / self.count).sqrt() if self.count > 1 else None


def in_chunks(draws: Draws, num_draws: int, chunk: int) -> Iterator[Tensor]:
    """``num_draws`` draws, at most ``chunk`` at a time.

    Raises:
        UsageError: fewer than one draw.
    """
    if num_draws < 1:
        raise UsageError(f"A bound needs at least one draw, got {num_draws}. Give a positive number of draws.")
    for start in range(0, num_draws, chunk):
        yield draws(min(chunk, num_draws - start))


def importance_weights(log_weights: Draws, num_draws: int, chunk: int) -> LogMeanExp:
    """The weights of ``num_draws`` draws: the bound, its standard error, and the effective sample size."""
    weights = LogMeanExp()
    for log_w in in_chunks(log_weights, num_draws, chunk):
        weights.add(log_w)
    return weights


def importance_weighted_bound(log_weights: Draws, num_draws: int, chunk: int) -> LogLikelihood:
    """L_k of every image, one estimate from k = ``num_draws`` draws, named "iwae-k"."""
    weights = importance_weights(log_weights, num_draws, chunk)
    return LogLikelihood(weights.value(), "lower_bound", f"iwae-{num_draws}", weights.standard_error())


def mean_bound(elbo: Draws, num_draws: int, chunk: int) -> LogLikelihood:
    """The ELBO of every image, the mean of ``num_draws`` draws of a variable with that expectation."""
    mean = Mean()
    for draws in in_chunks(elbo, num_draws, chunk):
        mean.add(draws)
    return LogLikelihood(mean.mean, "lower_bound", "elbo", mean.standard_error())


def variational_bound(estimator: str, elbo: Draws, log_weights: Draws, chunk: int, model: str) -> LogLikelihood:
    """The bound that ``estimator`` names, in chunks of ``chunk`` draws.

    Args:
        elbo: draws whose expectation is the ELBO, such as log p(x | z) - KL with the KL in closed form.
        log_weights: draws of log p(x, z) - log q(z | x).
        model: whose estimator it is, for the error.

    Raises:
        UsageError: an estimator that is neither "elbo" nor "iwae-K" with K >= 1.
    """
    if estimator == "elbo":
        return mean_bound(elbo, ELBO_DRAWS, chunk)
    num_draws = num_importance_draws(estimator)
    if num_draws is None:
        raise unknown(f"estimator of {model}", estimator, ("elbo", "iwae-K with a number K"))
    return importance_weighted_bound(log_weights, num_draws, chunk)
