"""Precomputed statistics of features: the npz files of pytorch-fid, clean-fid, guided-diffusion and EDM."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from genbench.data.arrays import StoredArray, open_npz
from genbench.errors import DataError
from genbench.files import hash_array, hash_value, write_npz

PASSPORT = "genbench"
"""Key of a statistics file that holds a JSON text: extractor, fingerprint and source; other tools ignore it."""

_MAX_WIDTH = 2**14
_MAX_PASSPORT_BYTES = 2**20
_SYMMETRY = 1e-5
"""Largest difference across the diagonal, relative to the largest entry; float32 files stay well below."""


@dataclass(frozen=True, eq=False)
class StatisticsSource:
    """Mean (d,) and covariance (d, d), float64, of features; count: of how many images, where it is known.

    spatial_mean, spatial_covariance: of the spatial features of sFID, or None. made_with: identity of the extractor
    behind the features, and data_fingerprint: of the images, where a file of genbench's says so.

    Raises:
        DataError: not finite, not of one width, not symmetric, or a negative variance; names ``name``.
    """

    name: str
    mean: np.ndarray
    covariance: np.ndarray
    count: int | None = None
    spatial_mean: np.ndarray | None = None
    spatial_covariance: np.ndarray | None = None
    made_with: Mapping[str, Any] | None = None
    data_fingerprint: str | None = None
    kind: ClassVar[str] = "statistics"

    def __post_init__(self) -> None:
        pairs = [("mu", "sigma", self.mean, self.covariance)]
        if (self.spatial_mean is None) != (self.spatial_covariance is None):
            raise DataError(f"{self.name}: has one of mu_s and sigma_s, expected both or none.")
        if self.spatial_mean is not None and self.spatial_covariance is not None:
            pairs.append(("mu_s", "sigma_s", self.spatial_mean, self.spatial_covariance))
        for mean_key, covariance_key, mean, covariance in pairs:
            _check(self.name, mean_key, covariance_key, mean, covariance)
        if self.count is not None and self.count < 1:
            raise DataError(f"{self.name}: count is {self.count}, expected a positive number of images.")

    def fingerprint(self, *, verify: bool = False) -> str:  # noqa: ARG002 - as `ImageSource.fingerprint`
        """SHA-256 of the numbers; the place of the file does not count. Nothing is remembered, so nothing verified."""
        return self._hash

    @cached_property
    def _hash(self) -> str:
        arrays = (self.mean, self.covariance, self.spatial_mean, self.spatial_covariance)
        return hash_value([self.count, *(None if array is None else hash_array(array) for array in arrays)])


def has_statistics(arrays: Mapping[str, StoredArray]) -> bool:
    """Whether an npz has a ``mu`` or ``sigma``."""
    return "mu" in arrays or "sigma" in arrays


def read_statistics(path: Path) -> StatisticsSource:
    """Read ``mu`` (d,) and ``sigma`` (d, d), and where they are there ``mu_s``, ``sigma_s``, ``count`` and a passport.

    A passport that is no JSON object of genbench's counts as none: the key may be another tool's.

    Raises:
        DataError: not an npz, without these arrays, or with numbers that are no statistics; names the file.
    """
    arrays = open_npz(path)
    missing = [key for key in ("mu", "sigma") if key not in arrays]
    if missing:
        raise DataError(f"{path}: has {', '.join(arrays) or 'nothing'}; expected mu and sigma.")
    passport = _load_passport(path, arrays.get(PASSPORT))
    made_with, fingerprint = passport.get("extractor"), passport.get("fingerprint")
    values = {key: _load(arrays[key]) for key in ("mu", "sigma", "mu_s", "sigma_s") if key in arrays}
    return StatisticsSource(
        name=path.name,
        mean=values["mu"],
        covariance=values["sigma"],
        count=_load_count(arrays["count"]) if "count" in arrays else None,
        spatial_mean=values.get("mu_s"),
        spatial_covariance=values.get("sigma_s"),
        made_with=made_with if isinstance(made_with, dict) else None,
        data_fingerprint=fingerprint if isinstance(fingerprint, str) else None,
    )


def write_statistics(
    path: Path,
    mean: np.ndarray,
    covariance: np.ndarray,
    count: int | None = None,
    *,
    spatial_mean: np.ndarray | None = None,
    spatial_covariance: np.ndarray | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write statistics, atomically, as an npz that pytorch-fid, clean-fid, guided-diffusion and EDM read too.

    Args:
        path: the file, ending in .npz.
        mean: (d,). covariance: (d, d). Written as float64 ``mu`` and ``sigma``.
        count: number of images behind them.
        spatial_mean: (s,) and ``spatial_covariance`` (s, s), written as ``mu_s`` and ``sigma_s``.
        extra: further arrays; other tools ignore them.

    Raises:
        DataError: numbers that are no statistics, or an extra array by a name that is taken.
    """
    source = StatisticsSource(str(path), _float64(mean), _float64(covariance), count)
    arrays = {"mu": source.mean, "sigma": source.covariance}
    if spatial_mean is not None and spatial_covariance is not None:
        spatial = StatisticsSource(str(path), _float64(spatial_mean), _float64(spatial_covariance))
        arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.covariance}
    elif spatial_mean is not None or spatial_covariance is not None:
        raise DataError(f"{path}: given one of spatial mean and covariance, expected both or none.")
    if count is not None:
        arrays["count"] = np.asarray(count, dtype=np.int64)
    taken = sorted((arrays.keys() | {"mu_s", "sigma_s", "count", "arr_0"}) & (extra or {}).keys())
    if taken:
        raise DataError(f"{path}: {', '.join(taken)} cannot be the name of an extra array. Choose another.")
    write_npz(path, **arrays, **(extra or {}))


