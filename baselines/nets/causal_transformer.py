"""A causal transformer over sequences of tokens, P(t) = prod_l P(t_l | t_1 .. t_{l-1}), with a key-value cache.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, in the pre-norm form of Radford et al., "Language Models are
Unsupervised Multitask Learners", 2019 (GPT-2): layer norms before each sub-layer and after the last, learned positions,
residual projections initialised smaller by the square root of their number. As in Image GPT (Chen et al. 2020) the GELU
is x sigmoid(1.702 x) (Hendrycks and Gimpel 2016) and the logits' layer starts at zero, so that an untrained model is
uniform. Positions on a grid may be the sum of an embedding per axis (Child et al., "Generating Long Sequences with
Sparse Transformers", 2019).

Unlike the code of Image GPT (`src/model.py` in openai/image-gpt): its norm divides by the root mean square, without a
mean and a bias, and its linear layers have no biases; its embeddings start with a standard deviation of 0.02 (tokens
and start) and 0.01 (positions), here 0.5; its MLP's weights start with 0.02, here one over the root of their inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.errors import UsageError
from genbench.noise import NoiseSource

EMBEDDING_STD = 0.5
GELU_SLOPE = 1.702


class KeyValueCache:
    """What `CausalTransformer.step` keeps of the positions so far.

    start: (B, 1, width), the embedding that stands before the first token. positions: (length, width), those of the
    positions. position: number of steps taken.
    """

    def __init__(self, start: Tensor, positions: Tensor, layers: int) -> None:
        self.start, self.positions = start, positions
        self.position = 0
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store (B, heads, 1, d) of the current position; returns those of all positions so far."""
        return self._store(self._keys, layer, keys), self._store(self._values, layer, values)

    def _store(self, stored: list[Tensor | None], layer: int, new: Tensor) -> Tensor:
        kept = stored[layer]
        if kept is None:
            kept = stored[layer] = new.new_empty(*new.shape[:2], len(self.positions), new.shape[3])
        kept[:, :, self.position] = new[:, :, 0]
        return kept[:, :, : self.position + 1]


class TransformerLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) with 4 x width hidden units."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.expand, self.reduce = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: KeyValueCache | None = None, layer: int = 0) -> Tensor:
        """(B, L, width) to the same; with a cache, L = 1, the cache's position."""
        qkv = self.queries_keys_values(self.attention_norm(x)).unflatten(-1, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, L, d) each
        if cache is not None:
            k, v = cache.append(layer, k, v)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=cache is None)
        x = x + self.dropout(self.attended(h.transpose(1, 2).flatten(2)))
        h = F.silu(GELU_SLOPE * self.expand(self.mlp_norm(x)))  # GELU_SLOPE times the GELU
        return x + self.dropout(self.reduce(h / GELU_SLOPE))


