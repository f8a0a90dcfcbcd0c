"""`genbench power`: how many samples of each of two models show a difference of a given size in a metric.

A pilot of n samples is cut at random into parts of n, n / 2, n / 4, ... samples. On each part the metric gives its
value and standard error; over sizes m these are fitted by

    se(m)^2 = a / m + b / m^2,  a, b >= 0,    value(m) = v + c / m + e / m^2  (for metrics with a bias of that form).

Where the standard errors do not follow that (coverage and recall at few samples), a is that of the whole pilot and b is
0. Two models of m samples each that are told apart by a two-sided test at level alpha with the wanted power have

    delta = (z_{1 - alpha / 2} + z_power) sqrt(2) se(m),

which is a quadratic equation in m. A relative difference is one of v.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import special
from scipy.optimize import nnls

from genbench.errors import DataError, UsageError
from genbench.evaluation.uncertainty import half_widths
from genbench.features.base import FeatureExtractor, Features
from genbench.metrics.base import Estimate, Metric, MetricInputs, NoEstimate, NotApplicable
from genbench.metrics.sides import Side

BIASED = frozenset({"fid", "sfid", "inception_score"})
"""Metrics whose expectation at n samples differs from their limit by about c / n + e / n^2."""

UNBIASED = frozenset({"kid", "kid_full", "precision", "density"})
"""Metrics whose expectation is the same at any number of samples."""

MIN_PART = 32
_CUTS = 4
_FAR = 10
_WEAK = 3.0
_MISFIT = 0.25
"""Largest relative error of the fitted standard error at any size; beyond it the fit is given up."""

Draw = Callable[[np.ndarray], Side]
"""From positions of the pilot's samples to a side that holds these."""


@dataclass(frozen=True)
class Target:
    """The difference to be seen: ``amount`` of the metric, or that share of it where ``relative``."""

    amount: float
    relative: bool

    @classmethod
    def parse(cls, text: str) -> Target:
        """``2%`` of the metric, or ``0.3`` of its unit.

        Raises:
            UsageError: no positive number.
        """
        bare = text.strip().removesuffix("%")
        relative = bare != text.strip()
        try:
            amount = float(bare) / (100 if relative else 1)
        except ValueError:
            amount = math.nan
        if not (math.isfinite(amount) and amount > 0):
            raise UsageError(f"The difference is '{text}', expected a positive number (0.3) or percentage (2%).")
        return cls(amount, relative)


@dataclass(frozen=True)
class SizeFigures:
    """The metric at n samples: measured on ``parts`` of the pilot, or by the fit alone where that is 0.

    value, standard_error: means over the parts, or the fit's. seen: smallest difference seen with the wanted power.
    """

    n: int
    parts: int
    value: float
    standard_error: float
    seen: float


@dataclass(frozen=True)
class Fit:
    """What the pilot tells of any size n. value: the limit v, or the pilot's value where no bias is fitted.

    a, b: of se^2 = a / n + b / n^2. c, e: of the bias c / n + e / n^2. follows: whether the errors follow that law.
    """

    value: float
    a: float
    b: float
    c: float
    e: float
    follows: bool

    def standard_error(self, n: float) -> float:
        """Of the metric at n samples."""
        return math.sqrt(self.a / n + self.b / n**2)

    def bias(self, n: float) -> float:
        """Of the metric at n samples."""
        return self.c / n + self.e / n**2


@dataclass(frozen=True)
class Power:
    """The answer. n: samples of each model that show ``difference``. sizes: figures at several n, the answer too."""

    metric: str
    n: int
    difference: float
    power: float
    alpha: float
    pilot: int
    fit: Fit
    sizes: tuple[SizeFigures, ...]
    notes: tuple[str, ...]

    @property
    def value(self) -> float:
        """Of the metric, without its bias where that is known."""
        return self.fit.value

    def as_dict(self) -> dict[str, Any]:
        """All numbers as JSON."""
        return asdict(self)


