"""MADE: an autoencoder whose weights are masked so that its outputs are the conditionals of a product.

Paper: Germain, Gregor, Murray & Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", ICML 2015
(arXiv:1502.03509). With m(d) the position of value d in an ordering and m(k) in 1..D-1 the degree of a hidden unit,

    log P(x) = sum_d log P(x_d | values at earlier positions)
    W stays where m(k) >= m(d), or m(k') >= m(k) between hidden layers; V, and direct weights A, where m(d) > m(k)

so that no path leads from x_d to the outputs at its own or an earlier position (section 4). With several masks,
training cycles through `num_masks` fixed draws of the degrees, one a step: connectivity-agnostic, and order-agnostic
too with `order = "random"`, where each mask has an ordering of its own ("raster" keeps the pixels in rows for all).

Likelihood: each mask gives a distribution P_m. The model is their mixture P(x) = 1/M sum_m P_m(x), as the reference
code evaluates it: `exact`, log-mean-exp of the log P_m, is the exact log-probability of the distribution that `sample`
draws from (a mask for each sample, then values in turn). `first-mask` is log P_1, exact for that one mask.

Sampling is incremental: a hidden unit of degree k is evaluated once, when the k-th value is known, from the units of
degree up to k below it. All D values together cost one pass; the paper takes D passes, with equal samples.

Inpainting keeps the given values and draws each other value from its conditional in the ordering. That is the exact
conditional where the given values come first in the ordering; a value given later informs none drawn before it.

Reference code: github.com/mgermain/MADE (Theano, by the authors).

Deviations from the paper: K > 2 levels by a softmax, with K - 1 inputs a value, [x >= 1] .. [x >= K - 1] (K = 2 is the
paper's: a Bernoulli, inputs 0 and 1); Adam instead of AdaGrad or AdaDelta, a schedule and averaged weights; raster
order by default, where the paper's numbers are of random orderings; each degree as frequent as any other, not drawn
uniformly; optional dropout.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from baselines.nets.levels import draw_levels, flat_given, level_inputs, level_log_prob
from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource


class MADEConfig(ModelConfig):
    """Architecture, masks and optimiser."""

    hidden: tuple[int, ...] = (500, 500)
    """Units of each hidden layer."""
    num_masks: int = Field(1, ge=1)
    """M."""
    order: Literal["raster", "random"] = "raster"
    direct: bool = True
    """Masked connections from the inputs to the outputs (section 4)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    learning_rate: float = Field(1e-3, gt=0)


class MADENetwork(nn.Module):
    """ReLU layers under masks. The degrees of inputs and hidden units are drawn once and saved with the weights.

    Args:
        dims, levels: D and K. A value has K - 1 inputs, and K logits or, for K = 2, one.
    """

    def __init__(self, config: MADEConfig, dims: int, levels: int) -> None:
        super().__init__()
        self.dims, self.num_inputs, self.num_logits = dims, levels - 1, levels if levels > 2 else 1
        widths = (dims * self.num_inputs, *config.hidden, dims * self.num_logits)
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(widths))
        self.direct = nn.Linear(widths[0], widths[-1], bias=False) if config.direct else None
        if self.direct is not None:
            nn.init.zeros_(self.direct.weight)
        self.dropout = nn.Dropout(config.dropout)
        drawn = [draw_degrees(config, dims) for _ in range(config.num_masks)]
        for layer, degrees in enumerate(zip(*drawn, strict=True)):
            self.register_buffer(f"degrees{layer}", torch.stack(degrees))

    def degrees(self, index: int) -> list[Tensor]:
        """Under mask ``index``: positions of the D values, then degrees of the units of each hidden layer; int32."""
        return [self.get_buffer(f"degrees{layer}")[index] for layer in range(len(self.layers))]

    def masks(self, index: int) -> tuple[list[Tensor], Tensor]:
        """(out, in) of 0 and 1 for each layer's weight (section 4), then for the direct connections'; float32."""
        position, *hidden = (degrees.float() for degrees in self.degrees(index))
        below = [position.repeat_interleave(self.num_inputs), *hidden]
        out = position.repeat_interleave(self.num_logits)[:, None]
        layers = [(above[:, None] - under + 1).clamp(0, 1) for under, above in pairwise(below)]
        return [*layers, (out - below[-1]).clamp(0, 1)], (out - below[0]).clamp(0, 1)

    def forward(self, inputs: Tensor, index: int = 0, so_far: IncrementalPass | None = None) -> Tensor:
        """(B, D (K - 1)) of 0 and 1 to logits (B, D, L) under mask ``index``, L = K or, for K = 2, 1.

        With ``so_far``, from inputs (B, K - 1) of the value last asked for, to logits (B, L) of the next one.
        """
        if so_far is not None:
            return so_far.next_logits(inputs)
        masks, direct_mask = self.masks(index)
        h, layers = inputs, [cast(nn.Linear, layer) for layer in self.layers]
        for layer, mask in zip(layers[:-1], masks, strict=False):
            h = self.dropout(F.relu(F.linear(h, layer.weight * mask, layer.bias)))
        out = F.linear(h, layers[-1].weight * masks[-1], layers[-1].bias)
        if self.direct is not None:
            out = out + F.linear(inputs, self.direct.weight * direct_mask)
        return out.view(-1, self.dims, self.num_logits)


