"""Inception Score (Salimans et al. 2016, sec. 4): exp E_x KL(p(y|x) || p(y)), averaged over splits of the samples.

Tools differ in how they split. Defaults are those of protocol ``tf1`` (torch-fidelity): 10 splits with bounds
i N // 10, order permuted by ``RandomState(2020)``, softmax of logits without bias, float64, spread with ddof 0.
torchmetrics takes `torch.chunk` of a permutation by the global generator, and a spread with ddof 1; guided-diffusion's
evaluator blocks of 5000 in the order given. Arithmetic is float64 and in blocks of images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import xlogy

from genbench.metrics.base import Estimate, Metric, MetricInputs, NotApplicable
from genbench.metrics.options import require_choice, require_count
from genbench.metrics.statistics import blocks, jackknife_error, normal_interval

SHUFFLE_SEED = 2020
ORDERS = ("permuted", "given")
BOUNDS = ("floor", "chunk", "blocks-of-5000")
_BLOCK_SIZE = 5000
_BLOCK = 2048


def softmax_block(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, classes) of logits and sum_c p log p of each row (n,), float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(1, keepdims=True)
    p = np.exp(shifted)
    total = p.sum(1)
    p /= total[:, None]
    negative_entropy: np.ndarray = np.einsum("ij,ij->i", p, shifted) - np.log(total)
    return p, negative_entropy


def split_score(logits: np.ndarray) -> tuple[float, float]:
    """exp of the mean KL divergence between rows of probabilities and their mean, and its standard error.

    The error is a jackknife over the images, that is over `left_out_scores`; 0 for one image, whose score is always 1.
    """
    n = len(logits)
    marginal, entropies = np.zeros(logits.shape[1]), np.empty(n)
    for part in blocks(n, _BLOCK):
        p, entropies[part] = softmax_block(logits[part])
        marginal += p.sum(0)
    score = math.exp(entropies.mean() - xlogy(marginal / n, marginal / n).sum())
    if n < 2:
        return score, 0.0
    return score, jackknife_error(left_out_scores(logits, marginal, entropies))


def left_out_scores(logits: np.ndarray, total: np.ndarray, entropies: np.ndarray) -> np.ndarray:
    """(n,) scores without one row of logits (n, classes) each; n >= 2.

    ``total`` (classes,) is the sum of the rows' probabilities, ``entropies`` (n,) their sums of p log p.
    """
    n = len(logits)
    scores = np.empty(n)
    mean = (entropies.sum() - entropies) / (n - 1)
    for part in blocks(n, _BLOCK):
        marginal = np.clip((total - softmax_block(logits[part])[0]) / (n - 1), 0.0, None)
        scores[part] = np.exp(mean[part] - xlogy(marginal, marginal).sum(1))
    return scores


def split_bounds(n: int, splits: int, bounds: str) -> list[slice]:
    """The parts of ``range(n)`` by one of `BOUNDS`; only "floor" gives exactly ``splits`` of them at every n."""
    if bounds == "floor":
        return [slice(i * n // splits, (i + 1) * n // splits) for i in range(splits)]
    return list(blocks(n, -(-n // splits) if bounds == "chunk" else _BLOCK_SIZE))


@dataclass(frozen=True)
class InceptionScore(Metric):
    """IS: high where each sample has a clear class and all classes occur; it never looks at real images.

    splits: number of parts (of no effect on "blocks-of-5000"). order: "permuted" by ``RandomState(2020)``, or as
    "given". bounds: "floor" for i N // splits, "chunk" for parts of ceil(N / splits), "blocks-of-5000". ddof: of the
    spread over splits.
    """

    splits: int = 10
    order: str = "permuted"
    bounds: str = "floor"
    ddof: int = 0

    name = "inception_score"
    higher_is_better = True
    needs = frozenset({"logits"})
    summary = "exp of the mutual information between samples and the extractor's classes, over 10 splits"

    def __post_init__(self) -> None:
        require_count(self.name, "splits", self.splits)
        require_choice(self.name, "order", self.order, ORDERS)
        require_choice(self.name, "bounds", self.bounds, BOUNDS)
        require_choice(self.name, "ddof", self.ddof, (0, 1))

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate. The spread over splits, as other tools print it, is ``extra["std_over_splits"]``.

        Raises:
            NotApplicable: the extractor has no classes, or there are fewer than two samples a split.
            DataError: NaN or infinite logits.
        """
        logits = inputs.samples.logits()
        n = len(logits)
        least = 1 if self.bounds == "blocks-of-5000" else self.splits
        if n < 2 * least:
            raise NotApplicable(f"{n} samples are fewer than 2 for each of {least} splits")
        rows = np.random.RandomState(SHUFFLE_SEED).permutation(n) if self.order == "permuted" else np.arange(n)
        found = [split_score(logits[rows[part]]) for part in split_bounds(n, self.splits, self.bounds)]
        scores = np.array([score for score, _ in found])
        value = float(scores.mean())
        error = math.sqrt(sum(error**2 for _, error in found)) / len(found)
        return [
            Estimate(
                value=value,
                n=n,
                ci95=normal_interval(value, error, low=1.0),
                interval="jackknife over images within splits",
                estimator=f"mean-of-{len(found)}-splits",
                standard_error=error,
                notes=self._notes(n, scores),
                extra=self._extra(scores, logits.shape[1]),
            )
        ]

    def _notes(self, n: int, scores: np.ndarray) -> tuple[str, ...]:
        if self.bounds == "chunk" and len(scores) != self.splits:
            return (f"{n} samples make {len(scores)} equal parts, not {self.splits}",)
        last = n % _BLOCK_SIZE
        if self.bounds == "blocks-of-5000" and len(scores) > 1 and 0 < last < _BLOCK_SIZE / 2:
            return (
                f"the last of {len(scores)} blocks has {last} of {_BLOCK_SIZE} samples and counts as much as the "
                "others, with a score that is lower by its size; give a multiple of 5000 samples",
            )
        return ()

    def _extra(self, scores: np.ndarray, classes: int) -> dict[str, Any]:
        spread = float(scores.std(ddof=self.ddof)) if len(scores) > self.ddof else None
        return {"std_over_splits": spread, "classes": classes}
