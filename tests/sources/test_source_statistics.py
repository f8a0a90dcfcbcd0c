"""Statistics files: written so that other tools read them, read from all of them, and refused where they are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_files import made, opened, pixels

from genbench.errors import DataError, UsageError
from genbench.sources import StatisticsSource, open_source, read_statistics, write_statistics
from genbench.sources.statistics import PASSPORT

RNG = np.random.RandomState(0)
FEATURES = RNG.randn(50, 7)
MU, SIGMA = FEATURES.mean(0), np.cov(FEATURES, rowvar=False)
MU_S, SIGMA_S = MU[:3], SIGMA[:3, :3]


def test_written_statistics_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    extra = {"seed": np.array(3)}
    write_statistics(path, MU, SIGMA, 50, spatial_mean=MU_S, spatial_covariance=SIGMA_S, extra=extra)
    source = open_source(path)
    assert isinstance(source, StatisticsSource)
    assert (source.name, source.kind, source.count) == ("s.npz", "statistics", 50)
    for found, expected in (
        (source.mean, MU),
        (source.covariance, SIGMA),
        (source.spatial_mean, MU_S),
        (source.spatial_covariance, SIGMA_S),
    ):
        assert found is not None
        assert np.array_equal(found, expected)
        assert found.dtype == np.float64
    with np.load(path) as raw:
        assert raw["mu"].dtype == raw["sigma"].dtype == np.float64
        assert raw["seed"] == 3
    moved = path.rename(tmp_path / "other.npz")
    assert read_statistics(moved).fingerprint() == source.fingerprint()
    write_statistics(path, MU + 1e-12, SIGMA, 50)
    assert read_statistics(path).fingerprint() != source.fingerprint()


def test_pytorch_fid_reads_what_is_written(tmp_path: Path) -> None:
    fid_score = pytest.importorskip("pytorch_fid.fid_score")
    write_statistics(tmp_path / "s.npz", MU, SIGMA)
    mu, sigma = fid_score.compute_statistics_of_path(str(tmp_path / "s.npz"), None, 1, 7, "cpu")
    assert np.array_equal(mu, MU)
    assert np.array_equal(sigma, SIGMA)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_files_of_other_tools(dtype: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", mu=MU.astype(dtype), sigma=SIGMA.astype(dtype), feats=FEATURES)
    source = read_statistics(tmp_path / "s.npz")
    assert source.count is None
    assert source.spatial_mean is None
    assert np.allclose(source.covariance, SIGMA, rtol=1e-6)


def test_reference_batches_with_images_and_statistics(tmp_path: Path) -> None:
    images = made()
    arrays = {"mu": MU, "sigma": SIGMA, "mu_s": MU_S, "sigma_s": SIGMA_S}
    np.savez(tmp_path / "ref.npz", arr_0=images.transpose(0, 2, 3, 1), **arrays)
    source = opened(tmp_path / "ref.npz")
    assert np.array_equal(pixels(list(source.images())), images)
    assert source.statistics is not None
    assert np.array_equal(source.statistics.mean, MU)
    assert source.statistics.spatial_covariance is not None
    np.savez(tmp_path / "ref.npz", arr_0=images.transpose(0, 2, 3, 1))
    assert opened(tmp_path / "ref.npz").statistics is None


def changed(array: np.ndarray, place: Any, value: float) -> np.ndarray:
    copy = array.copy()
    copy[place] = value
    return copy


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": MU}, "expected mu and sigma"),
        ({"mu": MU[:6], "sigma": SIGMA}, r"sigma has shape \(7, 7\), expected \(6, 6\)"),
        ({"mu": MU, "sigma": SIGMA[:6]}, r"sigma has shape \(6, 7\)"),
        ({"mu": MU[None], "sigma": SIGMA}, r"mu has shape \(1, 7\)"),
        ({"mu": MU[:0], "sigma": SIGMA[:0, :0]}, r"mu has shape \(0,\)"),
        ({"mu": changed(MU, 3, np.nan), "sigma": SIGMA}, "mu has values that are NaN"),
        ({"mu": MU, "sigma": changed(SIGMA, (1, 2), np.inf)}, "sigma has values that are NaN or infinite"),
        ({"mu": MU, "sigma": changed(SIGMA, (1, 2), 0.5)}, "sigma is not symmetric"),
        ({"mu": MU, "sigma": -SIGMA}, "negative variance"),
        ({"mu": MU, "sigma": SIGMA, "mu_s": MU_S}, "one of mu_s and sigma_s"),
        ({"mu": MU, "sigma": SIGMA, "mu_s": MU_S, "sigma_s": SIGMA}, "sigma_s has shape"),
        ({"mu": MU, "sigma": SIGMA, "count": np.array(0)}, "count is 0"),
        ({"mu": MU, "sigma": SIGMA, "count": np.array([1, 2])}, "expected one whole number"),
        ({"mu": np.zeros(2**14 + 1), "sigma": SIGMA}, "at most 16384"),
        ({"mu": np.array(["a"]), "sigma": SIGMA}, "expected numbers"),
    ],
)
def test_what_is_no_statistics(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(DataError, match=f"s.npz.*{message}"):
        open_source(tmp_path / "s.npz")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    for call in (
        lambda: write_statistics(path, MU, SIGMA[:3]),
        lambda: write_statistics(path, MU, SIGMA, 0),
        lambda: write_statistics(path, MU, SIGMA, spatial_mean=MU_S),
        lambda: write_statistics(path, MU, SIGMA, extra={"sigma": SIGMA}),
    ):
        with pytest.raises(DataError, match=r"s\.npz"):
            call()
    assert not path.exists()


def test_statistics_take_no_labels(tmp_path: Path) -> None:
    write_statistics(tmp_path / "s.npz", MU, SIGMA)
    with pytest.raises(UsageError, match="no images to give labels or prompts"):
        open_source(tmp_path / "s.npz", labels=[1])


def test_a_passport_says_what_made_the_statistics(tmp_path: Path) -> None:
    identity = {"name": "inception-v3", "weights_sha256": "ab" * 32}
    passport = json.dumps({"extractor": identity, "fingerprint": "cd" * 32})
    write_statistics(tmp_path / "own.npz", MU, SIGMA, 50, extra={PASSPORT: np.array(passport)})
    write_statistics(tmp_path / "other.npz", MU, SIGMA, 50)
    own, other = read_statistics(tmp_path / "own.npz"), read_statistics(tmp_path / "other.npz")
    assert own.made_with == identity
    assert own.data_fingerprint == "cd" * 32
    assert (other.made_with, other.data_fingerprint) == (None, None)
    assert own.fingerprint() == other.fingerprint()


@pytest.mark.parametrize(
    "passport",
    [
        np.array("no JSON"),
        np.array("[1]"),
        np.array('{"extractor": "x", "fingerprint": 3}'),
        np.array(3),
        np.array(["{}"]),
        np.array("[" * 100_000),
    ],
)
def test_a_passport_of_another_tool_is_ignored(passport: np.ndarray, tmp_path: Path) -> None:
    write_statistics(tmp_path / "s.npz", MU, SIGMA, 50, extra={PASSPORT: passport})
    source = read_statistics(tmp_path / "s.npz")
    assert (source.made_with, source.data_fingerprint) == (None, None)
