"""genbench: evaluation and benchmarking of image generative models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from genbench.evaluation.evaluate import evaluate as evaluate
    from genbench.evaluation.evaluator import Evaluator as Evaluator

__all__ = ["Evaluator", "__version__", "evaluate"]

_LAZY = {"evaluate": "genbench.evaluation.evaluate", "Evaluator": "genbench.evaluation.evaluator"}


def __getattr__(name: str) -> Any:
    """Import what the top level offers on first use, so that ``import genbench`` stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module 'genbench' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
