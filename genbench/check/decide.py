"""From tests to verdicts: p-values adjusted for their number, quality and speed each as one family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from genbench.check.evidence import holm
from genbench.check.finding import Finding, Verdict
from genbench.check.speed import Contest, p_slower


@dataclass(frozen=True)
class QualityTest:
    """A finding that waits for the adjustment of its p-values; those of exact values are 0 or 1 and wait for nothing.

    worse, same: the reason if it is worse, and if it is not.
    """

    finding: Finding
    p_worse: float
    p_better: float
    worse: str
    same: str
    exact: bool = False


@dataclass(frozen=True)
class SpeedTest:
    """A speed that waits for the scatter of all others. loss, tolerance: shares of the baseline's rate or time."""

    finding: Finding
    contest: Contest
    loss: float
    tolerance: float
    tolerance_text: str


Waiting = Finding | QualityTest | SpeedTest


def decide(found: Sequence[Waiting], alpha: float) -> list[Finding]:
    """Verdicts in the order given; the chance of any false "worse" is at most ``alpha`` among the tests of quality, and
    again among those of speed."""
    tests = [one for one in found if isinstance(one, QualityTest) and not one.exact]
    worse, better = holm([test.p_worse for test in tests]), holm([test.p_better for test in tests])
    adjusted = dict(zip(map(id, tests), zip(worse, better)))
    speeds = dict(zip(*_speed_p_values([one for one in found if isinstance(one, SpeedTest)])))
    decided = []
    for one in found:
        if isinstance(one, Finding):
            decided.append(one)
        elif isinstance(one, QualityTest):
            decided.append(_quality(one, *adjusted.get(id(one), (one.p_worse, one.p_better)), alpha))
        else:
            decided.append(_speed(one, *speeds[id(one)], alpha))
    return decided


def _quality(test: QualityTest, p_worse: float, p_better: float, alpha: float) -> Finding:
    if p_worse <= alpha:
        return replace(test.finding, verdict="worse", p=p_worse, reason=test.worse)
    if p_better <= alpha:
        return replace(test.finding, verdict="better", p=p_better, reason=test.same)
    return replace(test.finding, p=p_worse, reason=test.same)


def _speed_p_values(tests: Sequence[SpeedTest]) -> tuple[list[int], list[tuple[float, float]]]:
    """Adjusted p-values of being slower and faster by the tests' ids; the scatter of each metric is moderated apart."""
    p_values: dict[int, float] = {}
    for metric in dict.fromkeys(test.finding.metric for test in tests):
        group = [test for test in tests if test.finding.metric == metric]
        p_values |= zip(map(id, group), p_slower([test.contest for test in group]))
    slower = [p_values[id(test)] for test in tests]
    sides = ([p, 1.0 - p] if not math.isnan(p) else [1.0, 1.0] for p in slower)
    columns = list(zip(*sides)) or [(), ()]
    return [id(test) for test in tests], list(zip(holm(columns[0]), holm(columns[1])))


def _speed(test: SpeedTest, p_worse: float, p_better: float, alpha: float) -> Finding:
    told = f"{abs(test.loss):.1%} {'slower' if test.loss > 0 else 'faster'} by medians, tolerance {test.tolerance_text}"
    if not test.contest.freedom:
        told += "; one repetition is no measure of its scatter"
    verdict: Verdict = "same"
    if test.loss > test.tolerance and p_worse <= alpha:
        verdict = "worse"
    elif -test.loss > test.tolerance and p_better <= alpha:
        verdict = "better"
    return replace(test.finding, verdict=verdict, p=p_better if verdict == "better" else p_worse, reason=told)
