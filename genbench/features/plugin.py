"""An extractor that is Python of the user's: ``package.module:callable``.

The callable makes the extractor. It is called with the `ExtractorOptions` where it takes an argument and with nothing
otherwise, and gives either a `FeatureExtractor` or a function from uint8 images (B, C, H, W) to features (B, d).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from genbench.errors import DataError, UsageError, unknown
from genbench.features.base import ExtractorOptions, FeatureExtractor, Features
from genbench.files import hash_file


class PluginExtractor:
    """What a user's callable made, with the hash of its source in the identity."""

    def __init__(self, module: ModuleType, callable_name: str, made: Any, options: ExtractorOptions) -> None:
        self.name = f"{module.__name__}:{callable_name}"
        self.notes: tuple[str, ...] = tuple(getattr(made, "notes", ()))
        self._module = module
        self._callable_name = callable_name
        self._made = made
        self._options = options

    @property
    def identity(self) -> dict[str, Any]:
        source = inspect.getsourcefile(self._module)
        return {
            "name": self.name,
            "module": self._module.__name__,
            "callable": self._callable_name,
            "source_sha256": hash_file(Path(source)) if source else None,
            **({"made": dict(self._made.identity)} if _is_extractor(self._made) else {}),
        }

    def extract(self, images: np.ndarray) -> Features:
        """(N, C, H, W) uint8 to what the user's code makes of them.

        Raises:
            DataError: images that are no such array; something else than one row of features for each image.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
            raise DataError(f"Expected uint8 images (N, C, H, W) with N > 0, got {images.dtype} {images.shape}.")
        if _is_extractor(self._made):
            found: Features = self._made.extract(images)
            return Features(self._checked(found.features, len(images)), found.logits, found.spatial)
        step = self._options.batch_size
        blocks = [images[start : start + step] for start in range(0, len(images), step)]
        return Features(np.concatenate([self._checked(self._made(block), len(block)) for block in blocks]))

    def _checked(self, found: Any, count: int) -> np.ndarray:
        features = found.detach().cpu().numpy() if isinstance(found, Tensor) else np.asarray(found)
        if features.ndim != 2 or len(features) != count or features.dtype.kind not in "fiu":
            raise DataError(
                f"Extractor '{self.name}' gave {features.dtype} {features.shape} for {count} images, expected "
                f"({count}, d) numbers."
            )
        return features.astype(np.float32)


def find_module(head: str) -> bool:
    """Whether ``head`` is the dotted name of a module that can be imported."""
    if not all(part.isidentifier() for part in head.split(".")):
        return False
    try:
        return importlib.util.find_spec(head) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def load_plugin(module_name: str, callable_name: str, options: ExtractorOptions) -> FeatureExtractor:
    """Import the module, call the callable and wrap what it made.

    Raises:
        UsageError: an import or a call that fails, no such callable, or something else than an extractor or a function.
    """
    what = f"{module_name}:{callable_name}"
    if options.weights is not None:
        raise UsageError(f"{options.weights}: '{what}' loads its own weights; leave --weights out.")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(f"Importing {module_name} failed: {type(error).__name__}: {error}.") from error
    factory = getattr(module, callable_name, None)
    if not callable(factory):
        callables = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise unknown(f"callable of {module_name}", callable_name, callables)
    try:
        made = factory(options) if _takes_argument(factory) else factory()
    except Exception as error:
        raise UsageError(f"Calling {what} failed: {type(error).__name__}: {error}.") from error
    if not _is_extractor(made) and not callable(made):
        raise UsageError(
            f"{what} made a {type(made).__name__}, expected a FeatureExtractor (name, notes, identity, extract) or a "
            "function from uint8 images (B, C, H, W) to features (B, d)."
        )
    return PluginExtractor(module, callable_name, made, options)


def _is_extractor(made: Any) -> bool:
    return callable(getattr(made, "extract", None)) and hasattr(made, "identity")


def _takes_argument(factory: Callable[..., Any]) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(parameter.kind in kinds for parameter in inspect.signature(factory).parameters.values())
