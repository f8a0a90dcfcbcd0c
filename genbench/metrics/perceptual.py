"""LPIPS v0.1, learned perceptual image patch similarity (Zhang et al. 2018, eq. 1).

    d(x, y) = sum_l 1 / (H_l W_l) sum_{h, w} sum_c w_lc (f_lchw(x) - f_lchw(y))^2

f_l are the activations after the five stages of a classifier trained on ImageNet, each divided by its norm over the
channels at its pixel, and w_l >= 0 the linear weights fitted to human judgements. Images enter in [-1, 1], less a shift
and over a scale for each colour; 0..255 is mapped here, so that the usual mistake of feeding [0, 1] cannot be made (in
the ``lpips`` package and torchmetrics ``normalize=True`` says that values are in [0, 1]; without it [-1, 1] is meant).
Equals the ``lpips`` package; torchmetrics adds 1e-8 to the squared norm, not 1e-10 to the norm, which shows where all
activations of a pixel are small. Images are not resized.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from genbench.errors import DataError
from genbench.metrics.base import Estimate, MetricInputs, NotApplicable, PairMetric
from genbench.metrics.estimates import pair_estimate
from genbench.metrics.options import require_choice
from genbench.metrics.statistics import blocks
from genbench.weights import LocatedWeights, locate
from genbench.weights.tensors import load_into, read_tensors

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
_NORM_OFFSET = 1e-10
_BATCH_PIXELS = 1 << 18


@dataclass(frozen=True)
class Backbone:
    """A classifier of torchvision under LPIPS.

    model: its name there. weights, heads: names of weights files. stages: where each stage ends in ``features``.
    channels: of each stage. smallest_side: of images that all its pools fit, in pixels.
    """

    model: str
    weights: str
    heads: str
    stages: tuple[int, ...]
    channels: tuple[int, ...]
    smallest_side: int


BACKBONES: Mapping[str, Backbone] = {
    "alex": Backbone(
        "alexnet",
        "alexnet-imagenet",
        "lpips-alex",
        stages=(2, 5, 8, 10, 12),
        channels=(64, 192, 384, 256, 256),
        smallest_side=31,
    ),
    "vgg": Backbone(
        "vgg16",
        "vgg16-imagenet",
        "lpips-vgg",
        stages=(4, 9, 16, 23, 30),
        channels=(64, 128, 256, 512, 512),
        smallest_side=16,
    ),
}


class _Head(nn.Module):
    """The linear weights of one stage, under the names of the published files."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        weighted: Tensor = self.model(x)
        return weighted


class PerceptualNetwork(nn.Module):
    """LPIPS with loaded weights.

    Args:
        net: "alex" or "vgg".
        weights: torchvision's state dict of the classifier. heads: the linear weights.

    Raises:
        DataError: an unreadable file, or one whose keys or shapes do not fit.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: str, weights: Path, heads: Path) -> None:
        super().__init__()
        backbone = BACKBONES[net]
        with torch.device("meta"):
            features = getattr(torchvision.models, backbone.model)(weights=None).features
        features.to_empty(device="cpu")
        prefix = "features."
        tensors = {k.removeprefix(prefix): v for k, v in read_tensors(weights).items() if k.startswith(prefix)}
        load_into(features, tensors, weights, f"torchvision's {backbone.model}")
        starts = (0, *backbone.stages)
        self.stages = nn.ModuleList(features[a:b] for a, b in zip(starts, backbone.stages))
        self.heads = nn.ModuleDict({f"lin{i}": _Head(channels) for i, channels in enumerate(backbone.channels)})
        load_into(self.heads, read_tensors(heads), heads, f"LPIPS v0.1 on {backbone.model}")
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(B,) distances of pairs of uint8 images (B, 1 or 3, H, W); one channel stands for three equal ones."""
        levels = torch.cat([x, y]).expand(-1, 3, -1, -1)  # (2 B, 3, H, W)
        activations = (levels.float() / 127.5 - 1.0 - self.shift) / self.scale
        distance = torch.zeros(len(x), device=x.device)
        for stage, head in zip(self.stages, self.heads.values()):
            activations = stage(activations)
            unit_x, unit_y = _unit(activations).chunk(2)  # (B, C, h, w) each
            distance += head((unit_x - unit_y).square()).mean((1, 2, 3))
        return distance


