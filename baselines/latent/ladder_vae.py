"""Ladder variational autoencoder: a hierarchy of latents, inferred downwards by combining prior and evidence.

Paper: Sonderby, Raiko, Maaloe, Sonderby and Winther, "Ladder Variational Autoencoders", NeurIPS 2016
(arXiv:1602.02282). Reference code: casperkaae/LVAE (`run_models.py`).

    p(x, z) = p(x | z_1) p(z_1 | z_2) .. p(z_{L-1} | z_L) N(z_L; 0, I), normals with mean and variance from MLPs
    d_i = MLP(d_{i-1}), d_0 = x; mu^_i = Linear(d_i), v^_i = softplus(Linear(d_i))        (deterministic, upwards)
    q(z_L | x) = N(mu^_L, v^_L)                                                           (stochastic, downwards)
    q(z_i | z_{i+1}, x) = N(mu_i, v_i), 1 / v_i = 1 / v^_i + 1 / v_p, mu_i = v_i (mu^_i / v^_i + mu_p / v_p)
    ELBO = E_q [log p(x | z_1) - sum_i KL(q(z_i | z_{i+1}, x) || p(z_i | z_{i+1}))]

v^ and v_p are variances, mu_p and v_p those of p(z_i | z_{i+1}). The combination is Bayes' rule for a normal prior and
a normal likelihood term N(mu^; z, v^), so that inference is exact where the model is linear and normal. The evidence is
bounded by importance weighting whole paths z_L .. z_1 (Burda et al., ICLR 2016, eq. 8).

Warm-up: the KL's weight grows in a line from 0 to 1 over the first `kl_warmup` of the budget (the paper's 200 of 2000
epochs); the figures of the training curve, validation and bounds have it at 1.

Deviations from the paper:
- Batch normalisation uses its running averages outside training, so that an image's bound and a sample do not depend
  on their batch. Layer normalisation in its place leaves the upper levels unused (see the card).
- Variances are at least 1e-4, and log-probabilities are of the K levels (`baselines.nets.observation`).
- AdamW with a half cosine, averaged weights, dropout for small data, weights of the best validation ELBO; no
  fine-tuning with several Monte Carlo and importance-weighted samples at the end.

`reconstruct` goes down the ladder by the posteriors' means. Sampling draws every latent from its prior and then x; a
temperature T scales the values' deviation from the central image, as in `vae`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from baselines.nets.observation import OBSERVATIONS, Decoder, Observation, draw_images
from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.images import from_float, levels_to_float, to_float, to_levels
from genbench.likelihood import importance
from genbench.noise import NoiseSource

MIN_VARIANCE = 1e-4
Size = Annotated[int, Field(ge=1)]


class LadderVAEConfig(ModelConfig):
    """Settings of the ladder VAE; lists go from the image upwards."""

    decoder: Decoder = "bernoulli"
    latent_dims: tuple[Size, ...] = Field((64, 32, 16, 8, 4), min_length=1)
    """Dimensions of z_1 .. z_L."""
    widths: tuple[Size, ...] = (512, 256, 128, 64, 32)
    """Hidden units between x and level 1, level 1 and 2, .., upwards and downwards."""
    dropout: float = Field(0.0, ge=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    kl_warmup: float = Field(0.1, ge=0, le=1)
    """Share of the budget over which the KL's weight grows from 0 to 1."""
    importance_draws: tuple[Size, ...] = (500,)
    """Draws of the importance-weighted bounds that are reported beside the ELBO, the one to quote first."""


class Normal(NamedTuple):
    """Independent normals, both fields (N, Z)."""

    mean: Tensor
    variance: Tensor


def combine(evidence: Normal, prior: Normal) -> Normal:
    """The precision-weighted product of two normals."""
    variance = 1.0 / (1.0 / evidence.variance + 1.0 / prior.variance)
    return Normal(variance * (evidence.mean / evidence.variance + prior.mean / prior.variance), variance)


def kl_divergence(q: Normal, p: Normal) -> Tensor:
    """KL(q || p) in nats, summed over the last axis."""
    ratio = q.variance / p.variance
    return 0.5 * ((q.mean - p.mean) ** 2 / p.variance + ratio - 1.0 - torch.log(ratio)).sum(-1)


