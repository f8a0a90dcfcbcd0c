"""Dequantisation: a density of continuous images as a lower bound on the probability of discrete ones.

An image of levels k in 0..K-1 becomes y = (k + u) / K with u in [0, 1)^D. A density p of y gives
P(k) = K^-D int p((k + u) / K) du, and for any density q(u | k) on the unit cube

    log P(k) >= E_q[log p(y) - log q(u | k)] - D log K                                                           (1)
    log P(k) >= E_q[log 1/n sum_i p(y_i) / q(u_i | k)] - D log K, u_1 .. u_n drawn from q                        (2)

Uniform q is Theis et al., "A note on the evaluation of generative models" (ICLR 2016, section 3.1); a learned q is Ho
et al., "Flow++" (ICML 2019, section 3.1, equations (10) to (12)). (1) is an equality where q is the posterior of u; (2)
is the importance-weighted bound of Burda et al. (ICLR 2016, equation (8)), tighter as n grows.

A density that gives mass to y outside [0, 1)^D makes P sum to less than one: still a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from genbench.api import LogLikelihood
from genbench.errors import UsageError, unknown
from genbench.images import dequantise, dequantised_log_offset
from genbench.noise import NoiseSource

LogDensity = Callable[[Tensor], Tensor]
"""y (B, C, H, W) in [0, 1) to log p(y) in nats, (B,)."""

Method = Literal["uniform", "variational"]


class Dequantiser(Protocol):
    """A density q(u | k) on the unit cube that can be drawn from and evaluated, as a map of uniform noise."""

    def __call__(self, levels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Levels k (B, C, H, W) int64 and uniform noise of that shape to u in [0, 1) and log q(u | k), (B,) nats."""


class UniformDequantiser(nn.Module):
    """q(u | k) = 1: the noise itself."""

    def forward(self, levels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """u = noise, log q = 0."""
        return noise, noise.new_zeros(len(levels))


UNIFORM = UniformDequantiser()


def estimators(draws: int, method: Method = "uniform") -> tuple[str, str]:
    """Names of the bounds (1) and (2) with ``draws`` draws, (1) first."""
    name = "dequantised" if method == "uniform" else "dequantised-variational"
    return name, f"{name}-iw-{draws}"


def dequantised_log_prob(
    log_density: LogDensity, levels: Tensor, noise: Tensor, num_levels: int, dequantiser: Dequantiser = UNIFORM
) -> Tensor:
    """log p(y) - log q(u | k) - D log K for one draw of u, in expectation a lower bound on log P(k); (B,) nats.

    Args:
        levels: k, (B, C, H, W) int64.
        noise: uniform on [0, 1), of the shape of ``levels``.
    """
    u, log_q = dequantiser(levels, noise)
    log_p = log_density(dequantise(levels, u, num_levels))
    return log_p - log_q + dequantised_log_offset(levels[0].numel(), num_levels)


def dequantised_log_likelihood(
    log_density: LogDensity,
    levels: Tensor,
    noise: NoiseSource,
    estimator: str,
    draws: int,
    num_levels: int,
    *,
    dequantiser: Dequantiser = UNIFORM,
    method: Method = "uniform",
) -> LogLikelihood:
    """A lower bound on log P(k) per image, with the standard error over the draws.

    The density sees one draw of the batch at a time, so memory does not grow with ``draws``. The error of the
    importance-weighted bound is by the delta method; its bias, downwards, is part of the bound.

    Args:
        levels: k, (B, C, H, W) int64.
        estimator: one of `estimators` (draws, method).
        draws: n >= 2.

    Raises:
        UsageError: an unknown estimator, or fewer than two draws.
    """
    mean, weighted = estimators(draws, method)
    if estimator not in (mean, weighted):
        raise unknown("likelihood estimator", estimator, (mean, weighted))
    if draws < 2:
        raise UsageError(f"A dequantisation bound needs at least 2 draws for its standard error, got {draws}.")
    shape = tuple(levels.shape[1:])
    passes = (
        dequantised_log_prob(log_density, levels, noise.uniform(shape), num_levels, dequantiser) for _ in range(draws)
    )
    log_w = torch.stack([log_weight.double() for log_weight in passes])  # (draws, B)
    if estimator == mean:
        nats, error = log_w.mean(0), log_w.std(0) / math.sqrt(draws)
    else:
        nats = torch.logsumexp(log_w, 0) - math.log(draws)
        error = torch.exp(log_w - nats).std(0) / math.sqrt(draws)
    return LogLikelihood(nats=nats, kind="lower_bound", estimator=estimator, standard_error=error)


def logit_transform(y: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """x = logit(a + (1 - 2a) y) of y (B, ...) in [0, 1], and log |det dx/dy| (B,)."""
    p = alpha + (1 - 2 * alpha) * y
    log_det = math.log(1 - 2 * alpha) - torch.log(p) - torch.log1p(-p)
    return torch.log(p) - torch.log1p(-p), log_det.flatten(1).sum(1)


def inverse_logit_transform(x: Tensor, alpha: float) -> Tensor:
    """y = (sigmoid(x) - a) / (1 - 2a), outside [0, 1] where a model puts mass beyond the image's range."""
    return (torch.sigmoid(x) - alpha) / (1 - 2 * alpha)
