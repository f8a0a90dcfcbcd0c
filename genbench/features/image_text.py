"""Models that embed images and texts in one space, for CLIP score, R-precision and zero-shot accuracy.

An extractor source whose name is asked for in such a metric may also load an `ImageTextModel`: it is then an
`ImageTextSource`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from genbench import registry
from genbench.errors import UsageError
from genbench.features.base import ExtractorOptions


class ImageTextModel(Protocol):
    """Images and texts to embeddings that are not normalised; their cosine says how well they fit.

    name: as it is asked for. notes: warnings for the reader. context_length: tokens of a text that are read, with its
    start and end marks; what is beyond is cut off. logit_scale: factor of the cosine in the softmax of its training.
    """

    name: str
    notes: tuple[str, ...]
    context_length: int
    logit_scale: float

    @property
    def identity(self) -> dict[str, Any]:
        """What makes its numbers: name, weights' SHA-256, preprocessing, tokenizer; goes into ``comparable``."""

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """(N, C, H, W) uint8, C = 1 or 3, to (N, d) float32.

        Raises:
            DataError: images that are no such array, or of a size that the model does not take.
        """

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts to (N, d) float32.

        Raises:
            DataError: no text at all.
        """


@runtime_checkable
class ImageTextSource(Protocol):
    """A source of ``genbench.extractors`` that embeds texts too."""

    name: str

    def load_image_text(self, options: ExtractorOptions) -> ImageTextModel:
        """Read and check the weights; errors as those of `ExtractorSource.load`."""


def embeds_texts(spec: str) -> bool:
    """Whether ``NAME`` or ``NAME:ARGUMENT`` is an installed image-text model; nothing is read."""
    name = spec.partition(":")[0]
    return name in registry.entries("extractors") and isinstance(registry.load("extractors", name), ImageTextSource)


def load_image_text(spec: str, options: ExtractorOptions | None = None) -> ImageTextModel:
    """Load an image-text model, ``NAME`` or ``NAME:ARGUMENT`` (``clip:ViT-B-32``, ``digits-clip``).

    Raises:
        UsageError: unknown name or argument, or an extractor that embeds no texts.
        DataError: weights that are missing, damaged or not those expected; says what to do.
    """
    name, _, argument = spec.partition(":")
    source = registry.load("extractors", name)
    if not isinstance(source, ImageTextSource):
        raise UsageError(
            f"Extractor '{name}' embeds no texts. Choose an image-text model: digits-clip (packaged) or clip:ViT-B-32."
        )
    return source.load_image_text(replace(options or ExtractorOptions(), argument=argument))
