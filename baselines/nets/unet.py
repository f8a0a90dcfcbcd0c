"""The U-Net that diffusion models denoise with: residual blocks, group norm, SiLU, time embedding, self-attention.

Layout of Ho et al. (2020), appendix B (a PixelCNN++ backbone with group norm): per level ``blocks`` residual blocks
going down and one more going up, skips from every block by concatenation, two residual blocks with self-attention
between them in the middle, strided convolutions down, nearest neighbour and convolution up. What a paper may choose
(sizes, where attention sits, dropout, what the output means) is an argument.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, dims: int) -> Tensor:
    """Positions (B,) to (B, dims) sines and cosines with wavelengths from 2 pi to 20000 pi (Vaswani et al. 2017)."""
    half = dims // 2
    frequency = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000.0) / max(1, half - 1)))
    angle = t.float()[:, None] * frequency[None, :]
    return F.pad(torch.cat((angle.sin(), angle.cos()), dim=1), (0, dims % 2))


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with the paper's 32 groups, or fewer where a group would hold less than the paper's four channels."""
    most = max(1, min(32, channels // 4))
    groups = max(count for count in range(1, most + 1) if channels % count == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


def silu(x: Tensor) -> Tensor:
    """SiLU, in place where nothing is differentiated (fresh memory is what it costs on a CPU)."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def zero_init(layer: nn.Conv2d) -> nn.Conv2d:
    """The same layer with zero weights, so that the branch it ends starts as the identity."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(cast(Tensor, layer.bias))
    return layer


class ResidualBlock(nn.Module):
    """(B, C, H, W), (B, E) to (B, C', H, W): norm, SiLU, convolution, twice, with the time embedding added between."""

    def __init__(self, channels: int, out_channels: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.project = nn.Linear(embedding, out_channels)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_init(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.shortcut = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        h = h + self.project(embedding)[:, :, None, None]
        h = self.conv2(self.dropout(silu(self.norm2(h))))
        return self.shortcut(x) + h


class SelfAttention(nn.Module):
    """Single-head self-attention over the H W positions of (B, C, H, W), added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero_init(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, 1, c, h * w).transpose(-1, -2).unbind(1)  # (B, 1, H W, C) each
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(-1, -2).reshape(b, c, h, w))


class Upsample(nn.Module):
    """(B, C, H, W) to (B, C, 2 H, 2 W): nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class UNet(nn.Module):
    """A time-conditional U-Net.

    Args:
        in_channels, out_channels: of the image that goes in and the field that comes out, both of one size.
        size: height (or width) of the input, from which the levels' resolutions follow.
        channels: width of the first level; level i has ``channels * multipliers[i]`` at resolution ``size / 2**i``.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention_resolutions: resolutions whose blocks are each followed by self-attention.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        channels: int,
        multipliers: tuple[int, ...],
        blocks: int,
        attention_resolutions: tuple[int, ...],
        dropout: float,
    ) -> None:
        super().__init__()
        self.channels, embedding = channels, 4 * channels
        self.embed = nn.Sequential(nn.Linear(channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, skips = channels, [channels]

        def stage(inputs: int, outputs: int, resolution: int) -> nn.ModuleList:
            parts: list[nn.Module] = [ResidualBlock(inputs, outputs, embedding, dropout)]
            if resolution in attention_resolutions:
                parts.append(SelfAttention(outputs))
            return nn.ModuleList(parts)

        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(stage(width, channels * multiplier, size >> level))
                width = channels * multiplier
                skips.append(width)
            if level < len(multipliers) - 1:
                self.down.append(nn.ModuleList([nn.Conv2d(width, width, 3, stride=2, padding=1)]))
                skips.append(width)
        self.middle = nn.ModuleList(
            [
                ResidualBlock(width, width, embedding, dropout),
                SelfAttention(width),
                ResidualBlock(width, width, embedding, dropout),
            ]
        )
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for block in range(blocks + 1):
                parts = stage(width + skips.pop(), channels * multiplier, size >> level)
                width = channels * multiplier
                if level > 0 and block == blocks:
                    parts.append(Upsample(width))
                self.up.append(parts)
        self.norm_out = group_norm(width)
        self.conv_out = zero_init(nn.Conv2d(width, out_channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: (B, C, H, W); t: (B,) times, or (1,) one time for all. Returns (B, C_out, H, W)."""
        embedding = F.silu(self.embed(sinusoidal_embedding(t, self.channels)))
        h = self.conv_in(x)
        skips = [h]
        for parts in self.down:
            h = _run(cast(nn.ModuleList, parts), h, embedding)
            skips.append(h)
        h = _run(self.middle, h, embedding)
        for parts in self.up:
            h = _run(cast(nn.ModuleList, parts), torch.cat((h, skips.pop()), dim=1), embedding)
        return self.conv_out(silu(self.norm_out(h)))


def _run(parts: nn.ModuleList, h: Tensor, embedding: Tensor) -> Tensor:
    for part in parts:
        h = part(h, embedding) if isinstance(part, ResidualBlock) else part(h)
    return h