def required_samples(a: float, b: float, difference: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Smallest n with (z_{1 - alpha / 2} + z_power) sqrt(2 (a / n + b / n^2)) <= difference; at least 2."""
    z = _quantiles(power, alpha)
    linear = 2 * z**2 * a
    n = (linear + math.sqrt(linear**2 + 8 * z**2 * b * difference**2)) / (2 * difference**2)
    return max(2, math.ceil(n))


def sample_size(
    metric: Metric,
    draw: Draw,
    pilot: int,
    reference: Side,
    target: Target,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    extractor: FeatureExtractor | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Power:
    """How many samples of each model are needed.

    Args:
        metric: with its options.
        draw: gives the pilot's samples at some positions as a side.
        pilot: number of the pilot's samples.
        reference: what both models are compared with.
        target: the difference to be seen.
        power: chance of seeing it. alpha: chance of seeing one where there is none.
        extractor: of the features, where the metric wants to know it.
        seed: of the cuts into parts.
        progress: called with (parts done, parts in all).

    Raises:
        UsageError: power or alpha out of (0, 1), or a metric that gives no standard error here.
        DataError: too few samples, or a value so near 0 that a share of it means nothing.
    """
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise UsageError(f"The {name} is {value}, expected a number between 0 and 1.")
    if pilot < MIN_PART:
        raise DataError(f"The pilot has {pilot} samples; give at least {MIN_PART}, better 1000.")
    found = _measure(metric, draw, pilot, reference, extractor, seed, progress)
    a, b, follows = _fit_errors(found)
    value, c, e = _fit_values(found, metric.name in BIASED)
    fit = Fit(value, a, b, c, e, follows)
    difference = _difference(target, metric.name, fit.value, fit.standard_error(pilot))
    n = required_samples(fit.a, fit.b, difference, power, alpha)
    shown = _quantiles(power, alpha) * math.sqrt(2)
    sizes = [_measured(size, parts, shown) for size, parts in found.items()]
    if n not in found:
        error = fit.standard_error(n)
        sizes.append(SizeFigures(n, 0, fit.value + fit.bias(n), error, shown * error))
    ordered = tuple(sorted(sizes, key=lambda size: size.n))
    notes = _notes(metric, n, reference, found, fit)
    return Power(metric.name, n, difference, power, alpha, pilot, fit, ordered, notes)


def features_draw(features: Features) -> Draw:
    """Subsets of features at hand."""

    def draw(chosen: np.ndarray) -> Side:
        logits = None if features.logits is None else features.logits[chosen]
        spatial = None if features.spatial is None else features.spatial[chosen]
        return Side.of("samples", Features(features.features[chosen], logits, spatial))

    return draw


def _difference(target: Target, metric: str, value: float, error: float) -> float:
    if not target.relative:
        return target.amount
    if abs(value) < _WEAK * error:
        raise DataError(
            f"{metric} is {value:.4g} with a standard error of {error:.2g}: a share of it means nothing. Ask for a "
            f"difference in its own unit (--difference {max(error, 1e-12):.2g}), or give a larger pilot."
        )
    return target.amount * abs(value)


def _measured(size: int, parts: Sequence[Estimate], shown: float) -> SizeFigures:
    value = float(np.mean([part.value for part in parts]))
    error = math.sqrt(float(np.mean([_error(part) ** 2 for part in parts])))
    return SizeFigures(size, len(parts), value, error, shown * error)


def _quantiles(power: float, alpha: float) -> float:
    return float(special.ndtri(1 - alpha / 2) + special.ndtri(power))


def _measure(
    metric: Metric,
    draw: Draw,
    pilot: int,
    reference: Side,
    extractor: FeatureExtractor | None,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> dict[int, list[Estimate]]:
    """Estimates by size, largest first; only sizes at which the metric works as it does on the whole pilot."""
    order = np.random.default_rng(seed).permutation(pilot)
    sizes = [pilot // 2**cut for cut in range(_CUTS) if pilot // 2**cut >= MIN_PART]
    plan = [(m, order[i * m : (i + 1) * m]) for m in sizes for i in range(pilot // m)]
    found: dict[int, list[Estimate]] = {}
    whole: Estimate | None = None
    for done, (size, chosen) in enumerate(plan, start=1):
        inputs = MetricInputs(draw(np.sort(chosen)), reference, extractor=extractor, seed=seed)
        try:
            estimate = metric.compute(inputs)[0]
        except NotApplicable as reason:
            if whole is None:
                raise UsageError(f"{metric.name} of the pilot: {reason}.") from None
            continue
        if isinstance(estimate, NoEstimate):
            raise UsageError(f"{metric.name} of the pilot: {estimate.reason}.")
        whole = whole or estimate
        if estimate.estimator == whole.estimator and _has_error(estimate):
            found.setdefault(size, []).append(estimate)
        if progress is not None:
            progress(done, len(plan))
    if pilot not in found:
        raise UsageError(
            f"{metric.name} gives no interval for this pilot, so that its noise is not known. Try a larger pilot."
        )
    return found


def _has_error(estimate: Estimate) -> bool:
    found = half_widths(estimate.value, estimate.ci95, estimate.interval, estimate.standard_error)
    return found is not None and found.standard_error > 0


def _error(estimate: Estimate) -> float:
    found = half_widths(estimate.value, estimate.ci95, estimate.interval, estimate.standard_error)
    assert found is not None
    return found.standard_error


def _fit_errors(found: dict[int, list[Estimate]]) -> tuple[float, float, bool]:
    """a and b by least squares of relative errors, neither below 0, and whether they fit.

    Where they do not, or one size was measured only, se^2 = a / n with the whole pilot's a.
    """
    sizes = np.array(list(found), dtype=np.float64)
    variances = np.array([np.mean([_error(estimate) ** 2 for estimate in es]) for es in found.values()])
    weights = np.sqrt(sizes * [len(estimates) for estimates in found.values()])
    alone = float(variances[sizes.argmax()] * sizes.max())
    if len(sizes) == 1:
        return alone, 0.0, True
    terms = np.stack([1 / sizes, 1 / sizes**2], axis=1) / variances[:, None]
    scale = terms.max(0)
    (a, b), _ = nnls(terms / scale * weights[:, None], weights)
    a, b = float(a / scale[0]), float(b / scale[1])
    off = np.abs(np.sqrt(terms @ np.array([a, b])) - 1)
    return (a, b, True) if off.max() <= _MISFIT else (alone, 0.0, False)


def _fit_values(found: dict[int, list[Estimate]], biased: bool) -> tuple[float, float, float]:
    """The metric's limit v and the factors c and e of its bias; without bias the value of the whole pilot.

    The mean over all parts of a size has the noise of the whole pilot to first order, so that c and e come from
    differences to the whole, whose variance is about 1 / (m n). From fewer than four sizes there is no e.
    """
    pilot = max(found)
    whole = found[pilot][0].value
    if not biased or len(found) < 2:
        return whole, 0.0, 0.0
    sizes = np.array([size for size in found if size != pilot], dtype=np.float64)
    excess = np.array([np.mean([x.value for x in found[int(size)]]) for size in sizes]) - whole
    powers = np.array([1, 2] if len(found) >= 4 else [1])
    terms = (pilot / sizes[:, None]) ** powers - 1
    weights = np.sqrt(sizes)
    factors, *_ = np.linalg.lstsq(terms * weights[:, None], excess * weights, rcond=None)
    c, e = float(factors[0]) * pilot, float(factors[1]) * pilot**2 if len(factors) > 1 else 0.0
    return whole - c / pilot - e / pilot**2, c, e


def _notes(metric: Metric, n: int, reference: Side, found: dict[int, list[Estimate]], fit: Fit) -> tuple[str, ...]:
    notes, pilot = [], max(found)
    bias = fit.bias(pilot)
    if abs(bias) > abs(fit.value):
        notes.append(
            f"at {pilot:,} samples {bias:.3g} of {metric.name} is bias: its limit is rough, and a share of it; give a "
            "larger pilot"
        )
    if n > _FAR * pilot:
        notes.append(
            f"{n:,} is more than {_FAR} times the pilot of {pilot:,}: extrapolated; ask again with a pilot of "
            f"{math.ceil(n / _FAR):,}"
        )
    if not fit.follows:
        notes.append(
            "on parts of the pilot the standard error does not follow a / n + b / n^2: the whole pilot's is taken to "
            "fall as 1 / sqrt(n), which may be far off; a larger pilot tells"
        )
    elif len(found) == 1:
        notes.append("measured at one size only: the standard error is taken to fall as 1 / sqrt(n)")
    if reference.count != 0:
        notes.append(
            "both models are compared with this one reference: its own choice of images moves both alike, cancels in "
            "the difference and is not in the standard errors"
        )
    if metric.name not in BIASED | UNBIASED:
        notes.append("how the value itself changes with n is not extrapolated: it is the pilot's")
    notes += dict.fromkeys(found[pilot][0].notes)
    return (*notes, "assumes that the second model is as noisy as the pilot, and that both have the same n")