class CausalTransformer(nn.Module):
    """A causal transformer; the logits of position l depend on the tokens before l (and on the class) alone.

    Args:
        vocabulary: V, tokens are 0..V-1.
        length: L, the longest sequence, at least 1.
        width: of the embeddings, a multiple of ``heads``.
        dropout: of embeddings and sub-layers' outputs.
        num_classes: a learned embedding of the class stands before the first token; 0 for one that is always the same.
        grid: sizes of the axes that positions run over, the last fastest; their product is ``length``. The embedding
            of a position is then the sum of one per axis; by default each position has its own.

    Raises:
        UsageError: a width that the heads do not divide.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        width: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
        num_classes: int = 0,
        grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"A transformer's width must be a multiple of its heads, got {width} and {heads} heads.")
        self.vocabulary, self.length, self.num_classes = vocabulary, length, num_classes
        self.starts = nn.Embedding(max(1, num_classes), width)
        self.tokens = nn.Embedding(vocabulary, width)
        axes = (torch.randn(size, width) * EMBEDDING_STD for size in grid or (length,))
        self.positions = nn.ParameterList(axes)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(TransformerLayer(width, heads, dropout) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=EMBEDDING_STD)
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, TransformerLayer):
                for projection in (module.attended, module.reduce):
                    projection.weight.data /= math.sqrt(2 * len(self.layers))
        nn.init.zeros_(self.out.weight)

    def _positions(self) -> Tensor:
        """(length, width), the sum of the axes' embeddings."""
        first, *others = self.positions
        table: Tensor = first
        for axis in others:
            table = table[..., None, :] + axis
        return table.reshape(self.length, -1)

    def _start(self, batch_size: int, labels: Tensor | None) -> Tensor:
        """(B, 1, width), the embedding before the first token."""
        if (labels is not None) != (self.num_classes > 0):
            given = "no labels" if labels is None else "labels"
            raise UsageError(f"A transformer of {self.num_classes} classes was given {given}.")
        if labels is None:
            labels = torch.zeros(batch_size, dtype=torch.int64, device=self.starts.weight.device)
        start: Tensor = self.starts(labels)[:, None]
        return start

    def forward(self, tokens: Tensor, labels: Tensor | None = None, cache: KeyValueCache | None = None) -> Tensor:
        """Logits of every position of a sequence, or with a cache of the next position alone.

        Args:
            tokens: (B, L) int64, L at most ``length``; with a cache, (B, 1), the token before the next position, or
                (B, 0) at the first.
            labels: (B,) int64 where the model has classes (with a cache, it has them already).

        Returns:
            (B, L, V) logits; with a cache (B, 1, V).
        """
        if cache is not None:
            first = cache.position
            x, positions = self.tokens(tokens) if first else cache.start, cache.positions
        else:
            first, positions = 0, self._positions()
            x = torch.cat((self._start(len(tokens), labels), self.tokens(tokens[:, :-1])), dim=1)
        x = self.dropout(x + positions[first : first + x.shape[1]])
        for number, layer in enumerate(self.layers):
            x = layer(x, cache, number)
        if cache is not None:
            cache.position += 1
        logits: Tensor = self.out(self.norm(x))
        return logits

    def start(self, batch_size: int, labels: Tensor | None = None) -> KeyValueCache:
        """An empty cache for sequences of the given classes."""
        return KeyValueCache(self._start(batch_size, labels), self._positions(), len(self.layers))

    def step(self, previous: Tensor | None, cache: KeyValueCache) -> Tensor:
        """Logits (B, V) of the next position, given the token (B,) before it; None before the first."""
        if previous is None:
            previous = torch.zeros(len(cache.start), 0, dtype=torch.int64, device=cache.start.device)
        logits: Tensor = self(previous.view(len(cache.start), -1), cache=cache)
        return logits[:, 0]

    def log_prob(self, tokens: Tensor, labels: Tensor | None = None) -> Tensor:
        """log P(t) in nats, (B,) float64, of tokens (B, L)."""
        log_p = F.log_softmax(self(tokens, labels).double(), dim=-1)
        return log_p.gather(-1, tokens[..., None]).flatten(1).sum(1)

    @torch.no_grad()
    def sample(
        self,
        noise: NoiseSource,
        temperature: float = 1.0,
        given: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Draw sequences position by position with the cache.

        Args:
            noise: one uniform number per sequence and position.
            temperature: divides the logits.
            given: (B, L, V) bool, the tokens that each position may take; its conditional is restricted to them. A
                position of a single one keeps it. Tokens given later do not act on those drawn before.

        Returns:
            (B, length) int64.

        Raises:
            UsageError: a temperature that is not positive.
        """
        if temperature <= 0:
            raise UsageError(f"The temperature must be positive, got {temperature}.")
        cache = self.start(len(noise), labels)
        tokens: list[Tensor] = []
        for position in range(self.length):
            logits = self.step(tokens[-1] if tokens else None, cache).float() / temperature
            if given is not None:
                logits = logits.masked_fill(~given[:, position], float("-inf"))
            tokens.append(noise.categorical(logits.softmax(-1)))
        return torch.stack(tokens, dim=1)
