"""The interface of metrics: what they are given and what they return.

A metric is one file with one `Metric` subclass per name, found through the entry-point group ``genbench.metrics``.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from genbench.data.base import ImageDataset
from genbench.errors import DataError
from genbench.features.base import FeatureExtractor, Features
from genbench.files import read_npz, write_npz
from genbench.record import MetricKind

T = TypeVar("T")


class NotApplicable(Exception):  # noqa: N818
    """Raised by a metric that has no meaning for these inputs; the message is the reason shown to the user."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its 95 % interval.

    interval: how the interval was made ("influence function", "jackknife", "closed form", "normal over images", ...).
    per_image: (n,) float64 scores where the value is a mean over images, for paired comparison.
    notes: warnings for the reader. extra: figures that explain the value (a reference value, a fit error).
    conditions: what else must be equal for two values to rank together (protocol, device, batch size).
    """

    value: float
    n: int
    ci95: tuple[float, float] | None = None
    interval: str | None = None
    kind: MetricKind = "estimate"
    estimator: str = "plug-in"
    per_image: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageLikelihoods:
    """Per-image log P(x) in nats on the test split, (N,) float64, as a model gave them."""

    nats: np.ndarray
    kind: str
    estimator: str
    standard_error: np.ndarray | None = None


@dataclass
class MetricInputs:
    """All that a metric may look at. Features are extracted once and shared; so is whatever metrics put in `shared`.

    samples: (N, C, H, W) uint8. reference: the training split. test: the test split. reconstructions: (M, C, H, W)
    uint8 of the first M test images, or None. cost: figures of training and timing (``training_seconds``, ...), absent
    where not measured. reference_cache: folder for arrays that depend on nothing but the reference and the extractor;
    its name must tell those apart. Rows of one suite share it.
    """

    samples: np.ndarray
    reference: ImageDataset
    test: ImageDataset
    extractor: FeatureExtractor | None = None
    reconstructions: np.ndarray | None = None
    likelihoods: Sequence[ImageLikelihoods] = ()
    cost: dict[str, Estimate] = field(default_factory=dict)
    reference_features: Features | None = None
    reference_cache: Path | None = None
    seed: int = 0
    cache: dict[Any, Any] = field(default_factory=dict)

    def shared(self, key: Any, make: Callable[[], T]) -> T:
        """``make()``, computed once for all metrics under ``key``."""
        if key not in self.cache:
            self.cache[key] = make()
        value: T = self.cache[key]
        return value

    def of_reference(self, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """``make()``, an array of the reference alone, kept in ``reference_cache`` where there is one.

        ``key`` names a file and must change with whatever else changes the array (options, the metric's version).
        """

        def load() -> np.ndarray:
            if self.reference_cache is None:
                return make()
            path = self.reference_cache / f"{key}.npz"
            with contextlib.suppress(DataError, KeyError):
                return read_npz(path)["value"]
            value = make()
            write_npz(path, value=value)
            return value

        return self.shared(("of reference", key), load)

    def sample_features(self) -> Features:
        """Features of the samples."""
        extractor = self._extractor()
        return self.shared("sample_features", lambda: extractor.extract(self.samples))

    def train_features(self) -> Features:
        """Features of the reference (training) split, precomputed where the caller had them."""
        if self.reference_features is not None:
            return self.reference_features
        extractor = self._extractor()
        return self.shared("train_features", lambda: extractor.extract(self.reference.images))

    def _extractor(self) -> FeatureExtractor:
        if self.extractor is None:
            raise NotApplicable("no feature extractor is available for this suite; see `genbench doctor`")
        return self.extractor


class Metric(ABC):
    """A metric. Instances hold its options (k, subset size, window); those go into ``comparable``."""

    name: ClassVar[str]
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool | None] = None
    version: ClassVar[int] = 1
    """Raise it whenever the same inputs would give another number."""
    uses_extractor: ClassVar[bool] = False
    summary: ClassVar[str] = ""
    """One line for `genbench list metrics`."""

    def options(self) -> dict[str, Any]:
        """Settings that change the number: the fields of a metric that is a dataclass."""
        return asdict(self) if is_dataclass(self) else {}

    @abstractmethod
    def compute(self, inputs: MetricInputs) -> Sequence[Estimate]:
        """The estimates (usually one; one per estimator for likelihoods).

        Raises:
            NotApplicable: the metric has no meaning for these inputs.
        """
