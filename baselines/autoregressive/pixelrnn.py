"""PixelRNN: an image as a product of conditionals, P(x) = prod_i P(x_i | x_1 .. x_{i-1}), by LSTMs over its positions.

Paper: van den Oord, Kalchbrenner & Kavukcuoglu, "Pixel Recurrent Neural Networks", ICML 2016 (arXiv:1601.06759):
equations (1) and (2) (raster order, and R, then G given R, then B given R and G, within a pixel), section 2.2 (softmax
over the levels), 3.1 (row LSTM, equation (3)), 3.2 (diagonal BiLSTM), 3.3 and figure 5 (residual blocks), 3.4 (masks A
and B), table 1 (layers).
Reference code: none was published by the authors; igul222/pixel_rnn reimplements the diagonal BiLSTM.

    [o, f, i, g] = [sigmoid, sigmoid, sigmoid, tanh](K_ss * h_previous + K_is * x)                       (equation (3))
    c = f c_previous + i g,    h = o tanh(c)

- Row LSTM: previous is the row above, K_ss spans three of its columns, K_is the pixel and its left neighbour (3 x 1,
  mask B). A pixel sees a triangle above it.
- Diagonal BiLSTM: the map is skewed, each row one position to the right of the one above, so that a column holds a
  diagonal of the image. Previous is the column before: h of the left neighbour and of the pixel above, c of the left
  neighbour. A second LSTM runs from the right; its output is shifted down by one row and added, so that a pixel sees
  everything before it. The skewed map holds no padding here: diagonals are gathered by a permutation of the
  positions, and H + W - 1 steps compute both directions at once. Outside the image h = c = 0.

`PixelRNN` has diagonal layers, `RowLSTM` row layers; all else is one.

Sampling is incremental and exact, for what a position holds never changes once the pixels before it are known: each
value drawn costs one position of the network. A row layer needs the states of the row above; a diagonal layer those of
the left neighbour and of the pixel above, and its states from the right are computed once a row, when the row is full.

Inpainting: given pixels are kept and the others drawn in raster order, each given all pixels before it. That is the
exact conditional distribution where the given pixels come first in raster order; given pixels that come later do not
influence those drawn before them.

Deviations from the paper: Adam instead of RMSProp; optional dropout on the LSTMs' outputs and averaged weights, for
small data sets; the connections from each layer to the output, which the paper names without their form, are 1 x 1
convolutions added to the first 1 x 1 layer; feature maps are split among the colours in contiguous groups as even as
they can be; two levels are a softmax of two, which is the paper's sigmoid. Table 1's two 1 x 1 layers are taken to
stand before the one that gives the logits (`pixelcnn` counts that one among them).
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


class PixelRNNConfig(ModelConfig):
    """Architecture and optimiser; the defaults are the paper's for MNIST."""

    layer: Literal["diagonal_bilstm", "row_lstm"] = "diagonal_bilstm"
    hidden: int = Field(16, ge=1)
    """h, features of a state; the map between layers has 2h."""
    layers: int = Field(7, ge=1)
    head: int = Field(32, ge=1)
    """Feature maps of each of the two 1 x 1 layers before the softmax layer."""
    first_kernel: int = Field(7, ge=3)
    dropout: float = Field(0.0, ge=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0)


class RowLSTMConfig(PixelRNNConfig):
    """The settings of PixelRNN with another default layer."""

    layer: Literal["diagonal_bilstm", "row_lstm"] = "row_lstm"


Memory = dict[str, Tensor]
"""What a layer keeps while images are drawn: states (W, B, h) and inputs (W, B, 2h) of the rows that still matter."""


class Cache:
    """The position that the network is evaluated at, and every layer's memory of the positions before it."""

    def __init__(self) -> None:
        self.row = self.column = 0
        self._memories: dict[nn.Module, tuple[int, Memory]] = {}

    def memory(self, layer: RowLSTMLayer | DiagonalBiLSTMLayer, x: Tensor) -> Memory:
        """The layer's memory, turned to the current row; x is the layer's input (B, 2h)."""
        row, memory = self._memories.get(layer, (-1, {}))
        if row != self.row:
            memory = layer.start_row(memory, x)
            self._memories[layer] = (self.row, memory)
        return memory


def colour_groups(features: int, colours: int) -> Tensor:
    """(features,) int64: the colour that each feature map belongs to."""
    return torch.arange(features) * colours // features


