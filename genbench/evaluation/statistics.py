"""Reference statistics that are kept: found again by what made them, never by where the images lie.

An entry is a folder named by the hash of the data's fingerprint, the extractor's identity (weights, preprocessing) and
the version of the statistics. It is written beside its place and renamed under a lock, so that other processes see all
of it or nothing. ``manifest.json`` holds size and SHA-256 of each file; an entry that does not fit is passed over.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from genbench import __version__
from genbench.errors import DataError, UsageError
from genbench.files import cache_folder, hash_file, hash_value, read_npz, write_json
from genbench.metrics.moments import Moments

logger = logging.getLogger(__name__)

STATISTICS_VERSION = 1
"""Raise it whenever the same images and extractor would give other statistics."""

_MANIFEST = "manifest.json"
_MOMENTS, _SPATIAL, _FEATURES, _LOGITS = "moments.npz", "spatial.npz", "features.npy", "logits.npy"
_IMAGES = "images.npy"
_NAMED_BY = ("statistics_version", "fingerprint", "extractor")
_MOMENTS_TOLERANCE = 1e-6
_LEFT_OVER_SECONDS = 24 * 3600


@dataclass(frozen=True, eq=False)
class StoredStatistics:
    """An entry of the cache. folder: ``<key>``. manifest: what it was made from, when, by which version; its files."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def key(self) -> str:
        """SHA-256 that names the entry."""
        return self.folder.name

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.manifest["count"])

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """``size`` in bytes and ``sha256`` of each file by name."""
        found: dict[str, dict[str, Any]] = self.manifest["files"]
        return found

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(int(file["size"]) for file in self.files.values())

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of the features."""
        return _read_moments(self.folder / _MOMENTS)

    @cached_property
    def spatial_moments(self) -> Moments | None:
        """Mean and covariance of the spatial features, where they were stored."""
        return _read_moments(self.folder / _SPATIAL) if _SPATIAL in self.files else None

    @cached_property
    def features(self) -> np.ndarray | None:
        """(n, d) float32, mapped from the file, where they were stored."""
        return self._mapped(_FEATURES)

    @cached_property
    def logits(self) -> np.ndarray | None:
        """(n, classes) float32, mapped from the file, where they were stored."""
        return self._mapped(_LOGITS)

    @cached_property
    def images(self) -> dict[int, int] | None:
        """How often each image occurs, by its hash, where that was stored; tells copies and overlap."""
        found = self._mapped(_IMAGES)
        return None if found is None else {int(key): int(times) for key, times in found}

    @property
    def observed(self) -> dict[str, int]:
        """What else was noticed of the images, as counts by name."""
        found: dict[str, int] = self.manifest["observed"]
        return found

    @property
    def classes(self) -> dict[str, int]:
        """Number of images by class, of every class that the labels name; empty where they had no labels."""
        found: dict[str, int] = self.manifest.get("classes", {})
        return found

    def _mapped(self, name: str) -> np.ndarray | None:
        if name not in self.files:
            return None
        array: np.ndarray = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        return array


class StatisticsCache:
    """The folder of entries; by default ``statistics`` in genbench's cache."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = cache_folder() / "statistics" if folder is None else Path(folder)

    def key(self, fingerprint: str, identity: Mapping[str, Any]) -> str:
        """Name of the entry for data of this fingerprint and an extractor of this identity."""
        return hash_value([STATISTICS_VERSION, fingerprint, dict(identity)])

    def find(self, fingerprint: str, identity: Mapping[str, Any]) -> StoredStatistics | None:
        """The entry, or None where there is none; a damaged one is passed over with a warning."""
        folder = self.folder / self.key(fingerprint, identity)
        if not folder.exists():
            return None
        try:
            return open_entry(folder)
        except DataError as error:
            problem = error
        try:
            with self._lock(folder.name):
                return open_entry(folder)
        except (DataError, OSError):
            logger.warning("%s It is passed over; see `genbench stats verify`.", problem)
            return None

    def store(
        self,
        fingerprint: str,
        identity: Mapping[str, Any],
        *,
        moments: Moments,
        source: Mapping[str, Any],
        features: np.ndarray | None = None,
        logits: np.ndarray | None = None,
        spatial_moments: Moments | None = None,
        images: Mapping[int, int] | None = None,
        observed: Mapping[str, int] | None = None,
        classes: Mapping[str, int] | None = None,
    ) -> StoredStatistics:
        """Keep statistics; what a whole entry of the same key holds beyond them stays.

        Args:
            fingerprint: SHA-256 of the images' content.
            identity: of the extractor.
            moments: of the features of all images, with their count.
            source: where the images came from, for people.
            features: (n, d), kept as float32.
            logits: (n, classes), likewise.
            spatial_moments: of the spatial features.
            images: how often each image occurs, by a hash of at most 64 bits.
            observed: what else was noticed of the images, as counts by name.
            classes: number of images by class, of every class that the labels name.

        Raises:
            DataError: moments without a count, or features or logits of another number of images.
        """
        if moments.count is None:
            raise DataError("Statistics without a number of images cannot be kept. Make them again from the images.")
        for name, array in (("features", features), ("logits", logits)):
            if array is not None and len(array) != moments.count:
                raise DataError(f"Mean and covariance are of {moments.count} images, the {name} of {len(array)}.")
        key = self.key(fingerprint, identity)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock(key):
            new = self._temporary(key)
            try:
                _write_moments(new / _MOMENTS, moments)
                if spatial_moments is not None:
                    _write_moments(new / _SPATIAL, spatial_moments)
                for name, array in ((_FEATURES, features), (_LOGITS, logits)):
                    if array is not None:
                        _write_array(new / name, np.ascontiguousarray(array, dtype=np.float32))
                if images is not None:
                    _write_array(new / _IMAGES, np.array(list(images.items()), dtype=np.uint64).reshape(-1, 2))
                self._carry_over(key, new)
                manifest = {
                    "statistics_version": STATISTICS_VERSION,
                    "fingerprint": fingerprint,
                    "extractor": dict(identity),
                    "source": dict(source),
                    "observed": dict(observed or {}),
                    "classes": dict(classes or {}),
                    "count": moments.count,
                    "width": moments.width,
                    "created": datetime.now(UTC).isoformat(timespec="seconds"),
                    "genbench_version": __version__,
                    "files": {path.name: _described(path) for path in sorted(new.iterdir())},
                }
                write_json(new / _MANIFEST, manifest)
                self._swap(key, new)
            finally:
                shutil.rmtree(new, ignore_errors=True)
            return open_entry(self.folder / key)

    def keys(self) -> list[str]:
        """Names of all entries, damaged ones too."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and not path.name.startswith("."))

    def get(self, key: str) -> StoredStatistics:
        """The entry whose key starts so.

        Raises:
            UsageError: none or several.
            DataError: it is damaged.
        """
        return open_entry(self.folder / self.complete(key))

    def complete(self, key: str) -> str:
        """The whole of a key of which the start is given.

        Raises:
            UsageError: none or several start so.
        """
        names = [name for name in self.keys() if key and name.startswith(key)]
        if len(names) != 1:
            raise UsageError(
                f"'{key}' is the start of {len(names) or 'no'} key{'s' if len(names) > 1 else ''} in {self.folder}. "
                "`genbench stats show` lists them."
            )
        return names[0]

    def remove(self, key: str) -> None:
        """Delete an entry."""
        with self._lock(key):
            self._discard(self.folder / key)

    def sweep(self) -> None:
        """Delete what writers that were killed more than a day ago left behind."""
        for path in self.folder.glob(".*-*") if self.folder.is_dir() else ():
            if path.is_dir() and time.time() - path.stat().st_mtime > _LEFT_OVER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)

    def _lock(self, key: str) -> FileLock:
        return FileLock(self.folder / f".{key}.lock")

    def _temporary(self, key: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f".{key[:12]}-", dir=self.folder))
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
        return folder

    def _carry_over(self, key: str, new: Path) -> None:
        """Copy what the entry has and ``new`` has not, if it is whole."""
        try:
            old = open_entry(self.folder / key)
        except DataError:
            return
        for name, file in old.files.items():
            if not (new / name).exists() and hash_file(old.folder / name) == file["sha256"]:
                shutil.copyfile(old.folder / name, new / name)

    def _swap(self, key: str, new: Path) -> None:
        target = self.folder / key
        if target.exists():
            self._discard(target)
        new.rename(target)

    def _discard(self, folder: Path) -> None:
        """Move out of the way first, so that no reader meets half of it."""
        grave = self._temporary(folder.name)
        folder.rename(grave / folder.name)
        shutil.rmtree(grave, ignore_errors=True)


def open_entry(folder: Path) -> StoredStatistics:
    """Open an entry: its manifest, its files in their sizes, its mean and covariance; large files are not read.

    Raises:
        DataError: missing or damaged; names the folder.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        entry = StoredStatistics(folder, manifest)
        if hash_value([manifest[name] for name in _NAMED_BY]) != entry.key:
            raise ValueError("its name is not the hash of what its manifest says it was made from")
        if _MOMENTS not in entry.files or set(entry.files) - {_MOMENTS, _SPATIAL, _FEATURES, _LOGITS, _IMAGES}:
            raise ValueError(f"its files are {', '.join(entry.files)}")
        for name, file in entry.files.items():
            size = (folder / name).stat().st_size
            if size != file["size"]:
                raise ValueError(f"{name} has {size} bytes, expected {file['size']}")
        counts = [entry.moments.count, *(len(a) for a in (entry.features, entry.logits) if a is not None)]
        if entry.spatial_moments is not None:
            counts.append(entry.spatial_moments.count)
        if set(counts) != {entry.count} or entry.moments.width != manifest["width"]:
            raise ValueError(f"its files are of {counts} images, expected {entry.count}")
    except Exception as error:
        raise DataError(f"{folder}: damaged statistics ({error}).") from None
    return entry


def check_entry(entry: StoredStatistics, *, full: bool = False) -> str | None:
    """What is wrong with an entry, every file hashed, or None.

    full: also compute mean and covariance from the stored features again.
    """
    for name, file in entry.files.items():
        if hash_file(entry.folder / name) != file["sha256"]:
            return f"{name}: its SHA-256 is not the one it was written with"
    if full and entry.features is not None:
        again, kept = Moments.of(entry.features), entry.moments
        for what, a, b in (("mean", again.mean, kept.mean), ("covariance", again.scatter, kept.scatter)):
            if float(np.abs(a - b).max()) > _MOMENTS_TOLERANCE * float(np.abs(b).max()):
                return f"{_MOMENTS}: its {what} is not that of the features"
    return None


def _described(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": hash_file(path)}


def _write_array(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())


def _write_moments(path: Path, moments: Moments) -> None:
    with path.open("wb") as stream:
        np.savez(stream, count=np.array(moments.count), mean=moments.mean, scatter=moments.scatter)
        stream.flush()
        os.fsync(stream.fileno())


def _read_moments(path: Path) -> Moments:
    arrays = read_npz(path)
    return Moments(int(arrays["count"]), arrays["mean"], arrays["scatter"])
