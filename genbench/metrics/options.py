"""Checks of metric options; options come from suites and the command line, so errors name the metric and the option."""

from __future__ import annotations

import inspect
from typing import Any

from genbench.errors import UsageError, unknown
from genbench.metrics.base import Metric


def build_metric(cls: type[Metric], options: dict[str, Any]) -> Metric:
    """An instance of a metric with these options.

    Raises:
        UsageError: an option that the metric does not have (the nearest one is suggested), or a value it refuses.
    """
    known = [] if cls.__init__ is object.__init__ else list(inspect.signature(cls).parameters)
    for name in options:
        if name not in known:
            raise unknown(f"option of metric '{cls.name}'", name, known)
    return cls(**options)


def require_count(metric: str, option: str, value: object, least: int = 1) -> None:
    """Raise `UsageError` unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"Option '{option}' of metric '{metric}' must be an integer >= {least}, got {value!r}.")


def require_choice(metric: str, option: str, value: object, choices: tuple[Any, ...]) -> None:
    """Raise `UsageError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        expected = ", ".join(str(choice) for choice in choices)
        raise UsageError(f"Option '{option}' of metric '{metric}' must be one of {expected}, got {value!r}.")
