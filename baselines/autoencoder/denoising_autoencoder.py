"""Denoising autoencoder, sampled by the Markov chain that alternates corruption and denoising.

Papers: Vincent, Larochelle, Bengio and Manzagol, "Extracting and Composing Robust Features with Denoising
Autoencoders", ICML 2008 (the model; masking noise), and Vincent et al., "Stacked Denoising Autoencoders", JMLR 11,
2010 (salt-and-pepper and Gaussian noise); Bengio, Yao, Alain and Vincent, "Generalized Denoising Auto-Encoders as
Generative Models", NeurIPS 2013 (the chain and walkback training).

With C(x~ | x) the corruption and p(x | x~) what the network learns, by maximising E log p(x | x~), the chain

    x~_t ~ C(x~ | x_{t-1}),   x_t ~ p(x | x~_t)                                         (Bengio et al., sec. 3)

has the data's distribution as its stationary one where p(x | x~) is the true posterior of the corruption (their
theorem 1). There is no likelihood: the stationary distribution is known by its samples only, and p(x | x~) is not
p(x).

Walkback (their algorithm 2): a training image is corrupted, denoised and corrupted again `walkback_steps` times by the
model's own chain, and each corrupted image on the way is a training example whose answer is the original. This
unlearns spurious modes near the data. `walkback_steps = 1` is the plain denoising autoencoder.

Inpainting: given pixels are put back into x_t after each draw (and corrupted with the rest). With p(x | x~) the true
posterior and independent over pixels given x~, this is Gibbs sampling of (x, x~) given the pixels, hence exact in the
limit of many steps; with a learned p(x | x~) and finitely many steps it is the chain's approximation.

Reference code: https://github.com/yaoli/GSN (`run_dae_walkback.py`).

Deviations:
- p(x | x~) is a distribution on the K levels of each value, independent given x~: a logit for K = 2 (as in the
  papers), a K-way softmax for more, with one-hot inputs where the corrupted values are levels.
- A perceptron of any depth without tied weights, AdamW and averaged weights, where the papers have one tied sigmoid or
  tanh layer, greedy stacking for more, and SGD. Output biases start at the log-frequencies of the first batch.
- A fixed number of walkback steps (as in the reference code) instead of a geometric one.
- Binary MNIST is drawn from the grey values; the reference code thresholds them at 0.5.
- `sample` starts each chain from independent pixels, each with the frequencies of its levels in training (counted along
  with it), and gives the chain's last state. The papers start at an image of the data and show each state of one long
  chain; pure noise is a poor start, since training never sees it and the chain may stay there. Like the papers,
  `temperature = 0` shows the mean of the last p(x | x~) instead of the draw; other values scale the draw's deviation
  from it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, Protocol, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from baselines.nets.levels import flat_given
from genbench.api import Batch, GenerativeModel, ImageSpec, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.images import float_to_levels, from_float, from_levels, levels_to_float, to_float, to_levels
from genbench.noise import NoiseSource

Corruption = Literal["masking", "salt_and_pepper", "gaussian"]


class DenoisingAutoencoderConfig(ModelConfig):
    """Settings of the denoising autoencoder."""

    widths: tuple[int, ...] = Field((2000,), min_length=1)
    """Hidden layers."""
    activation: Literal["tanh", "relu", "sigmoid"] = "tanh"
    corruption: Corruption = "salt_and_pepper"
    corruption_level: float = Field(0.4, gt=0)
    """Share of corrupted values, at most 1; of "gaussian" the standard deviation, for values in [-1, 1]."""
    walkback_steps: int = Field(5, ge=1)
    sampling_steps: int = Field(200, ge=1)
    """Steps of the chain where the request does not say."""
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)


class Noise(Protocol):
    """Random numbers for a batch of B: a `NoiseSource`, or a generator in training."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape), uniform on [0, 1)."""

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """(B, *shape), standard normal."""


class GeneratorNoise:
    """`Noise` from a torch generator."""

    def __init__(self, rng: torch.Generator, batch_size: int) -> None:
        self.rng, self.batch_size = rng, batch_size

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.rand((self.batch_size, *shape), generator=self.rng, device=self.rng.device)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn((self.batch_size, *shape), generator=self.rng, device=self.rng.device)


