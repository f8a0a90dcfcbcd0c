"""Feature extractors: networks from images to the features that distribution metrics compare.

Found by name through the entry-point group ``genbench.extractors``; each entry names an `ExtractorSource`.
"""

from __future__ import annotations

from genbench import registry
from genbench.errors import GenbenchError
from genbench.features.base import ExtractorSource, ExtractorStatus, FeatureExtractor, Features

__all__ = [
    "ExtractorSource",
    "ExtractorStatus",
    "FeatureExtractor",
    "Features",
    "extractor_status",
    "load_extractor",
]


def load_extractor(name: str, device: str = "cpu", batch_size: int = 256) -> FeatureExtractor:
    """Load a feature extractor, with its weights checked.

    Raises:
        UsageError: unknown name.
        DataError: weights that are missing, damaged or not those expected; says what to do.
    """
    source: ExtractorSource = registry.load("extractors", name)
    return source.load(device, batch_size)


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
