"""Glow: an invertible map from images to noise, of activation normalisation, invertible 1 x 1 convolutions, couplings.

Paper: Kingma & Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018 (arXiv:1807.03039):
section 2 (dequantised likelihood, change of variables), table 1 and section 3 (actnorm, invertible 1 x 1 convolution
with the LU form of equations (10) and (11), affine coupling, zero initialisation), figure 2 (multi-scale architecture),
section 6 (sampling at a reduced temperature). Reference code: openai/glow, `model.py` and `tfops.py`: scales
sigmoid(s + 2), learned Gaussian priors of factored-out latents, `learntop`, `ycond`.

Every latent is standardised by its prior, z = (h - mu) / sigma, so that the flow is one bijection between images and
flat standard normal z (B, D), and the priors' 1 / sigma are part of its log-determinant.

Discrete images: y = (k + u) / K, and every likelihood is a lower bound on log P(k), see
`genbench.likelihood.dequantisation`: u uniform as in the paper, or drawn by a learned flow given the image
(``dequantisation = "variational"``, Ho et al., "Flow++", 2019), trained together with the density.

``class_conditional``: the prior of the last scale depends on the class, as in the reference code. Likelihoods are of
log 1/C sum_c p(x | c), told no class; codes are standardised by the part of the prior that all classes share.

Deviations from the paper: no channel that marks the border in the convolutions; the actnorm of hidden layers is folded
into their convolutions; optionally a logit transform of y (``alpha``, Dinh et al., "Real NVP", 2017, section 4.1) in
place of y - 1/2, without which the mostly black pixels of MNIST take long to fit; no classification loss beside
``class_conditional``, whose means and scales are relative to the shared part; Adam (the reference code's default is
Adamax) and averaged weights.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from baselines.nets.dequantiser import VariationalDequantiser
from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.images import bits_per_dim, dequantise, from_levels, quantise, to_levels
from genbench.likelihood.dequantisation import (
    Dequantiser,
    UniformDequantiser,
    dequantised_log_likelihood,
    dequantised_log_prob,
    estimators,
    inverse_logit_transform,
    logit_transform,
)
from genbench.noise import NoiseSource

Shape = tuple[int, int, int]


class GlowConfig(ModelConfig):
    """Architecture, dequantisation and optimiser."""

    scales: int = Field(3, ge=1)
    """L: each squeezes; all but the last factor out half of the dimensions."""
    steps: int = Field(16, ge=1)
    """K: steps of flow a scale."""
    hidden: int = Field(256, ge=1)
    """Width of the couplings' networks."""
    alpha: float | None = Field(None, gt=0, lt=0.5)
    """a of a logit transform before the flow; None: y - 1/2."""
    dequantisation: Literal["uniform", "variational"] = "uniform"
    dequantiser_hidden: int = Field(32, ge=1)
    class_conditional: bool = False
    likelihood_draws: int = Field(16, ge=2)
    """Draws of the dequantisation noise per image for a likelihood."""
    learning_rate: float = Field(1e-3, gt=0)


