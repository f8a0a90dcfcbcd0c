"""DDPM: denoising diffusion probabilistic models.

Paper: Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020 (equation numbers below are
theirs). Reference code: hojonathanho/diffusion. DDIM, the deterministic solver offered beside the ancestral one and
used to encode and decode: Song, Meng and Ermon, "Denoising Diffusion Implicit Models", ICLR 2021, eq. 12.

Forward: q(x_t | x_0) = N(sqrt(abar_t) x0, 1 - abar_t) (4), with alphas_cumprod abar_0 = 1 > abar_1 > ... > abar_T.
Reverse: p(x_{t-1} | x_t) = N(mu_t(xt, x0(xt)), sigma_t^2), mu_t the posterior mean (7) at the network's estimate of
x0. Training minimises the simple loss (14); the likelihood is the bound (5) with the discrete decoder (13).

Deviations, the first two by config:
- `prediction = "v"` regresses v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans and Ho 2022) in place of eps.
- `schedule = "cosine"` is that of Nichol and Dhariwal (2021). "linear" is the paper's, its ends scaled by 1000 / T.
- The network is told t as 1000 (t - 1) / T, so that its embedding sees one range whatever T; at T = 1000 the paper's.

Two likelihoods: `vlb`, the bound (5), of the chain that is sampled from; and with `ode_steps`, `ode`, of the
probability-flow ODE with the same network (Song et al., "Score-Based Generative Modeling through SDEs", ICLR 2021,
section 4.3 and eq. 39), another model of the data, whose samples are DDIM's in the limit of many steps.

The estimate of x0 is clipped to [-1, 1] where `clip_x0`, in one function that sampling and the bound share: the
bound is of the chain that is sampled from, except for the last step, which shows the mean (algorithm 2) where L_0
scores a discretised normal around it (13). A respaced chain (fewer steps) is another model; it has no bound here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.special import log_ndtr

from baselines.nets.unet import UNet
from genbench import images
from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.likelihood.ode import Divergence, exact_divergence, hutchinson_divergence, solve_with_divergence
from genbench.noise import NoiseSource

SOLVERS = ("ddpm", "ddim")
VALIDATION_TIMES = 8
REPEATED_TERMS = 16


class DDPMConfig(ModelConfig):
    """The paper's CIFAR-10 model by default."""

    timesteps: int = Field(1000, ge=2)
    """T, the length of the chain."""
    schedule: Literal["linear", "cosine"] = "linear"
    prediction: Literal["eps", "v"] = "eps"
    """What the network's output estimates."""
    reverse_variance: Literal["beta", "posterior"] = "beta"
    """sigma_t^2 of the reverse process (section 3.2): beta_t, or that of q(x_{t-1} | x_t, x_0)."""
    clip_x0: bool = True
    channels: int = Field(128, ge=1)
    multipliers: tuple[int, ...] = Field((1, 2, 2, 2), min_length=1)
    blocks: int = Field(2, ge=1)
    attention_resolutions: tuple[int, ...] = (16,)
    """Image heights, in pixels, at which every block is followed by self-attention; the middle always is."""
    dropout: float = Field(0.1, ge=0, lt=1)
    learning_rate: float = Field(2e-4, gt=0)
    latent_steps: int = Field(50, ge=1)
    """DDIM steps of `encode` and `decode`."""
    ode_steps: int = Field(0, ge=0)
    """Runge-Kutta steps of the probability-flow ODE's likelihood; 0 offers none."""
    ode_trace: Literal["hutchinson", "exact"] = "hutchinson"
    """Trace of the ODE's Jacobian: one Rademacher draw a solve, or D vector-Jacobian products a step."""


