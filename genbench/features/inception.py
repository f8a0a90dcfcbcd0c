"""InceptionV3 of 2015-12-05, the network behind the published IS, FID and KID (Szegedy et al. 2016).

The TensorFlow graph as ported to PyTorch in ``pt_inception-2015-12-05-6726825d.pth`` (pytorch-fid; torch-fidelity
hosts the same file as ``weights-inception-2015-12-05-6726825d.pth``). It differs from torchvision's InceptionV3:
average pools of the A, C and E blocks leave padding out of the mean, the pool of the last E block is a maximum, and
there are 1008 classes. Protocol ``tf1``: TensorFlow 1 bilinear resize to 299, (x - 128) / 128, and logits without
the bias ("logits_unbiased").
"""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_dir
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception as tv

from genbench.errors import DataError
from genbench.features.base import ExtractorOptions, ExtractorStatus, Features, Outputs, extract_in_batches
from genbench.files import hash_file

FILE_NAME = "pt_inception-2015-12-05-6726825d.pth"
FILE_NAMES = (FILE_NAME, "weights-inception-2015-12-05-6726825d.pth")
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE_NAME}"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
NUM_CLASSES = 1008
INPUT_SIZE = 299
PROTOCOL = "tf1"
PREPROCESSING = "tf1: bilinear to 299 with src = i in / out, (x - 128) / 128"


def _pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


class InceptionA(tv.InceptionA):  # type: ignore[misc]
    """35 x 35 block whose average pool leaves padding out of the mean."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(_pool(x))]


class InceptionC(tv.InceptionC):  # type: ignore[misc]
    """17 x 17 block whose average pool leaves padding out of the mean."""

    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return [self.branch1x1(x), single, double, self.branch_pool(_pool(x))]


class InceptionE(tv.InceptionE):  # type: ignore[misc]
    """8 x 8 block; the pool is an average without padding, or a maximum in the network's last block."""

    def __init__(self, in_channels: int, max_pool: bool) -> None:
        super().__init__(in_channels)
        self.max_pool = max_pool

    def _forward(self, x: Tensor) -> list[Tensor]:
        single = self.branch3x3_1(x)
        single = torch.cat([self.branch3x3_2a(single), self.branch3x3_2b(single)], 1)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        double = torch.cat([self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)], 1)
        pooled = F.max_pool2d(x, kernel_size=3, stride=1, padding=1) if self.max_pool else _pool(x)
        return [self.branch1x1(x), single, double, self.branch_pool(pooled)]


class InceptionV3(nn.Module):
    """The network; names of its parts are those of the state dict. Batch normalisation has eps = 1e-3."""

    def __init__(self) -> None:
        super().__init__()
        conv = tv.BasicConv2d
        self.Conv2d_1a_3x3 = conv(3, 32, kernel_size=3, stride=2)
        self.Conv2d_2a_3x3 = conv(32, 32, kernel_size=3)
        self.Conv2d_2b_3x3 = conv(32, 64, kernel_size=3, padding=1)
        self.Conv2d_3b_1x1 = conv(64, 80, kernel_size=1)
        self.Conv2d_4a_3x3 = conv(80, 192, kernel_size=3)
        self.Mixed_5b = InceptionA(192, pool_features=32)
        self.Mixed_5c = InceptionA(256, pool_features=64)
        self.Mixed_5d = InceptionA(288, pool_features=64)
        self.Mixed_6a = tv.InceptionB(288)
        self.Mixed_6b = InceptionC(768, channels_7x7=128)
        self.Mixed_6c = InceptionC(768, channels_7x7=160)
        self.Mixed_6d = InceptionC(768, channels_7x7=160)
        self.Mixed_6e = InceptionC(768, channels_7x7=192)
        self.Mixed_7a = tv.InceptionD(768)
        self.Mixed_7b = InceptionE(1280, max_pool=False)
        self.Mixed_7c = InceptionE(2048, max_pool=True)
        self.fc = nn.Linear(2048, NUM_CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, 299, 299) float to pool3 features (B, 2048) and logits without bias (B, 1008)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, kernel_size=3, stride=2)  # (B, 64, 73, 73)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, kernel_size=3, stride=2)  # (B, 192, 35, 35)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))  # (B, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)
        features = x.mean((2, 3))  # (B, 2048)
        return features, features @ self.fc.weight.T


def interpolation_matrix(size_in: int, size_out: int) -> Tensor:
    """(size_out, size_in) float32 weights of TensorFlow 1's bilinear resize along one axis.

    Output i reads position i * size_in / size_out, with no half-pixel shift, no antialias, clamped at the last pixel.
    """
    source = torch.arange(size_out, dtype=torch.float32) * (size_in / size_out)
    low = source.floor().long().clamp(max=size_in - 1)
    high = (low + 1).clamp(max=size_in - 1)
    weight = source - low
    matrix = torch.zeros(size_out, size_in)
    rows = torch.arange(size_out)
    matrix.index_put_((rows, low), 1.0 - weight, accumulate=True)
    matrix.index_put_((rows, high), weight, accumulate=True)
    return matrix


