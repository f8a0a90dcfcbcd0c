"""What a worker is given, how it reports, and what it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genbench.errors import GenbenchError, Interrupted
from genbench.run.plan import CellPlan
from genbench.run.store import Store
from genbench.suite import Suite


@dataclass(frozen=True)
class Task:
    """What a worker process needs to know: the run's folder, its suite, one cell, and the device."""

    root: Path
    suite: Suite
    cell: CellPlan
    device: str
    commit: Mapping[str, Any] = field(default_factory=dict)
    """Of the code that the run began with (`genbench.environment.commit`); it may change while a run is at work."""

    @property
    def store(self) -> Store:
        return Store(self.root)


@dataclass
class Monitor:
    """A worker's link to the run: progress goes out, a request to stop comes in."""

    report: Callable[[str, int, int], None]
    stopping: Callable[[], bool]
    stage: str = ""
    _last: float = field(default=0.0, repr=False)

    def step(self, done: int, total: int) -> None:
        """Report progress of the current stage, at most ten times a second.

        Raises:
            Interrupted: the run asked to stop.
        """
        self.tick(done, total)
        if self.stopping():
            raise Interrupted(f"stopped during {self.stage}")

    def tick(self, done: int, total: int) -> None:
        """Report progress without stopping."""
        now = time.perf_counter()
        if done >= total or now - self._last > 0.1:
            self._last = now
            self.report(self.stage, done, total)


@dataclass(frozen=True)
class JobResult:
    """Seconds spent by stage, and rows that failed with their reasons (the others are whole)."""

    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def describe(error: Exception) -> str:
    """An error in one line: the message of one of ours, what to do about a lack of memory, else with its type."""
    if isinstance(error, GenbenchError):
        return str(error)
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        first = str(error).strip().splitlines()
        return (
            f"out of memory ({first[0] if first else type(error).__name__}). Make the recipe's batch_size, the suite's "
            "sample_batch_size or the model's config smaller."
        )
    return text
