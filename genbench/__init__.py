"""genbench: evaluation and benchmarking of image generative models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genbench.lazy import lazy as _lazy

__version__ = "0.1.0"

if TYPE_CHECKING:
    from genbench.evaluation.evaluate import evaluate as evaluate
    from genbench.evaluation.evaluator import Evaluator as Evaluator

__all__ = ["Evaluator", "__version__", "evaluate"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = _lazy(
        __name__, {"evaluate": "genbench.evaluation.evaluate", "Evaluator": "genbench.evaluation.evaluator"}
    )
