"""Splitting, and splits stored for other processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genbench.data import Splits, load_dataset
from genbench.data.base import ImageDataset
from genbench.data.cache import open_splits, store_splits
from genbench.data.split import Part, RawDataset, complete, stratified_choice, to_splits
from genbench.errors import DataError


def made(count: int = 40, labelled: bool = True, seed: int = 0) -> Splits:
    rng = np.random.RandomState(seed)
    labels = np.arange(count) % 4 if labelled else None
    raw = RawDataset(
        "made", {"train": Part(rng.randint(0, 256, (count, 1, 4, 4)).astype(np.uint8), labels)}, tuple("abcd")
    )
    return to_splits("made", complete(raw, 0))


@settings(deadline=None, max_examples=60)
@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=60), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_stratified_choice_is_exact_and_in_proportion(labels: list[int], share: float, seed: int) -> None:
    values = np.array(labels)
    count = int(share * len(values))
    chosen = stratified_choice(values, count, np.random.RandomState(seed))
    assert len(set(chosen.tolist())) == len(chosen) == count
    for label in set(labels):
        exact = (values == label).sum() * count / len(values)
        assert abs((values[chosen] == label).sum() - exact) < 1


def test_carved_splits_are_disjoint_and_complete() -> None:
    images = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), dtype=np.uint8)
    done = complete(RawDataset("x", {"train": Part(images, None)}), 3)
    found = [part.images[:, 0, 0, 0].tolist() for part in done.parts.values()]
    assert sorted(value for values in found for value in values) == list(range(50))
    assert {name: len(part) for name, part in done.parts.items()} == {"train": 40, "test": 5, "validation": 5}


def test_labels_count_only_when_all_splits_have_them() -> None:
    images = np.zeros((20, 1, 2, 2), dtype=np.uint8)
    labels = np.arange(20) % 2
    raw = RawDataset("x", {"train": Part(images, labels), "test": Part(images, None)}, ("a", "b"))
    splits = to_splits("x", complete(raw, 0))
    assert splits.train.labels is None
    assert splits.spec.class_names == ()


def test_splits_of_different_shapes_are_refused() -> None:
    train, test = (Part(np.zeros((20, 1, size, size), dtype=np.uint8), None) for size in (4, 5))
    with pytest.raises(DataError, match="train 1x4x4, test 1x5x5"):
        to_splits("x", complete(RawDataset("x", {"train": train, "test": test}), 0))


def test_fingerprint_sees_content_and_not_the_name() -> None:
    train = made().train
    same = ImageDataset("other", "test", train.images.copy(), train.labels, train.spec)
    assert same.fingerprint == train.fingerprint
    pixel = train.images.copy()
    pixel[3, 0, 1, 2] ^= 1
    assert ImageDataset("made", "train", pixel, train.labels, train.spec).fingerprint != train.fingerprint
    assert ImageDataset("made", "train", train.images, None, train.spec).fingerprint != train.fingerprint


@pytest.mark.parametrize("labelled", [True, False])
def test_stored_splits_open_as_they_were(tmp_path: Path, labelled: bool) -> None:
    splits = made(labelled=labelled)
    store_splits(splits, tmp_path)
    opened = open_splits(tmp_path)
    assert (opened.name, opened.spec, opened.fingerprint) == (splits.name, splits.spec, splits.fingerprint)
    for before, after in zip(
        (splits.train, splits.validation, splits.test), (opened.train, opened.validation, opened.test), strict=True
    ):
        assert isinstance(after.images, np.memmap)
        assert not after.images.flags.writeable
        assert np.array_equal(before.images, after.images)
        assert after.known_fingerprint == before.fingerprint
        assert (before.labels is None) == (after.labels is None)
        assert before.labels is None or np.array_equal(before.labels, after.labels)
        recomputed = ImageDataset(after.name, after.split, after.images, after.labels, after.spec)
        assert recomputed.fingerprint == after.fingerprint
    images = opened.train.batch(np.array([2, 0])).images.numpy()
    assert np.array_equal(images, splits.train.images[[2, 0]])


def test_storing_again_writes_nothing_and_another_dataset_takes_over(tmp_path: Path) -> None:
    store_splits(made(), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    store_splits(made(), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")} == before
    store_splits(made(seed=1), tmp_path)
    assert open_splits(tmp_path).fingerprint == made(seed=1).fingerprint


def test_broken_stored_splits_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"splits\.json"):
        open_splits(tmp_path)
    store_splits(made(), tmp_path)
    array = next(tmp_path.glob("test-*-images.npy"))
    whole = array.read_bytes()
    for broken in (whole[:-8], whole[:50], b""):
        array.write_bytes(broken)
        with pytest.raises(DataError, match=array.name):
            open_splits(tmp_path)
    np.save(array, np.zeros((1, 1, 4, 4), dtype=np.uint8))
    with pytest.raises(DataError, match=f"{array.name}: is uint8"):
        open_splits(tmp_path)
    store_splits(made(), tmp_path)
    assert open_splits(tmp_path).fingerprint == made().fingerprint
    manifest = tmp_path / "splits.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": 99}))
    with pytest.raises(DataError, match="version 99"):
        open_splits(tmp_path)
    manifest.write_text(manifest.read_text()[:100])
    with pytest.raises(DataError, match=r"splits\.json: not a readable"):
        open_splits(tmp_path)


def test_interrupted_store_leaves_the_old_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_splits(made(), tmp_path)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        store_splits(made(seed=1), tmp_path)
    assert open_splits(tmp_path).fingerprint == made().fingerprint
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_digits_survive_the_store(tmp_path: Path) -> None:
    splits = load_dataset("digits")
    store_splits(splits, tmp_path)
    assert open_splits(tmp_path).spec == splits.spec
