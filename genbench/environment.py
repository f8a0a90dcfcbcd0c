"""Devices by name, and where a number was made."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from typing import Any

import numpy as np
import torch

from genbench.errors import UsageError
from genbench.timing import cpu_name, device_name

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str) -> torch.device:
    """``auto`` to CUDA where there is one, else the CPU (MPS lacks float64: only when asked for); others are checked.

    Raises:
        UsageError: a device that there is not, or that this machine does not have.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if present["cuda"] else "cpu")
    if not present.get(name.split(":")[0], False):
        here = ", ".join(d for d, there in present.items() if there)
        raise UsageError(f"Device '{name}' is not available here (available: {here}). Use --device auto.")
    return torch.device(name)


def describe_environment(device: torch.device | str, threads: int | None = None) -> dict[str, Any]:
    """Versions, platform, device, threads and commit, as records keep them."""
    device = torch.device(device)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "device": device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads() if threads is None else threads,
        **commit(),
    }


@cache
def commit() -> dict[str, Any]:
    """``commit``, the full hash of the working folder's git commit, and ``commit_dirty``, whether files that git knows
    differ from it; nothing outside a repository. Without git the commit that a CI service names is taken."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        named = os.environ.get("GITHUB_SHA") or os.environ.get("CI_COMMIT_SHA")
        return {"commit": named} if named else {}
    text = done.stdout.strip()
    return {"commit": text.removesuffix("-dirty"), "commit_dirty": text.endswith("-dirty")}
