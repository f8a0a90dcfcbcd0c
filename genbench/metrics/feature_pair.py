"""The samples' and the reference's features, checked once and shared by all metrics that compare them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genbench.errors import DataError
from genbench.metrics.base import MetricInputs


@dataclass(frozen=True)
class FeaturePair:
    """samples: (n, d) and reference: (m, d) features as they were extracted, finite, n and m at least 2.

    Statistics must convert to float64, in blocks where both sides are large.
    """

    samples: np.ndarray
    reference: np.ndarray


def feature_pair(inputs: MetricInputs) -> FeaturePair:
    """Features of samples and reference, extracted once for all metrics.

    Raises:
        NotApplicable: there is no extractor, or only statistics of one side are known.
        DataError: NaN or infinite features, fewer than two rows, or unlike widths.
    """
    samples, reference = inputs.samples.features().features, inputs.reference.features().features
    if samples.shape[1] != reference.shape[1]:
        raise DataError(
            f"Features of the samples have width {samples.shape[1]}, those of the reference {reference.shape[1]}. "
            "Extract both with one extractor."
        )
    return FeaturePair(samples, reference)
