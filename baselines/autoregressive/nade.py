"""NADE, the neural autoregressive distribution estimator, and its order-agnostic deep form.

NADE: Larochelle & Murray, "The Neural Autoregressive Distribution Estimator", AISTATS 2011. Values in an ordering, each
given those before it through hidden units that share their weights:

    P(x_t = 1 | x_<t) = sigmoid(b_t + V_t . h_t),   h_t = sigmoid(a_t),   a_1 = c,   a_{t+1} = a_t + W_t x_t

so that all D conditionals cost O(D H). An image's a_t changes only after a value that is not 0, so `Conditionals` works
on blocks of values and on the distinct prefixes of each block alone, by matrix products, and evaluates the hidden units
again in its backward pass: no (B, D, H) is ever stored.

Orderless NADE: Uria, Murray & Larochelle, "A Deep and Tractable Density Estimator", ICML 2014 (EoNADE, DeepNADE; also
in Uria et al., "Neural Autoregressive Distribution Estimation", JMLR 2016). A network sees the known values and which
they are, and predicts all others; one step draws the number d - 1 of known values, then which, and minimises

    D / (D - d + 1) sum_{i unknown} -log P(x_i | known values),

whose expectation is the mean of -log P_o(x) over all orderings o. P_o takes D evaluations, which hand on the first
layer's activations. The model is the mixture of `num_orderings` seeded orderings, P = 1/M sum_o P_o:
`exact`, log-mean-exp of the log P_o, is the exact log-probability of that mixture, which `sample` draws from (an
ordering for each sample); `first-ordering` is log P_o of the first one, as exact, of that ordering alone.

Inpainting: NADE keeps the given values and draws the others in its ordering, which is the exact conditional where the
given values come first. Orderless NADE takes all given values first, whatever the mask: its samples are from the exact
conditional P_o(rest | given) of the ordering o that begins with them and goes on as the sample's own.

Reference code: the `deepnade` and `rnade` folders of github.com/MarcCote/NADE (Theano, by the authors).

Deviations from the papers: K > 2 levels by a softmax, with K - 1 inputs a value, [x >= 1] .. [x >= K - 1] (K = 2 is the
papers': a Bernoulli, inputs 0 and 1); Adam with a schedule and averaged weights instead of gradient descent with
(Nesterov) momentum; raster order by default, in orderless NADE for the first ordering; output biases start at 0, not at
the data's marginals; orderless NADE trains all its layers at once, without layer-wise pretraining.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.optim import Adam, Optimizer

from baselines.nets.levels import draw_levels, flat_given, level_inputs, level_log_prob
from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

BLOCK = 16
"""Values of two levels in a block of `Conditionals`; more levels take shorter blocks."""


class NADEConfig(ModelConfig):
    """Architecture and optimiser."""

    hidden: int = Field(500, ge=1)
    """H."""
    order: Literal["raster", "random"] = "raster"
    learning_rate: float = Field(5e-3, gt=0)


class OrderlessNADEConfig(NADEConfig):
    """Architecture and optimiser of the orderless form; ``order`` is of its first ordering, the others are random."""

    hidden_layers: int = Field(2, ge=1)
    num_orderings: int = Field(8, ge=1)
    """M."""
    learning_rate: float = Field(2e-3, gt=0)


def distinct_prefixes(inputs: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """What the values of each block of (B, D, F) inputs have before them in it, each different prefix of an image once.

    Returns the prefixes of the first block, then the second, .., (N, block F), zero from where they end; the image of
    each, (N,); the row among its block's prefixes of what each value has before it, (blocks, B, block); the number of
    prefixes in each block.
    """
    x = F.pad(inputs, (0, 0, 0, -inputs.shape[1] % block))
    x = x.view(len(x), -1, block, x.shape[2]).transpose(0, 1)  # (blocks, B, block, F)
    new = torch.ones(x.shape[:3], dtype=torch.bool, device=x.device)
    new[:, :, 1:] = (x[:, :, :-1] != 0).any(3)
    which, image, end = new.nonzero(as_tuple=True)
    before = torch.arange(block, device=x.device) < end[:, None]  # (N, block)
    prefixes = x.flatten(0, 1).index_select(0, which * len(inputs) + image) * before[..., None]
    rows = (new.flatten(1).cumsum(1) - 1).view_as(new)
    return prefixes.flatten(1), image, rows, torch.bincount(which).tolist()


class Conditionals(torch.autograd.Function):
    """NADE's recursion: inputs (B, D, F), W (D, F, H), c (H,), V (D, L, H), b (D, L) to logits (B, D, L).

    The gradient reaches W, c, V and b. Both passes take blocks of ``block`` values; the backward one undoes the
    recursion from its end and evaluates the hidden units again.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, W: Tensor, c: Tensor, V: Tensor, b: Tensor, block: int) -> Tensor:
        prefixes, image, rows, counts = distinct_prefixes(inputs, block)
        a, pieces = c.repeat(len(inputs), 1), []  # (B, H)
        parts = zip(torch.split(prefixes, counts), torch.split(image, counts), rows, strict=True)
        for start, (prefix, images, row) in zip(range(0, W.shape[0], block), parts, strict=True):
            piece = slice(start, start + block)
            w, v = W[piece].flatten(0, 1), V[piece]
            h = a.index_select(0, images).addmm_(prefix[:, : len(w)], w).sigmoid_()  # (n, H)
            every = (v.flatten(0, 1) @ h.T).view(*v.shape[:2], -1)  # (T, L, n)
            pieces.append(every.gather(2, row.T[: len(v), None].expand(-1, v.shape[1], -1)))  # (T, L, B)
            a.addmm_(inputs[:, piece].flatten(1), w)
        ctx.save_for_backward(inputs, W, V, a, prefixes, image, rows)
        ctx.counts, ctx.block = counts, block
        return torch.cat(pieces).permute(2, 0, 1) + b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, W, V, a, prefixes, image, rows = ctx.saved_tensors
        a, a_gradient = a.clone(), torch.zeros_like(a)
        W_gradient, V_gradient = torch.empty_like(W), torch.empty_like(V)
        parts = zip(torch.split(prefixes, ctx.counts), torch.split(image, ctx.counts), rows, strict=True)
        for number, (prefix, images, row) in reversed(list(enumerate(parts))):
            piece = slice(number * ctx.block, (number + 1) * ctx.block)
            x, g, w, v = inputs[:, piece].flatten(1), gradient[:, piece], W[piece].flatten(0, 1), V[piece].flatten(0, 1)
            a.addmm_(x, w, alpha=-1)
            h = a.index_select(0, images).addmm_(prefix[:, : len(w)], w).sigmoid_()  # (n, H)
            every = g.new_zeros(len(h), *g.shape[1:])  # (n, T, L)
            every.scatter_(0, row[:, : g.shape[1], None].expand_as(g), g)
            V_gradient[piece] = (every.flatten(1).T @ h).view_as(V[piece])
            pre = torch.ops.aten.sigmoid_backward(every.flatten(1) @ v, h)  # (n, H)
            w_gradient = (prefix[:, : len(w)].T @ pre).addmm_(x.T, a_gradient)
            W_gradient[piece] = w_gradient.view_as(W[piece])
            a_gradient.index_add_(0, images, pre)
        return None, W_gradient, a_gradient.sum(0), V_gradient, gradient.sum(0), None


