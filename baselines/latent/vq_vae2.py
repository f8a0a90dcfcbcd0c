"""VQ-VAE-2: a VQ-VAE with two grids of codes, the bottom one encoded and drawn given the top one.

Paper: Razavi, van den Oord and Vinyals, "Generating Diverse High-Fidelity Images with VQ-VAE-2", NeurIPS 2019
(arXiv:1906.00446): sec. 3.1 and algorithm 1 (hierarchy of codes), sec. 3.2 and algorithm 2 (priors), figure 2 (a).
Reference code: `sonnet.nets.vqvae` in google-deepmind/sonnet for the quantisers; of the whole model,
rosinality/vq-vae-2-pytorch, which is not the authors'. It is `vq_vae` with that one idea: loss, two stages, bound and
deviations are those of that file.

    h_b = E_bottom(x),  e_top = quantise(E_top(h_b)),  e_bottom = quantise(conv [h_b, D_top(e_top)])     (algorithm 1)
    x ~ p(x | decoder [up(e_top), e_bottom])
    log P(x) >= log p(x | e_top, e_bottom) + log p(bottom codes | top codes) + log p(top codes)

The top grid has half the sides of the bottom one, and each grid has a codebook of its own. Bottom codes are given the
top's: the bottom prior is a causal transformer over the top codes and then the bottom ones, of which only the bottom
ones are scored and drawn.

Deviations from the paper, besides those of `vq_vae`:
- Transformers for both priors (the paper: PixelSNAIL for the top, a conditional PixelCNN with a residual stack for the
  bottom); the attention over the top codes is the conditioning stack.
- Both priors learn at once, each from its own loss, and are not conditioned on the class; no rejection sampling.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.latent.vq_vae import VQVAE, Encoded, VQVAEConfig, code_grid, decoder, encoder, token_log_prob
from baselines.nets.vector_quantiser import VectorQuantiser
from genbench.api import ImageSpec
from genbench.images import levels_to_float, to_levels
from genbench.noise import NoiseSource


class VQVAE2Config(VQVAEConfig):
    """Settings of the VQ-VAE-2: those of the VQ-VAE, where `halvings` leads to the bottom grid and one more to the top.

    `num_codes`, `code_dim` and the prior's settings are those of each level.
    """


class VQVAE2(VQVAE):
    """A VQ-VAE with two levels; see the module's docstring. Codes (B, L) are the top's, then the bottom's."""

    Config = VQVAE2Config
    networks = (
        "bottom_encoder",
        "top_encoder",
        "top_decoder",
        "to_bottom",
        "up",
        "decoder",
        "top_prior",
        "bottom_prior",
    )
    averaged = ("top_prior", "bottom_prior")

    def build(self, config: VQVAEConfig, spec: ImageSpec) -> None:
        """Make the networks and the codebooks."""
        self.top_grid = code_grid("VQVAE2", spec, config.halvings + 1)
        self.grid = code_grid("VQVAE2", spec, config.halvings)
        width, d, blocks = config.width, config.code_dim, config.blocks
        self.bottom_encoder = encoder(spec.channels, width, config.halvings, blocks)
        self.top_encoder = nn.Sequential(encoder(width, width, 1, blocks), nn.Conv2d(width, d, 1))
        self.top_decoder = decoder(d, width, 1, blocks, d)
        self.to_bottom = nn.Conv2d(width + d, d, 1)
        self.top_quantiser = VectorQuantiser(config.num_codes, d, config.codebook_decay, config.dead_share)
        self.quantiser = VectorQuantiser(config.num_codes, d, config.codebook_decay, config.dead_share)
        self.up = nn.ConvTranspose2d(d, d, 4, stride=2, padding=1)
        self.decoder = decoder(2 * d, width, config.halvings, blocks, spec.channels * self.observation.parameters)
        self.top_length = self.top_grid[0] * self.top_grid[1]
        self.top_prior = self.new_prior(*self.top_grid)
        self.bottom_prior = self.new_prior(self.top_length + self.grid[0] * self.grid[1])

    def encode_learning(self, x: Tensor, rng: torch.Generator) -> Encoded:
        """Algorithm 1 up to the decoder, for x (B, C, H, W) in [-1, 1], while both codebooks learn."""
        h = self.bottom_encoder(x)
        top = self.top_quantiser(self.top_encoder(h).movedim(1, -1), rng)
        e_top = top.z_q.movedim(-1, 1)
        bottom = self.quantiser(self._bottom_latents(h, e_top), rng)
        return Encoded(
            torch.cat((self.up(e_top), bottom.z_q.movedim(-1, 1)), 1),
            top.distance.flatten(1).sum(1) + bottom.distance.flatten(1).sum(1),
            torch.cat((top.codes.flatten(1), bottom.codes.flatten(1)), 1),
            0.5 * (top.dead + bottom.dead),
        )

    def _bottom_latents(self, h: Tensor, e_top: Tensor) -> Tensor:
        """z_e of the bottom level, (B, h, w, d), of an image's features and its quantised top."""
        return self.to_bottom(torch.cat((h, self.top_decoder(e_top)), 1)).movedim(1, -1)

    @torch.no_grad()
    def codes(self, images: Tensor) -> Tensor:
        """The codes of stored images, (B, L) int64, each grid in raster order, in full precision."""
        with torch.autocast(images.device.type, enabled=False):
            h = self.bottom_encoder(levels_to_float(to_levels(images, self.spec.levels), self.spec.levels))
            top = self.top_quantiser.nearest(self.top_encoder(h).movedim(1, -1))
            e_top = self.top_quantiser.lookup(top).movedim(-1, 1)
            bottom = self.quantiser.nearest(self._bottom_latents(h, e_top))
            return torch.cat((top.flatten(1), bottom.flatten(1)), 1)

    def split(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (B, L) of the top and of the bottom."""
        return codes[:, : self.top_length], codes[:, self.top_length :]

    def features(self, codes: Tensor) -> Tensor:
        """The decoder's input (B, 2 d, h, w) of codes (B, L): the top's vectors upsampled, beside the bottom's."""
        top, bottom = self.split(codes)
        e_top = self.top_quantiser.lookup(top.reshape(-1, *self.top_grid)).movedim(-1, 1)
        return torch.cat((self.up(e_top), self.quantiser.lookup(bottom.reshape(-1, *self.grid)).movedim(-1, 1)), 1)

    def code_log_prob(self, codes: Tensor) -> Tensor:
        """log p(top) + log p(bottom | top) of codes (B, L), (B,) float64 nats."""
        top, bottom = self.split(codes)
        given_top = self.bottom_prior(codes)[:, self.top_length :]
        return token_log_prob(self.top_prior(top), top) + token_log_prob(given_top, bottom)

    def draw_codes(self, noise: NoiseSource) -> Tensor:
        """Codes (B, L): the top's from its prior, then the bottom's given them."""
        top = self.top_prior.sample(noise)
        allowed = torch.ones(len(top), self.bottom_prior.length, self.config.num_codes, device=top.device)
        allowed[:, : self.top_length] = F.one_hot(top, self.config.num_codes)
        return self.bottom_prior.sample(noise, given=allowed.bool())
