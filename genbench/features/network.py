"""What extractors of one network have in common: a passport, and a batched pass at a precision."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from torch import Tensor

from genbench.features.base import ExtractorOptions, Features, Outputs, extract_in_batches
from genbench.features.pillow_input import check_channels
from genbench.features.precision import computing


class NetworkExtractor(ABC):
    """A `FeatureExtractor` of images of any size with 1 (repeated) or 3 channels; subclasses give `forward`."""

    def __init__(
        self,
        name: str,
        sha256: str,
        preprocessing: str,
        options: ExtractorOptions,
        note: str | None,
        input_size: int | None,
    ) -> None:
        self.name = name
        self.input_size = input_size
        self.notes: tuple[str, ...] = (note,) if note else ()
        self.options = options
        self._sha256, self._preprocessing = sha256, preprocessing

    @property
    def identity(self) -> dict[str, Any]:
        """Name, weights' SHA-256, preprocessing and precision."""
        return {
            "name": self.name,
            "weights_sha256": self._sha256,
            "preprocessing": self._preprocessing,
            "precision": self.options.precision,
        }

    def check(self, images: np.ndarray) -> None:
        """Refuse images that the network cannot take.

        Raises:
            DataError: another number of channels.
        """
        check_channels(images, self.name)

    def extract(self, images: np.ndarray) -> Features:
        """(N, C, H, W) uint8 to features (N, d), and what else the network gives. Raises what `check` does."""
        self.check(images)
        with computing(self.options.precision, self.options.device):
            return extract_in_batches(self.forward, images, self.options.device, self.options.batch_size)

    @abstractmethod
    def forward(self, images: Tensor) -> Outputs:
        """(B, C, H, W) uint8 on the device to the network's outputs."""
