"""How exactly a forward pass computes: float32, or a faster format that is asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from genbench.errors import UsageError, unknown
from genbench.features.base import Precision

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")


def check_precision(precision: Precision, device: str) -> None:
    """Refuse a precision that is not known, or that the device does not have.

    Raises:
        UsageError: an unknown precision, or TF32 without a CUDA device.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if precision == "tf32" and torch.device(device).type != "cuda":
        raise UsageError(f"Precision 'tf32' needs a CUDA device, got '{device}'. Use float32 or bfloat16.")


@contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """Products of float32 tensors inside are rounded to TF32 under "tf32" and nowhere else, whatever the defaults.

    Convolutions are deterministic. What the process had set, by either of torch's two interfaces for it, is put back.
    """
    tf32 = precision == "tf32"
    cudnn: Any = torch.backends.cudnn
    with ExitStack() as stack:
        for name, value in (("benchmark", False), ("deterministic", True)):
            stack.callback(setattr, cudnn, name, getattr(cudnn, name))
            setattr(cudnn, name, value)
        _clear_new_interface(stack)
        stack.callback(torch.set_float32_matmul_precision, _before(torch.get_float32_matmul_precision, "highest"))
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        stack.callback(setattr, cudnn, "allow_tf32", _before(lambda: cudnn.allow_tf32, True))
        cudnn.allow_tf32 = tf32
        yield


def _clear_new_interface(stack: ExitStack) -> None:
    """Undo what was set through ``fp32_precision`` (torch 2.9), which would outweigh the old interface."""
    backends: Any = torch.backends
    if not hasattr(backends.cuda.matmul, "fp32_precision"):
        return
    operations = [backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv, backends.cudnn.conv]
    for owner in [*operations, backends.cudnn.rnn, backends.cudnn, backends.mkldnn, backends]:
        stack.callback(setattr, owner, "fp32_precision", owner.fp32_precision)
    for owner in (backends, backends.cudnn, backends.mkldnn, backends.mkldnn.conv):
        owner.fp32_precision = "none"


def _before(read: Callable[[], Any], default: Any) -> Any:
    """What the old interface says, or torch's default where it refuses because the new one has been used."""
    try:
        return read()
    except RuntimeError:
        return default


@contextmanager
def computing(precision: Precision, device: str) -> Iterator[None]:
    """`arithmetic`, and under "bfloat16" products of bfloat16 tensors for networks whose weights stay float32."""
    with (
        arithmetic(precision),
        torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        yield
