"""Which row is best, and which rows cannot be told from it.

The 95 % interval of a difference of two independent estimates comes from their own intervals (a, [la, ua]) and
(b, [lb, ub]) by the square-and-add rule (Zou & Donner 2008, eq. 3):
lower = a - b - sqrt((a - la)^2 + (ub - b)^2), upper = a - b + sqrt((ua - a)^2 + (b - lb)^2).
For symmetric intervals with half widths ha, hb it covers zero when |a - b| < sqrt(ha^2 + hb^2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genbench.files import canonical_json
from genbench.record import MetricResult
from genbench.report.names import metric_name


@dataclass(frozen=True)
class Standing:
    """How rows stand in one metric, by key. outside: rows measured in another way, which are not ranked."""

    best: frozenset[str] = frozenset()
    tied: frozenset[str] = frozenset()
    outside: frozenset[str] = frozenset()


def _bounds(metric: MetricResult) -> tuple[float, float, float]:
    if metric.value is None:
        raise ValueError(f"metric '{metric.name}' has no value to compare")
    low, high = metric.ci95 or (metric.value, metric.value)
    return metric.value, min(low, metric.value), max(high, metric.value)


def difference_interval(a: MetricResult, b: MetricResult) -> tuple[float, float]:
    """95 % interval of a - b; a value without an interval counts as known exactly.

    Raises:
        ValueError: a metric without a value.
    """
    x, x_low, x_high = _bounds(a)
    y, y_low, y_high = _bounds(b)
    low = x - y - math.hypot(x - x_low, y_high - y)
    high = x - y + math.hypot(x_high - x, y - y_low)
    return low, high


def is_tie(a: MetricResult, b: MetricResult) -> bool:
    """Whether the data leave open which of the two is larger."""
    low, high = difference_interval(a, b)
    return a.value == b.value or low < 0 < high


def is_worse(a: MetricResult, b: MetricResult) -> bool:
    """Whether ``a`` is worse than ``b`` beyond both intervals (where no direction is better: whether they differ)."""
    low, high = difference_interval(a, b)
    if a.higher_is_better is None:
        return low > 0 or high < 0
    return high < 0 if a.higher_is_better else low > 0


def expected_share(metric: MetricResult) -> float | None:
    """The value of ``metric`` expected of honest samples, from its provenance, or None."""
    extra: Any = metric.provenance.get("extra")
    for place in (extra if isinstance(extra, dict) else {}, metric.provenance):
        for key in ("expected", "expected_share"):
            value = place.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
    return None


def exceeds_expected(metric: MetricResult) -> bool | None:
    """Whether a share lies above what is expected of honest samples beyond its interval; None where that is unknown."""
    expected = expected_share(metric)
    if expected is None or metric.value is None:
        return None
    return _bounds(metric)[1] > expected


def standing(metrics: Mapping[str, MetricResult]) -> Standing:
    """Best and tied rows among those of the largest group with one `comparable`; the others are `outside`.

    Of likelihoods, exact values, bounds and estimates have their own best row each: a bound says nothing against a row
    that lies beyond it. A metric without a better direction, a kind of one row, or one whose values are all equal has
    no best row.
    """
    groups: dict[str, dict[str, MetricResult]] = {}
    for key, metric in metrics.items():
        if metric.status == "ok":
            groups.setdefault(canonical_json(metric.measured_as), {})[key] = metric
    if not groups:
        return Standing()
    ranked = max(groups.values(), key=len)
    outside = frozenset(key for group in groups.values() if group is not ranked for key in group)
    kinds: dict[str, dict[str, MetricResult]] = {}
    for key, metric in ranked.items():
        kinds.setdefault(kind_of_rank(metric), {})[key] = metric
    found = [_of_one_kind(group) for group in kinds.values()]
    best = frozenset(key for one in found for key in one.best)
    return Standing(best, frozenset(key for one in found for key in one.tied), outside)


def kind_of_rank(metric: MetricResult) -> str:
    """What a result ranks among: of likelihoods its kind, of others everything."""
    return metric.kind if metric_name(metric.name).group == "likelihood" else ""


def _of_one_kind(ranked: Mapping[str, MetricResult]) -> Standing:
    first = next(iter(ranked.values()))
    if first.higher_is_better is None or len(ranked) < 2:
        return Standing()
    sign = -1.0 if first.higher_is_better else 1.0
    top = min(ranked.values(), key=lambda metric: sign * _bounds(metric)[0])
    best = frozenset(key for key, metric in ranked.items() if metric.value == top.value)
    if len(best) == len(ranked):
        return Standing()
    tied = frozenset(key for key, metric in ranked.items() if key not in best and is_tie(metric, top))
    return Standing(best, tied)
