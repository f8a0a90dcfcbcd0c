"""The interface of feature extractors, and the batched pass that they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from genbench.errors import DataError

Precision = Literal["float32", "tf32", "bfloat16"]


@dataclass(frozen=True)
class Features:
    """features: (N, d) float32. logits: (N, classes) float32, or None where the extractor classifies nothing.

    spatial: (N, s) float32, features that keep their place in the image (for sFID), or None where not asked for.
    """

    features: np.ndarray
    logits: np.ndarray | None = None
    spatial: np.ndarray | None = None


class FeatureExtractor(Protocol):
    """A network from images to features, identified by its weights and its preprocessing.

    name: as it is asked for, ``NAME`` or ``NAME:ARGUMENT``. notes: warnings for the reader (weights of another hash).
    input_size: side in pixels of what the network sees of resized images, or None where images are not resized.
    """

    name: str
    notes: tuple[str, ...]
    input_size: int | None

    @property
    def identity(self) -> dict[str, Any]:
        """What makes its numbers: name, weights' SHA-256, preprocessing; goes into ``comparable``."""

    def extract(self, images: np.ndarray) -> Features:
        """(N, C, H, W) uint8 to features. A row does not depend on the batch it comes in beyond float rounding."""


@dataclass(frozen=True)
class ExtractorOptions:
    """How an extractor is loaded.

    argument: what follows the colon of ``NAME:ARGUMENT`` (a tap, a model, a file), or "". preprocessing: how images
    reach InceptionV3 ("tf1", "pytorch-fid", "clean", "torchmetrics"); extractors with a preprocessing of their own
    ignore it. weights: a file in place of the standard one. precision: of the forward pass. spatial: also give spatial
    features where there are some.
    """

    device: str = "cpu"
    batch_size: int = 64
    argument: str = ""
    preprocessing: str = "tf1"
    weights: Path | None = None
    precision: Precision = "float32"
    spatial: bool = False


@dataclass(frozen=True)
class ExtractorStatus:
    """Whether an extractor can be loaded here. detail: where its weights are and their hash, or what to do."""

    name: str
    available: bool
    detail: str


class ExtractorSource(Protocol):
    """What an entry point of ``genbench.extractors`` names: an extractor before its weights are read."""

    name: str

    def load(self, options: ExtractorOptions) -> FeatureExtractor:
        """Read and check the weights.

        Raises:
            DataError: weights that are missing, damaged or not those expected; says what to do.
            UsageError: an argument, preprocessing or precision that the extractor does not have.
        """

    def status(self) -> ExtractorStatus:
        """Look for the weights and check them, without building the network."""


class Outputs(NamedTuple):
    """What a network gives for a batch: features (B, d), and where it has them logits (B, classes), spatial (B, s)."""

    features: Tensor
    logits: Tensor | None = None
    spatial: Tensor | None = None


def extract_in_batches(
    forward: Callable[[Tensor], Outputs], images: np.ndarray, device: str, batch_size: int
) -> Features:
    """One pass of ``forward`` (from uint8 (B, C, H, W) on the device) over all images.

    Raises:
        DataError: images that are no uint8 (N, C, H, W) array with at least one image.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise DataError(f"Expected uint8 images (N, C, H, W) with N > 0, got {images.dtype} {images.shape}.")
    found: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            block = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
            for name, output in forward(block)._asdict().items():
                if output is None:
                    continue
                if name not in found:
                    found[name] = np.empty((len(images), *output.shape[1:]), np.float32)
                found[name][start : start + len(block)] = output.float().cpu().numpy()
    return Features(**found)
