"""What the image-text metrics have in common: checked unit embeddings of samples and texts, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genbench.errors import DataError, UsageError
from genbench.metrics.base import ImageText, MetricInputs, NotApplicable


def image_text(inputs: MetricInputs) -> ImageText:
    """The samples and texts of the inputs.

    Raises:
        NotApplicable: there is no image-text model here.
    """
    if inputs.image_text is None:
        raise NotApplicable("no image-text model is at hand; name one, such as digits-clip or clip:ViT-B-32")
    return inputs.image_text


def prompts_of(inputs: MetricInputs) -> tuple[str, ...]:
    """What each sample was asked to show.

    Raises:
        NotApplicable: no image-text model, or nobody knows the prompts.
        DataError: prompts and images of different counts.
    """
    prompts = image_text(inputs).prompts
    if prompts is None:
        raise NotApplicable("the images have no prompts: a model that is not class-conditional, or no --prompts")
    count = len(image_rows(inputs))
    if len(prompts) != count:
        raise DataError(f"{len(prompts)} prompts for {count} images; give one prompt an image.")
    return prompts


def unit_rows(embeddings: np.ndarray, who: str) -> np.ndarray:
    """Embeddings (n, d) at length 1, float64.

    Raises:
        DataError: not (n, d) with n at least 1, or rows that are zero, NaN or infinite.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or len(rows) == 0:
        raise DataError(f"Embeddings of the {who} have shape {rows.shape}, expected (N, d) with N at least 1.")
    lengths = np.linalg.norm(rows, axis=1)
    bad = ~(np.isfinite(lengths) & (lengths > 0))
    if bad.any():
        raise DataError(
            f"Embeddings of {int(bad.sum())} of {len(rows)} {who} are zero, NaN or infinite (first: row "
            f"{int(bad.argmax())}). Check the images and the model's weights."
        )
    unit: np.ndarray = rows / lengths[:, None]
    return unit


def image_rows(inputs: MetricInputs) -> np.ndarray:
    """Unit embeddings (n, d) of the samples, computed once."""
    images = image_text(inputs).images
    return inputs.shared(
        "unit image embeddings", lambda: unit_rows(images() if callable(images) else images, "samples")
    )


def text_rows(inputs: MetricInputs, texts: Sequence[str]) -> np.ndarray:
    """Unit embeddings (m, d) of distinct texts, computed once for each list of texts."""
    given = image_text(inputs)
    key = ("unit text embeddings", tuple(texts))
    return inputs.shared(key, lambda: unit_rows(given.model.encode_texts(list(texts)), "texts"))


def distinct(texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """The distinct texts in order of their first appearance, and for each text (n,) its place among them."""
    places: dict[str, int] = {}
    index = np.array([places.setdefault(text, len(places)) for text in texts], dtype=np.int64)
    return list(places), index


def share_of_ties(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) credit for ranking first: 1 where own (n,) beats all others (n, m), 0 where one of them beats it.

    Where t others tie with it, 1 / (t + 1): what breaking ties at random would give on average.
    """
    beaten = (others > own[:, None]).any(1)
    ties = (others == own[:, None]).sum(1)
    credit: np.ndarray = np.where(beaten, 0.0, 1.0 / (1.0 + ties))
    return credit


def check_template(metric: str, option: str, value: object) -> None:
    """Raise `UsageError` unless ``value`` is a text with one ``{}`` and no other field."""
    fits = isinstance(value, str) and value.replace("{}", "", 1).count("{}") == 0 and "{}" in value
    if not fits or not isinstance(value, str) or set("{}") & set(value.replace("{}", "")):
        raise UsageError(
            f"Option '{option}' of metric '{metric}' must be a text with one {{}} in it, such as 'a photo of a {{}}.', "
            f"got {value!r}."
        )
