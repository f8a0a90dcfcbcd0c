"""Named datasets: ``cifar10:train``, ``mnist:test``, ``digits:train``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genbench.data.decode import Decoded
from genbench.data.load import NAMED, load_dataset, read_published
from genbench.errors import UsageError, unknown
from genbench.files import hash_array, hash_value
from genbench.sources.base import ImageSource, Observations, OnError, SourceImage
from genbench.sources.decoding import check_on_error, observe

SPLITS = ("train", "test", "suite-train", "suite-validation")


class DatasetSplitSource(ImageSource):
    """One split of a dataset. images: (N, C, H, W) uint8. labels: (N,) or None."""

    kind = "dataset"

    def __init__(
        self, name: str, images: np.ndarray, labels: np.ndarray | None, class_names: tuple[str, ...], known: str | None
    ) -> None:
        self.name = name
        self._images, self._labels, self._known = images, labels, known
        self.length = len(images)
        self.class_names = class_names

    def images(self, on_error: OnError = "fail", seen: Observations | None = None) -> Iterator[SourceImage]:
        """Read all images, see `ImageSource.images`."""
        check_on_error(on_error)
        seen = Observations() if seen is None else seen
        for index, pixels in enumerate(self._images):
            observe(seen, Decoded(pixels, "array"))
            label = None if self._labels is None else int(self._labels[index])
            yield SourceImage(pixels, f"image {index}", label, None, index)

    def fingerprint(self, *, verify: bool = False) -> str:  # noqa: ARG002 - read whole in any case
        """Of a suite's split as in its records; else over the images."""
        return self._known or hash_value(["images", hash_array(self._images)])


def open_named(spec: str, data_root: Path | None = None) -> DatasetSplitSource:
    """A named dataset's split.

    ``train`` and ``test`` are the published sets, whole and in their order (CIFAR-10: 50 000 and 10 000).
    ``suite-train`` and ``suite-validation`` are what suites make of the training set (45 000 and 5000). Digits has no
    published splits: there ``train`` is the suite's.

    Raises:
        UsageError: unknown dataset or split, or none given. DataError: the dataset is not at hand.
    """
    name, _, split = spec.partition(":")
    if name not in NAMED:
        raise unknown("dataset", name, NAMED)
    if not split:
        raise UsageError(f"'{name}' has several splits. Say which: {', '.join(f'{name}:{s}' for s in SPLITS)}.")
    if split not in SPLITS:
        raise unknown(f"split of {name}", split, SPLITS)
    published = read_published(name, data_root) if split in ("train", "test") else None
    if published is not None:
        part = published.parts["train" if split == "train" else "test"]
        return DatasetSplitSource(spec, part.images, part.labels, published.class_names, None)
    splits = load_dataset(name, data_root=data_root)
    found = {"test": splits.test, "suite-validation": splits.validation}.get(split, splits.train)
    return DatasetSplitSource(spec, found.images, found.labels, found.spec.class_names, found.fingerprint)