class IncrementalPass:
    """One pass under mask ``index``, a value at a time. With values and units sorted by degree, the known are prefixes.

    order: the D values in their ordering.
    """

    def __init__(self, network: MADENetwork, index: int, batch: int) -> None:
        degrees = network.degrees(index)
        by_degree = [degree.argsort(stable=True) for degree in degrees]
        self.order: list[int] = by_degree[0].tolist()
        self.num_inputs, self.num_logits, self.step = network.num_inputs, network.num_logits, 0
        inputs, outputs = spread(by_degree[0], self.num_inputs), spread(by_degree[0], self.num_logits)
        columns, rows = [inputs, *by_degree[1:]], [*by_degree[1:], outputs]
        layers = [cast(nn.Linear, layer) for layer in network.layers]
        self.weights = [layer.weight[r][:, c] for layer, r, c in zip(layers, rows, columns, strict=True)]
        self.biases = [layer.bias[r] for layer, r in zip(layers, rows, strict=True)]
        self.direct = None if network.direct is None else network.direct.weight[outputs][:, inputs]
        self.units = [torch.bincount(d, minlength=network.dims + 1).cumsum(0).tolist() for d in degrees[1:]]
        self.known = [weight.new_zeros(batch, weight.shape[1]) for weight in self.weights]

    def next_logits(self, inputs: Tensor) -> Tensor:
        """Logits (B, L) of the next value, from inputs (B, K - 1) of the one before it, which the first has not."""
        if self.step > 0:
            self._take(inputs)
        seen, rows = self.units[-1][self.step], slice(self.step * self.num_logits, (self.step + 1) * self.num_logits)
        logits = F.linear(self.known[-1][:, :seen], self.weights[-1][rows, :seen], self.biases[-1][rows])
        if self.direct is not None:
            seen = self.step * self.num_inputs
            logits = logits + F.linear(self.known[0][:, :seen], self.direct[rows, :seen])
        self.step += 1
        return logits

    def _take(self, inputs: Tensor) -> None:
        """Store the value last asked for, and the units that it completes: those of degree `step`."""
        seen = self.step * self.num_inputs
        self.known[0][:, seen - self.num_inputs : seen] = inputs
        for layer, units in enumerate(self.units):
            new = slice(units[self.step - 1], units[self.step])
            h = F.linear(self.known[layer][:, :seen], self.weights[layer][new, :seen], self.biases[layer][new])
            self.known[layer + 1][:, new] = F.relu(h)
            seen = units[self.step]


def spread(order: Tensor, count: int) -> Tensor:
    """Indices of ``count`` consecutive entries for each entry of ``order``."""
    return (order[:, None] * count + torch.arange(count, device=order.device)).flatten()


