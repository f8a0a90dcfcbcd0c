"""From a dataset's specification to its splits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from genbench.data.base import Splits
from genbench.data.binarised import load_mnist_binary_splits, read_amat, read_binarised_mnist
from genbench.data.npz import read_npz
from genbench.data.parquet import read_parquet
from genbench.data.split import RawDataset, complete, shuffled, to_splits, with_levels
from genbench.data.standard import (
    found_on_disk,
    load_cifar10_splits,
    load_digits_splits,
    load_mnist_splits,
    read_cifar10,
    read_mnist,
)
from genbench.data.tree import read_folder, read_zip
from genbench.errors import DataError, UsageError, unknown
from genbench.files import cache_folder

DATA_ROOT_VARIABLE = "GENBENCH_DATA_ROOT"
LEVELS_MARK = "?levels="
NAMED = ("digits", "mnist", "mnist-binary", "cifar10")
READERS: dict[str, Callable[[Path], RawDataset]] = {
    "folder": read_folder,
    "zip": read_zip,
    "npz": read_npz,
    "parquet": read_parquet,
    "amat": read_amat,
}


def data_cache() -> Path:
    """The user's folder for downloaded datasets."""
    return cache_folder() / "data"


def load_dataset(spec: str, *, data_root: Path | None = None, split_seed: int = 0) -> Splits:
    """Load a dataset.

    Args:
        spec: ``digits``, ``mnist``, ``mnist-binary``, ``cifar10``, or ``folder:DIR``, ``zip:FILE``, ``npz:FILE``,
            ``parquet:DIR|FILE``, ``amat:DIR`` (binarised MNIST as published with NADE); any of these with ``?levels=K``
            at the end, for images whose values are round(255 k / (K - 1)), k = 0..K-1 (0 and 255 for ``?levels=2``).
        data_root: where the named sets are looked for first, before the variable ``GENBENCH_DATA_ROOT`` and the user's
            cache; what is nowhere is downloaded into that cache.
        split_seed: seed of the order of a user's images, and of the splits (a tenth of the training images each) that
            the files leave out. The named sets always have the same splits.

    Returns:
        The splits. A user's dataset is named after the last part of its path, without the suffix, and has 256 levels
        (2 for ``amat``) where the specification does not say otherwise.

    Raises:
        UsageError: unknown specification. DataError: missing, unreadable or inconsistent files; the message names them.
    """
    kind, colon, place = spec.partition(":")
    if not colon and kind in NAMED:
        return _load_named(kind, data_root)
    if kind in READERS and place:
        place, levels = _levels_of(spec, place)
        path = Path(place).expanduser()
        if not path.exists():
            raise DataError(f"Dataset '{spec}': no such file or folder: {path}.")
        read = READERS[kind](path)
        raw = complete(read if levels is None else with_levels(read, levels), split_seed)
        name = path.resolve().name if path.is_dir() else path.stem
        return to_splits(name, shuffled(raw, split_seed))
    forms = [f"{reader}:PATH" for reader in READERS]
    if Path(spec).expanduser().exists():
        guess = {".zip": "zip", ".npz": "npz", ".parquet": "parquet"}.get(Path(spec).suffix.lower(), "folder")
        raise DataError(f"Dataset '{spec}' is a path: say how to read it, e.g. '{guess}:{spec}' ({', '.join(forms)}).")
    raise unknown("dataset", spec, [*NAMED, *forms])


def _levels_of(spec: str, place: str) -> tuple[str, int | None]:
    """The path and K of ``PATH?levels=K``; the path and None without it."""
    path, mark, text = place.rpartition(LEVELS_MARK)
    if not mark:
        return place, None
    if not text.isdecimal() or not 2 <= int(text) <= 256:
        raise UsageError(f"Dataset '{spec}': levels must be a whole number in 2..256, got '{text}'.")
    return path, int(text)


_LOADERS: dict[str, Callable[[list[Path], Path], Splits]] = {
    "mnist": load_mnist_splits,
    "mnist-binary": load_mnist_binary_splits,
    "cifar10": load_cifar10_splits,
}
_PUBLISHED: dict[str, Callable[[list[Path], Path], RawDataset]] = {
    "mnist": read_mnist,
    "mnist-binary": read_binarised_mnist,
    "cifar10": read_cifar10,
}


def _load_named(name: str, data_root: Path | None) -> Splits:
    if name == "digits":
        return load_digits_splits()
    return _LOADERS[name](_roots(data_root), data_cache())


def read_published(name: str, data_root: Path | None = None) -> RawDataset | None:
    """A named set as it is published, its training part whole and in order; None where it has no splits of its own.

    Raises:
        DataError: missing or damaged files, or a download that failed.
    """
    if name == "digits":
        return None
    return _PUBLISHED[name](_roots(data_root), data_cache())


def _roots(data_root: Path | None) -> list[Path]:
    variable = os.environ.get(DATA_ROOT_VARIABLE)
    return [Path(root).expanduser() for root in (data_root, variable) if root]


def dataset_status(spec: str) -> tuple[bool, str]:
    """Whether a dataset is at hand without a download, and where it is or what to do; nothing is read."""
    kind, _, place = spec.partition(":")
    if place:
        there = Path(place).expanduser().exists()
        return there, place if there else f"{place} is missing"
    if kind == "digits":
        return True, "comes with scikit-learn"
    roots = [Path(root).expanduser() for root in (os.environ.get(DATA_ROOT_VARIABLE), data_cache()) if root]
    found = found_on_disk(kind.removesuffix("-binary"), roots)
    if found is not None:
        return True, str(found)
    return False, f"{kind} will be downloaded on first use, or put it under {DATA_ROOT_VARIABLE} (or --data-root)"
