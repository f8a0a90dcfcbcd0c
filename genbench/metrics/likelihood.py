"""Likelihood of the test split: `bits_per_dim` and `nats_per_image`, negative log-probabilities of discrete images.

A lower bound on log P is an upper bound on these figures; bounds, estimates and exact values are never mixed up.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from genbench.errors import DataError
from genbench.metrics.base import Estimate, ImageLikelihoods, Metric, MetricInputs, NoEstimate, NotApplicable
from genbench.metrics.estimates import mean_estimate
from genbench.metrics.statistics import Z95
from genbench.record import MetricKind

KINDS: dict[str, MetricKind] = {"exact": "exact", "lower_bound": "upper_bound", "estimate": "estimate"}
"""Kind of log P to kind of -log P."""


SAMPLING_INTERVAL = "normal over images; their scatter includes the estimator's own noise"


def _estimate(values: np.ndarray, likelihood: ImageLikelihoods, error_scale: float) -> Estimate | NoEstimate:
    if likelihood.failure is not None:
        return NoEstimate(likelihood.estimator, likelihood.failure)
    if likelihood.kind not in KINDS:
        raise DataError(
            f"Likelihood '{likelihood.estimator}' is of kind '{likelihood.kind}', expected one of {', '.join(KINDS)}."
        )
    infinite = int((~np.isfinite(values)).sum())
    if infinite:
        raise DataError(
            f"Likelihood '{likelihood.estimator}' is not finite for {infinite} of {len(values)} test images: the model "
            "gives them probability 0, or its arithmetic overflows."
        )
    extra: dict[str, Any] = dict(likelihood.details)
    if likelihood.standard_error is not None:
        noise = error_scale * float(np.sqrt(np.square(likelihood.standard_error).mean() / len(values)))
        extra["monte_carlo_error"] = noise
    found = mean_estimate(
        values,
        interval=SAMPLING_INTERVAL,
        estimator=likelihood.estimator,
        kind=KINDS[likelihood.kind],
        paired_by="test image",
        extra=extra,
    )
    return _with_shared_error(found, error_scale * likelihood.shared_error)


def _with_shared_error(estimate: Estimate, shared: float) -> Estimate:
    """Widen a normal interval by an error that all images have in common, as that of an estimated log Z."""
    if shared == 0.0 or estimate.standard_error is None:
        return estimate
    error = math.hypot(estimate.standard_error, shared)
    return replace(
        estimate,
        ci95=(estimate.value - Z95 * error, estimate.value + Z95 * error),
        interval="normal over images, widened by the standard error of log Z",
        standard_error=error,
        extra={**estimate.extra, "shared_error": shared},
    )


def _nats(inputs: MetricInputs) -> list[tuple[ImageLikelihoods, np.ndarray]]:
    if not inputs.likelihoods:
        raise NotApplicable("this model gives no likelihood of images")
    return [(likelihood, np.asarray(likelihood.nats, dtype=np.float64)) for likelihood in inputs.likelihoods]


class BitsPerDim(Metric):
    """-log2 P(x) / D of test images, D = C H W."""

    name = "bits_per_dim"
    unit = "bits/dim"
    higher_is_better = False
    summary = "negative log-likelihood of test images in bits per dimension"

    def compute(self, inputs: MetricInputs) -> list[Estimate | NoEstimate]:
        """One estimate for each of the model's likelihood estimators.

        Raises:
            NotApplicable: the model gives no likelihood.
        """
        dims = inputs.test_split().spec.dims
        one_bit = dims * math.log(2.0)  # a bit per dimension, in nats
        return [_estimate(-nats / one_bit, likelihood, 1.0 / one_bit) for likelihood, nats in _nats(inputs)]


class NatsPerImage(Metric):
    """-log P(x) of test images."""

    name = "nats_per_image"
    unit = "nats"
    higher_is_better = False
    summary = "negative log-likelihood of test images in nats per image"

    def compute(self, inputs: MetricInputs) -> list[Estimate | NoEstimate]:
        """One estimate for each of the model's likelihood estimators.

        Raises:
            NotApplicable: the model gives no likelihood.
        """
        return [_estimate(-nats, likelihood, 1.0) for likelihood, nats in _nats(inputs)]
