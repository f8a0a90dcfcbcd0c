"""The files of a network that comes with genbench: ``<name>.safetensors`` and its manifest ``<name>.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from genbench.errors import DataError, UsageError
from genbench.features.base import ExtractorOptions
from genbench.files import hash_file

WEIGHTS_FOLDER = Path(__file__).parent / "weights"

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class PackagedFiles(Generic[M]):
    """schema: the manifest's class, with a field ``sha256``. script: trains the network on ``--dataset DATASET``."""

    name: str
    folder: Path
    schema: type[M]
    script: str

    @property
    def weights(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    def check_options(self, options: ExtractorOptions) -> None:
        """Refuse what a packaged network would ignore.

        Raises:
            UsageError: an argument, weights, or a precision other than float32.
        """
        if options.argument:
            raise UsageError(f"'{self.name}:{options.argument}': '{self.name}' takes no argument. Leave it out.")
        if options.weights is not None:
            raise UsageError(f"{options.weights}: '{self.name}' comes with its weights; leave --weights out.")
        if options.precision != "float32":
            raise UsageError(
                f"'{self.name}' computes in float32 only, got precision {options.precision}. Leave it out."
            )

    @property
    def repair(self) -> str:
        """What to do when they are missing or damaged."""
        dataset = self.name.rpartition("-")[0]
        return (
            "Install genbench again, or train the network: "
            f"python scripts/{self.script} --dataset {dataset} --out genbench/features/weights"
        )

    def manifest(self) -> M:
        """Read the manifest and check the weights against its hash.

        Raises:
            DataError: a missing or malformed manifest, missing weights, or another hash.
        """
        path = self.folder / f"{self.name}.json"
        try:
            manifest = self.schema.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, ValidationError) as error:
            raise DataError(f"{path}: no readable manifest of '{self.name}': {error}. {self.repair}") from None
        if not self.weights.is_file():
            raise DataError(f"{self.weights}: weights of '{self.name}' are missing. {self.repair}")
        stated: Any = getattr(manifest, "sha256")  # noqa: B009 - the schema's own field
        found = hash_file(self.weights)
        if found != stated:
            raise DataError(f"{self.weights}: SHA-256 is {found}, the manifest says {stated}. {self.repair}")
        return manifest
