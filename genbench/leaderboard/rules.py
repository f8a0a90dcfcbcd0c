"""What a record must state to become a row. Everything that is wrong is said at once, each with how to mend it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from genbench import registry
from genbench.check.collect import Entry
from genbench.errors import GenbenchError
from genbench.evaluation.compare import first_difference
from genbench.metrics import load_metric
from genbench.record import MetricKind, MetricResult, Record
from genbench.report.names import metric_name
from genbench.report.pictures import is_safe_name
from genbench.suite import Suite, load_suite

QUALITIES = ("quality", "likelihood", "reconstruction")
TIMED = {"images_per_second", "latency_seconds", "evaluations_per_image", "peak_memory_bytes"}
_RELATIVE = 1e-6


def problems(entry: Entry, suite: str, others: Sequence[Entry]) -> list[str]:
    """Everything that keeps a record, whose scores were read and have the hash that it states, from being a row.

    Args:
        suite: of the leaderboard.
        others: the records that are there, without one that this one replaces.
    """
    record = entry.record
    if record.suite != suite:
        return [f"it is a record of suite '{record.suite}', not '{suite}'. Add it to leaderboards/{record.suite}."]
    if record.status != "ok":
        return [f"the row failed: {record.reason}. Mend the model and run the suite again."]
    unfit = unfit_for_print(record)
    if unfit:
        return [unfit]
    return [
        *_names(record),
        *_suite(record),
        *_statements(record),
        *_arithmetic(entry),
        *_dataset(record, others),
        *_comparable(record, others),
        *_kinds(record, others),
        *_other_seeds(record, others),
    ]


def unfit_for_print(record: Record) -> str:
    """What of a record's free fields cannot be written as JSON or as UTF-8 text; empty where all can."""
    free = {"environment": record.environment, "comparable": [metric.comparable for metric in record.metrics]}
    for name, value in free.items():
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            return f"its {name} holds what cannot be written down ({error}). Run the suite again; do not edit records."
    return ""


def _names(record: Record) -> list[str]:
    """Names become names of files and parts of addresses."""
    if is_safe_name(record.row):
        return []
    return [
        f"the row's name {record.row!r} cannot name a file. Rename the model or the variant: letters, digits "
        "and _ . + -, a letter or a digit first."
    ]


def _suite(record: Record) -> list[str]:
    """What a packaged suite asks for; nothing of a suite that is not packaged."""
    try:
        suite = load_suite(record.suite)
    except GenbenchError:
        return []
    again = f"Run `genbench run --suite {record.suite}` with this version of genbench."
    present = {metric.name for metric in record.metrics}
    asked = [name for name in suite.metrics if metric_name(name).group in QUALITIES]
    missing = [name for name in asked if name not in present]
    found = [f"metrics of the suite are missing: {', '.join(missing)}. {again}"] if missing else []
    known = _extractors(suite)
    foreign = sorted({m.extractor for m in record.metrics if m.extractor and m.extractor not in known})
    if foreign:
        found.append(f"features of {', '.join(foreign)}; this suite's are of {' or '.join(sorted(known))}. {again}")
    return found


def _extractors(suite: Suite) -> set[str]:
    texts = suite.image_text.partition(":")[0] if suite.image_text else None
    return {name for name in (suite.extractor, suite.fallback_extractor, texts) if name}


def _statements(record: Record) -> list[str]:
    """What each value and the record as a whole must say of themselves."""
    found = []
    whole = [metric for metric in record.metrics if metric.status == "ok"]
    if not any(metric_name(metric.name).group in QUALITIES for metric in whole):
        found.append("no metric of quality or likelihood has a value: there is nothing to rank.")
    for metric in whole:
        lacking = _unstated(metric)
        if lacking:
            found.append(
                f"{_named(metric)} does not state {' and '.join(lacking)}. Score it again: `genbench rescore`."
            )
    found += [_foreign(metric) for metric in record.metrics if _foreign(metric)]
    parts = {"config.model": record.config.get("model"), "environment": record.environment}
    if not record.control:
        parts |= {"training": record.training, "config.train": record.config.get("train")}
    absent = [name for name, part in parts.items() if part is None or (part == {} and name != "config.model")]
    if absent:
        found.append(f"it does not state its {', '.join(absent)}. Run the suite again; do not edit records.")
    if record.timing is None and any(metric.name in TIMED for metric in whole):
        found.append("it has figures of speed without the timing windows behind them. Run the suite again.")
    return found


def _unstated(metric: MetricResult) -> list[str]:
    lacking = [name for name in ("comparable", "n", "estimator") if not getattr(metric, name)]
    if metric.ci95 is not None and not metric.provenance.get("interval"):
        lacking.append("how its interval was had")
    return lacking


