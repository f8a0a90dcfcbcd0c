"""JEM: a joint energy-based model, a classifier whose logits are read as energies of images and classes.

Paper: Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi and Swersky, "Your Classifier is Secretly an Energy Based Model and
You Should Treat it Like One", ICLR 2020. It is `ebm` plus one idea: with f(x) the logits of a classifier,

    p(x, y) = exp(f(x)[y]) / Z,   p(x) = sum_y exp(f(x)[y]) / Z                                         (eqs. 5 and 6)
    E(x) = -logsumexp_y f(x)[y],  p(y | x) = softmax_y f(x)[y]                                          (eqs. 7 and 4)
    log p(x, y) = log p(x) + log p(y | x)                                                                      (eq. 8)

log p(y | x) is learned by cross-entropy, log p(x) as in an energy-based model: its gradient is that of -E at the data
less that at samples of the model, which come from Langevin dynamics (SGLD, eq. 3, with a step and a noise of their
own)

    x_k = x_{k-1} - step_size grad E(x_{k-1}) + noise_scale omega,   omega ~ N(0, I),   x in [-1, 1],

started from a replay buffer or, with probability `fresh_share`, from uniform noise (algorithm 1). p(y | x) does not
change when f is shifted by a function of x alone, p(x) does: that is the freedom which the second term takes up.

Samples of a class are Langevin chains on E(x, y) = -f(x)[y], which is log p(x | y) up to a constant; without a class,
on E(x). Inpainting keeps the given pixels in place of the chain's own at every gradient: Langevin dynamics of the
exact conditional, as far as a finite chain with a noise of its own samples anything exactly.

There is no likelihood: Z is unknown, and the chain's temperature is not that of the energy.

Reference code: https://github.com/wgrathwohl/JEM (`train_wrn_ebm.py`).

Deviations:
- Chains are kept in [-1, 1], and the buffer holds 8 bits a value (`ebm`).
- `conditional_chains` draws the negatives of a random class each on E(x, y), from that class's part of the buffer (an
  option of the reference code, off in the paper's runs): p(x) is then their mixture over equally likely classes.
- `energy_l2` adds the mean square of E to the loss, as `ebm` does. The paper has no such term, and restarts trainings
  that diverge.
- Residual networks narrower than the paper's 28-10; on 8 x 8 images a perceptron. No normalisation layers, as there.
- `sample` starts every chain from its own noise, and averaged weights sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from baselines.energy.ebm import langevin
from genbench.api import Batch, GenerativeModel, ImageSpec, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.images import from_float, levels_to_float, to_float
from genbench.noise import NoiseSource

BOUNDS = (-1.0, 1.0)
SLOPE = 0.2


class JEMConfig(ModelConfig):
    """Settings of `JEM`; the defaults are the paper's for CIFAR-10."""

    network: Literal["wide_resnet", "mlp"] = "wide_resnet"
    depth: int = Field(28, ge=10)
    """wide_resnet: 6 n + 4 layers."""
    widening: int = Field(10, ge=1)
    """wide_resnet: stages of 16, 32 and 64 times this many channels."""
    widths: tuple[int, ...] = Field((256, 256), min_length=1)
    """mlp: hidden layers."""
    buffer_size: int = Field(10_000, ge=1)
    fresh_share: float = Field(0.05, gt=0, le=1)
    """Share of the chains that start from noise instead of from the buffer."""
    conditional_chains: bool = False
    langevin_steps: int = Field(20, ge=1)
    step_size: float = Field(1.0, gt=0)
    noise_scale: float = Field(0.01, ge=0)
    """Standard deviation of a Langevin step's noise, for values in [-1, 1]."""
    data_noise: float = Field(0.03, ge=0)
    """Standard deviation of the noise added to training images."""
    density_weight: float = Field(1.0, ge=0)
    """Weight of log p(x) beside log p(y | x)."""
    energy_l2: float = Field(0.0, ge=0)
    sampling_steps: int = Field(400, ge=1)
    learning_rate: float = Field(1e-4, gt=0)


