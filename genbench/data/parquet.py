"""Reader of parquet files in the Hugging Face image layout."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from genbench.data.base import SplitName
from genbench.data.decode import ImageStack
from genbench.data.labels import index_labels
from genbench.data.split import Part, RawDataset
from genbench.data.tree import SPLIT_FOLDERS
from genbench.errors import DataError

_BATCH_ROWS = 1000
_IMAGE_COLUMNS = ("img", "image")
_LABEL_COLUMN = "label"


def read_parquet(path: Path) -> RawDataset:
    """Read one file, or a folder of files named ``train-*.parquet``, ``test-*.parquet``, ``validation-*.parquet``.

    Columns: ``img`` or ``image`` (struct with ``bytes``, or binary), optional ``label`` (integer; the names of the
    classes come from the schema's ``huggingface`` metadata where it has them; -1 stands for unlabelled).

    Raises:
        DataError: no such files or columns, a corrupted file or image (names file and row), or mixed sizes.
    """
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no *.parquet files in this folder.")
    by_split: dict[SplitName, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file, only=len(files) == 1), []).append(file)
    images = {split: _read_images(members) for split, members in by_split.items()}
    values = {split: _read_labels(members) for split, members in by_split.items()}
    labelled = [labels for labels in values.values() if labels is not None and labels.min(initial=0) >= 0]
    if len(labelled) < len(values):
        return RawDataset(str(path), {split: Part(array, None) for split, array in images.items()})
    names = _class_names(files[0])
    together = np.concatenate(labelled)
    if names and together.max(initial=0) >= len(names):
        raise DataError(f"{files[0]}: a label is {together.max()}, but the schema names {len(names)} classes.")
    indices, found = (together, names) if names else index_labels(together)
    bounds = np.cumsum([len(array) for array in images.values()])[:-1]
    chunks = np.split(indices, bounds)
    parts = {split: Part(array, part) for (split, array), part in zip(images.items(), chunks, strict=True)}
    return RawDataset(str(path), parts, found)


def _split_of(file: Path, only: bool) -> SplitName:
    """The split by the file's name (``train-00000-of-00001``) or its folder's (``train/0000``)."""
    for word in (re.split(r"[-._]", file.stem)[0].lower(), file.parent.name.lower()):
        if word in SPLIT_FOLDERS:
            return "train" if only else SPLIT_FOLDERS[word]
    if only:
        return "train"
    raise DataError(f"{file}: which split is this? Name the files train-*, validation-* and test-*.parquet.")


def _batches(file: Path, columns: list[str]) -> Iterator[Any]:
    """Record batches of a file; any failure of the reader names the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            yield from table.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable parquet file: {error}. Fetch it again.") from None


def _schema(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable parquet file: {error}. Fetch it again.") from None


def _read_images(files: list[Path]) -> np.ndarray:
    import pyarrow.parquet as pq

    schemas = {file: _schema(file) for file in files}
    stack = ImageStack(sum(pq.read_metadata(file).num_rows for file in files))
    for file, schema in schemas.items():
        column = next((name for name in _IMAGE_COLUMNS if name in schema.names), None)
        if column is None:
            raise DataError(f"{file}: has columns {', '.join(schema.names)}; expected an image column img or image.")
        row = 0
        for batch in _batches(file, [column]):
            for data in _encoded(batch.column(column), file):
                if data is None:
                    raise DataError(f"{file}: row {row} holds no image bytes. Save the dataset with embedded images.")
                stack.add(data, f"{file}: row {row}")
                row += 1
    return stack.finish()


def _encoded(column: Any, file: Path) -> list[bytes | None]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return column.field("bytes").to_pylist()
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return column.to_pylist()
    raise DataError(f"{file}: the image column is {kind}; expected struct<bytes, path> or binary.")


def _read_labels(files: list[Path]) -> np.ndarray | None:
    import pyarrow as pa

    labels: list[np.ndarray] = []
    for file in files:
        schema = _schema(file)
        if _LABEL_COLUMN not in schema.names:
            return None
        if not pa.types.is_integer(schema.field(_LABEL_COLUMN).type):
            raise DataError(f"{file}: column label is {schema.field(_LABEL_COLUMN).type}, expected whole numbers.")
        for batch in _batches(file, [_LABEL_COLUMN]):
            column = batch.column(_LABEL_COLUMN)
            labels.append(column.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))
    return np.concatenate(labels) if labels else np.empty(0, dtype=np.int64)


def _class_names(file: Path) -> tuple[str, ...]:
    """Class names from the ``huggingface`` metadata; empty where it has none that can be read."""
    metadata = _schema(file).metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][_LABEL_COLUMN]["names"]
        return tuple(str(name) for name in names)
    except (KeyError, ValueError, TypeError):
        return ()
