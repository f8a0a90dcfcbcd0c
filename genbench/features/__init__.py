"""Feature extractors: networks from images to the features that distribution metrics compare.

Found by name through the entry-point group ``genbench.extractors``; each entry names an `ExtractorSource`.
"""

from __future__ import annotations

from dataclasses import replace

from genbench import registry
from genbench.errors import GenbenchError
from genbench.features.base import (
    ExtractorOptions,
    ExtractorSource,
    ExtractorStatus,
    FeatureExtractor,
    Features,
    Precision,
)

__all__ = [
    "ExtractorOptions",
    "ExtractorSource",
    "ExtractorStatus",
    "FeatureExtractor",
    "Features",
    "Precision",
    "extractor_status",
    "load_extractor",
]


def load_extractor(spec: str, options: ExtractorOptions | None = None) -> FeatureExtractor:
    """Load a feature extractor, ``NAME`` or ``NAME:ARGUMENT``, with its weights checked.

    Raises:
        UsageError: unknown name or argument.
        DataError: weights that are missing, damaged or not those expected; says what to do.
    """
    name, _, argument = spec.partition(":")
    source: ExtractorSource = registry.load("extractors", name)
    return source.load(replace(options or ExtractorOptions(), argument=argument))


def extractor_status(name: str) -> ExtractorStatus:
    """Whether the extractor can be loaded here, and what to do where it cannot; never raises for a known name.

    Raises:
        UsageError: unknown name.
    """
    if name not in registry.entries("extractors"):
        registry.load("extractors", name)
    try:
        source: ExtractorSource = registry.load("extractors", name)
        return source.status()
    except GenbenchError as error:
        return ExtractorStatus(name, False, str(error))
