"""The streaming evaluator: samples arrive in parts, parts merge, and metrics are computed whenever they are asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from genbench import __version__
from genbench.environment import describe_environment
from genbench.errors import DataError, UsageError
from genbench.evaluation.collect import Collection, Collector, Wanted
from genbench.evaluation.pairing import PairCollector
from genbench.evaluation.plan import Plan, make_plan
from genbench.evaluation.progress import Progress, Report, silent
from genbench.evaluation.reference import Prepared, align_labels, prepare_reference, side_info, statistics_side
from genbench.evaluation.result import EvalResult, SideInfo, with_scores
from genbench.evaluation.warn import all_warnings
from genbench.features import ExtractorOptions, FeatureExtractor, Precision, load_extractor
from genbench.features.image_text import ImageTextModel, load_image_text
from genbench.metrics.base import ImageText, MetricInputs
from genbench.metrics.scoring import score_metrics
from genbench.sources import ImageSource, Pairing, StatisticsSource, open_source
from genbench.sources.base import OnError, SourceImage


@dataclass
class Networks:
    """The networks of a plan, loaded once and shared by both sides."""

    extractor: FeatureExtractor | None
    image_text: ImageTextModel | None

    @classmethod
    def load(
        cls,
        plan: Plan,
        options: ExtractorOptions,
        extractor: str | FeatureExtractor | None,
        image_text: str | ImageTextModel | None,
    ) -> Networks:
        """Load what the plan names, where no object was given. ``options.weights`` are the extractor's if there is one.

        Raises:
            UsageError, DataError: unknown names, or weights that are missing or unfit; says what to do.
        """
        text_options = options if plan.extractor is None else replace(options, weights=None)
        if isinstance(extractor, str) or extractor is None:
            extractor = None if plan.extractor is None else load_extractor(plan.extractor, options)
        if isinstance(image_text, str) or image_text is None:
            image_text = None if plan.image_text is None else load_image_text(plan.image_text, text_options)
        return cls(extractor, image_text)


class Evaluator:
    """Scores samples that arrive in parts against one reference; `genbench.evaluate` is one pass of it.

    In a training loop: make it once, `update` with each batch of samples, `compute`, `reset`. The reference is read
    once, at the first `compute`, and kept. On several processes each updates its own evaluator with its share (and
    ``index``, where the order matters), and one merges ``other.collected()`` of all.
    """

    def __init__(
        self,
        reference: Any = None,
        metrics: Sequence[str] | None = None,
        *,
        protocol: str = "tf1",
        extractor: str | FeatureExtractor | None = None,
        image_text: str | ImageTextModel | None = None,
        weights: Path | str | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        pairs: bool = False,
        prompts: bool = False,
        class_names: Sequence[str] = (),
        device: str = "cpu",
        batch_size: int = 64,
        precision: Precision = "float32",
        seed: int = 0,
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
        )
        if self.plan.reference_needed and reference is None:
            raise UsageError("These metrics compare with a reference: give REFERENCE (images or statistics).")
        if batch_size < 1:
            raise UsageError(f"The batch size must be at least 1, got {batch_size}.")
        self._reference = reference
        self._progress = progress or silent
        self._batch_size, self._seed, self._on_error = batch_size, seed, on_error
        self._cache, self._verify = cache, verify
        self._class_names = tuple(class_names)
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
        self._prepared: Prepared | None = None
        self._pairing: Pairing | None = None
        self._seconds: dict[str, float] = {}
        self.reset()

    @property
    def extractor(self) -> FeatureExtractor | None:
        """The feature network, or None where no metric looks at features."""
        return self._networks.extractor

    def reset(self) -> None:
        """Forget all samples; the reference stays."""
        wanted = Wanted.by(self.plan.needs, samples=True)
        self._collector = Collector(wanted, self._networks.extractor, self._networks.image_text, self._batch_size)
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
        source = _images_of(samples)
        images = list(source.images(self._on_error, self._collector.collection.seen))
        for name, values in (("labels", labels), ("prompts", prompts), ("index", index)):
            if values is not None and len(values) != len(images):
                raise DataError(f"{len(values)} {name} for {len(images)} images. Give one for each.")
        if (reference is not None) != self.plan.pairs:
            raise UsageError("Pairs need pairs=True, and reference=IMAGES at each update.")
        partners = [] if reference is None else list(_images_of(reference).images(self._on_error))
        if reference is not None and len(partners) != len(images):
            raise DataError(f"{len(images)} samples and {len(partners)} reference images cannot be paired.")
        for i, image in enumerate(images):
            label = image.label if labels is None else int(labels[i])
            caption = image.caption if prompts is None else str(prompts[i])
            position = None if index is None else int(index[i])
            partner = partners[i] if partners else None
            self.add(SourceImage(image.pixels, image.name, label, caption), partner, position)
        self._class_names = self._class_names or source.class_names

    def add(self, image: SourceImage, partner: SourceImage | None = None, position: int | None = None) -> None:
        """Add one sample, with its partner among the reference images where there are pairs."""
        if partner is not None:
            self._pairs.add(image, partner, position)
        self._collector.add(image, position)

    def collected(self) -> Collection:
        """What was collected so far: plain arrays, which travel between processes."""
        self._pairs.finish()
        return self._collector.finish()

    def merge(self, other: Evaluator | Collection) -> None:
        """Add what another evaluator of the same plan, or its ``collected()``, has seen.

        Raises:
            DataError: it was made for other metrics.
        """
        self.collected().merge(other if isinstance(other, Collection) else other.collected())

    def use_statistics(self, source: StatisticsSource) -> None:
        """Let the samples be known by their mean and covariance alone."""
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
        result = EvalResult(
            genbench_version=__version__,
            samples=info,
            reference=SideInfo(name="none", kind="none", count=0) if reference is None else reference.info,
            protocol=self.plan.protocol.name,
            extractor=None if self._networks.extractor is None else self._networks.extractor.identity,
            image_text=None if self._networks.image_text is None else self._networks.image_text.identity,
            metrics=metrics,
            warnings=all_warnings(self.plan, self._networks, collection, info, reference, self._pairing, metrics),
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
        align_labels(samples, other)
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
        return {
            "protocol": self.plan.protocol.name,
            "reference": None if reference is None else (reference.info.fingerprint or "not known"),
        }


def _images_of(value: Any) -> ImageSource:
    source = open_source(value)
    if isinstance(source, StatisticsSource):
        raise UsageError("Statistics have no images to add; give them to genbench.evaluate as a whole side.")
    return source
