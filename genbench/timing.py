"""Sampling speed: from noise to uint8 pixels, warmed up, synchronised, the machine's pace beside it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from genbench.api import GenerativeModel, SamplerOptions
from genbench.pace import REFERENCE_LOAD, Pacemaker, paced
from genbench.record import Timing, TimingWindow
from genbench.sample import draw


@contextmanager
def counted_evaluations(model: GenerativeModel) -> Iterator[Callable[[], int]]:
    """Count forward calls of the model's `networks` inside the block; yields a function that returns the count."""
    count = 0

    def hook(*_: object) -> None:
        nonlocal count
        count += 1

    handles = [model.get_submodule(name).register_forward_hook(hook) for name in model.networks]
    try:
        yield lambda: count
    finally:
        for handle in handles:
            handle.remove()


def synchronise(device: torch.device) -> None:
    """Wait for all work queued on ``device``."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """Bytes: the allocator's peak on CUDA, the peak resident set of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def time_sampling(
    model: GenerativeModel,
    *,
    batch_size: int,
    seed: int,
    options: SamplerOptions | None = None,
    window_seconds: float = 0.5,
) -> Timing:
    """Time a model's sampler once: one window of whole batches, and single images.

    Repeat it in processes and at moments far apart, and put the outcomes together with `joined`: repetitions that
    follow one another agree better than those of another hour.

    Args:
        batch_size: images a call; it is never reduced.
        window_seconds: least length of the window; single images are repeated for a fifth of it.
    """
    device = model.device
    index = torch.arange(batch_size)
    with counted_evaluations(model) as evaluations:
        draw(model, index, seed, options)
    synchronise(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with paced(model) as pace:
        window = _window(model, pace, index, seed, options, window_seconds)
        latency, latency_pace = _latency(model, pace, seed, options, window_seconds / 5)
    return Timing(
        batch_size=batch_size,
        windows=[window],
        latency_seconds=[latency],
        latency_pace=None if latency_pace is None else [latency_pace],
        reference_load=None if pace is None else REFERENCE_LOAD,
        evaluations_per_image=float(evaluations()),
        precision="fp32",
        device=device_name(device),
        threads=torch.get_num_threads(),
        peak_memory_bytes=peak_memory(device),
    )


def joined(before: Timing, after: Timing) -> Timing:
    """The windows and single images of both timings of one sampler, and the larger of their peaks of memory."""
    peaks = [one.peak_memory_bytes for one in (before, after) if one.peak_memory_bytes is not None]
    paces = None
    if before.latency_pace is not None and after.latency_pace is not None:
        paces = [*before.latency_pace, *after.latency_pace]
    return after.model_copy(
        update={
            "windows": [*before.windows, *after.windows],
            "latency_seconds": [*before.latency_seconds, *after.latency_seconds],
            "latency_pace": paces,
            "peak_memory_bytes": max(peaks, default=None),
        }
    )


def _window(
    model: GenerativeModel,
    pace: Pacemaker | None,
    index: torch.Tensor,
    seed: int,
    options: SamplerOptions | None,
    least_seconds: float,
) -> TimingWindow:
    stopwatch = _Stopwatch(model.device, pace)
    images = 0
    while images == 0 or stopwatch.seconds < least_seconds:
        draw(model, index, seed, options)
        stopwatch.lap()
        images += len(index)
    return TimingWindow(images=images, seconds=stopwatch.seconds, pace=stopwatch.pace, given=stopwatch.given)


def _latency(
    model: GenerativeModel, pace: Pacemaker | None, seed: int, options: SamplerOptions | None, least_seconds: float
) -> tuple[float, float | None]:
    """Mean seconds of an image alone, and the pace meanwhile."""
    draw(model, torch.arange(1), seed, options)
    stopwatch = _Stopwatch(model.device, pace)
    images = 0
    while images == 0 or stopwatch.seconds < least_seconds:
        draw(model, torch.arange(images, images + 1), seed, options)
        stopwatch.lap()
        images += 1
    return stopwatch.seconds / images, stopwatch.pace


class _Stopwatch:
    """Seconds of work up to the last lap, without those of the reference load."""

    def __init__(self, device: torch.device, pace: Pacemaker | None) -> None:
        self._device, self._pace = device, pace
        synchronise(device)
        if pace is not None:
            pace.restart()
        self.seconds = 0.0
        self._start = time.perf_counter()

    def lap(self) -> None:
        """Wait for the device; keep pace."""
        synchronise(self._device)
        before = 0.0 if self._pace is None else self._pace.seconds
        self.seconds = time.perf_counter() - self._start - before
        if self._pace is not None:
            self._pace.keep()

    @property
    def given(self) -> float | None:
        return None if self._pace is None else self._pace.given()

    @property
    def pace(self) -> float | None:
        return None if self._pace is None else self._pace.rate()


def device_name(device: torch.device) -> str:
    """The device as a reader would name it: the GPU's name, or the CPU's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU (MPS)"
    return cpu_name()


def cpu_name() -> str:
    """The CPU's model name where the system tells it, else its architecture."""
    import platform
    from pathlib import Path

    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
