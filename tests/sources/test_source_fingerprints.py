"""Fingerprints follow the content, never the place; unchanged files are not read twice, changed ones always are."""

from __future__ import annotations

import multiprocessing
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_files import encode, made, members, opened, webdataset, write_folder, write_parquet, write_tar, write_zip

from genbench.sources import hashing

IMAGES = made()
NHWC = IMAGES.transpose(0, 2, 3, 1)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed in full."""
    found: list[Path] = []
    hash_file = hashing.hash_file

    def counted(path: Path) -> str:
        found.append(path)
        return hash_file(path)

    monkeypatch.setattr(hashing, "hash_file", counted)
    return found


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is an hour ahead, so that no file is young."""
    now = time.time_ns
    monkeypatch.setattr(hashing.time, "time_ns", lambda: now() + 3600 * 10**9)


def test_equal_content_has_equal_fingerprints_wherever_it_lies(tmp_path: Path) -> None:
    content = members(IMAGES)
    first = opened(write_folder(tmp_path / "a", content)).fingerprint()
    second = opened(write_folder(tmp_path / "elsewhere" / "b", content)).fingerprint()
    packed = opened(write_zip(tmp_path / "x.zip", content, zipfile.ZIP_DEFLATED)).fingerprint()
    streamed = opened(write_tar(tmp_path / "x.tar.gz", content, "w:gz")).fingerprint()
    assert first == second == packed == streamed
    assert first is not None
    assert len(first) == 64


def test_equal_arrays_have_equal_fingerprints(tmp_path: Path) -> None:
    array = np.ascontiguousarray(NHWC)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "x.npz", arr_0=array, arr_1=np.arange(12))
    np.savez_compressed(tmp_path / "y.npz", arr_0=array)
    sources = [opened(array), *(opened(tmp_path / name) for name in ("x.npy", "x.npz", "y.npz"))]
    assert len({source.fingerprint() for source in sources}) == 1
    other = array.copy()
    other[3, 2, 1, 0] ^= 1
    assert opened(other).fingerprint() != sources[0].fingerprint()
    assert opened(list(array)).fingerprint() == opened(list(IMAGES)).fingerprint()
    assert opened(list(other)).fingerprint() != opened(list(array)).fingerprint()


def test_order_counts_where_it_is_the_files_own(tmp_path: Path) -> None:
    content = members(IMAGES)
    turned = dict(reversed(content.items()))
    one, two = write_tar(tmp_path / "a.tar", content), write_tar(tmp_path / "b.tar", turned)
    assert opened(one).fingerprint() != opened(two).fingerprint()
    zipped = [opened(write_zip(tmp_path / f"{k}.zip", c)).fingerprint() for k, c in enumerate((content, turned))]
    assert zipped[0] == zipped[1]


def test_files_of_tables_and_shards(tmp_path: Path) -> None:
    one = opened(write_parquet(tmp_path / "a.parquet", IMAGES)).fingerprint()
    two = opened(write_parquet(tmp_path / "b.parquet", IMAGES)).fingerprint()
    other = opened(write_parquet(tmp_path / "c.parquet", IMAGES[::-1])).fingerprint()
    assert one == two != other
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "0.tar", webdataset(IMAGES[:6]))
        write_tar(tmp_path / name / "1.tar", webdataset(IMAGES[6:], 6))
        write_parquet(tmp_path / f"{name}p" / "train-0.parquet", IMAGES[:6])
        write_parquet(tmp_path / f"{name}p" / "train-1.parquet", IMAGES[6:])
    assert opened(tmp_path / "x").fingerprint() == opened(tmp_path / "y").fingerprint()
    assert opened(tmp_path / "xp").fingerprint() == opened(tmp_path / "yp").fingerprint()
    pattern = opened(str(tmp_path / "xp" / "*.parquet"))
    assert pattern.fingerprint() == opened(tmp_path / "xp").fingerprint()


