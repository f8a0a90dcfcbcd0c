"""Labels and prompts from beside the images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_files import CAPTIONS, LABELS, made, members, opened, read, write_folder, write_zip

from genbench.errors import DataError, UsageError
from genbench.sources.sidecar import read_labels, read_prompts

IMAGES = made()
NAMES = list(members(IMAGES))
SHUFFLED = np.random.RandomState(3).permutation(12).tolist()


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def rows(delimiter: str = ",", header: str = "") -> str:
    return header + "".join(f"{NAMES[k]}{delimiter}{LABELS[k]}\n" for k in SHUFFLED)


LABEL_FILES: dict[str, Any] = {
    "x.txt": "\n".join(map(str, LABELS)) + "\n",
    "lines.csv": "\n".join(map(str, LABELS)) + "\n",
    "header.csv": "label\n" + "\n".join(map(str, LABELS)) + "\n",
    "named.txt": rows(),
    "named.csv": rows(),
    "stems.csv": rows().replace(".png", ""),
    "dots.csv": "".join(f"./{line}\n" for line in rows().splitlines()),
    "columns.csv": rows(header="file_name,label\n"),
    "columns.tsv": rows("\t", "File\tClass\n"),
    "plain.tsv": rows("\t"),
    "x.json": json.dumps(LABELS),
    "object.json": json.dumps({NAMES[k]: LABELS[k] for k in SHUFFLED}),
    "edm.json": json.dumps({"labels": [[NAMES[k], LABELS[k]] for k in SHUFFLED]}),
    "list.json": json.dumps({"labels": LABELS}),
    "x.jsonl": "".join(json.dumps({"file_name": NAMES[k], "label": LABELS[k]}) + "\n" for k in SHUFFLED),
}


@pytest.mark.parametrize("name", LABEL_FILES)
def test_labels_in_every_format(name: str, tmp_path: Path) -> None:
    source = opened(write_folder(tmp_path / "x", members(IMAGES)), labels=text(tmp_path / name, LABEL_FILES[name]))
    assert [image.label for image in source.images()] == LABELS
    assert source.class_names == ("0", "1", "2")
    assert source.length == 12


def test_labels_in_arrays_and_lists(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array(LABELS, dtype=np.int32)[:, None])
    np.savez(tmp_path / "x.npz", labels=LABELS)
    np.savez(tmp_path / "y.npz", arr_0=LABELS)
    for given in (tmp_path / "x.npy", str(tmp_path / "x.npz"), tmp_path / "y.npz", LABELS, np.array(LABELS)):
        assert [image.label for image in read(IMAGES, labels=given)] == LABELS


def test_names_of_classes_and_unlabelled(tmp_path: Path) -> None:
    names = ["pear", "apple", "fig tree"]
    source = opened(IMAGES, labels=text(tmp_path / "x.txt", "\n".join(names[k] for k in LABELS)))
    assert source.class_names == ("apple", "fig tree", "pear")
    assert [source.class_names[image.label or 0] for image in source.images()] == [names[k] for k in LABELS]
    assert [image.label for image in read(IMAGES, labels=[-1, *LABELS[1:]])] == [None, *LABELS[1:]]


PROMPT_FILES: dict[str, str] = {
    "x.txt": "\n".join(CAPTIONS) + "\n",
    "windows.txt": "\ufeff" + "\r\n".join(CAPTIONS) + "\r\n",
    "x.csv": "prompt\n" + "\n".join(CAPTIONS),
    "named.csv": "name,caption\n" + "".join(f"{NAMES[k]},{CAPTIONS[k]}\n" for k in SHUFFLED),
    "x.tsv": "text\tfile_name\n" + "".join(f"{CAPTIONS[k]}\t{NAMES[k]}\n" for k in SHUFFLED),
    "x.json": json.dumps(CAPTIONS),
    "object.json": json.dumps({NAMES[k]: CAPTIONS[k] for k in SHUFFLED}),
    "x.jsonl": "".join(json.dumps({"text": CAPTIONS[k], "file_name": NAMES[k]}) + "\n" for k in SHUFFLED),
    "strings.jsonl": "".join(json.dumps(caption) + "\n" for caption in CAPTIONS),
}


@pytest.mark.parametrize("name", PROMPT_FILES)
def test_prompts_in_every_format(name: str, tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", members(IMAGES))
    source = opened(archive, prompts=text(tmp_path / name, PROMPT_FILES[name]))
    assert source.has_captions
    assert [image.caption for image in source.images()] == CAPTIONS


def test_prompts_keep_commas_and_quotes(tmp_path: Path) -> None:
    texts = ['a cat, a dog and a "bird"', "  two spaces", "line,with\ttab"]
    assert read_prompts(text(tmp_path / "x.txt", "\n".join(texts))).values == texts
    quoted = 'prompt\n"a cat, a dog and a ""bird"""\n"  two spaces"\n"line,with\ttab"\n'
    assert read_prompts(text(tmp_path / "x.csv", quoted)).values == texts