class Layers(nn.Sequential):
    """Two layers, each linear, normalised, leaky and dropped out."""

    def __init__(self, inputs: int, width: int, dropout: float) -> None:
        layers: list[nn.Module] = []
        for size in (inputs, width):
            layers += [nn.Linear(size, width), nn.BatchNorm1d(width), nn.LeakyReLU(0.1), nn.Dropout(dropout)]
        super().__init__(*layers)


class ToNormal(nn.Module):
    """Linear mean, softplus of a linear variance."""

    def __init__(self, inputs: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, 2 * latent_dim)

    def forward(self, h: Tensor) -> Normal:
        mean, raw = self.linear(h).float().chunk(2, dim=-1)
        return Normal(mean, F.softplus(raw) + MIN_VARIANCE)


class Upward(nn.Module):
    """The deterministic pass: what the image says of each level by itself."""

    def __init__(self, config: LadderVAEConfig, dims: int) -> None:
        super().__init__()
        inputs = (dims, *config.widths)
        self.layers = nn.ModuleList(Layers(i, w, config.dropout) for i, w in zip(inputs, config.widths))
        self.heads = nn.ModuleList(ToNormal(w, z) for w, z in zip(config.widths, config.latent_dims, strict=True))

    def forward(self, x: Tensor) -> list[Normal]:
        """(B, C, H, W) in [-1, 1] to N(mu^_i, v^_i) of levels 1 .. L."""
        d, evidence = x.flatten(1), []
        for layer, head in zip(self.layers, self.heads, strict=True):
            d = layer(d)
            evidence.append(head(d))
        return evidence


@dataclass(frozen=True)
class Descent:
    """One way down. output: (N, D P). kl: (N, L) in nats, level 1 first. log_ratio: (N,) log p(z) - log q(z | x)."""

    output: Tensor
    kl: Tensor
    log_ratio: Tensor


class Downward(nn.Module):
    """The generative model, and with evidence its posterior."""

    def __init__(self, config: LadderVAEConfig, outputs: int) -> None:
        super().__init__()
        latents, widths = config.latent_dims, config.widths
        self.layers = nn.ModuleList(Layers(z, w, config.dropout) for z, w in zip(latents, widths))
        self.heads = nn.ModuleList(ToNormal(w, z) for w, z in zip(widths[1:], latents))
        self.output = nn.Linear(widths[0], outputs)

    def forward(self, eps: tuple[Tensor, ...], evidence: list[Normal] | None = None) -> Descent:
        """Standard normal eps_i (N, Z_i) of levels 1 .. L to a path from q, or without evidence from p."""
        kl, log_ratio, z = [], eps[0].new_zeros(len(eps[0])), eps[-1]
        prior = Normal(torch.zeros_like(z), torch.ones_like(z))
        for i in reversed(range(len(eps))):
            if i < len(eps) - 1:
                prior = self.heads[i](self.layers[i + 1](z))
            q = prior
            if evidence is not None:
                q = evidence[i] if i == len(eps) - 1 else combine(evidence[i], prior)
            z = q.mean + q.variance.sqrt() * eps[i]
            standardised = (z - prior.mean) ** 2 / prior.variance
            log_ratio = log_ratio + 0.5 * (eps[i] ** 2 - standardised + torch.log(q.variance / prior.variance)).sum(-1)
            kl.append(kl_divergence(q, prior))
        return Descent(self.output(self.layers[0](z)).float(), torch.stack(kl[::-1], dim=1), log_ratio)


