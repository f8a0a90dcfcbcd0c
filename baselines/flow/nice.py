"""NICE: an invertible map from images to independent components, built of additive couplings.

Paper: Dinh, Krueger & Bengio, "NICE: Non-linear Independent Components Estimation", ICLR 2015 workshop
(arXiv:1410.8516): equation (1) (change of variables), section 3.2 (additive coupling, unit Jacobian), 3.3 (diagonal
scaling), 3.4 (logistic or Gaussian prior), 5.1 (dequantisation, odd and even components, four couplings),
5.2 (inpainting). Reference code: laurent-dinh/nice.

Discrete images: y = (k + u) / K with u uniform, so every likelihood is a lower bound on log P(k), see
`genbench.likelihood.dequantisation`.

Inpainting (section 5.2): the missing pixels start as uniform noise and climb log p(y) with added noise,
y <- y + a_i (gradient + noise), a_i = 10 / (100 + i), the given pixels put back at each step. That finds likely
completions; it is not the exact conditional.

Latents are flat, (D,), and standard normal for the caller: with the logistic prior, h = logit(Phi(z)).

Deviations from the paper: the perceptrons' last layers start at zero, and the first batch sets the scaling and the
shift (the flow starts as a standardisation of the pixels; at 256 levels the scales would take thousands of steps to
grow from one); the inpainting gradient is divided, per pixel, by its running root mean square, since scales differ a
hundredfold between pixels (the reference code divides it by the number of images); optional dropout and averaged
weights; no whitening, which the paper uses for data other than MNIST.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from genbench.api import (
    Batch,
    GenerativeModel,
    Given,
    ImageSpec,
    LogLikelihood,
    ModelConfig,
    SampleRequest,
    TrainContext,
)
from genbench.errors import UsageError
from genbench.images import bits_per_dim, dequantise, from_levels, quantise, to_levels
from genbench.likelihood.dequantisation import dequantised_log_likelihood, dequantised_log_prob, estimators
from genbench.noise import NoiseSource


class NICEConfig(ModelConfig):
    """Architecture, prior and optimiser."""

    couplings: int = Field(4, ge=2)
    hidden: int = Field(1000, ge=1)
    """Units of each hidden layer of a coupling."""
    layers: int = Field(5, ge=1)
    """Hidden layers of a coupling."""
    dropout: float = Field(0.0, ge=0, lt=1)
    prior: Literal["logistic", "gaussian"] = "logistic"
    inpainting_steps: int = Field(500, ge=1)
    likelihood_draws: int = Field(16, ge=2)
    """Draws of the dequantisation noise per image for a likelihood."""
    learning_rate: float = Field(1e-3, gt=0)


class Coupling(nn.Module):
    """Additive coupling (section 3.2): the components of one parity stay and set the shift of the others."""

    def __init__(self, dims: int, parity: int, config: NICEConfig) -> None:
        super().__init__()
        self.parity = parity
        kept = len(range(parity, dims, 2))
        widths = [kept, *[config.hidden] * config.layers]
        stack: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            stack += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(config.dropout)]
        self.hidden = nn.Sequential(*stack)
        self.out = nn.Linear(config.hidden, dims - kept)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, sign: float = 1.0) -> Tensor:
        """(B, D) to (B, D); ``sign`` -1 is the inverse. log |det| = 0."""
        kept, moved = x[:, self.parity :: 2], x[:, 1 - self.parity :: 2]
        moved = moved + sign * self.out(self.hidden(kept)).to(x.dtype)
        result = torch.empty_like(x)
        result[:, self.parity :: 2] = kept
        result[:, 1 - self.parity :: 2] = moved
        return result


class Flow(nn.Module):
    """Couplings of alternating parity, then h = exp(s) x (section 3.3)."""

    def __init__(self, config: NICEConfig, dims: int) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(dims, i % 2, config) for i in range(config.couplings))
        self.s = nn.Parameter(torch.zeros(dims))

    def forward(self, x: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """x (B, D) to h (B, D) and log |det dh/dx| (B,); inverse: h to x and minus that."""
        log_det = self.s.sum().expand(len(x))
        if inverse:
            x = x * torch.exp(-self.s)
            for coupling in reversed([*self.couplings]):
                x = coupling(x, -1.0)
            return x, -log_det
        for coupling in self.couplings:
            x = coupling(x)
        return x * torch.exp(self.s), log_det

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Make the identity at the start a standardisation of x (B, D): mean 0, variance 1 per dimension."""
        for coupling in [*self.couplings][-2:]:
            assert isinstance(coupling, Coupling)
            coupling.out.bias.copy_(-x[:, 1 - coupling.parity :: 2].mean(0))
        self.s.copy_(-torch.log(x.std(0, correction=0) + 1e-6))


def log_prior(h: Tensor, prior: str) -> Tensor:
    """log p(h) of (B, D) under the factorial standard logistic or Gaussian, (B,) nats (section 3.4)."""
    if prior == "logistic":
        return (F.logsigmoid(h) + F.logsigmoid(-h)).sum(1)
    return -0.5 * (h.square() + math.log(2 * math.pi)).sum(1)


