"""From names of metrics to results: each metric is built, run and given its passport; one that fails stops no other."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genbench import registry
from genbench.errors import DataError, GenbenchError, UsageError
from genbench.metrics.base import Estimate, Metric, MetricInputs, Need, NoEstimate, NotApplicable
from genbench.metrics.options import build_metric
from genbench.record import MetricResult, MetricStatus

if TYPE_CHECKING:
    from genbench.features.base import FeatureExtractor
    from genbench.features.image_text import ImageTextModel

logger = logging.getLogger(__name__)


def load_metric(name: str, options: Mapping[str, Any] | None = None) -> Metric:
    """A metric by its registered name, with options.

    Raises:
        UsageError: unknown name or option, or a value that the metric refuses.
    """
    cls = registry.load("metrics", name)
    if not (isinstance(cls, type) and issubclass(cls, Metric)):
        raise UsageError(f"Metric '{name}' is {cls!r}, expected a subclass of genbench.metrics.base.Metric.")
    return build_metric(cls, dict(options or {}))


def score(
    inputs: MetricInputs,
    names: Sequence[str],
    options: Mapping[str, Mapping[str, Any]],
    comparable: Mapping[str, Any],
) -> tuple[list[MetricResult], dict[str, np.ndarray]]:
    """Run metrics.

    Args:
        inputs: what they look at.
        names: registered names, in the order of the results.
        options: by metric name; each name must be among ``names``.
        comparable: what the harness knows of the measurement (dataset and split fingerprints); goes into every result.

    Returns:
        The results, and the per-image scores (n,) by ``<metric>.<estimator>``.

    Raises:
        UsageError: an unknown metric or option. All are checked before any is run.
        DataError: samples that are no uint8 images of the reference's shape, or fewer than two.
    """
    for name in options:
        if name not in names:
            raise UsageError(f"Options are given for metric '{name}', which is not among: {', '.join(names)}.")
    return score_metrics(inputs, [load_metric(name, options.get(name)) for name in names], comparable)


def score_metrics(
    inputs: MetricInputs, metrics: Sequence[Metric], comparable: Mapping[str, Any]
) -> tuple[list[MetricResult], dict[str, np.ndarray]]:
    """`score` of metrics that are loaded already."""
    check_samples(inputs)
    results: list[MetricResult] = []
    per_image: dict[str, np.ndarray] = {}
    for metric in metrics:
        try:
            estimates = metric.compute(inputs)
        except NotApplicable as reason:
            results.append(_without_value(metric, inputs, "not_applicable", str(reason)))
            continue
        except Exception as error:
            logger.debug("metric %s failed", metric.name, exc_info=True)
            results.append(_without_value(metric, inputs, "failed", _reason(error)))
            continue
        for estimate in estimates:
            if isinstance(estimate, NoEstimate):
                results.append(_without_value(metric, inputs, "failed", estimate.reason, estimate.estimator))
                continue
            results.append(_result(metric, inputs, estimate, comparable))
            if estimate.per_image is not None and results[-1].status == "ok":
                per_image[f"{metric.name}.{estimate.estimator}"] = estimate.per_image
    return results, per_image


def check_samples(inputs: MetricInputs) -> None:
    """Refuse samples that no metric should look at.

    Raises:
        DataError: not uint8 (N, C, H, W), fewer than two, or not of the reference's shape.
    """
    samples, reference = inputs.samples.images, inputs.reference.images
    if samples is None or reference is None:
        return
    expected = reference.shape[1:]
    if samples.dtype != np.uint8 or samples.ndim != 4:
        raise DataError(f"Samples are {samples.dtype} {samples.shape}, expected uint8 (N, C, H, W).")
    if samples.shape[1:] != expected:
        raise DataError(
            f"Samples have shape (C, H, W) = {samples.shape[1:]}, the {inputs.reference.who} {expected}. "
            "Sample or convert at the reference's size."
        )
    if len(samples) < 2:
        raise DataError(f"Metrics need at least 2 samples, got {len(samples)}. Draw more.")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, GenbenchError) else f"{type(error).__name__}: {error}"


_OF_EXTRACTOR: frozenset[Need] = frozenset({"moments", "features", "logits", "spatial"})


def network(metric: Metric, inputs: MetricInputs) -> FeatureExtractor | ImageTextModel | None:
    """The network whose features the metric looks at, or None."""
    if metric.needs & _OF_EXTRACTOR:
        return inputs.extractor
    if "text" in metric.needs and inputs.image_text is not None:
        return inputs.image_text.model
    return None


def _network_name(metric: Metric, inputs: MetricInputs) -> str | None:
    found = network(metric, inputs)
    return None if found is None else found.name


def _without_value(
    metric: Metric, inputs: MetricInputs, status: MetricStatus, reason: str, estimator: str = ""
) -> MetricResult:
    return MetricResult(
        name=metric.name,
        value=None,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        estimator=estimator,
        status=status,
        reason=reason,
        extractor=_network_name(metric, inputs),
    )


_OF_THE_REFERENCE = frozenset({"reference", "reference_statistics"})
_OF_SAMPLES: frozenset[Need] = frozenset({"logits", "text", "labels"})


def _compares(metric: Metric) -> bool:
    """Whether the value depends on the reference; those that look at samples alone rank whatever it was."""
    return not metric.needs or not metric.needs <= _OF_SAMPLES


def _result(metric: Metric, inputs: MetricInputs, estimate: Estimate, comparable: Mapping[str, Any]) -> MetricResult:
    if not math.isfinite(estimate.value):
        reason = f"the value is {estimate.value}"
        return _without_value(metric, inputs, "failed", reason, estimate.estimator)
    interval = estimate.ci95 if estimate.ci95 and all(map(math.isfinite, estimate.ci95)) else None
    identity: dict[str, Any] = {
        **(comparable if _compares(metric) else {k: v for k, v in comparable.items() if k not in _OF_THE_REFERENCE}),
        "metric": metric.name,
        "version": metric.version,
        "options": metric.options(),
        "n": estimate.n,
        **estimate.conditions,
    }
    found = network(metric, inputs)
    if found is not None:
        identity["extractor"] = found.identity
    return MetricResult(
        name=metric.name,
        value=estimate.value,
        ci95=interval,
        n=estimate.n,
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        kind=estimate.kind,
        estimator=estimate.estimator,
        extractor=_network_name(metric, inputs),
        comparable=identity,
        provenance={
            "interval": estimate.interval if interval else None,
            "notes": list(estimate.notes),
            "extra": estimate.extra,
            "seed": inputs.seed,
            "standard_error": estimate.standard_error,
            "paired_by": estimate.paired_by,
        },
    )
