"""Variational autoencoder with a discrete decoder.

Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014. Importance-weighted bound: Burda, Grosse and
Salakhutdinov, "Importance Weighted Autoencoders", ICLR 2016.

    ELBO(x) = E_q [log p(x | z)] - KL(q(z | x) || N(0, I)) <= log P(x)          (Kingma and Welling, eqs. 3 and 10)
    z = mu + sigma * eps, eps ~ N(0, I)                                        (sec. 2.4, reparameterisation)
    KL = 1/2 sum_j (mu_j^2 + sigma_j^2 - 1 - log sigma_j^2)                     (app. B)
    L_k(x) = E log 1/k sum_i w_i, w_i = p(x | z_i) p(z_i) / q(z_i | x)          (Burda et al., eq. 8)

Reference code: `examples/vae` in pytorch/examples (the MLP).

Deviations from the paper:
- The decoder is a distribution on the K levels (categorical, discretised logistic with open tails, or Bernoulli for
  K = 2), never a Gaussian density, so that the bounds are on the probability of discrete images.
- KL warm-up: the KL's weight grows from 0 to 1 over the first `kl_warmup` of the budget (Sonderby et al. 2016).
- Adam, dropout, residual networks for larger images, and weights of the best validation ELBO.

Samples are drawn from the model, z ~ N(0, I) and then x ~ p(x | z), so that sample quality and likelihood speak of one
distribution. Published FIDs of VAEs are mostly those of the decoder's mean: `temperature = 0` gives that image, other
values scale the draw's deviation from it. `decode` and `reconstruct` give this central image as well: the mean of a
categorical decoder, the location of a logistic, the likelier value of a Bernoulli.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from baselines.nets.observation import OBSERVATIONS, Decoder, Observation, draw_images
from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.images import from_float, levels_to_float, to_float, to_levels
from genbench.likelihood import importance
from genbench.noise import NoiseSource


class VAEConfig(ModelConfig):
    """Settings of the VAE."""

    architecture: Literal["mlp", "conv"] = "conv"
    decoder: Decoder = "discretised_logistic"
    latent_dim: int = Field(128, ge=1)
    widths: tuple[int, ...] = Field((64, 128, 256), min_length=1)
    """mlp: hidden layers of the encoder, mirrored in the decoder; conv: channels at each resolution, halving."""
    blocks: int = Field(2, ge=0)
    """conv: residual blocks per resolution."""
    dropout: float = Field(0.0, ge=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    kl_warmup: float = Field(0.1, ge=0, le=1)
    """Share of the budget over which the KL's weight grows from 0 to 1."""
    importance_draws: tuple[Annotated[int, Field(ge=1)], ...] = (500,)
    """Draws of the importance-weighted bounds that are reported beside the ELBO, the one to quote first."""


def mlp(widths: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Linear layers of the given widths with SiLU and dropout between."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.SiLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), 3 x 3."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.GroupNorm(min(8, channels), channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1)),
            *(nn.GroupNorm(min(8, channels), channels), nn.SiLU(), nn.Dropout(dropout)),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def conv_encoder(config: VAEConfig, spec: ImageSpec) -> nn.Sequential:
    """(B, C, H, W) to (B, 2 Z): residual stages, halved by strided convolutions, and a linear layer."""
    layers: list[nn.Module] = [nn.Conv2d(spec.channels, config.widths[0], 3, padding=1)]
    for i, width in enumerate(config.widths):
        if i > 0:
            layers.append(nn.Conv2d(config.widths[i - 1], width, 4, stride=2, padding=1))
        layers += [ResidualBlock(width, config.dropout) for _ in range(config.blocks)]
    height, width, top = *coarsest(config, spec), config.widths[-1]
    norm = nn.GroupNorm(min(8, top), top)
    return nn.Sequential(*layers, norm, nn.SiLU(), nn.Flatten(), nn.Linear(top * height * width, 2 * config.latent_dim))


def conv_decoder(config: VAEConfig, spec: ImageSpec, parameters: int) -> nn.Sequential:
    """(B, Z) to (B, C P, H, W): the encoder mirrored, doubled by nearest neighbours and a convolution."""
    height, width, top = *coarsest(config, spec), config.widths[-1]
    layers: list[nn.Module] = [nn.Linear(config.latent_dim, top * height * width)]
    layers.append(nn.Unflatten(1, (top, height, width)))
    for i in reversed(range(len(config.widths))):
        channels = config.widths[i]
        layers += [ResidualBlock(channels, config.dropout) for _ in range(config.blocks)]
        if i > 0:
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(channels, config.widths[i - 1], 3, padding=1)]
    low = config.widths[0]
    last = nn.Conv2d(low, spec.channels * parameters, 3, padding=1)
    return nn.Sequential(*layers, nn.GroupNorm(min(8, low), low), nn.SiLU(), last)


def coarsest(config: VAEConfig, spec: ImageSpec) -> tuple[int, int]:
    """Height and width of the last stage."""
    factor = 2 ** (len(config.widths) - 1)
    if spec.height % factor or spec.width % factor or any(width % min(8, width) for width in config.widths):
        raise UsageError(
            f"widths = {list(config.widths)}: {len(config.widths)} stages need sides divisible by {factor} (images are "
            f"{spec.height} x {spec.width}) and channels divisible by 8. Give fewer or other widths."
        )
    return spec.height // factor, spec.width // factor


