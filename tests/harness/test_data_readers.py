"""Folders, zips, npz and parquet of images: what is read is what was written, and what is broken is named."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from genbench.data import Splits, load_dataset
from genbench.data.decode import decode
from genbench.errors import DataError, UsageError


def random_images(count: int, channels: int = 3, size: int = 8, seed: int = 0) -> np.ndarray:
    """(N, C, H, W) uint8, no two alike."""
    return np.random.RandomState(seed).randint(0, 256, (count, channels, size, size)).astype(np.uint8)


def encode(image: np.ndarray, kind: str = "png") -> bytes:
    """(C, H, W) uint8 to the bytes of an image file."""
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({"lossless": True} if kind == "webp" else {}))
    return stream.getvalue()


def as_set(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in np.ascontiguousarray(images)}


def every_image(splits: Splits) -> np.ndarray:
    return np.concatenate([splits.train.images, splits.validation.images, splits.test.images])


def write_classes(root: Path, images: np.ndarray, names: list[str], kind: str = "png") -> None:
    for i, image in enumerate(images):
        folder = root / names[i % len(names)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03d}.{kind}").write_bytes(encode(image, "png" if kind.lower() == "png" else kind))


def test_folder_splits_itself_by_class(tmp_path: Path) -> None:
    images = random_images(60)
    write_classes(tmp_path / "pets", images, ["cat", "dog"], "PNG")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "pets" / "cat" / "._000.png").write_bytes(b"resource fork")
    splits = load_dataset(f"folder:{tmp_path / 'pets'}")
    assert splits.name == "pets"
    assert splits.spec.class_names == ("cat", "dog")
    assert splits.spec.shape == (3, 8, 8)
    assert splits.spec.levels == 256
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [48, 6, 6]
    assert as_set(every_image(splits)) == as_set(images)
    cats = as_set(images[::2])
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels is not None
        assert [image.tobytes() in cats for image in part.images] == (part.labels == 0).tolist()
        assert np.bincount(part.labels).tolist() == [len(part) // 2] * 2
    again, other = (load_dataset(f"folder:{tmp_path / 'pets'}", split_seed=seed) for seed in (0, 1))
    assert splits.fingerprint == again.fingerprint != other.fingerprint


def test_folder_with_splits_and_no_classes(tmp_path: Path) -> None:
    images = random_images(40, channels=1)
    for split, chosen in (("Train", images[:30]), ("val", images[30:34]), ("test", images[34:])):
        write_classes(tmp_path, chosen, [split])
    splits = load_dataset(f"folder:{tmp_path}")
    assert as_set(splits.train.images) == as_set(images[:30])
    assert as_set(splits.validation.images) == as_set(images[30:34])
    assert as_set(splits.test.images) == as_set(images[34:])
    assert splits.train.labels is None
    assert splits.spec.class_names == ()


def test_split_folders_keep_one_numbering_of_classes(tmp_path: Path) -> None:
    images = random_images(30)
    write_classes(tmp_path / "train", images[:24], ["a", "b", "c"])
    write_classes(tmp_path / "test", images[24:], ["b", "c"])
    splits = load_dataset(f"folder:{tmp_path}")
    assert splits.spec.class_names == ("a", "b", "c")
    label_of = {image.tobytes(): i % 3 for i, image in enumerate(images[:24])}
    label_of |= {image.tobytes(): 1 + i % 2 for i, image in enumerate(images[24:])}
    for part, count in ((splits.train, 22), (splits.validation, 2), (splits.test, 6)):
        assert part.labels is not None
        assert [label_of[image.tobytes()] for image in part.images] == part.labels.tolist()
        assert len(part) == count


def test_folder_errors_name_the_file(tmp_path: Path) -> None:
    images = random_images(12)
    write_classes(tmp_path / "good", images, ["a", "b"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found"):
        load_dataset(f"folder:{tmp_path / 'empty'}")
    with pytest.raises(DataError, match="nowhere"):
        load_dataset(f"folder:{tmp_path / 'nowhere'}")
    stray = tmp_path / "good" / "a" / "998.png"
    stray.write_bytes(encode(images[0])[:-60])
    with pytest.raises(DataError, match=r"998\.png"):
        load_dataset(f"folder:{tmp_path / 'good'}")
    stray.write_bytes(encode(random_images(1, size=9)[0]))
    with pytest.raises(DataError, match=r"000\.png is RGB 8 x 8 .*998\.png is RGB 9 x 9"):
        load_dataset(f"folder:{tmp_path / 'good'}")
    stray.write_bytes(encode(random_images(1, channels=1)[0]))
    with pytest.raises(DataError, match=r"000\.png is RGB .*998\.png is greyscale"):
        load_dataset(f"folder:{tmp_path / 'good'}")
    write_classes(tmp_path / "testonly" / "test", images, ["a", "b"])
    with pytest.raises(DataError, match="no train folder"):
        load_dataset(f"folder:{tmp_path / 'testonly'}")
    write_classes(tmp_path / "extra", images, ["train", "other"])
    with pytest.raises(DataError, match="outside the folders"):
        load_dataset(f"folder:{tmp_path / 'extra'}")


def test_unknown_specifications_get_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'mnist'"):
        load_dataset("mnits")
    with pytest.raises(UsageError, match="Did you mean 'parquet:PATH'"):
        load_dataset("parquett:somewhere")
    with pytest.raises(UsageError, match=f"folder:{tmp_path}"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize("kind", ["png", "webp", "bmp", "tiff"])
def test_lossless_formats_are_exact(kind: str) -> None:
    image = random_images(1)[0]
    assert np.array_equal(decode(encode(image, kind), "x")[0], image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(random_images(1, size=8)[0].transpose(1, 2, 0)[:5]).save(stream, "png", exif=exif)
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        upright = np.asarray(ImageOps.exif_transpose(image)).transpose(2, 0, 1)
    assert np.array_equal(decode(stream.getvalue(), "x")[0], upright)


def png16(values: np.ndarray, colour_type: int) -> bytes:
    """A 16-bit PNG of (H, W, C) uint16 values, written by hand as Pillow cannot write colour of 16 bits."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3)])
