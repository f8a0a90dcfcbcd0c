"""Pairs by name where the names agree, by order elsewhere, and never a wrong partner when images are skipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from source_files import encode, made, opened, write_folder, write_tar, write_zip

from genbench.errors import DataError
from genbench.sources import Observations, match_pairs, pair_names

A, B = made(seed=1), made(seed=2)
ORDER = np.random.RandomState(5).permutation(12).tolist()


def named(images: np.ndarray, pattern: str = "{}.png", order: list[int] | None = None) -> dict[str, bytes]:
    kind = "bmp" if ".bmp" in pattern.lower() else "png"
    return {pattern.format(f"p{k:02d}"): encode(images[k], kind) for k in order or range(len(images))}


def check(a: object, b: object, by: str) -> None:
    one, two = opened(a), opened(b)
    assert pair_names(one, two).by == by
    pairs = list(match_pairs(one, two))
    assert len(pairs) == 12
    row = {image.tobytes(): k for k, image in enumerate(A)}
    for left, right in pairs:
        assert np.array_equal(right.pixels, B[row[left.pixels.tobytes()]])


def test_by_name_whatever_order_suffix_or_root(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", named(A))
    check(a, write_folder(tmp_path / "b", named(B, "{}.BMP")), "name")
    check(a, write_zip(tmp_path / "b.zip", named(B, "deep/in/{}.png")), "name")
    check(a, write_tar(tmp_path / "b.tar", named(B, order=ORDER)), "name")
    check(write_tar(tmp_path / "a.tar", named(A, order=ORDER)), tmp_path / "b.zip", "name")


def test_by_order_elsewhere(tmp_path: Path) -> None:
    a = write_folder(tmp_path / "a", named(A))
    check(a, B, "order")
    check(list(A), write_folder(tmp_path / "b", named(B, "other-{}.png")), "order")
    assert "names differ" in pair_names(opened(a), opened(tmp_path / "b")).reason
    check(iter(list(A)), B, "order")
    both = {**named(A[:6], "{}.png"), **named(A[:6], "{}.bmp")}
    assert "not unique" in pair_names(opened(write_folder(tmp_path / "c", both)), opened(a)).reason


def test_unequal_counts(tmp_path: Path) -> None:
    a, b = opened(write_folder(tmp_path, named(A))), opened(B[:11])
    for call in (lambda: pair_names(a, b), lambda: list(match_pairs(a, b))):
        with pytest.raises(DataError, match=r"has 12, array has 11"):
            call()
    with pytest.raises(DataError, match=r"has 12, .* has 11"):
        list(match_pairs(a, opened(iter(list(B[:11])))))


@pytest.mark.parametrize("pattern", ["{}.png", "other-{}.png"])
def test_skipped_images_take_their_partners_with_them(pattern: str, tmp_path: Path) -> None:
    one = {**named(A), "p03.png": b"broken"}
    two = {**named(B, pattern), pattern.format("p07"): b"broken"}
    sources = opened(write_folder(tmp_path / "a", one)), opened(write_folder(tmp_path / "b", two))
    with pytest.raises(DataError, match=r"p03\.png"):
        list(match_pairs(*sources))
    seen = Observations(), Observations()
    pairs = list(match_pairs(*sources, *seen, on_error="skip"))
    assert [left.index for left, _ in pairs] == [k for k in range(12) if k not in (3, 7)]
    for left, right in pairs:
        assert np.array_equal(left.pixels, A[left.index])
        assert np.array_equal(right.pixels, B[left.index])
    assert [len(notes.skipped) for notes in seen] == [1, 1]
    write_folder(tmp_path / "a", dict.fromkeys(named(A[:6]), b"broken"))
    write_folder(tmp_path / "b", {pattern.format(f"p{k:02d}"): b"broken" for k in range(6, 12)})
    with pytest.raises(DataError, match="no pair"):
        list(match_pairs(opened(tmp_path / "a"), opened(tmp_path / "b"), on_error="skip"))