class ActNorm(nn.Module):
    """x -> exp(log_scale) (x - mean) per channel (section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))
        self.initialising = False

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set the parameters so that x (B, C, H, W) comes out with zero mean and unit variance per channel."""
        self.mean.copy_(x.mean((0, 2, 3), keepdim=True)[0])
        self.log_scale.copy_(-torch.log(x.std((0, 2, 3), correction=0, keepdim=True)[0] + 1e-6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result and log |det| (B,)."""
        if self.initialising:
            self.initialise(x)
        log_det = x.shape[2] * x.shape[3] * self.log_scale.sum()
        return torch.exp(self.log_scale) * (x - self.mean), log_det.expand(len(x))

    def inverse(self, x: Tensor) -> Tensor:
        return x * torch.exp(-self.log_scale) + self.mean


class InvertibleConv(nn.Module):
    """A 1 x 1 convolution by W = P L (U + diag(s)), equation (10), a random rotation at the start.

    P and the signs of s are fixed; L has ones, U zeros on the diagonal; log |det W| = sum log |s|, equation (11).
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64)).Q
        permutation, lower, upper = (part.float() for part in torch.linalg.lu(rotation))
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", upper.diagonal().sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(upper.diagonal().abs().log())

    def factors(self) -> tuple[Tensor, Tensor]:
        """P L and U + diag(s)."""
        ones = torch.eye(len(self.log_s), dtype=self.lower.dtype, device=self.lower.device)
        upper = self.upper.triu(1) + torch.diag(self.sign * torch.exp(self.log_s))
        return self.permutation @ (self.lower.tril(-1) + ones), upper

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result and log |det| (B,); in the precision of x, also under autocast."""
        with torch.autocast(x.device.type, enabled=False):
            lower, upper = self.factors()
            y = F.conv2d(x, (lower @ upper)[:, :, None, None])
        return y, (x.shape[2] * x.shape[3] * self.log_s.sum()).expand(len(x))

    def inverse(self, x: Tensor) -> Tensor:
        lower, upper = (factor.double() for factor in self.factors())
        weight = torch.linalg.inv(upper) @ torch.linalg.inv(lower)
        return F.conv2d(x, weight.to(x.dtype)[:, :, None, None])


class NormedConv2d(nn.Conv2d):
    """A convolution whose outputs have an actnorm in place of a bias."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        nn.init.normal_(self.weight, std=0.05)
        self.norm = ActNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.norm.initialising:
            self.norm.initialise(super().forward(x))
        scale = torch.exp(self.norm.log_scale)
        return F.conv2d(x, self.weight * scale[..., None], (-self.norm.mean * scale).flatten(), padding=self.padding)


