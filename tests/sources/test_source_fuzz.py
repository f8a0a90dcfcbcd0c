"""Whatever the bytes: images, or an error of genbench's own, and soon."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from source_files import (
    LABELS,
    edm_json,
    encode,
    in_time,
    made,
    members,
    read,
    webdataset,
    write_folder,
    write_parquet,
    write_tar,
    write_zip,
)

from genbench.errors import GenbenchError
from genbench.sources import StatisticsSource, open_source, write_statistics
from genbench.sources.sidecar import read_labels, read_prompts

IMAGES = made(5)
SUFFIXES = [".png", ".zip", ".tar", ".tar.gz", ".npz", ".npy", ".parquet", ".dat", ""]
PREFIXES = ["", "zip:", "tar:", "npz:", "npy:", "parquet:", "folder:"]

fuzz = settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Pillow and NumPy warn of much that is odd; here all is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def consume(spec: Any, on_error: Any) -> None:
    """Open and read it all; only errors of genbench's own may come of it."""
    with in_time():
        try:
            source = open_source(spec)
            if isinstance(source, StatisticsSource):
                assert np.isfinite(source.covariance).all()
                return
            for image in source.images(on_error):
                assert image.pixels.dtype == np.uint8
                assert image.pixels.ndim == 3
                assert image.pixels.shape[0] in (1, 3)
            assert source.fingerprint()
        except GenbenchError as error:
            assert str(error)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small valid file of every kind."""
    root = tmp_path_factory.mktemp("valid")
    content = members(IMAGES)
    labelled = {**content, "dataset.json": edm_json(list(content), LABELS[:5])}
    nhwc = IMAGES.transpose(0, 2, 3, 1)
    np.save(root / "x.npy", nhwc)
    np.savez(root / "x.npz", arr_0=nhwc, arr_1=np.array(LABELS[:5]))
    np.savez_compressed(root / "y.npz", arr_0=nhwc / 255)
    write_statistics(root / "z.npz", np.zeros(3), np.eye(3), 7)
    write_zip(root / "x.zip", labelled)
    write_zip(root / "y.zip", labelled, zipfile.ZIP_DEFLATED)
    write_tar(root / "x.tar", webdataset(IMAGES))
    write_tar(root / "y.tar", labelled)
    write_tar(root / "x.tar.gz", webdataset(IMAGES), "w:gz")
    write_tar(root / "x.tar.bz2", webdataset(IMAGES), "w:bz2")
    write_parquet(root / "x.parquet", IMAGES)
    return {path.name: path.read_bytes() for path in root.iterdir()}


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """A few bytes changed, cut out, put in or cut off."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(changed) - 1)))
        kind = draw(st.sampled_from(["flip", "set", "insert", "delete", "truncate", "repeat"]))
        if not changed:
            break
        if kind == "flip":
            changed[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            new = draw(st.binary(min_size=1, max_size=8))
            changed[place : place + len(new)] = new
        elif kind == "insert":
            changed[place:place] = draw(st.binary(max_size=32))
        elif kind == "delete":
            del changed[place : place + draw(st.integers(1, 64))]
        elif kind == "truncate":
            del changed[place:]
        else:
            changed[place:place] = changed[place : place + 64]
    return bytes(changed)


@fuzz
@given(data=st.data(), on_error=st.sampled_from(["fail", "skip"]))
def test_random_bytes_under_any_name(data: st.DataObject, on_error: str, tmp_path: Path) -> None:
    magic = [
        b"",
        b"PK\x03\x04",
        b"\x93NUMPY\x01\x00",
        b"PAR1",
        b"\x1f\x8b\x08",
        b"BZh9",
        b"\xfd7zXZ\x00",
        b"\x89PNG\r\n",
    ]
    path = tmp_path / f"x{data.draw(st.sampled_from(SUFFIXES))}"
    path.write_bytes(data.draw(st.sampled_from(magic)) + data.draw(st.binary(max_size=600)))
    consume(f"{data.draw(st.sampled_from(PREFIXES))}{path}", on_error)
    path.unlink()


@settings(fuzz, max_examples=600)
@given(data=st.data(), on_error=st.sampled_from(["fail", "skip"]))
def test_damaged_files_of_every_kind(
    data: st.DataObject, on_error: str, valid: dict[str, bytes], tmp_path: Path
) -> None:
    name = data.draw(st.sampled_from(sorted(valid)))
    path = tmp_path / name
    path.write_bytes(data.draw(damage(valid[name])))
    consume(path, on_error)
    path.unlink()


@settings(fuzz, max_examples=400)
@given(data=st.data(), on_error=st.sampled_from(["fail", "skip"]))
def test_damaged_images(data: st.DataObject, on_error: str, tmp_path: Path) -> None:
    kind = data.draw(st.sampled_from(["png", "jpeg", "webp", "bmp", "tiff"]))
    broken = data.draw(damage(encode(IMAGES[0], kind)))
    folder = write_folder(tmp_path / kind, {"a.png": encode(IMAGES[1]), "b.png": broken})
    consume(folder, on_error)


@fuzz
@given(
    manifest=st.one_of(st.binary(max_size=200), st.just(b"[" * 50_000)), where=st.sampled_from(["folder", "zip", "tar"])
)
def test_any_dataset_json(manifest: bytes, where: str, tmp_path: Path) -> None:
    content = {**members(IMAGES), "dataset.json": manifest}
    writers: dict[str, Any] = {"folder": write_folder, "zip": write_zip, "tar": write_tar}
    consume(writers[where](tmp_path / where, content), "fail")


@fuzz
@given(
    content=st.one_of(st.binary(max_size=200), st.text(alphabet='abc01,;\t"\n\r{}[]:', max_size=80).map(str.encode)),
    suffix=st.sampled_from([".txt", ".csv", ".tsv", ".json", ".jsonl", ".npy", ".npz", ""]),
)
def test_any_sidecar(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    for reader in (read_labels, read_prompts):
        with in_time():
            try:
                values = reader(path).values
                assert values
            except GenbenchError as error:
                assert str(error)
    for options in ({"labels": path}, {"prompts": path}):
        with in_time(), suppress(GenbenchError):
            assert len(read(IMAGES, **options)) == 5


@fuzz
@given(
    spec=st.one_of(
        st.text(max_size=30),
        st.builds(
            "".join,
            st.lists(
                st.sampled_from([*PREFIXES, "cifar10:", "mnist", "{0..9}", "{a,b}", "*", "[", "x", ":test"]), max_size=6
            ),
        ),
    ).filter(
        lambda text: (
            not text.startswith(("/", "~"))
            and ".." not in text.replace("0..9", "")
            and "mnist:" not in text
            and "cifar10:t" not in text
        )
    )
)
def test_any_text_as_a_source(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    consume(spec, "fail")
