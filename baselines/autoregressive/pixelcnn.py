"""PixelCNN: an image as a product of conditionals, P(x) = prod_i P(x_i | x_1 .. x_{i-1}), by masked convolutions.

Paper: van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016 (arXiv:1601.06759):
equations (1) and (2) (raster order, and R, then G given R, then B given R and G, within a pixel), section 2.2 (softmax
over the levels), 3.3 (residual blocks), 3.4 (masks A and B), 3.5 (PixelCNN), table 1 (layers).
Reference code: none was published by the authors.

Incremental sampling is exact: the features of a pixel never change once the pixel is known, so each masked convolution
keeps its past inputs and the network is evaluated at one position per value drawn (Ramachandran et al., "Fast
Generation for Convolutional Autoregressive Models", 2017, applied to single pixels).

Blind spot: stacked masked convolutions see a growing triangle above a pixel, but not the region to its right that lies
outside the triangle (in the row above, beyond the kernel's reach). The model is still exact, only less expressive; the
Gated PixelCNN (van den Oord et al. 2016b) removes it with two stacks.

Deviations from the paper: Adam instead of RMSProp; optional dropout and averaged weights, for small data sets; the rows
of a kernel below its centre, which the mask would zero, are not stored at all; feature maps are split among the colours
in contiguous groups as even as they can be, not in exact thirds. Of table 1's two 1 x 1 layers the second is taken to
be the one that gives the logits: one layer of `head` maps stands before it (`pixelrnn` has two).
"""

from __future__ import annotations

from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.images import bits_per_dim, from_levels, levels_to_float, to_float, to_levels
from genbench.noise import NoiseSource


class PixelCNNConfig(ModelConfig):
    """Architecture and optimiser. A residual block has 2h feature maps outside and h inside (figure 5)."""

    hidden: int = Field(32, ge=1)
    """h."""
    blocks: int = Field(6, ge=1)
    head: int = Field(64, ge=1)
    """Feature maps of the 1 x 1 layer between the blocks and the softmax layer."""
    first_kernel: int = Field(7, ge=3)
    dropout: float = Field(0.0, ge=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0)


class PixelCache:
    """What incremental evaluation keeps: for each spatial convolution, its inputs so far, zero-padded at the borders.

    `row` and `column` are the one position that the network is evaluated at.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.row = self.column = 0
        self._inputs: dict[nn.Module, Tensor] = {}

    def store(self, layer: MaskedConv2d, x: Tensor) -> Tensor:
        """Write (B, C, 1, 1) as the layer's input at the current position; returns all its inputs, padded."""
        r = layer.radius
        if layer not in self._inputs:
            self._inputs[layer] = x.new_zeros(*x.shape[:2], self.height + r, self.width + 2 * r)
        inputs = self._inputs[layer]
        inputs[:, :, self.row + r, self.column + r] = x[:, :, 0, 0]
        return inputs

    def window(self, layer: MaskedConv2d, x: Tensor) -> Tensor:
        """Store x and return the part of the inputs under the layer's kernel, (B, C, r + 1, 2r + 1)."""
        r = layer.radius
        return self.store(layer, x)[:, :, self.row : self.row + r + 1, self.column : self.column + 2 * r + 1]


class MaskedConv2d(nn.Conv2d):
    """A k x k convolution that sees the pixels before its centre in raster order, and at the centre some colours.

    At the centre an output of colour c sees the inputs of colours before c (mask A), or up to and with c (mask B).

    Args:
        colours: C, the groups that inputs and outputs are split into.
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, colours: int, kind: Literal["A", "B"]) -> None:
        self.radius = kernel // 2
        super().__init__(inputs, outputs, (self.radius + 1, kernel))
        source = torch.arange(inputs) * colours // inputs
        target = torch.arange(outputs) * colours // outputs
        seen = source[None, :] < target[:, None] if kind == "A" else source[None, :] <= target[:, None]
        mask = torch.ones_like(self.weight)
        mask[:, :, -1, self.radius + 1 :] = 0
        mask[:, :, -1, self.radius] = seen.float()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor, cache: PixelCache | None = None) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W); with a cache, both are 1 x 1: the cache's position alone."""
        r = self.radius
        x = F.pad(x, (r, r, r, 0)) if cache is None else cache.window(self, x)
        return F.conv2d(x, self.weight * self.mask, self.bias)


class ResidualBlock(nn.Module):
    """1 x 1 down to h maps, 3 x 3, 1 x 1 up to 2h maps, each after a ReLU and with mask B (figure 5, left)."""

    def __init__(self, hidden: int, colours: int, dropout: float) -> None:
        super().__init__()
        self.reduce = MaskedConv2d(2 * hidden, hidden, 1, colours, "B")
        self.conv = MaskedConv2d(hidden, hidden, 3, colours, "B")
        self.expand = MaskedConv2d(hidden, 2 * hidden, 1, colours, "B")
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: PixelCache | None = None) -> Tensor:
        h = self.reduce(F.relu(x), cache)
        h = self.conv(F.relu(h), cache)
        return x + self.expand(self.dropout(F.relu(h)), cache)


