"""What `genbench stats make` does: statistics of a set of images, from the cache or computed and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genbench import __version__
from genbench.errors import DataError, UsageError
from genbench.evaluation.collect import Collector, Wanted, collect
from genbench.evaluation.reference import WHO, side_info
from genbench.evaluation.statistics import StatisticsCache, StoredStatistics
from genbench.features.base import FeatureExtractor
from genbench.metrics.sides import NotApplicable
from genbench.sources import ImageSource, Observations, StatisticsSource, write_statistics

PASSPORT = "genbench"
"""Key of a statistics file that holds a JSON text: fingerprint, extractor and source; other tools ignore it."""


@dataclass(frozen=True)
class Made:
    """Statistics of a source. computed: now, not found in the cache."""

    stored: StoredStatistics
    computed: bool


def make_statistics(
    source: ImageSource | StatisticsSource,
    extractor: FeatureExtractor,
    cache: StatisticsCache,
    *,
    features: bool = False,
    spatial: bool = False,
    batch_size: int = 64,
    verify: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Made:
    """Statistics of all images of a source, kept in the cache for evaluations to find.

    Args:
        source: images that can be read again.
        extractor: made with ``spatial`` features where those are wanted.
        cache: where they are kept.
        features: keep all features, for KID and the nearest-neighbour metrics; of small sets they are kept anyway.
        spatial: also keep mean and covariance of the spatial features, for sFID.
        batch_size: images at once.
        verify: hash the images in full even where sizes and times say that they are those hashed before.
        progress: called with the number of images done since the last call.

    Raises:
        UsageError: a statistics file, or spatial features of an extractor that has none.
        DataError: unreadable images, or fewer than two.
    """
    if isinstance(source, StatisticsSource):
        raise UsageError(f"{source.name}: these are statistics already. Give images.")
    fingerprint = source.fingerprint(verify=verify)
    if fingerprint is None:
        raise UsageError(f"{source.name}: can be read only once, so that nothing can find its statistics again.")
    found = cache.find(fingerprint, extractor.identity)
    if found is not None and not (features and found.features is None) and not (spatial and not found.spatial_moments):
        return Made(found, computed=False)
    seen = Observations()
    collector = Collector(
        Wanted(moments=True, features=features, spatial=spatial), extractor, None, batch_size, progress
    )
    collection = collect(source.images(seen=seen), collector, seen)
    if collection.count < 2:
        raise DataError(f"{source.name}: has {collection.count} image, and a covariance needs at least 2.")
    side = collection.side(WHO)
    try:
        spatial_moments = side.spatial_moments() if spatial else None
    except NotApplicable as reason:
        raise UsageError(f"{extractor.name}: {reason}.") from None
    stored = cache.store(
        fingerprint,
        extractor.identity,
        moments=side.moments(),
        features=side.features().features if side.has_features else None,
        spatial_moments=spatial_moments,
        source=side_info(source, collection, fingerprint).model_dump(mode="json"),
        images=collection.hashes,
        observed=collection.observed(),
        classes=collection.class_counts(source.class_names),
    )
    return Made(stored, computed=True)


def export_statistics(path: Path, stored: StoredStatistics, *, features: bool = False, spatial: bool = False) -> None:
    """Write ``mu`` and ``sigma`` as pytorch-fid, clean-fid, guided-diffusion and EDM read them, with a passport.

    features: also ``features`` (n, d), as `genbench power` reads them. spatial: also ``mu_s`` and ``sigma_s``.

    Raises:
        DataError: what is asked for was not stored.
    """
    moments, spatial_moments = stored.moments, stored.spatial_moments if spatial else None
    passport = {
        "genbench_version": __version__,
        **{name: stored.manifest[name] for name in ("fingerprint", "extractor", "statistics_version", "created")},
        "source": stored.manifest["source"].get("name"),
    }
    extra: dict[str, np.ndarray] = {PASSPORT: np.array(json.dumps(passport, sort_keys=True))}
    if features and stored.features is not None:
        extra["features"] = stored.features
    write_statistics(
        path,
        moments.mean,
        moments.covariance(),
        moments.count,
        spatial_mean=None if spatial_moments is None else spatial_moments.mean,
        spatial_covariance=None if spatial_moments is None else spatial_moments.covariance(),
        extra=extra,
    )


def read_passport(path: Path) -> dict[str, Any] | None:
    """What `export_statistics` says of a file, or None for one of another tool."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = json.loads(str(arrays[PASSPORT]))
    except Exception:
        return None
    return found if isinstance(found, dict) else None
