"""Values that contradict themselves or the timing and training that lie beside them: an edited record."""

from __future__ import annotations

import math
from collections.abc import Mapping

from genbench.evaluation.compare import first_difference
from genbench.leaderboard.statements import QUALITIES, named
from genbench.metrics.base import Estimate
from genbench.record import MetricResult, Record, Timing, Training
from genbench.report.names import METRICS, metric_name

RELATIVE = 1e-6
"""Numbers that differ by less, relative to the larger, are equal."""
NO_INTERVAL = "no interval"
"""How the note of a metric begins that has none."""

_EDITED = "the record was edited, or its files are of another run. Run `genbench rescore` and hand in what that wrote."


def contradicted(metric: MetricResult, what: str, given: str) -> str:
    """A sentence: ``metric`` is ``what``, but what lies beside it gives ``given``."""
    return f"{named(metric)} {what}, but what lies beside it gives {given}: {_EDITED}"


def is_close(a: float, b: float) -> bool:
    """Whether two numbers are equal but for float noise."""
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=1e-12)


def contradictions(record: Record) -> list[str]:
    """Everything in a record that cannot be true together."""
    whole = [metric for metric in record.metrics if metric.status == "ok"]
    found = [reason for metric in whole for reason in (_interval(metric), _range(metric), _count(metric)) if reason]
    return found + _costs(record, whole)


def _interval(metric: MetricResult) -> str:
    """A value lies within its interval; one of quality without an interval says why there is none.

    Metrics of plug-ins may correct an interval for a bias of the value, and leave it out.
    """
    known, value = metric.name in METRICS, metric.value
    if metric.ci95 is None:
        asked = known and metric_name(metric.name).group in QUALITIES
        notes = metric.provenance.get("notes") or ()
        if not asked or any(str(note).startswith(NO_INTERVAL) for note in notes) or (metric.n or 0) < 3:
            return ""
        return f"{named(metric)} has no 95 % interval, and no note says why. Score it again: `genbench rescore`."
    low, high = metric.ci95
    assert value is not None
    slack = 1e-12 + RELATIVE * max(abs(low), abs(high), abs(value))
    if low > high + slack:
        return f"the interval of {named(metric)}, [{low:.6g}, {high:.6g}], ends before it begins: {_EDITED}"
    if known and not low - slack <= value <= high + slack:
        return f"{named(metric)} is {value:.6g}, outside its own interval [{low:.6g}, {high:.6g}]: {_EDITED}"
    return ""


def _range(metric: MetricResult) -> str:
    low, high = metric_name(metric.name).range
    assert metric.value is not None
    if low - RELATIVE <= metric.value <= high + RELATIVE:
        return ""
    expected = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
    return f"{named(metric)} is {metric.value:.6g}, expected {expected}: {_EDITED}"


def _count(metric: MetricResult) -> str:
    stated = metric.comparable.get("n", metric.n)
    if metric.n is None or stated == metric.n:
        return ""
    return f"{named(metric)} is of n = {metric.n}, but its comparable says n = {stated}: {_EDITED}"


def _costs(record: Record, whole: list[MetricResult]) -> list[str]:
    """Figures of speed, size and training that are not those of the record's own timing and training."""
    if record.timing is not None and not _is_whole(record.timing):
        return ["its timing has no windows or single images, or some that took no time. Run the suite again."]
    expected = _cost_figures(record)
    return [reason for metric in whole if metric.name in expected for reason in _of_cost(metric, expected[metric.name])]


def _is_whole(timing: Timing) -> bool:
    pairs = [(window.images, window.seconds) for window in timing.windows]
    numbers = [number for pair in pairs for number in pair] + timing.latency_seconds
    return bool(pairs and timing.latency_seconds) and all(0 < number < math.inf for number in numbers)


def _cost_figures(record: Record) -> Mapping[str, Estimate]:
    """What timing and training make of the figures; where it was trained, the record does not say."""
    from genbench.run.scoring import cost_figures

    training = record.training
    size = None if training is None or record.control else training.parameters
    found = cost_figures(size, training or Training(), record.timing, {})
    if training is not None:
        found["training_seconds"] = Estimate(training.seconds, 1)
        if training.images_per_second is not None:
            found["training_images_per_second"] = Estimate(training.images_per_second, 1)
    return found


def _of_cost(metric: MetricResult, expected: Estimate) -> list[str]:
    assert metric.value is not None
    found = []
    if not is_close(metric.value, expected.value):
        found.append(contradicted(metric, f"is {metric.value:.6g}", f"{expected.value:.6g}"))
    elif not _are_close(metric.ci95, expected.ci95):
        given, made = (_spelled(interval) for interval in (metric.ci95, expected.ci95))
        found.append(contradicted(metric, f"has {given}", made))
    if metric.n is not None and metric.n != expected.n:
        found.append(contradicted(metric, f"is of n = {metric.n}", f"n = {expected.n}"))
    here = {key: value for key, value in metric.comparable.items() if key in expected.conditions}
    unlike = first_difference(here, expected.conditions)
    if unlike is not None:
        found.append(f"the comparable of {named(metric)} is not what its timing says: {unlike}: {_EDITED}")
    return found


def _are_close(a: tuple[float, float] | None, b: tuple[float, float] | None) -> bool:
    if a is None or b is None:
        return a is b
    return all(is_close(x, y) for x, y in zip(a, b, strict=True))


def _spelled(interval: tuple[float, float] | None) -> str:
    return "no interval" if interval is None else f"the interval [{interval[0]:.6g}, {interval[1]:.6g}]"
