"""From whatever names or holds images to a source."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from genbench.data.arrays import Layout, open_npz
from genbench.data.base import SplitName
from genbench.data.load import NAMED
from genbench.data.npz import image_keys
from genbench.data.tree import SPLIT_FOLDERS
from genbench.errors import DataError, UsageError, nearest
from genbench.sources.annotated import AnnotatedSource
from genbench.sources.base import ImageSource
from genbench.sources.convert import as_array
from genbench.sources.detect import KINDS, Kind, detect_kind, expand, forms, shards_of
from genbench.sources.folder import FolderSource
from genbench.sources.items import ItemSource, has_places
from genbench.sources.named import open_named
from genbench.sources.sidecar import read_labels, read_prompts
from genbench.sources.stacks import ArraySource, open_archive, open_array_file
from genbench.sources.statistics import StatisticsSource, has_statistics, read_statistics
from genbench.sources.tables import ParquetSource, open_parquet
from genbench.sources.tars import TarSource
from genbench.sources.zips import ZipSource

Source = ImageSource | StatisticsSource


def open_source(
    spec: Any,
    *,
    labels: Any = None,
    prompts: Any = None,
    layout: Layout | None = None,
    data_root: Path | None = None,
) -> Source:
    """Open images or precomputed statistics.

    Args:
        spec: a path (its kind is told by its content), ``folder:DIR``, ``zip:FILE``, ``tar:FILE``, ``tar:DIR`` or a
            pattern of shards (``tar:set-{000..031}.tar``), ``npz:FILE``, ``npy:FILE``, ``parquet:FILE|DIR``; of npz and
            parquet with splits ``npz:FILE:test``; a named dataset and split (``cifar10:test``, ``mnist:train``,
            ``digits:suite-validation``). In Python also an array or tensor of images, a torch Dataset, a sequence or
            iterable of images, batches or (image, label), or a source that is open.
        labels: a file of one class for each image, or the classes; see `genbench.sources.sidecar.read_labels`.
        prompts: a file of one prompt for each image, or the prompts; see `genbench.sources.sidecar.read_prompts`.
        layout: "NHWC" or "NCHW", for arrays whose shape fits both.
        data_root: where named datasets are looked for first.

    Raises:
        UsageError: an unknown form, or labels or prompts for statistics.
        DataError: nothing at that path, or content that is unreadable or unfit; names it.
    """
    source = _open(spec, layout, data_root)
    if labels is None and prompts is None:
        return source
    if isinstance(source, StatisticsSource):
        raise UsageError(f"{source.name}: statistics have no images to give labels or prompts to.")
    return AnnotatedSource(
        source,
        None if labels is None else read_labels(labels),
        None if prompts is None else read_prompts(prompts),
    )


def _open(spec: Any, layout: Layout | None, data_root: Path | None) -> Source:
    if isinstance(spec, ImageSource | StatisticsSource):
        return spec
    if isinstance(spec, Path):
        return _open_path(str(spec), None, layout)
    if isinstance(spec, str):
        return _open_text(spec, layout, data_root)
    array = as_array(spec)
    if array is not None:
        return ArraySource(array, layout, "tensor" if type(spec).__module__.startswith("torch") else "array")
    if isinstance(spec, Image.Image):
        raise UsageError("Got a single Pillow image. Give a list of images.")
    if isinstance(spec, Mapping | bytes) or not (isinstance(spec, Iterable) or has_places(spec)):
        raise UsageError(f"Got {type(spec).__name__}, which holds no images that can be read. {forms()}")
    return ItemSource(spec, type(spec).__name__, layout)


def _open_text(spec: str, layout: Layout | None, data_root: Path | None) -> Source:
    if "\0" in spec or not spec:
        raise UsageError(f"{spec!r} names no input. {forms()}")
    prefix, _, rest = spec.partition(":")
    if _exists(spec) or prefix not in (*KINDS, *NAMED):
        return _open_path(spec, None, layout)
    if prefix in NAMED:
        return open_named(spec, data_root)
    if not rest:
        raise UsageError(f"'{spec}' names no file. {forms()}")
    return _open_path(rest, next(kind for kind in KINDS if kind == prefix), layout)


def _exists(place: str) -> bool:
    return os.path.exists(os.path.expanduser(place))  # noqa: PTH110, PTH111 - raise for no text whatever


def _open_path(place: str, kind: Kind | None, layout: Layout | None) -> Source:
    split: SplitName | None = None
    if not _exists(place):
        stem, colon, last = place.rpartition(":")
        if colon and last in SPLIT_FOLDERS and _exists(stem):
            place, split = stem, SPLIT_FOLDERS[last]
        else:
            return _open_pattern(place, kind)
    path = Path(place).expanduser()
    found = detect_kind(path) if kind is None else _checked(path, kind)
    if split is not None and found not in ("npz", "parquet"):
        raise UsageError(f"{path}: only npz and parquet have splits to choose; of a folder give the subfolder.")
    match found:
        case "folder":
            return FolderSource(path)
        case "zip":
            return ZipSource(path)
        case "tar":
            return TarSource(shards_of(path), path)
        case "npy":
            return open_array_file(path, layout)
        case "parquet":
            return open_parquet(path, split)
        case "npz":
            arrays = open_npz(path)
            only_statistics = has_statistics(arrays) and not image_keys(arrays)
            return read_statistics(path) if only_statistics else open_archive(path, layout, split)


def _checked(path: Path, kind: Kind) -> Kind:
    """The kind as the user gave it, if a path may be of that kind at all."""
    if path.is_dir() and kind not in ("folder", "tar", "parquet"):
        raise DataError(f"{path}: a folder, but {kind}: wants a file.")
    if not path.is_dir() and not path.is_file():
        raise DataError(f"{path}: neither a file nor a folder.")
    return kind


def _open_pattern(place: str, kind: Kind | None) -> Source:
    """Shards by a pattern, or the error for what is not there."""
    files = expand(os.path.expanduser(place))  # noqa: PTH111 - as above
    if files is None:
        known = [*KINDS, *NAMED]
        prefix, colon, _ = place.partition(":")
        hint = nearest(prefix, known) if kind is None else ""
        what = (
            f"Unknown kind or dataset '{prefix}'" if colon and kind is None else f"There is no file or folder '{place}'"
        )
        raise UsageError(f"{what}.{hint} {forms()}")
    found = detect_kind(files[0]) if kind is None else kind
    if found == "tar":
        return TarSource(files, Path(place))
    if found == "parquet":
        return ParquetSource(Path(place), files, Path(place).name)
    raise UsageError(f"{place}: only tar and parquet may be given by a pattern, {files[0]} is {found}.")
