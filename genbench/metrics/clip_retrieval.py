"""Which text fits an image best: CLIP R-precision among other prompts, zero-shot accuracy among class names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genbench.errors import DataError
from genbench.files import hash_array
from genbench.metrics.base import Estimate, Metric, MetricInputs, NotApplicable
from genbench.metrics.embeddings import (
    check_template,
    distinct,
    image_rows,
    image_text,
    prompts_of,
    share_of_ties,
    text_rows,
)
from genbench.metrics.estimates import share_estimate
from genbench.metrics.options import require_count
from genbench.metrics.statistics import blocks

_ROWS_AT_ONCE = 64


def draw_distractors(own: np.ndarray, total: int, count: int, seed: int) -> np.ndarray:
    """(n, count) places among ``total`` texts, none twice in a row and none that of ``own`` (n,).

    Floyd's algorithm (Bentley and Floyd 1987) on all rows at once, over the total - 1 other texts.
    """
    rng = np.random.RandomState(seed)
    chosen = np.empty((len(own), count), dtype=np.int64)
    for column, last in enumerate(range(total - 1 - count, total - 1)):
        drawn = rng.randint(0, last + 1, len(own))
        taken = (chosen[:, :column] == drawn[:, None]).any(1)
        chosen[:, column] = np.where(taken, last, drawn)
    return chosen + (chosen >= own[:, None])


@dataclass(frozen=True)
class ClipRPrecision(Metric):
    """Share of images whose own prompt fits them best among ``distractors`` others (Park et al. 2021, sec. 3).

    The others are drawn for each image from the distinct prompts that are not its own, with ``seed``. A prompt that
    several images share counts once, so it is never its own rival. Texts that fit an image equally well share the
    credit: a model blind to texts has 1 / (distractors + 1).
    """

    distractors: int = 99
    seed: int = 0

    name = "clip_r_precision"
    higher_is_better = True
    needs = frozenset({"text"})
    summary = "share of images whose own prompt fits best among 99 others"

    def __post_init__(self) -> None:
        require_count(self.name, "distractors", self.distractors)
        require_count(self.name, "seed", self.seed, least=0)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate. ``extra["chance"]`` is what guessing gives.

        Raises:
            NotApplicable: no image-text model, no prompts, or a single distinct one.
            DataError: prompts and images of different counts, or embeddings that are zero, NaN or infinite.
        """
        texts, own = distinct(prompts_of(inputs))
        if len(texts) < 2:
            raise NotApplicable("all images have the same prompt, so there is nothing to tell apart")
        count = min(self.distractors, len(texts) - 1)
        images, embedded = image_rows(inputs), text_rows(inputs, texts)
        others = draw_distractors(own, len(texts), count, self.seed)
        credit = np.empty(len(own))
        for part in blocks(len(own), _ROWS_AT_ONCE):
            candidates = np.column_stack((own[part], others[part]))
            fits = np.einsum("nd,nrd->nr", images[part], embedded[candidates])
            credit[part] = share_of_ties(fits[:, 0], fits[:, 1:])
        short = f"only {len(texts)} distinct prompts: {count} distractors in place of {self.distractors}"
        return [
            share_estimate(
                credit,
                paired_by="prompt",
                notes=(short,) if count < self.distractors else (),
                extra={"candidates": count + 1, "chance": 1.0 / (count + 1)},
                conditions={"candidates": count + 1, "prompts_fingerprint": image_text(inputs).prompts_fingerprint},
            )
        ]


@dataclass(frozen=True)
class ClipAccuracy(Metric):
    """Share of images that are classified as what they were asked to show, zero-shot (Radford et al. 2021, sec. 3.1).

    An image is of the class whose name, put into ``template``, fits it best; classes that fit equally well share the
    credit, as in `ClipRPrecision`.
    """

    template: str = "a photo of a {}."

    name = "clip_accuracy"
    higher_is_better = True
    needs = frozenset({"text", "labels"})
    summary = "share of images that CLIP classifies, zero-shot, as the class they were asked for"

    def __post_init__(self) -> None:
        check_template(self.name, "template", self.template)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate. ``extra["chance"]`` is what guessing gives.

        What was asked for is the labels, so their hash (or the known fingerprint of a suite's captions) stands for that
        of the prompts, by which scores are paired.

        Raises:
            NotApplicable: no image-text model, no labels, or fewer than two classes.
            DataError: labels that are no classes, or of another count than the images; embeddings that are zero, NaN or
                infinite.
        """
        given = image_text(inputs)
        if given.labels is None:
            raise NotApplicable("the images have no labels: a model that is not class-conditional, or no --labels")
        classes = len(given.class_names)
        if classes < 2:
            raise NotApplicable("zero-shot classification needs the names of at least two classes")
        labels, images = np.asarray(given.labels), image_rows(inputs)
        if labels.shape != (len(images),):
            raise DataError(f"Labels have shape {labels.shape} for {len(images)} images; give one label an image.")
        if labels.min() < 0 or labels.max() >= classes:
            raise DataError(f"Labels run from {labels.min()} to {labels.max()}, but there are {classes} classes.")
        texts = text_rows(inputs, [self.template.format(name) for name in given.class_names])
        fits = images @ texts.T
        every = np.arange(classes)
        own = np.take_along_axis(fits, labels[:, None], 1)[:, 0]
        asked = given.known_fingerprint or hash_array(labels.astype(np.int64))
        credit = share_of_ties(own, np.where(every == labels[:, None], -np.inf, fits))
        return [
            share_estimate(
                credit,
                paired_by="prompt",
                extra={"classes": classes, "chance": 1.0 / classes},
                conditions={
                    "classes": list(given.class_names),
                    "labels_fingerprint": asked,
                    "prompts_fingerprint": asked,
                },
            )
        ]
