"""The reference side: read from images, from stored statistics, or from the cache of what was read before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from genbench.errors import DataError
from genbench.evaluation.collect import Collection, Collector, Wanted
from genbench.evaluation.plan import Plan
from genbench.evaluation.result import SideInfo
from genbench.evaluation.statistics import StatisticsCache, StoredStatistics
from genbench.features.base import FeatureExtractor, Features
from genbench.metrics.moments import Moments
from genbench.metrics.sides import Side
from genbench.sources import ImageSource, StatisticsSource
from genbench.sources.base import Observations, OnError

logger = logging.getLogger(__name__)

WHO = "reference images"


@dataclass
class Prepared:
    """A reference that is ready to be compared with. collection: None where only statistics are known."""

    side: Side
    info: SideInfo
    collection: Collection | None = None


def side_info(source: ImageSource | None, found: Collection, fingerprint: str | None) -> SideInfo:
    """What the result says of a side that was read, from ``source`` or from parts that came one by one."""
    return SideInfo(
        name="samples" if source is None else source.name,
        kind="stream" if source is None else source.kind,
        count=found.count,
        fingerprint=fingerprint,
        formats=dict(found.seen.formats),
        sizes={f"{width}x{height}": times for (height, width), times in sorted(found.seen.sizes.items())},
        skipped=list(found.seen.skipped),
    )


def statistics_side(who: str, source: StatisticsSource | None) -> Side:
    """A side of which only mean and covariance are known, or nothing."""
    if source is None:
        return Side(who, 0)
    side = Side(who, source.count)
    side.given_moments = Moments.from_covariance(source.mean, source.covariance, source.count)
    if source.spatial_mean is not None and source.spatial_covariance is not None:
        side.given_spatial_moments = Moments.from_covariance(
            source.spatial_mean, source.spatial_covariance, source.count
        )
    return side


def prepare_reference(
    source: ImageSource | StatisticsSource,
    plan: Plan,
    extractor: FeatureExtractor | None,
    batch_size: int,
    on_error: OnError,
    *,
    use_cache: bool,
    verify: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Read the reference, or find what was read before under the same content, weights and preprocessing.

    Raises:
        DataError: unreadable images, or statistics of another width than the extractor's features.
    """
    if isinstance(source, StatisticsSource):
        info = SideInfo(name=source.name, kind=source.kind, count=source.count, fingerprint=source.fingerprint())
        return Prepared(statistics_side(WHO, source), info)
    wanted = Wanted.by(plan.needs, samples=False)
    fingerprint = source.fingerprint(verify=verify)
    brings_statistics = plan.protocol.name == "adm" and source.statistics is not None
    cacheable = use_cache and wanted.network and not brings_statistics
    cache = StatisticsCache() if cacheable and "labels" not in plan.needs else None
    if cache is not None and fingerprint is not None and extractor is not None:
        stored = cache.find(fingerprint, extractor.identity)
        if stored is not None and _serves(stored, wanted):
            return _from_cache(stored, source, fingerprint)
    collector = Collector(wanted, extractor, batch_size=batch_size, progress=progress)
    seen = Observations()
    for image in source.images(on_error, seen):
        collector.add(image)
    found = collector.finish()
    found.seen = seen
    prepared = finished(source, found, fingerprint, plan)
    if cache is not None and fingerprint is not None and extractor is not None and not found.seen.skipped:
        _store(cache, prepared, found, fingerprint, extractor.identity, wanted)
    return prepared


def finished(source: ImageSource, found: Collection, fingerprint: str | None, plan: Plan) -> Prepared:
    """A reference whose images have all been read.

    Raises:
        DataError: fewer than two images.
    """
    if found.count < 2:
        raise DataError(f"{source.name}: has {found.count} image, and a reference needs at least 2.")
    side = found.side(WHO, source.class_names)
    if source.statistics is not None and plan.protocol.name == "adm":
        given = statistics_side(WHO, source.statistics)
        side.given_moments, side.given_spatial_moments = given.given_moments, given.given_spatial_moments
    return Prepared(side, side_info(source, found, fingerprint), found)


def _serves(stored: StoredStatistics, wanted: Wanted) -> bool:
    return (not wanted.features or stored.features is not None) and (
        not wanted.spatial or stored.spatial_moments is not None
    )


def _from_cache(stored: StoredStatistics, source: ImageSource, fingerprint: str) -> Prepared:
    kept: dict[str, Any] = dict(stored.manifest["source"])
    seen = Collection.from_observed(stored.count, stored.images or {}, stored.observed)
    info = SideInfo.model_validate({**kept, "name": source.name, "kind": source.kind, "fingerprint": fingerprint})
    side = Side(WHO, stored.count, class_names=source.class_names)
    side.given_spatial_moments = stored.spatial_moments
    features = stored.features
    if features is None:
        side.given_moments = stored.moments
    else:
        side.extract = lambda: Features(np.asarray(features))
    return Prepared(side, info, seen)


def _store(
    cache: StatisticsCache,
    prepared: Prepared,
    found: Collection,
    fingerprint: str,
    identity: dict[str, Any],
    wanted: Wanted,
) -> None:
    side = prepared.side
    try:
        cache.store(
            fingerprint,
            identity,
            features=side.features().features if side.has_features else None,
            moments=side.moments(),
            spatial_moments=side.spatial_moments() if wanted.spatial else None,
            source=prepared.info.model_dump(mode="json"),
            images=found.hashes,
            observed=found.observed(),
        )
    except OSError as error:
        logger.warning("The reference's statistics were not kept: %s. --no-cache does not try to.", error)


def align_labels(samples: Side, reference: Side) -> None:
    """Let the samples' labels count the reference's classes, where both sides name theirs differently.

    Raises:
        DataError: the samples have a class that the reference does not know.
    """
    ours, theirs = samples.class_names, reference.class_names
    if samples.labels is None or not ours or not theirs or ours == theirs:
        return
    present = {ours[label] for label in np.unique(samples.labels)}
    unknown = sorted(present - set(theirs))
    if unknown:
        raise DataError(
            f"The samples have the class '{unknown[0]}', which the reference does not have (it has "
            f"{', '.join(theirs[:10])}). Name the classes of both sides alike."
        )
    place = np.array([theirs.index(name) if name in theirs else -1 for name in ours], dtype=np.int64)
    samples.labels, samples.class_names = place[samples.labels], theirs
