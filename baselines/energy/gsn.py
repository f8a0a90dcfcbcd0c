"""GSN: a generative stochastic network, the transition operator of a Markov chain learned with walkback.

Papers: Bengio, Laufer, Alain and Yosinski, "Deep Generative Stochastic Networks Trainable by Backprop", ICML 2014;
walkback is of Bengio, Yao, Alain and Vincent, "Generalized Denoising Auto-Encoders as Generative Models", NeurIPS 2013
(algorithm 2). It is `denoising_autoencoder` plus one idea: the chain carries hidden layers H_t with noise of their
own,

    H_{t+1} ~ P(H | H_t, X_t),   X_{t+1} ~ P(X | H_{t+1})

so that P(X | H) may be simple while the chain moves far. If P(X | H) is the posterior of X under the chain and the
chain is ergodic, the data's distribution is its stationary one. Layers h_1..h_L meet the image x = h_0 through tied
weights, as in a deep Boltzmann machine; one step updates the odd layers and then the even ones,

    h_i = f(noise + W_{i-1}^T h_{i-1} + W_i h_{i+1} + b_i) + noise,   p(x | h_1) = sigmoid or softmax(W_0 h_1 + b_0),

f = tanh, with Gaussian noise before and after it. Then x is drawn and corrupted by salt and pepper. Training starts at
a corrupted image and h = 0, makes `walkback_steps` steps, and sums -log p(x | h_1) of the original image over them;
the gradient flows through the hidden layers and not through the drawn images. It takes at least as many steps as
layers for the image to reach the top and come back; the paper has twice as many. A chain of many steps has hidden
states older than any that a short walk shows: with two layers on a toy of one pixel, two steps left a visible bias and
six none.

The hidden noise has to be strong. With weak noise the hidden layers carry the original image through the few steps of
training; in a long chain that memory is of the chain's own making, and it drifts to the states of least entropy. On
binarised MNIST (two layers, four steps) that is what a standard deviation of 1 does: the chains end at ones, from
images of the data too. With the paper's 2 the shares of the classes stay near the data's.

There is no likelihood: the stationary distribution is known by its samples only. (The paper's Parzen-window figures
say little of a density and are left out on purpose.)

Inpainting: given pixels are put back after each draw, the clamping of the paper's section on missing inputs. It is
exact in the limit of many steps if P(X | H) is the chain's posterior and its pixels are independent given H; otherwise
it is the chain's approximation.

Reference code: https://github.com/yaoli/GSN (`model.py`, `run_dsn.py`): two layers of 1500, noise 2, 1000 epochs.

Deviations:
- For K > 2 levels each value is a K-way softmax, with one-hot visible units; for K = 2 a logistic unit, as there. The
  reference code shows the logistic units grey values in [0, 1], as inputs and as targets of the cross-entropy; here
  images have levels.
- Adam instead of SGD (0.25 with momentum 0.5, times 0.995 an epoch); averaged weights; the loss is the mean, not the
  sum, over the steps; the image's biases start at the log-frequencies of the first batch instead of at zero.
- Far fewer images: the recipe of `mnist-binary` shows 2.6 million, 4 % of the reference code's 60 million.
- `sample` starts from h = 0 and independent pixels, each with the frequencies of its levels in training, and gives the
  chain's last state; the reference code starts from h = 0 and a corrupted test image. Pure noise is a poor start:
  training never sees it, and the chain stays there. `temperature = 0` shows the mean of the last p(x | h), as the
  paper's figures do.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from baselines.autoencoder.denoising_autoencoder import (
    Clamp,
    GeneratorNoise,
    LevelDistributions,
    Noise,
    corrupt,
    last_image,
    start_of_chain,
    visible_units,
)
from genbench.api import Batch, GenerativeModel, ImageSpec, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.images import float_to_levels, from_float, levels_to_float, to_levels
from genbench.noise import NoiseSource


class GSNConfig(ModelConfig):
    """Settings of `GSN`; the defaults are the paper's for MNIST."""

    widths: tuple[int, ...] = Field((1500, 1500), min_length=1)
    """Units of the hidden layers, from the image up."""
    hidden_noise: float = Field(2.0, ge=0)
    """Standard deviation of the Gaussian noise before and after the activation of hidden layers."""
    noiseless_first: bool = True
    """No noise in the first hidden layer."""
    corruption_level: float = Field(0.4, ge=0, le=1)
    """Share of the values that salt and pepper replaces."""
    walkback_steps: int = Field(4, ge=1)
    sampling_steps: int = Field(200, ge=1)
    """Steps of the chain where the request does not say."""
    learning_rate: float = Field(1e-3, gt=0)


