"""Gated PixelCNN: PixelCNN with gated units and two stacks of convolutions, so that it sees every pixel before.

Paper: van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves and Kavukcuoglu, "Conditional Image Generation with
PixelCNN Decoders", NeurIPS 2016 (arXiv:1606.05328): equation (1) (raster order), (2) (gated unit), (3) and (4)
(conditioning on a class), section 2.2 (blind spot and the two stacks), figure 2 (a layer). Reference code: none by the
authors; `GatedPixelCNN` in EugenHotaj/pytorch-generative is a public one.

    log P(x | y) = sum_i log P(x_i | x_1 .. x_{i-1}, y)                                                     (eq. 3)
    gate(a, b) = tanh(a + V_f y) * sigmoid(b + V_g y), a and b the halves of a convolution's output    (eqs. 2 and 4)

Both stacks have p feature maps. At row r the vertical stack v knows the rows above r, at (r, c) the horizontal stack h
also the pixels of row r left of c (and at c the colours before the one that is predicted). A layer is

    u = conv_{n x n}(v), v' = gate(u), h' = h + conv_{1 x 1}(gate(conv_{1 x n}(h) + conv_{1 x 1}(u)))      (figure 2)

The rows and columns of kernels that a mask would zero are not stored: (n // 2 + 1) x n and 1 x (n // 2 + 1).

Sampling is incremental and exact: features of a known pixel never change, so v is computed once a row from the last
n // 2 + 1 rows of each layer's input, and h at one position per value (the caching of Ramachandran et al., "Fast
Generation for Convolutional Autoregressive Models", 2017, on two stacks).

Inpainting ("mask"): values are drawn in raster order and given ones kept, so that each draw knows the given pixels
before it and not those after. It is the exact conditional where the given pixels come first in raster order (the
upper part of an image), an approximation otherwise.

A class-conditional model reports log p(x) = log 1/C sum_y P(x | y), exact too, so that it stands beside others.

Deviations from the paper:
- Adam instead of RMSProp; optional dropout of the gates' outputs, averaged weights.
- The gate is tanh(a / 2) sigmoid(b), as tanh(a / 2) = 2 sigmoid(a) - 1 is one sigmoid for both halves; the factor
  belongs to the weights. Weights start with a variance that gates keep, residual ones smaller by the root of the depth.
- The first layer has no residual connection (h would let a pixel see itself).
- Two levels are one Bernoulli logit instead of a softmax. Colours own groups of feature maps as even as they can be.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.images import bits_per_dim, from_levels, levels_to_float, to_float, to_levels
from genbench.noise import NoiseSource


class GatedPixelCNNConfig(ModelConfig):
    """Architecture and optimiser."""

    channels: int = Field(32, ge=1)
    """p, the feature maps of each stack."""
    layers: int = Field(8, ge=1)
    """Layers with a residual connection, after the first one."""
    first_kernel: int = Field(7, ge=3)
    kernel: int = Field(3, ge=3)
    head: int = Field(64, ge=1)
    """Feature maps of the 1 x 1 layer before the logits."""
    class_conditional: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0)


class StackCache:
    """What incremental evaluation keeps of each layer, and the position (row, column) that is evaluated.

    vertical_row: the last row that the vertical stack was computed for.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.row = self.column = 0
        self.vertical_row = -1
        self._rows: dict[nn.Module, Tensor] = {}
        self._columns: dict[nn.Module, Tensor] = {}
        self._links: dict[nn.Module, Tensor] = {}

    def rows(self, layer: VerticalConv2d, x: Tensor) -> Tensor:
        """Store a row of the layer's input (B, C, 1, W); returns the rows under its kernel, (B, C, radius + 1, W)."""
        if layer not in self._rows:
            self._rows[layer] = x.new_zeros(*x.shape[:2], layer.kernel_size[0], self.width)
        self._rows[layer] = torch.cat((self._rows[layer][:, :, 1:], x), dim=2)
        return self._rows[layer]

    def columns(self, layer: HorizontalConv2d, x: Tensor, back: int = 0) -> Tensor:
        """Store (B, C, 1, 1) as the layer's input ``back`` columns back; returns the inputs under its kernel there."""
        if layer not in self._columns:
            self._columns[layer] = x.new_zeros(*x.shape[:2], 1, layer.radius + self.width)
        inputs, column = self._columns[layer], self.column - back
        inputs[:, :, :, column + layer.radius] = x[:, :, :, 0]
        return inputs[:, :, :, column : column + layer.radius + 1]

    def store_link(self, layer: nn.Module, link: Tensor) -> None:
        """Keep what the vertical stack gives to the horizontal one in this row, (B, 2p, 1, W)."""
        self._links[layer] = link

    def link(self, layer: nn.Module) -> Tensor:
        """(B, 2p, 1, 1) at the column."""
        return self._links[layer][:, :, :, self.column, None]


