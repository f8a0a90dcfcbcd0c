"""Steps in a series of values over commits: where the mean changed for good, by how much, and how surely.

The noise of a value is its own standard error and a scatter from run to run that the error does not hold, which is
estimated from the series. Where the mean changes is searched for as in circular binary segmentation: all splits of a
segment in two, then all arcs (a passage against the rest of its segment, which finds a regression that was mended
later), one more each time as long as it is significant, like the sequential test of Bai & Perron. The statistic is an F
ratio, gain in weighted squares over mean weighted squares within the segments; these never count for less than
the standard errors. Its p-value is that of the maximum over all candidates: Bonferroni's bound on the F distribution
where that is small enough, else from simulated noise. A single point apart from both of its sides is no step, and is
left out of the rest.

Source: A. B. Olshen, E. S. Venkatraman, R. Lucito & M. Wigler, 2004, "Circular binary segmentation for the analysis of
array-based DNA copy number data". J. Bai & P. Perron, 1998, "Estimating and testing linear models with multiple
structural changes", section 4.3. J. Besag & P. Clifford, 1991, "Sequential Monte Carlo p-values". R. DerSimonian &
N. Laird, 1986, "Meta-analysis in clinical trials" (variance within and between).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import special

from genbench.errors import UsageError
from genbench.metrics.statistics import student_quantile

LONGEST_ARC = 32
"""Points of the longest passage that is held against both of its sides at once; longer ones show as two splits."""
_SIMULATIONS, _BATCH, _ENOUGH = 2000, 200, 30
_CLEAR = 1e-3
"""A bound on the p-value below this needs no simulation."""
_MOST_SIMULATED = 10_000
"""Candidates beyond which the bound alone is used: series of more than three hundred points."""
_SCALE_TAIL = 0.1
"""Noise is simulated at the upper confidence bound of its scale that this share of series would exceed."""
_LARGEST = 150
"""Binary exponent of values that are taken as they are; the squares of far larger ones are no numbers."""
_ROUNDING = 1e-9
"""Noise that every value has at least, as a share of the largest one."""
_SHARE_APART = 5
"""At most one point in so many is left out as standing apart."""
_HEAVIEST = 10.0
"""No point has more weight than this many middling ones."""


@dataclass(frozen=True)
class Shift:
    """A step. index: of the first point after it. change: of the mean, with its 95 % interval given the place.

    p: of a series without this step showing one as large anywhere.
    """

    index: int
    change: float
    ci95: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Segment:
    """Points ``first`` to ``last`` (both in it), with no step between them, and their weighted mean."""

    first: int
    last: int
    mean: float


@dataclass(frozen=True)
class Segmentation:
    """Steps and the segments between them. apart: single points left out. noise: standard deviation of a typical point
    about its segment's mean."""

    steps: tuple[Shift, ...]
    segments: tuple[Segment, ...]
    apart: tuple[int, ...] = ()
    noise: float = 0.0


def find_steps(
    values: Sequence[float] | np.ndarray,
    standard_errors: Sequence[float] | np.ndarray | None = None,
    *,
    alpha: float = 0.01,
    exact: bool = False,
) -> Segmentation:
    """Find the steps of one series.

    Args:
        values: (n,), in order.
        standard_errors: (n,); 0 and NaN mean that it is not known, and the scatter of the series is all there is.
        alpha: share of series without a step that may show one. It is exact where no standard error is known. Where
            they hold all of the noise it is less; where they hold half of it or less, up to 3 % at an alpha of 1 %, and
            5 % if they are tenfold unlike.
        exact: the values have no noise (a count of parameters): every change is a step.

    A step needs three points at the least: of two alone it is not known how much a value moves from run to run. Points
    are taken as independent: a slow drift is cut into steps, and noise that lasts (a correlation of 0.5 from point to
    point) shows one in a third of series of 30.

    Raises:
        UsageError: no values, values that are not finite, lengths that differ, or alpha outside (0, 1).
    """
    y, errors = _checked(values, standard_errors, alpha)
    if exact:
        return _exact(y)
    scale = 2.0 ** max(0, math.frexp(float(np.abs(y).max()))[1] - _LARGEST)
    return _scaled(_found(y / scale, errors / scale, alpha), scale)


