"""What a stored value says of its own uncertainty, and what two such values say of their difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import special

from genbench.metrics.statistics import Z95
from genbench.record import MetricResult


@dataclass(frozen=True)
class HalfWidths:
    """Half widths of a 95 % interval, below and above its value, as they were before a cut at the metric's bound."""

    below: float
    above: float

    @property
    def standard_error(self) -> float:
        """Of a normal interval; of another one its mean half width over 1.96."""
        return (self.below + self.above) / (2 * Z95)


@dataclass(frozen=True)
class Difference:
    """b - a with its 95 % interval and two-sided p-value; those are None where a value has no interval.

    method: how the interval was had. paired_n: images whose scores were compared one by one, or None.
    """

    value: float
    ci95: tuple[float, float] | None = None
    p: float | None = None
    method: str = ""
    paired_n: int | None = None


def are_equal(values: np.ndarray, share: float = 1e-9) -> bool:
    """Whether (N,) values differ by no more than a share of theirs; that of float64 arithmetic in another order."""
    return bool(np.ptp(values) <= share * np.abs(values).max())


def half_widths(
    value: float, ci95: tuple[float, float] | None, interval: object, standard_error: object = None
) -> HalfWidths | None:
    """Half widths from the standard error where there is one, else from the interval; None without either, and of ones
    that are too large to reckon with. interval: its method, as text.

    A Wilson interval is skew by nature and taken as it is. Of any other one the longer side is taken for both: the
    shorter one was cut at a bound (0 of FID, 1 of recall).
    """
    if _is_number(standard_error):
        below = above = Z95 * float(standard_error)  # type: ignore[arg-type]
    elif ci95 is None:
        return None
    else:
        below, above = max(value - ci95[0], 0.0), max(ci95[1] - value, 0.0)
        if not (isinstance(interval, str) and interval.startswith("Wilson")):
            below = above = max(below, above)
    return HalfWidths(below, above) if math.isfinite(below * below + above * above) else None


def metric_half_widths(metric: MetricResult) -> HalfWidths | None:
    """`half_widths` of a metric that has a value; zero for one that is known exactly."""
    if metric.value is None:
        return None
    found = half_widths(
        metric.value, metric.ci95, metric.provenance.get("interval"), metric.provenance.get("standard_error")
    )
    is_exact = metric.kind == "exact" and metric.ci95 is None
    return HalfWidths(0.0, 0.0) if found is None and is_exact else found


def shared_error(metric: MetricResult) -> float:
    """Standard error of what all per-image scores of a metric have in common (an estimated log Z); 0 without one."""
    extra = metric.provenance.get("extra")
    found = extra.get("shared_error") if isinstance(extra, dict) else None
    return float(found) if _is_number(found) else 0.0  # type: ignore[arg-type]


def widened(found: Difference, error: float) -> Difference:
    """A difference with a further, independent standard error, as of what pairs of scores do not have in common.

    Scores that are all equal share that error too: nothing is added to them.
    """
    if error == 0 or found.ci95 is None or (found.value == 0 and found.ci95 == (0.0, 0.0)):
        return found
    half = math.hypot((found.ci95[1] - found.ci95[0]) / 2, Z95 * error)
    interval = (found.value - half, found.value + half)
    method = f"{found.method}, widened by the standard errors of what all scores share"
    return replace(found, ci95=interval, p=_p_value(found.value, half), method=method)


def unpaired_difference(a: float, b: float, around_a: HalfWidths, around_b: HalfWidths) -> Difference:
    """b - a of two independent estimates, by the square-and-add rule (Zou & Donner 2008, eq. 3).

    With symmetric half widths this is the normal interval from both standard errors. The p-value is that of the normal
    test whose 95 % bound is the interval's bound towards 0.
    """
    difference = b - a
    low = difference - math.hypot(around_b.below, around_a.above)
    high = difference + math.hypot(around_b.above, around_a.below)
    towards_zero = difference - low if difference > 0 else high - difference
    return Difference(difference, (low, high), _p_value(difference, towards_zero))


def _p_value(difference: float, half: float) -> float:
    if difference == 0:
        return 1.0
    return 0.0 if half == 0 else float(2 * special.ndtr(-Z95 * abs(difference) / half))


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0


def shares_images(metrics: Sequence[MetricResult]) -> bool:
    """Whether the results are means of scores over the same images or prompts, so that their choice is no error of each
    but one of all."""
    return all(metric.provenance.get("paired_by") for metric in metrics)