class NADENetwork(nn.Module):
    """NADE's conditionals; weights of value t belong to the t-th value of the ordering.

    Args:
        dims, levels: D and K. A value has F = K - 1 inputs, and L = K logits or, for K = 2, one.
    """

    def __init__(self, hidden: int, dims: int, levels: int) -> None:
        super().__init__()
        self.levels, self.block = levels, max(1, BLOCK // math.isqrt(levels - 1))
        num_logits = levels if levels > 2 else 1
        self.W = nn.Parameter(0.05 * torch.randn(dims, levels - 1, hidden))
        self.V = nn.Parameter(0.01 * torch.randn(dims, num_logits, hidden))
        self.c = nn.Parameter(torch.zeros(hidden))
        self.b = nn.Parameter(torch.zeros(dims, num_logits))

    def forward(self, levels: Tensor, at: tuple[int, Tensor] | None = None) -> Tensor:
        """(B, D) levels in the ordering to logits (B, D, L), each given the values before it.

        With ``at``, place t and activations a_t (B, H), only that place's logits, (B, L); levels are not read.
        """
        if at is not None:
            place, a = at
            return F.linear(a.sigmoid(), self.V[place], self.b[place])
        inputs = level_inputs(levels, self.levels).to(self.W.dtype)
        logits: Tensor = Conditionals.apply(inputs, self.W, self.c, self.V, self.b, self.block)
        return logits

    def walk(self, levels: Tensor, given: Tensor, order: list[int]) -> Iterator[tuple[int, Tensor]]:
        """For each value in turn its place in raster order and its logits (B, L).

        ``levels`` (B, D), in raster order, is read where a value has been yielded: fill it in before going on.
        """
        del given
        a = self.c.repeat(len(levels), 1)
        for step, dim in enumerate(order):
            yield dim, self(levels, (step, a))
            a = torch.addmm(a, level_inputs(levels[:, dim], self.levels), self.W[step])


class OrderlessNetwork(nn.Module):
    """ReLU layers from known values, and which are known, to logits of all values."""

    def __init__(self, hidden: int, layers: int, dims: int, levels: int) -> None:
        super().__init__()
        self.dims, self.levels, self.num_logits = dims, levels, levels if levels > 2 else 1
        self.first_layer = nn.Linear(dims * (levels - 1) + dims, hidden)
        self.hidden = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 1))
        self.out = nn.Linear(hidden, dims * self.num_logits)

    def first(self, levels: Tensor, known: Tensor) -> Tensor:
        """First layer's activations before the ReLU, (B, H), from levels (B, D), read where known (B, D)."""
        inputs = level_inputs(levels, self.levels) * known[..., None]
        a: Tensor = self.first_layer(torch.cat((inputs.flatten(1), known.float()), 1))
        return a

    def top(self, a: Tensor) -> Tensor:
        """Last hidden layer, (B, H)."""
        h = F.relu(a)
        for layer in self.hidden:
            h = F.relu(layer(h))
        return h

    def forward(self, levels: Tensor, known: Tensor, at: tuple[int, Tensor] | None = None) -> Tensor:
        """(B, D) levels and (B, D) bool to logits (B, D, L), of which those of unknown values count.

        With ``at``, a value's place in raster order and activations `first` (B, H), only that value's logits, (B, L).
        """
        if at is not None:
            rows = slice(at[0] * self.num_logits, (at[0] + 1) * self.num_logits)
            return F.linear(self.top(at[1]), self.out.weight[rows], self.out.bias[rows])
        out: Tensor = self.out(self.top(self.first(levels, known)))
        return out.view(-1, self.dims, self.num_logits)

    def walk(self, levels: Tensor, given: Tensor, order: list[int]) -> Iterator[tuple[int, Tensor]]:
        """As `NADENetwork.walk`, but values given (B, D) are known from the start, before all others."""
        a = self.first(levels, given)
        weight = self.first_layer.weight.T  # (D F + D, H)
        to_values, to_known = weight[: -self.dims].view(self.dims, self.levels - 1, -1), weight[-self.dims :]
        for dim in order:
            yield dim, self(levels, given, (dim, a))
            more = torch.addmm(to_known[dim], level_inputs(levels[:, dim], self.levels), to_values[dim])
            a = a + more * ~given[:, dim, None]


