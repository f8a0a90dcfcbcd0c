"""FFJORD: a continuous normalising flow with a free-form vector field and an unbiased estimate of its log-density.

Paper: Grathwohl, Chen, Bettencourt, Sutskever & Duvenaud, "FFJORD: Free-form Continuous Dynamics for Scalable
Reversible Generative Models", ICLR 2019 (arXiv:1810.01367): equations (1) to (3) (change of variables along an ODE),
section 3.1 and algorithm 1 (Hutchinson's estimate with one noise vector for a whole solve), section 4.2 and appendix
B.1 (images: multi-scale architecture with squeezes, three hidden convolutions of 64 filters, softplus). Reference
code: rtqichen/ffjord, `train_cnf.py` and `lib/odenvp.py` (which add the logit transform, a + (1 - 2a) y).

The image x(0) flows to x(1) ~ N(0, I) under dx/dt = f(t, x), and

    log p(x(0)) = log N(x(1)) + integral from 0 to 1 of div f dt.

Discrete images: y = (k + u) / K with u uniform, so the mean of `dequantised` is a lower bound on log P(k), up to the
solver's error and with the noise of the trace: its kind is an estimate. With `trace = "exact"` the importance-weighted
bound is offered too; under Hutchinson's noise it would be biased upwards.

Two grids: training solves with `solver_steps`, and as its gradients go through those steps it can gain from their
error; all that is reported (validation, likelihood, samples, codes) solves with `likelihood_steps`, finer by default.

Deviations from the paper and its code: Runge-Kutta of order 4 on a fixed grid in place of an adaptive solver of
tolerance 1e-5, so that an image's number does not depend on the batch it is in, and gradients through the solver's
steps in place of the adjoint method; time enters a layer as a gate and a shift (`concatsquash`, which the code has for
toy data), where the paper and `odenvp.py` concatenate it to the input of each layer; every flow ends at time 1, where
the code learns that time for each flow; `scales` is a choice, where the code takes all that leave sides of 4 or more
(3 scales at 28 x 28, 4 at 32 x 32); the network's last layer starts at zero (the flow starts as the identity); averaged
weights; no flips of images; tanh by option. `architecture = "mlp"` flows over all pixels of small images.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.images import bits_per_dim, dequantise, from_levels, quantise, to_levels
from genbench.likelihood.dequantisation import (
    dequantised_log_likelihood,
    dequantised_log_prob,
    estimators,
    inverse_logit_transform,
    logit_transform,
)
from genbench.likelihood.ode import Divergence, exact_divergence, hutchinson_divergence, solve, solve_with_divergence
from genbench.noise import NoiseSource

Shape = tuple[int, int, int]
Probe = Callable[[Shape], Tensor]
"""Draws Rademacher noise (B, C, H, W) for one solve."""


class FFJORDConfig(ModelConfig):
    """Architecture, solver, dequantisation and optimiser."""

    architecture: Literal["mlp", "conv"] = "conv"
    hidden: tuple[int, ...] = Field((64, 64, 64), min_length=1)
    """Widths of the hidden layers of a vector field."""
    activation: Literal["softplus", "tanh"] = "softplus"
    scales: int = Field(2, ge=1)
    """conv: scales; all but the last squeeze and factor out half of the dimensions. The paper: MNIST 3, CIFAR-10 4."""
    blocks: int = Field(2, ge=1)
    """Flows in a row, before and after each squeeze."""
    solver_steps: int = Field(4, ge=1)
    """Runge-Kutta steps of a flow in training."""
    likelihood_steps: int | None = Field(None, ge=1)
    """Runge-Kutta steps of a flow everywhere else; 4 x ``solver_steps`` by default."""
    trace: Literal["hutchinson", "exact"] = "hutchinson"
    """Divergence where a likelihood is evaluated; training always uses Hutchinson's estimate."""
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """a of the logit transform."""
    likelihood_draws: int = Field(16, ge=2)
    """Draws of the dequantisation noise per image for a likelihood."""
    learning_rate: float = Field(1e-3, gt=0)


