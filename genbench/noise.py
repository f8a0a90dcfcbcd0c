"""Counter-based random numbers: element j of draw d for sample i depends on (seed, i, d, j) alone.

Philox-4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011), vectorised in 64-bit integer
arithmetic, so that a batch of any size, on any device, gives each sample the same noise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_AHEAD_DRAWS, _AHEAD_VALUES = 32, 2**17


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox-4x32 on four int64 tensors of one shape, each holding 32-bit words; returns four such."""
    even, odd = torch.stack((counter[2], counter[0])), torch.stack((counter[1], counter[3]))
    column = (2,) + (1,) * (even.dim() - 1)
    multipliers = torch.tensor(_MULTIPLIERS[::-1], device=even.device).view(column)
    steps = [[(word + i * step) & _MASK for word, step in zip(key, _KEY_STEPS)] for i in range(10)]
    for round_key in torch.tensor(steps, device=even.device).view(10, *column):
        product = even * multipliers
        high = product.bitwise_right_shift(32).bitwise_and_(_MASK).bitwise_xor_(odd).bitwise_xor_(round_key)
        # Lane 0 of `even` is word 2 and lane 1 word 0, so that each lane of `high` meets the word it is mixed into.
        even, odd = high.flip(0), product.bitwise_and_(_MASK)
    return even[1], odd[0], even[0], odd[1]


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
        self._last: tuple[str, int] | None = None
        self._ahead: list[Tensor] = []

    @property
    def device(self) -> torch.device:
        return self.index.device

    def __len__(self) -> int:
        return self.index.shape[0]

    def _next(self, kind: str, count: int, transform: Callable[[Tensor, int], Tensor]) -> Tensor:
        """(B, count) values of the next draw. A draw like the one before it is made together with those to come:
        samplers ask for the same again and again, and one large operation costs less than many small ones."""
        if self._last != (kind, count):
            self._ahead = []
        if not self._ahead:
            draws = 1
            if self._last == (kind, count):
                draws = max(1, min(_AHEAD_DRAWS, _AHEAD_VALUES // max(1, len(self) * count)))
            self._ahead = list(transform(self._words(draws, count), count).unbind(0))[::-1]
        self._last = (kind, count)
        self._draw += 1
        return self._ahead.pop()

    def _words(self, draws: int, count: int) -> Tensor:
        """(draws, B, >= count) int64 tensor of 32-bit words for the next draws."""
        blocks = -(-count // 4)
        shape = (draws, len(self), blocks)
        position = torch.arange(blocks, device=self.device)
        draw = torch.arange(self._draw, self._draw + draws, device=self.device)[:, None, None]
        low, high = (self.index & _MASK)[:, None], ((self.index >> 32) & _MASK)[:, None]
        words = philox((position.expand(shape), low.expand(shape), high.expand(shape), draw.expand(shape)), self._key)
        return torch.stack(words, dim=-1).flatten(2)

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32, uniform on [0, 1) with 24 random bits."""
        return self._next("uniform", math.prod(shape), _to_uniform).reshape(len(self), *shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32, standard normal (Box-Muller)."""
        return self._next("normal", math.prod(shape), _to_normal).reshape(len(self), *shape)

    def rademacher(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape) float32, -1 or +1 with equal probability."""
        return self._next("rademacher", math.prod(shape), _to_sign).reshape(len(self), *shape)

    def categorical(self, probabilities: Tensor) -> Tensor:
        """One category per distribution: (B, ..., K) probabilities to (B, ...) int64, by inversion."""
        cumulative = probabilities.float().cumsum(-1)
        threshold = self.uniform(tuple(probabilities.shape[1:-1])) * cumulative[..., -1]
        return (cumulative <= threshold[..., None]).sum(-1).clamp(max=probabilities.shape[-1] - 1)


def _to_uniform(words: Tensor, count: int) -> Tensor:
    return (words[..., :count] >> 8).to(torch.float32) * 2.0**-24


def _to_normal(words: Tensor, count: int) -> Tensor:
    half = -(-count // 2)
    u = ((words[..., : 2 * half] >> 8).to(torch.float32) + 0.5) * 2.0**-24
    radius = torch.sqrt(-2.0 * torch.log(u[..., :half]))
    angle = (2.0 * math.pi) * u[..., half:]
    return torch.cat((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)[..., :count]


def _to_sign(words: Tensor, count: int) -> Tensor:
    return (words[..., :count] & 1).to(torch.float32) * 2.0 - 1.0
