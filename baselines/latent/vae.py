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

import math
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.images import from_float, levels_to_float, to_float, to_levels
from genbench.noise import NoiseSource

ELBO_DRAWS = 16
CHUNK_VALUES = 2**22
MIN_LOG_SCALE = -7.0


class VAEConfig(ModelConfig):
    """Settings of the VAE."""

    architecture: Literal["mlp", "conv"] = "conv"
    decoder: Literal["categorical", "discretised_logistic", "bernoulli"] = "discretised_logistic"
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


class Observation(Protocol):
    """A decoder distribution p(x | z), independent over values given the decoder's output (..., C, H, W, P)."""

    parameters: int
    """P, numbers the decoder gives per value."""

    def log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        """Log-probability of each level (B, C, H, W), broadcast to output's (..., B, C, H, W); nats."""

    def draw(self, output: Tensor, noise: NoiseSource) -> Tensor:
        """Values in [-1, 1] drawn for (B, C, H, W, P)."""

    def centre(self, output: Tensor) -> Tensor:
        """The central value in [-1, 1] for (B, C, H, W, P)."""


class Categorical:
    """Any distribution on K levels, by its logits."""

    def __init__(self, num_levels: int) -> None:
        self.parameters = self.num_levels = num_levels

    def log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        index = levels.expand(output.shape[:-1])[..., None]
        return output.gather(-1, index)[..., 0] - output.logsumexp(-1)

    def draw(self, output: Tensor, noise: NoiseSource) -> Tensor:
        return levels_to_float(noise.categorical(output.softmax(-1)), self.num_levels)

    def centre(self, output: Tensor) -> Tensor:
        values = levels_to_float(torch.arange(self.num_levels, device=output.device), self.num_levels)
        return output.softmax(-1) @ values


class DiscretisedLogistic:
    """A logistic in [-1, 1] rounded to the nearest level: P(k) = F(x_k + 1/(K-1)) - F(x_k - 1/(K-1)), tails open."""

    parameters = 2

    def __init__(self, num_levels: int) -> None:
        self.num_levels = num_levels

    def _location_and_log_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        return output[..., 0], output[..., 1].clamp(min=MIN_LOG_SCALE)

    def log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        """With a, b the standardised upper and lower edge: s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), s sigmoid."""
        location, log_scale = self._location_and_log_scale(output)
        half, inverse = 1.0 / (self.num_levels - 1), torch.exp(-log_scale)
        centred = levels_to_float(levels, self.num_levels) - location
        first, last = levels == 0, levels == self.num_levels - 1
        below_upper = F.logsigmoid((centred + half) * inverse).masked_fill(last, 0.0)
        above_lower = F.logsigmoid((half - centred) * inverse).masked_fill(first, 0.0)
        between = torch.log(-torch.expm1(-2.0 * half * inverse)).masked_fill(first | last, 0.0)
        return below_upper + above_lower + between

    def draw(self, output: Tensor, noise: NoiseSource) -> Tensor:
        location, log_scale = self._location_and_log_scale(output)
        u = noise.uniform(tuple(location.shape[1:]))
        return (location + log_scale.exp() * torch.logit(u, eps=2.0**-25)).clamp(-1, 1)

    def centre(self, output: Tensor) -> Tensor:
        return self._location_and_log_scale(output)[0].clamp(-1, 1)


class Bernoulli:
    """Two levels, by the logit of the upper one."""

    parameters = 1

    def __init__(self, num_levels: int) -> None:
        if num_levels != 2:
            raise UsageError(
                f"decoder = 'bernoulli' needs images of 2 levels, these have {num_levels}. "
                "Use 'categorical' or 'discretised_logistic'."
            )

    def log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        return F.logsigmoid(output[..., 0] * (2 * levels - 1))

    def draw(self, output: Tensor, noise: NoiseSource) -> Tensor:
        logit = output[..., 0]
        return levels_to_float(noise.uniform(tuple(logit.shape[1:])) < logit.sigmoid(), 2)

    def centre(self, output: Tensor) -> Tensor:
        return levels_to_float(output[..., 0] > 0, 2)


OBSERVATIONS: dict[str, Callable[[int], Observation]] = {
    "categorical": Categorical,
    "discretised_logistic": DiscretisedLogistic,
    "bernoulli": Bernoulli,
}


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


