"""Real NVP: an invertible map from images to standard normal noise, with an exact density of continuous images.

Paper: Dinh, Sohl-Dickstein & Bengio, "Density estimation using Real NVP", ICLR 2017 (arXiv:1605.08803): equations (2)
and (3) (change of variables), (4) to (9) (affine coupling, its inverse, its form with a mask), section 3.6 and
equations (13) to (16) (squeeze, multi-scale architecture, factored-out latents), section 4.1 (logit transform, residual
networks, tanh with a learned scale). Reference code: tensorflow/models, research/real_nvp.

Discrete images: y = (k + u) / K, and every likelihood is a lower bound on log P(k), see
`genbench.likelihood.dequantisation`: u uniform as in the paper, or drawn by a learned flow given the image
(``dequantisation = "variational"``, Ho et al., "Flow++", 2019). `dequantised` averages log p(y) over n draws of u;
`dequantised-iw-n` takes the log of the mean of p(y) over the n draws, a tighter bound.

Deviations from the paper: ActNorm (Kingma & Dhariwal, "Glow", 2018) before each coupling, and none inside s and t, in
place of batch normalisation, whose statistics would make images of a batch depend on one another; logit(a + (1 - 2a) y)
instead of logit(a + (1 - a) y), so that both ends stay finite; the last layer of s and t starts at zero and is without
weight normalisation (the flow starts as the identity); AdamW's decoupled decay of all weights instead of an L2 penalty
on the weight scales; averaged weights; factored-out latents stay in squeezed order. `coupling = "mlp"` (s and t by a
perceptron over all pixels, for very small images) is not in the paper.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.optim import AdamW, Optimizer

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


class RealNVPConfig(ModelConfig):
    """Architecture, dequantisation and optimiser."""

    coupling: Literal["mlp", "resnet"] = "resnet"
    scales: int = Field(2, ge=1)
    """Number of scales; all but the last squeeze and factor out half of the dimensions."""
    checkerboard_couplings: int = Field(3, ge=1)
    channel_couplings: int = Field(3, ge=1)
    final_couplings: int = Field(4, ge=2)
    """Checkerboard couplings of the last scale."""
    hidden: int = Field(64, ge=1)
    """Width of the s and t networks; a residual network doubles it after each squeeze."""
    blocks: int = Field(4, ge=1)
    """Residual blocks (resnet) or hidden layers (mlp)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the hidden layers of an mlp."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """a of the logit transform."""
    dequantisation: Literal["uniform", "variational"] = "uniform"
    dequantiser_hidden: int = Field(32, ge=1)
    likelihood_draws: int = Field(16, ge=2)
    """Draws of the dequantisation noise per image for a likelihood."""
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)


def squeeze(x: Tensor) -> Tensor:
    """2 x 2 blocks of pixels to channels: (B, C, H, W) to (B, 4C, H/2, W/2)."""
    return F.pixel_unshuffle(x, 2)


def unsqueeze(x: Tensor) -> Tensor:
    """The inverse of `squeeze`."""
    return F.pixel_shuffle(x, 2)


def checkerboard_mask(shape: Shape, parity: int) -> Tensor:
    """(1, 1, H, W): 1 where row + column + parity is odd (figure 3, left)."""
    _, height, width = shape
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    return ((rows + columns + parity) % 2).float()[None, None]


def channel_mask(shape: Shape, parity: int) -> Tensor:
    """(1, C, 1, 1): 1 for the first half of the channels, or for the second (figure 3, right)."""
    first = torch.arange(shape[0]) < shape[0] // 2
    return (first if parity == 0 else ~first).float()[None, :, None, None]


class MLP(nn.Module):
    """A perceptron over all dimensions: (B, C, H, W) to (B, 2C, H, W), zero at the start."""

    def __init__(self, shape: Shape, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        dims = math.prod(shape)
        widths = [dims, *[hidden] * layers]
        stack: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            stack += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*stack)
        self.out = nn.Linear(hidden, 2 * dims)
        zero_(self.out)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = self.shape
        return self.out(self.layers(x.flatten(1))).view(-1, 2 * channels, height, width)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), 3 x 3, weight-normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = weight_norm(nn.Conv2d(width, width, 3, padding=1))
        self.conv2 = weight_norm(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class ResNet(nn.Module):
    """A convolutional residual network, (B, C, H, W) to (B, 2C, H, W), zero at the start."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = weight_norm(nn.Conv2d(channels, width, 3, padding=1))
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.out = nn.Conv2d(width, 2 * channels, 1)
        zero_(self.out)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.blocks(self.stem(x))))


