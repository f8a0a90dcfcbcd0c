"""How images reach InceptionV3: the preprocessing of each tool that people quote numbers from, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from genbench.errors import unknown
from genbench.features.inception_network import INPUT_SIZE
from genbench.features.resize import (
    Kernel,
    pillow_bicubic,
    resize,
    tensorflow_bilinear,
    torch_bilinear,
    torch_bilinear_antialias,
)


def _centred(pixels: Tensor) -> Tensor:
    return (pixels.float() - 128.0) / 128.0


def _symmetric(pixels: Tensor) -> Tensor:
    return 2.0 * (pixels.float() / 255.0) - 1.0


@dataclass(frozen=True)
class Preprocessing:
    """A resize to 299 x 299 and a scaling. bounds: the result is clipped to them, None where it cannot leave them."""

    name: str
    summary: str
    kernel: Kernel
    scaling: Callable[[Tensor], Tensor]
    bounds: tuple[float, float] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (B, 1 or 3, H, W), H and W >= 1, to float32 (B, 3, 299, 299) in [-1, 1]; one channel is repeated."""
        x = resize(images, self.kernel, INPUT_SIZE, self.scaling)
        if self.bounds is not None:
            x = x.clamp_(*self.bounds)
        return x.expand(-1, 3, -1, -1)


PREPROCESSINGS = {
    p.name: p
    for p in (
        Preprocessing(
            "tf1",
            "TensorFlow 1 bilinear to 299 (src = i in / out), (x - 128) / 128",
            tensorflow_bilinear,
            _centred,
        ),
        Preprocessing(
            "pytorch-fid",
            "torch bilinear to 299 without antialias, 2 (x / 255) - 1",
            torch_bilinear,
            _symmetric,
        ),
        Preprocessing(
            "clean",
            "Pillow bicubic of float channels to 299, clipped to 0..255, (x - 128) / 128",
            pillow_bicubic,
            _centred,
            bounds=(-1.0, 127.0 / 128.0),
        ),
        Preprocessing(
            "torchmetrics",
            "torch bilinear to 299 with antialias, (x - 128) / 128",
            torch_bilinear_antialias,
            _centred,
        ),
    )
}


def load_preprocessing(name: str) -> Preprocessing:
    """A preprocessing by name.

    Raises:
        UsageError: unknown name.
    """
    if name not in PREPROCESSINGS:
        raise unknown("preprocessing", name, PREPROCESSINGS)
    return PREPROCESSINGS[name]