class UpDown(nn.Module):
    """One step of the chain's deterministic part and hidden noise: odd layers, then even ones, with tied weights."""

    def __init__(self, units: tuple[int, ...], noise_scale: float, noiseless_first: bool) -> None:
        super().__init__()
        self.units, self.noise_scale, self.noiseless_first = units, noise_scale, noiseless_first
        self.weights = nn.ParameterList(
            (2 * torch.rand(above, below) - 1) * math.sqrt(6.0 / (below + above)) for below, above in pairwise(units)
        )
        self.biases = nn.ParameterList(torch.zeros(count) for count in units)

    def forward(self, visible: Tensor, hidden: list[Tensor], noise: Noise | None) -> tuple[Tensor, list[Tensor]]:
        """Logits of the visible units (B, V) and the new hidden layers, from ``visible`` (B, V) and hidden layers.

        Args:
            noise: where the hidden noise comes from; None leaves it out.
        """
        layers = [visible, *hidden]
        for i in [*range(1, len(layers), 2), *range(2, len(layers), 2)]:
            layers[i] = self._activate(i, self._input(i, layers), noise)
        return self._input(0, layers), layers[1:]

    def _input(self, i: int, layers: list[Tensor]) -> Tensor:
        """What layer i gets from its neighbours, (B, units)."""
        total = self.biases[i].expand(len(layers[0]), -1)
        if i > 0:
            total = total + F.linear(layers[i - 1], self.weights[i - 1])
        if i < len(layers) - 1:
            total = total + F.linear(layers[i + 1], self.weights[i].t())
        return total

    def _activate(self, i: int, total: Tensor, noise: Noise | None) -> Tensor:
        if noise is None or self.noise_scale == 0 or (i == 1 and self.noiseless_first):
            return torch.tanh(total)
        shape = (self.units[i],)
        before = self.noise_scale * noise.normal(shape)
        return torch.tanh(total + before) + self.noise_scale * noise.normal(shape)


class GSN(GenerativeModel):
    """A generative stochastic network; see the module's docstring."""

    Config = GSNConfig
    config: GSNConfig
    counts: Tensor
    """(D, K) how often each level was seen at each pixel in training, plus one."""
    networks = ("updown",)
    averaged = ("updown",)
    sampler_options = frozenset({"steps", "temperature"})
    conditions = frozenset({"mask"})

    def __init__(self, config: GSNConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        depth = len(config.widths)
        if config.walkback_steps < depth:
            raise UsageError(
                f"walkback_steps = {config.walkback_steps} with {depth} hidden layers: the top layer would never be "
                f"trained. Give at least {depth} (the paper: {2 * depth}), or fewer widths."
            )
        self.observation = LevelDistributions(spec.levels)
        visible = spec.dims * self.observation.parameters
        self.updown = UpDown((visible, *config.widths), config.hidden_noise, config.noiseless_first)
        self.register_buffer("counts", torch.ones(spec.dims, spec.levels, dtype=torch.int64))

    def corrupt(self, levels: Tensor, noise: Noise) -> Tensor:
        """Levels (B, D) after salt and pepper: a share of them becomes the lowest or the highest level."""
        x = levels_to_float(levels, self.spec.levels)
        return float_to_levels(corrupt(x, "salt_and_pepper", self.config.corruption_level, noise), self.spec.levels)

    def silent(self, count: int) -> list[Tensor]:
        """Hidden layers (B, units) at zero, where chains start."""
        return [torch.zeros(count, width, device=self.device) for width in self.config.widths]

    def step(self, levels: Tensor, hidden: list[Tensor], noise: Noise) -> tuple[Tensor, list[Tensor]]:
        """One step: corrupt the levels (B, D), update the layers; logits (B, D, parameters) of p(x | h), and h."""
        visible = visible_units(self.corrupt(levels, noise), self.spec.levels)
        logits, hidden = self.updown(visible, hidden, noise)
        return logits.float().view(len(levels), self.spec.dims, -1), hidden

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam."""
        return {"updown": Adam(self.parameters(), lr=self.config.learning_rate)}

    def walkback(self, levels: Tensor, noise: Noise) -> list[Tensor]:
        """(B,) log p(x | h_1) in nats at each of the walk's `walkback_steps` steps; x has levels (B, D)."""
        state, hidden, found = levels, self.silent(len(levels)), []
        for _ in range(self.config.walkback_steps):
            logits, hidden = self.step(state, hidden, noise)
            found.append(self.observation.log_prob(logits, levels))
            state = self.observation.draw(logits.detach(), noise)
        return found

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on the mean of -log p(x | h_1) over the walk."""
        levels = to_levels(batch.images, self.spec.levels).flatten(1)
        self.counts += self.observation.count(levels)
        if ctx.step == 0:
            with torch.no_grad():
                self.updown.biases[0].copy_(self.observation.logits_of(self.counts))
        losses = [-nats.mean() for nats in self.walkback(levels, GeneratorNoise(ctx.rng, len(levels)))]
        ctx.backward(torch.stack(losses).mean() / self.spec.dims)
        ctx.step_optimizer("updown")
        return {"denoising_nats_first": losses[0].detach(), "denoising_nats_last": losses[-1].detach()}

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) -log p(x | h_1) in nats, mean over the walk."""
        levels = to_levels(batch.images, self.spec.levels).flatten(1)
        return -torch.stack(self.walkback(levels, noise)).mean(0)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """The chain's state after `steps` steps from independent pixels; given pixels are put back after each."""
        noise, clamp = request.noise, Clamp(request, self.spec)
        levels, hidden = clamp.levels(start_of_chain(self.counts, noise)), self.silent(len(request))
        logits = torch.empty(0)
        for _ in range(request.options.steps or self.config.sampling_steps):
            logits, hidden = self.step(levels, hidden, noise)
            levels = clamp.levels(self.observation.draw(logits, noise))
        return clamp.images(last_image(logits, levels, request.options.temperature, self.spec))

    @torch.no_grad()
    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """The mean of p(x | h_1) after `walkback_steps` steps with x held and without any noise; rounded to levels."""
        del noise
        visible = visible_units(to_levels(batch.images, self.spec.levels).flatten(1), self.spec.levels)
        logits, hidden = visible, self.silent(len(visible))
        for _ in range(self.config.walkback_steps):
            logits, hidden = self.updown(visible, hidden, None)
        mean = self.observation.mean(logits.float().view(len(visible), self.spec.dims, -1))
        return from_float(mean, self.spec.levels).view(-1, *self.spec.shape)
