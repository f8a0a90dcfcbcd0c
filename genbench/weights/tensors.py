"""Weights files as tensors, and tensors into networks, with errors that name what does not fit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from genbench.errors import DataError

_NAMED = 3
_COUNTER = "num_batches_tracked"
_PARALLEL = "module."


def read_tensors(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a ``.pth`` file read with ``weights_only=True``.

    A file that wraps them in ``state_dict`` is unwrapped, and so are names under ``module.`` (DataParallel).

    Raises:
        DataError: missing, damaged, or not a file of named tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise nearly anything
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise DataError(
            f"{path}: not a readable file of weights ({first[0]}). Expected a state dict, as .pth (read without "
            "running any code in it) or .safetensors."
        ) from None
    if isinstance(stored, dict) and isinstance(stored.get("state_dict"), dict):
        stored = stored["state_dict"]
    if not isinstance(stored, dict) or not stored or not all(isinstance(t, Tensor) for t in stored.values()):
        raise DataError(f"{path}: holds no tensors by name. Expected a state dict, as .pth or .safetensors.")
    if all(key.startswith(_PARALLEL) for key in stored):
        return {key.removeprefix(_PARALLEL): value for key, value in stored.items()}
    return stored


def load_into(network: nn.Module, tensors: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Load tensors into ``network``; counters of batch normalisation may be absent.

    Raises:
        DataError: keys or shapes that do not fit; names the first missing, unknown and unfit ones.
    """
    own = {key: value for key, value in network.state_dict().items() if not key.endswith(_COUNTER)}
    given = {key: value for key, value in tensors.items() if not key.endswith(_COUNTER)}
    problems = [
        _first("missing", [key for key in own if key not in given]),
        _first("unknown", [key for key in given if key not in own]),
        _first(
            "of another shape",
            [
                f"{key} {tuple(given[key].shape)}, expected {tuple(value.shape)}"
                for key, value in own.items()
                if key in given and given[key].shape != value.shape
            ],
        ),
    ]
    if any(problems):
        raise DataError(f"{path}: not the weights of {what}: {'; '.join(filter(None, problems))}.")
    try:
        network.load_state_dict(tensors, strict=False)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path}: not the weights of {what}: {error}.") from None


def _first(problem: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{problem}: {', '.join(names[:_NAMED])}{more}"
