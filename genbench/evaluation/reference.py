"""The reference side: read from images, from stored statistics, or from the cache of what was read before."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genbench.errors import DataError
from genbench.evaluation.collect import Collection, Collector, Wanted, name_of
from genbench.evaluation.plan import Plan
from genbench.evaluation.result import SideInfo
from genbench.evaluation.statistics import StatisticsCache, StoredStatistics
from genbench.features.base import FeatureExtractor, Features
from genbench.files import canonical_json
from genbench.metrics.moments import Moments
from genbench.metrics.sides import NotApplicable, Side
from genbench.sources import ImageSource, StatisticsSource
from genbench.sources.base import Observations, OnError

logger = logging.getLogger(__name__)

WHO = "reference images"


@dataclass
class Prepared:
    """A reference that is ready to be compared with.

    collection: None where only statistics are known. class_counts: images by class, in the order of the class names, 0
    where a class has none; empty where labels are not known. made_with: identity of the extractor that made the
    statistics of a file, where it says so.
    """

    side: Side
    info: SideInfo
    collection: Collection | None = None
    class_counts: dict[str, int] = field(default_factory=dict)
    made_with: Mapping[str, Any] | None = None


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
        DataError: unreadable images, or statistics that another extractor made.
    """
    if isinstance(source, StatisticsSource):
        check_made_with(source, extractor)
        fingerprint = source.data_fingerprint or source.fingerprint()
        info = SideInfo(name=source.name, kind=source.kind, count=source.count, fingerprint=fingerprint)
        return Prepared(statistics_side(WHO, source), info, made_with=source.made_with)
    wanted = Wanted.by(plan.needs_of_reference, samples=False)
    content = source.fingerprint(verify=verify)
    brings_statistics = plan.protocol.name == "adm" and source.statistics is not None
    if brings_statistics and source.statistics is not None:
        check_made_with(source.statistics, extractor)
    cacheable = use_cache and wanted.network and not brings_statistics
    cache = StatisticsCache() if cacheable and "labels" not in plan.needs_of_reference else None
    if cache is not None and content is not None and extractor is not None:
        stored = cache.find(content, extractor.identity)
        if stored is not None and _serves(stored, wanted):
            return _from_cache(stored, source, content)
    collector = Collector(wanted, extractor, batch_size=batch_size, progress=progress)
    seen = Observations()
    for image in source.images(on_error, seen):
        collector.add(image)
    found = collector.finish()
    found.seen = seen
    prepared = finished(source, found, content, plan)
    if cache is not None and content is not None and extractor is not None and not found.seen.skipped:
        _store(cache, prepared, content, extractor.identity, wanted)
    return prepared


def check_made_with(source: StatisticsSource, extractor: FeatureExtractor | None) -> None:
    """Refuse statistics of other features than the extractor's.

    Raises:
        DataError: the file says that another extractor made it; names what differs first.
    """
    if source.made_with is None or extractor is None:
        return
    theirs, ours = (json.loads(canonical_json(dict(made))) for made in (source.made_with, extractor.identity))
    for name in ("name", *sorted(theirs.keys() | ours.keys())):
        if theirs.get(name) != ours.get(name):
            raise DataError(
                f"{source.name}: its statistics were made with {name} {_shown(theirs, name)}, and this evaluation uses "
                f"{name} {_shown(ours, name)}. Such numbers do not compare: take the extractor and protocol of the "
                "file, or make statistics again with `genbench stats make`."
            )


def _shown(identity: dict[str, Any], name: str) -> str:
    return canonical_json(identity[name]) if name in identity else "not given"


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
        side.given_moments = given.given_moments
        side.given_spatial_moments = given.given_spatial_moments or side.given_spatial_moments
    counts = found.class_counts(source.class_names)
    return Prepared(side, side_info(source, found, fingerprint), found, counts)


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
    same_classes = list(stored.classes) == list(source.class_names)
    return Prepared(side, info, seen, stored.classes if same_classes else {})


def _store(
    cache: StatisticsCache,
    prepared: Prepared,
    fingerprint: str,
    identity: dict[str, Any],
    wanted: Wanted,
) -> None:
    side, found = prepared.side, prepared.collection or Collection(wanted)
    spatial = None
    try:
        if wanted.spatial:
            spatial = side.spatial_moments()
    except NotApplicable:
        logger.debug("The extractor gives no spatial features; the others are kept.")
    try:
        cache.store(
            fingerprint,
            identity,
            features=side.features().features if side.has_features else None,
            moments=side.moments(),
            spatial_moments=spatial,
            source=prepared.info.model_dump(mode="json"),
            images=found.hashes,
            observed=found.observed(),
            classes=prepared.class_counts,
        )
    except OSError as error:
        logger.warning("The reference's statistics were not kept: %s. --no-cache does not try to.", error)


def align_labels(samples: Side, reference: Side, needed: bool) -> str | None:
    """Let the samples' labels count the reference's classes, where both sides name theirs differently.

    Classes are matched by name. Whole numbers that are no names of the reference's count its classes in their order.
    What fits neither way is left as it is.

    Args:
        samples: its ``labels`` and ``class_names`` become the reference's.
        reference: stays as it is.
        needed: whether a metric looks at labels.

    Returns:
        The text of a warning where the classes cannot be matched, or None.

    Raises:
        DataError: they cannot be matched, and are needed.
    """
    ours, theirs = samples.class_names, reference.class_names
    if samples.labels is None or not ours or not theirs or ours == theirs:
        return None
    present = {label: name_of(label, ours) for label in np.unique(samples.labels).tolist()}
    unknown = sorted(set(present.values()) - set(theirs))
    if not unknown:
        place = {label: theirs.index(name) for label, name in present.items()}
        samples.labels = np.array([place[label] for label in samples.labels.tolist()], dtype=np.int64)
        samples.class_names = theirs
        return None
    numbered = all(name == str(label) for label, name in enumerate(ours))
    if numbered and not any(name.isdecimal() for name in theirs):
        unknown = [name for label, name in present.items() if label >= len(theirs)]
        if not unknown:
            samples.class_names = theirs
            return None
    problem = (
        f"The samples have the class '{unknown[0]}', which the reference does not have (it has "
        f"{', '.join(theirs[:10])}{', ...' if theirs[10:] else ''})."
    )
    if needed:
        raise DataError(f"{problem} Name the classes of both sides alike.")
    return f"{problem} No metric here looks at classes; those that do need both sides to name them alike."