class WideBlock(nn.Module):
    """x + conv(f(conv(f(x)))), f a leaky ReLU, 3 x 3; a 1 x 1 shortcut where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, stride, 1)
        self.second = nn.Conv2d(width, width, 3, 1, 1)
        same = channels == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels, width, 1, stride)

    def forward(self, h: Tensor) -> Tensor:
        inner = self.second(F.leaky_relu(self.first(F.leaky_relu(h, SLOPE)), SLOPE))
        return self.shortcut(h) + inner


class WideResNet(nn.Module):
    """Zagoruyko and Komodakis' wide residual network without normalisation: (B, C, H, W) to (B, classes)."""

    def __init__(self, spec: ImageSpec, depth: int, widening: int) -> None:
        super().__init__()
        channels = 16
        layers: list[nn.Module] = [nn.Conv2d(spec.channels, channels, 3, padding=1)]
        for width, stride in ((16 * widening, 1), (32 * widening, 2), (64 * widening, 2)):
            for i in range((depth - 4) // 6):
                layers.append(WideBlock(channels, width, stride if i == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(channels, spec.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.leaky_relu(self.blocks(x), SLOPE).mean((2, 3)))


def perceptron(spec: ImageSpec, widths: tuple[int, ...]) -> nn.Sequential:
    """(B, C, H, W) to (B, classes)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip((spec.dims, *widths[:-1]), widths, strict=True):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], spec.num_classes))


def energy_of(logits: Tensor, labels: Tensor | None) -> Tensor:
    """(B,) energies from logits (B, classes): -logsumexp (eq. 7), or -f[y] of the given classes (B,)."""
    logits = logits.float()
    return -logits.logsumexp(1) if labels is None else -logits.gather(1, labels[:, None])[:, 0]


class JEM(GenerativeModel):
    """A classifier that is an energy-based model; see the module's docstring."""

    Config = JEMConfig
    config: JEMConfig
    networks = ("classifier",)
    averaged = ("classifier",)
    sampler_options = frozenset({"steps"})
    conditions = frozenset({"labels", "mask"})
    buffer: Tensor

    def __init__(self, config: JEMConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if spec.num_classes < 2:
            raise UsageError(
                f"jem is a classifier: it needs a dataset with at least 2 classes, this one has {spec.num_classes}. "
                "Use ebm for images without labels."
            )
        if config.network == "wide_resnet" and (config.depth - 4) % 6:
            raise UsageError(f"depth = {config.depth}: a wide residual network has 6 n + 4 layers (10, 16, 22, 28).")
        if config.buffer_size % spec.num_classes:
            raise UsageError(
                f"buffer_size = {config.buffer_size}: its chains are shared by {spec.num_classes} classes. "
                "Give a multiple."
            )
        self.classifier: nn.Module
        if config.network == "mlp":
            self.classifier = perceptron(spec, config.widths)
        else:
            self.classifier = WideResNet(spec, config.depth, config.widening)
        self.register_buffer("buffer", torch.randint(0, 256, (config.buffer_size, *spec.shape), dtype=torch.uint8))

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam."""
        return {"classifier": Adam(self.classifier.parameters(), lr=self.config.learning_rate, betas=(0.9, 0.999))}

    def classify(self, images: Tensor) -> Tensor:
        """(B, classes) log p(y | x) for (B, C, H, W) uint8."""
        return self.classifier(to_float(images, self.spec.levels)).float().log_softmax(1)

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step of algorithm 1: cross-entropy at the data, and its energies against those of the buffer's chains.

        Raises:
            UsageError: images without labels, or a batch larger than the replay buffer.
        """
        if len(batch) > self.config.buffer_size:
            raise UsageError(
                f"batch_size {len(batch)} is larger than buffer_size {self.config.buffer_size}; raise buffer_size."
            )
        labels = _required_labels(batch)
        real = to_float(batch.images, self.spec.levels)
        real = real + self.config.data_noise * torch.randn(real.shape, generator=ctx.rng, device=ctx.device)
        generated, classes = self._negatives(len(batch), ctx)

        logits = self.classifier(torch.cat((real, generated))).float()
        logits_real, logits_generated = logits.split((len(real), len(generated)))
        cross_entropy = F.cross_entropy(logits_real, labels)
        energy_real, energy_generated = energy_of(logits_real, None), energy_of(logits_generated, classes)
        gap = energy_real.mean() - energy_generated.mean()
        squared = energy_real.square().mean() + energy_generated.square().mean()
        c = self.config
        ctx.backward(cross_entropy + c.density_weight * gap + c.energy_l2 * squared)
        ctx.step_optimizer("classifier")
        return {
            "cross_entropy": cross_entropy.detach(),
            "accuracy": (logits_real.argmax(1) == labels).float().mean(),
            "energy_gap": gap.detach(),
            "energy_squared": squared.detach(),
        }

    def _negatives(self, count: int, ctx: TrainContext) -> tuple[Tensor, Tensor | None]:
        """Chains from the buffer, moved and put back: (B, C, H, W), and their classes (B,) where they have them."""
        rng, device, c = ctx.rng, ctx.device, self.config
        slot = torch.randperm(c.buffer_size, generator=rng, device=device)[:count]
        classes = slot % self.spec.num_classes if c.conditional_chains else None
        kept = self.buffer[slot].float() / 127.5 - 1.0
        fresh = torch.rand(count, 1, 1, 1, generator=rng, device=device) < c.fresh_share
        start = torch.where(fresh, 2.0 * torch.rand(kept.shape, generator=rng, device=device) - 1.0, kept)

        def energy(x: Tensor) -> Tensor:
            return energy_of(self.classifier(x), classes)

        x = self._langevin(
            energy, start, c.langevin_steps, lambda: torch.randn(start.shape, generator=rng, device=device)
        )
        self.buffer[slot] = ((x + 1.0) * 127.5).round().to(torch.uint8)
        return x, classes

    def _langevin(
        self, energy: Callable[[Tensor], Tensor], x: Tensor, steps: int, draw: Callable[[], Tensor]
    ) -> Tensor:
        c = self.config
        return langevin(energy, x, draw, steps=steps, step_size=c.step_size, noise_scale=c.noise_scale, bounds=BOUNDS)

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) 1 where the class is wrong, 0 where it is right: the mean is one minus the accuracy.

        Raises:
            UsageError: images without labels.
        """
        del noise
        return (self.classify(batch.images).argmax(1) != _required_labels(batch)).float()

    def sample(self, request: SampleRequest) -> Tensor:
        """Langevin chains from noise, of the classes asked for; given pixels are those of the source."""
        noise, shape, given = request.noise, self.spec.shape, request.given(self.spec)

        def with_given(x: Tensor) -> Tensor:
            return x if given is None else torch.where(given.mask, levels_to_float(given.levels, self.spec.levels), x)

        def energy(x: Tensor) -> Tensor:
            return energy_of(self.classifier(with_given(x)), request.condition.labels)

        steps = request.options.steps or self.config.sampling_steps
        x = self._langevin(energy, 2.0 * noise.uniform(shape) - 1.0, steps, lambda: noise.normal(shape))
        return from_float(with_given(x), self.spec.levels)


def _required_labels(batch: Batch) -> Tensor:
    if batch.labels is None:
        raise UsageError("jem learns from labelled images, and these have no labels. Use ebm for images without them.")
    return batch.labels