@dataclass(frozen=True)
class Chain:
    """A chain x_0, ..., x_S over some times of the full one, with ``times[0] = 0`` and ``alphas_cumprod[0] = 1``."""

    times: tuple[int, ...]
    alphas_cumprod: tuple[float, ...]

    def __len__(self) -> int:
        """S, the number of steps."""
        return len(self.times) - 1

    def scales(self, i: int) -> tuple[float, float]:
        """sqrt(abar_i) and sqrt(1 - abar_i): x_i = a x_0 + s eps (4)."""
        return math.sqrt(self.alphas_cumprod[i]), math.sqrt(1.0 - self.alphas_cumprod[i])

    def beta(self, i: int) -> float:
        """Variance of q(x_i | x_{i-1})."""
        return 1.0 - self.alphas_cumprod[i] / self.alphas_cumprod[i - 1]

    def posterior(self, i: int) -> tuple[float, float, float]:
        """(c0, ct, variance) with q(x_{i-1} | x_i, x_0) = N(c0 x_0 + ct x_i, variance) (6, 7)."""
        before, after, beta = self.alphas_cumprod[i - 1], self.alphas_cumprod[i], self.beta(i)
        c0 = math.sqrt(before) * beta / (1.0 - after)
        ct = math.sqrt(1.0 - beta) * (1.0 - before) / (1.0 - after)
        return c0, ct, beta * (1.0 - before) / (1.0 - after)

    def respaced(self, steps: int) -> Chain:
        """The chain over ``steps`` evenly spaced times tau_i = round(i T / S), which ends at T (DDIM, appendix D.2)."""
        chosen = [round(i * len(self) / steps) for i in range(steps + 1)]
        return Chain(tuple(self.times[i] for i in chosen), tuple(self.alphas_cumprod[i] for i in chosen))


def make_chain(timesteps: int, schedule: str) -> Chain:
    """The full chain of T steps, in float64; betas are at most 0.999."""
    t = torch.arange(timesteps + 1, dtype=torch.float64)
    if schedule == "linear":
        betas = torch.linspace(1e-4, 0.02, timesteps, dtype=torch.float64) * (1000.0 / timesteps)
    else:
        f = torch.cos((t / timesteps + 0.008) / 1.008 * math.pi / 2).square()
        betas = 1.0 - f[1:] / f[:-1]
    kept = (1.0 - betas.clamp(max=0.999)).cumprod(0)
    return Chain(tuple(range(timesteps + 1)), (1.0, *kept.tolist()))


def discretised_gaussian_log_prob(levels: Tensor, mean: Tensor, std: float, num_levels: int) -> Tensor:
    """log P of integer levels under N(mean, std^2) on [-1, 1] in bins one level wide, open at both ends (13).

    Args:
        levels: integers in 0..K-1. mean: same shape, in [-1, 1] units.

    Returns:
        float64, same shape; the probabilities of the K levels sum to one.
    """
    mean = mean.double()
    centre = 2.0 * levels.double() / (num_levels - 1) - 1.0
    half = 1.0 / (num_levels - 1)
    lower = torch.where(levels == 0, -math.inf, (centre - half - mean) / std)
    upper = torch.where(levels == num_levels - 1, math.inf, (centre + half - mean) / std)
    mirrored = lower + upper > 0  # differences of the normal's CDF are accurate in its left tail only
    lower, upper = torch.where(mirrored, -upper, lower), torch.where(mirrored, -lower, upper)
    log_upper = log_ndtr(upper)
    return log_upper + torch.log1p(-torch.exp(log_ndtr(lower) - log_upper))


def bound_error(terms: Tensor, repeats: Tensor) -> Tensor:
    """Monte Carlo standard error (B,) of the bound whose terms (T, B) were drawn once, the first R twice.

    Args:
        terms: first draws. repeats: (R, B), second draws of the terms that change fastest with t; the bound has the
            mean of both.

    The variance of a mean of two draws a, b is estimated by (a - b)^2 / 4. Beyond R neighbours stand in for repeated
    draws, (L_{t-1} - 2 L_t + L_{t+1})^2 / 6: exact where the terms' means lie on a line, too high where they curve.
    """
    count = len(repeats)
    variance = (terms[:count] - repeats).square().sum(0) / 4
    curvature = (terms[:-2] - 2 * terms[1:-1] + terms[2:])[max(0, count - 1) :]
    return (variance + curvature.square().sum(0) / 6).sqrt()


