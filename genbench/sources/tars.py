"""Tar archives of image files, plain (EDM, StyleGAN) or in shards of WebDataset, read as a stream in their own order.

WebDataset: beside ``KEY.png`` lie ``KEY.cls`` (a class number), ``KEY.txt`` (a caption) or ``KEY.json`` (an object with
``label`` or ``cls``, and ``caption``, ``text`` or ``prompt``). A ``dataset.json`` in the root, else class folders, are
looked at where there are no such labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from genbench.data.tarballs import read_members
from genbench.data.tree import MANIFEST, File, folder_classes, is_hidden, is_image, manifest_classes, survey
from genbench.errors import DataError
from genbench.sources.base import ImageSource, Observations, OnError, SourceImage
from genbench.sources.classes import known, number_names, resolve
from genbench.sources.decoding import Encoded, decoded
from genbench.sources.hashing import hash_contents, relative_files, remembered

_EXPECTED = {".cls": "a class number", ".txt": "a caption in UTF-8", ".json": "JSON"}
_LABEL_KEYS = ("label", "cls")
_CAPTION_KEYS = ("caption", "text", "prompt")


@dataclass
class _Sample:
    """Neighbours in an archive that share all but the suffix.

    images: their names and, where wanted, contents. sidecars: where each lies, its suffix and content.
    """

    key: File
    images: list[tuple[File, bytes]] = field(default_factory=list)
    sidecars: list[tuple[str, str, bytes]] = field(default_factory=list)
    label: int | None = None
    caption: str | None = None


class TarSource(ImageSource):
    """Images of one tar archive or of several shards.

    Args:
        paths: the shards, in order.
        root: what the user named (a file, a folder, a pattern).

    Raises:
        DataError: not a tar archive, damaged, no images in it, unfit labels, or members that are links or whose names
            lead out of the archive.
    """

    kind = "tar"

    def __init__(self, paths: Sequence[Path], root: Path) -> None:
        self._paths = list(paths)
        self._root = root
        self.name = root.resolve().name if root.is_dir() else root.name
        self._files: list[list[File]] = []
        self._classes: list[dict[File, int]] = []
        self._scan()
        self.length = sum(map(len, self._files))

    def _scan(self) -> None:
        """One pass over the headers: names, ``dataset.json`` and the range of labels."""
        manifests: list[dict[File, bytes]] = []
        labels: list[int] = []
        for path in self._paths:
            files: list[File] = []
            manifests.append({})
            for sample in _samples(path, manifests[-1], contents=False):
                files += [file for file, _ in sample.images]
                labels += [] if sample.label is None else [sample.label]
                self.has_captions |= sample.caption is not None
            self._files.append(files)
        together = survey(str(self._root), set(chain.from_iterable(self._files)))
        classes: list[dict[File, str | int]] = [{} for _ in self._paths]
        if labels:
            self.class_names = number_names(labels, str(self._root))
        elif any(manifests):
            classes = [_by_manifest(*of_shard) for of_shard in zip(self._paths, self._files, manifests, strict=True)]
        else:
            classes = [folder_classes(together)] * len(self._paths)
        if any(classes):
            of_all = {(i, file): value for i, shard in enumerate(classes) for file, value in shard.items()}
            numbers, self.class_names = resolve(of_all, str(self._root))
            classes = [{file: numbers[i, file] for file in shard} for i, shard in enumerate(classes)]
        self._classes = [{file: int(value) for file, value in shard.items()} for shard in classes]

    def _name(self, shard: Path, file: File) -> str:
        return "/".join(file) if len(self._paths) == 1 else "/".join((shard.name, *file))

    def names(self) -> Sequence[str]:
        """Members' names, after that of the shard where there are several."""
        return [self._name(path, file) for path, files in zip(self._paths, self._files, strict=True) for file in files]

    def _encoded(self) -> Iterator[Encoded]:
        for path, classes in zip(self._paths, self._classes, strict=True):
            for sample in _samples(path, {}, contents=True):
                for file, data in sample.images:
                    label = classes.get(file) if sample.label is None else known(sample.label)
                    where = f"{path}: {'/'.join(file)}"
                    yield Encoded(self._name(path, file), where, partial(bytes, data), label, sample.caption)

    def images(self, on_error: OnError = "fail", seen: Observations | None = None) -> Iterator[SourceImage]:
        """Read all images, see `ImageSource.images`. A truncated archive is an error in any case."""
        return decoded(self._encoded(), str(self._root), on_error, seen)

    def fingerprint(self, *, verify: bool = False) -> str:
        """SHA-256 over the images' names and contents in order."""

        def make() -> str:
            return hash_contents((item.name, hashlib.sha256(item.read()).hexdigest()) for item in self._encoded())

        return remembered("tar", self._root, relative_files(self._paths), make, verify=verify)


def _samples(path: Path, manifests: dict[File, bytes], contents: bool) -> Iterator[_Sample]:
    """Samples in order, with images' contents where wanted; ``manifests`` is filled on the way."""
    sample = _Sample(())
    for member in read_members(path):
        file = member.parts
        if is_hidden(file):
            continue
        if file[-1] == MANIFEST:
            manifests[file] = member.read()
            continue
        stem, dot, suffix = file[-1].rpartition(".")
        suffix = f"{dot}{suffix.lower()}"
        key = (*file[:-1], stem)
        if not is_image(file[-1]) and suffix not in _EXPECTED:
            continue
        if key != sample.key:
            if sample.images:
                yield _annotated(sample)
            sample = _Sample(key)
        if is_image(file[-1]):
            sample.images.append((file, member.read() if contents else b""))
        else:
            sample.sidecars.append((member.where, suffix, member.read()))
    if sample.images:
        yield _annotated(sample)


def _annotated(sample: _Sample) -> _Sample:
    """The sample with the label and caption of its sidecars."""
    for where, suffix, content in sample.sidecars:
        try:
            text = content.decode("utf-8-sig").strip()
            if suffix == ".cls":
                sample.label = int(text)
            elif suffix == ".txt":
                sample.caption = text
            else:
                _annotate_from_json(sample, json.loads(text))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: expected {_EXPECTED[suffix]} ({error}). Correct or remove it.") from None
    return sample


def _annotate_from_json(sample: _Sample, values: Any) -> None:
    if not isinstance(values, dict):
        return
    labels = [values[key] for key in _LABEL_KEYS if type(values.get(key)) is int]
    captions = [values[key] for key in _CAPTION_KEYS if isinstance(values.get(key), str)]
    if labels and sample.label is None:
        sample.label = labels[0]
    if captions and sample.caption is None:
        sample.caption = captions[0]


def _by_manifest(path: Path, files: list[File], manifests: dict[File, bytes]) -> dict[File, str | int]:
    """The classes of a shard by its own ``dataset.json``; empty where it has none in its root."""
    if not manifests or not files:
        return {}
    found = survey(str(path), [*files, *manifests])
    if found.manifest is None:
        return {}
    return manifest_classes(f"{path}: {'/'.join(found.manifest)}", manifests[found.manifest], found)
