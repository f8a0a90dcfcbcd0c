"""From the scores of image pairs to an `Estimate` of their mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genbench.metrics.base import Estimate
from genbench.metrics.statistics import Z95


def mean_estimate(
    values: np.ndarray,
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    estimator: str = "mean",
    interval: str = "normal over images",
    notes: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> Estimate:
    """Mean of independent scores (n,), n > 0, with its standard error and normal 95 % interval, cut at ``bounds``.

    Score i belongs to reference image i, so that two runs can be compared score by score. One score has no interval.
    Few and skewed scores make it too narrow: it covered 90 % at n = 40 and a skewness of -2.7, 94 % at n = 60 and -1.
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
        paired_by="reference image",
        notes=tuple(notes),
        extra=dict(extra or {}),
        conditions=dict(conditions or {}),
    )