@pytest.mark.usefixtures("aged")
def test_unchanged_files_are_not_read_again(tmp_path: Path, reads: list[Path], cache: Path) -> None:
    folder = write_folder(tmp_path / "a", members(IMAGES))
    first = opened(folder).fingerprint()
    assert len(reads) == 12
    assert opened(folder).fingerprint() == first
    assert len(reads) == 12
    assert len(list((cache / "hashes").rglob("*"))) == 2
    assert opened(folder).fingerprint(verify=True) == first
    assert len(reads) == 24
    moved = folder.rename(tmp_path / "b")
    assert opened(moved).fingerprint() == first
    assert len(reads) == 36


CHANGES: dict[str, Any] = {
    "content": lambda root: (root / "img0003.png").write_bytes(encode(IMAGES[4])),
    "name": lambda root: (root / "img0003.png").rename(root / "img9999.png"),
    "one less": lambda root: (root / "img0003.png").unlink(),
    "one more": lambda root: (root / "new.png").write_bytes(encode(IMAGES[4])),
    "subfolder": lambda root: (root / "sub").rename(root / "sux"),
    "swapped": lambda root: swap(root / "img0003.png", root / "img0004.png"),
}


def swap(one: Path, two: Path) -> None:
    one.rename(one.with_suffix(".tmp"))
    two.rename(one)
    one.with_suffix(".tmp").rename(two)


@pytest.mark.usefixtures("aged")
@pytest.mark.parametrize("change", CHANGES)
def test_changed_folders_never_meet_a_stale_hash(change: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", {**members(IMAGES), "sub/x.png": encode(IMAGES[0])})
    first = opened(folder).fingerprint()
    CHANGES[change](folder)
    assert opened(folder).fingerprint() != first


@pytest.mark.usefixtures("aged")
def test_equal_size_and_forged_time_do_not_hide_a_change(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, NHWC)
    status = path.stat()
    first = opened(path).fingerprint()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert opened(path).fingerprint() != first


def test_young_files_are_not_remembered(tmp_path: Path, reads: list[Path], cache: Path) -> None:
    folder = write_folder(tmp_path / "a", members(IMAGES))
    opened(folder).fingerprint()
    opened(folder).fingerprint()
    assert len(reads) == 24
    assert not (cache / "hashes").exists()


@pytest.mark.usefixtures("aged")
def test_files_that_change_while_they_are_hashed_are_not_remembered(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"before")

    def make() -> str:
        path.write_bytes(b"while it is read")
        return "0" * 64

    hashing.remembered("test", path, [("", path)], make)
    assert not (cache / "hashes").exists()


@pytest.mark.usefixtures("aged")
def test_damaged_entries_are_made_again(tmp_path: Path, cache: Path, reads: list[Path]) -> None:
    folder = write_folder(tmp_path / "a", members(IMAGES))
    first = opened(folder).fingerprint()
    entry = next(path for path in (cache / "hashes").rglob("*") if path.is_file())
    for content in (b"", b"x" * 64, b"\xff" * 64, b"0" * 63):
        entry.write_bytes(content)
        assert opened(folder).fingerprint() == first
    entry.write_text("0" * 64)
    assert opened(folder).fingerprint() == "0" * 64
    assert opened(folder).fingerprint(verify=True) == first
    assert opened(folder).fingerprint() == first


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, aged: None
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "file"))
    assert opened(write_folder(tmp_path / "a", members(IMAGES))).fingerprint()


def _fingerprints(folder: str, count: int, queue: Any) -> None:
    queue.put({opened(folder).fingerprint(verify=k % 2 == 0) for k in range(count)})


def test_two_processes_at_once(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "a", members(IMAGES))
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [context.Process(target=_fingerprints, args=(str(folder), 20, queue)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = set.union(*(queue.get(timeout=60) for _ in workers))
    for worker in workers:
        worker.join()
    assert found == {opened(folder).fingerprint()}