class LogMeanExp:
    """Streaming log 1/k sum_i exp(log w_i) per image, with its standard error; float64, constant memory in k."""

    def __init__(self) -> None:
        self.count = 0
        self.peak = torch.tensor(-math.inf, dtype=torch.float64)
        self.sum = self.sum_of_squares = torch.tensor(0.0, dtype=torch.float64)

    def add(self, log_w: Tensor) -> None:
        """Add draws (c, B)."""
        peak = torch.maximum(self.peak, log_w.max(0).values)
        scale, w = torch.exp(self.peak - peak), torch.exp(log_w - peak)
        self.sum = self.sum * scale + w.sum(0)
        self.sum_of_squares = self.sum_of_squares * scale**2 + (w**2).sum(0)
        self.peak, self.count = peak, self.count + len(log_w)

    def value(self) -> Tensor:
        """(B,) nats."""
        return self.peak + torch.log(self.sum / self.count)

    def standard_error(self) -> Tensor | None:
        """(B,) by the delta method, sd(w) / (sqrt(k) mean(w)); None for a single draw."""
        if self.count < 2:
            return None
        relative = self.count * self.sum_of_squares / self.sum**2 - 1.0
        return (relative.clamp(min=0) / (self.count - 1)).sqrt()


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
        return self.observation.log_prob(output, levels).flatten(2).sum(-1)

    def optimizers(self) -> dict[str, Optimizer]:
        """One AdamW for both networks."""
        return {"vae": AdamW(self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on the negative ELBO with the KL weighted by beta (1 after warm-up)."""
        levels = to_levels(batch.images, self.spec.levels)
        mu, logvar = self.posterior(levels_to_float(levels, self.spec.levels))
        eps = torch.randn(mu.shape, generator=ctx.rng, device=mu.device)
        z = mu + torch.exp(0.5 * logvar) * eps
        distortion = -self.log_prob_given(z[None], levels)[0].mean()
        kl = kl_to_standard_normal(mu, logvar).mean()
        beta = min(1.0, ctx.progress / self.config.kl_warmup) if self.config.kl_warmup > 0 else 1.0
        ctx.backward((distortion + beta * kl) / self.spec.dims)
        ctx.step_optimizer("vae")
        return {"negative_elbo": (distortion + kl).detach(), "kl": kl.detach()}

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) negative ELBO in nats, KL weight 1, one draw of z."""
        return -next(self._elbo_draws(batch, noise, 1))[0]

    def _latents(self, mu: Tensor, logvar: Tensor, noise: NoiseSource, num: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of ``num`` draws: eps and z = mu + sigma eps, (c, B, Z). Draw i is noise draw i in any chunking."""
        size = max(1, CHUNK_VALUES // (len(mu) * self.spec.dims * self.observation.parameters))
        for start in range(0, num, size):
            eps = torch.stack([noise.normal(tuple(mu.shape[1:])) for _ in range(min(size, num - start))])
            yield eps, mu + torch.exp(0.5 * logvar) * eps

    def _elbo_draws(self, batch: Batch, noise: NoiseSource, num: int) -> Iterator[Tensor]:
        """Chunks (c, B) of log p(x | z) - KL, whose mean over draws is the ELBO."""
        levels = to_levels(batch.images, self.spec.levels)
        mu, logvar = self.posterior(levels_to_float(levels, self.spec.levels))
        kl = kl_to_standard_normal(mu, logvar)
        for _, z in self._latents(mu, logvar, noise, num):
            yield self.log_prob_given(z, levels) - kl

    def _log_weights(self, batch: Batch, noise: NoiseSource, num: int) -> Iterator[Tensor]:
        """Chunks (c, B) of log w = log p(x | z) + log p(z) - log q(z | x)."""
        levels = to_levels(batch.images, self.spec.levels)
        mu, logvar = self.posterior(levels_to_float(levels, self.spec.levels))
        for eps, z in self._latents(mu, logvar, noise, num):
            log_ratio = 0.5 * (eps**2 - z**2 + logvar).sum(-1)
            yield self.log_prob_given(z, levels) + log_ratio

    def likelihood_estimators(self) -> tuple[str, ...]:
        """Importance-weighted bound of 500 draws, then the ELBO; any "iwae-K" is understood."""
        return ("iwae-500", "elbo")

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        """Lower bound on log P(x) per image; the ELBO is the mean of 16 draws.

        Raises:
            UsageError: an estimator that is neither "elbo" nor "iwae-K" with K >= 1.
        """
        if estimator == "elbo":
            draws = torch.cat([piece.cpu().double() for piece in self._elbo_draws(batch, noise, ELBO_DRAWS)])
            return LogLikelihood(draws.mean(0), "lower_bound", estimator, draws.std(0) / math.sqrt(ELBO_DRAWS))
        match = re.fullmatch(r"iwae-([1-9]\d*)", estimator)
        if match is None:
            raise unknown("estimator of vae", estimator, ("elbo", "iwae-K with a number K"))
        bound = LogMeanExp()
        for piece in self._log_weights(batch, noise, int(match[1])):
            bound.add(piece.cpu().double())
        return LogLikelihood(bound.value(), "lower_bound", estimator, bound.standard_error())

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """z ~ N(0, I), x ~ p(x | z); a temperature T scales the draw's deviation from the central image."""
        output = self.decode_parameters(request.noise.normal(self.latent_shape))
        temperature = request.options.temperature
        x = self.observation.draw(output, request.noise)
        if temperature is not None:
            x = torch.lerp(self.observation.centre(output), x, temperature)
        return from_float(x, self.spec.levels)

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