class VerticalConv2d(nn.Conv2d):
    """An n x n convolution of the rows up to its centre's (or above it: ``above``, in the first layer)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, above: bool) -> None:
        self.radius, self.above = kernel // 2, above
        super().__init__(inputs, outputs, (self.radius + 1 - above, kernel))

    def forward(self, x: Tensor, cache: StackCache | None = None) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W); with a cache H = 1, the cache's row (``above``: the row before)."""
        r = self.radius
        x = F.pad(x, (r, r, r, -self.above)) if cache is None else F.pad(cache.rows(self, x), (r, r))
        return F.conv2d(x, self.weight, self.bias)


class HorizontalConv2d(nn.Conv2d):
    """A 1 x n convolution of the columns up to its centre.

    At the centre an output of colour c sees colours before c (mask A) or up to and with c (mask B). Inputs and outputs
    are split in ``colours`` contiguous groups, the outputs ``halves`` times over (for the two halves of a gate).
    """

    mask: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int, colours: int, kind: Literal["A", "B"], halves: int = 1
    ) -> None:
        self.radius = kernel // 2
        super().__init__(inputs, outputs, (1, self.radius + 1))
        part = outputs // halves
        source = torch.arange(inputs) * colours // inputs
        target = (torch.arange(part) * colours // part).repeat(halves)
        seen = source[None, :] < target[:, None] if kind == "A" else source[None, :] <= target[:, None]
        mask = torch.ones_like(self.weight)
        mask[:, :, 0, -1] = seen.float()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor, cache: StackCache | None = None) -> Tensor:
        """(B, inputs, H, W) to (B, outputs, H, W); with a cache both are 1 x 1, at its position."""
        if cache is not None:
            x = cache.columns(self, x) if self.radius else x
        elif self.radius:
            x = F.pad(x, (self.radius, 0))
        return F.conv2d(x, self.weight * self.mask, self.bias)


def gate(x: Tensor) -> Tensor:
    """(B, 2p, H, W) to (B, p, H, W): tanh(a / 2) sigmoid(b) of the halves a and b."""
    a, b = x.sigmoid().chunk(2, dim=1)
    return (2 * a - 1) * b


class GatedLayer(nn.Module):
    """Figure 2. The first layer takes the image in both stacks, with mask A and without a residual connection."""

    def __init__(self, config: GatedPixelCNNConfig, spec: ImageSpec, first: bool) -> None:
        super().__init__()
        p, colours, self.first = config.channels, spec.channels, first
        inputs, kernel = (colours, config.first_kernel) if first else (p, config.kernel)
        self.vertical = VerticalConv2d(inputs, 2 * p, kernel, above=first)
        self.link = nn.Conv2d(2 * p, 2 * p, 1)
        self.horizontal = HorizontalConv2d(inputs, 2 * p, kernel, colours, "A" if first else "B", halves=2)
        self.out = HorizontalConv2d(p, p, 1, colours, "B")
        self.classes = nn.Embedding(spec.num_classes, 4 * p) if config.class_conditional else None
        self.dropout = nn.Dropout(config.dropout)
        self._initialise(config.layers)

    def _initialise(self, layers: int) -> None:
        for conv in (self.vertical, self.link, self.horizontal):
            nn.init.normal_(conv.weight, std=2.0 / math.sqrt(conv.weight[0].numel()))
        nn.init.normal_(self.out.weight, std=1.0 / math.sqrt(layers * self.out.in_channels))
        for conv in (self.vertical, self.link, self.horizontal, self.out):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=0.1)

    def below(self, v: Tensor, y: Tensor | None, cache: StackCache | None = None) -> tuple[Tensor, Tensor]:
        """The vertical stack: its next features (B, p, H, W) and what it gives to the horizontal one, (B, 2p, H, W)."""
        u = self.vertical(v, cache)
        link = self.link(u)
        if self.classes is not None:
            told = self.classes(y)[:, :, None, None]  # (B, 4p, 1, 1)
            u, link = u + told[:, : u.shape[1]], link + told[:, u.shape[1] :]
        return self.dropout(gate(u)), link

    def beside(self, h: Tensor, link: Tensor, cache: StackCache | None = None) -> Tensor:
        """The horizontal stack's next features, (B, p, H, W)."""
        update: Tensor = self.out(self.dropout(gate(self.horizontal(h, cache) + link)))
        return update if self.first else h + update