def _foreign(metric: MetricResult) -> str:
    """What a record says of a registered metric that the metric does not say of itself."""
    if metric.name not in registry.names("metrics"):
        return ""
    known = load_metric(metric.name)
    mine = {"unit": metric.unit, "higher_is_better": metric.higher_is_better}
    unlike = first_difference({name: getattr(known, name) for name in mine}, mine)
    if unlike is None:
        return ""
    return f"{_named(metric)} is not the {metric.name} of this version of genbench: {unlike}. Run `genbench rescore`."


def _named(metric: MetricResult) -> str:
    return f"{metric.name} ({metric.estimator})" if metric.estimator else metric.name


def _arithmetic(entry: Entry) -> list[str]:
    """Values that do not follow from what lies beside them: an edited record."""
    record = entry.record
    expected = {f"{name}.": value for name, value in _from_record(record).items()}
    for key, scores in entry.scores.items():
        finite = np.asarray(scores, dtype=np.float64)
        finite = finite[np.isfinite(finite)]
        if len(finite):
            expected[key] = float(finite.mean())
    found = []
    for metric in record.metrics:
        keys = (f"{metric.name}.{metric.estimator}", f"{metric.name}.")
        value = next((expected[key] for key in keys if key in expected), None)
        if metric.value is None or value is None:
            continue
        if not math.isclose(metric.value, value, rel_tol=_RELATIVE, abs_tol=_RELATIVE):
            found.append(
                f"{_named(metric)} is {metric.value:.6g}, but what lies beside it gives {value:.6g}: the record was "
                "edited, or its files are of another run. Run `genbench rescore` and hand in what that wrote."
            )
    return found


def _from_record(record: Record) -> Mapping[str, float]:
    found = {}
    timing, training = record.timing, record.training
    if timing is not None:
        if timing.windows and all(window.seconds > 0 for window in timing.windows):
            rates = [window.images / window.seconds for window in timing.windows]
            found["images_per_second"] = statistics.median(rates)
        if timing.latency_seconds:
            found["latency_seconds"] = statistics.median(timing.latency_seconds)
        found["evaluations_per_image"] = timing.evaluations_per_image
    if training is not None:
        found["training_seconds"] = training.seconds
        found["parameters"] = float(training.parameters)
    return found


def _dataset(record: Record, others: Sequence[Entry]) -> list[str]:
    there = next((other.record.dataset for other in others), None)
    if there is None:
        return []
    unlike = first_difference(there.model_dump(mode="json"), record.dataset.model_dump(mode="json"))
    if unlike is None:
        return []
    return [f"it is of other data than the rows that are there: {unlike}. Use the suite's own dataset and splits."]


def _comparable(record: Record, others: Sequence[Entry]) -> list[str]:
    """Values of quality that are measured in another way than all of the same kind that are there."""
    there: dict[tuple[str, str | None], list[MetricResult]] = {}
    for other in others:
        for metric in other.record.metrics:
            if metric.status == "ok":
                there.setdefault((metric.name, metric.extractor), []).append(metric)
    found = []
    for metric in record.metrics:
        known = there.get((metric.name, metric.extractor), [])
        if metric.status != "ok" or not known or metric_name(metric.name).group not in QUALITIES:
            continue
        unlike = [first_difference(one.comparable, metric.comparable) for one in known]
        if all(unlike):
            found.append(
                f"{_named(metric)} was measured in another way than the rows that are there: {unlike[0]}. Score it as "
                "they were, with the same version of genbench and the suite's settings; or score all rows anew."
            )
    return found


def _kinds(record: Record, others: Sequence[Entry]) -> list[str]:
    """No estimator is exact in one row and a bound or an estimate in another: exact likelihoods rank apart. (A bound
    whose density is itself estimated, by an ODE solver say, is an estimate.)"""
    there: dict[tuple[str, str], MetricKind] = {}
    for metric in (m for other in others for m in other.record.metrics if m.status == "ok"):
        there.setdefault((metric.name, metric.estimator), metric.kind)
    return [
        f"{_named(metric)} is stated as {metric.kind.replace('_', ' ')}, in the rows that are there as "
        f"{there[metric.name, metric.estimator].replace('_', ' ')}. Run `genbench rescore`; do not edit records."
        for metric in record.metrics
        if metric.status == "ok" and (metric.name, metric.estimator) in there
        if (metric.kind == "exact") != (there[metric.name, metric.estimator] == "exact")
    ]


def _other_seeds(record: Record, others: Sequence[Entry]) -> list[str]:
    """Seeds of one row are one system."""
    same = [other.record for other in others if other.record.row == record.row]
    if not same:
        return []
    sides = [{"config": one.config, "family": one.family, "control": one.control} for one in (same[0], record)]
    unlike = first_difference(sides[0], sides[1])
    if unlike is None:
        return []
    return [
        f"seed {same[0].seed} of this row is another system: {unlike}. Give this one a name or a variant of its own, "
        "or replace all seeds."
    ]
