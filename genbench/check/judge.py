"""Verdicts: each row and metric of a baseline, and whether a candidate is better, worse, or the same within noise.

``comparable`` says how a number was made, not how the model was: another budget, seed or config is just what is judged.
A verdict "worse" needs the harm to lie beyond the tolerance by a one-sided test, its p-value adjusted for the number of
tests by Holm's method; "better" likewise, without a tolerance. Of a metric with a right value (the test split's, say)
harm is to be further away from it. Values that are known exactly need no test and count as none; what lies within
`ROUNDING` is the same however surely it differs. Speeds are a family of tests of their own: the ratio of medians beyond
the tolerance, and the test of `genbench.check.speed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from genbench.check.collect import Entry, by_row, one_suite
from genbench.check.decide import QualityTest, SpeedTest, Waiting, decide, with_scatter
from genbench.check.evidence import (
    ROUNDING,
    Evidence,
    Identity,
    Measurement,
    evidence,
    evidence_of_spread,
    first_unlike,
    has_interval,
    measurements,
    with_sum,
)
from genbench.check.finding import Finding, Options, Verdicts
from genbench.check.harm import harm, right_value
from genbench.check.over_rows import moderated_table
from genbench.check.speed import LEAST_GIVEN, RATE, SPEED_METRICS, contest, given
from genbench.check.speed import sides as speeds
from genbench.errors import UsageError, unknown
from genbench.record import MetricResult
from genbench.report.names import metric_name


@dataclass(frozen=True)
class _Measured:
    """A finding that waits for what other rows tell of the spread of seeds."""

    finding: Finding
    evidence: Evidence
    metric: MetricResult

    @property
    def key(self) -> tuple[str, Identity]:
        """Row and metric, which no other finding has."""
        return self.finding.row, (self.finding.metric, self.finding.estimator, self.finding.extractor)


_Found = Waiting | _Measured


@dataclass(frozen=True)
class _Sides:
    """One metric of one row: its measurements, and all entries of the candidate's row."""

    baseline: list[Measurement]
    candidate: list[Measurement]
    entries: Sequence[Entry]


def judge(
    candidate: Sequence[Entry],
    baseline: Sequence[Entry],
    options: Options | None = None,
    more: Sequence[Waiting] = (),
) -> Verdicts:
    """Judge a candidate's records against a baseline's.

    Args:
        more: what is judged beside the records, in the same families of tests (see `genbench.check.benchmarks`).

    Raises:
        UsageError: no records of one suite on both sides, a model or metric that the baseline does not have, or nothing
            that could be judged.
    """
    options = options or Options()
    if not 0 < options.alpha < 1:
        raise UsageError(f"alpha must be between 0 and 1, got {options.alpha}.")
    if not candidate or not baseline:
        raise UsageError("There is nothing to check: one side has no records.")
    suite = one_suite(candidate, baseline)
    before, after = by_row(baseline), by_row(candidate)
    _check_asked(before, options)
    found: list[_Found] = []
    lacking: list[Finding] = []
    for row, entries in before.items():
        if options.asks(row):
            lacking += _lacking(row, entries, options)
            found += _judge_row(row, entries, after.get(row), options)
    if all(isinstance(one, Finding) and one.verdict == "not comparable" and not one.metric for one in found):
        raise UsageError(
            "There is nothing to check: no row of the baseline that is asked for has a value of the metrics asked for."
        )
    new = tuple(row for row in after if row not in before and options.asks(row))
    decided = decide([*_tested(found, options), *lacking, *more], options.alpha)
    return Verdicts(suite, tuple(decided), new, _left_aside(before, options))


def _check_asked(before: Mapping[str, Sequence[Entry]], options: Options) -> None:
    for model in options.models:
        if model not in before:
            raise unknown("row of the baseline", model, before)
    known = {m.name for entries in before.values() for entry in entries for m in entry.record.metrics if _has(m)}
    for name in (*options.metrics, *(name for name in options.tolerances if name != "benchmarks")):
        if name not in known:
            raise unknown("metric of the baseline", name, sorted(known))