def _unit(activations: Tensor) -> Tensor:
    """Activations (B, C, h, w) over their norm along the channels."""
    return activations / (activations.square().sum(1, keepdim=True).sqrt() + _NORM_OFFSET)


@contextmanager
def _full_precision() -> Iterator[None]:
    """No gradients, and float32 convolutions that an accelerator does not round to TF32."""
    cudnn = torch.backends.cudnn
    with torch.inference_mode(), cudnn.flags(cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@dataclass(eq=False)
class PerceptualSimilarity(PairMetric):
    """LPIPS between the images of a pair; 0 where they are equal.

    Greyscale images enter as three equal channels. Weights are located and read when the first pair comes.
    """

    net: str = "alex"

    name = "lpips"
    higher_is_better = False
    summary = "learned perceptual image patch similarity of image pairs (LPIPS v0.1)"

    def __post_init__(self) -> None:
        require_choice(self.name, "net", self.net, tuple(BACKBONES))
        self._device = "cpu"
        self._located: tuple[LocatedWeights, LocatedWeights] | None = None
        self._network: PerceptualNetwork | None = None

    def use_device(self, device: str) -> None:
        self._device = device
        if self._network is not None:
            self._network.to(device)

    def weights(self) -> tuple[LocatedWeights, LocatedWeights]:
        """The checked files of the classifier and of the linear weights, looked for once.

        Raises:
            DataError: missing or damaged; says of each which file to put where.
        """
        if self._located is None:
            backbone, found, problems = BACKBONES[self.net], list[LocatedWeights](), list[str]()
            for name in (backbone.weights, backbone.heads):
                try:
                    found.append(locate(name, packaged=False))
                except DataError as problem:
                    problems.append(str(problem))
            if problems:
                raise DataError(" ".join(problems))
            self._located = found[0], found[1]
        return self._located

    def score_pairs(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(B,) LPIPS.

        Raises:
            NotApplicable: images that are too small for the network, or neither greyscale nor colour.
            DataError: weights that are missing or do not fit, or unlike shapes.
        """
        if x.shape != y.shape:
            raise DataError(f"LPIPS compares images one to one, got {x.shape} and {y.shape}.")
        self._require_fit(*x.shape[1:])
        if self._network is None:
            weights, heads = self.weights()
            self._network = PerceptualNetwork(self.net, weights.path, heads.path).to(self._device)
        scores = []
        with _full_precision():
            for part in blocks(len(x), max(1, _BATCH_PIXELS // (x.shape[2] * x.shape[3]))):
                pair = (torch.from_numpy(np.ascontiguousarray(side[part])).to(self._device) for side in (x, y))
                scores.append(self._network(*pair).cpu().double().numpy())
        return np.concatenate(scores)

    def _require_fit(self, channels: int, height: int, width: int) -> None:
        smallest = BACKBONES[self.net].smallest_side
        if min(height, width) < smallest:
            other = next((n for n, b in BACKBONES.items() if b.smallest_side <= min(height, width)), None)
            raise NotApplicable(
                f"LPIPS on {BACKBONES[self.net].model} needs sides of at least {smallest} pixels, the images have "
                f"{height} x {width}" + (f"; set the option net = {other}" if other else "")
            )
        if channels not in (1, 3):
            raise NotApplicable(f"LPIPS is defined on images of 1 or 3 channels, got {channels}")

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate: the mean over images. The hashes of both weights files are among its conditions.

        Raises:
            NotApplicable: there are no pairs, or the images do not fit the network.
            DataError: weights that are missing or do not fit.
        """
        values = self.scores(inputs)
        weights, heads = self.weights()
        return [
            pair_estimate(
                values,
                bounds=(0.0, np.inf),
                notes=tuple(located.note for located in (weights, heads) if located.note),
                conditions={
                    "protocol": "lpips-v0.1",
                    "weights_sha256": weights.sha256,
                    "heads_sha256": heads.sha256,
                },
            )
        ]