class LevelDistributions:
    """Independent distributions on K levels: a logit of the upper level for K = 2, K logits for more."""

    def __init__(self, num_levels: int) -> None:
        self.num_levels = num_levels
        self.parameters = 1 if num_levels == 2 else num_levels

    def count(self, levels: Tensor) -> Tensor:
        """(D, K) int64, how often each level occurs in levels (B, D), pixel by pixel."""
        return F.one_hot(levels, self.num_levels).sum(0)

    def logits_of(self, counts: Tensor) -> Tensor:
        """(D parameters,) logits of the frequencies in counts (D, K)."""
        if self.num_levels == 2:
            return (counts[:, 1] / counts[:, 0]).log()
        return (counts / counts.sum(1, keepdim=True)).log().flatten()

    def log_prob(self, logits: Tensor, levels: Tensor) -> Tensor:
        """(B,) nats of levels (B, D) under logits (B, D, parameters)."""
        if self.num_levels == 2:
            return F.logsigmoid(logits[..., 0] * (2 * levels - 1)).sum(1)
        return (logits.gather(-1, levels[..., None])[..., 0] - logits.logsumexp(-1)).sum(1)

    def draw(self, logits: Tensor, noise: Noise) -> Tensor:
        """(B, D) int64, by inversion."""
        u = noise.uniform((logits.shape[1],))
        if self.num_levels == 2:
            return (u < logits[..., 0].sigmoid()).to(torch.int64)
        cumulative = logits.softmax(-1).cumsum(-1)
        return (cumulative <= u[..., None] * cumulative[..., -1:]).sum(-1).clamp(max=self.num_levels - 1)

    def mean(self, logits: Tensor) -> Tensor:
        """(B, D) float32, expected value in [-1, 1]."""
        if self.num_levels == 2:
            return 2.0 * logits[..., 0].sigmoid() - 1.0
        values = levels_to_float(torch.arange(self.num_levels, device=logits.device), self.num_levels)
        return logits.softmax(-1) @ values


def corrupt(x: Tensor, kind: Corruption, level: float, noise: Noise) -> Tensor:
    """x~ ~ C(x~ | x) for values (B, D) in [-1, 1].

    masking: a share ``level`` of the values becomes -1. salt_and_pepper: it becomes -1 or 1 with equal probability.
    gaussian: normal noise of standard deviation ``level`` is added; the sum is not clipped.
    """
    shape = tuple(x.shape[1:])
    if kind == "gaussian":
        return x + level * noise.normal(shape)
    u = noise.uniform(shape)
    if kind == "masking":
        return x.masked_fill(u < level, -1.0)
    return x.masked_fill(u < level, -1.0).masked_fill(u < level / 2, 1.0)


class Clamp:
    """Keeps what a request gives of the chain's image: nothing, or the pixels under an inpainting mask."""

    def __init__(self, request: SampleRequest, spec: ImageSpec) -> None:
        self._mask, self._values = flat_given(request, spec)
        self._spec = spec

    def levels(self, levels: Tensor) -> Tensor:
        """Levels (B, D) with the given ones in their places."""
        return torch.where(self._mask, self._values, levels)

    def images(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) with the given pixels in their places."""
        kept = from_levels(self._values, self._spec.levels)
        return torch.where(self._mask, kept, images.flatten(1)).view_as(images)


def visible_units(levels: Tensor, num_levels: int) -> Tensor:
    """Levels (B, D) as units in {0, 1}: themselves for K = 2, (B, D), and one-hot for more, (B, D K)."""
    if num_levels == 2:
        return levels.float()
    return F.one_hot(levels, num_levels).float().flatten(1)


def start_of_chain(counts: Tensor, noise: Noise) -> Tensor:
    """(B, D) levels, independent, each with the frequencies of its pixel's counts (D, K)."""
    cumulative = counts.double().cumsum(1)  # (D, K)
    u = noise.uniform((len(counts),)).double()
    return (cumulative <= u[..., None] * cumulative[:, -1:]).sum(-1)


def last_image(logits: Tensor, drawn: Tensor, temperature: float | None, spec: ImageSpec) -> Tensor:
    """The chain's last draw (B, D) as images (B, C, H, W); a temperature scales its deviation from the mean."""
    x = levels_to_float(drawn, spec.levels)
    if temperature is not None:
        x = torch.lerp(LevelDistributions(spec.levels).mean(logits), x, temperature)
    return from_float(x, spec.levels).view(-1, *spec.shape)


