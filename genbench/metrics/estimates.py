"""From scores of images to an `Estimate` of their mean: what many metrics end with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from genbench.metrics.base import Estimate
from genbench.metrics.statistics import Z95, wilson_interval


def mean_estimate(
    values: np.ndarray,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    interval: str = "normal over images",
    estimator: str = "mean",
    **more: Any,
) -> Estimate:
    """Mean of independent scores (n,), n > 0, with its standard error and normal 95 % interval, cut at ``bounds``.

    One score has no interval. Few and skewed scores make it too narrow: it covered 90 % at n = 40 and a skewness of
    -2.7, 94 % at n = 60 and -1. ``more`` are further fields of `Estimate`.
    """
    value = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    around = None if error is None else (max(value - Z95 * error, bounds[0]), min(value + Z95 * error, bounds[1]))
    return Estimate(
        value=value,
        n=len(values),
        ci95=around,
        interval=None if around is None else interval,
        estimator=estimator,
        standard_error=error,
        per_image=values,
        **more,
    )


def share_estimate(
    credit: np.ndarray, *, interval: str = "Wilson over images", estimator: str = "mean", **more: Any
) -> Estimate:
    """Share of images that count, from their credit (n,) in [0, 1], n > 0, with Wilson's 95 % interval."""
    return Estimate(
        value=float(credit.mean()),
        n=len(credit),
        ci95=wilson_interval(float(credit.sum()), len(credit)),
        interval=interval,
        estimator=estimator,
        per_image=credit,
        **more,
    )


def pair_estimate(scores: np.ndarray, **more: Any) -> Estimate:
    """`mean_estimate` of scores that belong to reference images, so that two runs can be compared score by score."""
    return mean_estimate(scores, paired_by="reference image", **more)
