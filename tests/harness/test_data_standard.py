"""digits, MNIST and CIFAR-10: their fixed splits, where they are looked for, what is said when they are not there."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.datasets

from genbench.data import load as load_module
from genbench.data import load_dataset
from genbench.data.idx import read_idx
from genbench.errors import DataError
from genbench.images import from_levels, to_levels

MNIST_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's cache nor the environment's data root is looked at, and nothing is downloaded."""
    monkeypatch.setattr(load_module, "data_cache", lambda: tmp_path / "cache")
    monkeypatch.delenv(load_module.DATA_ROOT_VARIABLE, raising=False)

    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", offline)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", offline)


def write_idx(path: Path, array: np.ndarray) -> None:
    content = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, suffix: str, train: int = 10_400, test: int = 30) -> np.ndarray:
    rng = np.random.RandomState(0)
    labels = rng.permutation(np.arange(train) % 10)
    write_idx(folder / f"{MNIST_FILES[0]}{suffix}", rng.randint(0, 256, (train, 2, 2)))
    write_idx(folder / f"{MNIST_FILES[1]}{suffix}", labels)
    write_idx(folder / f"{MNIST_FILES[2]}{suffix}", rng.randint(0, 256, (test, 2, 2)))
    write_idx(folder / f"{MNIST_FILES[3]}{suffix}", np.arange(test) % 10)
    return labels


def test_digits_are_the_17_level_images_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    splits = load_dataset("digits")
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [1300, 200, 297]
    assert splits.spec.shape == (1, 8, 8)
    assert splits.spec.levels == 17
    assert splits.spec.class_names == tuple("0123456789")
    levels = np.concatenate([to_levels(torch.from_numpy(part.images), 17).numpy()[:, 0] for part in parts])
    bunch = load_digits()
    assert sorted(x.tobytes() for x in levels) == sorted(x.tobytes() for x in bunch.images.astype(np.int64))
    stored = from_levels(torch.from_numpy(levels), 17).numpy()
    assert np.array_equal(stored, np.floor(255 * levels / 16 + 0.5).astype(np.uint8))
    whole = np.bincount(bunch.target) / len(bunch.target)
    for part in parts:
        assert part.labels is not None
        assert np.abs(np.bincount(part.labels) - whole * len(part)).max() <= 1


def test_digits_split_is_a_fixed_identity() -> None:
    first, second = load_dataset("digits"), load_dataset("digits", split_seed=7)
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint == "79648fa0ab35fe2a5397bc004f9418fc92a324ae62a59a416403cbf7d931e123"


@pytest.mark.parametrize(
    ("place", "suffix"),
    [("MNIST/raw", ".gz"), ("MNIST/raw", ""), ("mnist/MNIST/raw", ".gz"), ("mnist", ""), ("", ".gz")],
)
def test_mnist_is_found_under_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, suffix: str
) -> None:
    labels = write_mnist(tmp_path / "root" / place, suffix)
    splits = load_dataset("mnist", data_root=tmp_path / "root")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [400, 10_000, 30]
    assert splits.train.labels is not None
    assert splits.validation.labels is not None
    assert np.bincount(splits.train.labels).tolist() == [40] * 10
    assert np.bincount(np.concatenate([splits.train.labels, splits.validation.labels])).tolist() == [1040] * 10
    assert np.bincount(labels).tolist() == [1040] * 10
    monkeypatch.setenv("GENBENCH_DATA_ROOT", str(tmp_path / "root"))
    assert load_dataset("mnist").fingerprint == splits.fingerprint


def test_data_root_comes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path / "a", ".gz", test=30)
    write_mnist(tmp_path / "b", ".gz", test=20)
    monkeypatch.setenv("GENBENCH_DATA_ROOT", str(tmp_path / "b"))
    assert len(load_dataset("mnist", data_root=tmp_path / "a").test) == 30
    assert len(load_dataset("mnist").test) == 20


def test_a_missing_data_set_says_where_it_goes(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_dataset("mnist")
    said = str(error.value)
    assert "neither GENBENCH_DATA_ROOT nor --data-root names a folder) and could not be downloaded" in said
    assert said.endswith("and set GENBENCH_DATA_ROOT=DIR, or give --data-root DIR.")
    with pytest.raises(DataError, match=f"looked in {tmp_path}\\)"):
        load_dataset("cifar10", data_root=tmp_path)


def test_broken_mnist_files_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, ".gz", train=20_000)
    path = tmp_path / f"{MNIST_FILES[0]}.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz: cannot be read"):
        load_dataset("mnist", data_root=tmp_path)
    path.write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz"):
        load_dataset("mnist", data_root=tmp_path)
    path.write_bytes(whole)
    (tmp_path / f"{MNIST_FILES[3]}.gz").unlink()
    with pytest.raises(DataError, match="neither t10k-labels-idx1-ubyte nor"):
        load_dataset("mnist", data_root=tmp_path)
    write_idx(tmp_path / f"{MNIST_FILES[3]}.gz", np.zeros(29))
    with pytest.raises(DataError, match="t10k images and labels"):
        load_dataset("mnist", data_root=tmp_path)


