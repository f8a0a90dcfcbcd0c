"""Pixel transformer: a causal transformer over the values of an image in raster order, or over patches of binary ones.

Papers: Chen, Radford, Child, Wu, Jun, Luan and Sutskever, "Generative Pretraining from Pixels" (Image GPT), ICML 2020:
section 2 (raster order, the autoregressive objective). Child, Gray, Radford and Sutskever, "Generating Long Sequences
with Sparse Transformers" (arXiv:1904.10509, 2019): image bytes as tokens, positions as a sum over axes. Reference code:
`src/model.py` in openai/image-gpt. The network is `baselines.nets.causal_transformer`.

    log P(x) = sum_l log P(t_l | t_1 .. t_{l-1}), t the image as L tokens                     (Chen et al., section 2.1)

With patch size 1 a token is a value: rows, columns, then colours; K tokens. Images of two levels may be cut into p x p
patches, rows then columns of patches, each one token of 2^(p p C): the bits of its values, the first the highest.
Images and token sequences correspond one to one, so that the likelihood stays exact, and sequences are p p C times
shorter.

Sampling evaluates one position per token, with the keys and values of those before kept.

Inpainting ("mask"): tokens are drawn in order, each restricted to those that agree with the given pixels of its own
patch. A draw knows the given pixels before it and in its patch, not those after; it is the exact conditional where the
given pixels come first in the order of tokens, an approximation otherwise.

A class-conditional model reads an embedding of the class in place of the start; it reports log p(x) = log 1/C sum_y
P(x | y), exact too, so that it stands beside others.

Deviations from the papers:
- Image GPT clusters colours into 512 and loses their exact likelihood; here every level is a token. Neither patches nor
  classes are in the papers.
- Full attention (Child et al. factorise it); AdamW without decay of norms, biases and embeddings; averaged weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from baselines.nets.causal_transformer import CausalTransformer
from genbench.api import (
    Batch,
    GenerativeModel,
    Given,
    ImageSpec,
    LogLikelihood,
    ModelConfig,
    SampleRequest,
    TrainContext,
)
from genbench.errors import UsageError, unknown
from genbench.images import bits_per_dim, from_levels, to_levels
from genbench.noise import NoiseSource

MOST_BITS = 12
"""Bits of a patch, so that its token's softmax has at most 4096 values."""


class PixelTransformerConfig(ModelConfig):
    """Architecture and optimiser."""

    patch: int = Field(1, ge=1)
    """p, the side of a patch in pixels."""
    width: int = Field(128, ge=1)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    class_conditional: bool = False
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    """Of the matrices of the layers; embeddings, norms and biases have none."""