def _has(metric: MetricResult) -> bool:
    return metric.status == "ok"


def _left_aside(before: Mapping[str, Sequence[Entry]], options: Options) -> tuple[str, ...]:
    """Rows of the baseline that are not asked for, though another row of their model is."""
    models = {row.split("@")[0] for row in before if options.asks(row)}
    return tuple(row for row in before if not options.asks(row) and row.split("@")[0] in models)


def _lacking(row: str, baseline: Sequence[Entry], options: Options) -> list[Finding]:
    """One finding for each metric that is asked for and that the baseline's row does not have.

    Raises:
        UsageError: the row is asked for as well, and the metric applies to it, or it has none of those asked for.
    """
    if all(entry.record.status == "failed" for entry in baseline):
        return []
    known = {metric.name for entry in baseline for metric in entry.record.metrics if _has(metric)}
    found = []
    for name in (name for name in options.metrics if name not in known):
        alike = [metric for entry in baseline for metric in entry.record.metrics if metric.name == name]
        applies = not alike or any(metric.status != "not_applicable" for metric in alike)
        why = f" ({alike[0].status.replace('_', ' ')})" if alike else ""
        if row in options.models and (applies or known.isdisjoint(options.metrics)):
            raise UsageError(
                f"Row '{row}' of the baseline has no value of '{name}'{why}. Leave the row or the metric out, or check "
                "them apart."
            )
        told = f"the baseline has no value of it{why}"
        found.append(Finding(row, name, "not comparable", told, by_nature=not applies))
    return found


def _judge_row(
    row: str, baseline: Sequence[Entry], candidate: Sequence[Entry] | None, options: Options
) -> list[_Found]:
    """Of a control the speed is not judged: it hands out images that are there."""
    control = any(entry.record.control for entry in baseline)
    asked = [
        identity
        for identity in _identities(baseline)
        if (not options.metrics or identity[0] in options.metrics) and not (control and identity[0] in SPEED_METRICS)
    ]
    if not asked:
        broken = [entry.record for entry in baseline if entry.record.status == "failed"]
        told = [f"the baseline's seed {record.seed} failed: {record.reason}" for record in broken]
        return [Finding(row, "", "not comparable", told[0])] if len(broken) == len(baseline) else []
    if candidate is None:
        return [Finding(row, "", "missing", "the candidate has no such row")]
    failed = [entry.record for entry in candidate if entry.record.status == "failed"]
    if failed:
        return [Finding(row, "", "missing", f"seed {failed[0].seed} failed: {failed[0].reason}")]
    found: list[_Found] = []
    for identity in asked:
        sides = _Sides(measurements(baseline, identity), measurements(candidate, identity), candidate)
        found.append(_judge_metric(row, identity, sides, options))
    return [*found, *_unjudged(row, found)]


def _unjudged(row: str, found: Sequence[_Found]) -> list[Finding]:
    """A row that is there, but of which nothing can be judged, or of its quality nothing, is as good as missing."""
    unlike = [one for one in found if isinstance(one, Finding) and one.verdict == "not comparable"]
    if len(unlike) == len(found):
        told = next((one for one in unlike if not one.by_nature), unlike[0])
        reason = f"nothing of this row can be compared, {told.metric} for one: {told.reason}"
        return [Finding(row, "", "missing", reason)]
    quality = [one for one in found if not _is_cost(_finding(one).metric)]
    unlike = [one for one in unlike if one in quality and not one.by_nature]
    judged = [one for one in quality if not _finding(one).by_nature]
    if unlike and len(unlike) == len(judged):
        reason = f"nothing of this row's quality can be compared, {unlike[0].metric} for one: {unlike[0].reason}"
        return [Finding(row, "", "missing", reason)]
    return []