def zero_(layer: nn.Linear | nn.Conv2d) -> None:
    """Set a layer's weights and biases to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class Coupling(nn.Module):
    """Affine coupling, equation (9): the part under the mask stays and sets scale and shift of the other part."""

    mask: Tensor

    def __init__(self, mask: Tensor, shape: Shape, width: int, config: RealNVPConfig) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.net: nn.Module
        if config.coupling == "mlp":
            self.net = MLP(shape, width, config.blocks, config.dropout)
        else:
            self.net = ResNet(shape[0], width, config.blocks)
        self.s_scale = nn.Parameter(torch.ones(shape[0], 1, 1))

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """s and t of equation (9), both zero under the mask."""
        s, t = self.net(self.mask * x).to(x.dtype).chunk(2, dim=1)
        return (1 - self.mask) * self.s_scale * torch.tanh(s), (1 - self.mask) * t

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.scale_and_shift(x)
        return x * torch.exp(s) + t, s.flatten(1).sum(1)

    def inverse(self, x: Tensor) -> Tensor:
        s, t = self.scale_and_shift(x)
        return (x - t) * torch.exp(-s)


class ActNorm(nn.Module):
    """x -> exp(log_scale) (x - mean), per channel, or per dimension if ``shape`` is the whole image's."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(shape))
        self.log_scale = nn.Parameter(torch.zeros(shape))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set the parameters so that x (B, C, H, W) comes out with zero mean and unit variance.

        What does not vary (every dimension, in a batch of one image) keeps its scale.
        """
        over = [0, *(d + 1 for d in range(3) if self.mean.shape[d] == 1)]
        self.mean.copy_(x.mean(over, keepdim=True)[0])
        std = x.std(over, correction=0, keepdim=True)[0]
        self.log_scale.copy_(torch.where(std > 0, -torch.log(std + 1e-6), 0.0))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        repeats = x[0].numel() // self.log_scale.numel()
        log_det = (repeats * self.log_scale.sum()).expand(len(x))
        return torch.exp(self.log_scale) * (x - self.mean), log_det

    def inverse(self, x: Tensor) -> Tensor:
        return x * torch.exp(-self.log_scale) + self.mean


class Flow(nn.Module):
    """The multi-scale architecture, equations (14) to (16), between images and flat latents (B, D)."""

    def __init__(self, config: RealNVPConfig, shape: Shape) -> None:
        super().__init__()
        self.checkerboard, self.channelwise = nn.ModuleList(), nn.ModuleList()
        self.latent_shapes: list[Shape] = []
        width = config.hidden
        for last in [False] * (config.scales - 1) + [True]:
            count = config.final_couplings if last else config.checkerboard_couplings
            masks = [checkerboard_mask(shape, i % 2) for i in range(count)]
            self.checkerboard.append(steps(masks, shape, width, config))
            if not last:
                shape = (4 * shape[0], shape[1] // 2, shape[2] // 2)
                width = 2 * width if config.coupling == "resnet" else width
                masks = [channel_mask(shape, i % 2) for i in range(config.channel_couplings)]
                self.channelwise.append(steps(masks, shape, width, config))
                shape = (shape[0] // 2, *shape[1:])
            self.latent_shapes.append(shape)

    def forward(self, x: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W) to latents (B, D) and log |det dz/dx| (B,); inverse: latents to images and zeros."""
        return (self.generate(x), x.new_zeros(len(x))) if inverse else self.normalise(x)

    def normalise(self, x: Tensor, initialise: bool = False) -> tuple[Tensor, Tensor]:
        """x to z and log |det dz/dx|; ``initialise`` sets every `ActNorm` from the batch on the way."""
        log_det, latents = x.new_zeros(len(x)), []
        for i, checkerboard in enumerate(self.checkerboard):
            x, change = run(checkerboard, x, initialise)
            log_det = log_det + change
            if i < len(self.channelwise):
                x, change = run(self.channelwise[i], squeeze(x), initialise)
                log_det = log_det + change
                z, x = x.chunk(2, dim=1)
                latents.append(z.flatten(1))
        return torch.cat([*latents, x.flatten(1)], dim=1), log_det

    def generate(self, z: Tensor) -> Tensor:
        """z (B, D) to x (B, C, H, W)."""
        parts = torch.split(z, [math.prod(shape) for shape in self.latent_shapes], dim=1)
        latents = [part.view(-1, *shape) for part, shape in zip(parts, self.latent_shapes, strict=True)]
        x = latents[-1]
        for i in reversed(range(len(self.checkerboard))):
            if i < len(self.channelwise):
                x = unsqueeze(run_inverse(self.channelwise[i], torch.cat((latents[i], x), dim=1)))
            x = run_inverse(self.checkerboard[i], x)
        return x


