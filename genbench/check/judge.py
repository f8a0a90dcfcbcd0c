"""Verdicts: each row and metric of a baseline, and whether a candidate is better, worse, or the same within noise.

``comparable`` says how a number was made, not how the model was: another budget, seed or config is just what is judged.
A verdict "worse" needs the harm to lie beyond the tolerance by a one-sided test, its p-value adjusted for the number of
tests by Holm's method; "better" likewise, without a tolerance. Of a metric with a right value (the test split's, say)
harm is to be further away from it. Speed has its own rule, see `genbench.check.speed`: the ratio of medians beyond the
tolerance, and Welch's test at alpha.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from genbench.check.collect import Entry, by_row, one_suite
from genbench.check.evidence import Evidence, Measurement, evidence, holm
from genbench.check.speed import SPEED_METRICS, median_ratio, p_slower
from genbench.check.tolerance import DEFAULT_TOLERANCES, Tolerance
from genbench.errors import UsageError, unknown
from genbench.evaluation.compare import first_difference
from genbench.record import MetricResult

Verdict = Literal["better", "same", "worse", "missing", "not comparable"]
Identity = tuple[str, str, str | None]
"""Name, estimator and extractor of a metric."""


@dataclass(frozen=True)
class Finding:
    """What is found of one metric of one row; of a whole row where ``metric`` is "".

    baseline, candidate: values, means over seeds. change: the difference, with its 95 % interval. p: one-sided and
    adjusted, of being worse. reason: one sentence.
    """

    row: str
    metric: str
    verdict: Verdict
    reason: str
    estimator: str = ""
    extractor: str | None = None
    baseline: float | None = None
    candidate: float | None = None
    change: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None

    @property
    def fails(self) -> bool:
        """Whether it fails the check."""
        return self.verdict in ("worse", "missing")


@dataclass(frozen=True)
class Options:
    """Which rows and metrics are judged, and how strictly. Empty: all of the baseline's."""

    alpha: float = 0.01
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    models: Sequence[str] = ()
    metrics: Sequence[str] = ()

    def tolerance(self, metric: str) -> Tolerance:
        """The one asked for, else the default one."""
        return self.tolerances.get(metric, DEFAULT_TOLERANCES.get(metric, Tolerance()))


