"""A codebook that follows its vectors: nearest entries, moving averages, restarts of entries that nothing uses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class VectorQuantiser(nn.Module):
    """K codes e_k of d numbers, each a moving average of the vectors that it was nearest to.

    van den Oord et al., "Neural Discrete Representation Learning", 2017: eqs. 1 and 2 (nearest code), app. A.1 (moving
    averages N_k of the number of vectors of a code and m_k of their sum, e_k = m_k / N_k). Restarts: Dhariwal et al.,
    "Jukebox", 2020, sec. 3.1. Averages of zero vectors are dead too, so that the first `restart` makes a codebook of
    vectors of the first batch.

    Args:
        decay: of the moving averages.
        dead_share: a code is dead when its average count is at most this share of the mean count of all codes.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, dim: int, decay: float = 0.99, dead_share: float = 0.03) -> None:
        super().__init__()
        self.decay, self.dead_share = decay, dead_share
        self.register_buffer("codebook", torch.randn(num_codes, dim))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, dim))

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """The nearest code of vectors (..., d): (...) int64, argmin_k |z - e_k|^2, never in half precision."""
        with torch.autocast(z.device.type, enabled=False):
            flat = z.reshape(-1, z.shape[-1]).to(self.codebook.dtype)
            distances = self.codebook.square().sum(1) - 2.0 * flat @ self.codebook.T  # less |z|^2
            return distances.argmin(1).view(z.shape[:-1])

    def lookup(self, codes: Tensor) -> Tensor:
        """The vectors of codes (...): (..., d)."""
        return F.embedding(codes, self.codebook)

    def forward(self, z: Tensor, rng: torch.Generator) -> Quantised:
        """Quantise vectors z (..., d) of a training batch and learn from them: restarts, codes, moving averages."""
        z = z.to(self.codebook.dtype)
        dead = self.restart(z, rng)
        codes = self.nearest(z)
        z_q = self.lookup(codes)
        self.learn(z, codes)
        return Quantised(straight_through(z, z_q), codes, (z - z_q).square().sum(-1), dead)

    @torch.no_grad()
    def restart(self, z: Tensor, rng: torch.Generator) -> Tensor:
        """Put dead codes on vectors drawn from z (..., d), with the mean count; returns the share of dead codes."""
        flat = z.reshape(-1, z.shape[-1]).to(self.codebook.dtype)
        chosen = flat[torch.randint(len(flat), (len(self.counts),), generator=rng, device=flat.device)]
        dead = self.counts <= self.dead_share * self.counts.mean()
        fresh = torch.where(self.counts.any(), self.counts.mean(), len(flat) / len(self.counts))
        self.counts.copy_(torch.where(dead, fresh, self.counts))
        self.sums.copy_(torch.where(dead[:, None], fresh * chosen, self.sums))
        self.codebook.copy_(torch.where(dead[:, None], chosen, self.codebook))
        return dead.float().mean()

    @torch.no_grad()
    def learn(self, z: Tensor, codes: Tensor) -> None:
        """Move the averages towards a batch of vectors z (..., d) and their codes (...); app. A.1, eqs. 6 to 8."""
        flat = z.reshape(-1, z.shape[-1]).to(self.codebook.dtype)
        assigned = F.one_hot(codes.flatten(), len(self.counts)).to(flat.dtype)  # (n, K)
        with torch.autocast(z.device.type, enabled=False):
            self.counts.lerp_(assigned.sum(0), 1.0 - self.decay)
            self.sums.lerp_(assigned.T @ flat, 1.0 - self.decay)
        known = self.counts > 0
        self.codebook.copy_(
            torch.where(known[:, None], self.sums / self.counts.clamp(min=1e-20)[:, None], self.codebook)
        )


@dataclass(frozen=True)
class Quantised:
    """A batch of vectors on their codes. z_q: (..., d) with the gradient of z. codes: (...) int64.

    distance: (...) |z - sg[z_q]|^2. dead: share of codes that were restarted.
    """

    z_q: Tensor
    codes: Tensor
    distance: Tensor
    dead: Tensor


def straight_through(z: Tensor, z_q: Tensor) -> Tensor:
    """z_q, with the gradient of z: the decoder's gradient is copied to the encoder (sec. 3.2, after eq. 2)."""
    return z + (z_q - z).detach()


def perplexity(codes: Tensor, num_codes: int) -> Tensor:
    """exp of the entropy of the codes' frequencies, a scalar in [1, K]: how many codes are used."""
    p = torch.bincount(codes.flatten(), minlength=num_codes).float() / codes.numel()
    return torch.exp(-torch.special.xlogy(p, p).sum())
