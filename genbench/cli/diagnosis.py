"""The checks behind ``genbench doctor``."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import torch
from packaging.requirements import Requirement

from genbench import __version__, registry
from genbench.checkpoint import WEIGHTS, read_manifest
from genbench.errors import GenbenchError
from genbench.features import extractor_status
from genbench.published import published_checkpoints
from genbench.suite import load_suite, suite_names
from genbench.timing import cpu_name


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis. ok None: for information. optional: its absence is no fault."""

    ok: bool | None
    name: str
    text: str
    optional: bool = False


def sections() -> Iterator[tuple[str, list[Finding]]]:
    """Titles with their findings."""
    yield "Installed", [*_packages()]
    yield "Devices", [*_devices()]
    yield "Folders", [*_folders()]
    yield "Feature extractors", [*_extractors()]
    yield "Published weights", [*_weights()]
    yield "Suites", [*_suites()]


def _packages() -> Iterator[Finding]:
    yield Finding(True, "genbench", f"{__version__}, Python {platform.python_version()}")
    for text in requires("genbench") or []:
        requirement = Requirement(text)
        optional = requirement.marker is not None
        if optional and not (requirement.marker and requirement.marker.evaluate({"extra": "clip"})):
            continue
        try:
            found = version(requirement.name)
            fits = requirement.specifier.contains(found, prereleases=True)
            yield Finding(
                fits, requirement.name, found if fits else f"{found}, needs {requirement.specifier}", optional
            )
        except PackageNotFoundError:
            yield Finding(False, requirement.name, f"not installed: pip install '{requirement.name}'", optional)


def _devices() -> Iterator[Finding]:
    yield Finding(True, "cpu", f"{cpu_name()}, {os.cpu_count()} cores")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield Finding(True, f"cuda:{index}", f"{properties.name}, {properties.total_memory // 2**20} MiB")
    if torch.backends.mps.is_available():
        yield Finding(True, "mps", "Apple GPU")
    if not torch.cuda.is_available():
        yield Finding(None, "cuda", "none; the digits suite needs none")


def _folders() -> Iterator[Finding]:
    from platformdirs import user_cache_path

    cache = user_cache_path("genbench")
    for name, path in (("output (runs/)", Path.cwd()), ("cache", cache)):
        existing = next(p for p in (path, *path.parents) if p.exists())
        writable = os.access(existing, os.W_OK)
        free = shutil.disk_usage(existing).free // 2**20
        yield Finding(writable, name, f"{path}: {'writable' if writable else 'NOT writable'}, {free} MiB free")
    root = os.environ.get("GENBENCH_DATA_ROOT")
    if root:
        yield Finding(Path(root).is_dir(), "GENBENCH_DATA_ROOT", root)


def _extractors() -> Iterator[Finding]:
    for name in registry.names("extractors"):
        status = extractor_status(name)
        yield Finding(status.available, name, status.detail, optional=True)


def _weights() -> Iterator[Finding]:
    for name in registry.names("models"):
        try:
            published = published_checkpoints(registry.load_model(name))
            for suite, folder in published.items():
                manifest = read_manifest(folder)
                there = (folder / WEIGHTS).is_file()
                yield Finding(there, f"{name} ({suite})", f"sha256 {manifest.weights_sha256[:16]}")
            if not published:
                yield Finding(None, name, "none; train it with `genbench run`")
        except GenbenchError as error:
            yield Finding(False, name, str(error))


def _suites() -> Iterator[Finding]:
    from genbench.data.load import dataset_status

    for name in suite_names():
        try:
            suite = load_suite(name)
            suite.check_names()
            available, text = dataset_status(suite.dataset)
            extractor = extractor_status(suite.extractor) if suite.extractor else None
            if extractor is not None and not extractor.available:
                text += f"; {suite.extractor}: {extractor.detail}"
            yield Finding(available, name, text, optional=True)
        except GenbenchError as error:
            yield Finding(False, name, str(error))
