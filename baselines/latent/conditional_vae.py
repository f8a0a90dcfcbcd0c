"""Conditional variational autoencoder: a VAE that is told the class.

Paper: Sohn, Lee and Yan, "Learning Structured Output Representation using Deep Conditional Generative Models", NeurIPS
2015, with the class y as the condition and the image x as the output. It is `vae` plus the class: decoders, bounds and
networks are those of that file.

    log p(x | y) >= E_q [log p(x | z, y)] - KL(q(z | x, y) || p(z))                  (Sohn et al., eq. 4)
    log p(x) = log 1/C sum_y p(x | y)
            >= E log 1/C sum_y 1/k sum_i p(x | z_yi, y) p(z_yi) / q(z_yi | x, y)

The last line is what `log_likelihood` reports: log p(x), not log p(x | y), so that it stands beside models that are
told nothing. It is the importance-weighted bound of Burda, Grosse and Salakhutdinov (ICLR 2016, eq. 8) with k draws for
each of the C classes; ``iwae-K`` counts all of them, K = C k. Classes are equally likely, as they are when samples are
asked for.

Reference code: `examples/cvae` in pyro-ppl/pyro (there the output is the missing part of a digit).

Deviations from the paper:
- The condition is a class, one-hot beside the inputs of encoder and decoder. The prior does not depend on it,
  p(z | y) = p(z) = N(0, I), a relaxation that the paper allows (sec. 3, after Kingma et al. 2014).
- No Gaussian stochastic neural network and no hybrid objective (eqs. 6 and 7), which are for predictions of one output.
- The discrete decoders, KL warm-up, AdamW, dropout and choice of weights of `vae`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from baselines.latent.vae import VAEConfig, conv_decoder, conv_encoder, kl_to_standard_normal, mlp
from baselines.nets.observation import OBSERVATIONS, Observation, draw_images
from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.images import levels_to_float, to_levels
from genbench.likelihood.importance import Draws, chunk_size, importance_weights, num_importance_draws
from genbench.noise import NoiseSource


class ConditionalVAEConfig(VAEConfig):
    """Settings of the conditional VAE: those of the VAE."""


class ConditionalVAE(GenerativeModel):
    """A conditional variational autoencoder; see the module's docstring."""

    Config = ConditionalVAEConfig
    config: ConditionalVAEConfig
    networks = ("encoder", "decoder")
    averaged = ("encoder", "decoder")
    sampler_options = frozenset({"temperature"})
    conditions = frozenset({"labels"})

    def __init__(self, config: ConditionalVAEConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if not spec.num_classes:
            raise UsageError(
                "conditional_vae is told the class of each image, and this dataset has no labels. Use vae."
            )
        self.observation: Observation = OBSERVATIONS[config.decoder](spec.levels)
        P, C, Z = self.observation.parameters, spec.num_classes, config.latent_dim
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.architecture == "mlp":
            self.encoder = mlp((spec.dims + C, *config.widths, 2 * Z), config.dropout)
            self.decoder = mlp((Z + C, *reversed(config.widths), spec.dims * P), config.dropout)
        else:
            self.encoder = conv_encoder(config, replace(spec, channels=spec.channels + C))
            self.decoder = conv_decoder(config.model_copy(update={"latent_dim": Z + C}), spec, P)

    def posterior(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance (B, Z) of q(z | x, y) for x (B, C, H, W) in [-1, 1] and classes y (B,)."""
        told = F.one_hot(y, self.spec.num_classes).to(x)
        if self.config.architecture == "mlp":
            told_image = torch.cat((x.flatten(1), told), dim=1)
        else:
            planes = told[:, :, None, None].expand(-1, -1, *self.spec.shape[1:])
            told_image = torch.cat((x, planes), dim=1)
        mu, logvar = self.encoder(told_image).float().chunk(2, dim=-1)
        return mu, logvar.clamp(-20.0, 20.0)

    def decode_parameters(self, z: Tensor, y: Tensor) -> Tensor:
        """Decoder output (N, C, H, W, P) float32 for z (N, Z) and classes y (N,)."""
        told = F.one_hot(y, self.spec.num_classes).to(z)
        output, P = self.decoder(torch.cat((z, told), dim=1)).float(), self.observation.parameters
        if self.config.architecture == "mlp":
            return output.view(len(z), *self.spec.shape, P)
        return output.view(len(z), self.spec.channels, P, *self.spec.shape[1:]).movedim(2, -1)

    def log_prob_given(self, z: Tensor, y: Tensor, levels: Tensor) -> Tensor:
        """log p(x | z, y) in nats (c, B), for c draws z (c, B, Z) of each image's latent and its class y (B,)."""
        output = self.decode_parameters(z.flatten(0, 1), y.repeat(len(z)))
        output = output.reshape(*z.shape[:2], *output.shape[1:])  # (c, B, C, H, W, P)
        return self.observation.image_log_prob(output, levels)

    def optimizers(self) -> dict[str, Optimizer]:
        """One AdamW for both networks."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return {"conditional_vae": AdamW(self.parameters(), lr=rate, weight_decay=decay)}

    def _negative_elbo(self, batch: Batch, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Distortion and KL of log p(x | y), (B,) nats each, with z from ``eps`` (B, Z)."""
        if batch.labels is None:
            raise UsageError("conditional_vae learns from labelled images, and these have no labels.")
        levels = to_levels(batch.images, self.spec.levels)
        mu, logvar = self.posterior(levels_to_float(levels, self.spec.levels), batch.labels)
        z = mu + torch.exp(0.5 * logvar) * eps
        return -self.log_prob_given(z[None], batch.labels, levels)[0], kl_to_standard_normal(mu, logvar)

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on the negative ELBO of log p(x | y) with the KL weighted by beta (1 after warm-up)."""
        eps = torch.randn((len(batch), *self.latent_shape), generator=ctx.rng, device=batch.images.device)
        distortion, kl = (part.mean() for part in self._negative_elbo(batch, eps))
        beta = min(1.0, ctx.progress / self.config.kl_warmup) if self.config.kl_warmup > 0 else 1.0
        ctx.backward((distortion + beta * kl) / self.spec.dims)
        ctx.step_optimizer("conditional_vae")
        return {"negative_elbo": (distortion + kl).detach(), "kl": kl.detach()}

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) negative ELBO of log p(x | y) in nats, KL weight 1, one draw of z."""
        distortion, kl = self._negative_elbo(batch, noise.normal(self.latent_shape))
        return distortion + kl

    def likelihood_estimators(self) -> tuple[str, ...]:
        """Importance-weighted bounds, their draws rounded up to a multiple of the classes; others are understood."""
        C = self.spec.num_classes
        return tuple(f"iwae-{C * -(-draws // C)}" for draws in self.config.importance_draws)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        """Lower bound on log p(x) per image, over all classes; the batch's own labels are not looked at.

        Raises:
            UsageError: an estimator that is not "iwae-K" with K a multiple of the number of classes.
        """
        C, draws = self.spec.num_classes, num_importance_draws(estimator)
        if draws is None or draws % C:
            raise unknown("estimator of conditional_vae", estimator, (f"iwae-K with K a multiple of {C}",))
        levels = to_levels(batch.images, self.spec.levels)
        x, num = levels_to_float(levels, self.spec.levels), draws // C
        chunk = chunk_size(levels.numel() * self.observation.parameters)
        bounds = [importance_weights(self._log_weights(x, levels, y, noise), num, chunk) for y in range(C)]
        of_class = torch.stack([bound.value() for bound in bounds])  # (C, B)
        errors = [bound.standard_error() for bound in bounds]
        error = None
        if num > 1:
            share = of_class.softmax(0)
            error = (share * torch.stack([e for e in errors if e is not None])).square().sum(0).sqrt()
        return LogLikelihood(of_class.logsumexp(0) - math.log(C), "lower_bound", estimator, error)

    def _log_weights(self, x: Tensor, levels: Tensor, label: int, noise: NoiseSource) -> Draws:
        """Draws of log p(x, z | y) - log q(z | x, y) for one class y."""
        y = torch.full((len(x),), label, device=x.device)
        mu, logvar = self.posterior(x, y)

        def log_weights(count: int) -> Tensor:
            eps = torch.stack([noise.normal(self.latent_shape) for _ in range(count)])  # (c, B, Z)
            z = mu + torch.exp(0.5 * logvar) * eps
            return self.log_prob_given(z, y, levels) + 0.5 * (eps**2 - z**2 + logvar).sum(-1)

        return log_weights

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """z ~ N(0, I), x ~ p(x | z, y); classes that are not asked for are drawn. A temperature T scales the draw's
        deviation from the central image."""
        y = request.condition.labels
        if y is None:
            y = request.noise.categorical(torch.ones((len(request), self.spec.num_classes), device=self.device))
        output = self.decode_parameters(request.noise.normal(self.latent_shape), y)
        return draw_images(self.observation, output, request.noise, self.spec.levels, request.options.temperature)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(Z,)."""
        return (self.config.latent_dim,)
