"""What metrics know of each side of a comparison: the samples, and the reference that they are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from genbench.errors import DataError
from genbench.metrics.moments import Moments

if TYPE_CHECKING:
    from genbench.features.base import Features


class NotApplicable(Exception):  # noqa: N818
    """Raised by a metric that has no meaning for these inputs; the message is the reason shown to the user."""


@dataclass
class Side:
    """One side of a comparison. What is None was not given, or not kept while the images streamed by.

    who: how messages call it. count: number of images. images: (N, C, H, W) uint8. labels: (N,) int64. extract: gives
    the features, called once. given_moments, given_spatial_moments, given_logits: of
    features that streamed by, or came from a statistics file.
    sampled_features, sampled_spatial: (k, d) rows drawn at random from a stream whose features were not kept.
    """

    who: str
    count: int | None
    images: np.ndarray | None = None
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    extract: Callable[[], Features] | None = None
    given_moments: Moments | None = None
    given_spatial_moments: Moments | None = None
    given_logits: np.ndarray | None = None
    sampled_features: np.ndarray | None = None
    sampled_spatial: np.ndarray | None = None
    _features: Features | None = field(default=None, repr=False)
    _moments: Moments | None = field(default=None, repr=False)

    @classmethod
    def of(cls, who: str, features: Features, labels: np.ndarray | None = None) -> Side:
        """A side whose features are at hand."""
        return cls(who, len(features.features), labels=labels, extract=lambda: features)

    @property
    def has_features(self) -> bool:
        """Whether the features themselves are known, not their moments alone."""
        return self.extract is not None

    def features(self) -> Features:
        """The features, extracted and checked once.

        Raises:
            NotApplicable: no extractor, or only statistics are known.
            DataError: NaN or infinite features, or fewer than two.
        """
        if self._features is None:
            if self.extract is None:
                raise NotApplicable(
                    f"only mean and covariance of the {self.who} are known"
                    if self.given_moments is not None
                    else "no feature extractor is available; see `genbench doctor`"
                )
            found = self.extract()
            check_features(found.features, self.who)
            self._features = found
        return self._features

    def logits(self) -> np.ndarray:
        """(N, classes) class logits, finite.

        Raises:
            NotApplicable: the extractor has no classes, or only statistics are known.
            DataError: NaN or infinite logits.
        """
        logits = self.features().logits if self.given_logits is None else self.given_logits
        if logits is None:
            raise NotApplicable("this extractor gives no class probabilities")
        if not np.isfinite(logits).all():
            raise DataError(f"Class logits of the {self.who} are NaN or infinite. Check the extractor's weights.")
        return logits

    def moments(self) -> Moments:
        """Mean and covariance of the features: those given, or of the features. Raises as `features`."""
        if self.given_moments is not None:
            return self.given_moments
        if self._moments is None:
            self._moments = Moments.of(self.features().features)
        return self._moments

    def spatial_moments(self) -> Moments:
        """Mean and covariance of the spatial features. Raises as `features`, or NotApplicable without such."""
        if self.given_spatial_moments is not None:
            return self.given_spatial_moments
        spatial = self.features().spatial
        if spatial is None:
            raise NotApplicable("this extractor gives no spatial features; sFID is defined on inception-v3")
        return Moments.of(spatial)

    def kept_images(self) -> np.ndarray:
        """(N, C, H, W) uint8.

        Raises:
            NotApplicable: the images were not kept while they streamed by.
        """
        if self.images is None:
            raise NotApplicable(f"the pixels of the {self.who} are not at hand; this metric is one of suites")
        return self.images

    def known_labels(self) -> np.ndarray:
        """(N,) labels.

        Raises:
            NotApplicable: there are none.
        """
        if self.labels is None:
            raise NotApplicable(
                f"the {self.who} have no labels (or not all of them): name classes by folders, dataset.json or a column"
                + (", or give --labels" if self.who == "samples" else "")
            )
        return self.labels


def check_features(features: np.ndarray, who: str) -> None:
    """Refuse features that no metric should look at.

    Raises:
        DataError: not (N, d) with N at least 2, or NaN or infinite values.
    """
    if features.ndim != 2 or len(features) < 2:
        raise DataError(f"Features of the {who} have shape {features.shape}, expected (N, d) with N at least 2.")
    bad = ~np.isfinite(features).all(1)
    if bad.any():
        raise DataError(
            f"Features of {int(bad.sum())} of {len(features)} {who} are NaN or infinite (first: row "
            f"{int(bad.argmax())}). Check the images and the extractor's weights."
        )
