"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193), the network behind FD-DINOv2 (Stein et al. 2023).

A vision transformer with patches of 14 x 14, a class token and LayerScale; names of its parts are those of the
official state dicts (facebookresearch/dinov2, models without registers). Position embeddings of the 37 x 37 grid of
pretraining are resampled as the official code does it: bicubic with a scale of (side + 0.1) / 37. Features are the
class token after the last normalisation. Preprocessing is dgm-eval's: Pillow bicubic to 224 x 224, kept in 8 bits,
ImageNet mean and standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.errors import DataError, unknown
from genbench.features.base import (
    ExtractorOptions,
    ExtractorStatus,
    Outputs,
)
from genbench.features.network import NetworkExtractor
from genbench.features.pillow_input import PillowInput
from genbench.features.precision import check_precision
from genbench.weights import LocatedWeights, locate
from genbench.weights.tensors import load_into, read_tensors

PATCH = 14
PRETRAINING_GRID = 37
POSITION_OFFSET = 0.1
INPUT = PillowInput(
    "exact",
    size=(224, 224),
    crop=(224, 224),
    filter="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


@dataclass(frozen=True)
class Architecture:
    """Shape of a DINOv2 network. swiglu: gated feed-forward layers, those of ViT-g."""

    title: str
    width: int
    depth: int
    heads: int
    swiglu: bool = False
    grid: int = PRETRAINING_GRID


ARCHITECTURES = {
    "vits14": Architecture("DINOv2 ViT-S/14", 384, 12, 6),
    "vitb14": Architecture("DINOv2 ViT-B/14", 768, 12, 12),
    "vitl14": Architecture("DINOv2 ViT-L/14", 1024, 24, 16),
    "vitg14": Architecture("DINOv2 ViT-g/14", 1536, 40, 24, swiglu=True),
}
DEFAULT = "vitl14"


class PatchEmbedding(nn.Module):
    """Non-overlapping patches to tokens, by one linear map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)  # (B, patches, width)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, tokens, d) each
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        return self.proj(mixed)


class FeedForward(nn.Module):
    """Two linear layers around a GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGLU(nn.Module):
    """Gated feed-forward layer (Shazeer 2020), two thirds as wide, rounded up to a multiple of eight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = (4 * width * 2 // 3 + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class LayerScale(nn.Module):
    """A learned factor for each channel of a residual branch (Touvron et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Attention and feed-forward layer, each normalised before and scaled after."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width = architecture.width
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, architecture.heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = SwiGLU(width) if architecture.swiglu else FeedForward(width)
        self.ls2 = LayerScale(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class DinoVisionTransformer(nn.Module):
    """The network. ``mask_token`` is used in pretraining only; the official files hold it."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        width = architecture.width
        self.grid = architecture.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + architecture.grid**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.patch_embed = PatchEmbedding(width)
        self.blocks = nn.ModuleList(Block(architecture) for _ in range(architecture.depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W), sides that are multiples of 14, to the class token (B, width)."""
        rows, columns = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        tokens = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], 1) + self.positions(rows, columns)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens[:, 0])

    def positions(self, rows: int, columns: int) -> Tensor:
        """Position embeddings (1, 1 + rows * columns, width) of another grid than that of pretraining."""
        if rows == columns == self.grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].view(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
        scale = ((rows + POSITION_OFFSET) / self.grid, (columns + POSITION_OFFSET) / self.grid)
        resampled = F.interpolate(square, scale_factor=scale, mode="bicubic")  # (1, width, rows, columns)
        return torch.cat([self.pos_embed[:, :1], resampled.flatten(2).transpose(1, 2)], 1)


class DinoExtractor(NetworkExtractor):
    """A DINOv2 network with loaded weights."""

    def __init__(
        self, name: str, network: DinoVisionTransformer, weights: LocatedWeights, options: ExtractorOptions
    ) -> None:
        super().__init__(name, weights.sha256, INPUT.describe(), options, weights.note, INPUT.side)
        self._network = network.eval().requires_grad_(False).to(options.device)

    def forward(self, images: Tensor) -> Outputs:
        """Normalised class tokens."""
        return Outputs(self._network(INPUT(images)))


@dataclass(frozen=True)
class DinoSource:
    """``dinov2:vits14``, ``vitb14``, ``vitl14`` (where none is named) or ``vitg14``."""

    name: str = "dinov2"

    def load(self, options: ExtractorOptions) -> DinoExtractor:
        """Build the network with the store's weights, or those of ``options.weights``.

        Raises:
            UsageError: unknown model, or a precision that the device does not have.
            DataError: weights that are missing, damaged, or of another shape.
        """
        model = options.argument or DEFAULT
        if model not in ARCHITECTURES:
            raise unknown("DINOv2 model", model, ARCHITECTURES)
        check_precision(options.precision, options.device)
        weights = locate(f"dinov2-{model}", options.weights)
        architecture = ARCHITECTURES[model]
        with torch.device("meta"):
            network = DinoVisionTransformer(architecture)
        network.to_empty(device="cpu")
        load_into(network, read_tensors(weights.path), weights.path, architecture.title)
        return DinoExtractor(f"{self.name}:{model}", network, weights, options)

    def status(self) -> ExtractorStatus:
        """Whether the default model's weights are in the store."""
        try:
            found = locate(f"dinov2-{DEFAULT}", download=False)
        except DataError as error:
            return ExtractorStatus(self.name, False, str(error))
        return ExtractorStatus(self.name, True, f"{DEFAULT}: {found.path}, SHA-256 {found.sha256[:12]}")


DINOV2 = DinoSource()
