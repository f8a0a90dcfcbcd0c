"""The named datasets: scikit-learn's digits, MNIST and CIFAR-10. Their splits are fixed; they are the dataset."""

from __future__ import annotations

import contextlib
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genbench.data.base import Splits
from genbench.data.idx import read_idx
from genbench.data.split import Part, RawDataset, complete, to_splits
from genbench.errors import DataError
from genbench.images import from_levels

SPLIT_SEED = 0
_DIGIT_NAMES = tuple(str(k) for k in range(10))
_MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_CIFAR10_FOLDER = "cifar-10-batches-py"
_CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
_DOWNLOAD_TIMEOUT_SECONDS = 30.0


def load_digits_splits() -> Splits:
    """scikit-learn's 8 x 8 digits, 17 levels: 1300 / 200 / 297 images, stratified."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    levels = torch.from_numpy(bunch.images.astype(np.int64))
    images = from_levels(levels, 17).numpy()[:, None]
    raw = RawDataset("digits", {"train": Part(images, bunch.target.astype(np.int64))}, _DIGIT_NAMES, levels=17)
    return to_splits("digits", complete(raw, SPLIT_SEED, {"validation": 200, "test": 297}))


def load_mnist_splits(roots: list[Path], cache: Path) -> Splits:
    """MNIST: 50k / 10k / 10k images of 1 x 28 x 28; the validation split is carved from the training set.

    Arguments and errors as of `read_mnist`.
    """
    return to_splits("mnist", complete(read_mnist(roots, cache), SPLIT_SEED, {"validation": 10_000}))


def read_mnist(roots: list[Path], cache: Path) -> RawDataset:
    """MNIST as it is published: 60k training and 10k test images, in their order.

    Args:
        roots: folders to look in; ROOT, ROOT/mnist, each itself or with ``MNIST/raw`` below, plain or ``.gz``.
        cache: where a download goes, looked into last.

    Raises:
        DataError: a file is missing, truncated or corrupted, or the download failed.
    """
    folder = _find_mnist(roots)
    if folder is None:
        folder = _find_mnist([_downloaded("mnist", roots, cache)])
    if folder is None:
        raise DataError(f"{cache / 'mnist'}: the download of mnist is incomplete. Delete this folder and run again.")
    arrays = [read_idx(_present(folder, name)) for name in _MNIST_FILES]
    train = Part(arrays[0][:, None], arrays[1].astype(np.int64))
    test = Part(arrays[2][:, None], arrays[3].astype(np.int64))
    for part, name in ((train, "train"), (test, "t10k")):
        if part.labels is None or part.images.ndim != 4 or part.labels.shape != (len(part),):
            raise DataError(f"{folder}: the {name} images and labels do not belong together. Fetch the files again.")
    return RawDataset(str(folder), {"train": train, "test": test}, _DIGIT_NAMES)


def load_cifar10_splits(roots: list[Path], cache: Path) -> Splits:
    """CIFAR-10: 45k / 5k / 10k images of 3 x 32 x 32; the validation split is carved from the training set.

    Arguments and errors as of `read_cifar10`.
    """
    return to_splits("cifar10", complete(read_cifar10(roots, cache), SPLIT_SEED, {"validation": 5_000}))


def read_cifar10(roots: list[Path], cache: Path) -> RawDataset:
    """CIFAR-10 as it is published: 50k training and 10k test images, in their order.

    Args:
        roots: folders to look in; ROOT or ROOT/cifar10, each with ``cifar-10-batches-py`` or its ``.tar.gz``.
        cache: where a download goes, looked into last.

    Raises:
        DataError: files whose MD5 is not the official one, or the download failed.
    """
    found = _find_cifar10(roots)
    return _read_cifar10(found if found is not None else _downloaded("cifar10", roots, cache))


def _places(roots: list[Path], name: str) -> Iterator[Path]:
    for root in roots:
        yield root
        yield root / name


def _find_mnist(roots: list[Path]) -> Path | None:
    for place in _places(roots, "mnist"):
        for folder in (place / "MNIST" / "raw", place):
            if any(_candidates(folder, _MNIST_FILES[0])):
                return folder
    return None


def _candidates(folder: Path, name: str) -> list[Path]:
    return [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]


def _present(folder: Path, name: str) -> Path:
    candidates = _candidates(folder, name)
    if not candidates:
        raise DataError(f"{folder} has {_MNIST_FILES[0]} but neither {name} nor {name}.gz. Put it there.")
    return candidates[0]


def _find_cifar10(roots: list[Path]) -> Path | None:
    for place in _places(roots, "cifar10"):
        if (place / _CIFAR10_FOLDER).is_dir() or (place / _CIFAR10_ARCHIVE).is_file():
            return place
    return None


def _read_cifar10(place: Path) -> RawDataset:
    """Read CIFAR-10 through torchvision, which compares each file's MD5 before it opens it."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity, extract_archive

    with contextlib.ExitStack() as stack:
        root = place
        if not (place / _CIFAR10_FOLDER).is_dir():
            archive = place / _CIFAR10_ARCHIVE
            if not check_integrity(str(archive), CIFAR10.tgz_md5):
                raise DataError(f"{archive}: MD5 is not {CIFAR10.tgz_md5}; fetch it again from {CIFAR10.url}.")
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="genbench-cifar10-")))
            extract_archive(str(archive), str(root))
        try:
            train, test = CIFAR10(str(root), train=True), CIFAR10(str(root), train=False)
        except RuntimeError:
            raise DataError(
                f"{place / _CIFAR10_FOLDER}: a file is missing or its MD5 is not the official one. "
                f"Fetch {CIFAR10.url} again."
            ) from None
    parts = {
        split: Part(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)), np.asarray(data.targets, dtype=np.int64))
        for split, data in (("train", train), ("test", test))
    }
    return RawDataset(str(place), {"train": parts["train"], "test": parts["test"]}, tuple(train.classes))