class DenoisingAutoencoder(GenerativeModel):
    """A denoising autoencoder; see the module's docstring."""

    Config = DenoisingAutoencoderConfig
    config: DenoisingAutoencoderConfig
    counts: Tensor
    """(D, K) how often each level was seen at each pixel in training, plus one."""
    networks = ("denoiser",)
    averaged = ("denoiser",)
    sampler_options = frozenset({"steps", "temperature"})
    conditions = frozenset({"mask"})

    def __init__(self, config: DenoisingAutoencoderConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        if config.corruption != "gaussian" and config.corruption_level > 1:
            raise UsageError(
                f"corruption_level = {config.corruption_level}: of '{config.corruption}' it is a share of the values. "
                "Give at most 1, or corruption = 'gaussian'."
            )
        self.observation = LevelDistributions(spec.levels)
        activation = {"tanh": nn.Tanh, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}[config.activation]
        outputs = spec.dims * self.observation.parameters
        inputs = spec.dims if config.corruption == "gaussian" else outputs
        layers: list[nn.Module] = []
        for below, above in pairwise((inputs, *config.widths)):
            layers += [nn.Linear(below, above), activation()]
        self.denoiser = nn.Sequential(*layers, nn.Linear(config.widths[-1], outputs))
        self.register_buffer("counts", torch.ones(spec.dims, spec.levels, dtype=torch.int64))

    def denoise(self, x: Tensor) -> Tensor:
        """Logits (B, D, parameters) of p(x | x~), float32, for x~ (B, D) in [-1, 1]."""
        K = self.spec.levels
        inputs = x if self.config.corruption == "gaussian" else visible_units(float_to_levels(x, K), K)
        return self.denoiser(inputs).float().view(len(x), self.spec.dims, -1)

    def corrupt(self, levels: Tensor, noise: Noise) -> Tensor:
        """x~ (B, D) for levels (B, D)."""
        x = levels_to_float(levels, self.spec.levels)
        return corrupt(x, self.config.corruption, self.config.corruption_level, noise)

    def optimizers(self) -> dict[str, Optimizer]:
        """AdamW."""
        c = self.config
        return {"denoiser": AdamW(self.parameters(), lr=c.learning_rate, weight_decay=c.weight_decay)}

    def walkback(self, levels: Tensor, noise: Noise) -> list[Tensor]:
        """(B,) log p(x | x~) in nats for each of the walk's `walkback_steps` corrupted images; x has levels (B, D)."""
        state, found = levels, []
        for _ in range(self.config.walkback_steps):
            logits = self.denoise(self.corrupt(state, noise))
            found.append(self.observation.log_prob(logits, levels))
            state = self.observation.draw(logits.detach(), noise)
        return found

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on the mean of -log p(x | x~) over the walk."""
        levels = to_levels(batch.images, self.spec.levels).flatten(1)
        self.counts += self.observation.count(levels)
        if ctx.step == 0:
            with torch.no_grad():
                cast(nn.Linear, self.denoiser[-1]).bias.copy_(self.observation.logits_of(self.counts))
        losses = [-nats.mean() for nats in self.walkback(levels, GeneratorNoise(ctx.rng, len(levels)))]
        ctx.backward(torch.stack(losses).mean() / self.spec.dims)
        ctx.step_optimizer("denoiser")
        return {"denoising_nats_first": losses[0].detach(), "denoising_nats_last": losses[-1].detach()}

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) -log p(x | x~) in nats, mean over the walk."""
        levels = to_levels(batch.images, self.spec.levels).flatten(1)
        return -torch.stack(self.walkback(levels, noise)).mean(0)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """The chain's state after `steps` steps from independent pixels; given pixels are put back after each."""
        noise, clamp = request.noise, Clamp(request, self.spec)
        levels = clamp.levels(start_of_chain(self.counts, noise))
        logits = torch.empty(0)
        for _ in range(request.options.steps or self.config.sampling_steps):
            logits = self.denoise(self.corrupt(levels, noise))
            levels = clamp.levels(self.observation.draw(logits, noise))
        return clamp.images(last_image(logits, levels, request.options.temperature, self.spec))

    @torch.no_grad()
    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """The mean of p(x | x~) with x~ = x, not corrupted; rounded to levels."""
        del noise
        x = to_float(batch.images, self.spec.levels).flatten(1)
        mean = self.observation.mean(self.denoise(x))
        return from_float(mean, self.spec.levels).view(-1, *self.spec.shape)