def _finding(one: _Found) -> Finding:
    return one if isinstance(one, Finding) else one.finding


def _identities(entries: Iterable[Entry]) -> list[Identity]:
    return list(
        dict.fromkeys((m.name, m.estimator, m.extractor) for entry in entries for m in entry.record.metrics if _has(m))
    )


def _judge_metric(row: str, identity: Identity, sides: _Sides, options: Options) -> _Found:
    name, estimator, extractor = identity
    start = Finding(row, name, "same", "", estimator, extractor, baseline=_mean(sides.baseline))
    if len(sides.candidate) < len(sides.entries):
        other = _other_extractor(identity, sides.entries)
        if other is not None:
            return replace(start, verdict="not comparable", reason=f"extractor: {extractor} against {other}")
        return replace(start, verdict="missing", reason=_why_missing(identity, sides.entries))
    start = replace(start, candidate=_mean(sides.candidate))
    unlike = first_unlike([*sides.baseline, *sides.candidate])
    if unlike is not None:
        return replace(start, verdict="not comparable", reason=unlike)
    if name in SPEED_METRICS:
        return _judge_speed(start, sides, options)
    found = evidence(sides.baseline, sides.candidate) or _evidence_of_seeds(sides)
    if found is None:
        return _judge_without_interval(start, sides, options)
    metric = sides.baseline[0][1]
    start = replace(start, change=found.value, ci95=found.ci95)
    if metric.higher_is_better is None:
        if right_value(metric) is None:
            return _without_direction(start)
        found = with_sum(found, sides.baseline, sides.candidate)
    return _Measured(start, found, metric)


def _evidence_of_seeds(sides: _Sides) -> Evidence | None:
    """By the spread of seeds alone, where the baseline has no interval either; not of costs, which vary with the
    machine and the hour more than with the seed."""
    if _is_cost(sides.baseline[0][1].name) or has_interval(sides.baseline):
        return None
    return evidence_of_spread(sides.baseline, sides.candidate)


def _is_cost(metric: str) -> bool:
    return metric_name(metric).group == "cost"


def _tested(found: Sequence[_Found], options: Options) -> list[Waiting]:
    """Everything in its place, the evidence on each metric moderated over rows and put to the test."""
    surer = moderated_table({one.key: one.evidence for one in found if isinstance(one, _Measured)})

    def test(one: _Measured) -> QualityTest:
        finding = replace(one.finding, ci95=surer[one.key].ci95)
        return _judge_quality(finding, surer[one.key], one.metric, options)

    return [test(one) if isinstance(one, _Measured) else one for one in found]


def _mean(measurements: Sequence[Measurement]) -> float:
    values = [metric.value for _, metric in measurements if metric.value is not None]
    return sum(values) / len(values)


def _other_extractor(identity: Identity, entries: Sequence[Entry]) -> str | None:
    """The extractor with which every record has this metric and estimator, where it is another one."""
    name, estimator, extractor = identity
    others = [
        {m.extractor for m in entry.record.metrics if _has(m) and (m.name, m.estimator) == (name, estimator)}
        - {extractor}
        for entry in entries
    ]
    return next((str(other) for other in sorted(others[0], key=str) if all(other in found for found in others)), None)


def _why_missing(identity: Identity, entries: Sequence[Entry]) -> str:
    """Of the first of the candidate's records that lacks a metric; its seed is named where another has it."""
    name, estimator, extractor = identity
    lacking = [entry for entry in entries if not measurements([entry], identity)]
    record = lacking[0].record
    metric = record.find(name, estimator) or record.find(name)
    if metric is not None and metric.status != "ok":
        return f"seed {record.seed}: {metric.status.replace('_', ' ')}: {metric.reason}"
    who = "the candidate" if len(lacking) == len(entries) else f"the candidate's seed {record.seed}"
    others = [found for found in record.metrics if found.name == name and _has(found)]
    if not others:
        return f"{who} does not have it"
    extractors = [str(found.extractor) for found in others if found.estimator == estimator]
    if extractors:
        return f"{who} has it by extractor {', '.join(extractors)} only, not by {extractor}"
    return f"{who} has it by {', '.join(found.estimator for found in others)} only, not by {estimator}"


