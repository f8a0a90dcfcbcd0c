"""CLIP score: how well images fit their prompts, by the cosine of their embeddings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from genbench.errors import UsageError
from genbench.metrics.base import Estimate, Metric, MetricInputs
from genbench.metrics.embeddings import distinct, image_rows, image_text, prompts_of, text_rows
from genbench.metrics.options import require_choice
from genbench.metrics.statistics import mean_interval


def prompt_cosines(inputs: MetricInputs, prefix: str = "") -> np.ndarray:
    """(n,) cosines of each sample's embedding with that of ``prefix`` and its prompt.

    Raises:
        NotApplicable: no image-text model or no prompts.
        DataError: prompts and images of different counts, or embeddings that are zero, NaN or infinite.
    """
    texts, index = distinct([prefix + prompt for prompt in prompts_of(inputs)])
    cosines: np.ndarray = np.einsum("nd,nd->n", image_rows(inputs), text_rows(inputs, texts)[index])
    return cosines


@dataclass(frozen=True)
class ClipScore(Metric):
    """``scale`` x max(cos, 0), mean over images (Hessel et al. 2021, CLIPScore, eq. 1: 2.5 and "A photo depicts ").

    A text longer than the model's context is cut. clamp: "image" cuts each image's cosine at 0, as the paper does;
    "mean" cuts their mean, as torchmetrics does (there with ``scale`` 100 and no prefix: protocol ``torchmetrics``).
    """

    prefix: str = "A photo depicts "
    scale: float = 2.5
    clamp: Literal["image", "mean"] = "image"

    name = "clip_score"
    higher_is_better = True
    needs = frozenset({"text"})
    summary = "fit of images and their prompts: 2.5 max(cos, 0) of their CLIP embeddings"

    def __post_init__(self) -> None:
        require_choice(self.name, "clamp", self.clamp, ("image", "mean"))
        if not isinstance(self.prefix, str):
            raise UsageError(f"Option 'prefix' of metric '{self.name}' must be a text, got {self.prefix!r}.")
        fits = isinstance(self.scale, int | float) and not isinstance(self.scale, bool)
        if not fits or not 0 < self.scale < math.inf:
            raise UsageError(f"Option 'scale' of metric '{self.name}' must be a number above 0, got {self.scale!r}.")

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate. ``extra["mean_cosine"]`` is the mean before any cut.

        Raises:
            NotApplicable: no image-text model or no prompts. DataError: as `prompt_cosines`.
        """
        cosines = prompt_cosines(inputs, self.prefix)
        scores = self.scale * (np.maximum(cosines, 0.0) if self.clamp == "image" else cosines)
        interval = mean_interval(scores)
        return [
            Estimate(
                value=max(float(scores.mean()), 0.0),
                n=len(scores),
                ci95=None if interval is None else (max(interval[0], 0.0), max(interval[1], 0.0)),
                interval="normal over images" if interval else None,
                estimator="mean" if self.clamp == "image" else "clamped mean",
                per_image=scores,
                paired_by="prompt",
                extra={"mean_cosine": float(cosines.mean())},
                conditions={"prompts_fingerprint": image_text(inputs).prompts_fingerprint},
            )
        ]
