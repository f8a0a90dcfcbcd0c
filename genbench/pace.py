"""The pace of the machine: a small fixed network, run between pieces of timed work.

What else a processor does (neighbours on shared hosts, clocks that fall) slows a model and this network alike, most of
it for seconds to minutes, so the ratio of their speeds is steadier than either. It is made of what samplers are made
of, many small layers called from Python, because work of another kind slows by another factor: large matrix products
and streams through memory follow samplers poorly.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import functional as F

from genbench.api import GenerativeModel

REFERENCE_LOAD = "linear-conv-1"
"""Name of `ReferenceLoad`; paces of unlike names are not comparable."""
_EVERY_SECONDS = 0.008
_LEAST_SHARE = 0.1
"""Of the time since the load last ran; long calls are followed by more of it."""
_MOST_SECONDS = 0.3
_SCHEDULER = Path("/proc/thread-self/schedstat")


class ReferenceLoad:
    """Twenty linear layers of 64 values on 16 rows and six 3 x 3 convolutions of 16 channels, about a millisecond."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._linear = [torch.randn(64, 64, generator=generator) / 8 for _ in range(20)]
        self._kernel = torch.randn(16, 16, 3, 3, generator=generator) / 12
        self._rows = torch.randn(16, 64, generator=generator)
        self._maps = torch.randn(4, 16, 8, 8, generator=generator)

    @torch.no_grad()
    def __call__(self) -> None:
        rows, maps = self._rows, self._maps
        for weight in self._linear:
            rows = F.silu(F.linear(rows, weight)) * 2 - self._rows
        for _ in range(6):
            maps = F.silu(F.conv2d(maps, self._kernel, padding=1)) + self._maps


class Pacemaker:
    """Runs the load now and then while something is timed, and keeps its time apart.

    Args:
        load: what to run.
        clock: seconds, as `time.perf_counter` gives them.
        waited: seconds that this thread stood ready while the processor ran others, see `ready_seconds`.
    """

    def __init__(
        self,
        load: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        waited: Callable[[], float] | None = None,
    ) -> None:
        self._load = ReferenceLoad() if load is None else load
        self._clock, self._waited = clock, ready_seconds() if waited is None else waited
        self._load()
        self.restart()

    def restart(self) -> None:
        """Forget what was counted."""
        self.repetitions, self.seconds, self._ready_in_load = 0, 0.0, 0.0
        self._last = self._start = self._clock()
        self._ready_before = self._waited()

    def keep(self) -> None:
        """Run the load if it has not run for 8 ms, for a tenth of the time since."""
        start = self._clock()
        since = start - self._last
        if since < _EVERY_SECONDS:
            return
        ready, until = self._waited(), start + min(_LEAST_SHARE * since, _MOST_SECONDS)
        while True:
            self._load()
            self.repetitions += 1
            if self._clock() >= until:
                break
        self._ready_in_load += self._waited() - ready
        self._last = self._clock()
        self.seconds += self._last - start

    def given(self) -> float:
        """Share of the time of the work since `restart` for which the processor was given to it when it was ready."""
        work = self._clock() - self._start - self.seconds
        waited = self._waited() - self._ready_before - self._ready_in_load
        return min(1.0, max(0.0, 1.0 - waited / work)) if work > 0 else 1.0

    def rate(self) -> float | None:
        """The pace: repetitions of the load a second since `restart`, had it been given the processor as often as the
        work was; None before the first.

        Its own waiting is taken out and that of the work put in, because the load is too short to meet the share of
        time that others take.
        """
        ran = self.seconds - self._ready_in_load
        return self.repetitions / ran * self.given() if self.repetitions and ran > 0 else None


def ready_seconds() -> Callable[[], float]:
    """Reads how long the calling thread has stood ready while the processor ran others, in seconds; always 0 where the
    system does not tell (only Linux does)."""
    if not _SCHEDULER.exists():
        return lambda: 0.0
    return lambda: int(_SCHEDULER.read_bytes().split()[1]) / 1e9


@contextmanager
def paced(model: GenerativeModel) -> Iterator[Pacemaker | None]:
    """Keep pace inside the block, also after forward calls of the model's `networks`; None where the model is not on a
    CPU: other devices work by themselves, and would have to be waited for."""
    if model.device.type != "cpu":
        yield None
        return
    pace = Pacemaker()
    handles = [model.get_submodule(name).register_forward_hook(lambda *_: pace.keep()) for name in model.networks]
    try:
        yield pace
    finally:
        for handle in handles:
            handle.remove()