class PixelTransformer(GenerativeModel):
    """A causal transformer over pixels or binary patches, with exact likelihood and cached sampling."""

    Config = PixelTransformerConfig
    networks = ("network",)
    averaged = ("network",)
    sampler_options = frozenset({"temperature"})
    conditions = frozenset({"mask"})

    def __init__(self, config: PixelTransformerConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        _check(config, spec)
        p, (channels, height, width) = config.patch, spec.shape
        self.patch = p
        self.learning_rate, self.weight_decay = config.learning_rate, config.weight_decay
        self.classes = spec.num_classes if config.class_conditional else 0
        if self.classes:
            self.conditions = frozenset({"labels", "mask"})
        grid = (height // p, width // p) if p > 1 else (height, width, channels)
        self.network = CausalTransformer(
            vocabulary=2 ** (p * p * channels) if p > 1 else spec.levels,
            length=math.prod(grid),
            width=config.width,
            layers=config.layers,
            heads=config.heads,
            dropout=config.dropout,
            num_classes=self.classes,
            grid=grid,
        )

    def tokens_of(self, levels: Tensor) -> Tensor:
        """Levels (B, C, H, W) to tokens (B, L)."""
        values = self._patches(levels)
        return (values << self._shifts()).sum(-1) if self.patch > 1 else values[..., 0]

    def levels_of(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L) to levels (B, C, H, W), the inverse of `tokens_of`."""
        (channels, height, width), p = self.spec.shape, self.patch
        values = tokens if p == 1 else (tokens[..., None] >> self._shifts()) & 1
        cells = values.view(-1, height // p, width // p, p, p, channels)
        return cells.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, height, width)

    def _shifts(self) -> Tensor:
        """(p p C,), the bit of a token that each value of its patch is."""
        return torch.arange(self.patch**2 * self.spec.channels - 1, -1, -1, device=self.device)

    def _patches(self, values: Tensor) -> Tensor:
        """(B, C, H, W) to (B, L, values of a token), those of a patch by rows, columns, then colours."""
        (channels, height, width), p = self.spec.shape, self.patch
        cells = values.reshape(-1, channels, height // p, p, width // p, p).permute(0, 2, 4, 3, 5, 1)
        return cells.reshape(len(values), self.network.length, -1)

    def log_prob(self, images: Tensor, labels: Tensor | None) -> Tensor:
        """log P(x | y) in nats, (B,) float64, of stored images (B, C, H, W) uint8 and classes (B,)."""
        return self.network.log_prob(self.tokens_of(to_levels(images, self.spec.levels)), labels)

    def optimizers(self) -> dict[str, Optimizer]:
        return {"network": AdamW(self.parameter_groups(), lr=self.learning_rate, betas=(0.9, 0.95))}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The matrices of linear layers, which decay, and all other parameters, which do not."""
        decayed = [m.weight for m in self.network.modules() if isinstance(m, nn.Linear)]
        chosen = {id(weight) for weight in decayed}
        rest = [p for p in self.network.parameters() if id(p) not in chosen]
        return [{"params": decayed, "weight_decay": self.weight_decay}, {"params": rest, "weight_decay": 0.0}]

    def _labels_of(self, batch: Batch) -> Tensor | None:
        if self.classes and batch.labels is None:
            raise UsageError("A class-conditional transformer learns from labelled images, and these have no labels.")
        return batch.labels if self.classes else None

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        tokens = self.tokens_of(to_levels(batch.images, self.spec.levels))
        logits = self.network(tokens, self._labels_of(batch))
        loss = F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())  # mean over B and L
        ctx.backward(loss)
        ctx.step_optimizer("network")
        return {"bits_per_dim": bits_per_dim(-loss.detach() * tokens.shape[1], self.spec.dims)}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:  # noqa: ARG002
        """(B,) bits per dimension, of log P(x | y) where the model has classes."""
        return bits_per_dim(self.log_prob(batch.images, self._labels_of(batch)), self.spec.dims)

    def likelihood_estimators(self) -> tuple[str, ...]:
        return ("exact",)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:  # noqa: ARG002
        """Exact log P(x); a class-conditional model sums over its classes and does not look at the batch's labels."""
        if estimator not in self.likelihood_estimators():
            raise unknown("likelihood estimator", estimator, self.likelihood_estimators())
        if not self.classes:
            return LogLikelihood(self.log_prob(batch.images, None), "exact", estimator)
        labels = torch.arange(self.classes, device=batch.images.device)[:, None].expand(-1, len(batch))
        given = torch.stack([self.log_prob(batch.images, y) for y in labels])  # (classes, B)
        return LogLikelihood(given.logsumexp(0) - math.log(self.classes), "exact", estimator)

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """Draw tokens in order. Classes that are not asked for are drawn, all as likely.

        Raises:
            UsageError: a temperature that is not positive, or a mask without its source.
        """
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        labels, condition = None, request.condition
        if self.classes:
            labels = condition.labels
            if labels is None:
                labels = request.noise.categorical(torch.ones(len(request), self.classes, device=self.device))
        given = request.given(self.spec)
        allowed = None if given is None else self._agreeing(given)
        tokens = self.network.sample(request.noise, temperature, allowed, labels)
        return from_levels(self.levels_of(tokens), self.spec.levels)

    def _agreeing(self, given: Given) -> Tensor:
        """(B, L, V) bool: the tokens that agree with the given pixels of their place."""
        vocabulary = torch.arange(self.network.vocabulary, device=given.levels.device)
        tokens = self.tokens_of(given.levels)[..., None]
        known = self.tokens_of(given.mask.to(torch.int64))[
            ..., None
        ]  # (B, L, 1), with patches ones where a bit is given
        if self.patch > 1:
            return (vocabulary ^ tokens) & known == 0
        return (vocabulary == tokens) | (known == 0)


def _check(config: PixelTransformerConfig, spec: ImageSpec) -> None:
    p = config.patch
    if p > 1 and spec.levels != 2:
        raise UsageError(
            f"PixelTransformer: patches of {p} x {p} pixels are for images of 2 levels, and these have {spec.levels}. "
            "Set patch = 1."
        )
    if spec.height % p or spec.width % p:
        raise UsageError(
            f"PixelTransformer: patches of {p} x {p} pixels do not divide images of {spec.height} x {spec.width}. "
            "Set patch to a divisor of both."
        )
    if p > 1 and p * p * spec.channels > MOST_BITS:
        raise UsageError(
            f"PixelTransformer: a patch of {p} x {p} pixels and {spec.channels} channels has {p * p * spec.channels} "
            f"bits, and at most {MOST_BITS} fit a token. Set a smaller patch."
        )
    if config.class_conditional and not spec.num_classes:
        raise UsageError(
            "A class-conditional transformer is told the class of each image, and this dataset has no labels. "
            "Set class_conditional = false."
        )