class NADE(GenerativeModel):
    """NADE with exact likelihood and O(D H) sampling."""

    Config = NADEConfig
    config: NADEConfig
    networks = ("network",)
    averaged = ("network",)
    sampler_options = frozenset({"temperature"})
    conditions = frozenset({"mask"})
    orderings: Tensor
    """(M, D) int64: values in raster order at the 1st, 2nd, .. place of each ordering; saved with the weights."""

    def __init__(self, config: NADEConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.network: Any = self.build_network()
        first = torch.arange(spec.dims) if config.order == "raster" else torch.randperm(spec.dims)
        others = [torch.randperm(spec.dims) for _ in range(self.num_orderings - 1)]
        self.register_buffer("orderings", torch.stack([first, *others]))

    @property
    def num_orderings(self) -> int:
        """M."""
        return 1

    def build_network(self) -> nn.Module:
        return NADENetwork(self.config.hidden, self.spec.dims, self.spec.levels)

    def log_probs(self, images: Tensor, orderings: int) -> Tensor:
        """log P_o(x) in nats, (orderings, B) float64, of the first orderings, for images (B, C, H, W) uint8."""
        del orderings
        levels = to_levels(images, self.spec.levels).flatten(1)[:, self.orderings[0]]
        return level_log_prob(self.network(levels).double(), levels).sum(-1)[None]

    def loss(self, levels: Tensor, rng: torch.Generator) -> Tensor:
        """Mean over levels (B, D) of -log P(x) in nats."""
        del rng
        levels = levels[:, self.orderings[0]]
        return -level_log_prob(self.network(levels).float(), levels).sum(-1).mean()

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": Adam(self.network.parameters(), lr=self.config.learning_rate, fused=True)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        loss = self.loss(to_levels(batch.images, self.spec.levels).flatten(1), ctx.rng)
        ctx.backward(loss)
        ctx.step_optimizer("network")
        return {"nats": loss.detach()}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) -log P(x) in nats."""
        del noise
        return -self.log_probs(batch.images, 1)[0]

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("exact",) if self.num_orderings == 1 else ("exact", "first-ordering")

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:  # noqa: ARG002
        if estimator not in self.likelihood_estimators():
            raise unknown("likelihood estimator", estimator, self.likelihood_estimators())
        log_p = self.log_probs(batch.images, self.num_orderings if estimator == "exact" else 1)
        return LogLikelihood(log_p.logsumexp(0) - math.log(len(log_p)), kind="exact", estimator=estimator)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """An ordering for each sample, then its values in that order; given pixels are kept.

        Raises:
            UsageError: a temperature that is not positive, or a mask without its source.
        """
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        if temperature <= 0:
            raise UsageError(f"{type(self).__name__}: temperature must be positive, got {temperature}.")
        given, levels = flat_given(request, self.spec)
        which = (request.noise.uniform(()) * self.num_orderings).long()
        uniform = request.noise.uniform((self.spec.dims,))
        for index in set(which.tolist()):
            rows = which == index
            filled, kept = levels[rows], given[rows]
            for dim, logits in self.network.walk(filled, kept, self.orderings[index].tolist()):
                drawn = draw_levels(logits / temperature, uniform[rows, dim])
                filled[:, dim] = torch.where(kept[:, dim], filled[:, dim], drawn)
            levels[rows] = filled
        return from_levels(levels.view(-1, *self.spec.shape), self.spec.levels)


class OrderlessNADE(NADE):
    """Deep NADE, trained for every ordering at once and evaluated as a mixture of several."""

    Config = OrderlessNADEConfig
    config: OrderlessNADEConfig

    @property
    def num_orderings(self) -> int:
        return self.config.num_orderings

    def build_network(self) -> nn.Module:
        return OrderlessNetwork(self.config.hidden, self.config.hidden_layers, self.spec.dims, self.spec.levels)

    def order_agnostic(self, levels: Tensor, number: Tensor, keys: Tensor) -> Tensor:
        """Unbiased estimate of the mean over orderings of -log P_o(x), (B,) in nats.

        Args:
            levels: (B, D).
            number: (B,) int64, how many values are known, uniform on 0..D-1.
            keys: (B, D) of independent uniforms; the values with the least keys are the known ones.
        """
        D = self.spec.dims
        known = keys.argsort(1).argsort(1) < number[:, None]
        log_p = level_log_prob(self.network(levels, known).float(), levels) * ~known
        return -log_p.sum(1) * D / (D - number)

    def log_probs(self, images: Tensor, orderings: int) -> Tensor:
        levels = to_levels(images, self.spec.levels).flatten(1)
        nothing = torch.zeros_like(levels, dtype=torch.bool)
        log_p = torch.zeros(orderings, len(levels), dtype=torch.float64, device=levels.device)
        for index in range(orderings):
            for dim, logits in self.network.walk(levels, nothing, self.orderings[index].tolist()):
                log_p[index] += level_log_prob(logits.double(), levels[:, dim])
        return log_p

    def loss(self, levels: Tensor, rng: torch.Generator) -> Tensor:
        number = torch.randint(self.spec.dims, (len(levels),), generator=rng, device=levels.device)
        keys = torch.rand(levels.shape, generator=rng, device=levels.device)
        return self.order_agnostic(levels, number, keys).mean()

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) one draw per image of the order-agnostic loss in nats, the same draw at every validation."""
        levels = to_levels(batch.images, self.spec.levels).flatten(1)
        number = (noise.uniform(()) * self.spec.dims).long()
        return self.order_agnostic(levels, number, noise.uniform((self.spec.dims,)))
