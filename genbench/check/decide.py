"""From tests to verdicts: p-values adjusted for their number, quality and speed each as one family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from genbench.check.evidence import holm
from genbench.check.finding import Finding, Verdict
from genbench.check.speed import RATE, Contest, SpeedP, p_values

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

    paced: whether the loss is one at the machine's own pace. What `decide` is given has a scatter (see `with_scatter`).
    """

    finding: Finding
    contest: Contest
    loss: float
    tolerance: float
    tolerance_text: str
    paced: bool = False


Waiting = Finding | QualityTest | SpeedTest


def with_scatter(test: SpeedTest, mend: str) -> Waiting:
    """The test; where a side has one repetition the finding that it cannot be told from noise, with what mends it."""
    if test.contest.freedom:
        return test
    reason = f"one repetition is no measure of its scatter; {mend}"
    return replace(test.finding, verdict="not comparable", reason=reason)


def decide(found: Sequence[Waiting], alpha: float) -> list[Finding]:
    """Verdicts in the order given; the chance of any false "worse" is at most ``alpha`` among the tests of quality, and
    again among those of speed."""
    tests = [one for one in found if isinstance(one, QualityTest) and not one.exact]
    worse, better = holm([test.p_worse for test in tests]), holm([test.p_better for test in tests])
    adjusted = dict(zip(map(id, tests), zip(worse, better)))
    speeds = _decide_speeds([one for one in found if isinstance(one, SpeedTest)], alpha)
    decided = []
    for one in found:
        if isinstance(one, Finding):
            decided.append(one)
        elif isinstance(one, QualityTest):
            decided.append(_quality(one, *adjusted.get(id(one), (one.p_worse, one.p_better)), alpha))
        else:
            decided.append(speeds[id(one)])
    return decided


def _quality(test: QualityTest, p_worse: float, p_better: float, alpha: float) -> Finding:
    if p_worse <= alpha:
        return replace(test.finding, verdict="worse", p=p_worse, reason=test.worse)
    if p_better <= alpha:
        return replace(test.finding, verdict="better", p=p_better, reason=test.same)
    return replace(test.finding, p=p_worse, reason=test.same)


def _speed_p_values(tests: Sequence[SpeedTest]) -> list[SpeedP]:
    """Of each test; the scatter of each metric is moderated apart."""
    found: dict[int, SpeedP] = {}
    for metric in dict.fromkeys(test.finding.metric for test in tests):
        group = [test for test in tests if test.finding.metric == metric]
        margins = [SURELY_BEYOND * test.tolerance for test in group]
        found |= zip(map(id, group), p_values([test.contest for test in group], margins))
    return [found[id(test)] for test in tests]


def _decide_speeds(tests: Sequence[SpeedTest], alpha: float) -> dict[int, Finding]:
    """Findings by the tests' ids."""
    found = _speed_p_values(tests)
    slower, faster = holm([one.slower for one in found]), holm([one.faster for one in found])
    made = {}
    for test, one, p_worse, p_better in zip(tests, found, slower, faster):
        share = one.least_loss(alpha / len(tests))
        seen = max(test.tolerance, share if test.finding.metric == RATE else share / (1 - share))
        made[id(test)] = _speed(test, p_worse, p_better, alpha, seen)
    return made


def _speed(test: SpeedTest, p_worse: float, p_better: float, alpha: float, seen: float) -> Finding:
    """seen: the loss from which it is called worse."""
    how = "by medians at the machine's pace" if test.paced else "by medians"
    told = f"{abs(test.loss):.1%} {'slower' if test.loss > 0 else 'faster'} {how}, tolerance {test.tolerance_text}"
    verdict: Verdict = "same"
    if test.loss > test.tolerance and p_worse <= alpha:
        verdict = "worse"
    elif -test.loss > test.tolerance and p_better <= alpha:
        verdict = "better"
    elif seen > test.tolerance:
        told += f"; its scatter hides losses up to {seen:.0%}"
    return replace(test.finding, verdict=verdict, p=p_better if verdict == "better" else p_worse, reason=told)