def _sources(name: str) -> tuple[Callable[..., Any], str]:
    """The torchvision class that downloads a dataset, and how a user gets it by hand."""
    from torchvision.datasets import CIFAR10, MNIST

    if name == "mnist":
        files = ", ".join(f"{file}.gz" for file in _MNIST_FILES)
        return MNIST, f"Put {files} (from {MNIST.mirrors[0]}) into DIR/MNIST/raw"
    return CIFAR10, f"Put {_CIFAR10_ARCHIVE} (from {CIFAR10.url}) into DIR"


def _downloaded(name: str, roots: list[Path], cache: Path) -> Path:
    """The folder ``cache/name``, downloaded as a whole where it is not there yet."""
    from filelock import FileLock

    target = cache / name
    if target.is_dir():
        return target
    download, by_hand = _sources(name)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{name}.lock"), tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache) as temporary:
            if not target.is_dir():
                fetched = Path(temporary) / name
                with _socket_timeout(), contextlib.redirect_stdout(sys.stderr):
                    download(root=str(fetched), download=True)
                (fetched / _CIFAR10_ARCHIVE).unlink(missing_ok=True)
                fetched.replace(target)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())
        places = ", ".join(str(root) for root in roots)
        looked = f"looked in {places}" if places else "neither GENBENCH_DATA_ROOT nor --data-root names a folder"
        raise DataError(
            f"{name} was not found on this machine ({looked}) and could not be downloaded: {reason}. "
            f"{by_hand} and set GENBENCH_DATA_ROOT=DIR, or give --data-root DIR."
        ) from None
    return target


@contextlib.contextmanager
def _socket_timeout() -> Iterator[None]:
    """A limit on each wait for the network, so that a dead connection ends in an error."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def found_on_disk(name: str, roots: list[Path]) -> Path | None:
    """Where ``mnist`` or ``cifar10`` lies under ``roots``, or None; its files are not read."""
    return _find_mnist(roots) if name == "mnist" else _find_cifar10(roots)