@dataclass(frozen=True)
class Verdicts:
    """All findings of a check. new: rows of the candidate that the baseline does not have."""

    suite: str
    findings: tuple[Finding, ...]
    new: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether there is a regression, or something is missing."""
        return any(finding.fails for finding in self.findings)

    def count(self, verdict: Verdict) -> int:
        """Number of findings of a verdict."""
        return sum(finding.verdict == verdict for finding in self.findings)


@dataclass(frozen=True)
class _Test:
    """A finding that waits for the adjustment of its p-values."""

    finding: Finding
    p_worse: float
    p_better: float
    worse: str
    same: str


def judge(candidate: Sequence[Entry], baseline: Sequence[Entry], options: Options | None = None) -> Verdicts:
    """Judge a candidate's records against a baseline's.

    Raises:
        UsageError: no records of one suite on both sides, or a model or metric that the baseline does not have.
    """
    options = options or Options()
    if not 0 < options.alpha < 1:
        raise UsageError(f"alpha must be between 0 and 1, got {options.alpha}.")
    if not candidate or not baseline:
        raise UsageError("There is nothing to check: one side has no records.")
    suite = one_suite(candidate, baseline)
    before, after = by_row(baseline), by_row(candidate)
    _check_asked(before, options)
    found: list[Finding | _Test] = []
    for row, entries in before.items():
        if _asked(row, options.models):
            found += _judge_row(row, entries, after.get(row), options)
    new = tuple(row for row in after if row not in before and _asked(row, options.models))
    return Verdicts(suite, tuple(_adjusted(found, options.alpha)), new)


def _asked(row: str, models: Sequence[str]) -> bool:
    return not models or row in models or row.split("@")[0] in models


def _check_asked(before: Mapping[str, Sequence[Entry]], options: Options) -> None:
    for model in options.models:
        if not any(_asked(row, [model]) for row in before):
            raise unknown("row of the baseline", model, before)
    known = {m.name for entries in before.values() for entry in entries for m in entry.record.metrics if _has(m)}
    for name in (*options.metrics, *options.tolerances):
        if name not in known:
            raise unknown("metric of the baseline", name, sorted(known))


def _has(metric: MetricResult) -> bool:
    return metric.status == "ok"


def _judge_row(
    row: str, baseline: Sequence[Entry], candidate: Sequence[Entry] | None, options: Options
) -> list[Finding | _Test]:
    baseline = [entry for entry in baseline if entry.record.status == "ok"]
    if not baseline:
        return []
    if candidate is None:
        return [Finding(row, "", "missing", "the candidate has no such row")]
    failed = [entry.record for entry in candidate if entry.record.status == "failed"]
    if failed:
        return [Finding(row, "", "missing", f"seed {failed[0].seed} failed: {failed[0].reason}")]
    found: list[Finding | _Test] = []
    for identity in _identities(baseline):
        if not options.metrics or identity[0] in options.metrics:
            sides = [_measurements(entries, identity) for entries in (baseline, candidate)]
            found.append(_judge_metric(row, identity, sides[0], sides[1], candidate, options))
    if found and all(isinstance(one, Finding) and one.verdict == "not comparable" for one in found):
        reason = found[0].reason  # type: ignore[union-attr]
        found.append(Finding(row, "", "missing", f"nothing of this row can be compared: {reason}"))
    return found


def _identities(entries: Iterable[Entry]) -> list[Identity]:
    return list(
        dict.fromkeys((m.name, m.estimator, m.extractor) for entry in entries for m in entry.record.metrics if _has(m))
    )


def _measurements(entries: Iterable[Entry], identity: Identity) -> list[Measurement]:
    return [
        (entry, metric)
        for entry in entries
        for metric in entry.record.metrics
        if (metric.name, metric.estimator, metric.extractor) == identity and _has(metric)
    ]


def _judge_metric(
    row: str,
    identity: Identity,
    baseline: list[Measurement],
    candidate: list[Measurement],
    records: Sequence[Entry],
    options: Options,
) -> Finding | _Test:
    name, estimator, extractor = identity
    start = Finding(row, name, "same", "", estimator, extractor, baseline=_mean(baseline))
    if len(candidate) < len(records):
        return replace(start, verdict="missing", reason=_why_missing(identity, records))
    start = replace(start, candidate=_mean(candidate))
    for _, metric in candidate:
        unlike = first_difference(baseline[0][1].comparable, metric.comparable)
        if unlike is not None:
            return replace(start, verdict="not comparable", reason=unlike)
    if name in SPEED_METRICS:
        return _judge_speed(start, baseline, candidate, options)
    found = evidence(baseline, candidate)
    if found is None:
        return _judge_without_interval(start, baseline[0][1], options)
    start = replace(start, change=found.value, ci95=found.ci95)
    return _tested(start, found, baseline[0][1], options)


def _mean(measurements: Sequence[Measurement]) -> float:
    values = [metric.value for _, metric in measurements if metric.value is not None]
    return sum(values) / len(values)


def _why_missing(identity: Identity, records: Sequence[Entry]) -> str:
    name, estimator, _ = identity
    for entry in records:
        metric = entry.record.find(name, estimator) or entry.record.find(name)
        if metric is not None and metric.status != "ok":
            return f"seed {entry.record.seed}: {metric.status.replace('_', ' ')}: {metric.reason}"
    return "the candidate does not have it"


def _judge_speed(
    start: Finding, baseline: list[Measurement], candidate: list[Measurement], options: Options
) -> Finding:
    before, after = ([entry for entry, _ in side] for side in (baseline, candidate))
    ratio = median_ratio(before, after, start.metric)
    if ratio is None:
        return replace(start, verdict="not comparable", reason="a record has no timing windows")
    loss, tolerance = 1.0 - ratio, options.tolerance(start.metric)
    p = p_slower(before, after, start.metric)
    told = f"{abs(loss):.1%} {'slower' if loss > 0 else 'faster'} by medians (tolerance {tolerance.text})"
    start = replace(start, change=(start.candidate or 0.0) - (start.baseline or 0.0), p=p, reason=told)
    if loss > tolerance.share and p <= options.alpha:
        return replace(start, verdict="worse")
    faster = p_slower(after, before, start.metric)
    return replace(start, verdict="better" if -loss > tolerance.share and faster <= options.alpha else "same")


def _judge_without_interval(start: Finding, metric: MetricResult, options: Options) -> Finding:
    """A value without an interval is judged by a tolerance that was asked for, and by nothing else."""
    before, after = start.baseline, start.candidate
    assert before is not None and after is not None
    change = after - before
    start = replace(start, change=change)
    if metric.name not in options.tolerances or metric.higher_is_better is None:
        return replace(start, verdict="not comparable", reason="it has no interval; name a --tolerance to judge it")
    harm = -change if metric.higher_is_better else change
    tolerance = options.tolerances[metric.name]
    worse = harm > tolerance.margin(before)
    reason = f"{'beyond' if worse else 'within'} the tolerance of {tolerance.text}"
    return replace(start, verdict="worse" if worse else "same", reason=reason)


def _tested(start: Finding, found: Evidence, metric: MetricResult, options: Options) -> Finding | _Test:
    before, after = start.baseline, start.candidate
    assert before is not None and after is not None
    tolerance = options.tolerance(metric.name)
    margin, up, sides = tolerance.margin(before), metric.higher_is_better, 1
    if up is None:
        right = right_value(metric)
        if right is None:
            return _without_direction(start)
        target, one_sided = right
        start = replace(start, reason=f"its right value is {target:.4g}; ")
        if one_sided and max(before, after) <= target:
            return replace(start, reason=f"at most {target:.4g}, which is right")
        nearer = abs(after - target) <= abs(before - target)
        up, sides = (False, 1) if one_sided else (nearer == (after >= before), 2)
    worse, better = (found.p_below(-margin), found.p_above(0.0)) if up else (found.p_above(margin), found.p_below(0.0))
    beyond = f", beyond the tolerance of {tolerance.text}" if margin else ""
    told = start.reason + found.method
    return _Test(start, min(1.0, sides * worse), min(1.0, sides * better), f"{told}{beyond}", told)


def right_value(metric: MetricResult) -> tuple[float, bool] | None:
    """The value that honest samples have, where the record says it, and whether only to exceed it is wrong."""
    extra = metric.provenance.get("extra")
    places = extra if isinstance(extra, dict) else {}
    for key, one_sided in (("expected", True), ("test_split", False)):
        value = places.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value), one_sided
    return None


def _without_direction(start: Finding) -> Finding:
    if start.change == 0:
        return replace(start, reason="equal")
    return replace(start, verdict="not comparable", reason="it is no measure of quality: neither direction is better")


def _adjusted(found: Iterable[Finding | _Test], alpha: float) -> list[Finding]:
    found = list(found)
    tests = [one for one in found if isinstance(one, _Test)]
    worse, better = holm([test.p_worse for test in tests]), holm([test.p_better for test in tests])
    findings, number = [], 0
    for one in found:
        if isinstance(one, Finding):
            findings.append(one)
            continue
        p, q, number = worse[number], better[number], number + 1
        if p <= alpha:
            findings.append(replace(one.finding, verdict="worse", p=p, reason=one.worse))
        else:
            verdict: Verdict = "better" if q <= alpha else "same"
            findings.append(replace(one.finding, verdict=verdict, p=p, reason=one.same))
    return findings
