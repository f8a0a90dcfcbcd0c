"""The interface of feature extractors, and the batched pass that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from genbench.errors import DataError


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


@dataclass(frozen=True)
class ExtractorStatus:
    """Whether an extractor can be loaded here. detail: where its weights are and their hash, or what to do."""

    name: str
    available: bool
    detail: str


class ExtractorSource(Protocol):
    """What an entry point of ``genbench.extractors`` names: an extractor before its weights are read."""

    name: str

    def load(self, device: str, batch_size: int) -> FeatureExtractor:
        """Read and check the weights.

        Raises:
            DataError: weights that are missing, damaged or not those expected; says what to do.
        """

    def status(self) -> ExtractorStatus:
        """Look for the weights and check them, without building the network."""


def extract_in_batches(
    forward: Callable[[Tensor], tuple[Tensor, Tensor]], images: np.ndarray, device: str, batch_size: int
) -> Features:
    """One pass of ``forward`` (uint8 (B, C, H, W) to features (B, d) and logits (B, classes)) over all images.

    Raises:
        DataError: images that are no uint8 (N, C, H, W) array with at least one image.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise DataError(f"Expected uint8 images (N, C, H, W) with N > 0, got {images.dtype} {images.shape}.")
    features, logits = [], []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            block = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
            batch_features, batch_logits = forward(block)
            features.append(batch_features.float().cpu().numpy())
            logits.append(batch_logits.float().cpu().numpy())
    return Features(np.concatenate(features), np.concatenate(logits))
