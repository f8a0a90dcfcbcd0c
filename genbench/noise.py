"""Counter-based random numbers: element j of draw d for sample i depends on (seed, i, d, j) alone.

Philox-4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), vectorised in 64-bit integer
arithmetic, so that a batch of any size, on any device, gives each sample the same noise.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox-4x32 on four int64 tensors holding 32-bit words; returns four such tensors."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0, high1 = (p0 >> 32) & _MASK, (p1 >> 32) & _MASK
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, p1 & _MASK, high0 ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from a tuple of numbers and words, so that streams with different purposes never meet."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class NoiseSource:
    """Noise for a batch of samples. Every call is a new draw; draws are numbered in the order of the calls.

    Args:
        seed: any non-negative integer below 2^63.
        index: (B,) int64, the sample indices; noise is made on this tensor's device.
        stream: separates uses that share a seed and indices ("sample", "likelihood", ...).
    """

    def __init__(self, seed: int, index: Tensor, stream: str = "sample") -> None:
        mixed = derive_seed(seed, stream)
        self._key = (mixed & _MASK, (mixed >> 32) & _MASK)
        self.index = index.to(torch.int64)
        self._draw = 0

    @property
    def device(self) -> torch.device:
        return self.index.device

    def __len__(self) -> int:
        return self.index.shape[0]

    def _words(self, count: int) -> Tensor:
        """(B, 4 * ceil(count / 4)) int64 tensor of 32-bit words for the next draw."""
        blocks = -(-count // 4)
        low = (self.index & _MASK)[:, None]
        high = ((self.index >> 32) & _MASK)[:, None]
        position = torch.arange(blocks, device=self.device, dtype=torch.int64)[None, :]
        draw = torch.full_like(position, self._draw)
        self._draw += 1
        words = philox((position + 0 * low, low + 0 * position, high + 0 * position, draw + 0 * low), self._key)
        return torch.stack(words, dim=-1).reshape(len(self), 4 * blocks)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32, uniform on [0, 1) with 24 random bits."""
        count = math.prod(shape)
        words = self._words(count)[:, :count]
        return ((words >> 8).to(torch.float32) * 2.0**-24).reshape(len(self), *shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32, standard normal (Box-Muller)."""
        count = math.prod(shape)
        half = -(-count // 2)
        words = self._words(2 * half)[:, : 2 * half]
        u = ((words >> 8).to(torch.float32) + 0.5) * 2.0**-24
        radius = torch.sqrt(-2.0 * torch.log(u[:, :half]))
        angle = (2.0 * math.pi) * u[:, half:]
        z = torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)), dim=1)
        return z[:, :count].reshape(len(self), *shape)

    def rademacher(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32, -1 or +1 with equal probability."""
        count = math.prod(shape)
        words = self._words(count)[:, :count]
        return ((words & 1).to(torch.float32) * 2.0 - 1.0).reshape(len(self), *shape)

    def categorical(self, probabilities: Tensor) -> Tensor:
        """One category per distribution: (B, ..., K) probabilities to (B, ...) int64, by inversion."""
        cumulative = probabilities.float().cumsum(-1)
        threshold = self.uniform(tuple(probabilities.shape[1:-1])) * cumulative[..., -1]
        return (cumulative <= threshold[..., None]).sum(-1).clamp(max=probabilities.shape[-1] - 1)
