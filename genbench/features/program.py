"""A network of the user's as a program in a file: TorchScript (``.pt``) or ``torch.export`` (``.pt2``).

``file:FILE[@float][@SIZE]``. The program takes images (B, C, H, W) as they come, uint8, or float32 in [0, 1] under
``@float``; under ``@SIZE`` they are resized to SIZE x SIZE before, by Pillow's bicubic filter in 8 bits. It gives
features (B, ...), or a pair of features and logits. Such a file is code: loading it runs it, so take only files that
you trust.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genbench.errors import DataError, UsageError
from genbench.features.base import ExtractorOptions, ExtractorStatus, Outputs
from genbench.features.network import NetworkExtractor
from genbench.features.pillow_input import pillow_resize
from genbench.features.precision import check_precision
from genbench.files import hash_file

_ARGUMENT = re.compile(r"(?P<path>.+?)(?P<float>@float)?(@(?P<size>[1-9]\d*))?")


@dataclass(frozen=True)
class ProgramInput:
    """What the program takes. size: side of the square that images are resized to, or None."""

    as_float: bool = False
    size: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 to the program's input."""
        if self.size is not None:
            images = pillow_resize(images, (self.size, self.size), "bicubic")
        return images.float() / 255.0 if self.as_float else images

    def describe(self) -> str:
        """What ``comparable`` says of it."""
        resize = f"Pillow bicubic to {self.size}x{self.size}, 8 bits, " if self.size else ""
        return resize + ("float32 in [0, 1]" if self.as_float else "uint8")


class ProgramExtractor(NetworkExtractor):
    """A loaded program. What it does not take, or gives, is a DataError."""

    def __init__(
        self, name: str, program: Callable[[Tensor], Any], prepare: ProgramInput, sha256: str, options: ExtractorOptions
    ) -> None:
        super().__init__(name, sha256, prepare.describe(), options, None, prepare.size)
        self._program = program
        self._prepare = prepare

    def check(self, images: np.ndarray) -> None:
        """Images are the program's to judge."""

    def forward(self, images: Tensor) -> Outputs:
        """Run the program.

        Raises:
            DataError: it fails on these images, or gives something else than features.
        """
        prepared = self._prepare(images)
        try:
            found = self._program(prepared)
        except Exception as error:  # the program is the user's
            first = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise DataError(
                f"Extractor '{self.name}' failed on {prepared.dtype} {tuple(prepared.shape)} images: {first[0]}. "
                "Export it for any batch size, and say with @float or @SIZE what it takes."
            ) from None
        parts = found if isinstance(found, tuple | list) else (found,)
        if not 1 <= len(parts) <= 2 or not all(
            isinstance(p, Tensor) and p.shape[:1] == images.shape[:1] for p in parts
        ):
            raise DataError(
                f"Extractor '{self.name}' gave {_shown(found)} for {len(images)} images, expected features (B, d) or a "
                "pair of features and logits."
            )
        return Outputs(*(part.flatten(1) if part.ndim > 1 else part[:, None] for part in parts))


@dataclass(frozen=True)
class ProgramSource:
    """``file:FILE[@float][@SIZE]``."""

    name: str = "file"

    def load(self, options: ExtractorOptions) -> ProgramExtractor:
        """Load the program.

        Raises:
            UsageError: no file named, weights given beside it, or a precision that the device does not have.
            DataError: a file that is missing or no program.
        """
        check_precision(options.precision, options.device)
        matched = _ARGUMENT.fullmatch(options.argument)
        if matched is None:
            raise UsageError("Name the program's file: file:FILE.pt or file:FILE.pt2, with @float or @SIZE after it.")
        if options.weights is not None:
            raise UsageError(
                f"{options.weights}: an extractor from a file has its weights inside; leave --weights out."
            )
        path = Path(matched["path"]).expanduser()
        if not path.is_file():
            raise DataError(f"{path}: no such file. Expected a TorchScript (.pt) or torch.export (.pt2) program.")
        prepare = ProgramInput(bool(matched["float"]), int(matched["size"]) if matched["size"] else None)
        name = f"{self.name}:{path.name}{options.argument[len(matched['path']) :]}"
        return ProgramExtractor(name, load_program(path, options.device), prepare, hash_file(path), options)

    def status(self) -> ExtractorStatus:
        """Always there."""
        return ExtractorStatus(self.name, True, "name a TorchScript (.pt) or torch.export (.pt2) file: file:FILE")


def program_file(argument: str) -> Path | None:
    """The file that ``FILE[@float][@SIZE]`` names, where there is one."""
    matched = _ARGUMENT.fullmatch(argument)
    path = Path(matched["path"]).expanduser() if matched else None
    return path if path is not None and path.is_file() else None


def load_program(path: Path, device: str) -> Callable[[Tensor], Any]:
    """The program of a file, on the device.

    Raises:
        DataError: not a program that torch can load.
    """
    try:
        if path.suffix == ".pt2":
            exported: nn.Module = torch.export.load(path).module()
            return exported.to(device)
        with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # torch advises the file's author
            scripted: nn.Module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
        return scripted.eval()
    except Exception as error:  # damaged archives raise nearly anything
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise DataError(
            f"{path}: not a loadable program ({first[0]}). Expected what torch.jit.save wrote (.pt) or "
            "torch.export.save (.pt2); a file of weights goes with --weights and the extractor's name."
        ) from None


def _shown(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"a tensor {tuple(found.shape)}"
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of {[_shown(part) for part in found]}"
    return f"a {type(found).__name__}"


FILE = ProgramSource()
