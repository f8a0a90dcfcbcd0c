"""EBM: Y. Du and I. Mordatch, "Implicit Generation and Modeling with Energy-Based Models", NeurIPS 2019 (IGEBM).

p(y) is proportional to exp(-E(y)) with E a spectrally normalised network without batch normalisation. The gradient of
the maximum-likelihood loss (their equation 2) is the mean of grad E over the data minus that over samples of the model
(contrastive divergence); the samples come from Langevin dynamics (their equation 1)

    y_k = y_{k-1} - step_size grad E(y_{k-1}) + noise_scale omega,   omega ~ N(0, I), clipped to [0, 1],

started from a replay buffer or, with a small probability, from uniform noise (their algorithm 1). Step size and noise
are set apart: a chain with noise_scale^2 = 2 step_size would sample exp(-E); with less noise it samples, up to the
error of the step, exp(-E / T) at the temperature T = noise_scale^2 / (2 step_size). Reference code:
https://github.com/openai/ebm_code_release.

Likelihood, where `ais_temperatures` asks for it: that of the density exp(-E(y) / T) / Z on the cube [0, 1]^D, log Z by
annealed importance sampling from the uniform density, moved along by Metropolis-corrected HMC that the cube's walls
reflect (`genbench.likelihood`). Of a discrete image it is the bound of uniform dequantisation, E_u log p((k + u) / K) -
D log K, with an estimated log Z: an estimate. It is a statement about the energy, not about `sample`: short Langevin
chains with clipping and a coarse step draw from another distribution. Where the two directions of AIS do not meet,
there is no number.

Deviations:
- `sample` starts every chain from its own noise and runs it as long as a chain of the replay buffer lives on average
  (langevin_steps / fresh_share steps). The paper evaluates images of the replay buffer, which depend on the training
  and not on (seed, i) alone.
- The buffer is full of noise from the start instead of growing, and a chain goes back to its own place. It is read as
  it is stored: the reference code, which holds 8 bits a pixel too, adds uniform noise of one level.
- Noise is added after the gradient step, as in equation 1. The reference code adds it before the gradient is taken, so
  that its chains end on a step without noise.
- The last layer is normalised as well, and the units are SiLUs; in the reference code leaky ReLUs.
- The recipes average the weights over steps, and the average samples. Its spectral norms are estimated with the
  singular vectors of the last weights.
- A convolution is normalised as the matrix (outputs, inputs x height x width), as in the paper's code: that is not
  exactly the norm of the convolution.
- On 8 x 8 images the energy is a small fully connected network (a residual network is too slow there on a CPU), with
  a hotter and shorter Langevin dynamics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam, Optimizer

from baselines.nets.energy_distance import energy_distance
from genbench import images
from genbench.api import Batch, GenerativeModel, ImageSpec, LogNormaliser, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError, unknown
from genbench.likelihood.annealed import (
    ChainNoise,
    annealed_normaliser,
    forward_estimate,
    reverse_estimate,
    temperatures,
)
from genbench.likelihood.hmc import Bounds, HamiltonianPath, Particles, UniformBase, tune_step_sizes
from genbench.noise import NoiseSource, derive_seed

CUBE: Bounds = (0.0, 1.0)
_DEQUANTISATIONS = 16
"""Uniform draws that the bound of one image is averaged over."""


class EBMConfig(ModelConfig):
    """Settings of `EBM`. Steps, step size, noise and share of fresh chains are by default those of the reference code's
    commands for CIFAR-10; these have a `gradient_limit` of 0.01, a buffer of 50 000 and a learning rate of 3e-4."""

    network: Literal["resnet", "mlp"] = "resnet"
    widths: tuple[int, ...] = (128, 256, 256)
    """Channels of each stage of the residual network, or units of each hidden layer."""
    buffer_size: int = Field(10_000, ge=1)
    fresh_share: float = Field(0.05, gt=0, le=1)
    """Share of the chains that start from noise instead of from the buffer."""
    langevin_steps: int = Field(60, ge=1)
    step_size: float = Field(10.0, gt=0)
    noise_scale: float = Field(0.005, ge=0)
    """Standard deviation of a Langevin step's noise, for pixels in [0, 1]."""
    gradient_limit: float | None = Field(None, gt=0)
    """Largest absolute value of an element of the Langevin gradient; None leaves it as it is."""
    energy_l2: float = Field(1.0, ge=0)
    """Weight of E(real)^2 + E(generated)^2 in the loss."""
    sampling_steps: int = Field(1200, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.0, 0.999)
    ais_temperatures: int = Field(0, ge=0)
    """Of the annealing path that finds log Z; 0 offers no likelihood."""
    ais_chains: int = Field(100, ge=100)
    leapfrog_steps: int = Field(3, ge=1)
    """Of an HMC move, one at each temperature."""
    reverse_steps: int = Field(500, ge=0)
    """HMC moves that images of the replay buffer make before they start a reverse run."""
    likelihood_temperature: float | None = Field(None, gt=0)
    """T of the density exp(-E / T) that has the likelihood; None is Langevin's noise_scale^2 / (2 step_size)."""


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, then 2 x 2 mean pooling where asked (odd sizes are rounded up)."""

    def __init__(self, channels: int, width: int, downsample: bool) -> None:
        super().__init__()
        self.first = spectral_norm(nn.Conv2d(channels, width, 3, padding=1))
        self.second = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = nn.Identity() if channels == width else spectral_norm(nn.Conv2d(channels, width, 1))
        self.downsample = downsample

    def forward(self, h: Tensor) -> Tensor:
        h = self.shortcut(h) + self.second(F.silu(self.first(F.silu(h))))
        return F.avg_pool2d(h, 2, ceil_mode=True) if self.downsample else h


class ResidualEnergy(nn.Module):
    """The paper's network: per width a downsampling and a plain residual block, global sum pooling, a linear map."""

    def __init__(self, spec: ImageSpec, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = spectral_norm(nn.Conv2d(spec.channels, widths[0], 3, padding=1))
        pairs = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(ResidualBlock(narrow, wide, True), ResidualBlock(wide, wide, False))
                for narrow, wide in pairs
            )
        )
        self.head = spectral_norm(nn.Linear(widths[-1], 1))

    def forward(self, y: Tensor) -> Tensor:
        h = F.silu(self.blocks(self.stem(y)))
        return self.head(h.sum((2, 3))).squeeze(1)  # (B,)


