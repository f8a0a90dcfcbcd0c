"""Any classifier of torchvision: features are the input of its last linear layer, and its logits come along.

``torchvision:NAME[/WEIGHTS][@tf1]``: ``torchvision:resnet50``, ``torchvision:resnet50/IMAGENET1K_V2``. Weights are
IMAGENET1K_V1 where none are named. Images reach the network as the weights' own transforms say (Pillow resize of the
shorter side, centre crop); ``@tf1`` stretches them with TensorFlow 1's bilinear resize instead.
``torchvision:vgg16@tf1`` is torch-fidelity's VGG16 for precision and recall: the second fully connected layer after
its ReLU.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum
from torchvision.transforms import InterpolationMode

from genbench.errors import UsageError, unknown
from genbench.features.base import ExtractorOptions, ExtractorStatus, Outputs
from genbench.features.network import NetworkExtractor
from genbench.features.pillow_input import Filter, PillowInput, normalise
from genbench.features.precision import check_precision
from genbench.features.resize import resize, tensorflow_bilinear
from genbench.weights import LocatedWeights, WeightsEntry, by_url, locate
from genbench.weights.tensors import load_into, read_tensors

DEFAULT_WEIGHTS = "IMAGENET1K_V1"
_FILTERS: dict[InterpolationMode, Filter] = {
    InterpolationMode.BILINEAR: "bilinear",
    InterpolationMode.BICUBIC: "bicubic",
}
_PRETRAINED_ARGUMENTS = {
    "googlenet": {"transform_input": True, "aux_logits": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "aux_logits": True, "init_weights": False},
}
"""Arguments that torchvision's own builders set when they load weights."""


@dataclass(frozen=True)
class StretchedInput:
    """TensorFlow 1's bilinear resize to a square, then mean and standard deviation of the channels."""

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) uint8 to (B, 3, side, side) float32."""
        x = resize(images, tensorflow_bilinear, self.side, lambda pixels: pixels.float() / 255.0)
        return normalise(x, self.mean, self.std)

    def describe(self) -> str:
        """What ``comparable`` says of it."""
        resize = f"tf1: bilinear to {self.side} with src = i in / out"
        return f"{resize}, mean {list(self.mean)}, std {list(self.std)}"


class TorchvisionExtractor(NetworkExtractor):
    """A torchvision classifier with loaded weights."""

    def __init__(
        self,
        name: str,
        network: nn.Module,
        prepare: PillowInput | StretchedInput,
        weights: LocatedWeights,
        options: ExtractorOptions,
    ) -> None:
        super().__init__(name, weights.sha256, prepare.describe(), options, weights.note, prepare.side)
        self._prepare = prepare
        self._network = network.eval().requires_grad_(False).to(options.device)
        self._taken: list[Tensor] = []
        last_linear(network, name).register_forward_pre_hook(lambda _, inputs: self._taken.append(inputs[0]))

    def forward(self, images: Tensor) -> Outputs:
        """The input of the last linear layer, and class logits."""
        self._taken.clear()
        logits = self._network(self._prepare(images))
        return Outputs(self._taken.pop().flatten(1), logits)


@dataclass(frozen=True)
class TorchvisionSource:
    """``torchvision:NAME[/WEIGHTS][@tf1]``."""

    name: str = "torchvision"

    def load(self, options: ExtractorOptions) -> TorchvisionExtractor:
        """Build the network with the store's weights, or those of ``options.weights``.

        Raises:
            UsageError: unknown model, weights or way of resizing; a model that ends in no linear layer.
            DataError: weights that are missing, damaged, or of another shape.
        """
        check_precision(options.precision, options.device)
        architecture, chosen, stretched = _parse(options.argument)
        prepare = _input(chosen, stretched)
        weights = locate(_entry(architecture, chosen), options.weights)
        network = torchvision.models.get_model(
            architecture, weights=None, num_classes=len(chosen.meta["categories"]), **_arguments(architecture)
        )
        last_linear(network, architecture)
        tensors = read_tensors(weights.path)
        if architecture.startswith("densenet"):
            tensors = {_renamed(key): value for key, value in tensors.items()}
        load_into(network, tensors, weights.path, f"torchvision's {architecture} ({chosen.name})")
        name = f"{self.name}:{architecture}/{chosen.name}{'@tf1' if stretched else ''}"
        return TorchvisionExtractor(name, network, prepare, weights, options)

    def status(self) -> ExtractorStatus:
        """Always there; weights are a matter of the model."""
        return ExtractorStatus(
            self.name, True, "name a model (torchvision:resnet50); its weights are fetched on first use"
        )


def last_linear(network: nn.Module, name: str) -> nn.Linear:
    """The layer whose input is the feature.

    Raises:
        UsageError: a network that has none.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not layers:
        raise UsageError(f"Model '{name}' ends in no linear layer, so it has no features to take. Choose another one.")
    return layers[-1]


def _parse(argument: str) -> tuple[str, WeightsEnum, bool]:
    rest, _, resize = argument.partition("@")
    name, _, asked = rest.partition("/")
    models = torchvision.models.list_models(module=torchvision.models)
    if name not in models:
        raise unknown("torchvision classifier", name, models)
    if resize not in ("", "tf1"):
        raise unknown("way of resizing", resize, ["tf1"])
    choices = {member.name: member for member in torchvision.models.get_model_weights(name)}
    wanted = asked or (DEFAULT_WEIGHTS if DEFAULT_WEIGHTS in choices else next(iter(choices)))
    if wanted not in choices:
        raise unknown(f"weights of torchvision's {name}", wanted, choices)
    return name, choices[wanted], resize == "tf1"


def _input(chosen: WeightsEnum, stretched: bool) -> PillowInput | StretchedInput:
    own = chosen.transforms()
    crop, mean, std = own.crop_size[0], tuple(own.mean), tuple(own.std)
    if stretched:
        return StretchedInput(crop, mean, std)
    return PillowInput("shorter side", own.resize_size[0], (crop, crop), _FILTERS[own.interpolation], mean, std)


def _entry(architecture: str, chosen: WeightsEnum) -> WeightsEntry:
    known = by_url(chosen.url)
    if known is not None:
        return known
    file = chosen.url.rsplit("/", 1)[1]
    prefix = re.search(r"-([0-9a-f]{8,64})\.", file)
    return WeightsEntry(
        name=f"torchvision-{architecture}-{chosen.name}",
        summary=f"{architecture}, torchvision's {chosen.name}",
        url=chosen.url,
        files=(file,),
        sha256_prefix=prefix[1] if prefix else None,
        licence="see torchvision's documentation",
        used_by=(f"torchvision:{architecture}",),
    )


def _arguments(architecture: str) -> dict[str, Any]:
    return _PRETRAINED_ARGUMENTS.get(architecture, {})


def _renamed(key: str) -> str:
    """Key of a published DenseNet file (``norm.1``) as the present code has it (``norm1``)."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)


TORCHVISION = TorchvisionSource()
