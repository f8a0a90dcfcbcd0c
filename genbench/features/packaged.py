"""Feature networks that come with genbench: a small classifier for each packaged suite.

``scripts/train_feature_network.py`` trains one on a suite's training split and writes ``weights/<name>.safetensors``
beside ``weights/<name>.json``, a manifest with the weights' SHA-256, the architecture, the accuracy, the data's
fingerprint and the training command. Features are the globally averaged activations before the last layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.errors import DataError
from genbench.features.base import ExtractorOptions, ExtractorStatus, Features, Outputs, extract_in_batches
from genbench.features.packaged_files import WEIGHTS_FOLDER, PackagedFiles
from genbench.features.precision import arithmetic

PREPROCESSING = "x / 127.5 - 1"


class Architecture(BaseModel):
    """Shape of a `PackagedNetwork`: `blocks` residual blocks for each width; stages after the first halve the image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int
    height: int
    width: int
    num_classes: int
    widths: tuple[int, ...]
    blocks: int = 1

    @property
    def feature_dim(self) -> int:
        return self.widths[-1]


class TrainingReport(BaseModel):
    """How the weights were made. Accuracies are shares of images; the test split had no say in any choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str
    dataset: str
    dataset_fingerprint: str
    epochs: int
    best_epoch: int
    validation_accuracy: float
    test_accuracy: float
    test_images: int


class Manifest(BaseModel):
    """The JSON file beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    architecture: Architecture
    preprocessing: str
    training: TrainingReport


class ResidualBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv(x)))))), the basic block of He et al. 2016, 3 x 3 convolutions."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(h)))


class PackagedNetwork(nn.Module):
    """A small residual classifier whose penultimate activations are the features."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        first = architecture.widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(architecture.channels, first, 3, 1, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        stages: list[nn.Module] = []
        in_channels = first
        for stage, width in enumerate(architecture.widths):
            for block in range(architecture.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(ResidualBlock(in_channels, width, stride))
                in_channels = width
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(in_channels, architecture.num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) float in [-1, 1] to features (B, d) and logits (B, classes)."""
        features = self.blocks(self.stem(x)).mean((2, 3))  # (B, d)
        return features, self.head(features)


def preprocess(images: Tensor) -> Tensor:
    """uint8 images to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0


class PackagedExtractor:
    """A `PackagedNetwork` with checked weights, in evaluation mode."""

    def __init__(self, network: PackagedNetwork, manifest: Manifest, device: str, batch_size: int) -> None:
        self.name = manifest.name
        self.manifest = manifest
        self.notes: tuple[str, ...] = ()
        self.input_size: int | None = None
        self._device = device
        self._batch_size = batch_size
        self._network = network.eval().requires_grad_(False).to(device)

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "weights_sha256": self.manifest.sha256,
            "preprocessing": self.manifest.preprocessing,
        }

    def extract(self, images: np.ndarray) -> Features:
        """(N, C, H, W) uint8 of the size that the network was trained on, to features and class logits.

        Grey images may have one channel or three equal ones, whichever of them the network takes.

        Raises:
            DataError: images of another size, or coloured ones where the network takes grey ones.
        """
        with arithmetic("float32"):
            return extract_in_batches(self._forward, self._fitted(images), self._device, self._batch_size)

    def _fitted(self, images: np.ndarray) -> np.ndarray:
        """Images of the channels that the network takes."""
        a = self.manifest.architecture
        channels = images.shape[1] if images.ndim == 4 else None
        if images.shape[2:] != (a.height, a.width) or channels not in (1, 3, a.channels):
            raise DataError(
                f"Extractor '{self.name}' takes images of (C, H, W) = {(a.channels, a.height, a.width)}, got "
                f"{tuple(images.shape[1:])}. Choose an extractor for this size (`genbench list extractors`)."
            )
        if channels == 1 and a.channels == 3:
            return np.repeat(images, 3, 1)
        if channels == 3 and a.channels == 1:
            coloured = (images != images[:, :1]).any((1, 2, 3))
            if coloured.any():
                raise DataError(
                    f"Extractor '{self.name}' takes grey images, and {coloured.sum()} of {len(images)} are coloured: "
                    "their channels differ. Make them grey, or choose an extractor for colour "
                    "(`genbench list extractors`)."
                )
            return images[:, :1]
        return images

    def _forward(self, images: Tensor) -> Outputs:
        return Outputs(*self._network(preprocess(images)))


@dataclass(frozen=True)
class PackagedSource:
    """The weights of one packaged network in ``folder``."""

    name: str
    folder: Path = WEIGHTS_FOLDER

    @property
    def files(self) -> PackagedFiles[Manifest]:
        return PackagedFiles(self.name, self.folder, Manifest, "train_feature_network.py")

    def load(self, options: ExtractorOptions) -> PackagedExtractor:
        """Read and check the weights.

        Raises:
            UsageError: an argument, weights, or a precision other than float32.
            DataError: weights that are missing, damaged, or of another shape than the manifest says.
        """
        self.files.check_options(options)
        manifest = self.files.manifest()
        network = PackagedNetwork(manifest.architecture)
        try:
            network.load_state_dict(load_file(self.files.weights))
        except (RuntimeError, SafetensorError) as error:
            raise DataError(f"{self.files.weights}: does not fit its manifest: {error}. {self.files.repair}") from None
        return PackagedExtractor(network, manifest, options.device, options.batch_size)

    def status(self) -> ExtractorStatus:
        """Check the manifest and the hash."""
        try:
            manifest = self.files.manifest()
        except DataError as error:
            return ExtractorStatus(self.name, False, str(error))
        t = manifest.training
        detail = f"packaged, SHA-256 {manifest.sha256[:12]}, test accuracy {100 * t.test_accuracy:.2f} % on {t.dataset}"
        return ExtractorStatus(self.name, True, detail)


DIGITS_CNN = PackagedSource("digits-cnn")
MNIST_CNN = PackagedSource("mnist-cnn")
CIFAR10_CNN = PackagedSource("cifar10-cnn")