class GatedPixelCNNNetwork(nn.Module):
    """The layers, then two 1 x 1 layers on the horizontal stack, each after a ReLU, and K logits per colour."""

    def __init__(self, config: GatedPixelCNNConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.levels, colours = spec.levels, spec.channels
        self.layers = nn.ModuleList(GatedLayer(config, spec, first=i == 0) for i in range(config.layers + 1))
        self.head = HorizontalConv2d(config.channels, config.head, 1, colours, "B")
        self.logits = HorizontalConv2d(config.head, colours * (spec.levels if spec.levels > 2 else 1), 1, colours, "B")

    def forward(self, x: Tensor, y: Tensor | None = None, cache: StackCache | None = None) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] and classes (B,) to logits (B, C, K, H, W).

        With a cache, H = W = 1 in the logits: those of the cache's position, from an ``x`` that is right before it.
        Positions are visited in raster order.
        """
        if cache is None:
            x = x.contiguous(memory_format=torch.channels_last)
            v, h = x, x
            for layer in self._gated():
                v, link = layer.below(v, y)
                h = layer.beside(h, link)
        else:
            h = self._at_position(x, y, cache)
        z = self.logits(F.relu(self.head(F.relu(h)))).unflatten(1, (x.shape[1], -1))
        return F.pad(z, (0, 0, 0, 0, 1, 0)) if self.levels == 2 else z

    def _gated(self) -> list[GatedLayer]:
        return cast(list[GatedLayer], list(self.layers))

    def _at_position(self, x: Tensor, y: Tensor | None, cache: StackCache) -> Tensor:
        row, column = cache.row, cache.column
        if cache.vertical_row < row:
            v = x[:, :, row - 1 : row] if row else torch.zeros_like(x[:, :, :1])
            for layer in self._gated():
                v, link = layer.below(v, y, cache)
                cache.store_link(layer, link)
            cache.vertical_row = row
        if column:
            cache.columns(self._gated()[0].horizontal, x[:, :, row : row + 1, column - 1 : column], back=1)
        h = x[:, :, row : row + 1, column : column + 1]
        for layer in self._gated():
            h = layer.beside(h, cache.link(layer), cache)
        return h


class GatedPixelCNN(GenerativeModel):
    """Gated PixelCNN with exact likelihood, incremental sampling, classes and inpainting in raster order."""

    Config = GatedPixelCNNConfig
    networks = ("network",)
    averaged = ("network",)
    sampler_options = frozenset({"temperature"})
    conditions = frozenset({"mask"})

    def __init__(self, config: GatedPixelCNNConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        _check(config, spec)
        self.classes = spec.num_classes if config.class_conditional else 0
        if self.classes:
            self.conditions = frozenset({"labels", "mask"})
        self.learning_rate = config.learning_rate
        self.network = GatedPixelCNNNetwork(config, spec)

    def log_prob(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """log P(x | y) in nats, (B,) float64, of stored images (B, C, H, W) uint8 and classes (B,); equation (3)."""
        levels = to_levels(images, self.spec.levels)
        logits = self.network(to_float(images, self.spec.levels), labels)  # (B, C, K, H, W)
        log_p = F.log_softmax(logits.double(), dim=2).gather(2, levels[:, :, None])
        return log_p.flatten(1).sum(1)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": Adam(self.network.parameters(), lr=self.learning_rate)}

    def _labels_of(self, batch: Batch) -> Tensor | None:
        if self.classes and batch.labels is None:
            raise UsageError("A class-conditional gated_pixelcnn learns from labelled images; these have no labels.")
        return batch.labels if self.classes else None

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        levels = to_levels(batch.images, self.spec.levels)
        logits = self.network(to_float(batch.images, self.spec.levels), self._labels_of(batch))
        loss = F.cross_entropy(logits.transpose(1, 2).float(), levels)  # mean over B, C, H, W
        ctx.backward(loss)
        ctx.step_optimizer("network")
        return {"bits_per_dim": bits_per_dim(-loss.detach(), 1)}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:  # noqa: ARG002
        """(B,) bits per dimension, of log P(x | y) where the model has classes."""
        return bits_per_dim(self.log_prob(batch.images, self._labels_of(batch)), self.spec.dims)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("exact",)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:  # noqa: ARG002
        """Exact log P(x); a class-conditional model sums over its classes and does not look at the batch's labels."""
        if estimator not in self.likelihood_estimators():
            raise unknown("likelihood estimator", estimator, self.likelihood_estimators())
        if not self.classes:
            return LogLikelihood(self.log_prob(batch.images, None), "exact", estimator)
        labels = torch.arange(self.classes, device=batch.images.device)[:, None].expand(-1, len(batch))
        given = torch.stack([self.log_prob(batch.images, y) for y in labels])  # (classes, B)
        return LogLikelihood(given.logsumexp(0) - math.log(self.classes), "exact", estimator)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """Draw values in raster order, colours within a pixel. Classes that are not asked for are drawn, all as likely.

        Raises:
            UsageError: a temperature that is not positive, or a mask without its source.
        """
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        if temperature <= 0:
            raise UsageError(f"GatedPixelCNN: temperature must be positive, got {temperature}.")
        y, K = self._classes_of(request), self.spec.levels
        channels, height, width = self.spec.shape
        given = request.given(self.spec)
        levels = torch.zeros(len(request), *self.spec.shape, dtype=torch.int64, device=self.device)
        x = levels_to_float(levels, K)
        cache = StackCache(width)
        for row, column, colour in product(range(height), range(width), range(channels)):
            cache.row, cache.column = row, column
            logits = self.network(x, y, cache)  # (B, C, K, 1, 1)
            probabilities = (logits[:, colour, :, 0, 0].float() / temperature).softmax(-1)
            drawn = request.noise.categorical(probabilities)
            if given is not None:
                place = (slice(None), colour, row, column)
                drawn = torch.where(given.mask[place], given.levels[place], drawn)
            levels[:, colour, row, column] = drawn
            x[:, colour, row, column] = levels_to_float(drawn, K)
        return from_levels(levels, K)

    def _classes_of(self, request: SampleRequest) -> Tensor | None:
        if not self.classes:
            return None
        if request.condition.labels is not None:
            return request.condition.labels
        return request.noise.categorical(torch.ones(len(request), self.classes, device=self.device))


def _check(config: GatedPixelCNNConfig, spec: ImageSpec) -> None:
    for name, kernel in (("first_kernel", config.first_kernel), ("kernel", config.kernel)):
        if kernel % 2 == 0:
            raise UsageError(f"GatedPixelCNN: {name} must be odd, got {kernel}.")
    if min(config.channels, config.head) < spec.channels:
        raise UsageError(
            f"GatedPixelCNN: channels ({config.channels}) and head ({config.head}) must be at least the images' "
            f"{spec.channels} channels, so that each colour has feature maps."
        )
    if config.class_conditional and not spec.num_classes:
        raise UsageError(
            "A class-conditional gated_pixelcnn is told the class of each image, and this dataset has no labels. "
            "Set class_conditional = false."
        )
