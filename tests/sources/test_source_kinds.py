"""The same images through every kind of input: equal pixels, labels, captions, names and notes of what was seen."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from source_files import (
    CAPTIONS,
    LABELS,
    edm_json,
    encode,
    in_time,
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

from genbench.errors import DataError, UsageError
from genbench.sources import ImageSource, Observations, open_source

IMAGES = made()
NHWC = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))


def save_npz(path: Path, compressed: bool = False, **arrays: Any) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def save_npy(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def edm(content: dict[str, bytes]) -> dict[str, bytes]:
    return {**content, "dataset.json": edm_json(list(content))}


def by_class(root: Path) -> Path:
    return write_folder(root, {f"{'abc'[LABELS[k]]}/{k:02d}.png": encode(image) for k, image in enumerate(IMAGES)})


FILES: dict[str, Callable[[Path], Any]] = {
    "folder": lambda root: write_folder(root / "plain", members(IMAGES)),
    "folder of upper case": lambda root: write_folder(root, {n.upper(): d for n, d in members(IMAGES).items()}),
    "folder of bmp": lambda root: write_folder(root, members(IMAGES, "bmp")),
    "folder of tiff": lambda root: write_folder(root, members(IMAGES, "tiff")),
    "nested folder": lambda root: write_folder(root, {f"a/b/{n}": d for n, d in members(IMAGES).items()}),
    "zip": lambda root: write_zip(root / "x.zip", members(IMAGES)),
    "zip called otherwise": lambda root: write_zip(root / "x.dat", members(IMAGES), zipfile.ZIP_DEFLATED),
    "tar": lambda root: write_tar(root / "x.tar", members(IMAGES)),
    "tar.gz": lambda root: write_tar(root / "x.tar.gz", members(IMAGES), "w:gz"),
    "tar.xz": lambda root: write_tar(root / "x.tar.xz", members(IMAGES), "w:xz"),
    "npz": lambda root: save_npz(root / "x.npz", arr_0=NHWC),
    "npz compressed": lambda root: save_npz(root / "x.npz", True, arr_0=NHWC),
    "npz of floats": lambda root: save_npz(root / "x.npz", arr_0=NHWC / 255),
    "npz by split": lambda root: f"npz:{save_npz(root / 'x.npz', train=NHWC[:3], test=NHWC)}:test",
    "npy": lambda root: save_npy(root / "x.npy", NHWC),
    "npy channels first": lambda root: save_npy(root / "x.npy", IMAGES),
    "npy in Fortran order": lambda root: save_npy(root / "x.npy", np.asfortranarray(NHWC)),
    "parquet": lambda root: write_parquet(root / "x.parquet", IMAGES),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_file_gives_the_same_images(kind: str, tmp_path: Path) -> None:
    spec = FILES[kind](tmp_path)
    source, seen = opened(spec), Observations()
    images = list(source.images(seen=seen))
    assert np.array_equal(pixels(images), IMAGES)
    assert source.length == len(images) == 12
    assert [image.index for image in images] == list(range(12))
    assert len({image.name for image in images}) == 12
    assert seen.sizes == {(6, 9): 12}
    assert seen.channels == {3: 12}
    assert sum(seen.formats.values()) == 12
    assert not seen.skipped
    again = pixels(list(source.images()))
    assert np.array_equal(again, IMAGES)
    if not isinstance(spec, str):
        assert np.array_equal(pixels(read(f"{source.kind}:{spec}")), IMAGES)
        assert np.array_equal(pixels(read(str(spec))), IMAGES)


class MapDataset(torch.utils.data.Dataset):
    classes = ("a", "b", "c")

    def __len__(self) -> int:
        return 12

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(IMAGES[k].copy()).float() / 255, LABELS[k]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self) -> Any:
        return iter(torch.from_numpy(IMAGES))


def pil(k: int) -> Image.Image:
    return Image.fromarray(NHWC[k])


LABELLED = [(pil(k), LABELS[k]) for k in range(12)]
DICTS = [{"image": pil(k), "label": LABELS[k], "caption": CAPTIONS[k]} for k in range(12)]

OBJECTS: dict[str, Callable[[], Any]] = {
    "array": lambda: IMAGES,
    "array channels last": lambda: NHWC,
    "float64": lambda: IMAGES / 255,
    "float32": lambda: (IMAGES / 255).astype(np.float32),
    "float16": lambda: (IMAGES / 255).astype(np.float16),
    "int16": lambda: IMAGES.astype(np.int16),
    "int64": lambda: IMAGES.astype(np.int64),
    "tensor": lambda: torch.from_numpy(IMAGES),
    "float tensor with gradient": lambda: (torch.from_numpy(IMAGES) / 255).requires_grad_(),
    "map-style Dataset": MapDataset,
    "TensorDataset": lambda: torch.utils.data.TensorDataset(torch.from_numpy(IMAGES), torch.tensor(LABELS)),
    "IterableDataset": Stream,
    "DataLoader": lambda: torch.utils.data.DataLoader(MapDataset(), batch_size=5),
    "list of arrays": lambda: list(NHWC),
    "list of Pillow images": lambda: [pil(k) for k in range(12)],
    "list of pairs": lambda: LABELLED,
    "list of mappings": lambda: DICTS,
    "list of batches": lambda: [IMAGES[:5], IMAGES[5:]],
    "generator of images": lambda: iter(list(IMAGES)),
    "generator of batches": lambda: (IMAGES[k : k + 5] for k in range(0, 12, 5)),
    "generator of batches with labels": lambda: ((NHWC[k : k + 5], LABELS[k : k + 5]) for k in range(0, 12, 5)),
    "batch of Pillow images": lambda: [{"image": [pil(k) for k in range(12)], "label": LABELS, "text": CAPTIONS}],
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_every_object_gives_the_same_images(kind: str) -> None:
    source, seen = opened(OBJECTS[kind]()), Observations()
    images = list(source.images(seen=seen))
    assert np.array_equal(pixels(images), IMAGES)
    assert [image.index for image in images] == list(range(12))
    assert source.length in (12, None)
    assert seen.sizes == {(6, 9): 12}
    assert seen.formats == {"array": 12}


@pytest.mark.parametrize("kind", ["list of mappings", "batch of Pillow images"])
def test_mappings_have_labels_and_captions(kind: str) -> None:
    source = opened(OBJECTS[kind]())
    assert source.has_captions
    assert source.length == 12
    images = list(source.images())
    assert [image.label for image in images] == LABELS
    assert [image.caption for image in images] == CAPTIONS


@pytest.mark.parametrize("kind", ["map-style Dataset", "TensorDataset", "DataLoader", "list of pairs"])
def test_pairs_have_labels(kind: str) -> None:
    assert [image.label for image in read(OBJECTS[kind]())] == LABELS


def test_datasets_tell_length_classes_and_can_be_read_again() -> None:
    source = opened(MapDataset())
    assert source.length == 12
    assert source.class_names == ("a", "b", "c")
    assert source.fingerprint() is None
    assert np.array_equal(pixels(list(source.images())), pixels(list(source.images())))


def test_iterators_are_read_once() -> None:
    source = opened(iter(list(IMAGES)))
    assert source.length is None
    assert source.fingerprint() is None
    assert len(list(source.images())) == 12
    with pytest.raises(UsageError, match="only once"):
        list(source.images())


LABELLED_FILES: dict[str, tuple[Callable[[Path], Any], tuple[str, ...], str]] = {
    "class folders": (by_class, ("a", "b", "c"), "plain"),
    "zip of class folders": (
        lambda root: write_zip(
            root / "x.zip", {f"in/{'abc'[LABELS[k]]}/{k}.png": encode(i) for k, i in enumerate(IMAGES)}
        ),
        ("a", "b", "c"),
        "plain",
    ),
    "folder with dataset.json": (lambda root: write_folder(root, edm(members(IMAGES))), ("0", "1", "2"), "plain"),
    "zip with dataset.json": (lambda root: write_zip(root / "x.zip", edm(members(IMAGES))), ("0", "1", "2"), "plain"),
    "tar with dataset.json": (lambda root: write_tar(root / "x.tar", edm(members(IMAGES))), ("0", "1", "2"), "plain"),
    "tar of class folders": (
        lambda root: write_tar(
            root / "x.tar", {f"{'abc'[LABELS[k]]}/{k}.png": encode(i) for k, i in enumerate(IMAGES)}
        ),
        ("a", "b", "c"),
        "plain",
    ),
    "WebDataset": (lambda root: write_tar(root / "x.tar", webdataset(IMAGES)), ("0", "1", "2"), "captions"),
    "WebDataset with JSON": (
        lambda root: write_tar(
            root / "x.tar",
            {
                name: data
                for k, image in enumerate(IMAGES)
                for name, data in (
                    (f"d/{k}.v1.jpg.json", json.dumps({"label": LABELS[k], "caption": CAPTIONS[k]}).encode()),
                    (f"d/{k}.v1.jpg.png", encode(image)),
                )
            },
        ),
        ("0", "1", "2"),
        "captions",
    ),
    "npz with labels": (
        lambda root: save_npz(root / "x.npz", arr_0=NHWC, arr_1=np.array(LABELS)),
        ("0", "1", "2"),
        "plain",
    ),
    "parquet": (lambda root: write_parquet(root / "x.parquet", IMAGES), ("0", "1", "2"), "captions"),
}


@pytest.mark.parametrize("kind", LABELLED_FILES)
def test_labels_and_captions_of_files(kind: str, tmp_path: Path) -> None:
    make, class_names, captions = LABELLED_FILES[kind]
    source = opened(make(tmp_path))
    assert source.class_names == class_names
    assert source.has_captions == (captions == "captions")
    label_of = {image.tobytes(): LABELS[k] for k, image in enumerate(IMAGES)}
    caption_of = {image.tobytes(): CAPTIONS[k] for k, image in enumerate(IMAGES)}
    images = list(source.images())
    assert len(images) == 12
    for image in images:
        assert image.label == label_of[image.pixels.tobytes()]
        assert image.caption == (caption_of[image.pixels.tobytes()] if source.has_captions else None)


def test_parquet_names_of_classes_and_unlabelled_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = write_parquet(tmp_path / "x.parquet", IMAGES)
    table = pq.read_table(path)
    features = {"label": {"names": ["ant", "bee", "crow", "dog"], "_type": "ClassLabel"}}
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), path)
    assert opened(path).class_names == ("ant", "bee", "crow", "dog")
    table = table.drop_columns("label").append_column("label", [[-1, None, *LABELS[2:]]])
    pq.write_table(table, path)
    assert [image.label for image in read(path)] == [None, None, *LABELS[2:]]


def test_folders_that_number_blocks_are_no_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, {f"{k // 6 * 1000:05d}/{k:06d}.png": encode(i) for k, i in enumerate(IMAGES)})
    source = opened(tmp_path)
    assert source.class_names == ()
    assert {image.label for image in source.images()} == {None}


def test_shards_by_pattern_range_and_folder(tmp_path: Path) -> None:
    write_tar(tmp_path / "set-008.tar", webdataset(IMAGES[:4]))
    write_tar(tmp_path / "set-009.tar", webdataset(IMAGES[4:8], 4))
    write_tar(tmp_path / "set-010.tar", webdataset(IMAGES[8:], 8))
    for spec in ("set-{008..010}.tar", "set-*.tar", "set-0{08,09,10}.tar", "set-0[01]?.tar", ""):
        for prefix in ("", "tar:"):
            images = read(f"{prefix}{tmp_path / spec}")
            assert np.array_equal(pixels(images), IMAGES)
            assert [image.label for image in images] == LABELS
    assert opened(tmp_path).names()[4] == "set-009.tar/000004.png"
    with pytest.raises(DataError, match=r"no .*set-011\.tar"):
        open_source(f"{tmp_path}/set-{{008..011}}.tar")
    with pytest.raises(UsageError, match="range"):
        open_source(f"{tmp_path}/set-{{0..999999999}}.tar")
    with pytest.raises(UsageError, match="more than"):
        open_source(f"{tmp_path}/set-{{0..9999}}{{0..9999}}.tar")


def test_parquet_shards_and_splits(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-0.parquet", IMAGES[:5])
    write_parquet(tmp_path / "data" / "train-1.parquet", IMAGES[5:9], 5)
    write_parquet(tmp_path / "data" / "test-0.parquet", IMAGES[9:], 9)
    with pytest.raises(DataError, match=r"splits test, train.*parquet:.*:test"):
        open_source(tmp_path)
    assert np.array_equal(pixels(read(f"parquet:{tmp_path}:train")), IMAGES[:9])
    test = opened(f"{tmp_path}:test")
    assert np.array_equal(pixels(list(test.images())), IMAGES[9:])
    assert test.name.endswith(":test")
    assert np.array_equal(pixels(read(str(tmp_path / "data" / "train-*.parquet"))), IMAGES[:9])
    with pytest.raises(DataError, match="has the splits"):
        open_source(f"{tmp_path}:validation")


def test_named_datasets() -> None:
    from genbench.data import load_dataset

    splits = load_dataset("digits")
    test = opened("digits:test")
    assert test.name == "digits:test"
    assert test.fingerprint() == splits.test.fingerprint
    images = list(test.images())
    assert np.array_equal(pixels(images), splits.test.images)
    assert [image.label for image in images] == splits.test.labels.tolist()
    assert opened("digits:suite-validation").fingerprint() == splits.validation.fingerprint
    assert opened("digits:train").fingerprint() == opened("digits:suite-train").fingerprint()
    for spec, message in (
        ("digits", "digits:test"),
        ("digits:tset", "Did you mean 'test'"),
        ("digits:validation", "Did you mean 'suite-validation'"),
    ):
        with pytest.raises(UsageError, match=message):
            open_source(spec)


def test_published_training_set_is_whole_and_in_its_order(data_root: Path) -> None:
    published, suite = opened("mnist:train"), opened("mnist:suite-train")
    assert (published.length, suite.length) == (60_000, 50_000)
    first = [image.label for image, _ in zip(published.images(), range(8))]
    assert first == [5, 0, 4, 1, 9, 2, 1, 3]
    assert published.fingerprint() != suite.fingerprint()


def test_mixed_sizes_modes_and_formats_are_noted(tmp_path: Path) -> None:
    rgba = made(1, 4)[0]
    rgba[3, 0, 0] = 0
    content = {
        "a.png": encode(IMAGES[0]),
        "b.jpg": encode(IMAGES[1], "jpeg"),
        "c.PNG": encode(made(1, 1)[0]),
        "d.png": encode(rgba),
        "e.webp": encode(IMAGES[2][:, :4], "webp"),
    }
    write_folder(tmp_path, content)
    Image.fromarray(np.full((6, 9), 65535, dtype=np.uint16)).save(tmp_path / "f.png")
    seen = Observations()
    images = read(tmp_path, seen)
    assert seen.formats == {"PNG": 4, "JPEG": 1, "WEBP": 1}
    assert seen.sizes == {(6, 9): 5, (4, 9): 1}
    assert seen.channels == {3: 4, 1: 2}
    assert seen.transparent == seen.sixteen_bit == 1
    assert images[5].pixels.min() == 255
    seen = Observations()
    read([Image.fromarray(np.full((6, 9), 256, dtype=np.uint16)), Image.open(tmp_path / "a.png")], seen)
    assert (seen.sixteen_bit, seen.formats) == (1, {"array": 1, "PNG": 1})
    assert images[3].pixels[:, 0, 0].tolist() == [255] * 3


def test_symbolic_links_that_go_round_are_entered_once(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", members(IMAGES))
    for name in ("one", "two", "three"):
        (tmp_path / "a" / name).symlink_to(tmp_path, target_is_directory=True)
    with in_time():
        assert opened(tmp_path).length == 12


def test_open_sources_and_statistics_are_taken_as_they_are() -> None:
    source = opened(IMAGES)
    assert open_source(source) is source


def test_tar_keeps_its_order(tmp_path: Path) -> None:
    names = [f"{k:02d}.png" for k in np.random.RandomState(1).permutation(12)]
    path = write_tar(tmp_path / "x.tar", dict(zip(names, map(encode, IMAGES))))
    source = opened(path)
    assert list(source.names() or ()) == names == [image.name for image in source.images()]
    assert np.array_equal(pixels(list(source.images())), IMAGES)


def test_sources_say_what_they_are(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", members(IMAGES))
    kinds = {
        str(tmp_path / "pets"): ("folder", "pets"),
        str(write_zip(tmp_path / "x.zip", members(IMAGES))): ("zip", "x.zip"),
        str(write_parquet(tmp_path / "x.parquet", IMAGES)): ("parquet", "x.parquet"),
        "digits:test": ("dataset", "digits:test"),
    }
    for spec, (kind, name) in kinds.items():
        source = opened(spec)
        assert (source.kind, source.name) == (kind, name)
    assert isinstance(opened(list(IMAGES)), ImageSource)