class DenseEnergy(nn.Sequential):
    """A fully connected energy with the given hidden widths."""

    def __init__(self, spec: ImageSpec, widths: tuple[int, ...]) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in zip((spec.dims, *widths[:-1]), widths, strict=True):
            layers += [spectral_norm(nn.Linear(inputs, outputs)), nn.SiLU()]
        super().__init__(*layers, spectral_norm(nn.Linear(widths[-1], 1)), nn.Flatten(0))


def langevin(
    energy: Callable[[Tensor], Tensor],
    y: Tensor,
    draw: Callable[[], Tensor],
    *,
    steps: int,
    step_size: float,
    noise_scale: float,
    gradient_limit: float | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Run unadjusted Langevin dynamics on a batch of independent chains.

    On E(y) = y^2 / (2 v), far from the bounds, y becomes normal with variance
    noise_scale^2 / (1 - (1 - step_size / v)^2).

    Args:
        energy: (B, ...) to (B,).
        y: (B, ...) where the chains start.
        draw: a fresh standard normal of the shape of ``y`` at each call.

    Returns:
        Where the chains end, shaped as ``y``, detached.
    """
    y = y.detach()
    with torch.enable_grad(), parametrize.cached():
        for _ in range(steps):
            y.requires_grad_()
            (gradient,) = torch.autograd.grad(energy(y).float().sum(), y)
            if gradient_limit is not None:
                gradient = gradient.clamp(-gradient_limit, gradient_limit)
            y = (y.detach() - step_size * gradient + noise_scale * draw()).clamp(*bounds)
    return y.detach()


def contrastive_loss(real: Tensor, generated: Tensor, energy_l2: float) -> Tensor:
    """E(real) - E(generated) + energy_l2 (E(real)^2 + E(generated)^2), averaged over the batch; both (B,)."""
    return (real - generated + energy_l2 * (real.square() + generated.square())).mean()


class EBM(GenerativeModel):
    """An energy on pixels in [0, 1], learned by contrastive divergence with a replay buffer."""

    Config = EBMConfig
    networks = ("energy",)
    averaged = ("energy",)
    sampler_options = frozenset({"steps"})
    conditions = frozenset({"mask"})
    config: EBMConfig
    buffer: Tensor

    def __init__(self, config: EBMConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        network = ResidualEnergy if config.network == "resnet" else DenseEnergy
        self.energy = network(spec, config.widths)
        self.register_buffer("buffer", torch.randint(0, 256, (config.buffer_size, *spec.shape), dtype=torch.uint8))

    def optimizers(self) -> dict[str, Optimizer]:
        return {"energy": Adam(self.energy.parameters(), lr=self.config.learning_rate, betas=self.config.betas)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step of algorithm 1: draw negatives from the buffer, move them, contrast them with data, put them back.

        Raises:
            UsageError: the batch is larger than the replay buffer.
        """
        size = len(batch)
        if size > self.config.buffer_size:
            raise UsageError(
                f"batch_size {size} is larger than buffer_size {self.config.buffer_size}; raise buffer_size."
            )
        levels = images.to_levels(batch.images, self.spec.levels)
        uniform = torch.rand(levels.shape, generator=ctx.rng, device=ctx.device)
        real = images.dequantise(levels, uniform, self.spec.levels)
        chosen = torch.randperm(self.config.buffer_size, generator=ctx.rng, device=ctx.device)[:size]
        start, draw = self._start(chosen, ctx), self._draw_from(ctx, real)
        generated = self._langevin(self.energy, start, self.config.langevin_steps, draw)
        self.buffer[chosen] = (generated * 255.0).round().to(torch.uint8)

        energies = self.energy(torch.cat((real, generated))).float()
        energy_real, energy_generated = energies[:size], energies[size:]
        ctx.backward(contrastive_loss(energy_real, energy_generated, self.config.energy_l2))
        ctx.step_optimizer("energy")
        return {
            "energy_gap": (energy_real.mean() - energy_generated.mean()).detach(),
            "energy_squared": energies.square().mean().detach(),
        }

    def _start(self, chosen: Tensor, ctx: TrainContext) -> Tensor:
        """Where this step's chains start: entries of the buffer, a share of them made anew from noise."""
        kept = self.buffer[chosen].float() / 255.0
        fresh = torch.rand(len(chosen), 1, 1, 1, generator=ctx.rng, device=ctx.device) < self.config.fresh_share
        return torch.where(fresh, torch.rand(kept.shape, generator=ctx.rng, device=ctx.device), kept)

    @staticmethod
    def _draw_from(ctx: TrainContext, like: Tensor) -> Callable[[], Tensor]:
        return lambda: torch.randn(like.shape, generator=ctx.rng, device=ctx.device)

    def _langevin(
        self, energy: Callable[[Tensor], Tensor], y: Tensor, steps: int, draw: Callable[[], Tensor]
    ) -> Tensor:
        c = self.config
        return langevin(
            energy,
            y,
            draw,
            steps=steps,
            step_size=c.step_size,
            noise_scale=c.noise_scale,
            gradient_limit=c.gradient_limit,
        )

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) terms of the energy distance between the batch and as many samples of the model.

        Energies are known up to a constant only, so they are no figure to watch.
        """
        generated = self.sample(SampleRequest(noise))
        return energy_distance(*(images.to_float(x, self.spec.levels) for x in (batch.images, generated)))

    def sample(self, request: SampleRequest) -> Tensor:
        """Langevin chains from noise. Given pixels stay in the middle of their levels, so that the others follow the
        energy given them."""
        noise, levels, shape = request.noise, self.spec.levels, self.spec.shape
        given = request.given(self.spec)

        def with_given(y: Tensor) -> Tensor:
            return y if given is None else torch.where(given.mask, (given.levels + 0.5) / levels, y)

        steps = request.options.steps or self.config.sampling_steps
        y = self._langevin(
            lambda y: self.energy(with_given(y)), noise.uniform(shape), steps, lambda: noise.normal(shape)
        )
        return images.from_levels(images.quantise(with_given(y), levels), levels)

    def temperature(self) -> float:
        """T of the density exp(-E / T).

        Raises:
            UsageError: it is Langevin's, and that has no noise.
        """
        c = self.config
        found = c.likelihood_temperature or c.noise_scale**2 / (2.0 * c.step_size)
        if found == 0.0:
            raise UsageError("Langevin dynamics with noise_scale 0 has temperature 0. Set likelihood_temperature.")
        return found

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("ais-forward", "ais-reverse") if self.config.ais_temperatures else ()

    def log_unnormalised(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) float64 mean of -E(y) / T over dequantised images y, less D log K."""
        levels, k = images.to_levels(batch.images, self.spec.levels), self.spec.levels
        total = torch.zeros(len(batch), dtype=torch.float64, device=batch.images.device)
        with parametrize.cached():
            for _ in range(_DEQUANTISATIONS):
                total -= self.energy(images.dequantise(levels, noise.uniform(self.spec.shape), k)).double()
        offset = images.dequantised_log_offset(self.spec.dims, k)
        return total / (_DEQUANTISATIONS * self.temperature()) + offset

    def log_normaliser(self, estimator: str, seed: int) -> LogNormaliser:
        """log of the integral of exp(-E / T) over the cube, by "ais-forward" or "ais-reverse"; both are run.

        Raises:
            NotConverged: see `genbench.likelihood.annealed.check_converged`.
            UsageError: an unknown estimator, or a configuration without `ais_temperatures`.
        """
        c = self.config
        if estimator not in self.likelihood_estimators():
            if not c.ais_temperatures:
                raise UsageError("This energy offers no likelihood: ais_temperatures is 0. Set it to 1000 or more.")
            raise unknown("estimator of log Z", estimator, self.likelihood_estimators())
        base, leapfrogs = UniformBase(self.spec.dims), c.leapfrog_steps
        # Dense at the wide end: most of log Z is gained there.
        betas = tuple(beta**2 for beta in temperatures(c.ais_temperatures))
        tuning, up = (ChainNoise(derive_seed(seed, name), c.ais_chains, self.device) for name in ("tune", "forward"))
        down = ChainNoise(derive_seed(seed, "reverse"), min(c.ais_chains, c.buffer_size), self.device)
        with parametrize.cached():
            sizes = tune_step_sizes(base, self._log_density, betas, tuning, leapfrog_steps=leapfrogs, bounds=CUBE)
            path = HamiltonianPath(base, self._log_density, sizes, leapfrogs, CUBE)
            forward, _ = forward_estimate(path, betas, up)
            reverse = reverse_estimate(path, self._model_draws(path, down), betas, down)
        return annealed_normaliser(
            forward, reverse, "forward" if estimator == "ais-forward" else "reverse", c.ais_temperatures
        )

    def _log_density(self, y: Tensor) -> Tensor:
        """(M, D) to (M,), -E / T."""
        value: Tensor = -self.energy(y.view(-1, *self.spec.shape)).float() / self.temperature()
        return value

    def _model_draws(self, path: HamiltonianPath, noise: ChainNoise) -> Particles:
        """Approximate draws of the density: images of the replay buffer, each once, after `reverse_steps` HMC moves."""
        state = path.at(self.buffer[: self.config.ais_chains].flatten(1).float() / 255.0)
        for _ in range(self.config.reverse_steps):
            state = path.move(state, 1.0, noise)
        return state
