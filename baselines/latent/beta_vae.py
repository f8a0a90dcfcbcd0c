"""beta-VAE: a VAE whose objective weighs the KL, for latents whose axes mean one thing each.

Papers: Higgins, Matthey, Pal, Burgess, Glorot, Botvinick, Mohamed and Lerchner, "beta-VAE: Learning Basic Visual
Concepts with a Constrained Variational Framework", ICLR 2017 (eq. 4). The capacity-controlled form: Burgess, Higgins,
Pal, Matthey, Watters, Desjardins and Lerchner, "Understanding disentangling in beta-VAE", 2018 (arXiv:1804.03599,
eq. 8). It is `vae` plus this objective: decoders, bounds, networks and sampling are those of that file.

    minimise -E_q [log p(x | z)] + beta KL(q(z | x) || p(z))                                         (Higgins et al.)
    minimise -E_q [log p(x | z)] + gamma |KL(q(z | x) || p(z)) - C|, C from 0 to C_max in a line     (Burgess et al.)

The model is evaluated as the VAE it is, with beta = 1: `log_likelihood` gives bounds on log P(x), and the objective is
a looser one for beta > 1. `validate`, which early stopping minimises, is the objective at its final beta or C. A latent
traversal decodes a code with one coordinate moved: `encode`, then `decode`.

Reference code: google-research/disentanglement_lib (`methods/unsupervised/vae.py`).

Deviations from the papers:
- The absolute value is taken of each image's KL, as eq. 8 reads; the reference code takes it of the batch's mean.
- No KL warm-up by default (`kl_warmup` of `vae` applies to beta where it is set, and to neither gamma nor C).
- The discrete decoders, AdamW, dropout, averaged weights and choice of weights of `vae`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from baselines.latent.vae import VAE, VAEConfig


class BetaVAEConfig(VAEConfig):
    """Settings of the beta-VAE: those of the VAE, and its objective."""

    objective: Literal["beta", "capacity"] = "beta"
    beta: float = Field(4.0, ge=0)
    gamma: float = Field(1000.0, ge=0)
    """capacity: weight of the KL's distance from C."""
    max_capacity: float = Field(25.0, ge=0)
    """capacity: C_max in nats."""
    capacity_share: float = Field(0.5, gt=0, le=1)
    """capacity: share of the budget over which C grows to C_max."""
    kl_warmup: float = Field(0.0, ge=0, le=1)
    """beta: share of the budget over which the KL's weight grows from 0 to beta."""


class BetaVAE(VAE):
    """A beta-VAE; see the module's docstring."""

    Config = BetaVAEConfig
    config: BetaVAEConfig

    def loss(self, distortion: Tensor, kl: Tensor, progress: float) -> Tensor:
        """The objective per image, (B,) nats, at ``progress`` in [0, 1] of the budget."""
        if self.config.objective == "beta":
            return super().loss(distortion, self.config.beta * kl, progress)
        capacity = self.config.max_capacity * min(1.0, progress / self.config.capacity_share)
        return distortion + self.config.gamma * (kl - capacity).abs()
