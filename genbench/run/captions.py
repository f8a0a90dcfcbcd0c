"""What the samples of a row were asked to show, for the metrics of images and texts.

A class-conditional row is held against the captions of the classes it was asked for, a control that replays images
against those of the images. Controls without labels are held against the captions of the test split in its order: the
floor, that which pictures of anything else have. A model that is not class-conditional was asked for nothing.
"""

from __future__ import annotations

import numpy as np

from genbench.data.base import Splits
from genbench.features import ExtractorOptions, extractor_status
from genbench.features.image_text import ImageTextModel, load_image_text
from genbench.files import hash_value
from genbench.metrics.base import ImageText
from genbench.suite import Suite


def image_text_model(suite: Suite, device: str) -> ImageTextModel | None:
    """The suite's image-text model, or None when it names none or its weights are not here.

    Raises:
        UsageError: an extractor that embeds no texts.
        DataError: weights that are here and damaged.
    """
    if suite.image_text is None or not extractor_status(suite.image_text.partition(":")[0]).available:
        return None
    return load_image_text(suite.image_text, ExtractorOptions(device=device, batch_size=256))


def asked_labels(splits: Splits, count: int, labels: np.ndarray | None, *, control: bool) -> np.ndarray | None:
    """(count,) classes that samples are held against: their own, or for a control the test split's in its order."""
    if labels is not None or not control or splits.test.labels is None:
        return labels
    floor: np.ndarray = np.asarray(splits.test.labels)[np.arange(count) % len(splits.test)]
    return floor


def image_text_of(
    model: ImageTextModel, caption: str, splits: Splits, samples: np.ndarray, labels: np.ndarray | None
) -> ImageText:
    """Samples (N, C, H, W) uint8 beside the captions of ``labels``."""
    names = splits.spec.class_names
    if labels is None or not names:
        return ImageText(model, lambda: model.encode_images(samples))
    return ImageText(
        model,
        lambda: model.encode_images(samples),
        prompts=tuple(caption.format(names[label]) for label in labels),
        labels=labels,
        class_names=names,
        known_fingerprint=hash_value([caption, list(names)]),
    )
