"""VQ-VAE: an autoencoder whose latents are the nearest entries of a learned codebook, and a prior over their indices.

Paper: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017
(arXiv:1711.00937): sec. 3.1 (nearest code, eqs. 1 and 2), 3.2 (straight-through gradient, loss eq. 3, the bound), 3.3
(autoregressive prior), 4.1 (networks), app. A.1 (codebook by moving averages). Reference code: `sonnet.nets.vqvae` in
google-deepmind/sonnet, with its example notebook.

    z_q(x) = e_k, k = argmin_j |z_e(x) - e_j|, at each position of a grid                              (eqs. 1 and 2)
    L = -log p(x | z_q(x)) + beta |z_e(x) - sg[z_q(x)]|^2                        (eq. 3, e_k by moving averages instead)

The gradient of the decoder at z_q is copied to z_e. There are two stages in one budget: the autoencoder, under a
uniform prior, for the first 1 - `prior_share` of it; then the prior, on the codes of the finished autoencoder.

    log P(x) = log sum_z p(x | z) p(z) >= log p(x | z_q(x)) + log p(z_q(x))                                  (sec. 3.2)

The bound keeps one term of the sum over all grids of codes: it is the ELBO of a posterior that puts everything on one
grid, whose entropy is zero. `validate` is this bound's negative in both stages. The prior starts uniform, so that it is
nats of reconstruction plus h w log K in the first stage, and the two stages are on one scale; recipes must not stop
early (no `patience`), for a stage may end in a plateau.

Deviations from the paper:
- The decoder is a distribution on the K levels (`baselines.nets.observation`), never a Gaussian density.
- The prior is a causal transformer over the codes in raster order, not a PixelCNN; its dropout, averaged weights.
- Codes that fall out of use are put on vectors of the batch (Dhariwal et al., "Jukebox", 2020); the first batch starts
  the codebook that way.
- One code per position (the paper's CIFAR-10 model has ten latents at each of 8 x 8 positions, 4.67 bits/dim).
- Each stage's learning rate goes to zero in a half cosine; AdamW.

`temperature` T scales the deviation of a sample's values from the decoder's central image, 0 giving that image; codes
are drawn from the prior as it is. No inpainting: a pixel does not belong to one code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from baselines.nets.causal_transformer import CausalTransformer
from baselines.nets.observation import OBSERVATIONS, Decoder, Observation, draw_images
from baselines.nets.two_stages import TwoStages
from baselines.nets.vector_quantiser import VectorQuantiser, perplexity
from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.images import from_float, levels_to_float, to_levels
from genbench.noise import NoiseSource


class VQVAEConfig(ModelConfig):
    """Settings of the VQ-VAE."""

    decoder: Decoder = "discretised_logistic"
    width: int = Field(256, ge=1)
    """Channels of every hidden layer of encoder and decoder."""
    halvings: int = Field(2, ge=1)
    """Strided convolutions: the grid of codes is H / 2^halvings by W / 2^halvings."""
    blocks: int = Field(2, ge=0)
    """Residual blocks at the resolution of the codes, in encoder and decoder each."""
    num_codes: int = Field(512, ge=2)
    """K, entries of the codebook."""
    code_dim: int = Field(64, ge=1)
    commitment: float = Field(0.25, ge=0)
    """beta."""
    codebook_decay: float = Field(0.99, gt=0, lt=1)
    dead_share: float = Field(0.03, ge=0, lt=1)
    """A code is restarted when its average count falls to this share of the mean count; 0 never restarts."""
    prior_width: int = Field(256, ge=1)
    prior_layers: int = Field(6, ge=1)
    prior_heads: int = Field(8, ge=1)
    prior_dropout: float = Field(0.1, ge=0, lt=1)
    prior_share: float = Field(0.5, gt=0, lt=1)
    """Share of the budget for the second stage."""
    learning_rate: float = Field(2e-4, gt=0)
    prior_learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)


class ResidualBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x)))) (sec. 4.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(F.relu(self.conv(F.relu(x))))


def encoder(inputs: int, width: int, halvings: int, blocks: int) -> nn.Sequential:
    """(B, inputs, H, W) to (B, width, H / 2^halvings, W / 2^halvings)."""
    layers: list[nn.Module] = []
    for i in range(halvings):
        layers += [nn.Conv2d(inputs if i == 0 else width, width, 4, stride=2, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(width, width, 3, padding=1), *(ResidualBlock(width) for _ in range(blocks)), nn.ReLU()]
    return nn.Sequential(*layers)


def decoder(inputs: int, width: int, halvings: int, blocks: int, outputs: int) -> nn.Sequential:
    """(B, inputs, h, w) to (B, outputs, 2^halvings h, 2^halvings w)."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, width, 3, padding=1)]
    layers += [ResidualBlock(width) for _ in range(blocks)]
    for i in range(halvings):
        after = outputs if i == halvings - 1 else width
        layers += [nn.ReLU(), nn.ConvTranspose2d(width, after, 4, stride=2, padding=1)]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Encoded:
    """What the first stage needs of a batch.

    features: (B, d', h, w) decoder input with the straight-through gradient. commitment: (B,) |z_e - sg[z_q]|^2.
    codes: (B, L). dead: share of codes restarted.
    """

    features: Tensor
    commitment: Tensor
    codes: Tensor
    dead: Tensor