class LadderVAE(GenerativeModel):
    """A ladder variational autoencoder; see the module's docstring."""

    Config = LadderVAEConfig
    config: LadderVAEConfig
    networks = ("upward", "downward")
    averaged = ("upward", "downward")
    sampler_options = frozenset({"temperature"})

    def __init__(self, config: LadderVAEConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if len(config.widths) != len(config.latent_dims):
            raise UsageError(
                f"ladder_vae: {len(config.latent_dims)} levels (latent_dims = {list(config.latent_dims)}) need as many "
                f"hidden layers, got widths = {list(config.widths)}. Give one width for each level."
            )
        self.observation: Observation = OBSERVATIONS[config.decoder](spec.levels)
        self.upward = Upward(config, spec.dims)
        self.downward = Downward(config, spec.dims * self.observation.parameters)

    def _split(self, eps: Tensor) -> tuple[Tensor, ...]:
        """(..., sum Z_i) to the levels' (N, Z_i), the axes before the last one flattened."""
        return torch.split(eps.flatten(0, -2), list(self.config.latent_dims), dim=-1)

    def _normal(self, noise: NoiseSource) -> Tensor:
        """One draw of eps for all levels, (B, sum Z_i)."""
        return noise.normal((sum(self.config.latent_dims),))

    def _output(self, descent: Descent) -> Tensor:
        """(N, C, H, W, P)."""
        return descent.output.view(-1, *self.spec.shape, self.observation.parameters)

    def _descend(self, evidence: list[Normal], eps: Tensor, levels: Tensor) -> tuple[Tensor, Descent]:
        """c draws eps (c, B, sum Z_i) of each image's path: log p(x | z_1) of levels (B, C, H, W), (c, B) nats."""
        count = len(eps)
        repeated = [Normal(n.mean.repeat(count, 1), n.variance.repeat(count, 1)) for n in evidence]
        descent = self.downward(self._split(eps), repeated)
        output = self._output(descent).view(count, -1, *self.spec.shape, self.observation.parameters)
        return self.observation.image_log_prob(output, levels), descent

    def _negative_elbo(self, images: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x | z_1), (B,), and the KL of each level, (B, L), nats, for eps (B, sum Z_i)."""
        levels = to_levels(images, self.spec.levels)
        log_p, descent = self._descend(self.upward(levels_to_float(levels, self.spec.levels)), eps[None], levels)
        return -log_p[0], descent.kl

    def optimizers(self) -> dict[str, Optimizer]:
        """One AdamW for both passes."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return {"ladder_vae": AdamW(self.parameters(), lr=rate, weight_decay=decay)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on the negative ELBO with the KL weighted by the warm-up."""
        shape = (len(batch), sum(self.config.latent_dims))
        eps = torch.randn(shape, generator=ctx.rng, device=batch.images.device)
        distortion, kl = self._negative_elbo(batch.images, eps)
        beta = min(1.0, ctx.progress / self.config.kl_warmup) if self.config.kl_warmup > 0 else 1.0
        ctx.backward((distortion.mean() + beta * kl.sum(1).mean()) / self.spec.dims)
        ctx.step_optimizer("ladder_vae")
        of_levels = {f"kl_{i + 1}": level.detach() for i, level in enumerate(kl.mean(0))}
        return {"negative_elbo": (distortion + kl.sum(1)).mean().detach(), **of_levels}

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) negative ELBO in nats, KL weight 1, one path."""
        distortion, kl = self._negative_elbo(batch.images, self._normal(noise))
        return distortion + kl.sum(1)

    def likelihood_estimators(self) -> tuple[str, ...]:
        """Importance-weighted bounds, then the ELBO; any "iwae-K" is understood."""
        return importance.estimators(self.config.importance_draws)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        """Lower bound on log P(x) per image, through the whole hierarchy.

        Raises:
            UsageError: an estimator that is neither "elbo" nor "iwae-K" with K >= 1.
        """
        levels = to_levels(batch.images, self.spec.levels)
        evidence = self.upward(levels_to_float(levels, self.spec.levels))

        def descend(count: int) -> tuple[Tensor, Descent]:
            eps = torch.stack([self._normal(noise) for _ in range(count)])  # (c, B, sum Z_i)
            return self._descend(evidence, eps, levels)

        def elbo(count: int) -> Tensor:
            log_p, descent = descend(count)
            return log_p - descent.kl.sum(1).view(count, -1)

        def log_weights(count: int) -> Tensor:
            log_p, descent = descend(count)
            return log_p + descent.log_ratio.view(count, -1)

        chunk = importance.chunk_size(levels.numel() * self.observation.parameters)
        return importance.variational_bound(estimator, elbo, log_weights, chunk, "ladder_vae")

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """z_L ~ N(0, I), z_i ~ p(z_i | z_{i+1}), x ~ p(x | z_1), in one pass."""
        output = self._output(self.downward(self._split(self._normal(request.noise))))
        temperature = request.options.temperature
        return draw_images(self.observation, output, request.noise, self.spec.levels, temperature)

    @torch.no_grad()
    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """The central image of the posteriors' means, level by level."""
        del noise
        evidence = self.upward(to_float(batch.images, self.spec.levels))
        still = tuple(torch.zeros_like(level.mean) for level in evidence)
        return from_float(self.observation.centre(self._output(self.downward(still, evidence))), self.spec.levels)