def _found(y: np.ndarray, errors: np.ndarray, alpha: float) -> Segmentation:
    """The steps of values whose squares are numbers."""
    kept = np.arange(len(y))
    while True:
        noise = _Noise.of(y[kept], errors[kept])
        more_apart = len(y) - len(kept) < len(y) // _SHARE_APART
        fit, p_values, spike = _search(y[kept] - y.mean(), noise, alpha, more_apart)
        if spike is None:
            break
        kept = np.delete(kept, spike)
    return _result(fit, p_values, kept, y)


def _scaled(found: Segmentation, scale: float) -> Segmentation:
    steps = [
        replace(one, change=one.change * scale, ci95=(one.ci95[0] * scale, one.ci95[1] * scale)) for one in found.steps
    ]
    segments = [replace(one, mean=one.mean * scale) for one in found.segments]
    return Segmentation(tuple(steps), tuple(segments), found.apart, found.noise * scale)


def _checked(
    values: Sequence[float] | np.ndarray, standard_errors: Sequence[float] | np.ndarray | None, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    y = np.asarray(values, dtype=np.float64)
    errors = np.zeros_like(y) if standard_errors is None else np.asarray(standard_errors, dtype=np.float64)
    if y.ndim != 1 or not y.size or errors.shape != y.shape:
        raise UsageError(
            f"Steps are looked for in values (n,) with standard errors (n,): got {y.shape} and {errors.shape}."
        )
    if not np.isfinite(y).all():
        raise UsageError("A value of the series is not finite. Leave points without a value out.")
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {alpha} is no share of false alarms: give one between 0 and 1, such as 0.01.")
    known = np.isfinite(errors) & (errors > 0)
    return y, np.where(known, errors, np.median(errors[known]) if known.any() else 0.0)


def _exact(y: np.ndarray) -> Segmentation:
    breaks = [0, *(np.flatnonzero(np.diff(y)) + 1).tolist(), len(y)]
    changes = [(k, float(y[k] - y[k - 1])) for k in breaks[1:-1]]
    segments = tuple(Segment(a, b - 1, float(y[a])) for a, b in pairwise(breaks))
    return Segmentation(tuple(Shift(k, change, (change, change), 0.0) for k, change in changes), segments)


@dataclass(frozen=True)
class _Noise:
    """variances: (n,) of the points, up to a common scale that is at least ``least_scale``."""

    variances: np.ndarray
    least_scale: float

    @classmethod
    def of(cls, y: np.ndarray, errors: np.ndarray) -> _Noise:
        """The scatter beside the standard errors is had from the median of squared differences of neighbours, which
        steps hardly move."""
        rounding = (_ROUNDING * float(np.abs(y).max())) ** 2
        if not errors.any() or len(y) < 2:
            return cls(np.ones_like(y), rounding)
        own = np.square(errors)
        typical = float(np.median(np.square(np.diff(y)))) / (2 * _chi_square_quantile(0.5, 1))
        variances = own + max(0.0, typical - float(np.median(own)))
        variances = np.maximum(variances, float(np.median(variances)) / _HEAVIEST)
        return cls(variances, max(float(np.mean(own / variances)), rounding / float(np.median(variances))))


@dataclass(frozen=True)
class _Fit:
    """Values (n,) cut at ``breaks`` (0 and n are in it)."""

    y: np.ndarray
    noise: _Noise
    breaks: tuple[int, ...]

    @property
    def freedom(self) -> int:
        return len(self.y) - (len(self.breaks) - 1)

    @property
    def spans(self) -> list[tuple[int, int]]:
        return list(pairwise(self.breaks))

    def mean(self, span: tuple[int, int]) -> float:
        return float(np.average(self.y[slice(*span)], weights=1 / self.noise.variances[slice(*span)]))

    def residuals(self, y: np.ndarray) -> np.ndarray:
        """``y``, (..., n), less its weighted mean in each segment."""
        weights = 1 / self.noise.variances
        parts = [y[..., a:b] - np.average(y[..., a:b], axis=-1, weights=weights[a:b])[..., None] for a, b in self.spans]
        return np.concatenate(parts, axis=-1)

    @property
    def scale(self) -> float:
        """Of the variances, from the scatter within the segments."""
        squares = float((np.square(self.residuals(self.y)) / self.noise.variances).sum())
        return max(squares / self.freedom if self.freedom else 0.0, self.noise.least_scale)


@dataclass(frozen=True)
class _Arcs:
    """Candidates: points start to end - 1 (C,) against the rest of their segment.

    weight: what the squared weighted sum of the arc's residuals is to be multiplied with to get its gain.
    """

    start: np.ndarray
    end: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, fit: _Fit, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> _Arcs:
        """pairs: start and end of the candidates of each segment of ``fit``."""
        total = np.concatenate([[0.0], np.cumsum(1 / fit.noise.variances)])
        weights = []
        for (a, b), (start, end) in zip(fit.spans, pairs, strict=True):
            whole, part = total[b] - total[a], total[end] - total[start]
            weights.append(whole / (part * (whole - part)))
        start, end = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
        return cls(start, end, np.concatenate(weights))

    def gains(self, fit: _Fit, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of ``y``, (..., n): weighted squares within segments (...), and what each candidate takes off (..., C)."""
        residuals = fit.residuals(y)
        squares = (np.square(residuals) / fit.noise.variances).sum(-1)
        sums = np.cumsum(residuals / fit.noise.variances, axis=-1)
        sums = np.concatenate([np.zeros((*y.shape[:-1], 1)), sums], axis=-1)
        return squares, np.square(sums[..., self.end] - sums[..., self.start]) * self.weight


_Family = Callable[[tuple[int, int]], tuple[np.ndarray, np.ndarray]]
"""Start and end of the candidates of one kind in a segment."""


def _splits(span: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    a, b = span
    ends = np.arange(a + 1, b)
    return np.full_like(ends, a), ends


def _passages(span: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    a, b = span
    lengths = range(2, min(LONGEST_ARC, b - a - 2) + 1)
    starts = [np.arange(a + 1, b - length) for length in lengths]
    ends = [start + length for start, length in zip(starts, lengths)]
    empty = np.empty(0, dtype=np.int64)
    return np.concatenate([empty, *starts]), np.concatenate([empty, *ends])


def _points(span: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.arange(span[0] + 1, span[1] - 1)
    return starts, starts + 1


def _search(
    y: np.ndarray, noise: _Noise, alpha: float, may_be_apart: bool
) -> tuple[_Fit, dict[int, float], int | None]:
    """The segmented series with the p-value of each break, and a point apart to be left out before all else."""
    fit = _Fit(y, noise, (0, len(y)))
    p_values: dict[int, float] = {}
    while fit.freedom > 1:
        found, p = _best(fit, _splits)
        if 2 * p > alpha:
            found, p = _best(fit, _passages)
        if 2 * p > alpha:
            point, p = _best(fit, _points) if may_be_apart else ((0, 0), 1.0)
            if p <= alpha:
                return fit, p_values, point[0]
            break
        added = {k: 2 * p for k in found if k not in fit.breaks}
        p_values |= added
        fit = _Fit(y, noise, tuple(sorted({*fit.breaks, *added})))
    return (*_tidied(fit, p_values, alpha), None)


def _best(fit: _Fit, family: _Family) -> tuple[tuple[int, int], float]:
    """The candidate that gains most, and its p-value among all of its family; 1.0 where there is none."""
    arcs = _Arcs.of(fit, [family(span) for span in fit.spans])
    if not len(arcs.start):
        return (0, 0), 1.0
    squares, gains = arcs.gains(fit, fit.y)
    best = int(np.argmax(gains))
    return (int(arcs.start[best]), int(arcs.end[best])), _p_value(fit, arcs, float(squares), float(gains[best]))


def _p_value(fit: _Fit, arcs: _Arcs, squares: float, gain: float) -> float:
    freedom = fit.freedom - 1
    within = max(squares - gain, 0.0)
    least = fit.noise.least_scale
    if gain <= least:
        return 1.0
    ratio = gain / max(within / freedom, least)
    bound = len(arcs.start) * float(special.fdtrc(1, freedom, ratio))
    if bound <= _CLEAR or len(arcs.start) > _MOST_SIMULATED:
        return min(1.0, bound)
    scale = max(within / _chi_square_quantile(_SCALE_TAIL, freedom), least)
    spread = np.sqrt(scale * fit.noise.variances)
    rng = np.random.default_rng(0)
    above = done = 0
    while done < _SIMULATIONS and above < _ENOUGH:
        total, gains = arcs.gains(fit, spread * rng.standard_normal((_BATCH, len(fit.y))))
        most = gains.max(-1)
        above += int((most / np.maximum((total - most) / freedom, least) >= ratio).sum())
        done += _BATCH
    return min(1.0, bound, (above + 1) / (done + 1))


def _tidied(fit: _Fit, p_values: dict[int, float], alpha: float) -> tuple[_Fit, dict[int, float]]:
    """Breaks moved to where they gain most given the others, and those left out that gain nothing by themselves."""
    for position in range(1, len(fit.breaks) - 1):
        old = fit.breaks[position]
        new = _moved(fit, position)
        fit = _Fit(fit.y, fit.noise, (*fit.breaks[:position], new, *fit.breaks[position + 1 :]))
        p_values = {new if k == old else k: p for k, p in p_values.items()}
    while len(fit.breaks) > 2:
        t_squared = [_between(fit, k) for k in range(1, len(fit.breaks) - 1)]
        weakest = int(np.argmin(t_squared)) + 1
        if float(special.fdtrc(1, fit.freedom, t_squared[weakest - 1])) <= alpha:
            break
        p_values = {k: p for k, p in p_values.items() if k != fit.breaks[weakest]}
        fit = _Fit(fit.y, fit.noise, (*fit.breaks[:weakest], *fit.breaks[weakest + 1 :]))
    return fit, p_values


def _moved(fit: _Fit, position: int) -> int:
    first, last = fit.breaks[position - 1], fit.breaks[position + 1]
    part = _Fit(fit.y[first:last], _Noise(fit.noise.variances[first:last], fit.noise.least_scale), (0, last - first))
    arcs = _Arcs.of(part, [_splits((0, last - first))])
    return first + int(arcs.end[np.argmax(arcs.gains(part, part.y)[1])])


def _difference(fit: _Fit, position: int) -> tuple[float, float]:
    """The change at a break, and its standard error."""
    before, after = fit.spans[position - 1], fit.spans[position]
    weights = [float((1 / fit.noise.variances[slice(*span)]).sum()) for span in (before, after)]
    error = math.sqrt(fit.scale * sum(1 / weight for weight in weights))
    return fit.mean(after) - fit.mean(before), error


def _between(fit: _Fit, position: int) -> float:
    change, error = _difference(fit, position)
    return (change / error) ** 2 if error else 0.0


def _result(fit: _Fit, p_values: dict[int, float], kept: np.ndarray, y: np.ndarray) -> Segmentation:
    edges = [int(kept[k]) for k in fit.breaks[:-1]]
    shifts = []
    for position, index in enumerate(edges[1:], start=1):
        change, error = _difference(fit, position)
        half = student_quantile(fit.freedom) * error
        shifts.append(Shift(index, change, (change - half, change + half), p_values[fit.breaks[position]]))
    means = [fit.mean(span) + float(y.mean()) for span in fit.spans]
    ends = [int(kept[b - 1]) for b in fit.breaks[1:]]
    segments = tuple(Segment(a, b, mean) for a, b, mean in zip([0, *edges[1:]], ends, means))
    apart = tuple(k for k in range(len(y)) if k not in set(kept.tolist()))
    noise = math.sqrt(fit.scale * float(np.median(fit.noise.variances))) if fit.freedom else 0.0
    return Segmentation(tuple(shifts), segments, apart, noise)


def _chi_square_quantile(share: float, freedom: float) -> float:
    return 2.0 * float(special.gammaincinv(freedom / 2, share))