class MaskedConv2d(nn.Conv2d):
    """A k x k convolution with mask A: the pixels before its centre, and at the centre the colours before an output's.

    Rows of the kernel below its centre, which the mask would zero, are not stored.
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, colours: int) -> None:
        self.radius = kernel // 2
        super().__init__(inputs, outputs, (self.radius + 1, kernel))
        mask = torch.ones_like(self.weight)
        mask[:, :, -1, self.radius :] = 0
        seen = colour_groups(inputs, colours)[None, :] < colour_groups(outputs, colours)[:, None]
        mask[:, :, -1, self.radius] = seen.float()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """A map padded by r above and at both sides, (B, C, H + r, W + 2r), to (B, outputs, H, W)."""
        return F.conv2d(x, self.weight * self.mask, self.bias)


class MaskedLinear(nn.Linear):
    """A 1 x 1 convolution of features in the last dimension, with mask B: outputs see their colour and those before it.

    Args:
        before: leading inputs that come from earlier pixels and are seen by every output.
        gates: the outputs are this many groups of ``outputs`` features, each split among the colours.
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, colours: int, *, before: int = 0, gates: int = 1) -> None:
        super().__init__(before + inputs, gates * outputs)
        seen = colour_groups(inputs, colours)[None, :] <= colour_groups(outputs, colours)[:, None]
        mask = torch.cat((torch.ones(gates * outputs, before), seen.repeat(gates, 1).float()), dim=1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def lstm_cell(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Equation (3): pre-activations (..., 4h), ordered o, f, i, g, and cells (..., h) to the new h and c."""
    o, f, i, g = gates.chunk(4, dim=-1)
    c = torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh())
    return o.sigmoid() * c.tanh(), c


class RowLSTMLayer(nn.Module):
    """Section 3.1: an LSTM from the top row to the bottom, all columns of a row at once."""

    def __init__(self, hidden: int, spec: ImageSpec) -> None:
        super().__init__()
        self.hidden, self.width = hidden, spec.width
        self.input_to_state = MaskedLinear(2 * hidden, hidden, spec.channels, before=2 * hidden, gates=4)
        self.state_to_state = nn.Linear(3 * hidden, 4 * hidden, bias=False)

    def from_above(self, h: Tensor) -> Tensor:
        """The share of the states above, (W, B, h), in the gates of a row, (W, B, 4h)."""
        padded = F.pad(h, (0, 0, 0, 0, 1, 1))
        return self.state_to_state(torch.cat((padded[:-2], h, padded[2:]), dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        """(H, W, B, 2h) to (H, W, B, h)."""
        left = F.pad(x, (0, 0, 0, 0, 1, 0))[:, :-1]
        gates = self.input_to_state(torch.cat((left, x), dim=-1))  # (H, W, B, 4h)
        h = c = x.new_zeros(*x.shape[1:3], self.hidden)
        states = []
        for row in gates.unbind(0):
            h, c = lstm_cell(row + self.from_above(h), c)
            states.append(h)
        return torch.stack(states)

    def start_row(self, memory: Memory, x: Tensor) -> Memory:
        """The memory turned to the next row, or to the first where it is empty; x (B, 2h) is like the inputs."""
        blank = x.new_zeros(self.width, len(x), self.hidden)
        above = {"above": self.from_above(memory.get("h", blank)), "c_above": memory.get("c", blank)}
        return {**above, "h": blank.clone(), "c": blank.clone(), "inputs": blank.repeat(1, 1, 2)}

    def step(self, x: Tensor, cache: Cache) -> Tensor:
        """The layer at the cache's position: (B, 2h) to (B, h)."""
        memory, column = cache.memory(self, x), cache.column
        left = memory["inputs"][column - 1] if column else torch.zeros_like(x)
        memory["inputs"][column] = x
        gates = self.input_to_state(torch.cat((left, x), dim=-1)) + memory["above"][column]
        memory["h"][column], memory["c"][column] = lstm_cell(gates, memory["c_above"][column])
        return memory["h"][column]


class DiagonalBiLSTMLayer(nn.Module):
    """Section 3.2: an LSTM along the diagonals from the top left corner, and one from the top right."""

    skew: Tensor
    unskew: Tensor

    def __init__(self, hidden: int, spec: ImageSpec) -> None:
        super().__init__()
        self.hidden, self.height, self.width = hidden, spec.height, spec.width
        self.input_to_state = MaskedLinear(2 * hidden, hidden, spec.channels, gates=8)
        self.state_to_state = nn.Parameter(torch.empty(2, 2 * hidden, 4 * hidden))
        nn.init.uniform_(self.state_to_state, -((2 * hidden) ** -0.5), (2 * hidden) ** -0.5)
        diagonals = range(self.height + self.width - 1)
        self.rows = [(max(0, d - self.width + 1), min(d, self.height - 1)) for d in diagonals]  # first and last
        row, column = torch.meshgrid(torch.arange(self.height), torch.arange(self.width), indexing="ij")
        self.register_buffer("skew", torch.argsort(((row + column) * self.height + row).flatten()), persistent=False)
        self.register_buffer("unskew", torch.argsort(self.skew), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(H, W, B, 2h) to (H, W, B, h)."""
        from_left, from_right = self.input_to_state(x).chunk(2, dim=-1)
        gates = torch.stack((from_left, from_right.flip(1))).flatten(1, 2)  # (2, H W, B, 4h)
        states = self.scan(gates[:, self.skew])[:, self.unskew]
        left, right = torch.unflatten(states, 1, (self.height, self.width))  # (H, W, B, h)
        return left + F.pad(right.flip(1), (0, 0, 0, 0, 0, 0, 1, 0))[:-1]

    def scan(self, gates: Tensor) -> Tensor:
        """Both LSTMs, a diagonal a step: input-to-state (2, H W, B, 4h), skewed, to the states (2, H W, B, h)."""
        h = c = gates.new_zeros(2, 1, gates.shape[2], self.hidden)
        previous, states = 0, []
        sizes = [last - first + 1 for first, last in self.rows]
        for (first, last), inputs in zip(self.rows, torch.split(gates, sizes, dim=1), strict=True):
            h, c = (F.pad(state, (0, 0, 0, 0, 1, 1)) for state in (h, c))  # zeros outside the image
            left = slice(first - previous + 1, last - previous + 2)
            above = slice(first - previous, last - previous + 1)
            seen = torch.cat((h[:, left], h[:, above]), dim=-1).flatten(1, 2)
            pre = torch.baddbmm(inputs.flatten(1, 2), seen, self.state_to_state)  # (2, rows B, 4h)
            h, c = lstm_cell(torch.unflatten(pre, 1, inputs.shape[1:3]), c[:, left])
            previous = first
            states.append(h)
        return torch.cat(states, dim=1)

    def start_row(self, memory: Memory, x: Tensor) -> Memory:
        """As above. The row before is full now, so that its states from the right can be computed."""
        blank = x.new_zeros(self.width, len(x), self.hidden)
        right = self.from_right(memory["inputs"], memory["right"]) if memory else blank
        states = {"above": memory.get("h", blank), "right": right}
        return {**states, "h": blank.clone(), "c": blank.clone(), "inputs": blank.repeat(1, 1, 2)}

    def from_right(self, x: Tensor, above: Tensor) -> Tensor:
        """The states from the right (W, B, h) of a row of inputs (W, B, 2h), given those of the row above."""
        gates = self.input_to_state(x)[..., 4 * self.hidden :]
        h = c = torch.zeros_like(above[0])
        states = torch.empty_like(above)
        for column in reversed(range(self.width)):
            seen = torch.cat((h, above[column]), dim=-1)
            h, c = lstm_cell(torch.addmm(gates[column], seen, self.state_to_state[1]), c)
            states[column] = h
        return states

    def step(self, x: Tensor, cache: Cache) -> Tensor:
        """The layer at the cache's position: (B, 2h) to (B, h)."""
        memory, column = cache.memory(self, x), cache.column
        memory["inputs"][column] = x
        blank = torch.zeros_like(memory["h"][0])
        h, c = (memory["h"][column - 1], memory["c"][column - 1]) if column else (blank, blank)
        seen = torch.cat((h, memory["above"][column]), dim=-1)
        gates = torch.addmm(self.input_to_state(x)[:, : 4 * self.hidden], seen, self.state_to_state[0])
        memory["h"][column], memory["c"][column] = lstm_cell(gates, c)
        return memory["h"][column] + memory["right"][column]


LAYERS: dict[str, type[RowLSTMLayer] | type[DiagonalBiLSTMLayer]] = {
    "row_lstm": RowLSTMLayer,
    "diagonal_bilstm": DiagonalBiLSTMLayer,
}


class ResidualBlock(nn.Module):
    """An LSTM layer from 2h maps to h, and a 1 x 1 convolution back to 2h, added to the input (figure 5, right)."""

    def __init__(self, config: PixelRNNConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.layer = LAYERS[config.layer](config.hidden, spec)
        self.dropout = nn.Dropout(config.dropout)
        self.expand = MaskedLinear(config.hidden, 2 * config.hidden, spec.channels)
        self.to_output = MaskedLinear(config.hidden, config.head, spec.channels)

    def forward(self, x: Tensor, cache: Cache | None = None) -> tuple[Tensor, Tensor]:
        """A map (H, W, B, 2h), or with a cache one position (B, 2h), to the next and to its share in the output."""
        h = self.dropout(self.layer(x) if cache is None else self.layer.step(x, cache))
        return x + self.expand(h), self.to_output(h)


class PixelRNNNetwork(nn.Module):
    """Table 1: a 7 x 7 convolution with mask A, LSTM layers, two 1 x 1 layers, a third for K logits."""

    def __init__(self, config: PixelRNNConfig, spec: ImageSpec) -> None:
        super().__init__()
        self.levels, colours = spec.levels, spec.channels
        self.stem = MaskedConv2d(colours, 2 * config.hidden, config.first_kernel, colours)
        self.blocks = nn.ModuleList(ResidualBlock(config, spec) for _ in range(config.layers))
        self.head = MaskedLinear(2 * config.hidden, config.head, colours)
        self.head2 = MaskedLinear(config.head, config.head, colours)
        self.out = MaskedLinear(config.head, colours * spec.levels, colours)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """(B, C, H, W) in [-1, 1] to logits (B, C, K, H, W).

        With a cache x is what the first kernel covers at the cache's position, (B, C, r + 1, 2r + 1), and H = W = 1.
        """
        r = self.stem.radius
        h = self.stem(F.pad(x, (r, r, r, 0)) if cache is None else x).permute(2, 3, 0, 1)  # (H, W, B, 2h)
        shape = h.shape[:3]
        h = h if cache is None else h.flatten(0, 2)
        outputs = h.new_zeros(())
        for block in self.blocks:
            h, output = block(h, cache)
            outputs = outputs + output
        h = self.head(F.relu(h)) + outputs
        h = self.out(F.relu(self.head2(F.relu(h))))
        return h.reshape(*shape, -1, self.levels).permute(2, 3, 4, 0, 1)


class PixelRNN(GenerativeModel):
    """PixelRNN with exact likelihood and incremental sampling."""

    Config = PixelRNNConfig
    networks = ("network",)
    averaged = ("network",)
    sampler_options = frozenset({"temperature"})
    conditions = frozenset({"mask"})

    def __init__(self, config: PixelRNNConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if config.first_kernel % 2 == 0:
            raise UsageError(f"PixelRNN: first_kernel must be odd, got {config.first_kernel}.")
        if min(config.hidden, config.head) < spec.channels:
            raise UsageError(
                f"PixelRNN: hidden ({config.hidden}) and head ({config.head}) must be at least the images' "
                f"{spec.channels} channels, so that each colour has feature maps."
            )
        self.learning_rate = config.learning_rate
        self.network = PixelRNNNetwork(config, spec)

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

        With a mask, given pixels take the place of drawn ones; see the module's docstring for what that conditions on.

        Raises:
            UsageError: a temperature that is not positive, or a mask without the source of its pixels.
        """
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        if temperature <= 0:
            raise UsageError(f"PixelRNN: temperature must be positive, got {temperature}.")
        given = request.given(self.spec)
        (channels, height, width), K = self.spec.shape, self.spec.levels
        levels = torch.zeros(len(request), *self.spec.shape, dtype=torch.int64, device=self.device)
        r = self.network.stem.radius
        seen = torch.zeros(len(request), channels, height + r, width + 2 * r, device=self.device)
        cache = Cache()
        for row, column in product(range(height), range(width)):
            cache.row, cache.column = row, column
            window = seen[:, :, row : row + r + 1, column : column + 2 * r + 1]  # a view, filled colour by colour
            for colour in range(channels):
                logits = self.network(window, cache)[:, colour, :, 0, 0].float()  # (B, K)
                drawn = request.noise.categorical((logits / temperature).softmax(-1))
                if given is not None:
                    place = (slice(None), colour, row, column)
                    drawn = torch.where(given.mask[place], given.levels[place], drawn)
                levels[:, colour, row, column] = drawn
                window[:, colour, r, r] = levels_to_float(drawn, K)
        return from_levels(levels, K)


class RowLSTM(PixelRNN):
    """PixelRNN with row LSTM layers."""

    Config = RowLSTMConfig