class VQVAE(GenerativeModel):
    """A VQ-VAE with a transformer prior; see the module's docstring."""

    Config: ClassVar[type[ModelConfig]] = VQVAEConfig
    config: VQVAEConfig
    networks: ClassVar[tuple[str, ...]] = ("encoder", "decoder", "prior")
    averaged: ClassVar[tuple[str, ...]] = ("prior",)
    """The networks of the second stage; the first stage ends at a rate of zero instead."""
    sampler_options = frozenset({"temperature"})

    def __init__(self, config: VQVAEConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.observation: Observation = OBSERVATIONS[config.decoder](spec.levels)
        self.stages = TwoStages(config.prior_share)
        self.build(config, spec)

    def build(self, config: VQVAEConfig, spec: ImageSpec) -> None:
        """Make the networks and the codebook."""
        self.grid = code_grid(type(self).__name__, spec, config.halvings)
        width, outputs = config.width, spec.channels * self.observation.parameters
        self.encoder = nn.Sequential(
            encoder(spec.channels, width, config.halvings, config.blocks), nn.Conv2d(width, config.code_dim, 1)
        )
        self.quantiser = VectorQuantiser(config.num_codes, config.code_dim, config.codebook_decay, config.dead_share)
        self.decoder = decoder(config.code_dim, width, config.halvings, config.blocks, outputs)
        self.prior = self.new_prior(*self.grid)

    def new_prior(self, *grid: int) -> CausalTransformer:
        """A transformer over a grid of codes (or a sequence) that gives all of them the same probability."""
        config = self.config
        return CausalTransformer(
            *(config.num_codes, math.prod(grid), config.prior_width, config.prior_layers, config.prior_heads),
            dropout=config.prior_dropout,
            grid=grid,
        )

    def encode_learning(self, x: Tensor, rng: torch.Generator) -> Encoded:
        """Encode x (B, C, H, W) in [-1, 1] for the first stage, while the codebook learns."""
        found = self.quantiser(self.encoder(x).movedim(1, -1), rng)
        return Encoded(found.z_q.movedim(-1, 1), found.distance.flatten(1).sum(1), found.codes.flatten(1), found.dead)

    @torch.no_grad()
    def codes(self, images: Tensor) -> Tensor:
        """The codes of stored images in raster order, (B, L) int64, in full precision whatever the training's."""
        with torch.autocast(images.device.type, enabled=False):
            x = levels_to_float(to_levels(images, self.spec.levels), self.spec.levels)
            return self.quantiser.nearest(self.encoder(x).movedim(1, -1)).flatten(1)

    def features(self, codes: Tensor) -> Tensor:
        """z_q of codes (B, L): the decoder's input (B, d, h, w)."""
        return self.quantiser.lookup(codes.view(-1, *self.grid)).movedim(-1, 1)

    def code_log_prob(self, codes: Tensor) -> Tensor:
        """log p(z) of codes (B, L) under the prior, (B,) float64 nats."""
        return token_log_prob(self.prior(codes), codes)

    def draw_codes(self, noise: NoiseSource) -> Tensor:
        """Codes (B, L) from the prior."""
        return self.prior.sample(noise)

    def decode_parameters(self, features: Tensor) -> Tensor:
        """Decoder output (B, C, H, W, P) float32 for features (B, d', h, w)."""
        output = self.decoder(features).float()
        return output.unflatten(1, (self.spec.channels, self.observation.parameters)).movedim(2, -1)

    def log_prob_given(self, features: Tensor, levels: Tensor) -> Tensor:
        """log p(x | z_q) in nats, (B,)."""
        return self.observation.image_log_prob(self.decode_parameters(features), levels)

    def optimizers(self) -> dict[str, Optimizer]:
        """One AdamW a stage."""
        config = self.config
        prior = [p for name in self.averaged for p in self.get_submodule(name).parameters()]
        kept = {id(p) for p in prior}
        first = AdamW([p for p in self.parameters() if id(p) not in kept], config.learning_rate)
        second = AdamW(prior, config.prior_learning_rate)
        for optimizer in (first, second):
            self.stages.anneal(optimizer).param_groups[0]["weight_decay"] = config.weight_decay
        return {"autoencoder": first, "prior": second}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on eq. 3, or one on the prior's log-probability of the codes."""
        if self.stages.enter(ctx.progress):
            return self._update_prior(batch, ctx)
        levels = to_levels(batch.images, self.spec.levels)
        found = self.encode_learning(levels_to_float(levels, self.spec.levels), ctx.rng)
        distortion = -self.log_prob_given(found.features, levels).mean()
        commitment = found.commitment.mean()
        ctx.backward((distortion + self.config.commitment * commitment) / self.spec.dims)
        ctx.step_optimizer("autoencoder")
        return {
            "distortion": distortion.detach(),
            "commitment": commitment.detach(),
            "code_perplexity": perplexity(found.codes, self.config.num_codes),
            "dead_share": found.dead,
        }

    def _update_prior(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        codes = self.codes(batch.images)
        rate = -self.code_log_prob(codes).mean()
        ctx.backward(rate / codes.shape[1])
        ctx.step_optimizer("prior")
        return {"rate": rate.detach(), "code_perplexity": perplexity(codes, self.config.num_codes)}

    def _bound(self, batch: Batch) -> Tensor:
        """log p(x | z_q(x)) + log p(z_q(x)) in nats, (B,) float64."""
        codes, levels = self.codes(batch.images), to_levels(batch.images, self.spec.levels)
        return self.log_prob_given(self.features(codes), levels).double() + self.code_log_prob(codes)

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:  # noqa: ARG002
        """(B,) minus the bound, in nats."""
        return -self._bound(batch)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("elbo",)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:  # noqa: ARG002
        """The bound of sec. 3.2, without Monte Carlo error.

        Raises:
            UsageError: an estimator other than "elbo".
        """
        if estimator not in self.likelihood_estimators():
            raise unknown("likelihood estimator", estimator, self.likelihood_estimators())
        return LogLikelihood(self._bound(batch), "lower_bound", estimator)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """Codes from the prior, then x ~ p(x | z_q) in one pass of the decoder."""
        output = self.decode_parameters(self.features(self.draw_codes(request.noise)))
        return draw_images(self.observation, output, request.noise, self.spec.levels, request.options.temperature)

    @torch.no_grad()
    def decode_codes(self, codes: Tensor) -> Tensor:
        """The decoder's central image of codes (B, L), (B, C, H, W) uint8."""
        return from_float(self.observation.centre(self.decode_parameters(self.features(codes))), self.spec.levels)

    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:  # noqa: ARG002
        """The central image of the image's codes."""
        return self.decode_codes(self.codes(batch.images))


def token_log_prob(logits: Tensor, codes: Tensor) -> Tensor:
    """Sum over positions of the log-probability of codes (B, L) under logits (B, L, K); (B,) float64 nats."""
    return -F.cross_entropy(logits.double().transpose(1, 2), codes, reduction="none").sum(1)


def code_grid(model: str, spec: ImageSpec, halvings: int) -> tuple[int, int]:
    """Height and width of the grid of codes.

    Raises:
        UsageError: sides that cannot be halved so often.
    """
    factor = 2**halvings
    if spec.height % factor or spec.width % factor:
        raise UsageError(
            f"{model}: {halvings} halvings need sides divisible by {factor}, images are {spec.height} x {spec.width}. "
            "Give fewer halvings."
        )
    return spec.height // factor, spec.width // factor
