"""`genbench.evaluate`: from two inputs to a result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genbench.data.arrays import Layout
from genbench.errors import DataError, UsageError
from genbench.evaluation.collect import Collector, Wanted
from genbench.evaluation.evaluator import Evaluator
from genbench.evaluation.progress import Progress, Report, silent
from genbench.evaluation.reference import finished
from genbench.evaluation.result import EvalResult
from genbench.features import FeatureExtractor, Precision
from genbench.features.image_text import ImageTextModel
from genbench.sources import ImageSource, StatisticsSource, match_pairs, open_source, pair_names
from genbench.sources.base import Observations, OnError


def evaluate(
    samples: Any,
    reference: Any = None,
    metrics: Sequence[str] | str | None = None,
    *,
    protocol: str = "tf1",
    extractor: str | FeatureExtractor | None = None,
    image_text: str | ImageTextModel | None = None,
    weights: Path | str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    pairs: bool = False,
    by_order: bool = False,
    layout: Layout | None = None,
    prompts: Path | str | Sequence[str] | None = None,
    labels: Path | str | Sequence[int] | np.ndarray | None = None,
    device: str = "auto",
    batch_size: int = 64,
    precision: Precision = "float32",
    seed: int | None = None,
    on_error: OnError = "fail",
    cache: bool = True,
    verify: bool = False,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> EvalResult:
    """Score images.

    Args:
        samples: a folder, archive, npz, npy, parquet or statistics file (see `genbench.sources.open_source`), a named
            dataset and split ("cifar10:test"), an array or tensor, a torch Dataset, or any iterable of images.
        reference: what they are compared with, of the same kinds; None where no metric needs it.
        metrics: names, ``("all",)``, or None for the usual ones.
        protocol: "tf1", "pytorch-fid", "clean", "torchmetrics", "adm" or "dgm".
        extractor: the feature network, ``NAME`` or ``NAME:ARGUMENT``, or an object; the protocol's by default.
        image_text: the image-text model of CLIP score and its kin.
        weights: a file in place of the extractor's standard weights.
        options: settings of metrics by name, over the protocol's.
        pairs: whether sample i belongs to reference image i; files are matched by name where both sides have names.
        by_order: match files by their order where the names differ; without it that is an error.
        layout: "NHWC" or "NCHW", for arrays whose shape fits both.
        prompts: what each sample was asked to show: a file, or one text for each. labels: likewise its class.
        device: "auto", "cpu", "cuda", ... batch_size: images at once; it changes no number beyond rounding.
        precision: of the networks' forward pass; other than "float32" is named in ``comparable``.
        seed: of the metrics that draw at random (FID-infinity, IS-infinity, R-precision), in place of their own.
        on_error: "skip" leaves unreadable images out and counts them; "fail" stops at the first.
        cache: whether the reference's features are kept for the next evaluation.
        verify: hash files in full even where their sizes and times say that they are those hashed before.
        data_root: where the named datasets lie.
        progress: called with (stage, images done, images in all or None).

    Raises:
        UsageError: unknown names, or metrics that need what was not given.
        DataError: unreadable or unfit images, weights or statistics; the message says what to do.
    """
    start, report = time.perf_counter(), progress or silent
    source = open_source(samples, labels=labels, prompts=prompts, layout=layout, data_root=data_root)
    other = None if reference is None else open_source(reference, layout=layout, data_root=data_root)
    evaluator = Evaluator(
        other,
        metrics,
        protocol=protocol,
        extractor=extractor,
        image_text=image_text,
        weights=weights,
        options=options,
        pairs=pairs,
        prompts=prompts is not None or (isinstance(source, ImageSource) and source.has_captions),
        text_by_default=prompts is not None,
        labels=labels is not None or (isinstance(source, ImageSource) and bool(source.class_names)),
        class_names=() if isinstance(source, StatisticsSource) else source.class_names,
        device=device,
        batch_size=batch_size,
        precision=precision,
        seed=seed,
        on_error=on_error,
        cache=cache,
        verify=verify,
        progress=progress,
    )
    if isinstance(source, StatisticsSource):
        evaluator.use_statistics(source)
    elif pairs:
        _read_pairs(
            evaluator, source, other, on_error, batch_size, by_order, verify, Report(report, "pairs", source.length)
        )
    else:
        _read_samples(evaluator, source, on_error, verify, Report(report, "samples", source.length))
    evaluator.note_seconds("samples", time.perf_counter() - start)
    return evaluator.compute()


def _read_samples(evaluator: Evaluator, source: ImageSource, on_error: OnError, verify: bool, report: Report) -> None:
    seen = Observations()
    for image in source.images(on_error, seen):
        evaluator.add(image)
        report(1)
    evaluator.collected().seen = seen
    evaluator.describe(source, source.fingerprint(verify=verify))


def _read_pairs(
    evaluator: Evaluator,
    source: ImageSource,
    reference: ImageSource | StatisticsSource | None,
    on_error: OnError,
    batch_size: int,
    by_order: bool,
    verify: bool,
    report: Report,
) -> None:
    if not isinstance(reference, ImageSource):
        raise UsageError("Pairs need the reference's images; statistics have none to pair samples with.")
    pairing = pair_names(source, reference)
    if pairing.warn and not by_order:
        raise DataError(
            f"Pairs cannot be matched by name: {pairing.reason}. Give both files of a pair one name, or say "
            "--pairs-by-order (by_order=True)."
        )
    plan, extractor = evaluator.plan, evaluator.extractor
    other = Collector(Wanted.by(plan.needs, samples=False), extractor, batch_size=batch_size)
    seen, other_seen = Observations(), Observations()
    for image, partner in match_pairs(source, reference, seen, other_seen, on_error):
        evaluator.add(image, partner, partner.index)
        other.add(partner, partner.index)
        report(1)
    found = other.finish()
    found.seen, evaluator.collected().seen = other_seen, seen
    evaluator.describe(source, source.fingerprint(verify=verify))
    evaluator.note_pairing(pairing)
    evaluator.set_reference(finished(reference, found, reference.fingerprint(verify=verify), plan))