class PixelCNNNetwork(nn.Module):
    """Table 1: a 7 x 7 convolution with mask A, residual blocks, two 1 x 1 layers, the second for K logits."""

    def __init__(self, config: PixelCNNConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.levels, colours, width = spec.levels, spec.channels, 2 * config.hidden
        self.stem = MaskedConv2d(colours, width, config.first_kernel, colours, "A")
        blocks = (ResidualBlock(config.hidden, colours, config.dropout) for _ in range(config.blocks))
        self.blocks = nn.ModuleList(blocks)
        self.head = MaskedConv2d(width, config.head, 1, colours, "B")
        self.out = MaskedConv2d(config.head, colours * spec.levels, 1, colours, "B")

    def forward(self, x: Tensor, cache: PixelCache | None = None) -> Tensor:
        """(B, C, H, W) in [-1, 1] to logits (B, C, K, H, W); with a cache, H = W = 1, the cache's position."""
        h = self.stem(x, cache)
        for block in self.blocks:
            h = block(h, cache)
        h = self.out(F.relu(self.head(F.relu(h), cache)), cache)
        return h.unflatten(1, (-1, self.levels))


class PixelCNN(GenerativeModel):
    """PixelCNN with exact likelihood and incremental sampling."""

    Config = PixelCNNConfig
    networks = ("network",)
    averaged = ("network",)
    sampler_options = frozenset({"temperature"})
    conditions = frozenset({"mask"})

    def __init__(self, config: PixelCNNConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if config.first_kernel % 2 == 0:
            raise UsageError(f"PixelCNN: first_kernel must be odd, got {config.first_kernel}.")
        if min(config.hidden, config.head) < spec.channels:
            raise UsageError(
                f"PixelCNN: hidden ({config.hidden}) and head ({config.head}) must be at least the images' "
                f"{spec.channels} channels, so that each colour has feature maps."
            )
        self.learning_rate = config.learning_rate
        self.network = PixelCNNNetwork(config, spec)

    def log_prob(self, images: Tensor) -> Tensor:
        """log P(x) in nats, (B,) float64, of stored images (B, C, H, W) uint8; equation (2)."""
        levels = to_levels(images, self.spec.levels)
        logits = self.network(to_float(images, self.spec.levels))  # (B, C, K, H, W)
        log_p = F.log_softmax(logits.double(), dim=2).gather(2, levels[:, :, None])
        return log_p.flatten(1).sum(1)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": Adam(self.network.parameters(), lr=self.learning_rate)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        levels = to_levels(batch.images, self.spec.levels)
        logits = self.network(to_float(batch.images, self.spec.levels))
        loss = F.cross_entropy(logits.transpose(1, 2).float(), levels)  # mean over B, C, H, W
        ctx.backward(loss)
        ctx.step_optimizer("network")
        return {"bits_per_dim": bits_per_dim(-loss.detach(), 1)}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:  # noqa: ARG002
        return bits_per_dim(self.log_prob(batch.images), self.spec.dims)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("exact",)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:  # noqa: ARG002
        if estimator not in self.likelihood_estimators():
            raise unknown("likelihood estimator", estimator, self.likelihood_estimators())
        return LogLikelihood(nats=self.log_prob(batch.images), kind="exact", estimator=estimator)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """Draw values in raster order, colours within a pixel: D evaluations, each at one position.

        With a mask, given values take the place of drawn ones: each value is drawn given all that come before it, and
        not given those that come after.

        Raises:
            UsageError: a temperature that is not positive, or a mask without its source.
        """
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        if temperature <= 0:
            raise UsageError(f"PixelCNN: temperature must be positive, got {temperature}.")
        given, (channels, height, width) = request.given(self.spec), self.spec.shape
        levels = torch.zeros(len(request), *self.spec.shape, dtype=torch.int64, device=self.device)
        cache = PixelCache(height, width)
        for row, column in product(range(height), range(width)):
            cache.row, cache.column = row, column
            pixel = levels[:, :, row : row + 1, column : column + 1]  # a view, filled colour by colour
            for colour in range(channels):
                logits = self.network(levels_to_float(pixel, self.spec.levels), cache)  # (B, C, K, 1, 1)
                probabilities = (logits[:, colour, :, 0, 0].float() / temperature).softmax(-1)
                drawn = request.noise.categorical(probabilities)
                if given is not None:
                    place = (slice(None), colour, row, column)
                    drawn = torch.where(given.mask[place], given.levels[place], drawn)
                pixel[:, colour, 0, 0] = drawn
            cache.store(self.network.stem, levels_to_float(pixel, self.spec.levels))
        return from_levels(levels, self.spec.levels)
