"""Feature extractors: networks from images to the features that distribution metrics compare.

Found by name through the entry-point group ``genbench.extractors``; each entry names an `ExtractorSource`. A user's own
needs no entry: ``package.module:callable``, or the file of a TorchScript or ``torch.export`` program.
"""

from __future__ import annotations

from dataclasses import replace

from genbench import registry
from genbench.errors import GenbenchError, UsageError, nearest
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
    """Load a feature extractor, with its weights checked.

    spec: ``NAME`` or ``NAME:ARGUMENT`` of a registered one, ``package.module:callable``, or a program's file.

    Raises:
        UsageError: unknown name or argument; a module or callable that fails.
        DataError: weights or a program that are missing, damaged or not those expected; says what to do.
    """
    options = options or ExtractorOptions()
    name, colon, argument = spec.partition(":")
    if name in registry.entries("extractors"):
        source: ExtractorSource = registry.load("extractors", name)
        return source.load(replace(options, argument=argument))
    from genbench.features.plugin import find_module, load_plugin

    if colon and argument.isidentifier() and find_module(name):
        return load_plugin(name, argument, options)
    from genbench.features.program import FILE, program_file

    if program_file(spec) is not None:
        return FILE.load(replace(options, argument=spec))
    known = registry.names("extractors")
    raise UsageError(
        f"Unknown extractor '{spec}'.{nearest(name, known)} Known: {', '.join(known)}; or a module that can be "
        "imported (package.module:callable; PYTHONPATH=. finds one of this folder), or a program's file (.pt, .pt2)."
    )


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