def preprocess(images: Tensor) -> Tensor:
    """Protocol ``tf1``: uint8 (B, 1 or 3, H, W) to float32 (B, 3, 299, 299) in [-1, 1)."""
    rows = interpolation_matrix(images.shape[2], INPUT_SIZE).to(images.device)
    columns = interpolation_matrix(images.shape[3], INPUT_SIZE).to(images.device)
    x = rows @ images.float() @ columns.T  # (B, C, 299, 299)
    return ((x - 128.0) / 128.0).expand(-1, 3, -1, -1)


class InceptionExtractor:
    """`InceptionV3` with loaded weights, under protocol ``tf1``."""

    name = "inception-v3"

    def __init__(self, network: InceptionV3, weights_sha256: str, device: str, batch_size: int) -> None:
        self._sha256 = weights_sha256
        self.notes: tuple[str, ...] = ()
        self._device = device
        self._batch_size = batch_size
        self._network = network.eval().requires_grad_(False).to(device)

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "weights_sha256": self._sha256,
            "protocol": PROTOCOL,
            "preprocessing": PREPROCESSING,
        }

    def extract(self, images: np.ndarray) -> Features:
        """(N, C, H, W) uint8 of any size, C = 1 (repeated) or 3, to pool3 features (N, 2048) and logits (N, 1008).

        Raises:
            DataError: another number of channels.
        """
        if images.ndim == 4 and images.shape[1] not in (1, 3):
            raise DataError(f"Extractor '{self.name}' takes images of 1 or 3 channels, got {images.shape[1]}.")
        return extract_in_batches(self._forward, images, self._device, self._batch_size)

    def _forward(self, images: Tensor) -> Outputs:
        return Outputs(*self._network(preprocess(images)))


def load_state(network: InceptionV3, path: Path) -> None:
    """Load a weights file into ``network``; counters of batch normalisation may be absent.

    Raises:
        DataError: not a file of tensors, or keys and shapes that do not fit (the first ones are named).
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        needed = {k for k in network.state_dict() if not k.endswith("num_batches_tracked")}
        given = {k for k in state if not k.endswith("num_batches_tracked")}
        if needed != given:
            missing, surplus = sorted(needed - given)[:3], sorted(given - needed)[:3]
            raise DataError(f"{path}: not the weights of InceptionV3 2015-12-05: missing {missing}, unknown {surplus}.")
        network.load_state_dict({k: state[k] for k in needed}, strict=False)
    except (RuntimeError, OSError, EOFError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise DataError(f"{path}: not the weights of InceptionV3 2015-12-05: {error}. Get them from {URL}.") from None


def weight_folders() -> list[Path]:
    """Where weights are looked for: the folder in GENBENCH_WEIGHTS, then genbench's cache."""
    given = os.environ.get("GENBENCH_WEIGHTS")
    cache = Path(user_cache_dir("genbench")) / "weights"
    return [Path(given), cache] if given else [cache]


@dataclass(frozen=True)
class InceptionSource:
    """The InceptionV3 weights file, in the first folder that has it; its hash must be the pinned one."""

    name: str = InceptionExtractor.name
    sha256: str = SHA256

    def locate(self) -> Path:
        """The weights file, with its hash checked.

        Raises:
            DataError: no such file (says from where and where to), or another hash.
        """
        folders = weight_folders()
        for folder in folders:
            for path in (folder / name for name in FILE_NAMES):
                if not path.is_file():
                    continue
                found = hash_file(path)
                if found != self.sha256:
                    raise DataError(f"{path}: SHA-256 is {found}, expected {self.sha256}. Get it again from {URL}.")
                return path
        raise DataError(
            f"The weights of '{self.name}' are missing: download {URL} and put {FILE_NAME} into {folders[0]} "
            "(or name its folder in the variable GENBENCH_WEIGHTS). Packaged extractors work without a download."
        )

    def load(self, options: ExtractorOptions) -> InceptionExtractor:
        """Build the network with the weights that `locate` finds.

        Raises:
            DataError: weights that are missing, or not those expected.
        """
        path = self.locate()
        network = InceptionV3()
        load_state(network, path)
        return InceptionExtractor(network, self.sha256, options.device, options.batch_size)

    def status(self) -> ExtractorStatus:
        """Look for the file and check its hash."""
        try:
            path = self.locate()
        except DataError as error:
            return ExtractorStatus(self.name, False, str(error))
        return ExtractorStatus(self.name, True, f"{path}, SHA-256 {self.sha256[:12]}")


INCEPTION_V3 = InceptionSource()
