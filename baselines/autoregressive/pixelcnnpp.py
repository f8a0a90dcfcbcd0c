"""PixelCNN++: whole pixels in raster order, each from a mixture of discretised logistics, by shifted convolutions.

Paper: Salimans, Karpathy, Chen & Kingma, "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture
Likelihood and Other Modifications", ICLR 2017 (arXiv:1701.05517): section 2.1 and equations (1) and (2) (mixture of
logistics, open tails at both ends), 2.2 and equation (3) (colours of a pixel), 2.3 (strided convolutions), 2.4
(shortcuts), 2.5 (dropout).
Reference code: `pixel_cnn_pp` in openai/pixel-cnn.

    P(x) = sum_m pi_m prod_c [sigmoid((x_c + 1/(K-1) - mu_mc) / s_mc) - sigmoid((x_c - 1/(K-1) - mu_mc) / s_mc)]

for a pixel on the levels in [-1, 1]; the first term is 1 at the last level, the second 0 at the first, and mu_mc is
moved linearly by the colours before c. One colour is a plain mixture; two levels are two bins of the logistic.

Two streams: `vertical` sees the rows above a pixel, `horizontal` those and the pixels to its left, and what `vertical`
makes beside it. Each is a U-Net of gated residual blocks. The inputs are shifted by a pixel once; after that a kernel
may cover its own position, but nothing to the right (horizontal) or below. At an odd size, halving rounds up, and the
map that grows back is cropped: a coarse position (i, j) sees what (2i, 2j) may see and speaks to (2i, 2j) and after.

Sampling is incremental and exact (Ramachandran et al., "Fast Generation for Convolutional Autoregressive Models",
2017): `vertical` runs once a row, `horizontal` once a pixel, coarse maps only where they have a new position; each
convolution keeps the two rows of inputs that its kernel covers.

Inpainting: given pixels are kept and the others drawn in raster order, each given all pixels before it: the exact
conditional distribution where the given pixels come first; those that come later do not influence the ones before.

With `class_conditional` an embedding is added in every block, as in the reference code. `log_likelihood` is then still
log P(x) = log 1/C sum_y P(x | y), for classes equally likely; validation watches log P(x | y).

Deviations from the paper: weights start as random directions of length 1 (0.1 where a block ends) instead of the
data-dependent initialisation; shifts move the inputs and not the first layer's outputs; log-scales are clamped above,
too; sampled values are rounded to levels before the next colour sees them; the learning rate follows the recipe.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm
from torch.optim import Adam, Optimizer

from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.images import bits_per_dim, float_to_levels, from_levels, levels_to_float, to_float, to_levels
from genbench.noise import NoiseSource

MAX_LOG_SCALE = 7.0
Kind = Literal["vertical", "horizontal"]


class PixelCNNPPConfig(ModelConfig):
    """Architecture and optimiser; the defaults are the paper's for CIFAR-10."""

    filters: int = Field(160, ge=1)
    resnets: int = Field(5, ge=1)
    """Gated residual blocks of a stream at each scale, downward; one more upward, but at the coarsest scale."""
    scales: int = Field(3, ge=1)
    mixtures: int = Field(10, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    class_conditional: bool = False
    learning_rate: float = Field(1e-3, gt=0)


class LogisticMixture:
    """The distribution of a pixel's C colours on K levels, by P = M (1 + 2C + C (C - 1) / 2) numbers."""

    def __init__(self, channels: int, mixtures: int, levels: int) -> None:
        self.channels, self.mixtures, self.levels = channels, mixtures, levels
        self.sections = [1, channels, channels, channels * (channels - 1) // 2]
        self.parameters = mixtures * sum(self.sections)

    def unpack(self, output: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, P, H, W) to log pi (B, M, H, W), mu and log s (B, C, M, H, W), and (B, C (C - 1) / 2, M, H, W)."""
        parts = output.reshape(len(output), sum(self.sections), self.mixtures, *output.shape[2:])
        logits, mu, log_s, coefficients = torch.split(parts, self.sections, dim=1)
        return logits[:, 0].log_softmax(1), mu, log_s.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE), coefficients.tanh()

    def shift(self, coefficients: Tensor, x: Tensor, colour: int) -> Tensor:
        """Equation (3): what the colours of x (B, C, 1, H, W) before ``colour`` add to its mu, (B, M, H, W)."""
        first = colour * (colour - 1) // 2
        return (coefficients[:, first : first + colour] * x[:, :colour]).sum(1)

    def log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        """log P of pixels' levels (B, C, H, W), in nats, (B, H, W).

        With a, b the standardised edges of a bin: sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)).
        """
        (log_pi, mu, log_s, coefficients), k, half = self.unpack(output), levels[:, :, None], 1.0 / (self.levels - 1)
        x = k.to(output.dtype) * (2.0 * half) - 1.0
        mu = mu + torch.stack([self.shift(coefficients, x, c) for c in range(self.channels)], dim=1)
        inverse, first, last = torch.exp(-log_s), k == 0, k == self.levels - 1
        below_upper = F.logsigmoid((x - mu + half) * inverse).masked_fill(last, 0.0)
        above_lower = F.logsigmoid((mu - x + half) * inverse).masked_fill(first, 0.0)
        between = torch.log(-torch.expm1(-2.0 * half * inverse)).masked_fill(first | last, 0.0)
        return (log_pi + (below_upper + above_lower + between).sum(1)).logsumexp(1)

    def draw(self, output: Tensor, noise: NoiseSource) -> Tensor:
        """Levels (B, C, H, W): a component, then its logistics, colour by colour, each rounded to its level."""
        log_pi, mu, log_s, coefficients = self.unpack(output.float())
        component = noise.categorical(log_pi.exp().movedim(1, -1))[:, None, None]  # (B, 1, 1, H, W)
        mu, log_s, coefficients = (torch.take_along_dim(part, component, 2) for part in (mu, log_s, coefficients))
        logistic = torch.logit(noise.uniform((self.channels, 1, *output.shape[2:])), eps=2.0**-25)
        x = mu + log_s.exp() * logistic  # (B, C, 1, H, W)
        levels = torch.zeros_like(x, dtype=torch.int64)
        for c in range(self.channels):
            moved = x[:, c] + self.shift(coefficients, levels_to_float(levels, self.levels), c)
            levels[:, c] = float_to_levels(moved, self.levels)
        return levels[:, :, 0]


class Features(NamedTuple):
    """What the blocks of a stream make at a scale, (B, F, H, W) each, and at the coarser ones where those are new."""

    down: list[Tensor]
    coarser: Features | None
    up: list[Tensor]


class Cache:
    """The position that the network is evaluated at, and what its layers keep of the positions before it."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.row = self.column = 0
        self.vertical: Features | None = None
        self._rows: dict[nn.Module, Tensor] = {}
        self._row_of: dict[nn.Module, int] = {}

    def has_new(self, kind: Kind, scale: int) -> bool:
        """Whether a map with positions 2^scale pixels apart has one here: a row (vertical) or a pixel."""
        return (self.row if kind == "vertical" else self.row | self.column) % 2**scale == 0

    def place(self, kind: Kind, scale: int) -> tuple[int, int]:
        """The row and the column on such a map; column 0 for whole rows."""
        return self.row >> scale, 0 if kind == "vertical" else self.column >> scale

    def rows(self, layer: ShiftedConv | GrowingConv, like: Tensor, border: int) -> Tensor:
        """The two rows (B, C, 2, W + border) that the layer keeps; zeros at first."""
        if layer not in self._rows:
            self._rows[layer] = like.new_zeros(*like.shape[:2], 2, -(-self.width // 2**layer.scale) + border)
        return self._rows[layer]

    def window(self, layer: ShiftedConv, x: Tensor) -> Tensor:
        """Keep x, a row or one position of the layer's input, and return what the layer's kernel covers there."""
        row, column = self.place(layer.kind, layer.scale)
        inputs = self.rows(layer, x, layer.left + layer.right)
        if self._row_of.get(layer, row) != row:
            inputs[:, :, 0] = inputs[:, :, 1]
        self._row_of[layer] = row
        inputs[:, :, 1, column + layer.left : column + layer.left + x.shape[3]] = x[:, :, 0]
        return inputs[:, :, :, column : column + layer.left + x.shape[3] + layer.right]


def normalised(layer: nn.Conv2d | nn.ConvTranspose2d, gain: float = 1.0) -> nn.Module:
    """The layer with weight normalisation, the weights of an output of length ``gain``, its bias zero."""
    nn.init.normal_(layer.weight, std=0.05)
    nn.init.zeros_(cast(Tensor, layer.bias))
    weight_norm(layer, dim=1 if isinstance(layer, nn.ConvTranspose2d) else 0)
    nn.init.constant_(layer.get_parameter("parametrizations.weight.original0"), gain)
    return layer


def concat_elu(x: Tensor) -> Tensor:
    """ELU of x and of -x: (B, C, H, W) to (B, 2C, H, W)."""
    return F.elu(torch.cat((x, -x), dim=1))


class ShiftedConv(nn.Module):
    """A convolution of two rows by three columns (vertical) or by two (horizontal) that ends at its own position, on a
    map whose positions are 2^scale pixels apart."""

    def __init__(self, kind: Kind, inputs: int, outputs: int, scale: int, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale
        self.left, self.right = 1, int(kind == "vertical")
        self.conv = normalised(nn.Conv2d(inputs, outputs, (2, 2 + self.right), stride), gain)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, C, H, W) to (B, C', ceil(H / stride), ceil(W / stride)); with a cache, a row or a position of each."""
        return self.conv(F.pad(x, (self.left, self.right, 1, 0)) if cache is None else cache.window(self, x))


class GrowingConv(nn.Module):
    """The transposed convolution of stride 2 from the next scale to this one."""

    def __init__(self, kind: Kind, filters: int, scale: int) -> None:
        super().__init__()
        self.kind, self.scale = kind, scale
        self.left = int(kind == "vertical")
        self.conv = normalised(nn.ConvTranspose2d(filters, filters, (2, 2 + self.left), 2))

    def forward(self, coarse: Tensor | None, fine: Tensor, cache: Cache | None = None) -> Tensor:
        """A coarse map to the size of ``fine``; with a cache, a new row or position, or None, to what lies at it."""
        if cache is None:
            return self.conv(coarse)[:, :, : fine.shape[2], self.left : self.left + fine.shape[3]]
        (row, column), rows = cache.place(self.kind, self.scale), cache.rows(self, fine, 0)
        if coarse is not None:
            count = min(2 * coarse.shape[3], rows.shape[3] - column)
            rows[:, :, :, column : column + count] = self.conv(coarse)[:, :, :, self.left : self.left + count]
        return rows[:, :, row % 2 : row % 2 + 1, column : column + fine.shape[3]]


class GatedResnet(nn.Module):
    """x + a sigmoid(b), with a and b from two convolutions of x. Other features, of ``beside`` channels, come in
    between them, an embedding of the label after them; ``beside`` and ``classes`` are 0 where there are none."""

    def __init__(self, kind: Kind, config: PixelCNNPPConfig, scale: int, beside: int, classes: int) -> None:
        super().__init__()
        n = config.filters
        self.conv_in = ShiftedConv(kind, 2 * n, n, scale)
        self.beside = normalised(nn.Conv2d(2 * beside, n, 1)) if beside else None
        self.dropout = nn.Dropout(config.dropout)
        self.conv_out = ShiftedConv(kind, 2 * n, 2 * n, scale, gain=0.1)
        self.label = nn.Embedding(classes, 2 * n, _weight=torch.randn(classes, 2 * n) * 0.05) if classes else None

    def forward(self, x: Tensor, beside: list[Tensor], labels: Tensor | None, cache: Cache | None) -> Tensor:
        """(B, F, H, W) to its like."""
        h = self.conv_in(concat_elu(x), cache)
        if self.beside is not None:
            h = h + self.beside(concat_elu(torch.cat(beside, dim=1)))
        h = self.conv_out(self.dropout(concat_elu(h)), cache)
        if self.label is not None and labels is not None:
            h = h + self.label(labels)[:, :, None, None]
        a, b = h.chunk(2, dim=1)
        return x + a * b.sigmoid()


class Stream(nn.Module):
    """A U-Net of gated residual blocks from one scale on; a block upward takes a feature of the way down (2.4)."""

    def __init__(self, kind: Kind, config: PixelCNNPPConfig, classes: int, scale: int = 0) -> None:
        super().__init__()
        self.kind, self.scale, n = kind, scale, config.filters
        vertical = n if kind == "horizontal" else 0
        self.coarser = Stream(kind, config, classes, scale + 1) if scale + 1 < config.scales else None
        ups = config.resnets + (self.coarser is not None)
        self.down = nn.ModuleList(GatedResnet(kind, config, scale, vertical, classes) for _ in range(config.resnets))
        self.up = nn.ModuleList(GatedResnet(kind, config, scale, vertical + n, classes) for _ in range(ups))
        self.shrink = ShiftedConv(kind, n, n, scale, stride=2) if self.coarser is not None else None
        self.grow = GrowingConv(kind, n, scale) if self.coarser is not None else None

    def forward(self, h: Tensor, vertical: Features | None, labels: Tensor | None, cache: Cache | None) -> Features:
        """A map (B, F, H, W), with a cache a row or a position of it, and what the vertical stream made there."""
        skips, down, up, coarser = [h], list[Tensor](), list[Tensor](), None
        for i, block in enumerate(self.down):
            h = block(h, [self.at(vertical.down[i], cache)] if vertical else [], labels, cache)
            down.append(h)
        skips += down
        if self.coarser is None or self.shrink is None or self.grow is None:
            skips.pop()
        else:
            if cache is None or cache.has_new(self.kind, self.scale + 1):
                coarser = self.coarser(self.shrink(h, cache), vertical and vertical.coarser, labels, cache)
            else:
                cache.window(self.shrink, h)
            h = self.grow(coarser.up[-1] if coarser else None, h, cache)
        for i, block in enumerate(self.up):
            beside = [self.at(vertical.up[i], cache)] if vertical else []
            h = block(h, [*beside, skips.pop()], labels, cache)
            up.append(h)
        return Features(down, coarser, up)

    def at(self, feature: Tensor, cache: Cache | None) -> Tensor:
        """A feature of the vertical stream where this one is: everywhere, or at the cache's column."""
        column = 0 if cache is None else cache.column >> self.scale
        return feature if cache is None else feature[..., column : column + 1]


class PixelCNNPPNetwork(nn.Module):
    """Both streams on an image with a channel of ones, which tells it from the padding, and the last 1 x 1 layer."""

    def __init__(self, config: PixelCNNPPConfig, spec: ImageSpec, outputs: int) -> None:
        super().__init__()
        inputs, n = spec.channels + 1, config.filters
        classes = spec.num_classes if config.class_conditional else 0
        self.above = normalised(nn.Conv2d(inputs, n, (2, 3)))
        self.row_above = normalised(nn.Conv2d(inputs, n, (1, 3)))
        self.left = normalised(nn.Conv2d(inputs, n, (2, 1)))
        self.vertical = Stream("vertical", config, classes)
        self.horizontal = Stream("horizontal", config, classes)
        self.out = normalised(nn.Conv2d(n, outputs, 1))

    @staticmethod
    def pad(x: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] to (B, C + 1, H + 2, W + 2): two rows of zeros above, a column at each side."""
        return F.pad(torch.cat((x, torch.ones_like(x[:, :1])), dim=1), (1, 1, 2, 0))

    def forward(self, padded: Tensor, labels: Tensor | None = None, cache: Cache | None = None) -> Tensor:
        """A padded image to the mixtures' numbers (B, P, H, W); with a cache, those of its position alone."""
        if cache is None:
            vertical = self.vertical(self.above(padded[:, :, :-1]), None, labels, None)
            h = self.row_above(padded[:, :, 1:-1]) + self.left(padded[:, :, 1:, :-2])
        else:
            row, column = cache.row, cache.column
            if column == 0:
                cache.vertical = self.vertical(self.above(padded[:, :, row : row + 2]), None, labels, cache)
            vertical = cache.vertical
            h = self.row_above(padded[:, :, row + 1 : row + 2, column : column + 3])
            h = h + self.left(padded[:, :, row + 1 : row + 3, column : column + 1])
        h = self.horizontal(h, vertical, labels, cache).up[-1]
        return self.out(F.elu(h))


class PixelCNNPP(GenerativeModel):
    """PixelCNN++ with exact likelihood and incremental sampling."""

    Config = PixelCNNPPConfig
    config: PixelCNNPPConfig
    networks = ("network",)
    averaged = ("network",)
    conditions = frozenset({"mask"})

    def __init__(self, config: PixelCNNPPConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if 2 ** (config.scales - 1) > min(spec.height, spec.width):
            raise UsageError(
                f"PixelCNN++: images of {spec.height} x {spec.width} cannot be halved {config.scales - 1} times. "
                f"Use scales = {int(math.log2(min(spec.height, spec.width))) + 1} or fewer."
            )
        if config.class_conditional:
            if not spec.num_classes:
                raise UsageError("PixelCNN++: class_conditional is set, but this dataset has no classes. Unset it.")
            self.conditions = self.conditions | {"labels"}
        self.mixture = LogisticMixture(spec.channels, config.mixtures, spec.levels)
        self.network = PixelCNNPPNetwork(config, spec, self.mixture.parameters)

    def labels_told(self, batch: Batch) -> Tensor | None:
        """The labels that the network is told; `UsageError` where it is told some and the images have none."""
        if self.config.class_conditional and batch.labels is None:
            raise UsageError("PixelCNN++: class_conditional learns from labelled images, and these have no labels.")
        return batch.labels if self.config.class_conditional else None

    def log_prob(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """log P(x), or log P(x | y), in nats, (B,) float64, of stored images (B, C, H, W) uint8; equation (2)."""
        levels = to_levels(images, self.spec.levels)
        output = self.network(self.network.pad(to_float(images, self.spec.levels)), labels)
        return self.mixture.log_prob(output.double(), levels).flatten(1).sum(1)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": Adam(self.network.parameters(), lr=self.config.learning_rate)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        levels = to_levels(batch.images, self.spec.levels)
        output = self.network(self.network.pad(to_float(batch.images, self.spec.levels)), self.labels_told(batch))
        loss = -self.mixture.log_prob(output.float(), levels).mean() / self.spec.channels  # nats a value
        ctx.backward(loss)
        ctx.step_optimizer("network")
        return {"bits_per_dim": bits_per_dim(-loss.detach(), 1)}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:  # noqa: ARG002
        return bits_per_dim(self.log_prob(batch.images, self.labels_told(batch)), self.spec.dims)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("exact",)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:  # noqa: ARG002
        """log P(x), over all classes where the model is told them; the batch's own labels are not looked at."""
        if estimator not in self.likelihood_estimators():
            raise unknown("likelihood estimator", estimator, self.likelihood_estimators())
        classes = range(self.spec.num_classes) if self.config.class_conditional else [None]
        told = [None if y is None else torch.full_like(batch.images[:, 0, 0, 0], y, dtype=torch.int64) for y in classes]
        of_class = torch.stack([self.log_prob(batch.images, labels) for labels in told])
        return LogLikelihood(of_class.logsumexp(0) - math.log(len(told)), "exact", estimator)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """Draw pixels in raster order: H W evaluations, each at one position, and one of a row at each row's start.

        With a mask, given pixels take the place of drawn ones; see the module's docstring for what that conditions on.
        Classes that are not asked for are drawn.

        Raises:
            UsageError: a mask without the source of its pixels.
        """
        given = request.given(self.spec)
        labels = request.condition.labels if self.config.class_conditional else None
        if self.config.class_conditional and labels is None:
            labels = request.noise.categorical(torch.ones(len(request), self.spec.num_classes, device=self.device))
        K = self.spec.levels
        levels = torch.zeros(len(request), *self.spec.shape, dtype=torch.int64, device=self.device)
        padded, cache = self.network.pad(levels_to_float(levels, K)), Cache(self.spec.width)
        with parametrize.cached():
            for row, column in product(range(self.spec.height), range(self.spec.width)):
                cache.row, cache.column = row, column
                drawn = self.mixture.draw(self.network(padded, labels, cache), request.noise)[:, :, 0, 0]  # (B, C)
                if given is not None:
                    drawn = torch.where(given.mask[:, :, row, column], given.levels[:, :, row, column], drawn)
                levels[:, :, row, column] = drawn
                padded[:, :-1, row + 2, column + 1] = levels_to_float(drawn, K)
        return from_levels(levels, K)