def _judge_speed(start: Finding, sides: _Sides, options: Options) -> Waiting:
    """A speed that was timed alone on both sides waits for the scatter of all others."""
    entries = [[entry for entry, _ in side] for side in (sides.baseline, sides.candidate)]
    rates = speeds(entries[0], entries[1], start.metric)
    before, after = rates.rates
    value = _mean(sides.baseline)
    if not len(before) or value <= 0:
        return replace(start, verdict="not comparable", reason="the baseline has no timing windows, or none above 0")
    if not len(after):
        return replace(start, verdict="missing", reason="the candidate has no timing windows, or none above 0")
    start = replace(start, change=_mean(sides.candidate) - value)
    for who, side in zip(("baseline", "candidate"), entries):
        if (share := given(side)) < LEAST_GIVEN:
            told = f"the {who} was timed while others held the processor {1 - share:.0%} of the time"
            reason = f"{told}; `genbench run --windows 24` adds windows, on a quiet machine"
            return replace(start, verdict="not comparable", reason=reason)
    tolerance = options.tolerance(start.metric)
    found = contest(rates)
    loss = 1.0 - found.ratio if start.metric == RATE else 1.0 / found.ratio - 1.0
    test = SpeedTest(start, found, loss, tolerance.margin(value) / value, tolerance.text, rates.paces is not None)
    return with_scatter(test, "time it again in more windows, `genbench run --windows`")


def _judge_without_interval(start: Finding, sides: _Sides, options: Options) -> Finding:
    """A value without an interval, of one seed or a cost, is judged by a tolerance that was asked for, and by nothing
    else.

    A candidate that lost the interval that the baseline has is missing it.
    """
    metric = sides.baseline[0][1]
    before, after = start.baseline, start.candidate
    assert before is not None and after is not None
    change = after - before
    start = replace(start, change=change)
    right = right_value(metric) if metric.higher_is_better is None else None
    if metric.higher_is_better is None and right is None:
        return _without_direction(start)
    if has_interval(sides.baseline):
        return replace(start, verdict="missing", reason="the value has no interval, the baseline's has one")
    if metric.name not in options.tolerances:
        reason = "it has no interval; name a --tolerance to judge it"
        return replace(start, verdict="not comparable", reason=reason, by_nature=True)
    if right is not None:
        harm = right.distance(after) - right.distance(before)
    else:
        harm = -change if metric.higher_is_better else change
    tolerance = options.tolerances[metric.name]
    worse = harm > tolerance.margin(before)
    reason = f"no interval; {'beyond' if worse else 'within'} the tolerance of {tolerance.text}"
    return replace(start, verdict="worse" if worse else "same", reason=reason)


def _judge_quality(start: Finding, found: Evidence, metric: MetricResult, options: Options) -> QualityTest:
    assert start.baseline is not None
    tolerance = options.tolerance(metric.name)
    margin = tolerance.margin(start.baseline)
    judged = harm(found, metric, start.baseline, margin)
    told = "; ".join(text for text in (judged.told, found.method) if text)
    if 0 < abs(found.value) <= ROUNDING * abs(start.baseline):
        return QualityTest(start, 1.0, 1.0, "", f"{told}; no more than rounding", found.exact)
    beyond = f"{told}, beyond the tolerance of {tolerance.text}" if margin else told
    return QualityTest(start, judged.p_worse, judged.p_better, beyond, told, found.exact and judged.certain)


def _without_direction(start: Finding) -> Finding:
    if start.change == 0:
        return replace(start, reason="equal")
    reason = "it is no measure of quality: neither direction is better"
    return replace(start, verdict="not comparable", reason=reason, by_nature=True)