def test_counts_that_differ_give_both(tmp_path: Path) -> None:
    for count in (11, 13):
        with pytest.raises(DataError, match=f"has {count} prompts, but .* has 12 images"):
            opened(IMAGES, prompts=[f"p{k}" for k in range(count)])
        with pytest.raises(DataError, match=f"has {count} labels, but .* has 12 images"):
            opened(IMAGES, labels=[0] * count)
    with pytest.raises(DataError, match=r"has 13 labels, but .* has 12 images"):
        read(iter(list(IMAGES)), labels=[0] * 13)
    with pytest.raises(DataError, match="has 11 labels, but there are more"):
        read(iter(list(IMAGES)), labels=[0] * 11)
    named = text(tmp_path / "x.csv", rows() + "img9999.png,1\n")
    with pytest.raises(DataError, match="has 13 labels, but x has 12"):
        opened(write_folder(tmp_path / "x", members(IMAGES)), labels=named)
    other = text(tmp_path / "y.csv", rows().replace("img0003", "img9999"))
    with pytest.raises(DataError, match=r"has no labels for img0003\.png"):
        opened(tmp_path / "x", labels=other)


def test_skipped_images_keep_their_place(tmp_path: Path) -> None:
    content = {**members(IMAGES), NAMES[3]: b"broken"}
    images = read(write_folder(tmp_path, content), on_error="skip", labels=LABELS, prompts=CAPTIONS)
    kept = [k for k in range(12) if k != 3]
    assert [image.label for image in images] == [LABELS[k] for k in kept]
    assert [image.caption for image in images] == [CAPTIONS[k] for k in kept]


def test_sidecars_leave_the_rest_alone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x", members(IMAGES))
    plain, labelled = opened(folder), opened(folder, labels=LABELS)
    assert labelled.fingerprint() == plain.fingerprint()
    assert labelled.names() == plain.names()
    assert (labelled.name, labelled.kind) == (plain.name, plain.kind)
    assert opened(labelled, prompts=CAPTIONS).class_names == ("0", "1", "2")
    both = read(labelled, prompts=CAPTIONS)
    assert [(image.label, image.caption) for image in both] == list(zip(LABELS, CAPTIONS))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "a,b,c\n1,2,3\n", "rows have 3 cells"),
        ("x.csv", "a.png,1\nb.png\n", "row 1 has 1 cells, the first row 2"),
        ("x.csv", "a.png,1\na.png,2\n", "names 'a.png' twice"),
        ("x.csv", 'name,label\n"a,1\n', "not a table"),
        ("x.txt", "", "has no labels"),
        ("x.txt", "1\n\n2\n", "entry 1 is ''"),
        ("x.json", "{", "not JSON"),
        ("x.json", "[" * 100_000, "not JSON"),
        ("x.json", "3", "expected a list"),
        ("x.json", "[1.5]", "entry 0 is 1.5"),
        ("x.json", "[[1, 0]]", "entry 0 is"),
        ("x.json", "[null]", "entry 0 is None"),
        ("x.json", "[true]", "entry 0 is True"),
        ("x.jsonl", '{"name": "a", "label": 1}\n3\n', "expected one kind"),
        ("x.jsonl", '{"label": 1}\n{"name": "a"}\n', "object 1 lacks label"),
        ("x.csv", "..,1\n/,2\n", "has no labels|has 2 labels"),
        ("x.txt", "9999999\n", "a label is 9999999"),
    ],
)
def test_labels_that_are_none(name: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(IMAGES[:2] if "9999" not in content else IMAGES[:1], labels=text(tmp_path / name, content))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "words\na\n", "has words; expected prompt or caption or text"),
        ("x.txt", "a\n\nb", "entry 1 is ''"),
        ("x.txt", " \n", "has no prompts"),
        ("x.json", "[1]", "entry 0 is 1"),
        ("x.jsonl", '{"a": "b"}', "has a; expected prompt"),
        ("x.jsonl", '{"prompt": "b", "name": 3}', "lacks prompt or a text name"),
    ],
)
def test_prompts_that_are_none(name: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_prompts(text(tmp_path / name, content))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\xfa")
    for read_one in (read_labels, read_prompts):
        for place in (tmp_path / "x.txt", tmp_path / "nowhere.txt", tmp_path):
            with pytest.raises(DataError, match=str(place)):
                read_one(place)
        with pytest.raises(UsageError, match="expected a file or a list"):
            read_one(3)  # type: ignore[arg-type]
    np.save(tmp_path / "x.npy", np.zeros(12))
    np.savez(tmp_path / "x.npz", other=LABELS)
    np.save(tmp_path / "y.npy", np.zeros((12, 2), dtype=int))
    for name, message in (
        ("x.npy", "expected whole numbers"),
        ("x.npz", "expected one of"),
        ("y.npy", "whole numbers"),
    ):
        with pytest.raises(DataError, match=message):
            read_labels(tmp_path / name)
