"""Intervals and blocks: what the metrics' statistics have in common. All arithmetic is float64."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import special  # scipy.stats takes a second to import, which is most of what `genbench check` would take

Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def normal_interval(value: float, standard_error: float, low: float = -math.inf) -> tuple[float, float]:
    """``value`` +/- 1.96 standard errors, cut at ``low`` where the quantity cannot be smaller."""
    half = Z95 * standard_error
    return max(value - half, low), value + half


def student_quantile(freedom: float, share: float = 0.975) -> float:
    """Quantile of Student's t distribution with these degrees of freedom, the normal's where they are infinite."""
    return float(special.ndtri(share) if math.isinf(freedom) else special.stdtrit(freedom, share))


def student_below(value: float, freedom: float) -> float:
    """The share of Student's t distribution below a value, the normal's where the degrees of freedom are infinite."""
    return float(special.ndtr(value) if math.isinf(freedom) else special.stdtr(freedom, value))


def positive_interval(value: float, standard_error: float, quantile: float = Z95) -> tuple[float, float]:
    """95 % interval of a quantity that is never negative, as a distance squared: normal for its cube root.

    Near 0 such a quantity is skewed and its standard error grows with it; a cube root mends both (Wilson and Hilferty
    1931). Where the standard error is small against the value this is the normal interval. Where ``quantile`` standard
    errors are more than three times the value, and the lower end 0, the upper end grows linearly.
    """
    half = quantile * standard_error
    if value <= 0.0:
        return 0.0, half
    relative = min(half / value, 3.0)
    return value * (1.0 - relative / 3.0) ** 3, value * (1.0 + relative / 3.0) ** 3 + half - relative * value


def mean_interval(values: np.ndarray) -> tuple[float, float] | None:
    """95 % interval of the mean of independent values (n,), or None for fewer than two."""
    if len(values) < 2:
        return None
    return normal_interval(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)))


def wilson_interval(successes: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); stays within [0, 1] and has width at 0 and 1."""
    share = successes / trials
    scale = 1.0 + Z95**2 / trials
    centre = (share + Z95**2 / (2 * trials)) / scale
    half = Z95 / scale * math.sqrt(share * (1 - share) / trials + Z95**2 / (4 * trials**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def jackknife_error(left_out: np.ndarray) -> float:
    """Standard error from the n values of a statistic that leave one observation out (Tukey 1958)."""
    n = len(left_out)
    return math.sqrt((n - 1) / n * float(np.square(left_out - left_out.mean()).sum()))


def blocks(total: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``range(total)``."""
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
