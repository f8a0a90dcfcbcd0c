"""An extractor that is Python of the user's: ``package.module:callable``.

The callable makes the extractor. It is called with the `ExtractorOptions` where it takes an argument and with nothing
otherwise, and gives either a `FeatureExtractor` or a function from uint8 images (B, C, H, W) to features (B, d).

The source's hash does not see weights that the code loads. So a function is identified by what it makes of two fixed
images too, as few numbers to few digits, which devices share and other weights change.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import secrets
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from genbench.errors import DataError, UsageError, unknown
from genbench.features.base import ExtractorOptions, FeatureExtractor, Features
from genbench.files import hash_file, hash_value

_PROBES = ((3, 32, 32), (3, 64, 64), (3, 224, 224), (1, 28, 28), (1, 8, 8))
"""(C, H, W) of images to probe a function with; the first that it takes counts."""
_PROJECTIONS = 4
_SIGNATURES = (
    "It is called with the ExtractorOptions if it takes an argument, else with nothing, and makes the extractor: "
    "def make(options): return features, where features(images) turns uint8 images (B, C, H, W) into features (B, d)."
)


class PluginExtractor:
    """What a user's callable made, with the hash of its source in the identity, and a probe where it has no own."""

    def __init__(self, module: ModuleType, callable_name: str, made: Any, options: ExtractorOptions) -> None:
        self.name = f"{module.__name__}:{callable_name}"
        self.notes: tuple[str, ...] = tuple(getattr(made, "notes", ()))
        self._module = module
        self._callable_name = callable_name
        self._made = made
        self._options = options
        self.input_size: int | None = getattr(made, "input_size", None)
        self._own = {} if _is_extractor(made) else self._probe()

    @property
    def identity(self) -> dict[str, Any]:
        source = inspect.getsourcefile(self._module)
        return {
            "name": self.name,
            "module": self._module.__name__,
            "callable": self._callable_name,
            "source_sha256": hash_file(Path(source)) if source else None,
            **({"returned": dict(self._made.identity)} if _is_extractor(self._made) else self._own),
        }

    def _probe(self) -> dict[str, Any]:
        """Precision, preprocessing and a hash of the function's features, or a token that no other extractor has."""
        asked = {"precision": self._options.precision, "preprocessing": self._options.preprocessing}
        for shape in _PROBES:
            images = np.random.RandomState(0).randint(0, 256, (2, *shape)).astype(np.uint8)
            try:
                features = self._checked(self._made(images), len(images)).astype(np.float64)
            except Exception:  # the function is the user's, and need not take this size
                continue
            if features.size and np.isfinite(features).all():
                return {**asked, "probe": {"images": list(images.shape), "sha256": _digest(features)}}
        self.notes += (
            f"'{self.name}' takes none of the images that would identify it (3 channels of side 32, 64, 224, 1 of 28, "
            "8): its features are never reused and compare with no other result; return an object with an `identity`",
        )
        return {**asked, "probe": {"images": None, "token": secrets.token_hex(16)}}

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
        raise UsageError(f"Calling {what} failed: {type(error).__name__}: {error}. {_SIGNATURES}") from error
    if not _is_extractor(made) and not callable(made):
        raise UsageError(
            f"{what} made a {type(made).__name__}, expected a FeatureExtractor (name, notes, identity, extract) or a "
            f"function. {_SIGNATURES}"
        )
    return PluginExtractor(module, callable_name, made, options)


def _digest(features: np.ndarray) -> str:
    """SHA-256 of sums of the features (n, d) with random signs, to 4 significant digits."""
    signs = np.random.RandomState(0).choice((-1.0, 1.0), (_PROJECTIONS, features.size))
    sums = signs @ features.ravel()
    return hash_value([list(features.shape), *(f"{value:.3e}" for value in sums)])


def _is_extractor(made: Any) -> bool:
    return callable(getattr(made, "extract", None)) and hasattr(made, "identity")


def _takes_argument(factory: Callable[..., Any]) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(parameter.kind in kinds for parameter in inspect.signature(factory).parameters.values())
