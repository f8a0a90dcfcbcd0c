"""What an evaluation computes: metrics, options, protocol and networks, all checked before any image is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genbench import registry
from genbench.errors import UsageError
from genbench.features.image_text import embeds_texts
from genbench.metrics.base import Metric, Need, PairMetric
from genbench.metrics.scoring import load_metric, metric_name
from genbench.protocols import Protocol, load_protocol

DEFAULT_METRICS = ("fid", "kid", "inception_score", "precision", "recall", "density", "coverage")
DEFAULT_PAIR_METRICS = ("ssim", "psnr")
DEFAULT_TEXT_METRICS = ("clip_score",)
DEFAULT_IMAGE_TEXT = "clip:ViT-B-32"
ALL = "all"

_OF_EXTRACTOR: frozenset[Need] = frozenset({"moments", "features", "logits", "spatial"})


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
    def pair_metrics(self) -> tuple[PairMetric, ...]:
        return tuple(metric for metric in self.metrics if isinstance(metric, PairMetric))

    @property
    def reference_needed(self) -> bool:
        """Whether any metric looks at the reference."""
        return self.pairs or bool(self.needs & {"moments", "features", "spatial", "labels"})


def make_plan(
    metrics: Sequence[str] | None,
    *,
    protocol: str = "tf1",
    extractor: str | None = None,
    image_text: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    pairs: bool = False,
    prompts: bool = False,
) -> Plan:
    """Resolve names.

    Args:
        metrics: names (``is`` stands for ``inception_score``), ``("all",)``, or None for the usual ones.
        protocol: name of a protocol; its options hold where ``options`` says nothing.
        extractor: ``NAME`` or ``NAME:ARGUMENT``; the protocol's own by default.
        image_text: the image-text model; by default the extractor where it embeds texts, else ``clip:ViT-B-32``.
        options: settings of metrics by name.
        pairs: whether sample i belongs to reference image i. prompts: whether samples have prompts.

    Raises:
        UsageError: unknown metric, option or protocol; a metric of suites; a pair metric without pairs.
    """
    chosen = load_protocol(protocol)
    names = _names(metrics, pairs, prompts)
    given = {metric_name(name): dict(values) for name, values in (options or {}).items()}
    for name in given:
        if name not in names:
            raise UsageError(f"Options are given for metric '{name}', which is not among: {', '.join(names)}.")
    loaded = tuple(load_metric(n, {**chosen.options.get(n, {}), **given.get(n, {})}) for n in names)
    for metric in loaded:
        _check(metric, pairs, prompts)
    needs = frozenset[Need]().union(*(metric.needs for metric in loaded))
    if extractor is not None and embeds_texts(extractor):
        image_text = image_text or extractor
    return Plan(
        chosen,
        loaded,
        extractor=(extractor or chosen.extractor) if needs & _OF_EXTRACTOR else None,
        image_text=(image_text or DEFAULT_IMAGE_TEXT) if "text" in needs else None,
        pairs=pairs,
    )


def _names(metrics: Sequence[str] | None, pairs: bool, prompts: bool) -> list[str]:
    if metrics is None:
        more = (DEFAULT_PAIR_METRICS if pairs else ()) + (DEFAULT_TEXT_METRICS if prompts else ())
        return [*DEFAULT_METRICS, *more]
    if list(metrics) == [ALL]:
        return [name for name in registry.names("metrics") if _possible(name, pairs, prompts)]
    names = [metric_name(name) for name in metrics]
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice:
        raise UsageError(f"Metric '{twice}' is asked for twice." if twice else "No metric is asked for.")
    return names


def _possible(name: str, pairs: bool, prompts: bool) -> bool:
    needs = load_metric(name).needs
    return (
        bool(needs) and "images" not in needs and (pairs or "pairs" not in needs) and (prompts or "text" not in needs)
    )


def _check(metric: Metric, pairs: bool, prompts: bool) -> None:
    if not metric.needs or "images" in metric.needs:
        raise UsageError(f"Metric '{metric.name}' is one of suites (`genbench run`): it needs a model or a test split.")
    if "pairs" in metric.needs and not pairs:
        raise UsageError(
            f"Metric '{metric.name}' compares sample i with reference image i. Say --pairs (pairs=True) if they belong "
            "together."
        )
    if "text" in metric.needs and not prompts:
        raise UsageError(f"Metric '{metric.name}' compares images with texts. Give --prompts FILE (or captions).")
