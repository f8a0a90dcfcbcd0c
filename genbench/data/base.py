"""The values that datasets become: images with labels, and the three splits of a dataset."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from genbench.api import Batch, ImageSpec, TrainingData
from genbench.files import hash_array, hash_value

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class ImageDataset:
    """One split. images: (N, C, H, W) uint8 on the levels of ``spec``; labels: (N,) int64 or None."""

    name: str
    split: SplitName
    images: np.ndarray
    labels: np.ndarray | None
    spec: ImageSpec
    intensities: np.ndarray | None = field(default=None, repr=False)
    """(N, C, H, W) uint8 grey values that binary images were drawn from, where there are such."""
    known_fingerprint: str | None = field(default=None, repr=False)
    """The fingerprint as stored beside the arrays; None computes it from them."""

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over images, labels, levels and class names; name, place and intensities do not count."""
        if self.known_fingerprint is not None:
            return self.known_fingerprint
        labels = None if self.labels is None else hash_array(self.labels)
        return hash_value([hash_array(self.images), labels, self.spec.levels, list(self.spec.class_names)])

    def batch(self, index: np.ndarray | None = None) -> Batch:
        """The images at ``index`` (all of them by default) as a CPU `Batch`."""
        chosen = np.arange(len(self)) if index is None else index
        return Batch(
            images=torch.from_numpy(np.ascontiguousarray(self.images[chosen])),
            index=torch.from_numpy(np.asarray(chosen, dtype=np.int64)),
            labels=None if self.labels is None else torch.from_numpy(np.ascontiguousarray(self.labels[chosen])),
        )


@dataclass(frozen=True)
class Splits:
    """A dataset's train, validation and test split, with one spec."""

    name: str
    train: ImageDataset
    validation: ImageDataset
    test: ImageDataset

    @property
    def spec(self) -> ImageSpec:
        return self.train.spec

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the three splits' fingerprints."""
        return hash_value([self.train.fingerprint, self.validation.fingerprint, self.test.fingerprint])

    def training_data(self) -> TrainingData:
        """What a model may learn from."""
        grey = self.train.intensities
        intensities = None if grey is None else torch.tensor(grey)
        return TrainingData(self.train.batch(), self.validation.batch(), self.spec, intensities)
