"""From tests to verdicts: p-values adjusted for their number, quality and speed each as one family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from genbench.check.evidence import holm
from genbench.check.finding import Finding, Verdict
from genbench.check.speed import Contest, p_values

SURELY_BEYOND = 0.5
"""Share of a speed's tolerance that a loss must surely exceed, besides exceeding all of it by medians: runs of the same
code differ by more than their repetitions."""


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
    """A speed that waits for the scatter of all others. loss, tolerance: shares of the baseline's rate or time.

    paced: whether the loss is one at the machine's own pace.
    """

    finding: Finding
    contest: Contest
    loss: float
    tolerance: float
    tolerance_text: str
    paced: bool = False


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
    found: dict[int, tuple[float, float]] = {}
    for metric in dict.fromkeys(test.finding.metric for test in tests):
        group = [test for test in tests if test.finding.metric == metric]
        margins = [SURELY_BEYOND * test.tolerance for test in group]
        found |= zip(map(id, group), p_values([test.contest for test in group], margins))
    columns = [[1.0 if math.isnan(p) else p for p in side] for side in zip(*(found[id(test)] for test in tests))]
    slower, faster = columns or ([], [])
    return [id(test) for test in tests], list(zip(holm(slower), holm(faster)))


def _speed(test: SpeedTest, p_worse: float, p_better: float, alpha: float) -> Finding:
    how = "by medians at the machine's pace" if test.paced else "by medians"
    told = f"{abs(test.loss):.1%} {'slower' if test.loss > 0 else 'faster'} {how}, tolerance {test.tolerance_text}"
    if not test.contest.freedom:
        told += "; one repetition is no measure of its scatter"
    verdict: Verdict = "same"
    if test.loss > test.tolerance and p_worse <= alpha:
        verdict = "worse"
    elif -test.loss > test.tolerance and p_better <= alpha:
        verdict = "better"
    return replace(test.finding, verdict=verdict, p=p_better if verdict == "better" else p_worse, reason=told)