def kl_to_standard_normal(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)) in nats, summed over the last axis (app. B)."""
    return 0.5 * (mu**2 + logvar.exp() - 1.0 - logvar).sum(-1)


class VAE(GenerativeModel):
    """A variational autoencoder; see the module's docstring."""

    Config = VAEConfig
    config: VAEConfig
    networks = ("encoder", "decoder")
    averaged = ("encoder", "decoder")
    sampler_options = frozenset({"temperature"})

    def __init__(self, config: VAEConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.observation: Observation = OBSERVATIONS[config.decoder](spec.levels)
        outputs = spec.dims * self.observation.parameters
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.architecture == "mlp":
            hidden = config.widths
            self.encoder = nn.Sequential(nn.Flatten(), mlp((spec.dims, *hidden, 2 * config.latent_dim), config.dropout))
            self.decoder = mlp((config.latent_dim, *reversed(hidden), outputs), config.dropout)
        else:
            self.encoder = conv_encoder(config, spec)
            self.decoder = conv_decoder(config, spec, self.observation.parameters)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, Z) of q(z | x) for (B, C, H, W) in [-1, 1]."""
        mu, logvar = self.encoder(x).float().chunk(2, dim=-1)
        return mu, logvar.clamp(-20.0, 20.0)

    def decode_parameters(self, z: Tensor) -> Tensor:
        """Decoder output (N, C, H, W, P) float32 for z (N, Z)."""
        output, P = self.decoder(z).float(), self.observation.parameters
        if self.config.architecture == "mlp":
            return output.view(len(z), *self.spec.shape, P)
        return output.view(len(z), self.spec.channels, P, *self.spec.shape[1:]).movedim(2, -1)

    def log_prob_given(self, z: Tensor, levels: Tensor) -> Tensor:
        """log p(x | z) in nats (c, B), for c draws z (c, B, Z) of each image's latent."""
        output = self.decode_parameters(z.flatten(0, 1))
        output = output.reshape(*z.shape[:2], *output.shape[1:])  # (c, B, C, H, W, P)
        return self.observation.image_log_prob(output, levels)

    def optimizers(self) -> dict[str, Optimizer]:
        """One AdamW for both networks."""
        return {"vae": AdamW(self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay)}

    def loss(self, distortion: Tensor, kl: Tensor, progress: float) -> Tensor:
        """Negative ELBO per image in nats, its KL weighted by the warm-up at ``progress`` in [0, 1]."""
        weight = min(1.0, progress / self.config.kl_warmup) if self.config.kl_warmup > 0 else 1.0
        return distortion + weight * kl

    def distortion_and_kl(self, images: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x | z) at z = mu + sigma eps, and KL(q(z | x) || p(z)), (B,) nats each."""
        levels = to_levels(images, self.spec.levels)
        mu, logvar = self.posterior(levels_to_float(levels, self.spec.levels))
        z = mu + torch.exp(0.5 * logvar) * eps
        return -self.log_prob_given(z[None], levels)[0], kl_to_standard_normal(mu, logvar)

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on the mean of `loss`."""
        eps = torch.randn((len(batch), *self.latent_shape), generator=ctx.rng, device=batch.images.device)
        distortion, kl = self.distortion_and_kl(batch.images, eps)
        ctx.backward(self.loss(distortion, kl, ctx.progress).mean() / self.spec.dims)
        ctx.step_optimizer("vae")
        return {"negative_elbo": (distortion + kl).mean().detach(), "kl": kl.mean().detach()}

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) `loss` at the end of its schedule, in nats, of one draw of z."""
        return self.loss(*self.distortion_and_kl(batch.images, noise.normal(self.latent_shape)), progress=1.0)

    def likelihood_estimators(self) -> tuple[str, ...]:
        """Importance-weighted bounds, then the ELBO; any "iwae-K" is understood."""
        return importance.estimators(self.config.importance_draws)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        """Lower bound on log P(x) per image.

        Raises:
            UsageError: an estimator that is neither "elbo" nor "iwae-K" with K >= 1.
        """
        levels = to_levels(batch.images, self.spec.levels)
        mu, logvar = self.posterior(levels_to_float(levels, self.spec.levels))
        sigma, kl = torch.exp(0.5 * logvar), kl_to_standard_normal(mu, logvar)

        def elbo(count: int) -> Tensor:
            eps = torch.stack([noise.normal(self.latent_shape) for _ in range(count)])  # (c, B, Z)
            return self.log_prob_given(mu + sigma * eps, levels) - kl

        def log_weights(count: int) -> Tensor:
            eps = torch.stack([noise.normal(self.latent_shape) for _ in range(count)])  # (c, B, Z)
            z = mu + sigma * eps
            return self.log_prob_given(z, levels) + 0.5 * (eps**2 - z**2 + logvar).sum(-1)

        chunk = importance.chunk_size(levels.numel() * self.observation.parameters)
        return importance.variational_bound(estimator, elbo, log_weights, chunk, "vae")

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """z ~ N(0, I), x ~ p(x | z); a temperature T scales the draw's deviation from the central image."""
        output = self.decode_parameters(request.noise.normal(self.latent_shape))
        return draw_images(self.observation, output, request.noise, self.spec.levels, request.options.temperature)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(Z,)."""
        return (self.config.latent_dim,)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Posterior mean, (B, Z)."""
        return self.posterior(to_float(batch.images, self.spec.levels))[0]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The decoder's central image, (B, C, H, W) uint8."""
        return from_float(self.observation.centre(self.decode_parameters(z)), self.spec.levels)

    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """The central image of the posterior mean."""
        del noise
        return self.decode(self.encode(batch))