def logistic_from_normal(z: Tensor) -> Tensor:
    """h = logit(Phi(z)), in float64 so that tails keep their digits."""
    wide = z.double()
    return (torch.special.log_ndtr(wide) - torch.special.log_ndtr(-wide)).to(z.dtype)


def normal_from_logistic(h: Tensor) -> Tensor:
    """z with logit(Phi(z)) = h, by the smaller tail."""
    tail = torch.sigmoid(-h.double().abs())
    return (-torch.special.ndtri(tail) * torch.sign(h.double())).to(h.dtype)


class NICE(GenerativeModel):
    """NICE on dequantised images; see the module's docstring."""

    Config = NICEConfig
    networks = ("flow",)
    averaged = ("flow",)
    sampler_options = frozenset({"temperature"})
    conditions = frozenset({"mask"})

    def __init__(self, config: NICEConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if spec.dims < 2:
            raise UsageError(f"NICE: a coupling needs images of at least 2 values, got {spec.dims}.")
        self.settings = config
        self.flow = Flow(config, spec.dims)

    def log_density(self, y: Tensor) -> Tensor:
        """log p(y) in nats, (B,), of continuous images y (B, C, H, W) in [0, 1); equation (1)."""
        h, log_det = self.flow(y.flatten(1))
        return log_prior(h, self.settings.prior) + log_det

    def dequantised_log_prob(self, images: Tensor, u: Tensor) -> Tensor:
        """One draw of the bound on log P(k), (B,) nats; u uniform, (B, C, H, W)."""
        levels = to_levels(images, self.spec.levels)
        return dequantised_log_prob(self.log_density, levels, u, self.spec.levels)

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam with the paper's constants; its second moment counts the past with 0.99 (the paper's 0.01 the new)."""
        rate = self.settings.learning_rate
        return {"flow": Adam(self.flow.parameters(), lr=rate, betas=(0.9, 0.99), eps=1e-4)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        u = torch.rand(batch.images.shape, generator=ctx.rng, device=batch.images.device)
        if ctx.step == 0:
            self.flow.initialise(dequantise(to_levels(batch.images, self.spec.levels), u, self.spec.levels).flatten(1))
        log_p = self.dequantised_log_prob(batch.images, u).mean()
        ctx.backward(-log_p)
        ctx.step_optimizer("flow")
        return {"bits_per_dim": bits_per_dim(log_p.detach(), self.spec.dims)}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        return bits_per_dim(self.dequantised_log_prob(batch.images, noise.uniform(self.spec.shape)), self.spec.dims)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return estimators(self.settings.likelihood_draws)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        levels = to_levels(batch.images, self.spec.levels)
        draws = self.settings.likelihood_draws
        return dequantised_log_likelihood(self.log_density, levels, noise, estimator, draws, self.spec.levels)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.spec.dims,)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """The latents of the middle of each image's bin, u = 1/2."""
        levels = to_levels(batch.images, self.spec.levels)
        y = dequantise(levels, torch.full(levels.shape, 0.5, device=levels.device), self.spec.levels)
        h: Tensor = self.flow(y.flatten(1))[0]
        return normal_from_logistic(h) if self.settings.prior == "logistic" else h

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The image whose bin holds the point that z maps to."""
        h = logistic_from_normal(z) if self.settings.prior == "logistic" else z
        y = self.flow(h, inverse=True)[0].view(-1, *self.spec.shape)
        return from_levels(quantise(y, self.spec.levels), self.spec.levels)

    def sample(self, request: SampleRequest) -> Tensor:
        """Decode normal noise times the temperature; with a mask, complete the source (not by the exact conditional).

        Raises:
            UsageError: a negative temperature, or a mask without its source (see `SampleRequest.given`).
        """
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        if temperature < 0:
            raise UsageError(f"NICE: temperature must not be negative, got {temperature}.")
        given = request.given(self.spec)
        if given is not None:
            return self.inpaint(given, request.noise, temperature)
        return self.decode(temperature * request.noise.normal(self.latent_shape))

    def inpaint(self, given: Given, noise: NoiseSource, temperature: float) -> Tensor:
        """Images (B, C, H, W) uint8 with what is given, and the other values filled in; section 5.2.

        The temperature scales the noise of the steps.
        """
        known = dequantise(given.levels, noise.uniform(self.spec.shape), self.spec.levels)
        y = torch.where(given.mask, known, noise.uniform(self.spec.shape))
        mean_square = torch.zeros_like(y)
        for i in range(self.settings.inpainting_steps):
            with torch.enable_grad():
                at = y.detach().requires_grad_()
                (slope,) = torch.autograd.grad(self.log_density(at).sum(), at)
            mean_square = slope.square() if i == 0 else 0.9 * mean_square + 0.1 * slope.square()
            direction = slope / (mean_square.sqrt() + 1e-8) + temperature * noise.normal(self.spec.shape)
            y = torch.where(given.mask, known, (y + 10.0 / (100.0 + i) * direction).clamp(0.0, 1.0))
        levels = torch.where(given.mask, given.levels, quantise(y, self.spec.levels))
        return from_levels(levels, self.spec.levels)