class ZeroConv2d(nn.Conv2d):
    """A 3 x 3 convolution that starts at zero, with a scale exp(3 log_scale) per output (reference code)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]
        self.log_scale = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.exp(3.0 * self.log_scale)


class Coupling(nn.Module):
    """The first half of the channels stays and sets the scale sigmoid(s + 2) and the shift of the second half."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        first, second = NormedConv2d(channels // 2, hidden, 3), NormedConv2d(hidden, hidden, 1)
        self.net = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), ZeroConv2d(hidden, channels))

    def log_scale_and_shift(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.net(kept).to(kept.dtype).chunk(2, dim=1)
        return F.logsigmoid(s + 2.0), t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The result and log |det| (B,)."""
        kept, moved = x.chunk(2, dim=1)
        log_scale, shift = self.log_scale_and_shift(kept)
        return torch.cat((kept, (moved + shift) * torch.exp(log_scale)), dim=1), log_scale.flatten(1).sum(1)

    def inverse(self, x: Tensor) -> Tensor:
        kept, moved = x.chunk(2, dim=1)
        log_scale, shift = self.log_scale_and_shift(kept)
        return torch.cat((kept, moved * torch.exp(-log_scale) - shift), dim=1)


class Prior(nn.Module):
    """Learned Gaussian N(mu, sigma) of factored-out channels h given the kept ones, of the last scale's given zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ZeroConv2d(channels, 2 * channels)

    def forward(self, h: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """z = (h - mu) / sigma and log |dz/dh| (B,)."""
        mu, log_sigma = self.conv(kept).to(h.dtype).chunk(2, dim=1)
        return (h - mu) * torch.exp(-log_sigma), -log_sigma.flatten(1).sum(1)

    def inverse(self, z: Tensor, kept: Tensor) -> Tensor:
        mu, log_sigma = self.conv(kept).to(z.dtype).chunk(2, dim=1)
        return z * torch.exp(log_sigma) + mu


def log_standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I) of (..., D), in nats."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


class Flow(nn.Module):
    """The multi-scale architecture (figure 2b) between images and flat standard normal latents (B, D).

    `initialised` is saved with the weights: the data-dependent start happens once in a model's life.
    """

    initialised: Tensor

    def __init__(self, config: GlowConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.scales, self.priors = nn.ModuleList(), nn.ModuleList()
        self.latent_shapes: list[Shape] = []
        self.register_buffer("initialised", torch.zeros((), dtype=torch.bool))
        channels, height, width = spec.shape
        for last in [False] * (config.scales - 1) + [True]:
            channels, height, width = 4 * channels, height // 2, width // 2
            layers: list[nn.Module] = []
            for _ in range(config.steps):
                layers += [ActNorm(channels), InvertibleConv(channels), Coupling(channels, config.hidden)]
            self.scales.append(nn.ModuleList(layers))
            channels = channels if last else channels // 2
            self.priors.append(Prior(channels))
            self.latent_shapes.append((channels, height, width))
        table = torch.zeros(spec.num_classes, 2, channels)
        self.class_table = nn.Parameter(table) if config.class_conditional else None

    def forward(self, x: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) to latents (B, D) and log |det dz/dx| (B,); inverse: latents to images and zeros."""
        return (self.generate(x), x.new_zeros(len(x))) if inverse else self.normalise(x)

    def normalise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x to z and log |det dz/dx|."""
        log_det, latents = x.new_zeros(len(x)), []
        for i, (layers, prior) in enumerate(zip(self.scales, self.priors, strict=True)):
            x = F.pixel_unshuffle(x, 2)  # (B, 4C, H/2, W/2)
            for layer in layers.children():
                x, change = layer(x)
                log_det = log_det + change
            last = i == len(self.scales) - 1
            x, h = (torch.zeros_like(x), x) if last else x.chunk(2, dim=1)
            z, change = prior(h, x)
            latents.append(z.flatten(1))
            log_det = log_det + change
        return torch.cat(latents, dim=1), log_det

    def generate(self, z: Tensor) -> Tensor:
        """z (B, D) to x (B, C, H, W)."""
        parts = torch.split(z, [math.prod(shape) for shape in self.latent_shapes], dim=1)
        x = torch.zeros(len(z), *self.latent_shapes[-1], dtype=z.dtype, device=z.device)
        for i in reversed(range(len(self.scales))):
            h = self.priors[i].inverse(parts[i].view(-1, *self.latent_shapes[i]), x)  # type: ignore[operator]
            x = h if i == len(self.scales) - 1 else torch.cat((x, h), dim=1)
            for layer in reversed([*self.scales[i].children()]):
                x = layer.inverse(x)  # type: ignore[operator]
            x = F.pixel_shuffle(x, 2)
        return x

    def class_moments(self) -> tuple[Tensor, Tensor] | None:
        """Of each class, mu and log sigma of the last scale's latents, (classes, d) each; N(0, I) at the start."""
        if self.class_table is None:
            return None
        mu, log_sigma = self.class_table.repeat_interleave(math.prod(self.latent_shapes[-1][1:]), dim=2).unbind(1)
        return mu, log_sigma

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set every actnorm from a batch of images (B, C, H, W), in the order of the layers."""
        norms = [module for module in self.modules() if isinstance(module, ActNorm)]
        for norm in norms:
            norm.initialising = True
        self.normalise(x)
        for norm in norms:
            norm.initialising = False
        self.initialised.fill_(True)


class Glow(GenerativeModel):
    """Glow on dequantised images. Latents are flat, (D,), standard normal."""

    Config = GlowConfig
    networks = ("flow", "dequantiser")
    averaged = ("flow", "dequantiser")
    sampler_options = frozenset({"temperature"})

    def __init__(self, config: GlowConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        factor = 2**config.scales
        if spec.height % factor or spec.width % factor:
            raise UsageError(
                f"Glow: {spec.height} x {spec.width} pixels cannot be halved {config.scales} times; "
                f"set scales (now {config.scales}) lower or pad the images."
            )
        if config.class_conditional and not spec.num_classes:
            raise UsageError("Glow: class_conditional needs images with classes, and these have none; unset it.")
        self.settings = config
        self.flow = Flow(config, spec)
        self.dequantiser: Dequantiser = UniformDequantiser()
        if config.dequantisation == "variational":
            self.dequantiser = VariationalDequantiser(spec, config.dequantiser_hidden)
        if config.class_conditional:
            self.conditions = frozenset({"labels"})

    def to_flow(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y in [0, 1) to the flow's input, and log |det| (B,)."""
        alpha = self.settings.alpha
        return (y - 0.5, y.new_zeros(len(y))) if alpha is None else logit_transform(y, alpha)

    def log_density(self, y: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(y), or log p(y | class) where labels (B,) are given, in nats, (B,); y (B, C, H, W) in [0, 1)."""
        x, log_det_input = self.to_flow(y)
        z, log_det = self.flow(x)
        log_det, moments = log_det + log_det_input, self.flow.class_moments()
        if moments is None:
            return log_standard_normal(z) + log_det
        mu, log_sigma = moments
        below, top = z[:, : -mu.shape[1]], z[:, -mu.shape[1] :]
        of_top = log_standard_normal((top[:, None] - mu) * torch.exp(-log_sigma)) - log_sigma.sum(1)  # (B, classes)
        mixed = torch.logsumexp(of_top, dim=1) - math.log(len(mu))
        log_top = mixed if labels is None else of_top.gather(1, labels[:, None])[:, 0]
        return log_standard_normal(below) + log_top + log_det

    def dequantised_log_prob(self, batch: Batch, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """One draw of the bound on log P(k), or on log P(k | class), (B,) nats; noise uniform (B, C, H, W)."""
        density, levels = partial(self.log_density, labels=labels), to_levels(batch.images, self.spec.levels)
        return dequantised_log_prob(density, levels, noise, self.spec.levels, self.dequantiser)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"flow": Adam(self.parameters(), lr=self.settings.learning_rate)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        noise = torch.rand(batch.images.shape, generator=ctx.rng, device=batch.images.device)
        if not self.flow.initialised:
            y = dequantise(to_levels(batch.images, self.spec.levels), noise, self.spec.levels)
            self.flow.initialise(self.to_flow(y)[0])
        labels = batch.labels if self.settings.class_conditional else None
        loss = bits_per_dim(self.dequantised_log_prob(batch, noise, labels), self.spec.dims).mean()
        ctx.backward(loss)
        ctx.step_optimizer("flow")
        return {"bits_per_dim": loss.detach()}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        return bits_per_dim(self.dequantised_log_prob(batch, noise.uniform(self.spec.shape)), self.spec.dims)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return estimators(self.settings.likelihood_draws, self.settings.dequantisation)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        levels, draws, K = to_levels(batch.images, self.spec.levels), self.settings.likelihood_draws, self.spec.levels
        how: dict[str, Any] = {"dequantiser": self.dequantiser, "method": self.settings.dequantisation}
        return dequantised_log_likelihood(self.log_density, levels, noise, estimator, draws, K, **how)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.spec.dims,)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """The latents of the middle of each image's bin, u = 1/2."""
        levels = to_levels(batch.images, self.spec.levels)
        y = dequantise(levels, torch.full(levels.shape, 0.5, device=levels.device), self.spec.levels)
        return cast(Tensor, self.flow(self.to_flow(y)[0])[0])

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The image whose bin holds the point that z maps to."""
        x, alpha = self.flow(z, inverse=True)[0], self.settings.alpha
        y = x + 0.5 if alpha is None else inverse_logit_transform(x, alpha)
        return from_levels(quantise(y, self.spec.levels), self.spec.levels)

    def sample(self, request: SampleRequest) -> Tensor:
        """Decode normal noise times the temperature (section 6), of the class asked for where there are classes.

        Raises:
            UsageError: a negative temperature.
        """
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        if temperature < 0:
            raise UsageError(f"Glow: temperature must not be negative, got {temperature}.")
        z, moments = temperature * request.noise.normal(self.latent_shape), self.flow.class_moments()
        if moments is not None:
            mu, log_sigma = moments
            labels = request.condition.labels
            if labels is None:
                labels = request.noise.categorical(torch.ones(len(z), len(mu), device=self.device))
            top = mu[labels] + torch.exp(log_sigma[labels]) * z[:, -mu.shape[1] :]
            z = torch.cat((z[:, : -mu.shape[1]], top), dim=1)
        return self.decode(z)
