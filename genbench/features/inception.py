"""InceptionV3 of 2015-12-05, the network behind the published IS, FID, KID and sFID, as a feature extractor.

``inception-v3`` gives the 2048 features of the last pool and class logits without their bias; ``inception-v3:64``,
``:192`` and ``:768`` stop earlier, as torch-fidelity and pytorch-fid do. The weights are pytorch-fid's port of
TensorFlow's graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.errors import DataError, unknown
from genbench.features.base import ExtractorOptions, ExtractorStatus, Features, Outputs, extract_in_batches
from genbench.features.inception_network import INPUT_SIZE, TAPS, ConvReLU, InceptionV3, load_network
from genbench.features.inception_preprocessing import load_preprocessing
from genbench.features.precision import arithmetic, check_precision
from genbench.weights import LocatedWeights, locate

NAME = "inception-v3"
WEIGHTS = "inception-2015-12-05"


def parse_tap(argument: str) -> int:
    """The tap that ``inception-v3:ARGUMENT`` names; none means 2048.

    Raises:
        UsageError: no such tap.
    """
    taps = {str(tap): tap for tap in TAPS}
    if argument and argument not in taps:
        raise unknown(f"tap of '{NAME}'", argument, taps)
    return taps.get(argument, 2048)


class InceptionExtractor:
    """`InceptionV3` with folded weights under one preprocessing, up to one tap."""

    def __init__(self, network: InceptionV3, weights: LocatedWeights, options: ExtractorOptions) -> None:
        check_precision(options.precision, options.device)
        self._preprocess = load_preprocessing(options.preprocessing)
        self._tap = parse_tap(options.argument)
        self._weights = weights
        self._options = options
        self.name = NAME if self._tap == 2048 else f"{NAME}:{self._tap}"
        self.input_size: int | None = INPUT_SIZE
        self.notes = (weights.note,) if weights.note else ()
        self._dtype = torch.bfloat16 if options.precision == "bfloat16" else torch.float32
        for module in network.modules():
            if isinstance(module, ConvReLU):
                module.to(self._dtype)
        self._network = network.to(memory_format=torch.channels_last).to(options.device)

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "weights_sha256": self._weights.sha256,
            "preprocessing": f"{self._preprocess.name}: {self._preprocess.summary}",
            "precision": self._options.precision,
        }

    def extract(self, images: np.ndarray) -> Features:
        """(N, C, H, W) uint8 of any size, C = 1 (repeated) or 3, to features (N, tap).

        Logits (N, 1008), without the bias, where the tap is 2048; spatial features (N, 2023) where asked for.

        Raises:
            DataError: not such an array.
        """
        if images.ndim == 4 and (images.shape[1] not in (1, 3) or 0 in images.shape[2:]):
            raise DataError(
                f"Extractor '{self.name}' takes images of 1 or 3 channels with at least one pixel, got (C, H, W) = "
                f"{tuple(images.shape[1:])}."
            )
        return extract_in_batches(self._forward, images, self._options.device, self._options.batch_size)

    def _forward(self, images: Tensor) -> Outputs:
        with arithmetic("float32"):
            x = self._preprocess(images).to(self._dtype, memory_format=torch.channels_last)
        with arithmetic(self._options.precision):
            return self._network(x, self._tap, self._options.spatial)


@dataclass(frozen=True)
class InceptionSource:
    """The InceptionV3 weights, from the user's own file or from the store."""

    name: str = NAME

    def load(self, options: ExtractorOptions) -> InceptionExtractor:
        """Find and check the weights and build the network.

        Raises:
            DataError: weights that are missing, damaged, or of another network.
            UsageError: an unknown tap, preprocessing or precision.
        """
        parse_tap(options.argument)
        load_preprocessing(options.preprocessing)
        check_precision(options.precision, options.device)
        weights = locate(WEIGHTS, options.weights)
        return InceptionExtractor(load_network(weights.path), weights, options)

    def status(self) -> ExtractorStatus:
        """Look for the file in the store and check its hash; nothing is downloaded."""
        try:
            weights = locate(WEIGHTS, download=False)
        except DataError as error:
            return ExtractorStatus(self.name, False, str(error))
        return ExtractorStatus(self.name, True, f"{weights.path}, SHA-256 {weights.sha256[:12]}")


INCEPTION_V3 = InceptionSource()
