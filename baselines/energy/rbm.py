"""RBM: the restricted Boltzmann machine, learned by contrastive divergence, evaluated by annealed importance sampling.

An image has D values of K levels; v is binary (K = 2) or one softmax unit for each value (K > 2), h is binary, and

    log p~(v, h) = b.v + c.h + v.W h,     log p~(v) = b.v + sum_j log(1 + exp(c_j + (v W)_j)),     P(v) = p~(v) / Z.

Papers: P. Smolensky, "Information Processing in Dynamical Systems" (the harmonium), 1986; G. Hinton, "Training Products
of Experts by Minimizing Contrastive Divergence", Neural Computation 2002 (CD-k); T. Tieleman, "Training Restricted
Boltzmann Machines using Approximations to the Likelihood Gradient", ICML 2008 (PCD); R. Salakhutdinov, A. Mnih and G.
Hinton, "Restricted Boltzmann Machines for Collaborative Filtering", ICML 2007 (softmax visible units, equations 1 and
2); R. Salakhutdinov and I. Murray, "On the Quantitative Analysis of Deep Belief Networks", ICML 2008 (the path from the
base-rate model; 500 hidden units on MNIST). Reference code: Salakhutdinov's RBM_AIS.m.

The gradient of the mean log P is that of log p~ averaged over the data minus that over the model; the model's draws are
chains of block Gibbs sampling, started from the data at each step (CD) or kept from step to step (PCD).

log Z is exact by a sum over all hidden states where there are at most 20 hidden units. Else AIS estimates it from both
sides, see `genbench.likelihood.annealed`; the reverse run starts from the training's chains, moved on by Gibbs steps.

`sample` runs chains of block Gibbs sampling from the base-rate model (independent values with the frequencies of the
training images); `steps` is their length, and the machine's own distribution is reached only as it grows. Under a mask
the given values are held fixed at every step: in the limit of many steps that is the exact conditional distribution.

Deviations:
- Gradients may be centred (J. Melchior, A. Fischer and L. Wiskott, "How to Center Deep Boltzmann Machines", JMLR 2016):
  updates are those of a machine in which running means of the data are subtracted from both layers, the same family of
  distributions with better-conditioned steps.
- The visible biases start at the log frequencies of the first batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from genbench import images
from genbench.api import Batch, GenerativeModel, ImageSpec, LogNormaliser, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.likelihood.annealed import (
    ChainNoise,
    Noise,
    annealed_normaliser,
    forward_estimate,
    reverse_estimate,
    temperatures,
)
from genbench.noise import NoiseSource, derive_seed

MAX_ENUMERATED = 20
"""Most hidden units whose 2^H states are summed for the exact log Z."""
_STATES_AT_ONCE = 2**12
_CENTRE_RATE = 0.01


class RBMConfig(ModelConfig):
    """Machine, learning and evaluation."""

    hidden: int = Field(500, ge=1)
    algorithm: Literal["cd", "pcd"] = "pcd"
    gibbs_steps: int = Field(1, ge=1)
    """k: Gibbs steps between two updates."""
    chains: int = Field(100, ge=1)
    """Chains kept (PCD); CD runs one for each image of the batch and keeps the last of them."""
    centred: bool = True
    learning_rate: float = Field(0.05, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    """Of the weights, not the biases."""
    initial_scale: float = Field(0.01, gt=0)
    """Standard deviation of the initial weights."""
    sampling_steps: int = Field(1000, ge=1)
    ais_chains: int = Field(100, ge=100)
    ais_temperatures: int = Field(1000, ge=1000)
    reverse_steps: int = Field(1000, ge=0)
    """Gibbs steps that the training's chains make before they start a reverse run, one from each of them."""
    validation_temperatures: int = Field(500, ge=1)
    """Of the short AIS run whose log Z the validation figure uses."""


