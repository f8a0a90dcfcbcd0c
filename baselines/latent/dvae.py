"""Discrete VAE: a grid of categorical latents, learned through their Gumbel-softmax relaxation.

Papers: Ramesh et al., "Zero-Shot Text-to-Image Generation", ICML 2021 (DALL-E, arXiv:2102.12092), sec. 2 (eq. 1), 2.1
and app. A (networks, annealing), whose image tokeniser this is, with the prior of its second stage and without the
text. The relaxation: Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax", ICLR 2017, eqs. 1 and 2;
Maddison, Mnih and Teh, "The Concrete Distribution", ICLR 2017, eq. 10. Reference code: `dall_e/encoder.py` and
`decoder.py` in openai/DALL-E (networks only).

    stage 1: max E [log p(x | softmax((log q(. | x) + g) / tau))] - beta KL(q(z | x) || uniform), g ~ Gumbel
    stage 2: max E_q [log p_psi(z)], encoder and decoder frozen
    ELBO(x) = E_q [log p(x | z) + log p_psi(z)] + H(q(z | x)) <= log P(x), z hard draws

Both stages are eq. 1 of Ramesh et al., the first with a uniform prior and while tau falls from 1 to 1/16. They share
one budget, the second has its last `prior_share`. All reported bounds and `validate` are of hard
draws with the KL at weight 1, under the learned prior p_psi, which samples come from: under it the bound is tighter
than under the uniform prior. p_psi starts uniform, so that validation has one meaning in both stages; recipes must not
stop early (no `patience`). ``iwae-K`` has weights p(x | z) p_psi(z) / q(z | x).

Deviations from the papers:
- The decoder is a distribution on the K levels (`baselines.nets.observation`), not the logit-Laplace density of app.
  A.3, so that the bounds are on the probability of discrete images.
- The prior learns from draws of q, as the bound has it, not from the likeliest codes; it is a transformer over the
  codes in raster order alone.
- `kl_weight` is the recipe's: DALL-E's 6.6 favours the prior's stage, 1 is the ELBO. Budgets are shares, not updates.
- No code has less than exp(-15) of the likeliest one's probability, which keeps the weights of IWAE finite.
- Each stage's learning rate goes to zero in a half cosine (the paper: to 1.25e-6); averaged weights for the prior only.

`temperature` T scales the deviation of a sample's values from the decoder's central image, 0 giving that image; codes
are drawn from the prior as it is.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from baselines.nets.causal_transformer import CausalTransformer
from baselines.nets.observation import OBSERVATIONS, Decoder, Observation, draw_images
from baselines.nets.two_stages import TwoStages
from baselines.nets.vector_quantiser import perplexity
from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.images import from_float, levels_to_float, to_levels
from genbench.likelihood.importance import chunk_size, estimators, variational_bound
from genbench.noise import NoiseSource

MIN_LOGIT = -15.0
"""Smallest logit of a code, the largest being 0."""


class DVAEConfig(ModelConfig):
    """Settings of the discrete VAE."""

    decoder: Decoder = "discretised_logistic"
    width: int = Field(128, ge=4, multiple_of=4)
    """Channels at full resolution; each halving doubles them."""
    halvings: int = Field(2, ge=1)
    """Max poolings: the grid of codes is H / 2^halvings by W / 2^halvings."""
    blocks: int = Field(2, ge=1)
    """Residual blocks per resolution."""
    num_codes: int = Field(512, ge=2)
    """K, values of a latent."""
    code_dim: int = Field(128, ge=1)
    """Numbers that the decoder has for a code."""
    kl_weight: float = Field(1.0, ge=0)
    """beta."""
    kl_warmup: float = Field(0.1, ge=0, le=1)
    """Share of the first stage over which the KL's weight grows from 0 to beta, in a half cosine."""
    temperature: float = Field(1 / 16, gt=0)
    """tau at the end of its annealing; it starts at 1."""
    temperature_share: float = Field(0.5, ge=0, le=1)
    """Share of the first stage over which tau falls, in a half cosine."""
    prior_width: int = Field(256, ge=1)
    prior_layers: int = Field(6, ge=1)
    prior_heads: int = Field(8, ge=1)
    prior_dropout: float = Field(0.1, ge=0, lt=1)
    prior_share: float = Field(0.5, gt=0, lt=1)
    """Share of the budget for the second stage."""
    learning_rate: float = Field(3e-4, gt=0)
    prior_learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    importance_draws: tuple[int, ...] = (50,)
    """K of each importance-weighted bound that is reported, beside the ELBO."""


def conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """A convolution that keeps the size, with weights of variance 1 / fan-in and no initial bias."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=1.0 / math.sqrt(inputs * kernel**2))
    layer.bias.data.zero_()  # type: ignore[union-attr]
    return layer


class Block(nn.Module):
    """identity(x) + gain * four convolutions through a quarter of the channels, each after a ReLU (app. A.2).

    Args:
        kernels: sizes of the convolutions: (3, 3, 3, 1) in the encoder, (1, 3, 3, 3) in the decoder.
        gain: of the residual path; 1 / depth^2 in the reference code.
    """

    def __init__(self, inputs: int, outputs: int, kernels: tuple[int, int, int, int], gain: float) -> None:
        super().__init__()
        self.gain, hidden = gain, outputs // 4
        self.identity = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        channels = (inputs, hidden, hidden, hidden, outputs)
        layers: list[nn.Module] = []
        for i, kernel in enumerate(kernels):
            layers += [nn.ReLU(), conv(channels[i], channels[i + 1], kernel)]
        self.residual = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.identity(x) + self.gain * self.residual(x)


def encoder(config: DVAEConfig, channels: int) -> nn.Sequential:
    """(B, C, H, W) to logits of codes (B, K, h, w)."""
    gain, width = ((config.halvings + 1) * config.blocks) ** -2, config.width
    layers: list[nn.Module] = [conv(channels, width, 7)]
    before = width
    for group in range(config.halvings + 1):
        for _ in range(config.blocks):
            layers.append(Block(before, width * 2**group, (3, 3, 3, 1), gain))
            before = width * 2**group
        if group < config.halvings:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.ReLU(), conv(before, config.num_codes, 1))


def decoder(config: DVAEConfig, outputs: int) -> nn.Sequential:
    """Distributions over codes or one-hot codes (B, K, h, w) to (B, outputs, H, W)."""
    gain = ((config.halvings + 1) * config.blocks) ** -2
    layers: list[nn.Module] = [conv(config.num_codes, config.code_dim, 1)]
    nn.init.normal_(layers[0].weight)  # type: ignore[arg-type]
    before = config.code_dim
    for group in reversed(range(config.halvings + 1)):
        for _ in range(config.blocks):
            layers.append(Block(before, config.width * 2**group, (1, 3, 3, 3), gain))
            before = config.width * 2**group
        if group > 0:
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
    return nn.Sequential(*layers, nn.ReLU(), conv(before, outputs, 1))


def gumbel(shape: torch.Size, rng: torch.Generator, device: torch.device) -> Tensor:
    """Standard Gumbel noise, -log(-log u), float32."""
    return -torch.log(-torch.log(torch.rand(shape, generator=rng, device=device).clamp(min=1e-20)))


def half_cosine(start: float, end: float, done: float, share: float) -> float:
    """A schedule from ``start`` to ``end`` over the first ``share`` of a stage of which ``done`` is spent."""
    part = min(1.0, done / share) if share > 0 else 1.0
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * part))


class DVAE(GenerativeModel):
    """A discrete VAE with a transformer prior; see the module's docstring."""

    Config = DVAEConfig
    config: DVAEConfig
    networks = ("encoder", "decoder", "prior")
    averaged = ("prior",)
    """The network of the second stage; the first stage ends at a rate of zero instead."""
    sampler_options = frozenset({"temperature"})

    def __init__(self, config: DVAEConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        factor = 2**config.halvings
        if spec.height % factor or spec.width % factor:
            raise UsageError(
                f"DVAE: {config.halvings} halvings need sides divisible by {factor}, images are {spec.height} x "
                f"{spec.width}. Give fewer halvings."
            )
        self.grid = (spec.height // factor, spec.width // factor)
        self.length = self.grid[0] * self.grid[1]
        self.observation: Observation = OBSERVATIONS[config.decoder](spec.levels)
        self.encoder = encoder(config, spec.channels)
        self.decoder = decoder(config, spec.channels * self.observation.parameters)
        self.prior = CausalTransformer(
            *(config.num_codes, self.length, config.prior_width, config.prior_layers, config.prior_heads),
            dropout=config.prior_dropout,
            grid=self.grid,
        )
        self.stages = TwoStages(config.prior_share)

    def posterior(self, images: Tensor) -> Tensor:
        """log q(z | x) of stored images, (B, L, K) float32, normalised; positions in raster order."""
        x = levels_to_float(to_levels(images, self.spec.levels), self.spec.levels)
        logits = self.encoder(x).float().flatten(2).transpose(1, 2)  # (B, L, K)
        return (logits - logits.amax(-1, keepdim=True)).clamp(min=MIN_LOGIT).log_softmax(-1)

    def decode_parameters(self, weights: Tensor) -> Tensor:
        """Decoder output (B, C, H, W, P) float32 for weights of the codes (B, L, K), one-hot or relaxed."""
        output = self.decoder(weights.transpose(1, 2).reshape(len(weights), -1, *self.grid)).float()
        return output.unflatten(1, (self.spec.channels, self.observation.parameters)).movedim(2, -1)

    def one_hot(self, codes: Tensor) -> Tensor:
        """Codes (..., L) to float32 (..., L, K)."""
        return F.one_hot(codes, self.config.num_codes).float()

    def optimizers(self) -> dict[str, Optimizer]:
        """One AdamW a stage."""
        config = self.config
        first, second = [*self.encoder.parameters(), *self.decoder.parameters()], self.prior.parameters()
        return {
            "autoencoder": self.stages.anneal(AdamW(first, config.learning_rate, weight_decay=config.weight_decay)),
            "prior": self.stages.anneal(AdamW(second, config.prior_learning_rate, weight_decay=config.weight_decay)),
        }

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on the relaxed bound, or one on the prior's log-probability of codes drawn from q."""
        if self.stages.enter(ctx.progress):
            return self._update_prior(batch, ctx)
        config, done = self.config, self.stages.done
        tau = half_cosine(1.0, config.temperature, done, config.temperature_share)
        beta = half_cosine(0.0, config.kl_weight, done, config.kl_warmup)
        log_q = self.posterior(batch.images)
        relaxed = ((log_q + gumbel(log_q.shape, ctx.rng, log_q.device)) / tau).softmax(-1)
        levels = to_levels(batch.images, self.spec.levels)
        distortion = -self.observation.image_log_prob(self.decode_parameters(relaxed), levels).mean()
        kl = self.length * math.log(config.num_codes) - entropy(log_q).mean()
        ctx.backward((distortion + beta * kl) / self.spec.dims)
        ctx.step_optimizer("autoencoder")
        return {
            "relaxed_distortion": distortion.detach(),
            "kl_to_uniform": kl.detach(),
            "code_perplexity": perplexity(log_q.argmax(-1), config.num_codes),
        }

    def _update_prior(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        with torch.no_grad(), torch.autocast(ctx.device.type, enabled=False):
            log_q = self.posterior(batch.images)
            codes = (log_q + gumbel(log_q.shape, ctx.rng, log_q.device)).argmax(-1)
        nats = F.cross_entropy(self.prior(codes).float().transpose(1, 2), codes)  # mean over B, L
        ctx.backward(nats)
        ctx.step_optimizer("prior")
        rate = self.length * nats.detach() - entropy(log_q).mean()
        return {"rate": rate, "code_perplexity": perplexity(codes, self.config.num_codes)}

    def draws(self, images: Tensor, log_q: Tensor, noise: NoiseSource, num: int) -> tuple[Tensor, Tensor]:
        """``num`` hard draws z of each image's codes: log p(x, z) and log q(z | x) in nats, (num, B) float64 each."""
        q = log_q.exp()
        z = torch.stack([noise.categorical(q) for _ in range(num)])  # (num, B, L)
        output = self.decode_parameters(self.one_hot(z.flatten(0, 1)))
        levels = to_levels(images, self.spec.levels)
        log_p_x = self.observation.image_log_prob(output.view(num, -1, *output.shape[1:]), levels)
        log_p_z = self.prior.log_prob(z.flatten(0, 1)).view(num, -1)
        log_q_z = log_q.expand(num, -1, -1, -1).gather(-1, z[..., None]).flatten(2).sum(-1)
        return log_p_x.double() + log_p_z, log_q_z.double()

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) negative ELBO in nats, one hard draw of z."""
        log_q = self.posterior(batch.images)
        return -self.draws(batch.images, log_q, noise, 1)[0][0] - entropy(log_q)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return estimators(self.config.importance_draws)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        """Lower bound on log P(x) per image, under the learned prior.

        Raises:
            UsageError: an estimator that is neither "elbo" nor "iwae-K" with K >= 1.
        """
        log_q = self.posterior(batch.images)
        H = entropy(log_q).double()

        def elbo(num: int) -> Tensor:
            return self.draws(batch.images, log_q, noise, num)[0] + H

        def log_weights(num: int) -> Tensor:
            joint, log_q_z = self.draws(batch.images, log_q, noise, num)
            return joint - log_q_z

        values = len(batch) * max(
            *(self.config.width * self.spec.height * self.spec.width, self.length * self.config.num_codes),
            *(self.length * 4 * self.config.prior_width, self.spec.dims * self.observation.parameters),
        )
        return variational_bound(estimator, elbo, log_weights, chunk_size(values), "dvae")

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """Codes from the learned prior, then x ~ p(x | z) in one pass of the decoder."""
        output = self.decode_parameters(self.one_hot(self.prior.sample(request.noise)))
        return draw_images(self.observation, output, request.noise, self.spec.levels, request.options.temperature)

    @torch.no_grad()
    def decode_codes(self, codes: Tensor) -> Tensor:
        """The decoder's central image of codes (B, L), (B, C, H, W) uint8."""
        return from_float(self.observation.centre(self.decode_parameters(self.one_hot(codes))), self.spec.levels)

    @torch.no_grad()
    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:  # noqa: ARG002
        """The central image of the likeliest codes."""
        return self.decode_codes(self.posterior(batch.images).argmax(-1))


def entropy(log_q: Tensor) -> Tensor:
    """H(q(z | x)) in nats, (B,), of independent positions' log-probabilities (B, L, K)."""
    return -(log_q.exp() * log_q).flatten(1).sum(1)
