"""The interface of metrics: what they are given and what they return.

A metric is one file with one `Metric` subclass per name, found through the entry-point group ``genbench.metrics``.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np

from genbench.errors import DataError
from genbench.files import hash_value, read_npz, write_npz
from genbench.metrics.pairs import ImagePairs
from genbench.metrics.sides import NotApplicable, Side
from genbench.record import MetricKind

if TYPE_CHECKING:
    from genbench.data.base import ImageDataset
    from genbench.features.base import FeatureExtractor
    from genbench.features.image_text import ImageTextModel

__all__ = [
    "Estimate",
    "ImageLikelihoods",
    "ImageText",
    "Metric",
    "MetricInputs",
    "Need",
    "NoEstimate",
    "NotApplicable",
    "PairMetric",
    "Side",
]

Need = Literal["moments", "features", "logits", "spatial", "labels", "images", "pairs", "text"]
"""What a metric looks at: mean and covariance of both sides' features, the features themselves, the samples' class
logits, spatial features, class labels, raw images, pairs of images, images with their prompts."""

T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its 95 % interval.

    n: number of samples, None where statistics came without it.
    interval: how the interval was made ("influence function", "jackknife", "closed form", "normal over images", ...).
    standard_error: of the value, where the interval is a normal one. per_image: (n,) float64 scores where the value is
    a mean over images. paired_by: what score i belongs to ("test image", "prompt") where two runs can be compared score
    by score; None where score i is of a sample that nothing ties to another run's.
    notes: warnings for the reader. extra: figures that explain the value (a reference value, a fit error).
    conditions: what else must be equal for two values to rank together (protocol, device, batch size).
    """

    value: float
    n: int | None
    ci95: tuple[float, float] | None = None
    interval: str | None = None
    kind: MetricKind = "estimate"
    estimator: str = "plug-in"
    standard_error: float | None = None
    per_image: np.ndarray | None = None
    paired_by: str | None = None
    notes: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NoEstimate:
    """One estimator of a metric that gave no number, with the reason."""

    estimator: str
    reason: str


@dataclass(frozen=True)
class ImageLikelihoods:
    """Per-image log P(x) in nats on the test split, (N,) float64, as a model gave them.

    standard_error: (N,) of the estimator's own noise, independent from image to image. shared_error: standard error in
    nats of what all images have in common (an estimated log Z). details: figures that explain the estimate. failure:
    why there are no numbers (``nats`` is empty then).
    """

    nats: np.ndarray
    kind: str
    estimator: str
    standard_error: np.ndarray | None = None
    shared_error: float = 0.0
    details: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None


@dataclass
class ImageText:
    """Samples and their texts in a common space.

    images: (n, d) float32 embeddings of the samples, not normalised, or what makes them (called once, if a metric has
    use for them). prompts: what each sample was asked to show, or None. class_names with labels (n,): what zero-shot
    classification tells apart, or empty. known_fingerprint: names the prompts in ``comparable`` where that is not for
    their order to do (the captions of a suite's classes).
    """

    model: ImageTextModel
    images: np.ndarray | Callable[[], np.ndarray]
    prompts: tuple[str, ...] | None = None
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    known_fingerprint: str | None = None

    @property
    def prompts_fingerprint(self) -> str:
        """SHA-256 over the prompts in their order, or `known_fingerprint`."""
        return self.known_fingerprint or hash_value(list(self.prompts or ()))


@dataclass
class MetricInputs:
    """All that a metric may look at. What is costly is computed once and shared through `shared`.

    test: the test split of a suite. pairs: samples beside the images they should resemble (a suite's reconstructions).
    cost: figures of training and timing (``training_seconds``, ...), absent where not measured. reference_cache: folder
    for arrays that depend on nothing but the reference and the extractor; its name must tell those apart.
    """

    samples: Side
    reference: Side
    test: ImageDataset | None = None
    extractor: FeatureExtractor | None = None
    pairs: ImagePairs | None = None
    image_text: ImageText | None = None
    likelihoods: Sequence[ImageLikelihoods] = ()
    cost: dict[str, Estimate] = field(default_factory=dict)
    reference_cache: Path | None = None
    seed: int = 0
    cache: dict[Any, Any] = field(default_factory=dict)

    def shared(self, key: Any, make: Callable[[], T]) -> T:
        """``make()``, computed once for all metrics under ``key``."""
        if key not in self.cache:
            self.cache[key] = make()
        value: T = self.cache[key]
        return value

    def test_split(self) -> ImageDataset:
        """The test split.

        Raises:
            NotApplicable: there is none.
        """
        if self.test is None:
            raise NotApplicable("there is no test split here; this metric is one of suites")
        return self.test

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


class Metric(ABC):
    """A metric. Instances hold its options (k, subset size, window); those go into ``comparable``."""

    name: ClassVar[str]
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool | None] = None
    version: ClassVar[int] = 1
    """Raise it whenever the same inputs would give another number."""
    needs: ClassVar[frozenset[Need]] = frozenset()
    summary: ClassVar[str] = ""
    """One line for `genbench list metrics`."""

    def options(self) -> dict[str, Any]:
        """Settings that change the number: the fields of a metric that is a dataclass."""
        return asdict(self) if is_dataclass(self) else {}

    @abstractmethod
    def compute(self, inputs: MetricInputs) -> Sequence[Estimate | NoEstimate]:
        """The estimates (usually one; one per estimator for likelihoods).

        Raises:
            NotApplicable: the metric has no meaning for these inputs.
        """


class PairMetric(Metric):
    """A metric of image pairs: `score_pairs` gives a score for each, `compute` makes an estimate of them."""

    needs = frozenset({"pairs"})

    @abstractmethod
    def score_pairs(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(B,) float64 scores of samples x against y, both (B, C, H, W) uint8 of one shape.

        Raises:
            NotApplicable: the metric has no meaning for images of this size.
        """

    def use_device(self, device: str) -> None:
        """Score on this device from now on; of no consequence for metrics that run no network."""

    @property
    def score_key(self) -> str:
        """Names the score of each pair; metrics that share a score share its key."""
        return f"{self.name}-v{self.version}-{hash_value(self.options())[:16]}"

    def scores(self, inputs: MetricInputs) -> np.ndarray:
        """(n,) scores of all pairs.

        Raises:
            NotApplicable: there are no pairs.
        """
        pairs = inputs.pairs
        if pairs is None or pairs.count == 0:
            raise NotApplicable("there are no pairs of images: a model that does not reconstruct, or no --pairs")
        return inputs.shared(("pair scores", self.score_key), lambda: pairs.scores(self.score_key, self.score_pairs))