def test_16_bit_values_are_divided_by_257(colour_type: int, channels: int) -> None:
    values = np.random.RandomState(0).randint(0, 65536, (8, 8, channels)).astype(np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    image, transparent = decode(png16(values, colour_type), "x")
    assert np.array_equal(image, expected.transpose(2, 0, 1))
    assert not transparent


def test_16_bit_alpha_is_composited_before_rounding() -> None:
    values = np.random.RandomState(0).randint(0, 65536, (8, 8, 4)).astype(np.uint16)
    colour, alpha = values[..., :3].astype(float), values[..., 3:].astype(float) / 65535
    expected = np.rint((colour * alpha + 65535 * (1 - alpha)) / 257).astype(np.uint8)
    assert np.array_equal(decode(png16(values, 6), "x")[0], expected.transpose(2, 0, 1))


def test_alpha_is_composited_over_white_with_a_warning(tmp_path: Path) -> None:
    rgba = random_images(12, channels=4)
    rgba[:, 3, 0, 0] = 0
    for i, image in enumerate(rgba):
        (tmp_path / f"{i}.png").write_bytes(encode(image))
    with pytest.warns(UserWarning, match="12 images have transparent pixels"):
        splits = load_dataset(f"folder:{tmp_path}")
    alpha = rgba[:, 3:].astype(float) / 255
    expected = np.rint(rgba[:, :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    assert (expected[:, :, 0, 0] == 255).all()
    assert as_set(every_image(splits)) == as_set(expected)


def test_opaque_alpha_is_dropped_silently(tmp_path: Path) -> None:
    rgba = random_images(12, channels=4)
    rgba[:, 3] = 255
    for i, image in enumerate(rgba):
        (tmp_path / f"{i}.png").write_bytes(encode(image))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_set(every_image(load_dataset(f"folder:{tmp_path}"))) == as_set(rgba[:, :3])


def test_palettes_and_cmyk_become_rgb() -> None:
    for mode, kind in (("P", "png"), ("CMYK", "tiff")):
        source = Image.fromarray(random_images(1)[0].transpose(1, 2, 0)).convert(mode)
        stream = io.BytesIO()
        source.save(stream, kind)
        expected = np.asarray(source.convert("RGB")).transpose(2, 0, 1)
        assert np.array_equal(decode(stream.getvalue(), "x")[0], expected)


def test_floats_and_animations_are_refused() -> None:
    stream = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(stream, "tiff")
    with pytest.raises(DataError, match=r"here\.tif: has 32-bit pixels"):
        decode(stream.getvalue(), "here.tif")
    frames = [Image.fromarray(image.transpose(1, 2, 0)) for image in random_images(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="3 frames"):
        decode(stream.getvalue(), "moving.png")


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def edm_members(images: np.ndarray, labels: list[Any] | None) -> dict[str, bytes]:
    names = [f"{i // 20:05d}/img{i:08d}.png" for i in range(len(images))]
    pairs = None if labels is None else [[name, label] for name, label in zip(names, labels)]
    return {"dataset.json": json.dumps({"labels": pairs}).encode(), **dict(zip(names, map(encode, images)))}


@pytest.mark.parametrize("prefix", ["", "inside/"])
def test_zip_takes_labels_from_dataset_json(tmp_path: Path, prefix: str) -> None:
    images, labels = random_images(40), [i % 4 for i in range(40)]
    members = {prefix + name: data for name, data in edm_members(images, labels).items()}
    splits = load_dataset(f"zip:{write_zip(tmp_path / 'set-8x8.zip', members)}")
    assert splits.name == "set-8x8"
    assert splits.spec.class_names == ("0", "1", "2", "3")
    label_of = {image.tobytes(): label for image, label in zip(images, labels)}
    for part in (splits.train, splits.validation, splits.test):
        assert part.labels is not None
        assert [label_of[image.tobytes()] for image in part.images] == part.labels.tolist()
    assert sum(len(part) for part in (splits.train, splits.validation, splits.test)) == 40


def test_zip_with_null_labels_is_unlabelled(tmp_path: Path) -> None:
    images = random_images(40)
    splits = load_dataset(f"zip:{write_zip(tmp_path / 'x.zip', edm_members(images, None))}")
    assert splits.train.labels is None
    assert as_set(every_image(splits)) == as_set(images)


def test_zip_errors_name_archive_and_member(tmp_path: Path) -> None:
    images = random_images(20)
    members = edm_members(images, list(range(20)))
    path = write_zip(tmp_path / "a.zip", {**members, "00000/img00000007.png": b"\x89PNG\r\n\x1a\nnonsense"})
    with pytest.raises(DataError, match=r"a\.zip: 00000/img00000007\.png"):
        load_dataset(f"zip:{path}")
    path = write_zip(tmp_path / "b.zip", members)
    content = bytearray(path.read_bytes())
    position = content.index(members["00000/img00000003.png"])
    content[position + 40] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.zip: 00000/img00000003\.png: cannot be read: Bad CRC"):
        load_dataset(f"zip:{path}")
    path.write_bytes(content[:2000])
    with pytest.raises(DataError, match=r"b\.zip: not a readable zip"):
        load_dataset(f"zip:{path}")
    for labels, message in (([0.5] * 20, "is 0.5"), ([[0, 1]] * 20, "class number"), (list(range(19)), "no label for")):
        path = write_zip(tmp_path / "c.zip", edm_members(images, labels))
        with pytest.raises(DataError, match=rf"c\.zip: dataset\.json: .*{message}"):
            load_dataset(f"zip:{path}")


def test_npz_layouts_give_one_dataset(tmp_path: Path) -> None:
    images, labels = random_images(30), np.arange(30) % 3
    np.savez(tmp_path / "adm.npz", arr_0=images.transpose(0, 2, 3, 1), arr_1=labels)
    adm = load_dataset(f"npz:{tmp_path / 'adm.npz'}")
    assert adm.name == "adm"
    np.savez(tmp_path / "nchw.npz", train=images, train_labels=labels)
    nchw = load_dataset(f"npz:{tmp_path / 'nchw.npz'}")
    assert adm.fingerprint == nchw.fingerprint
    assert as_set(every_image(adm)) == as_set(images)
    np.savez(
        tmp_path / "medmnist.npz",
        train_images=images[:20, 0],
        val_images=images[20:25, 0],
        test_images=images[25:, 0],
        train_labels=labels[:20, None],
        val_labels=labels[20:25, None],
        test_labels=labels[25:, None],
    )
    three = load_dataset(f"npz:{tmp_path / 'medmnist.npz'}")
    assert three.spec.shape == (1, 8, 8)
    assert as_set(three.test.images) == as_set(images[25:, :1])
    assert three.test.labels is not None
    assert sorted(three.test.labels.tolist()) == sorted(labels[25:].tolist())


def test_npz_errors_name_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"

    def expect(message: str, **arrays: np.ndarray) -> None:
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=rf"x\.npz.*{message}"):
            load_dataset(f"npz:{path}")

    expect("arr_0 is float32", arr_0=np.zeros((20, 4, 4, 3), dtype=np.float32))
    expect("both", train=np.zeros((20, 3, 8, 3), dtype=np.uint8))
    expect("must be 1 or 3", arr_0=np.zeros((20, 4, 4, 4), dtype=np.uint8))
    expect("expected arr_0", pictures=np.zeros((20, 4, 4, 3), dtype=np.uint8))
    expect("for 20 images", arr_0=np.zeros((20, 4, 4, 3), dtype=np.uint8), arr_1=np.zeros(19, dtype=np.int64))
    expect("no train split", test=np.zeros((20, 4, 4, 3), dtype=np.uint8))
    expect("too few", arr_0=np.zeros((2, 4, 4, 3), dtype=np.uint8))
    expect("Object arrays", arr_0=np.array([{"code": 1}], dtype=object))
    np.savez(path, arr_0=random_images(20).transpose(0, 2, 3, 1))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"x\.npz: not a readable npz"):
        load_dataset(f"npz:{path}")


def write_parquet(path: Path, images: np.ndarray, labels: list[int] | None, names: list[str] | None = None) -> None:
    rows = [{"bytes": encode(image), "path": f"{i}.png"} for i, image in enumerate(images)]
    columns: dict[str, Any] = {"image": rows} if labels is None else {"image": rows, "label": labels}
    table = pa.table(columns)
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=7)


def test_parquet_reads_shards_splits_and_class_names(tmp_path: Path) -> None:
    images, names = random_images(50), ["ant", "bee", "crow"]
    labels = [i % 2 for i in range(50)]
    folder = tmp_path / "insects.v2" / "data"
    write_parquet(folder / "train-00000-of-00002.parquet", images[:20], labels[:20], names)
    write_parquet(folder / "train-00001-of-00002.parquet", images[20:40], labels[20:40], names)
    write_parquet(folder / "test-00000-of-00001.parquet", images[40:], labels[40:], names)
    splits = load_dataset(f"parquet:{tmp_path / 'insects.v2'}")
    assert splits.name == "insects.v2"
    assert splits.spec.class_names == ("ant", "bee", "crow")
    assert as_set(splits.test.images) == as_set(images[40:])
    assert as_set(np.concatenate([splits.train.images, splits.validation.images])) == as_set(images[:40])
    assert len(splits.validation) == 4
    label_of = {image.tobytes(): label for image, label in zip(images, labels)}
    assert splits.train.labels is not None
    assert [label_of[image.tobytes()] for image in splits.train.images] == splits.train.labels.tolist()


def test_parquet_single_file_and_unlabelled_rows(tmp_path: Path) -> None:
    images = random_images(20)
    write_parquet(tmp_path / "one.parquet", images, [4 + 3 * (i % 2) for i in range(20)])
    assert load_dataset(f"parquet:{tmp_path / 'one.parquet'}").spec.class_names == ("4", "7")
    write_parquet(tmp_path / "two.parquet", images, [-1] * 20)
    assert load_dataset(f"parquet:{tmp_path / 'two.parquet'}").train.labels is None


def test_parquet_errors_name_file_and_row(tmp_path: Path) -> None:
    images = random_images(20)
    path = tmp_path / "x.parquet"
    table = pa.table({"image": [{"bytes": encode(i)[: 90 if k == 11 else None]} for k, i in enumerate(images)]})
    pq.write_table(table, path)
    with pytest.raises(DataError, match=r"x\.parquet: row 11: not a readable image"):
        load_dataset(f"parquet:{path}")
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "a.png"}]}), path)
    with pytest.raises(DataError, match="row 0 holds no image bytes"):
        load_dataset(f"parquet:{path}")
    pq.write_table(pa.table({"picture": [1]}), path)
    with pytest.raises(DataError, match="columns picture"):
        load_dataset(f"parquet:{path}")
    write_parquet(path, images, [0, 5] * 10, ["a", "b"])
    with pytest.raises(DataError, match="names 2 classes"):
        load_dataset(f"parquet:{path}")
    write_parquet(tmp_path / "many" / "a.parquet", images, None)
    write_parquet(tmp_path / "many" / "b.parquet", images, None)
    with pytest.raises(DataError, match=r"a\.parquet: which split"):
        load_dataset(f"parquet:{tmp_path / 'many'}")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"x\.parquet: not a readable parquet"):
        load_dataset(f"parquet:{path}")


def test_levels_are_named_with_the_dataset(tmp_path):
    path = tmp_path / "bits.npz"
    np.savez(path, train=np.resize(np.array([0, 255, 255], np.uint8), (30, 4, 4, 1)))
    assert load_dataset(f"npz:{path}").spec.levels == 256
    binary = load_dataset(f"npz:{path}?levels=2")
    assert binary.spec.levels == 2 and binary.name == "bits"


@pytest.mark.parametrize("text", ["1", "300", "two", ""])
def test_bad_numbers_of_levels_are_refused(tmp_path, text):
    with pytest.raises(UsageError, match=f"levels must be a whole number in 2..256, got '{text}'"):
        load_dataset(f"npz:{tmp_path}/x.npz?levels={text}")


def test_values_that_are_no_level_are_refused(tmp_path):
    path = tmp_path / "grey.npz"
    np.savez(path, train=np.full((30, 4, 4, 1), 128, np.uint8))
    with pytest.raises(DataError, match=r"has the value 128, images of 2 levels hold 0, 255\. Give"):
        load_dataset(f"npz:{path}?levels=2")