class DDPM(GenerativeModel):
    """Denoising diffusion probabilistic model; see the module's docstring."""

    Config = DDPMConfig
    config: DDPMConfig
    networks = ("network",)
    averaged = ("network",)
    sampler_options = frozenset({"steps", "solver"})
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor

    def __init__(self, config: DDPMConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        shrink = 2 ** (len(config.multipliers) - 1)
        if spec.height % shrink or spec.width % shrink:
            raise UsageError(
                f"DDPM with {len(config.multipliers)} levels needs height and width divisible by {shrink}, "
                f"got {spec.height} x {spec.width}. Set fewer multipliers."
            )
        self.network = UNet(
            spec.channels,
            spec.channels,
            spec.height,
            channels=config.channels,
            multipliers=config.multipliers,
            blocks=config.blocks,
            attention_resolutions=config.attention_resolutions,
            dropout=config.dropout,
        )
        self.chain = make_chain(config.timesteps, config.schedule)
        scales = torch.tensor([self.chain.scales(i) for i in range(config.timesteps + 1)])
        self.register_buffer("sqrt_alphas_cumprod", scales[:, 0].contiguous(), persistent=False)
        self.register_buffer("sqrt_one_minus_alphas_cumprod", scales[:, 1].contiguous(), persistent=False)

    # Learning

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": Adam(self.network.parameters(), lr=self.config.learning_rate)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        x0 = images.to_float(batch.images, self.spec.levels)
        t = torch.randint(1, self.config.timesteps + 1, (len(batch),), generator=ctx.rng, device=x0.device)
        eps = torch.randn(x0.shape, generator=ctx.rng, device=x0.device)
        loss = self.simple_loss(x0, t, eps).mean()
        ctx.backward(loss)
        ctx.step_optimizer("network")
        return {"loss": loss.detach()}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) simple loss at eight times, one drawn in each eighth of the chain."""
        x0 = images.to_float(batch.images, self.spec.levels)
        total = torch.zeros(len(batch), device=x0.device)
        for part in range(VALIDATION_TIMES):
            share = (part + noise.uniform(())) / VALIDATION_TIMES
            t = 1 + (share * self.config.timesteps).long().clamp(max=self.config.timesteps - 1)
            total += self.simple_loss(x0, t, noise.normal(self.spec.shape))
        return total / VALIDATION_TIMES

    def simple_loss(self, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """(B,) mean squared error of the network's estimate of its target at times t (B,) (14)."""
        a = self.sqrt_alphas_cumprod[t][:, None, None, None]
        s = self.sqrt_one_minus_alphas_cumprod[t][:, None, None, None]
        target = eps if self.config.prediction == "eps" else a * eps - s * x0
        output = self.network(a * x0 + s * eps, self.network_time(t))
        return (output.float() - target).square().mean(dim=(1, 2, 3))

    def network_time(self, t: Tensor) -> Tensor:
        """Time t in 1..T as the network is told it."""
        return (t - 1) * (1000.0 / self.config.timesteps)

    # The reverse process

    def denoise(self, xt: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """The estimates (x0, eps), each (B, C, H, W), at time t; x0 is clipped and eps follows it."""
        a, s = self.chain.scales(t)
        output = self.network(xt, self.network_time(torch.full((1,), t, device=xt.device))).float()
        x0 = (xt - s * output) / a if self.config.prediction == "eps" else a * xt - s * output
        if self.config.clip_x0:
            x0 = x0.clamp(-1.0, 1.0)
        return x0, (xt - a * x0) / s

    def reverse_variance(self, chain: Chain, i: int) -> float:
        """sigma_i^2 of a chain. The posterior's is zero at i = 1 and there takes the value at i = 2."""
        if self.config.reverse_variance == "beta" or len(chain) == 1:
            return chain.beta(i)
        return chain.posterior(max(i, 2))[2]

    def ancestral(self, x: Tensor, chain: Chain, noise: NoiseSource) -> Tensor:
        """x_S (B, C, H, W) to x_0 by algorithm 2; the last step gives the mean."""
        for i in range(len(chain), 0, -1):
            x0, _ = self.denoise(x, chain.times[i])
            c0, ct, _ = chain.posterior(i)
            x = c0 * x0 + ct * x
            if i > 1:
                x = x + math.sqrt(self.reverse_variance(chain, i)) * noise.normal(self.spec.shape)
        return x

    def ddim(self, x: Tensor, chain: Chain) -> Tensor:
        """x_S (B, C, H, W) to x_0 by DDIM with eta = 0: a first-order step of the probability-flow ODE each."""
        for i in range(len(chain), 0, -1):
            x0, eps = self.denoise(x, chain.times[i])
            a, s = chain.scales(i - 1)
            x = a * x0 + s * eps
        return x

    def ddim_inverse(self, x: Tensor, chain: Chain) -> Tensor:
        """x_0 (B, C, H, W) to x_S: DDIM's steps backwards, with the estimates made where each step starts."""
        for i in range(1, len(chain) + 1):
            x0, eps = self.denoise(x, max(1, chain.times[i - 1]))
            a, s = chain.scales(i)
            x = a * x0 + s * eps
        return x

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """Options: ``steps`` in 1..T (default T); ``solver`` "ddpm" (ancestral, the default) or "ddim"."""
        solver = request.options.solver or "ddpm"
        if solver not in SOLVERS:
            raise unknown("solver", solver, SOLVERS)
        steps = self.config.timesteps if request.options.steps is None else request.options.steps
        if not 1 <= steps <= self.config.timesteps:
            raise UsageError(f"steps must be between 1 and T = {self.config.timesteps}, got {steps}.")
        chain = self.chain.respaced(steps)
        x = request.noise.normal(self.spec.shape)
        x = self.ancestral(x, chain, request.noise) if solver == "ddpm" else self.ddim(x, chain)
        return images.from_float(x, self.spec.levels)

    # Latents

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """x_T has the image's shape."""
        return self.spec.shape

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The image that DDIM makes of x_T = z in `latent_steps` steps."""
        return images.from_float(self.ddim(z, self._latent_chain()), self.spec.levels)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """x_T of each image, by DDIM backwards in `latent_steps` steps."""
        return self.ddim_inverse(images.to_float(batch.images, self.spec.levels), self._latent_chain())

    def _latent_chain(self) -> Chain:
        return self.chain.respaced(min(self.config.latent_steps, self.config.timesteps))

    # Likelihood

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("vlb", "ode") if self.config.ode_steps else ("vlb",)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        """The bound (5), all T terms, of the chain with the config's reverse variance, its error `bound_error`; or of
        the probability-flow ODE, see `ode_bound`."""
        if estimator not in self.likelihood_estimators():
            raise unknown("estimator", estimator, self.likelihood_estimators())
        if estimator == "ode":
            return LogLikelihood(self.ode_bound(batch, noise), "estimate", "ode")
        x0 = images.to_float(batch.images, self.spec.levels)
        timesteps = self.config.timesteps
        terms = self._bound_terms(batch, x0, timesteps, noise)
        repeats = self._bound_terms(batch, x0, min(REPEATED_TERMS, timesteps), noise)
        losses = terms.clone()
        losses[: len(repeats)] = 0.5 * (losses[: len(repeats)] + repeats)
        nats = -(losses.sum(0) + self.prior_term(x0).cpu().double())
        return LogLikelihood(nats, "lower_bound", "vlb", bound_error(terms, repeats))

    def _bound_terms(self, batch: Batch, x0: Tensor, count: int, noise: NoiseSource) -> Tensor:
        """(count, B) float64 on the CPU: a draw of each of L_0, ..., L_{count-1}."""
        return torch.stack([self.bound_term(batch, x0, t, noise) for t in range(1, count + 1)]).cpu().double()

    def prior_term(self, x0: Tensor) -> Tensor:
        """(B,) L_T = KL(q(x_T | x_0) || N(0, I)) in nats."""
        a, s = self.chain.scales(len(self.chain))
        return 0.5 * (a * a * x0.square() + (s * s - 1.0 - 2.0 * math.log(s))).sum(dim=(1, 2, 3))

    def bound_term(self, batch: Batch, x0: Tensor, t: int, noise: NoiseSource) -> Tensor:
        """(B,) one draw of L_{t-1} in nats: a KL of Gaussians (8) for t > 1, the discrete decoder (13) for t = 1."""
        a, s = self.chain.scales(t)
        xt = a * x0 + s * noise.normal(self.spec.shape)
        if t == 1:
            return self._decoder_loss(batch, xt)
        estimate, _ = self.denoise(xt, t)
        sigma2 = self.reverse_variance(self.chain, t)
        c0, _, variance = self.chain.posterior(t)
        ratio = variance / sigma2
        spread = 0.5 * self.spec.dims * (ratio - 1.0 - math.log(ratio))
        return (x0 - estimate).square().sum(dim=(1, 2, 3)) * (c0 * c0 / (2.0 * sigma2)) + spread

    def _decoder_loss(self, batch: Batch, x1: Tensor) -> Tensor:
        """(B,) -log P(x0 | x1) in nats (13); the posterior mean (7) at t = 1 is the estimate of x0 itself."""
        estimate, _ = self.denoise(x1, 1)
        std = math.sqrt(self.reverse_variance(self.chain, 1))
        levels = images.to_levels(batch.images, self.spec.levels)
        log_prob = discretised_gaussian_log_prob(levels.cpu(), estimate.cpu(), std, self.spec.levels)
        return -log_prob.sum(dim=(1, 2, 3)).float().to(x1.device)

    def ode_bound(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) float64 nats: one draw of log p(x1) + log P(x0 | x1) - log q(x1 | x0), x1 ~ q(x1 | x0).

        p(x1) is the ODE's density and P(x0 | x1) the discrete decoder (13), so that the mean is a lower bound on log P
        up to the solver's error: the noise of x1 takes the place of dequantisation. No estimate is clipped in the ODE.
        """
        x0 = images.to_float(batch.images, self.spec.levels)
        a, s = self.chain.scales(1)
        eps = noise.normal(self.spec.shape)
        log_q = -0.5 * (eps.double().square() + math.log(2.0 * math.pi * s * s)).sum(dim=(1, 2, 3))
        decoded = -self._decoder_loss(batch, a * x0 + s * eps).double()
        return self.ode_log_prob(a * x0 + s * eps, noise) + decoded - log_q

    def ode_log_prob(self, x1: Tensor, noise: NoiseSource) -> Tensor:
        """(B,) float64 log-density of x_1 (B, C, H, W), by the ODE in y = x / a and u = log(s / a).

        There it reads dy/du = exp(u) eps(x_t, t) (DDIM, eq. 14), and y has the density of x times a^D.
        """
        a, s = self.sqrt_alphas_cumprod[1:].double(), self.sqrt_one_minus_alphas_cumprod[1:].double()
        log_ratio = torch.log(s / a)
        divergence: Divergence = exact_divergence
        if self.config.ode_trace == "hutchinson":
            divergence = hutchinson_divergence(noise.rademacher(self.spec.shape))
        times = torch.linspace(float(log_ratio[0]), float(log_ratio[-1]), self.config.ode_steps + 1, device=x1.device)
        field = partial(self._ode_velocity, log_ratio)
        y, integral = solve_with_divergence(field, x1 / float(a[0]), times, divergence)
        last = (y * float(a[-1])).double()
        log_prior = -0.5 * (last.square() + math.log(2.0 * math.pi)).sum(dim=(1, 2, 3))
        return log_prior + integral.double() + self.spec.dims * float(torch.log(a[-1] / a[0]))

    def _ode_velocity(self, log_ratio: Tensor, u: Tensor, y: Tensor) -> Tensor:
        """dy/du at u = log(s / a), between the chain's times 1..T of ``log_ratio`` (T,) by interpolation."""
        after = int(torch.searchsorted(log_ratio, u.double()).clamp(1, len(log_ratio) - 1))
        low, high = log_ratio[after - 1], log_ratio[after]
        t = after + ((u - low) / (high - low)).clamp(0, 1).float()  # position after - 1 of the table is time `after`
        ratio = torch.exp(u)
        a = torch.rsqrt(1.0 + ratio.square())
        s = ratio * a
        output = self.network(a * y, self.network_time(t[None])).float()
        eps = output if self.config.prediction == "eps" else s * a * y + a * output
        return ratio * eps