class ConcatSquash(nn.Module):
    """layer(x) sigmoid(w t + b) + v t: a linear map or convolution whose gain and shift depend on time."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, outputs: int) -> None:
        super().__init__()
        self.layer, self.gate, self.shift = layer, nn.Linear(1, outputs), nn.Linear(1, outputs, bias=False)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        time = t.reshape(1, 1).to(x)
        gate, shift = torch.sigmoid(self.gate(time)), self.shift(time)
        if x.dim() == 4:
            gate, shift = gate[..., None, None], shift[..., None, None]
        return self.layer(x) * gate + shift


class Dynamics(nn.Module):
    """The vector field of one flow, f(t, x) of x (B, C, H, W); zero at the start."""

    def __init__(self, shape: Shape, config: FFJORDConfig) -> None:
        super().__init__()
        self.shape, self.flat = shape, config.architecture == "mlp"
        ends = math.prod(shape) if self.flat else shape[0]
        widths = (ends, *config.hidden, ends)
        self.layers = nn.ModuleList(ConcatSquash(self._layer(i, o), o) for i, o in pairwise(widths))
        self.activation = F.softplus if config.activation == "softplus" else torch.tanh
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def _layer(self, inputs: int, outputs: int) -> nn.Linear | nn.Conv2d:
        return nn.Linear(inputs, outputs) if self.flat else nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        h = x.flatten(1) if self.flat else x
        for layer in self.layers[:-1]:
            h = self.activation(layer(t, h))
        return self.layers[-1](t, h).reshape(x.shape)


class Fields(nn.Module):
    """The vector fields of all flows; one call is one evaluation of one of them."""

    def __init__(self, shapes: list[Shape], config: FFJORDConfig) -> None:
        super().__init__()
        self.flows = nn.ModuleList(Dynamics(shape, config) for shape in shapes)

    def forward(self, which: int, t: Tensor, x: Tensor) -> Tensor:
        return self.flows[which](t, x)


def plan(config: FFJORDConfig, spec: ImageSpec) -> tuple[list[str], list[Shape]]:
    """The steps of the map ("flow", "squeeze", "split", in order) and the shape at each flow.

    Raises:
        UsageError: sides that cannot be halved as often as the scales ask.
    """
    scales = config.scales if config.architecture == "conv" else 1
    factor = 2 ** (scales - 1)
    if spec.height % factor or spec.width % factor:
        raise UsageError(
            f"FFJORD: scales = {scales} needs a height and width divisible by {factor}, the images are "
            f"{spec.height} x {spec.width}. Use fewer scales."
        )
    steps, shapes, (c, h, w) = [], [], spec.shape
    for scale in range(scales):
        steps += ["flow"] * config.blocks
        shapes += [(c, h, w)] * config.blocks
        if scale < scales - 1:
            c, h, w = 4 * c, h // 2, w // 2
            steps += ["squeeze", *["flow"] * config.blocks, "split"]
            shapes += [(c, h, w)] * config.blocks
            c //= 2
    return steps, shapes


class FFJORD(GenerativeModel):
    """A continuous normalising flow of dequantised images."""

    Config = FFJORDConfig
    config: FFJORDConfig
    networks = ("fields",)
    averaged = ("fields",)
    sampler_options = frozenset({"temperature", "steps"})

    def __init__(self, config: FFJORDConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.steps, self.shapes = plan(config, spec)
        self.fields = Fields(self.shapes, config)

    # The map

    def times(self, steps: int | None = None) -> Tensor:
        """The solver's grid on [0, 1], by default of `likelihood_steps`."""
        steps = steps or self.config.likelihood_steps or 4 * self.config.solver_steps
        return torch.linspace(0.0, 1.0, steps + 1, device=self.device)

    def forward_flow(
        self, x: Tensor, divergence: Callable[[Shape], Divergence], steps: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) to z (B, D), and the integral of the divergences (B,), which adds to log N(z).

        Args:
            divergence: makes the divergence of one solve for the shape that flows.
            steps: the solver's a flow, see `times`.
        """
        total, which, latents = x.new_zeros(len(x)), 0, []
        for step in self.steps:
            if step == "flow":
                field = partial(self.fields, which)
                x, change = solve_with_divergence(field, x, self.times(steps).to(x), divergence(self.shapes[which]))
                total, which = total + change, which + 1
            elif step == "squeeze":
                x = F.pixel_unshuffle(x, 2)
            else:
                x, out = x.chunk(2, dim=1)
                latents.append(out.flatten(1))
        return torch.cat((*latents, x.flatten(1)), dim=1), total

    def inverse_flow(self, z: Tensor, steps: int | None = None) -> Tensor:
        """z (B, D) to x (B, C, H, W), by the same flows backwards in time."""
        sizes = [math.prod(shape) // 2 for shape in self._split_shapes()]
        *latents, rest = torch.split(z, [*sizes, z.shape[1] - sum(sizes)], dim=1)
        x, which = rest.reshape(len(z), *self.shapes[-1]), len(self.shapes)
        for step in reversed(self.steps):
            if step == "flow":
                which -= 1
                x = solve(partial(self.fields, which), x, self.times(steps).flip(0).to(x))
            elif step == "squeeze":
                x = F.pixel_shuffle(x, 2)
            else:
                x = torch.cat((x, latents.pop().reshape(x.shape)), dim=1)
        return x

    def _split_shapes(self) -> list[Shape]:
        """Shapes before each split: those of the flows just before."""
        flows = [sum(s == "flow" for s in self.steps[:i]) for i, step in enumerate(self.steps) if step == "split"]
        return [self.shapes[count - 1] for count in flows]

    def log_density(self, y: Tensor, divergence: Callable[[Shape], Divergence], steps: int | None = None) -> Tensor:
        """log p(y) in nats, (B,), of y (B, C, H, W) in [0, 1); arguments as for `forward_flow`."""
        x, log_det = logit_transform(y, self.config.alpha)
        z, change = self.forward_flow(x, divergence, steps)
        log_prior = -0.5 * (z.square() + math.log(2.0 * math.pi)).sum(1)
        return log_prior + change + log_det

    # Learning

    def optimizers(self) -> dict[str, Optimizer]:
        return {"flow": Adam(self.parameters(), lr=self.config.learning_rate)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on the negative log-density of a new dequantisation, Hutchinson's trace, `solver_steps` a flow."""
        levels = to_levels(batch.images, self.spec.levels)
        u = torch.rand(levels.shape, generator=ctx.rng, device=levels.device)

        def probe(shape: Shape) -> Divergence:
            signs = torch.randint(0, 2, (len(batch), *shape), generator=ctx.rng, device=levels.device)
            return hutchinson_divergence(2.0 * signs - 1.0)

        density = partial(self.log_density, divergence=probe, steps=self.config.solver_steps)
        log_p = dequantised_log_prob(density, levels, u, self.spec.levels)
        loss = bits_per_dim(log_p, self.spec.dims).mean()
        ctx.backward(loss)
        ctx.step_optimizer("flow")
        return {"bits_per_dim": loss.detach()}

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) bits/dim by one draw of dequantisation and Hutchinson's trace."""
        levels = to_levels(batch.images, self.spec.levels)
        u = noise.uniform(self.spec.shape)
        density = partial(self.log_density, divergence=partial(_probed, noise))
        return bits_per_dim(dequantised_log_prob(density, levels, u, self.spec.levels), self.spec.dims)

    # Likelihood

    def likelihood_estimators(self) -> tuple[str, ...]:
        """The mean over dequantisations; with the exact trace the importance-weighted bound too."""
        names = estimators(self.config.likelihood_draws)
        return names if self.config.trace == "exact" else names[:1]

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        """A bound up to the solver's error; the standard error covers dequantisation and the trace's noise."""
        levels, draws = to_levels(batch.images, self.spec.levels), self.config.likelihood_draws
        found = partial(_probed, noise) if self.config.trace == "hutchinson" else (lambda _: exact_divergence)
        density = partial(self.log_density, divergence=found)
        bound = dequantised_log_likelihood(density, levels, noise, estimator, draws, self.spec.levels)
        return replace(bound, kind="estimate")

    # Sampling

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """z ~ N(0, T^2 I) backwards through the flows. Options: ``temperature`` T; ``steps`` a flow.

        Raises:
            UsageError: a negative temperature, or steps below one.
        """
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        if temperature < 0:
            raise UsageError(f"FFJORD: temperature must not be negative, got {temperature}.")
        steps = request.options.steps
        if steps is not None and steps < 1:
            raise UsageError(f"FFJORD: steps must be at least 1, got {steps}.")
        return self._image(temperature * request.noise.normal(self.latent_shape), steps)

    def _image(self, z: Tensor, steps: int | None = None) -> Tensor:
        y = inverse_logit_transform(self.inverse_flow(z, steps), self.config.alpha)
        return from_levels(quantise(y, self.spec.levels), self.spec.levels)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(D,)."""
        return (self.spec.dims,)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Latents (B, D) of the images in the middle of their bins."""
        levels = to_levels(batch.images, self.spec.levels)
        y = dequantise(levels, torch.full(levels.shape, 0.5, device=levels.device), self.spec.levels)
        return self.forward_flow(logit_transform(y, self.config.alpha)[0], lambda _: _no_divergence)[0]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """The image whose bins hold what z (B, D) flows to."""
        return self._image(z)


def _probed(noise: NoiseSource, shape: Shape) -> Divergence:
    return hutchinson_divergence(noise.rademacher(shape))


def _no_divergence(field: Callable[[Tensor, Tensor], Tensor], t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return field(t, x), x.new_zeros(len(x))