def _float64(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.float64)


def _load(array: StoredArray) -> np.ndarray:
    if max(array.shape, default=0) > _MAX_WIDTH:
        raise DataError(f"{array.where} has shape {array.shape}; at most {_MAX_WIDTH} features are expected.")
    return _float64(array.load())


def _load_count(array: StoredArray) -> int:
    value = _load(array)
    if array.dtype.kind not in "iu" or value.size != 1:
        raise DataError(f"{array.where} is {array.dtype} of shape {array.shape}, expected one whole number.")
    return int(value.item())


def _load_passport(path: Path, array: StoredArray | None) -> Mapping[str, Any]:
    if array is None or array.dtype.kind != "U" or array.shape or array.dtype.itemsize > _MAX_PASSPORT_BYTES:
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = json.loads(str(stored[PASSPORT]))
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile, zlib.error):
        return {}
    return found if isinstance(found, dict) else {}


def _check(name: str, mean_key: str, covariance_key: str, mean: np.ndarray, covariance: np.ndarray) -> None:
    if mean.ndim != 1 or len(mean) == 0:
        raise DataError(f"{name}: {mean_key} has shape {mean.shape}, expected (d,), one number a feature.")
    if covariance.shape != (len(mean), len(mean)):
        raise DataError(
            f"{name}: {covariance_key} has shape {covariance.shape}, expected {(len(mean), len(mean))} as {mean_key} "
            f"has {len(mean)} features."
        )
    for key, array in ((mean_key, mean), (covariance_key, covariance)):
        if array.dtype != np.float64:
            raise DataError(f"{name}: {key} is {array.dtype}, expected float64.")
        if not np.isfinite(array).all():
            raise DataError(f"{name}: {key} has values that are NaN or infinite. Make the statistics again.")
    scale = float(np.abs(covariance).max())
    gap = float(np.abs(covariance - covariance.T).max())
    if gap > _SYMMETRY * scale:
        raise DataError(f"{name}: {covariance_key} is not symmetric (off by {gap:.3g}). Make the statistics again.")
    if float(covariance.diagonal().min()) < -_SYMMETRY * scale:
        raise DataError(f"{name}: {covariance_key} has a negative variance. Make the statistics again.")