def steps(masks: list[Tensor], shape: Shape, width: int, config: RealNVPConfig) -> nn.ModuleList:
    """For each mask a normalisation and a coupling."""
    normed = shape if config.coupling == "mlp" else (shape[0], 1, 1)
    return nn.ModuleList(m for mask in masks for m in (ActNorm(normed), Coupling(mask, shape, width, config)))


def run(layers: nn.Module, x: Tensor, initialise: bool) -> tuple[Tensor, Tensor]:
    """Apply layers in order; returns the result and the sum of their log-determinants (B,)."""
    log_det = x.new_zeros(len(x))
    for layer in layers.children():
        if initialise and isinstance(layer, ActNorm):
            layer.initialise(x)
        x, change = layer(x)
        log_det = log_det + change
    return x, log_det


def run_inverse(layers: nn.Module, x: Tensor) -> Tensor:
    """Undo `run`."""
    for layer in reversed([*layers.children()]):
        assert isinstance(layer, ActNorm | Coupling)
        x = layer.inverse(x)
    return x


class RealNVP(GenerativeModel):
    """Real NVP on dequantised, logit-transformed images. Latents are flat, (D,), standard normal."""

    Config = RealNVPConfig
    networks = ("flow", "dequantiser")
    averaged = ("flow", "dequantiser")
    sampler_options = frozenset({"temperature"})

    def __init__(self, config: RealNVPConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        factor = 2 ** (config.scales - 1)
        if spec.height % factor or spec.width % factor or spec.height * spec.width < 2 * factor**2:
            raise UsageError(
                f"RealNVP: {spec.height} x {spec.width} pixels cannot be halved {config.scales - 1} times with two "
                f"pixels left; set scales (now {config.scales}) lower."
            )
        self.settings = config
        self.flow = Flow(config, spec.shape)
        self.dequantiser: Dequantiser = UniformDequantiser()
        if config.dequantisation == "variational":
            self.dequantiser = VariationalDequantiser(spec, config.dequantiser_hidden)

    def log_density(self, y: Tensor) -> Tensor:
        """log p(y) in nats, (B,), of continuous images y (B, C, H, W) in [0, 1); equation (3)."""
        x, log_det_logit = logit_transform(y, self.settings.alpha)
        z, log_det = self.flow(x)
        log_prior = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        return log_prior + log_det + log_det_logit

    def dequantised_log_prob(self, images: Tensor, noise: Tensor) -> Tensor:
        """One draw of the bound on log P(k), (B,) nats; noise uniform on [0, 1), (B, C, H, W)."""
        levels = to_levels(images, self.spec.levels)
        return dequantised_log_prob(self.log_density, levels, noise, self.spec.levels, self.dequantiser)

    def optimizers(self) -> dict[str, Optimizer]:
        weights = [p for p in self.parameters() if p.dim() in (2, 4)]
        others = [p for p in self.parameters() if p.dim() not in (2, 4)]
        groups: list[dict[str, Any]] = [
            {"params": weights, "weight_decay": self.settings.weight_decay},
            {"params": others},
        ]
        return {"flow": AdamW(groups, lr=self.settings.learning_rate, weight_decay=0.0)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        u = torch.rand(batch.images.shape, generator=ctx.rng, device=batch.images.device)
        if ctx.step == 0:
            y = dequantise(to_levels(batch.images, self.spec.levels), u, self.spec.levels)
            self.flow.normalise(logit_transform(y, self.settings.alpha)[0], initialise=True)
        loss = bits_per_dim(self.dequantised_log_prob(batch.images, u), self.spec.dims).mean()
        ctx.backward(loss)
        ctx.step_optimizer("flow")
        return {"bits_per_dim": loss.detach()}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        return bits_per_dim(self.dequantised_log_prob(batch.images, noise.uniform(self.spec.shape)), self.spec.dims)

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
        z: Tensor = self.flow(logit_transform(y, self.settings.alpha)[0])[0]
        return z

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The image whose bin holds the point that z maps to."""
        y = inverse_logit_transform(self.flow(z, inverse=True)[0], self.settings.alpha)
        return from_levels(quantise(y, self.spec.levels), self.spec.levels)

    def sample(self, request: SampleRequest) -> Tensor:
        """Decode normal noise times the temperature.

        Raises:
            UsageError: a negative temperature.
        """
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        if temperature < 0:
            raise UsageError(f"RealNVP: temperature must not be negative, got {temperature}.")
        return self.decode(temperature * request.noise.normal(self.latent_shape))
