"""The samples' and the reference's features, checked once and shared by all metrics that compare them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genbench.errors import DataError
from genbench.metrics.base import MetricInputs


@dataclass(frozen=True)
class FeaturePair:
    """samples: (n, d) and reference: (m, d) features, float64, finite, n and m at least 2."""

    samples: np.ndarray
    reference: np.ndarray


def feature_pair(inputs: MetricInputs) -> FeaturePair:
    """Features of samples and reference, extracted once for all metrics.

    Raises:
        NotApplicable: there is no extractor.
        DataError: NaN or infinite features, fewer than two rows, or unlike widths.
    """

    def make() -> FeaturePair:
        samples = _checked(inputs.sample_features().features, "samples")
        reference = _checked(inputs.train_features().features, "reference images")
        if samples.shape[1] != reference.shape[1]:
            raise DataError(
                f"Features of the samples have width {samples.shape[1]}, those of the reference {reference.shape[1]}. "
                "Extract both with one extractor."
            )
        return FeaturePair(samples, reference)

    return inputs.shared("feature_pair", make)


def _checked(features: np.ndarray, who: str) -> np.ndarray:
    if features.ndim != 2 or len(features) < 2:
        raise DataError(f"Features of the {who} have shape {features.shape}, expected (N, d) with N at least 2.")
    bad = ~np.isfinite(features).all(1)
    if bad.any():
        raise DataError(
            f"Features of {int(bad.sum())} of {len(features)} {who} are NaN or infinite (first: row "
            f"{int(bad.argmax())}). Check the images and the extractor's weights."
        )
    return features.astype(np.float64)
