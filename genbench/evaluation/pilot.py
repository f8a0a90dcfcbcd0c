"""What `genbench power` reads: a pilot's features and the reference, from images or from features at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from genbench.data.arrays import open_npz
from genbench.errors import DataError, UsageError
from genbench.evaluation.collect import Collector, Wanted
from genbench.evaluation.plan import Plan, make_plan
from genbench.evaluation.power import Power, Target, features_draw, sample_size
from genbench.evaluation.progress import Progress, Report, silent
from genbench.evaluation.reference import WHO, prepare_reference
from genbench.features import ExtractorOptions, Features, load_extractor
from genbench.features.base import FeatureExtractor
from genbench.metrics.base import Side
from genbench.metrics.sides import check_features
from genbench.sources import StatisticsSource, open_source


def power_from_pilot(
    pilot: Any,
    reference: Any,
    metric: str,
    difference: str,
    *,
    power: float = 0.8,
    alpha: float = 0.05,
    protocol: str = "tf1",
    extractor: str | None = None,
    weights: Path | None = None,
    device: str = "cpu",
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Power:
    """How many samples of each of two models show a difference in a metric of features.

    Args:
        pilot: samples of one of them: any input of `genbench.evaluate`, or an npz of ``features`` (n, d) and, for the
            Inception Score, ``logits`` (n, classes).
        reference: likewise, or statistics where the metric takes them; None where it needs no reference.
        metric: its name. difference: "2%", or a number in its unit.
        power: chance of seeing it. alpha: chance of seeing one where there is none.
        protocol, extractor, weights, device, batch_size: as those of `genbench.evaluate`.
        seed: of the cuts of the pilot.
        progress: called with (stage, done, in all or None).

    Raises:
        UsageError: unknown names, a metric that is not one of features, or one without an interval.
        DataError: unreadable inputs, or too few samples.
    """
    target = Target.parse(difference)
    plan = make_plan([metric], protocol=protocol, extractor=extractor)
    if plan.extractor is None:
        raise UsageError(
            f"Metric '{metric}' looks at no features; its interval in `genbench eval` falls as 1 / sqrt(n)."
        )
    if plan.reference_needed and reference is None:
        raise UsageError(f"Metric '{plan.metrics[0].name}' compares with a reference: give REFERENCE.")
    report = progress or silent
    options = ExtractorOptions(
        device=device,
        batch_size=batch_size,
        preprocessing=plan.protocol.preprocessing,
        weights=weights,
        spatial="spatial" in plan.needs,
    )
    name = plan.extractor

    @cache
    def load() -> FeatureExtractor:
        report("loading networks", 0, None)
        return load_extractor(name, options)

    features = features_file(pilot) or _extracted(pilot, plan, load, batch_size, report)
    check_features(features.features, "pilot's samples")
    side = _reference(reference, plan, load, batch_size, report) if plan.reference_needed else Side(WHO, 0)
    return sample_size(
        plan.metrics[0],
        features_draw(features),
        len(features.features),
        side,
        target,
        power=power,
        alpha=alpha,
        extractor=load() if load.cache_info().currsize else None,
        seed=seed,
        progress=lambda done, total: report("parts of the pilot", done, total),
    )


def features_file(given: Any) -> Features | None:
    """The features of an npz that has ``features`` (n, d), with its ``logits``; None for any other input.

    Raises:
        DataError: a damaged npz, or logits of another number of images.
    """
    path = Path(given) if isinstance(given, str | Path) else None
    if path is None or path.suffix.lower() != ".npz" or not path.is_file():
        return None
    arrays = open_npz(path)
    if "features" not in arrays:
        return None
    features = arrays["features"].load()
    logits = arrays["logits"].load() if "logits" in arrays else None
    if logits is not None and len(logits) != len(features):
        raise DataError(f"{path}: has {len(features)} features and {len(logits)} logits. Give both of the same images.")
    return Features(features, logits)


def _extracted(
    given: Any, plan: Plan, load: Callable[[], FeatureExtractor], batch_size: int, report: Progress
) -> Features:
    source = open_source(given)
    if isinstance(source, StatisticsSource):
        raise UsageError(
            f"{source.name}: mean and covariance do not tell how features scatter. Give the pilot's images."
        )
    wanted = replace(Wanted.by(plan.needs, samples=True), features=True)
    collector = Collector(wanted, load(), batch_size=batch_size, progress=Report(report, "pilot", source.length))
    for image in source.images():
        collector.add(image)
    return collector.finish().side("pilot's samples").features()


def _reference(given: Any, plan: Plan, load: Callable[[], FeatureExtractor], batch_size: int, report: Progress) -> Side:
    features = features_file(given)
    if features is not None:
        return Side.of(WHO, features)
    source = open_source(given)
    extractor = None if isinstance(source, StatisticsSource) else load()
    length = getattr(source, "length", None)
    progress = Report(report, "reference", length)
    return prepare_reference(source, plan, extractor, batch_size, "fail", use_cache=True, progress=progress).side