def draw_degrees(config: MADEConfig, dims: int) -> list[Tensor]:
    """Positions of the D values in one ordering, then degrees of each hidden layer's units; int32.

    Degrees lie between the least of the layer below and D - 1 (section 4), each as often as any other or once more.
    """
    positions = torch.randperm(dims) + 1 if config.order == "random" else torch.arange(1, dims + 1)
    drawn, least = [positions.int()], 1
    for width in config.hidden:
        choice = max(1, dims - least)
        rounds = [torch.randperm(choice) for _ in range(-(-width // choice))]
        drawn.append((torch.cat(rounds)[:width] + least).int())
        least = int(drawn[-1].min())
    return drawn


class MADE(GenerativeModel):
    """MADE with exact likelihood, incremental sampling and several masks."""

    Config = MADEConfig
    config: MADEConfig
    networks = ("network",)
    averaged = ("network",)
    sampler_options = frozenset({"temperature"})
    conditions = frozenset({"mask"})

    def __init__(self, config: MADEConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if not config.hidden or min(config.hidden) < 1:
            raise UsageError(
                f"MADE: hidden = {list(config.hidden)}, expected the width of each hidden layer. Give one or more, "
                "each at least 1, as in [500, 500]."
            )
        self.network = MADENetwork(config, spec.dims, spec.levels)

    def log_probs(self, images: Tensor, masks: int) -> Tensor:
        """log P_m(x) in nats, (masks, B) float64, under each of the first ``masks`` masks."""
        levels = to_levels(images, self.spec.levels).flatten(1)  # (B, D)
        inputs = level_inputs(levels, self.spec.levels).flatten(1)
        each = (self.network(inputs, index).double() for index in range(masks))
        return torch.stack([level_log_prob(logits, levels).sum(-1) for logits in each])

    def log_prob(self, images: Tensor) -> Tensor:
        """log P(x) of the mixture over masks in nats, (B,) float64, of stored images (B, C, H, W) uint8."""
        log_p = self.log_probs(images, self.config.num_masks)
        return log_p.logsumexp(0) - math.log(len(log_p))

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": Adam(self.network.parameters(), lr=self.config.learning_rate, fused=True)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        levels = to_levels(batch.images, self.spec.levels).flatten(1)
        logits = self.network(level_inputs(levels, self.spec.levels).flatten(1), ctx.step % self.config.num_masks)
        loss = -level_log_prob(logits.float(), levels).sum(-1).mean()
        ctx.backward(loss)
        ctx.step_optimizer("network")
        return {"nats": loss.detach()}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:  # noqa: ARG002
        """(B,) -log P(x) in nats."""
        return -self.log_prob(batch.images)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("exact",) if self.config.num_masks == 1 else ("exact", "first-mask")

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:  # noqa: ARG002
        if estimator not in self.likelihood_estimators():
            raise unknown("likelihood estimator of MADE", estimator, self.likelihood_estimators())
        nats = self.log_prob(batch.images) if estimator == "exact" else self.log_probs(batch.images, 1)[0]
        return LogLikelihood(nats=nats, kind="exact", estimator=estimator)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """A mask for each sample, then its values in that mask's ordering; given pixels are kept.

        Raises:
            UsageError: a temperature that is not positive, or a mask without its source.
        """
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        if temperature <= 0:
            raise UsageError(f"MADE: temperature must be positive, got {temperature}.")
        given, known = flat_given(request, self.spec)
        which = (request.noise.uniform(()) * self.config.num_masks).long()
        uniform = request.noise.uniform((self.spec.dims,))
        levels = torch.empty_like(known)
        for index in set(which.tolist()):
            rows = which == index
            levels[rows] = self._draw(index, uniform[rows], given[rows], known[rows], temperature)
        return from_levels(levels.view(-1, *self.spec.shape), self.spec.levels)

    def _draw(self, index: int, uniform: Tensor, given: Tensor, known: Tensor, temperature: float) -> Tensor:
        """Levels (B, D) under one mask, by one incremental pass."""
        K, levels = self.spec.levels, known.clone()
        so_far = IncrementalPass(self.network, index, len(levels))
        last = levels[:, :1]
        for dim in so_far.order:
            logits = self.network(level_inputs(last, K).flatten(1), index, so_far)
            drawn = draw_levels(logits / temperature, uniform[:, dim])
            levels[:, dim] = torch.where(given[:, dim], known[:, dim], drawn)
            last = levels[:, dim : dim + 1]
        return levels
