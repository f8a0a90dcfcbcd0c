"""The seeds of a row as one number: their mean, with an interval that holds training and sampling; never the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genbench.evaluation.compare import first_difference
from genbench.evaluation.uncertainty import are_equal, metric_half_widths, shares_images
from genbench.files import hash_value
from genbench.metrics.statistics import Z95, student_quantile
from genbench.record import MetricResult, Record
from genbench.report.names import ANY, metric_name


@dataclass(frozen=True)
class Pooled:
    """metric: that of the first seed that has it, with the mean of the seeds as its value and its interval.

    values: by seed, None of one that is not in the mean. spread: their standard deviation, None of one seed. note:
    seeds that are not in the mean, and why. fair: whether it can rank.
    """

    metric: MetricResult
    values: dict[int, float | None]
    spread: float | None = None
    note: str = ""
    fair: bool = True


def group_of(metric: MetricResult) -> str:
    """Short id of what must be equal to rank together: ``measured_as``; of likelihoods also whether they are exact,
    bounds or estimates."""
    kind = metric.kind if metric_name(metric.name).group == "likelihood" else None
    return hash_value([metric.measured_as, kind])[:8]


def quoted(record: Record, name: str, extractor: str | None) -> MetricResult | None:
    """A record's result in a metric: the first that has a value, which is the one to quote; else the first.

    Of estimated likelihoods it is the largest: of an annealed pair one side errs in the model's favour.
    """
    found = [m for m in record.metrics if (m.name, m.extractor) == (name, extractor)]
    whole = [m for m in found if m.value is not None]
    first = next(iter(whole or found), None)
    if first is None or first.kind != "estimate" or metric_name(name).group != "likelihood":
        return first
    return max((m for m in whole if m.kind == "estimate"), key=lambda m: m.value or 0.0, default=first)


def pool(records: Sequence[Record], name: str, extractor: str | None) -> Pooled | None:
    """One metric of a row's seeds; None where no record has the metric at all.

    Pooled are the seeds that are measured like the first one that has a value; the note names the others. What a failed
    record holds is no result.
    """
    succeeded = [record for record in records if record.status == "ok"]
    found = [metric for record in succeeded if (metric := quoted(record, name, extractor)) is not None]
    whole = [metric for metric in found if metric.value is not None]
    if not whole:
        reasons = [record.reason for record in records if record.status == "failed"]
        failed = MetricResult(
            name=name, value=None, status="failed", reason=f"the row failed: {next(iter(reasons), '')}"
        )
        return Pooled(failed, {}) if reasons else Pooled(found[0], {}) if found else None
    return _pool_like(records, whole[0])


def pooled_record(records: Sequence[Record]) -> Record:
    """The seeds of a row as one record: the first that succeeded, with the means of its metrics over all seeds.

    Every estimator of a metric is pooled by itself. Curves, timing and keys are the first seed's. A row of which every
    seed failed has no metrics: what a failed record holds is no result.
    """
    succeeded = [record for record in records if record.status == "ok"]
    if not succeeded:
        return records[0].model_copy(update={"metrics": []})
    first = succeeded[0]
    if len(records) == 1:
        return first
    wanted: dict[tuple[str, str, str | None], MetricResult] = {}
    for record in succeeded:
        for metric in record.metrics:
            key = (metric.name, metric.estimator, metric.extractor)
            if key not in wanted or (wanted[key].value is None and metric.value is not None):
                wanted[key] = metric
    metrics = [metric if metric.value is None else _told(_pool_like(records, metric)) for metric in wanted.values()]
    return first.model_copy(update={"metrics": metrics})


def pooled_seeds(metric: MetricResult) -> int:
    """How many seeds a metric of a `pooled_record` is the mean of; 0 of one that was not pooled."""
    seeds = metric.provenance.get("seeds")
    return sum(value is not None for value in seeds.values()) if isinstance(seeds, dict) else 0


def note_on_seeds(metric: MetricResult) -> str:
    """Which seeds a metric of a `pooled_record` is not the mean of, and why; nothing where it is that of all."""
    seeds = metric.provenance.get("seeds")
    if not isinstance(seeds, dict) or None not in seeds.values():
        return ""
    return str(metric.provenance["notes"][-1])


def _told(pooled: Pooled) -> MetricResult:
    """The mean, with its seeds and what is to be said of them in its provenance."""
    provenance = dict(pooled.metric.provenance)
    provenance["seeds"] = {str(seed): value for seed, value in pooled.values.items()}
    if len([value for value in pooled.values.values() if value is not None]) > 1:
        provenance["interval"] = "mean of seeds: Student t from their spread, or their own intervals where wider"
    if pooled.note:
        provenance["notes"] = [*provenance.get("notes", []), pooled.note]
    return pooled.metric.model_copy(update={"provenance": provenance})


def _pool_like(records: Sequence[Record], first: MetricResult) -> Pooled:
    """The records' results that are measured like ``first``, as one; the note names the others."""
    used: list[MetricResult] = []
    values: dict[int, float | None] = {}
    notes: list[str] = []
    for record in records:
        metric = _same_estimator(record, first)
        problem = f"it failed: {record.reason}" if record.status == "failed" else _unlike(metric, first)
        if problem is None and metric is not None and metric.value is not None:
            used.append(metric)
            values[record.seed] = metric.value
        else:
            values[record.seed] = None
            notes.append(f"seed {record.seed} is not in it: {problem}")
    note = "; ".join(notes)
    if len(used) == 1:
        return Pooled(first, values, note=note)
    mean, half, spread = mean_of_seeds(used)
    least, most = interval_ends(first.name, [m.value for m in used if m.value is not None])
    ci95 = None if half is None else (max(mean - half, least), min(mean + half, most))
    told = {key: value for key, value in first.provenance.items() if key != "standard_error"}
    joined = first.model_copy(update={"value": mean, "ci95": ci95, "provenance": told})
    return Pooled(joined, values, spread, note)


