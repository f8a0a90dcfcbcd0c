"""The interface of feature extractors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Features:
    """features: (N, d) float32. logits: (N, classes) float32, or None where the extractor classifies nothing."""

    features: np.ndarray
    logits: np.ndarray | None = None


class FeatureExtractor(Protocol):
    """A network from images to features, identified by its weights and its preprocessing."""

    name: str

    @property
    def identity(self) -> dict[str, Any]:
        """What makes its numbers: name, weights' SHA-256, preprocessing; goes into ``comparable``."""

    def extract(self, images: np.ndarray) -> Features:
        """(N, C, H, W) uint8 to features. A row does not depend on the batch it comes in beyond float rounding."""
