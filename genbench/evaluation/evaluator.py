"""The streaming evaluator: samples arrive in parts, parts merge, and metrics are computed whenever they are asked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from genbench import __version__
from genbench.environment import describe_environment, resolve_device
from genbench.errors import DataError, UsageError
from genbench.evaluation.collect import Collection, Collector, Wanted
from genbench.evaluation.networks import Networks
from genbench.evaluation.pairing import PairCollector
from genbench.evaluation.plan import make_plan
from genbench.evaluation.progress import Progress, Report, silent
from genbench.evaluation.reference import (
    Prepared,
    align_labels,
    check_made_with,
    prepare_reference,
    side_info,
    statistics_side,
)
from genbench.evaluation.result import EvalResult, SideInfo, with_scores
from genbench.evaluation.warn import Read, all_warnings
from genbench.features import ExtractorOptions, FeatureExtractor, Precision
from genbench.features.image_text import ImageTextModel
from genbench.files import hash_value
from genbench.metrics.base import ImageText, MetricInputs
from genbench.metrics.scoring import score_metrics
from genbench.sources import ImageSource, Pairing, StatisticsSource, match_pairs, open_source
from genbench.sources.base import OnError, SourceImage


class Evaluator:
    """Scores samples that arrive in parts against one reference; `genbench.evaluate` is one pass of it.

    In a training loop: make it once, `update` with each batch of samples, `compute`, `reset`. The reference is read
    once, at the first `compute`, and kept. On several processes each updates its own evaluator with its share (and
    ``index``, where the order matters), and one merges ``other.collected()`` of all.
    """

    def __init__(
        self,
        reference: Any = None,
        metrics: Sequence[str] | str | None = None,
        *,
        protocol: str = "tf1",
        extractor: str | FeatureExtractor | None = None,
        image_text: str | ImageTextModel | None = None,
        weights: Path | str | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        pairs: bool = False,
        prompts: bool = False,
        text_by_default: bool = False,
        labels: bool = True,
        class_names: Sequence[str] = (),
        device: str = "auto",
        batch_size: int = 64,
        precision: Precision = "float32",
        seed: int | None = None,
        on_error: OnError = "fail",
        cache: bool = True,
        verify: bool = False,
        progress: Progress | None = None,
    ) -> None:
        """See `genbench.evaluate` for the arguments; nothing is read but the networks' weights.

        Raises:
            UsageError, DataError: unknown names, options that do not fit, weights that are missing.
        """
        self.plan = make_plan(
            metrics,
            protocol=protocol,
            extractor=extractor if extractor is None or isinstance(extractor, str) else extractor.name,
            image_text=image_text if image_text is None or isinstance(image_text, str) else image_text.name,
            options=options,
            pairs=pairs,
            prompts=prompts,
            labels=labels,
            reference=reference is not None,
            text_by_default=text_by_default,
            seed=seed,
        )
        if batch_size < 1:
            raise UsageError(f"The batch size must be at least 1, got {batch_size}.")
        if seed is not None and seed < 0:
            raise UsageError(f"The seed must not be negative, got {seed}.")
        device = str(resolve_device(device))
        self._reference = reference
        self._progress = progress or silent
        self._batch_size, self._seed, self._on_error = batch_size, seed or 0, on_error
        self._cache, self._verify = cache, verify
        self._given_class_names = tuple(class_names)
        self._progress("loading networks", 0, None)
        loading = ExtractorOptions(
            device=device,
            batch_size=batch_size,
            preprocessing=self.plan.protocol.preprocessing,
            weights=None if weights is None else Path(weights).expanduser(),
            precision=precision,
            spatial="spatial" in self.plan.needs,
        )
        self._networks = Networks.load(self.plan, loading, extractor, image_text)
        for metric in self.plan.pair_metrics:
            metric.use_device(device)
        self._device = device
        self._label_note: str | None = None
        self._prepared: Prepared | None = None
        self._pairing: Pairing | None = None
        self._reference_statistics: StatisticsSource | None = None
        self._unknown_statistics = False
        self._seconds: dict[str, float] = {}
        self.reset()

    @property
    def extractor(self) -> FeatureExtractor | None:
        """The feature network, or None where no metric looks at features."""
        return self._networks.extractor

    def reset(self) -> None:
        """Forget all samples; the reference stays."""
        wanted = Wanted.by(self.plan.needs, samples=True)
        networks = self._networks
        self._collector = Collector(
            wanted, networks.extractor, networks.image_text, self._batch_size, identity=self._identity()
        )
        self._class_names = self._given_class_names
        self._broken: str | None = None
        self._pairs = PairCollector(self.plan.pair_metrics, self._collector.collection.pairs, self._batch_size)
        self._info: SideInfo | None = None
        self._statistics: StatisticsSource | None = None

    def update(
        self,
        samples: Any,
        *,
        reference: Any = None,
        labels: Sequence[int] | np.ndarray | None = None,
        prompts: Sequence[str] | None = None,
        index: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        """Add samples.

        Args:
            samples: a tensor or array of images, or any other input of `genbench.sources.open_source`.
            reference: the images that they should resemble one by one, with ``pairs=True``.
            labels: (B,) classes, counting ``class_names``. prompts: what each sample was asked to show.
            index: (B,) positions in the whole set, for parts that arrive in another order.

        Raises:
            DataError: unreadable images, or counts that differ.
        """
        if (reference is not None) != self.plan.pairs:
            raise UsageError("Pairs need pairs=True, and reference=IMAGES at each update.")
        source, seen = _images_of(samples), self._collector.collection.seen
        if reference is None:
            found: Iterable[tuple[SourceImage, SourceImage | None]] = (
                (image, None) for image in source.images(self._on_error, seen)
            )
        else:
            found = match_pairs(source, _images_of(reference), seen, on_error=self._on_error)
        given = {"labels": labels, "prompts": prompts, "index": index}
        if any(values is not None for values in given.values()):
            found = list(found)
            count = len(found) + len(seen.skipped)
            for name, values in given.items():
                if values is not None and len(values) != count:
                    raise DataError(f"{len(values)} {name} for {count} images. Give one for each.")
        self._learn_classes(source)
        for image, partner in found:
            i = image.index
            label = image.label if labels is None else int(labels[i])
            caption = image.caption if prompts is None else str(prompts[i])
            self.add(replace(image, label=label, caption=caption), partner, None if index is None else int(index[i]))

    def _learn_classes(self, source: ImageSource) -> None:
        names = source.class_names
        if names and self._class_names and names != self._class_names:
            raise DataError(
                f"The classes of {source.name} ({', '.join(names[:5])}) are not those of the samples before "
                f"({', '.join(self._class_names[:5])}). Give class_names, and labels that count them."
            )
        self._class_names = self._class_names or names

    def add(self, image: SourceImage, partner: SourceImage | None = None, position: int | None = None) -> None:
        """Add one sample, with its partner among the reference images where there are pairs."""
        with self._whole():
            if partner is not None:
                self._pairs.add(image, partner, position)
            self._collector.add(image, position)

    def collected(self) -> Collection:
        """What was collected so far: plain arrays, which travel between processes."""
        with self._whole():
            self._pairs.finish()
            return self._collector.finish()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """A batch that fails leaves the samples incomplete: nothing is computed of them any more."""
        if self._broken is not None:
            raise DataError(f"An earlier batch failed ({self._broken}). Call reset() and add the samples again.")
        try:
            yield
        except Exception as error:
            self._broken = str(error)
            raise

    def _identity(self) -> str:
        """What parts must have in common to be merged."""
        networks = (self._networks.extractor, self._networks.image_text)
        metrics = [[metric.name, metric.version, metric.options()] for metric in self.plan.metrics]
        identities = [None if network is None else network.identity for network in networks]
        return hash_value([self.plan.protocol.name, metrics, identities])

    def merge(self, other: Evaluator | Collection) -> None:
        """Add what another evaluator of the same plan, or its ``collected()``, has seen.

        Raises:
            DataError: it was made for other metrics.
        """
        self.collected().merge(other if isinstance(other, Collection) else other.collected())

    def use_statistics(self, source: StatisticsSource) -> None:
        """Let the samples be known by their mean and covariance alone.

        Raises:
            DataError: they were made with another network than this evaluation's.
        """
        check_made_with(source, self.extractor)
        self._statistics = source

    def describe(self, source: ImageSource, fingerprint: str | None) -> None:
        """Name the samples' source for the result."""
        self._info = side_info(source, self.collected(), fingerprint)

    def note_pairing(self, pairing: Pairing) -> None:
        """Record how pairs were matched; by order although both sides have file names, it is a warning."""
        self._pairing = pairing

    def reference(self) -> Prepared | None:
        """The reference, read once; None where no metric looks at it."""
        if self._prepared is None and self.plan.reference_needed and self._reference is not None:
            start = time.perf_counter()
            source = open_source(self._reference)
            self._reference_statistics = None if isinstance(source, StatisticsSource) else source.statistics
            self._unknown_statistics = isinstance(source, StatisticsSource) and source.made_with is None
            report = Report(self._progress, "reference", getattr(source, "length", None))
            self._prepared = prepare_reference(
                source,
                self.plan,
                self._networks.extractor,
                self._batch_size,
                self._on_error,
                use_cache=self._cache,
                verify=self._verify,
                progress=report,
            )
            self._seconds["reference"] = time.perf_counter() - start
        return self._prepared

    def set_reference(self, prepared: Prepared) -> None:
        """Use a reference that was read already (pairs are read together)."""
        self._prepared = prepared

    def compute(self) -> EvalResult:
        """The metrics of all samples so far.

        Raises:
            DataError: no samples, or a reference that cannot be read.
        """
        collection = self.collected()
        if collection.count == 0 and self._statistics is None:
            raise DataError("There are no samples to evaluate. Call update first.")
        if collection.count == 1:
            raise DataError("There is 1 sample, and metrics need at least 2. Give more.")
        reference = self.reference()
        start = time.perf_counter()
        self._progress("metrics", 0, None)
        inputs = self._inputs(collection, reference)
        metrics, arrays = score_metrics(inputs, self.plan.metrics, self._comparable(reference))
        self._seconds["metrics"] = time.perf_counter() - start
        info = self._info or side_info(None, collection, None)
        if self._statistics is not None:
            given = self._statistics
            info = SideInfo(name=given.name, kind=given.kind, count=given.count, fingerprint=given.fingerprint())
        result = EvalResult(
            genbench_version=__version__,
            samples=info,
            reference=SideInfo(name="none", kind="none", count=0) if reference is None else reference.info,
            protocol=self.plan.protocol.name,
            extractor=None if self._networks.extractor is None else self._networks.extractor.identity,
            image_text=None if self._networks.image_text is None else self._networks.image_text.identity,
            metrics=metrics,
            warnings=all_warnings(
                self.plan,
                self._networks,
                Read(collection, info, self._class_names, self._pairing, self._label_note, self._unknown_statistics),
                reference,
                metrics,
            ),
            seed=self._seed,
            environment=describe_environment(self._device),
            seconds={name: round(value, 3) for name, value in self._seconds.items()},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        return with_scores(result, arrays)

    def note_seconds(self, stage: str, seconds: float) -> None:
        """Record how long a stage took, for the result."""
        self._seconds[stage] = seconds

    def _inputs(self, collection: Collection, reference: Prepared | None) -> MetricInputs:
        if self._statistics is not None:
            samples = statistics_side("samples", self._statistics)
        else:
            samples = collection.side("samples", self._class_names)
        other = statistics_side("reference images", None) if reference is None else reference.side
        self._label_note = align_labels(samples, other, any("labels" in m.needs for m in self.plan.metrics))
        text = collection.ordered("text")
        model = self._networks.image_text
        return MetricInputs(
            samples=samples,
            reference=other,
            extractor=self._networks.extractor,
            pairs=collection.pairs.ordered() if self.plan.pairs else None,
            image_text=None
            if model is None or text is None
            else ImageText(model, text, collection.known_prompts(), samples.labels, samples.class_names),
            seed=self._seed,
        )

    def _comparable(self, reference: Prepared | None) -> dict[str, Any]:
        """What two results must share: images are known by their pixels, however they were stored."""
        known: dict[str, Any] = {"protocol": self.plan.protocol.name}
        if reference is not None:
            found = reference.collection
            by_pixels = found is not None and 0 < sum(found.hashes.values()) == found.count
            pixels = hash_value(sorted(found.hashes.items())) if found is not None and by_pixels else None
            known["reference"] = pixels or reference.info.fingerprint or f"not known ({uuid4().hex[:12]})"
        if self._reference_statistics is not None and self.plan.protocol.name == "adm":
            known["reference_statistics"] = self._reference_statistics.fingerprint()
        return known


def _images_of(value: Any) -> ImageSource:
    source = open_source(value)
    if isinstance(source, StatisticsSource):
        raise UsageError("Statistics have no images to add; give them to genbench.evaluate as a whole side.")
    return source
