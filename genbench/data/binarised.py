"""Statically binarised MNIST: one seeded Bernoulli draw of every pixel, the same on every machine.

Pixel x in 0..255 becomes 1 with probability x / 255 (Salakhutdinov and Murray, "On the quantitative analysis of deep
belief networks", ICML 2008); nothing is thresholded. The draw is genbench's own. It is not the file that Larochelle and
Murray published with NADE (AISTATS 2011), which is another draw with another split; `read_amat` reads theirs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from genbench.data.base import SplitName, Splits
from genbench.data.split import SPLIT_NAMES, Part, RawDataset, complete, to_splits
from genbench.data.standard import SPLIT_SEED, read_mnist
from genbench.errors import DataError
from genbench.files import hash_array

BINARISATION_SEED = 0
STATIC_SHA256: dict[SplitName, str] = {
    "train": "3f5ec35337c3762d0e88fa9da396fd8b1614c3e9c402be0bb96defff3d0db571",
    "test": "739b8512881a222d3a4f5b792abba32687fa1ca508c2fb5c38a5344f4aa12b2d",
}
"""`genbench.files.hash_array` of the published training (60 000) and test (10 000) images after the draw."""

AMAT_FILES: dict[SplitName, str] = {
    "train": "binarized_mnist_train.amat",
    "validation": "binarized_mnist_valid.amat",
    "test": "binarized_mnist_test.amat",
}
_SIDE = 28
_SPACES = np.frombuffer(b" \t\r\n", np.uint8)


def binarise(images: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """uint8 grey images to 0 or 255: 255 with probability x / 255, exactly, as u < x for u uniform on 0..254."""
    drawn = rng.randint(0, 255, images.shape, dtype=np.uint8)
    return np.where(drawn < images, np.uint8(255), np.uint8(0))


def read_binarised_mnist(roots: list[Path], cache: Path) -> RawDataset:
    """MNIST as published (60k / 10k, in order), binarised. Arguments and errors as of `read_mnist`."""
    return _binarised(read_mnist(roots, cache))


def _binarised(raw: RawDataset) -> RawDataset:
    rng = np.random.RandomState(BINARISATION_SEED)
    order: tuple[SplitName, ...] = ("train", "test")
    parts = {name: Part(binarise(raw.parts[name].images, rng), raw.parts[name].labels) for name in order}
    return replace(raw, parts=parts, levels=2)


def load_mnist_binary_splits(roots: list[Path], cache: Path) -> Splits:
    """Binarised MNIST, 50k / 10k / 10k images of 1 x 28 x 28 and 2 levels, split as `mnist` is.

    The training split keeps its grey values as `intensities`, for models that redraw them (dynamic binarisation).
    Arguments and errors as of `read_mnist`.

    Raises:
        DataError: the images found are not MNIST as published, in its order: their draw would be other data.
    """
    grey = read_mnist(roots, cache)
    drawn = _binarised(grey)
    check_static_draw(drawn)
    binary = to_splits("mnist-binary", complete(drawn, SPLIT_SEED, {"validation": 10_000}))
    intensities = complete(grey, SPLIT_SEED, {"validation": 10_000}).parts["train"].images
    return replace(binary, train=replace(binary.train, intensities=intensities))


def check_static_draw(drawn: RawDataset) -> None:
    """Compare binarised images, as published and in order, with `STATIC_SHA256`.

    Raises:
        DataError: they differ.
    """
    for name, expected in STATIC_SHA256.items():
        found = hash_array(drawn.parts[name].images)
        if found != expected:
            raise DataError(
                f"mnist-binary: the binarised {name} images have SHA-256 {found[:12]}..., expected {expected[:12]}... "
                f"The MNIST files found ({drawn.origin}) do not hold the published images in their order; put the "
                "original files there, or name other binary images with --dataset (npz:FILE?levels=2)."
            )


def read_amat(folder: Path) -> RawDataset:
    """Larochelle and Murray's binarised MNIST: three text files of one image a line, 784 values 0 or 1.

    Raises:
        DataError: a file is missing, holds anything else, or has no whole images; the message names it.
    """
    parts = {name: Part(_read_amat_file(folder / AMAT_FILES[name]), None) for name in SPLIT_NAMES}
    return RawDataset(str(folder), parts, levels=2)


def _read_amat_file(path: Path) -> np.ndarray:
    """(N, 1, 28, 28) uint8, 0 or 255."""
    if not path.is_file():
        wanted = ", ".join(AMAT_FILES.values())
        raise DataError(f"{path}: no such file. A folder of binarised MNIST holds {wanted}.")
    text = np.frombuffer(path.read_bytes(), np.uint8)
    values = text[~np.isin(text, _SPACES)]
    separated = bool(np.isin(text[1::2], _SPACES).all())
    if not len(values) or not separated or not np.isin(values, np.frombuffer(b"01", np.uint8)).all():
        raise DataError(f"{path}: expected lines of the values 0 and 1 with one space between. Fetch the file again.")
    if len(values) % _SIDE**2:
        raise DataError(
            f"{path}: {len(values)} values are no whole number of {_SIDE} x {_SIDE} images; it is truncated. "
            "Fetch the file again."
        )
    return ((values - ord("0")) * np.uint8(255)).reshape(-1, 1, _SIDE, _SIDE)
