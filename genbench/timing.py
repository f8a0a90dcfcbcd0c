"""Sampling speed: from noise to uint8 pixels, warmed up, synchronised, in several windows."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from genbench.api import GenerativeModel, SamplerOptions
from genbench.record import Timing, TimingWindow
from genbench.sample import draw

LATENCY_REPEATS = 3


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
    windows: int = 3,
    window_seconds: float = 0.5,
    report: Callable[[int, int], None] | None = None,
) -> Timing:
    """Time a model's sampler.

    Args:
        batch_size: images a call; it is never reduced.
        windows: number of windows (at least 3); each repeats whole batches for at least ``window_seconds``.
        report: called with (windows done, windows).
    """
    device = model.device
    index = torch.arange(batch_size)
    with counted_evaluations(model) as evaluations:
        draw(model, index, seed, options)
    synchronise(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    measured = []
    for window in range(max(3, windows)):
        measured.append(_window(model, index, seed, options, window_seconds))
        if report is not None:
            report(window + 1, windows)
    return Timing(
        batch_size=batch_size,
        windows=measured,
        latency_seconds=_latencies(model, seed, options),
        evaluations_per_image=float(evaluations()),
        precision="fp32",
        device=device_name(device),
        threads=torch.get_num_threads(),
        peak_memory_bytes=peak_memory(device),
    )


def _window(
    model: GenerativeModel, index: torch.Tensor, seed: int, options: SamplerOptions | None, least_seconds: float
) -> TimingWindow:
    images, start = 0, time.perf_counter()
    while True:
        draw(model, index, seed, options)
        synchronise(model.device)
        images += len(index)
        elapsed = time.perf_counter() - start
        if elapsed >= least_seconds:
            return TimingWindow(images=images, seconds=elapsed)


def _latencies(model: GenerativeModel, seed: int, options: SamplerOptions | None) -> list[float]:
    draw(model, torch.arange(1), seed, options)
    seconds = []
    for repeat in range(LATENCY_REPEATS):
        synchronise(model.device)
        start = time.perf_counter()
        draw(model, torch.arange(repeat, repeat + 1), seed, options)
        synchronise(model.device)
        seconds.append(time.perf_counter() - start)
    return seconds


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
