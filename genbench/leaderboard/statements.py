"""What a record must say of itself to be a row: names that can be shown, how each value was made, whether it is a
control's."""

from __future__ import annotations

import json

from genbench import registry
from genbench.evaluation.compare import first_difference
from genbench.metrics import load_metric
from genbench.record import MetricResult, Record
from genbench.report.names import metric_name
from genbench.report.pictures import is_safe_name

QUALITIES = ("quality", "likelihood", "reconstruction")
TIMED = {"images_per_second", "latency_seconds", "evaluations_per_image", "peak_memory_bytes"}


def named(metric: MetricResult) -> str:
    """``"fid (plug-in)"``: a value by its metric and estimator."""
    return f"{metric.name} ({metric.estimator})" if metric.estimator else metric.name


def unfit_for_print(record: Record) -> str:
    """What of a record's free fields cannot be written as JSON or as UTF-8 text; empty where all can."""
    free = {"environment": record.environment, "comparable": [metric.comparable for metric in record.metrics]}
    for name, value in free.items():
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except ValueError as error:
            return f"its {name} holds what cannot be written down ({error}). Run the suite again; do not edit records."
    return ""


def statements(record: Record) -> list[str]:
    """What a record does not say of itself, or says wrongly."""
    return [*_names(record), *_control(record), *_values(record), *_whole(record)]


def _names(record: Record) -> list[str]:
    """The row's name becomes names of files and parts of addresses; those of metrics become columns."""
    found = []
    if not is_safe_name(record.row):
        found.append(
            f"the row's name {record.row!r} cannot name a file. Rename the model or the variant: letters, digits "
            "and _ . + -, a letter or a digit first."
        )
    for metric in record.metrics:
        given = {"name": metric.name, "estimator": metric.estimator or "-", "extractor": metric.extractor}
        unfit = [f"{what} {text!r}" for what, text in given.items() if text is not None and not _can_be_shown(text)]
        if unfit:
            found.append(
                f"a metric has the {' and the '.join(unfit)}; expected printable text without spaces around it. Rename "
                "the plug-in and score again: `genbench rescore`."
            )
    return found


def _can_be_shown(text: str) -> bool:
    return bool(text) and text.isprintable() and text == text.strip()


def _control(record: Record) -> list[str]:
    """Controls are those that are registered: they do not rank, and need state no training."""
    known = registry.names("controls")
    is_control = record.model in known
    if record.control != is_control:
        told = "is a control of genbench" if is_control else f"is none of the controls ({', '.join(known)})"
        return [
            f"it states control: {str(record.control).lower()}, but '{record.model}' {told}. Give a model a name of "
            "its own, and hand records in as `genbench run` wrote them."
        ]
    if (record.family == "control") != is_control:
        expected = "'control'" if is_control else "a family of models"
        return [f"its family is '{record.family}', expected {expected}. Hand records in as `genbench run` wrote them."]
    return []


def _values(record: Record) -> list[str]:
    """What the values do not state."""
    found = []
    whole = [metric for metric in record.metrics if metric.status == "ok"]
    if not any(metric_name(metric.name).group in QUALITIES for metric in whole):
        found.append("no metric of quality or likelihood has a value: there is nothing to rank.")
    for metric in whole:
        lacking = _unstated(metric)
        if lacking:
            found.append(f"{named(metric)} does not state {' and '.join(lacking)}. Score it again: `genbench rescore`.")
    return found + [_foreign(metric) for metric in record.metrics if _foreign(metric)]


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
    return f"{named(metric)} is not the {metric.name} of this version of genbench: {unlike}. Run `genbench rescore`."


def _whole(record: Record) -> list[str]:
    """What the record as a whole does not state."""
    found = []
    parts = {
        "config.model": record.config.get("model"),
        "environment": record.environment,
        "keys.samples": record.keys.get("samples") or None,
    }
    if not record.control:
        parts |= {"training": record.training, "config.train": record.config.get("train")}
    absent = [name for name, part in parts.items() if part is None or (part == {} and name != "config.model")]
    if absent:
        found.append(f"it does not state its {', '.join(absent)}. Run the suite again; do not edit records.")
    if record.timing is None and any(metric.name in TIMED for metric in record.metrics if metric.status == "ok"):
        found.append("it has figures of speed without the timing windows behind them. Run the suite again.")
    return found
