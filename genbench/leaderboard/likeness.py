"""How a record stands to the rows that are there: measured alike, one system a row, no result twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genbench import registry
from genbench.check.collect import Entry
from genbench.evaluation.compare import first_difference
from genbench.leaderboard.scores import numbers
from genbench.leaderboard.statements import QUALITIES, named
from genbench.metrics import load_metric
from genbench.record import MetricKind, MetricResult, Record
from genbench.report.names import metric_name
from genbench.suite import Suite
from genbench.weights import entries


def unlike_rows(entry: Entry, suite: Suite | None, others: Sequence[Entry]) -> list[str]:
    """What keeps a record from standing beside the rows that are there, or from being the first of its kind.

    Args:
        suite: the packaged suite, whose own numbers the first record is held against; None where it is another one.
    """
    record = entry.record
    return [
        *_dataset(record, suite, others),
        *_comparable(record, suite, others),
        *_kinds(record, others),
        *_other_seeds(record, others),
        *_same_result(entry, others),
    ]


def _dataset(record: Record, suite: Suite | None, others: Sequence[Entry]) -> list[str]:
    there = next((other.record.dataset for other in others), None)
    if there is not None:
        unlike = first_difference(there.model_dump(mode="json"), record.dataset.model_dump(mode="json"))
        whose = "the rows that are there"
    else:
        unlike = None if suite is None else first_difference({"name": suite.dataset}, {"name": record.dataset.name})
        whose = "the suite's"
    if unlike is None:
        return []
    return [f"it is of other data than {whose}: {unlike}. Use the suite's own dataset and splits."]


def _comparable(record: Record, suite: Suite | None, others: Sequence[Entry]) -> list[str]:
    """Values of quality that are measured in another way than all of the same kind that are there; where there are
    none, in another way than the suite says."""
    there: dict[tuple[str, str | None], list[MetricResult]] = {}
    for other in others:
        for metric in other.record.metrics:
            if metric.status == "ok":
                there.setdefault((metric.name, metric.extractor), []).append(metric)
    found = []
    for metric in record.metrics:
        if metric.status != "ok" or metric_name(metric.name).group not in QUALITIES:
            continue
        known = there.get((metric.name, metric.extractor), [])
        unlike = [first_difference(one.comparable, metric.comparable) for one in known]
        if unlike and all(unlike):
            found.append(
                f"{named(metric)} was measured in another way than the rows that are there: {unlike[0]}. Score it as "
                "they were, with the same version of genbench and the suite's settings; or score all rows anew."
            )
        first = None if known or suite is None else _unlike_suite(metric, record, suite)
        if first:
            found.append(
                f"{named(metric)} was measured in another way than suite '{suite and suite.name}' says: {first}. Run "
                "the suite with this version of genbench and its own settings."
            )
    return found


def _unlike_suite(metric: MetricResult, record: Record, suite: Suite) -> str | None:
    """The first field of ``comparable`` in which a value of a suite's metric is not what the suite says."""
    if metric.name not in suite.metrics:
        return None
    own = load_metric(metric.name, suite.options.get(metric.name))
    expected: dict[str, Any] = {
        "dataset": suite.dataset,
        "dataset_fingerprint": record.dataset.fingerprint,
        "metric": own.name,
        "version": own.version,
        "options": own.options(),
        "n": _images(metric, record, suite),
    }
    given = {key: value for key, value in metric.comparable.items() if key in expected}
    weights = None if metric.extractor is None else _weights(metric.extractor)
    if weights is not None:
        network = metric.comparable.get("extractor")
        stated = network if isinstance(network, dict) else {}
        expected["extractor"] = {"name": metric.extractor, "weights_sha256": weights}
        given["extractor"] = {key: value for key, value in stated.items() if key in expected["extractor"]}
    return first_difference(expected, given)


def _images(metric: MetricResult, record: Record, suite: Suite) -> int | None:
    """How many images a suite takes: samples, test images of the likelihood, or reconstructions."""
    group = metric_name(metric.name).group
    if group == "quality":
        return suite.num_samples
    if group == "likelihood":
        asked, test = suite.likelihood.num_images, record.dataset.test
        return test if asked == "all" else min(asked, test)
    from genbench.run.gallery import RECONSTRUCTIONS

    return min(RECONSTRUCTIONS, record.dataset.test)


def _weights(extractor: str) -> str | None:
    """SHA-256 of an extractor's weights where genbench knows it beforehand; no network is loaded."""
    if extractor not in registry.names("extractors"):
        return None
    from genbench.features.packaged import PackagedSource
    from genbench.features.packaged_clip import PackagedClipSource

    source = registry.load("extractors", extractor)
    if isinstance(source, PackagedSource | PackagedClipSource):
        return source.files.manifest().sha256
    known = [entry.sha256 for entry in entries() if extractor in entry.used_by]
    return known[0] if len(known) == 1 else None


def _kinds(record: Record, others: Sequence[Entry]) -> list[str]:
    """No estimator is exact in one row and a bound or an estimate in another: exact likelihoods rank apart. (A bound
    whose density is itself estimated, by an ODE solver say, is an estimate.)"""
    there: dict[tuple[str, str], MetricKind] = {}
    for metric in (m for other in others for m in other.record.metrics if m.status == "ok"):
        there.setdefault((metric.name, metric.estimator), metric.kind)
    return [
        f"{named(metric)} is stated as {metric.kind.replace('_', ' ')}, in the rows that are there as "
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


def _same_result(entry: Entry, others: Sequence[Entry]) -> list[str]:
    """A result counts once, under one name and one seed. Names of samples differ from seed to seed even where weights
    and samples do not; so do per-image scores that are not all alike."""
    record = entry.record
    samples = record.keys.get("samples")
    scores = record.per_image.sha256 if record.per_image and _tells_apart(entry) else None
    for other in (other.record for other in others):
        control = ", which is a control" if other.control and not record.control else ""
        told = f"those of {other.row} with seed {other.seed}{control}: a result counts once. Hand in one of them."
        if samples and samples == other.keys.get("samples"):
            return [f"its samples are, by their key, {told}"]
        if scores and other.per_image and scores == other.per_image.sha256:
            return [f"its per-image scores are, to the bit, {told}"]
    return []


def _tells_apart(entry: Entry) -> bool:
    """Whether any of the per-image scores vary; those of a memoriser may be 0 and 1 for every seed."""
    arrays = [found for array in entry.scores.values() if (found := numbers(array)) is not None]
    return any(len(np.unique(array[np.isfinite(array)])) > 1 for array in arrays)