def interval_ends(name: str, values: Sequence[float]) -> tuple[float, float]:
    """What the interval of a share ends at; other intervals stay whole, for differences are made from them."""
    shown = metric_name(name)
    least, most = shown.range
    is_share = shown.style in ("share", "percent") and least <= min(values) and max(values) <= most
    return shown.range if is_share else ANY


def mean_of_seeds(metrics: Sequence[MetricResult]) -> tuple[float, float | None, float]:
    """Mean of at least two seeds, half width of its 95 % interval, and their standard deviation.

    Of values over samples, each seed's own, the interval is Student's from the spread over seeds, or the normal one
    from the values' own standard errors where that is wider. Of scores over the same images for every seed
    (``paired_by``) the choice of images is an error that seeds share: it does not shrink with their number, and adds to
    that of the seeds, which their spread tells. None of equal values without intervals, and of ones that are too large
    to reckon with.
    """
    values = np.array([metric.value for metric in metrics], dtype=np.float64)
    n = len(values)
    with np.errstate(over="ignore", invalid="ignore"):
        spread = 0.0 if are_equal(values) else float(values.std(ddof=1))
        mean = float(values.mean())
    around = [metric_half_widths(metric) for metric in metrics]
    own = math.sqrt(float(np.mean([0.0 if one is None else one.standard_error**2 for one in around])))
    own *= Z95
    of_seeds = student_quantile(n - 1) * spread / math.sqrt(n)
    half = math.hypot(of_seeds, own) if shares_images(metrics) else max(of_seeds, own / math.sqrt(n))
    mean = mean if math.isfinite(mean) else float((values / n).sum())
    return mean, half if half > 0 and math.isfinite(abs(mean) + half) else None, spread


def _same_estimator(record: Record, first: MetricResult) -> MetricResult | None:
    identity = (first.name, first.extractor, first.estimator)
    same = [m for m in record.metrics if (m.name, m.extractor, m.estimator) == identity]
    return same[0] if same else quoted(record, first.name, first.extractor)


def _unlike(metric: MetricResult | None, first: MetricResult) -> str | None:
    if metric is None:
        return "it does not have this metric"
    if metric.value is None:
        return f"{metric.status.replace('_', ' ')}: {metric.reason}"
    if (metric.kind, metric.estimator) != (first.kind, first.estimator):
        return f"it is {_described(metric)}, not {_described(first)}"
    return first_difference(first.measured_as, metric.measured_as)


def _described(metric: MetricResult) -> str:
    return f"{metric.kind.replace('_', ' ')} ({metric.estimator})"