class Machine(nn.Module):
    """The machine on visible features v (B, F): the D binary values, or D one-hot vectors of K levels in a row."""

    def __init__(self, spec: ImageSpec, hidden: int, initial_scale: float) -> None:
        super().__init__()
        self.dims, self.levels = spec.dims, spec.levels
        features = spec.dims * (1 if spec.levels == 2 else spec.levels)
        self.weight = nn.Parameter(initial_scale * torch.randn(features, hidden))
        self.visible_bias = nn.Parameter(torch.zeros(features))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    def forward(self, v: Tensor) -> Tensor:
        """(B, H) log odds of the hidden units, c + v W, in the precision of ``v``."""
        return torch.addmm(self.hidden_bias.to(v.dtype), v, self.weight.to(v.dtype))

    def log_density(self, v: Tensor) -> Tensor:
        """(B,) log p~(v) in nats, in the precision of ``v``."""
        return v @ self.visible_bias.to(v.dtype) + F.softplus(self(v)).sum(1)

    def visible_logits(self, h: Tensor) -> Tensor:
        """(B, F) log odds of the visible units (K = 2) or logits of their softmax, b + W h."""
        return torch.addmm(self.visible_bias.to(h.dtype), h, self.weight.to(h.dtype).T)

    def per_level(self, x: Tensor) -> Tensor:
        """(B, F) to (B, D, K), of softmax units."""
        return x.view(len(x), self.dims, self.levels)

    def features(self, levels: Tensor, dtype: torch.dtype) -> Tensor:
        """(B, D) levels to (B, F)."""
        if self.levels == 2:
            return levels.to(dtype)
        return F.one_hot(levels.long(), self.levels).flatten(1).to(dtype)

    def to_levels(self, v: Tensor) -> Tensor:
        """(B, F) to (B, D) int64, the inverse of `features`."""
        return v.long() if self.levels == 2 else self.per_level(v).argmax(2)

    def draw(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """(B, F) logits and (B, D) uniform numbers to visible features, by inversion."""
        if self.levels == 2:
            return (uniform < logits.sigmoid()).to(logits.dtype)
        cumulative = self.per_level(logits).softmax(2).cumsum(2)  # (B, D, K)
        level = (cumulative <= uniform[..., None]).sum(2).clamp(max=self.levels - 1)
        return self.features(level, logits.dtype)

    def log_visible_sum(self, logits: Tensor) -> Tensor:
        """(B, F) logits to (B,) log of the sum of exp(logits . v) over all images v."""
        if self.levels == 2:
            return F.softplus(logits).sum(1)
        return self.per_level(logits).logsumexp(2).sum(1)


@dataclass(frozen=True)
class Chains:
    """Visible features (M, F) and the hidden log odds they give (M, H)."""

    visible: Tensor
    field: Tensor


class BaseRatePath:
    """Salakhutdinov and Murray's path: log f_b(v) = ((1 - b) b_A + b b_B).v + sum_j log(1 + exp(b (c + v W)_j)).

    b_A are the base-rate model's biases, and b_B, c, W the machine's. A move is one step of block Gibbs sampling
    through the hidden units, reversible on v.

    Args:
        base_bias: (F,).
        clamp: applied to visible features after each draw (identity where nothing is given).
    """

    def __init__(
        self,
        machine: Machine,
        base_bias: Tensor,
        dtype: torch.dtype = torch.float32,
        clamp: Callable[[Tensor], Tensor] = lambda v: v,
    ) -> None:
        self.machine, self.base_bias, self.clamp = machine, base_bias.to(dtype), clamp
        self.bias_change = machine.visible_bias.double() - base_bias.double()

    @property
    def log_base_normaliser(self) -> float:
        """H log 2 and the sum over images of exp(b_A . v), in nats."""
        hidden = len(self.machine.hidden_bias) * math.log(2.0)
        return hidden + float(self.machine.log_visible_sum(self.base_bias.double()[None]))

    def at(self, visible: Tensor) -> Chains:
        """Chains at given visible features."""
        return Chains(visible, self.machine(visible))

    def start(self, noise: Noise) -> Chains:
        """Draws of the base-rate model."""
        uniform = noise.uniform((self.machine.dims,))
        return self.at(self.clamp(self.machine.draw(self.base_bias.expand(len(uniform), -1), uniform)))

    def log_ratio(self, state: Chains, beta: float, next_beta: float) -> Tensor:
        """(M,) float64."""
        field = state.field.double()
        hidden = (F.softplus(next_beta * field) - F.softplus(beta * field)).sum(1)
        return (next_beta - beta) * (state.visible.double() @ self.bias_change) + hidden

    def move(self, state: Chains, beta: float, noise: Noise) -> Chains:
        """Hidden units given the visible, then visible given the hidden."""
        uniform = noise.uniform((state.field.shape[1],))
        h = (uniform < (beta * state.field).sigmoid()).to(state.field.dtype)
        logits = (1.0 - beta) * self.base_bias + beta * self.machine.visible_logits(h)
        return self.at(self.clamp(self.machine.draw(logits, noise.uniform((self.machine.dims,)))))


@torch.no_grad()
def exact_log_normaliser(machine: Machine) -> float:
    """log Z in nats by summing exp(c.h) sum_v exp((b + W h).v) over the 2^H hidden states.

    Raises:
        UsageError: more than 20 hidden units.
    """
    hidden = len(machine.hidden_bias)
    if hidden > MAX_ENUMERATED:
        raise UsageError(
            f"'exact' sums 2^hidden states: it takes at most {MAX_ENUMERATED} hidden units, this machine has {hidden}. "
            "Use 'ais-forward' and 'ais-reverse'."
        )
    place = torch.arange(hidden, device=machine.weight.device)
    total = torch.tensor(-math.inf, dtype=torch.float64, device=place.device)
    for start in range(0, 2**hidden, _STATES_AT_ONCE):
        number = torch.arange(start, min(start + _STATES_AT_ONCE, 2**hidden), device=place.device)
        h = (number[:, None] >> place & 1).double()  # (states, H)
        log_sum = h @ machine.hidden_bias.double() + machine.log_visible_sum(machine.visible_logits(h))
        total = torch.logaddexp(total, log_sum.logsumexp(0))
    return float(total)


def centre_gradients(machine: Machine, visible_mean: Tensor, hidden_mean: Tensor) -> None:
    """Turn the gradients of W, b and c into those of a machine on v - visible_mean and h - hidden_mean.

    With m and n the means, dW' = dW - m dc^T - db n^T, db' = db - dW' n, dc' = dc - m dW' (Melchior et al. 2016).
    """
    weight, visible, hidden = machine.weight.grad, machine.visible_bias.grad, machine.hidden_bias.grad
    assert weight is not None and visible is not None and hidden is not None
    weight.addr_(visible_mean, hidden, alpha=-1.0).addr_(visible, hidden_mean, alpha=-1.0)
    visible.sub_(weight @ hidden_mean)
    hidden.sub_(visible_mean @ weight)


class RBM(GenerativeModel):
    """A restricted Boltzmann machine on the levels of an image."""

    Config = RBMConfig
    networks = ("machine",)
    averaged = ("machine",)
    sampler_options = frozenset({"steps"})
    conditions = frozenset({"mask"})
    config: RBMConfig
    machine: Machine
    chains: Tensor
    feature_counts: Tensor
    images_seen: Tensor
    hidden_mean: Tensor

    def __init__(self, config: RBMConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.machine = Machine(spec, config.hidden, config.initial_scale)
        self.register_buffer("chains", torch.randint(spec.levels, (config.chains, spec.dims), dtype=torch.uint8))
        self.register_buffer("feature_counts", torch.zeros(len(self.machine.visible_bias), dtype=torch.int64))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("hidden_mean", torch.full((config.hidden,), 0.5))
        self._validation_log_z: float | None = None

    def train(self, mode: bool = True) -> RBM:
        """Set the mode; the log Z of a validation before it is forgotten."""
        self._validation_log_z = None
        super().train(mode)
        return self

    def base_rate(self) -> Tensor:
        """(F,) frequencies of the features among the training images so far, each level counted once more."""
        return ((self.feature_counts + 1).double() / (self.images_seen + self.spec.levels)).float()

    def base_bias(self) -> Tensor:
        """(F,) biases of the base-rate model: log odds (K = 2) or log frequencies."""
        rate = self.base_rate()
        return rate.logit() if self.spec.levels == 2 else rate.log()

    def _visible(self, batch: Batch, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.machine.features(images.to_levels(batch.images, self.spec.levels).flatten(1), dtype)

    def optimizers(self) -> dict[str, Optimizer]:
        c, m = self.config, self.machine
        groups: list[dict[str, Any]] = [
            {"params": [m.weight], "weight_decay": c.weight_decay},
            {"params": [m.visible_bias, m.hidden_bias]},
        ]
        return {"machine": SGD(groups, lr=c.learning_rate, momentum=c.momentum)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step of CD-k or PCD-k: log p~ of the data up, of the chains' ends down."""
        v = self._visible(batch)
        self.feature_counts += v.sum(0).to(torch.int64)
        self.images_seen += len(v)
        if ctx.step == 0:
            with torch.no_grad():
                self.machine.visible_bias.copy_(self.base_bias())
        negative = self._negative(v, ctx)
        log_p = self.machine.log_density(torch.cat((v, negative)))
        gap = log_p[: len(v)].mean() - log_p[len(v) :].mean()
        ctx.backward(-gap)
        if self.config.centred:
            centre_gradients(self.machine, self.base_rate(), self.hidden_mean)
        ctx.step_optimizer("machine")
        return {"log_p_gap": gap.detach()}

    @torch.no_grad()
    def _negative(self, v: Tensor, ctx: TrainContext) -> Tensor:
        """Visible features of the chains after k Gibbs steps; the chains are kept."""
        m = self.machine
        field = m(v)
        self.hidden_mean.lerp_(field.sigmoid().mean(0), _CENTRE_RATE)
        if self.config.algorithm == "pcd":
            v = m.features(self.chains, v.dtype)
            field = m(v)
        for step in range(self.config.gibbs_steps):
            field = m(v) if step else field
            h = torch.bernoulli(field.sigmoid(), generator=ctx.rng)
            uniform = torch.rand((len(v), m.dims), generator=ctx.rng, device=ctx.device)
            v = m.draw(m.visible_logits(h), uniform)
        kept = m.to_levels(v[-len(self.chains) :]).to(torch.uint8)
        self.chains[: len(kept)] = kept
        return v

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) -log P in nats, with log Z exact or from a short AIS run, found once for each call of `eval`."""
        if self._validation_log_z is None:
            self._validation_log_z = self._short_log_normaliser()
        return self._validation_log_z - self.log_unnormalised(batch, noise)

    @torch.no_grad()
    def _short_log_normaliser(self) -> float:
        if self.config.hidden <= MAX_ENUMERATED:
            return exact_log_normaliser(self.machine)
        betas = temperatures(self.config.validation_temperatures, "sigmoid")
        noise = ChainNoise(0, self.config.ais_chains, self.device)
        return forward_estimate(self._path(), betas, noise)[0].log_normaliser

    def _path(self) -> BaseRatePath:
        return BaseRatePath(self.machine, self.base_bias())

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("exact",) if self.config.hidden <= MAX_ENUMERATED else ("ais-forward", "ais-reverse")

    def log_unnormalised(self, batch: Batch, noise: NoiseSource) -> Tensor:  # noqa: ARG002
        """(B,) float64 log p~(x) in nats; draws nothing."""
        return self.machine.log_density(self._visible(batch, torch.float64))

    @torch.no_grad()
    def log_normaliser(self, estimator: str, seed: int) -> LogNormaliser:
        """log Z by "exact", "ais-forward" or "ais-reverse"; AIS runs both ways, to be judged by their gap.

        Raises:
            NotConverged: see `genbench.likelihood.annealed.check_converged`.
            UsageError: an unknown estimator, or "exact" with more than 20 hidden units.
        """
        if estimator == "exact":
            return LogNormaliser(exact_log_normaliser(self.machine), 0.0, "exact")
        if estimator not in ("ais-forward", "ais-reverse"):
            raise unknown("estimator of log Z", estimator, ("exact", "ais-forward", "ais-reverse"))
        c, path, betas = self.config, self._path(), temperatures(self.config.ais_temperatures, "sigmoid")
        forward, _ = forward_estimate(path, betas, ChainNoise(derive_seed(seed, "forward"), c.ais_chains, self.device))
        noise = ChainNoise(derive_seed(seed, "reverse"), min(c.ais_chains, len(self.chains)), self.device)
        reverse = reverse_estimate(path, self._model_draws(path, noise), betas, noise)
        return annealed_normaliser(
            forward, reverse, "forward" if estimator == "ais-forward" else "reverse", c.ais_temperatures
        )

    def _model_draws(self, path: BaseRatePath, noise: Noise) -> Chains:
        """Approximate draws of the machine: the training's chains, each once, after `reverse_steps` Gibbs steps."""
        state = path.at(self.machine.features(self.chains[: self.config.ais_chains], torch.float32))
        for _ in range(self.config.reverse_steps):
            state = path.move(state, 1.0, noise)
        return state

    def sample(self, request: SampleRequest) -> Tensor:
        """Gibbs chains; given values of a mask stay as they are. In float64, so that the batch size does not matter."""
        path = BaseRatePath(self.machine, self.base_bias(), torch.float64, self._clamp(request))
        state = path.start(request.noise)
        for _ in range(request.options.steps or self.config.sampling_steps):
            state = path.move(state, 1.0, request.noise)
        levels = self.machine.to_levels(state.visible)
        return images.from_levels(levels.view(-1, *self.spec.shape), self.spec.levels)

    def _clamp(self, request: SampleRequest) -> Callable[[Tensor], Tensor]:
        """Puts the given values of the request's mask into visible features."""
        given = request.given(self.spec)
        if given is None:
            return lambda v: v
        features = self.machine.features(given.levels.flatten(1), torch.float64)
        kept = given.mask.flatten(1).repeat_interleave(features.shape[1] // self.spec.dims, 1)
        return lambda v: torch.where(kept, features, v)

    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:  # noqa: ARG002
        """One pass up and down, hidden units at their mean; the likelier (K = 2) or mean level of each value."""
        h = self.machine(self._visible(batch, torch.float64)).sigmoid()
        logits = self.machine.visible_logits(h)
        if self.spec.levels == 2:
            level = (logits > 0).long()
        else:
            values = torch.arange(self.spec.levels, dtype=logits.dtype, device=logits.device)
            level = (self.machine.per_level(logits).softmax(2) @ values).round().long()
        return images.from_levels(level.view(-1, *self.spec.shape), self.spec.levels)
