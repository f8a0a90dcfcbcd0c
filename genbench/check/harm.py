"""Which way is worse, and how surely a candidate went it beyond a margin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from genbench.check.evidence import Evidence
from genbench.record import MetricResult


@dataclass(frozen=True)
class Harm:
    """p-values of not being worse (beyond the margin) and of not being better; told: what is known of right values."""

    p_worse: float
    p_better: float
    told: str = ""

    @property
    def certain(self) -> bool:
        """Whether nothing is left to chance."""
        return {self.p_worse, self.p_better} <= {0.0, 1.0}


@dataclass(frozen=True)
class RightValue:
    """The value that honest samples have. one_sided: only to exceed it is wrong."""

    value: float
    one_sided: bool

    def distance(self, value: float) -> float:
        """How far a value is on the wrong side."""
        beyond = value - self.value
        return max(beyond, 0.0) if self.one_sided else abs(beyond)

    @property
    def text(self) -> str:
        """ "at most 0.05 is right", "0.223 is right"."""
        return f"{'at most ' if self.one_sided else ''}{self.value:.4g} is right"


def right_value(metric: MetricResult) -> RightValue | None:
    """The value that honest samples have, where the record says it: an expected share, or that of the test split."""
    extra = metric.provenance.get("extra")
    places = extra if isinstance(extra, dict) else {}
    for key, one_sided in (("expected", True), ("test_split", False)):
        value = places.get(key)
        if (isinstance(value, float) and math.isfinite(value)) or (type(value) is int and abs(value) < 2**53):
            return RightValue(float(value), one_sided)
    return None


def harm(found: Evidence, metric: MetricResult, baseline: float, margin: float) -> Harm:
    """How surely the candidate is worse by more than ``margin``, and how surely better, than the baseline's value.

    Of a metric with a right value rather than a direction, worse is further away from it (see `_further`).

    Raises:
        ValueError: the metric has neither a direction nor a right value.
    """
    if metric.higher_is_better is not None:
        if metric.higher_is_better:
            return Harm(found.p_below(-margin), found.p_above(0.0))
        return Harm(found.p_above(margin), found.p_below(0.0))
    right = right_value(metric)
    if right is None:
        raise ValueError(f"{metric.name} has neither a direction nor a right value")
    before, after = baseline - right.value, baseline + found.value - right.value
    further = _further_beyond if right.one_sided else _further
    return Harm(further(found, before, after, margin), further(found, after, before, 0.0), right.text)


def _further(found: Evidence, near: float, far: float, margin: float) -> float:
    """p-value of ``far`` being no further from 0 than ``near`` is, by more than a margin, on whichever side.

    Above 0 that is to exceed ``near`` and also -``near``, below 0 to fall short of both: both must be sure, of which
    one is about the difference and the other about the sum. Either side will do, so that the p-value is doubled.
    """
    step, total = far - near, far + near
    sides = [max(found.p_beyond(sign * step - margin), found.p_sum_beyond(sign * total - margin)) for sign in (1, -1)]
    return min(1.0, 2 * min(sides))


def _further_beyond(found: Evidence, near: float, far: float, margin: float) -> float:
    """p-value of ``far`` not exceeding ``near``, and 0, by more than a margin."""
    return max(found.p_beyond(far - near - margin), found.p_alone_beyond(far - margin))
