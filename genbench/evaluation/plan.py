"""What an evaluation computes: metrics, options, protocol and networks, all checked before any image is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genbench import registry
from genbench.errors import UsageError
from genbench.features.image_text import embeds_texts
from genbench.metrics.base import Metric, Need, PairMetric
from genbench.metrics.names import metric_name
from genbench.metrics.options import build_metric
from genbench.metrics.scoring import load_metric
from genbench.protocols import Protocol, load_protocol

DEFAULT_METRICS = ("fid", "kid", "inception_score", "precision", "recall", "density", "coverage")
DEFAULT_PAIR_METRICS = ("ssim", "psnr")
DEFAULT_TEXT_METRICS = ("clip_score",)
DEFAULT_IMAGE_TEXT = "clip:ViT-B-32"
ALL = "all"

_OF_EXTRACTOR: frozenset[Need] = frozenset({"moments", "features", "logits", "spatial"})
_OF_REFERENCE: frozenset[Need] = frozenset({"moments", "features", "spatial", "pairs"})


@dataclass(frozen=True)
class Plan:
    """The metrics of an evaluation, and what they need."""

    protocol: Protocol
    metrics: tuple[Metric, ...]
    extractor: str | None
    """The feature extractor to load, or None where no metric looks at features."""
    image_text: str | None
    pairs: bool

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset[Need]().union(*(metric.needs for metric in self.metrics))

    @property
    def needs_of_reference(self) -> frozenset[Need]:
        """What the metrics that compare with the reference look at."""
        return frozenset[Need]().union(*(metric.needs for metric in self.metrics if compares(metric)))

    @property
    def pair_metrics(self) -> tuple[PairMetric, ...]:
        return tuple(metric for metric in self.metrics if isinstance(metric, PairMetric))

    @property
    def reference_needed(self) -> bool:
        """Whether any metric looks at the reference."""
        return self.pairs or any(compares(metric) for metric in self.metrics)


def make_plan(
    metrics: Sequence[str] | str | None,
    *,
    protocol: str = "tf1",
    extractor: str | None = None,
    image_text: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    pairs: bool = False,
    prompts: bool = False,
    labels: bool = False,
    reference: bool = True,
    text_by_default: bool = False,
    seed: int | None = None,
) -> Plan:
    """Resolve names.

    Args:
        metrics: names (``is`` stands for ``inception_score``), ``("all",)``, or None for the usual ones.
        protocol: name of a protocol; its options hold where ``options`` says nothing.
        extractor: ``NAME`` or ``NAME:ARGUMENT``; the protocol's own by default.
        image_text: the image-text model; by default the extractor where it embeds texts, else ``clip:ViT-B-32``.
        options: settings of metrics by name.
        pairs: whether sample i belongs to reference image i. prompts, labels: whether samples have them. reference:
            whether there is one. text_by_default: whether CLIP score is among the usual metrics.
        seed: for the metrics that draw at random and whose options say nothing.

    Raises:
        UsageError: unknown metric, option or protocol; a metric of suites or one without what it needs; a network that
            no metric looks at.
    """
    chosen = load_protocol(protocol)
    given_input = Given(pairs, prompts, labels, reference)
    names = _names(metrics, given_input, text_by_default)
    given = {metric_name(name): dict(values) for name, values in (options or {}).items()}
    for name in given:
        if name not in names:
            raise UsageError(f"Options are given for metric '{name}', which is not among: {', '.join(names)}.")
    loaded = tuple(load_metric(n, {**chosen.options.get(n, {}), **given.get(n, {})}) for n in names)
    if seed is not None:
        loaded = tuple(_seeded(metric, seed, given) for metric in loaded)
    for metric in loaded:
        _check(metric, given_input)
    needs = frozenset[Need]().union(*(metric.needs for metric in loaded))
    text = "text" in needs
    if extractor is not None and not needs & _OF_EXTRACTOR and not (text and embeds_texts(extractor)):
        raise UsageError(f"No metric of {', '.join(names)} looks at features: leave out the extractor '{extractor}'.")
    if image_text is not None and not text:
        raise UsageError(f"No metric of {', '.join(names)} looks at texts: leave out '{image_text}'.")
    if extractor is not None and embeds_texts(extractor):
        image_text = image_text or extractor
    usual_text = chosen.image_text or DEFAULT_IMAGE_TEXT
    return Plan(
        chosen,
        loaded,
        extractor=(extractor or chosen.extractor) if needs & _OF_EXTRACTOR else None,
        image_text=(image_text or usual_text) if text else None,
        pairs=pairs,
    )


@dataclass(frozen=True)
class Given:
    """What there is to evaluate besides the samples."""

    pairs: bool
    prompts: bool
    labels: bool
    reference: bool


def compares(metric: Metric) -> bool:
    """Whether a metric looks at the reference."""
    return bool(metric.needs & _OF_REFERENCE)


def _names(metrics: Sequence[str] | str | None, given: Given, text_by_default: bool) -> list[str]:
    if metrics is None:
        more = (DEFAULT_PAIR_METRICS if given.pairs else ()) + (DEFAULT_TEXT_METRICS if text_by_default else ())
        return [*DEFAULT_METRICS, *more]
    asked = metrics.split(",") if isinstance(metrics, str) else list(metrics)
    if [name.strip().lower() for name in asked] == [ALL]:
        return [name for name in registry.names("metrics") if _problem(load_metric(name), given) is None]
    names = [metric_name(name.strip()) for name in asked if name.strip()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice:
        raise UsageError(f"Metric '{twice}' is asked for twice." if twice else "No metric is asked for.")
    return names


def _seeded(metric: Metric, seed: int, given: Mapping[str, Mapping[str, Any]]) -> Metric:
    """The metric with this seed, where it has one that the options do not set."""
    if "seed" not in metric.options() or "seed" in given.get(metric.name, {}):
        return metric
    return build_metric(type(metric), {**metric.options(), "seed": seed})


def _check(metric: Metric, given: Given) -> None:
    problem = _problem(metric, given)
    if problem is not None:
        raise UsageError(f"Metric '{metric.name}' {problem}")


def _problem(metric: Metric, given: Given) -> str | None:
    """Why the metric cannot be computed from what is given, or None."""
    if not metric.needs or "images" in metric.needs:
        return "is one of suites (`genbench run`): it needs a model or a test split."
    if "pairs" in metric.needs and not given.pairs:
        return "compares sample i with reference image i. Say --pairs (pairs=True) if they belong together."
    if "text" in metric.needs and "labels" in metric.needs:
        return None if given.labels else "needs the samples' classes. Give --labels FILE, or class folders."
    if "text" in metric.needs and not given.prompts:
        return "compares images with texts. Give --prompts FILE (or captions)."
    if compares(metric) and not given.reference:
        return "compares with a reference: give REFERENCE (images or statistics)."
    return None
