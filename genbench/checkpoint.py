"""Checkpoints: safetensors beside a JSON manifest with hashes, and the resumable state of a training.

Reading never runs code: weights are safetensors, the manifest is JSON, and the class comes from the registry (or from
the caller), never from a path written in the manifest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from genbench import registry
from genbench.api import GenerativeModel, ImageSpec
from genbench.errors import DataError, UsageError
from genbench.files import atomic_path, hash_file, write_json
from genbench.recipe import build_config

FORMAT = 1
WEIGHTS = "weights.safetensors"
MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """What a checkpoint folder holds and how it was made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    model: str
    """Registered name, or ``FILE.py:Class`` as it was given when training."""
    suite: str
    config: dict[str, Any]
    spec: dict[str, Any]
    sample: dict[str, Any] = {}
    """Default sampler options of the recipe."""
    variants: dict[str, dict[str, Any]] = {}
    seed: int
    key: str
    """Content key: hash of all that made these weights."""
    weights_sha256: str
    train: dict[str, Any] = {}
    """Settings of the training (the recipe's), with the steps of its budget."""
    training: dict[str, Any] = {}
    """What it did."""
    environment: dict[str, Any] = {}
    """Where it was trained: versions, device, threads."""
    genbench_version: str


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and JSON metadata as one safetensors file, atomically."""
    separate = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(separate, temporary, metadata={"json": json.dumps(metadata)})


def load_tensors(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote.

    Raises:
        DataError: the file is missing, truncated or not safetensors (a pickle, say); the message names it.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            metadata = json.loads((stream.metadata() or {}).get("json", "{}"))
        return load_file(path, device=str(device)), metadata
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable safetensors file ({error}). Files that may hold code (pickles) are never loaded; "
            "delete a damaged file to make it anew."
        ) from None


def save_checkpoint(folder: Path, model: GenerativeModel, manifest: dict[str, Any]) -> Manifest:
    """Write weights and manifest into ``folder``; the manifest comes last, so a folder with one is whole."""
    save_tensors(folder / WEIGHTS, model.state_dict(), {})
    value = Manifest(**manifest, weights_sha256=hash_file(folder / WEIGHTS))
    write_json(folder / MANIFEST, value.model_dump(mode="json"))
    return value


def read_manifest(folder: Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises:
        DataError: missing or malformed; the message names the file.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no {MANIFEST}; a checkpoint is a folder with {MANIFEST} and {WEIGHTS}, as `genbench run` "
            "leaves under checkpoints/."
        ) from None
    except (OSError, ValueError, ValidationError) as error:
        raise DataError(f"{path}: not a readable manifest: {str(error).splitlines()[0]}") from None
    if manifest.format != FORMAT:
        raise DataError(f"{path}: checkpoint format {manifest.format}, this genbench reads format {FORMAT}.")
    return manifest


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu", model_class: type[GenerativeModel] | None = None
) -> tuple[GenerativeModel, Manifest]:
    """Load a model in evaluation mode.

    Args:
        model_class: the class to build; required when the manifest names a file rather than a registered model.

    Raises:
        DataError: damaged or missing files, or a hash that does not fit.
        UsageError: the class is not registered and none was given.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise DataError(f"{weights}: missing, though {MANIFEST} is there. Restore it or train again.")
    found = hash_file(weights)
    if found != manifest.weights_sha256:
        raise DataError(
            f"{weights}: SHA-256 is {found[:12]}..., the manifest says {manifest.weights_sha256[:12]}... "
            "The file is damaged or was replaced. Delete the folder to train again."
        )
    if model_class is None:
        if ".py:" in manifest.model:
            raise UsageError(
                f"{folder} was trained from '{manifest.model}'. Code is not loaded from a path in a checkpoint: "
                f"pass --model {manifest.model} to allow it."
            )
        model_class = registry.load_model(manifest.model)
    model = model_class(build_config(model_class, manifest.config), image_spec(manifest.spec))
    load_state(model, load_tensors(weights)[0], str(weights))
    return model.to(device).eval(), manifest


def load_state(model: GenerativeModel, tensors: dict[str, Tensor], where: str) -> None:
    """Load a state dict, turning a misfit into a `DataError` that names the file."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(f"{where}: the weights do not fit {type(model).__name__}: {error}") from None


def image_spec(values: dict[str, Any]) -> ImageSpec:
    """Rebuild an `ImageSpec` from its JSON form."""
    return ImageSpec(**{**values, "class_names": tuple(values.get("class_names", ()))})
