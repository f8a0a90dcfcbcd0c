"""What readers refuse, and what they say."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from source_files import (
    edm_json,
    encode,
    made,
    members,
    opened,
    pixels,
    read,
    webdataset,
    write_folder,
    write_parquet,
    write_tar,
    write_zip,
)

from genbench.data import members as members_module
from genbench.errors import DataError, UsageError
from genbench.sources import Observations

IMAGES = made()
NHWC = IMAGES.transpose(0, 2, 3, 1)


def refused(spec: Any, message: str, error: type[Exception] = DataError, **options: Any) -> None:
    with pytest.raises(error, match=message):
        read(spec, **options)


def test_paths_that_are_not_there_and_forms_that_are_unknown(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "There is no file or folder .*nowhere.*parquet:PATH.*cifar10:test", UsageError)
    refused("foldr:somewhere", "Did you mean 'folder'.*npy:PATH", UsageError)
    refused("cifar", "no file or folder 'cifar'", UsageError)
    refused("cifar1:test", "Did you mean 'cifar10'", UsageError)
    refused("zip:", "names no file", UsageError)
    refused("", "names no input", UsageError)
    refused("a\0b", "names no input", UsageError)
    refused("x" * 5000, "no file or folder", UsageError)
    refused("~nobody-of-that-name/x", "no file or folder", UsageError)
    refused(f"{tmp_path}/*.tar", "there is no", DataError)
    refused(f"zip:{tmp_path}", "a folder, but zip: wants a file", DataError)
    refused(f"{write_folder(tmp_path, members(IMAGES))}:test", "of a folder give the subfolder", UsageError)
    refused(f"{tmp_path}/*.png", "a single image")
    np.save(tmp_path / "x.npy", IMAGES)
    refused(f"{tmp_path}/*.npy", "only tar and parquet may be given by a pattern", UsageError)


@pytest.mark.parametrize("thing", [None, 3, 2.5, {"image": 1}, b"bytes", object()])
def test_objects_that_hold_no_images(thing: Any) -> None:
    refused(thing, "holds no images", UsageError)


def test_empty_inputs(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no images found")
    (tmp_path / "empty" / "notes.txt").write_text("none here")
    refused(tmp_path / "empty", "no images found")
    refused(write_zip(tmp_path / "e.zip", {}), "no images found")
    refused(write_tar(tmp_path / "e.tar", {}), "no images found")
    refused(IMAGES[:0], "no images")
    refused([], "no images")
    refused(iter([]), "no images")
    np.save(tmp_path / "e.npy", IMAGES[:0])
    refused(tmp_path / "e.npy", "no images")
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), tmp_path / "e.parquet")
    refused(tmp_path / "e.parquet", "no rows")
    (tmp_path / "nothing").write_bytes(b"")
    refused(tmp_path / "nothing", "by its content")
    refused(write_tar(tmp_path / "s.tar", {"a.cls": b"1"}), "no images found")


def test_corrupted_images_are_named_and_can_be_skipped(tmp_path: Path) -> None:
    content = members(IMAGES)
    content["img0003.png"] = content["img0003.png"][:-40]
    content["img0007.png"] = b"no image at all"
    table = pa.table({"image": pa.array(list(content.values()), pa.binary())})
    pq.write_table(table, tmp_path / "x.parquet")
    places = {
        write_folder(tmp_path / "x", content): r"x: img0003\.png: not a readable image",
        write_zip(tmp_path / "x.zip", content): r"x\.zip: img0003\.png: not a readable image",
        write_tar(tmp_path / "x.tar", content): r"x\.tar: img0003\.png: not a readable image",
        tmp_path / "x.parquet": r"x\.parquet: row 3: not a readable image",
    }
    for place, message in places.items():
        refused(place, message)
        seen = Observations()
        images = read(place, seen, "skip")
        kept = [k for k in range(12) if k not in (3, 7)]
        assert [image.index for image in images] == kept
        assert np.array_equal(pixels(images), IMAGES[kept])
        assert len(seen.skipped) == 2
        assert "3" in seen.skipped[0]
        assert "7" in seen.skipped[1]
    with pytest.raises(UsageError, match="'ignore'"):
        read(tmp_path / "x", on_error="ignore")


def test_skipping_all_images_is_an_error(tmp_path: Path) -> None:
    write_folder(tmp_path, dict.fromkeys(members(IMAGES), b"nonsense"))
    with pytest.raises(DataError, match=r"none of 12 images can be read \(first: .*img0000\.png"):
        read(tmp_path, on_error="skip")


def test_a_list_with_a_bad_image_has_a_fingerprint(tmp_path: Path) -> None:
    """By which images are readable and where the others are."""
    damaged = tmp_path / "damaged.png"
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(damaged)
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    good = list(IMAGES[:3])

    def fingerprint(*items: Any) -> str | None:
        return opened(list(items)).fingerprint()

    def bad() -> Image.Image:
        return Image.open(damaged)

    seen = Observations()
    assert len(read([*good, bad()], seen, "skip")) == 3
    assert len(seen.skipped) == 1
    first = fingerprint(*good, bad())
    assert first == fingerprint(*good, bad())
    assert len({first, fingerprint(*good), fingerprint(bad(), *good), fingerprint(*good[:2], bad())}) == 4


def test_datasets_that_raise(tmp_path: Path) -> None:
    class Broken(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, k: int) -> np.ndarray:
            if k == 2:
                raise OSError("disk gone")
            return IMAGES[k]

    refused(Broken(), "Broken: item 2 cannot be had: OSError: disk gone")
    seen = Observations()
    assert [image.index for image in read(Broken(), seen, "skip")] == [0, 1, 3]
    assert len(seen.skipped) == 1

    def stream() -> Any:
        yield IMAGES[0]
        raise ValueError("cut off")

    refused(stream(), "reading it failed: ValueError: cut off")


def test_items_that_are_no_images() -> None:
    refused(["a.png"], "item 0 is str")
    refused([{"picture": IMAGES[0]}], "item 0 has picture; expected")
    refused([(IMAGES[0], IMAGES[1])], "several images")
    refused([IMAGES[0], IMAGES[1, 0, 0]], "item 1 has shape")
    refused([(IMAGES[:3], [0, 1])], "labels: 2 for 3 images")
    refused([(IMAGES[:3], torch.tensor(1))], "labels: 0 for 3 images")
    refused([()], "item 0 is NoneType")
    refused(Image.new("RGB", (4, 4)), "single Pillow image", UsageError)


def test_values_out_of_range() -> None:
    x = IMAGES / 255
    refused(x * 2 - 1, r"floats are in \[-1, 1\], expected \[0, 1\].*\(x \+ 1\) / 2")
    refused(IMAGES.astype(np.float32), r"floats are in \[0, 255\].*x / 255")
    refused(x * 1.0001, r"x\.clip\(0, 1\)")
    refused(x * 3 - 1.5, "Undo their normalisation")
    refused(torch.from_numpy(x * 2 - 1), r"\(x \+ 1\) / 2")
    refused(iter([x[0], x[1] * 2 - 1]), r"item 1: floats are in .*\(x \+ 1\) / 2")
    refused(IMAGES.astype(np.int32) - 1, r"integers are in -1\.\.2.*expected 0\.\.255")
    refused(IMAGES.astype(np.uint16) * 257, r"integers are in .*x / 257")
    for bad, word in ((np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")):
        y = x.copy()
        y[7, 1, 2, 3] = bad
        refused(y, f"pixels have {word}")
        refused(list(y), f"item 7: pixels have {word}")
        with pytest.raises(DataError, match=word):
            read(y, on_error="skip")
    refused(x.astype(np.complex64), "values are complex64")
    refused(torch.complex(torch.from_numpy(x), torch.from_numpy(x)), "complex")
    refused(np.array([["a"]]), "shape|values are")
    refused(IMAGES.astype(object), "values are object")


def test_floats_in_files_out_of_range(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES / 127.5 - 1)
    refused(tmp_path / "x.npy", r"x\.npy: images 0 to 11: floats are in \[-1, 1\]")
    np.savez(tmp_path / "x.npz", arr_0=NHWC.astype(np.int64) * 2)
    refused(tmp_path / "x.npz", r"x\.npz: arr_0: images 0 to 11: integers are in")


def test_shapes_that_are_no_images() -> None:
    for shape in ((4, 4), (12,), (2, 3, 4, 5, 6), ()):
        refused(np.zeros(shape, dtype=np.uint8), "expected images")
    refused(np.zeros((5, 4, 8, 8), dtype=np.uint8), "must be 1 or 3 channels.*alpha")
    refused(np.zeros((5, 8, 8, 2), dtype=np.uint8), "must be 1 or 3 channels")
    refused(np.zeros((3, 8, 8), dtype=np.uint8), r"one image, or 3 greyscale ones.*x\[None\]")
    refused(np.zeros((8, 8, 3), dtype=np.uint8), "one image, or 8 greyscale")
    refused(np.zeros((5, 3, 0, 8), dtype=np.uint8), "no pixels")
    assert pixels(read(np.zeros((5, 8, 9), dtype=np.uint8))).shape == (5, 1, 8, 9)


def test_npz_without_the_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", pictures=NHWC)
    refused(tmp_path / "x.npz", r"x\.npz: has pictures; expected arr_0")
    np.savez(tmp_path / "y.npz", arr_0=NHWC, arr_1=np.arange(11))
    refused(tmp_path / "y.npz", "for 12 images")
    np.savez(tmp_path / "z.npz", arr_0=NHWC, arr_1=np.full(12, 10**9))
    refused(tmp_path / "z.npz", "a label is 1000000000")
    np.savez(tmp_path / "w.npz", train=NHWC, test=NHWC)
    refused(tmp_path / "w.npz", r"has train, test\. Choose one: npz:.*w\.npz:train")
    refused(f"npz:{tmp_path / 'w.npz'}:val", "has train, test")
    refused(f"{tmp_path / 'y.npz'}:test", "no splits. Leave the split out")


def test_files_that_may_hold_code_are_never_opened(tmp_path: Path) -> None:
    objects = np.array([{"code": 1}] * 12, dtype=object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    refused(tmp_path / "x.npy", "Object arrays may hold code|expected images")
    np.savez(tmp_path / "x.npz", arr_0=objects.reshape(3, 2, 2, 1))
    refused(tmp_path / "x.npz", "Object arrays may hold code")
    torch.save(torch.zeros(2), tmp_path / "x.pt")
    refused(tmp_path / "x.pt", "pickles are never opened")
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04N.")
    refused(tmp_path / "x.pkl", "pickles are never opened")


def test_single_images_pipes_and_other_files(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encode(IMAGES[0]))
    refused(tmp_path / "one.png", "a single image. Give the folder")
    (tmp_path / "notes.txt").write_text("words")
    refused(tmp_path / "notes.txt", "by its content")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "neither a file nor a folder")
    refused(f"npy:{tmp_path / 'pipe'}", "neither a file nor a folder")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path, r"pipe\.png: not a regular file")
    with pytest.raises(DataError, match="not a regular file"):
        opened(tmp_path).fingerprint()
    (tmp_path / "pipe.png").unlink()
    (tmp_path / "pipe.png").symlink_to(tmp_path / "gone.png")
    refused(tmp_path, r"pipe\.png: cannot be read")


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/etc/x.png", "..\\x.png", "C:\\x.png", "..", "\\x.png"])
def test_archive_names_that_climb_out(name: str, tmp_path: Path) -> None:
    content = {**members(IMAGES), name: encode(IMAGES[0])}
    refused(write_zip(tmp_path / "x.zip", content), r"x\.zip: member .*(climbs out of|does not name a place in)")
    refused(write_tar(tmp_path / "x.tar", content), r"x\.tar: member .*(climbs out of|does not name a place in)")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_in_archives(kind: bytes, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", members(IMAGES))
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = kind, "img0000.png"
        archive.addfile(info)
    refused(path, r"member 'link\.png' is a link or a special file")


def test_links_in_zips(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", members(IMAGES))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "img0000.png")
    refused(path, r"member 'link\.png' is a link")


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is huge."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 99)))
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10_000, 10_000), (50_000, 50_000), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs(size: tuple[int, int], tmp_path: Path) -> None:
    refused(write_folder(tmp_path, {"a.png": bomb(*size)}), r"a\.png: .*(limit|exceeds)")


def test_members_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "MAX_FILE_BYTES", 5000)
    content = {"a.png": encode(IMAGES[0]), "b.png": b"\0" * 5001}
    refused(write_zip(tmp_path / "x.zip", content, zipfile.ZIP_DEFLATED), r"b\.png: 5001 bytes are more than the limit")
    refused(write_tar(tmp_path / "x.tar", content), r"b\.png: 5001 bytes are more")
    refused(write_folder(tmp_path / "x", content), r"b\.png: 5001 bytes are more")


def test_headers_that_promise_more_than_there_is(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 512, 512, 3)}
    )
    for data in (b"", b"\0" * 1000):
        (tmp_path / "x.npy").write_bytes(stream.getvalue() + data)
        refused(tmp_path / "x.npy", "needs 786432000000000 bytes")
        write_zip(tmp_path / "x.npz", {"arr_0.npy": stream.getvalue() + data})
        refused(tmp_path / "x.npz", "needs 786432000000000 bytes")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_truncated_tars_are_an_error_even_when_skipping(mode: str, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", members(IMAGES), mode)
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        boundary = archive.getmembers()[5].offset
    for size in {boundary, boundary + 100, boundary + 600} if mode == "w" else {len(whole) // 2, len(whole) - 200}:
        path.write_bytes(whole[:size])
        for on_error in ("fail", "skip"):
            with pytest.raises(DataError, match=r"x\.tar: not a readable tar"):
                read(path, on_error=on_error)


def test_webdataset_entries_that_are_no_labels(tmp_path: Path) -> None:
    refused(
        write_tar(tmp_path / "x.tar", {**webdataset(IMAGES), "000011.cls": b"cat"}), r"000011\.cls: expected a class"
    )
    refused(write_tar(tmp_path / "x.tar", {"a.png": encode(IMAGES[0]), "a.json": b"{"}), r"a\.json: expected JSON")
    refused(
        write_tar(tmp_path / "x.tar", {"a.png": encode(IMAGES[0]), "a.txt": b"\xff"}), r"a\.txt: expected a caption"
    )
    stray = {"LICENSE.txt": b"\xff", "notes.json": b"{", **webdataset(IMAGES)}
    assert len(read(write_tar(tmp_path / "stray.tar", stray))) == 12
    deep = b"[" * 100_000 + b"]" * 100_000
    refused(write_tar(tmp_path / "x.tar", {"a.png": encode(IMAGES[0]), "a.json": deep}), r"a\.json: expected JSON")


@pytest.mark.parametrize("labels", [b"{", b"[]", b'{"labels": 3}', b'{"labels": [["img0000.png", "cat"]]}', b"\xff"])
def test_dataset_json_that_is_malformed(labels: bytes, tmp_path: Path) -> None:
    content = {**members(IMAGES), "dataset.json": labels}
    for place in (
        write_folder(tmp_path / "x", content),
        write_zip(tmp_path / "x.zip", content),
        write_tar(tmp_path / "x.tar", content),
    ):
        refused(place, r"dataset\.json: ")


def test_dataset_json_without_an_image(tmp_path: Path) -> None:
    content = members(IMAGES)
    content["dataset.json"] = edm_json(list(content)[:11])
    refused(write_tar(tmp_path / "x.tar", content), r"has no label for img0011\.png")


def test_parquet_without_images(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    refused(path, "has columns a; expected an image column")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "a.png"}]}), path)
    refused(path, "row 0 holds no image bytes")
    write_parquet(path, IMAGES)
    pq.write_table(pq.read_table(path).drop_columns("label").append_column("label", [["a"] * 12]), path)
    refused(path, "column label is string")
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, r"x\.parquet: not a readable parquet")
