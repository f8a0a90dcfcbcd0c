"""InceptionV3 of 2015-12-05 as a network: TensorFlow's graph as ported to PyTorch (Szegedy et al. 2016).

It differs from torchvision's InceptionV3: average pools of the A, C and E blocks leave padding out of the mean, the
pool of the last E block is a maximum, and there are 1008 classes. Names of parts are those of the weights file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception as tv

from genbench.errors import DataError
from genbench.features.base import Outputs
from genbench.weights.tensors import load_into, read_tensors

NUM_CLASSES = 1008
INPUT_SIZE = 299
TAPS = (64, 192, 768, 2048)
SPATIAL_CHANNELS = 7
BEFORE_SPATIAL = "Mixed_6c"


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
    """The network; batch normalisation has eps = 1e-3 until `fold` makes it part of the convolutions."""

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

    def forward(self, x: Tensor, tap: int = 2048, spatial: bool = False) -> Outputs:
        """(B, 3, 299, 299) float in [-1, 1] to float32 features (B, tap), global averages after a stage.

        Logits (B, 1008), without the bias, come with tap 2048 alone. Spatial features (B, 17 * 17 * 7), pixel by pixel,
        are the first channels of ``mixed_6/conv`` (here Mixed_6d.branch1x1), those of guided-diffusion's evaluator. The
        pass ends where all that was asked for is there.
        """
        stages = (
            ("64", self._stem),
            ("192", self._second),
            (BEFORE_SPATIAL, self._third),
            ("768", self._fourth),
            ("2048", self._last),
        )
        needed = {str(tap), BEFORE_SPATIAL} if spatial else {str(tap)}
        kept: dict[str, Tensor] = {}
        for name, stage in stages:
            x = stage(x)
            if name in needed:
                kept[name] = x
            if len(kept) == len(needed):
                break
        features = kept[str(tap)].float().mean((2, 3))  # (B, tap)
        logits = features @ self.fc.weight.T if tap == 2048 else None
        return Outputs(features, logits, self._spatial(kept[BEFORE_SPATIAL]) if spatial else None)

    def _stem(self, x: Tensor) -> Tensor:
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        return F.max_pool2d(x, kernel_size=3, stride=2)  # (B, 64, 73, 73)

    def _second(self, x: Tensor) -> Tensor:
        return F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), kernel_size=3, stride=2)  # (B, 192, 35, 35)

    def _third(self, x: Tensor) -> Tensor:
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (B, 288, 35, 35)
        return self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))  # (B, 768, 17, 17)

    def _fourth(self, x: Tensor) -> Tensor:
        return self.Mixed_6e(self.Mixed_6d(x))  # (B, 768, 17, 17)

    def _last(self, x: Tensor) -> Tensor:
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (B, 2048, 8, 8)

    def _spatial(self, x: Tensor) -> Tensor:
        x = self.Mixed_6d.branch1x1(x)[:, :SPATIAL_CHANNELS]  # (B, 7, 17, 17)
        return x.permute(0, 2, 3, 1).flatten(1).float()  # (B, 2023)


class ConvReLU(nn.Conv2d):
    """relu(conv(x) + bias)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x), inplace=True)


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.float(), requires_grad=False)


def _folded(block: tv.BasicConv2d) -> ConvReLU:
    conv, norm = block.conv, block.bn
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shape = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding)
    folded = ConvReLU(*shape, device="meta")
    folded.weight = _constant(conv.weight.double() * scale[:, None, None, None])
    folded.bias = _constant(norm.bias.double() - norm.running_mean.double() * scale)
    return folded


def fold(network: InceptionV3) -> InceptionV3:
    """Make the batch normalisations part of the convolutions before them, in place; folded in float64."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, tv.BasicConv2d):
                setattr(module, name, _folded(child))
    return network


def load_network(path: Path) -> InceptionV3:
    """The network with the weights of a file, folded, in evaluation mode.

    Raises:
        DataError: not a file of tensors, keys and shapes that do not fit (the first ones are named), or values that are
            not finite.
    """
    with torch.device("meta"):
        network = InceptionV3()
    network.to_empty(device="cpu").eval().requires_grad_(False)
    load_into(network, read_tensors(path), path, "InceptionV3 2015-12-05")
    fold(network)
    for name, value in network.named_parameters():
        if not value.isfinite().all():
            raise DataError(f"{path}: {name.rpartition('.')[0]} holds NaN, infinity or a negative variance.")
    return network