def test_idx_sizes_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "x-ubyte"
    values = np.arange(24).reshape(2, 3, 4)
    write_idx(path, values)
    assert np.array_equal(read_idx(path), values)
    content = path.read_bytes()
    for broken, message in (
        (content[:-1], "39 bytes, expected 40"),
        (content + b"\0", "41 bytes, expected 40"),
        (content[:9], "within its header"),
        (b"\0\0\x0d" + content[3:], "not an IDX file of unsigned bytes"),
        (b"", "starts with nothing"),
    ):
        path.write_bytes(broken)
        with pytest.raises(DataError, match=f"x-ubyte: .*{message}"):
            read_idx(path)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_failed_download_says_what_to_put_where(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(name, data_root=tmp_path / "nothing")
    message = str(caught.value)
    wanted = (
        ["t10k-labels-idx1-ubyte.gz", "DIR/MNIST/raw"] if name == "mnist" else ["cifar-10-python.tar.gz", "cs.toronto"]
    )
    for part in (*wanted, "no network in tests", "--data-root", "GENBENCH_DATA_ROOT", str(tmp_path / "nothing")):
        assert part in message
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{name}.lock"]


def test_download_appears_in_the_cache_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(self: Any) -> None:
        calls.append(self.root)
        write_mnist(Path(self.root) / "MNIST" / "raw", "")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    monkeypatch.setattr(torchvision.datasets.MNIST, "_check_exists", lambda _: True)
    monkeypatch.setattr(torchvision.datasets.MNIST, "_load_data", lambda _: (None, None))
    first = load_dataset("mnist")
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["mnist", "mnist.lock"]
    assert load_dataset("mnist").fingerprint == first.fingerprint
    assert len(calls) == 1


class OfficialCifar:
    """A miniature CIFAR-10 on disk, with torchvision's list of MD5 sums pointing at it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = root / "cifar-10-batches-py"
        self.folder.mkdir(parents=True)
        rng = np.random.RandomState(0)
        self.images = rng.randint(0, 256, (5_110, 3, 32, 32)).astype(np.uint8)
        self.labels = np.arange(len(self.images)) % 10
        train = self._dump("data_batch_1", slice(0, 5_100))
        test = self._dump("test_batch", slice(5_100, None))
        names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
        meta = self._write("batches.meta", {"label_names": names})
        cls = torchvision.datasets.CIFAR10
        monkeypatch.setattr(cls, "train_list", [["data_batch_1", train]])
        monkeypatch.setattr(cls, "test_list", [["test_batch", test]])
        monkeypatch.setattr(cls, "meta", {"filename": "batches.meta", "key": "label_names", "md5": meta})

    def _dump(self, name: str, part: slice) -> str:
        flat = self.images[part].reshape(-1, 3072)
        return self._write(name, {"data": flat, "labels": self.labels[part].tolist()})

    def _write(self, name: str, value: Any) -> str:
        content = pickle.dumps(value)
        (self.folder / name).write_bytes(content)
        return hashlib.md5(content).hexdigest()


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_is_read_from_folder_or_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    root = tmp_path / "root" / "cifar10"
    official = OfficialCifar(tmp_path / "made" if packed else root, monkeypatch)
    if packed:
        root.mkdir(parents=True)
        with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz", compresslevel=1) as archive:
            archive.add(official.folder, "cifar-10-batches-py")
        digest = hashlib.md5((root / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
        monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", digest)
    splits = load_dataset("cifar10", data_root=tmp_path / "root")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [100, 5_000, 10]
    assert np.array_equal(splits.test.images, official.images[5_100:])
    assert splits.spec.class_names[3] == "cat"
    left = ["cifar-10-python.tar.gz"] if packed else ["cifar-10-batches-py"]
    assert [path.name for path in root.iterdir()] == left


def test_cifar10_pickles_of_another_md5_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = OfficialCifar(tmp_path, monkeypatch)

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (official.folder / "test_batch").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=r"cifar-10-batches-py: a file is missing or its MD5"):
        load_dataset("cifar10", data_root=tmp_path)
    assert not (tmp_path / "sprung").exists()
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "cifar-10-python.tar.gz").write_bytes(b"not the archive")
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: MD5 is not"):
        load_dataset("cifar10", data_root=tmp_path / "packed")
