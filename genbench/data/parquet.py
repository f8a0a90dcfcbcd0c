"""Reader of parquet files in the Hugging Face image layout."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
_CAPTION_COLUMNS = ("text", "caption", "prompt")


def read_parquet(path: Path) -> RawDataset:
    """Read one file, or a folder of files named ``train-*.parquet``, ``test-*.parquet``, ``validation-*.parquet``.

    Columns: ``img`` or ``image`` (struct with ``bytes``, or binary), optional ``label`` (integer; the names of the
    classes come from the schema's ``huggingface`` metadata where it has them; -1 stands for unlabelled).

    Raises:
        DataError: no such files or columns, a corrupted file or image (names file and row), or mixed sizes.
    """
    files = list_files(path)
    by_split: dict[SplitName, list[Path]] = {}
    for file in files:
        split = "train" if len(files) == 1 else split_of(file)
        if split is None:
            raise DataError(f"{file}: which split is this? Name the files train-*, validation-* and test-*.parquet.")
        by_split.setdefault(split, []).append(file)
    images = {split: _read_images(members) for split, members in by_split.items()}
    values = {split: read_labels(members) for split, members in by_split.items()}
    labelled = [labels for labels in values.values() if labels is not None and labels.min(initial=0) >= 0]
    if len(labelled) < len(values):
        return RawDataset(str(path), {split: Part(array, None) for split, array in images.items()})
    names = class_names(files[0])
    together = np.concatenate(labelled)
    if names and together.max(initial=0) >= len(names):
        raise DataError(f"{files[0]}: a label is {together.max()}, but the schema names {len(names)} classes.")
    indices, found = (together, names) if names else index_labels(together)
    bounds = np.cumsum([len(array) for array in images.values()])[:-1]
    chunks = np.split(indices, bounds)
    parts = {split: Part(array, part) for (split, array), part in zip(images.items(), chunks, strict=True)}
    return RawDataset(str(path), parts, found)


def list_files(path: Path) -> list[Path]:
    """The file itself, or all ``*.parquet`` below a folder, sorted.

    Raises:
        DataError: a folder without any.
    """
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.parquet") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise DataError(f"{path}: no *.parquet files in this folder.")
    return files


def split_of(file: Path) -> SplitName | None:
    """The split by the file's name (``train-00000-of-00001``) or its folder's (``train/0000``), None without one."""
    words = (re.split(r"[-._]", file.stem)[0].lower(), file.parent.name.lower())
    return next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), None)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Whatever the reader raises over a file's content becomes an error that names the file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{file}: not a readable parquet file: {error}. Fetch it again.") from None


def read_batches(file: Path, columns: list[str], rows: int = _BATCH_ROWS) -> Iterator[dict[str, Any]]:
    """Columns of a file as pyarrow arrays, by name, ``rows`` at a time.

    Raises:
        DataError: a file that cannot be read; names it.
    """
    import pyarrow.parquet as pq

    with _named(file), pq.ParquetFile(file) as table:
        for batch in table.iter_batches(batch_size=rows, columns=columns, use_threads=False):
            yield {name: batch.column(name) for name in columns}


def read_schema(file: Path) -> tuple[Any, int]:
    """The schema of a file and its number of rows.

    Raises:
        DataError: a file that cannot be read; names it.
    """
    import pyarrow.parquet as pq

    with _named(file), pq.ParquetFile(file) as table:
        return table.schema_arrow, table.metadata.num_rows


@dataclass(frozen=True)
class Columns:
    """Names of the columns of images, labels and captions; None for those that are not there."""

    image: str
    label: str | None
    caption: str | None


def find_columns(file: Path, schema: Any) -> Columns:
    """Which columns hold what.

    Images are in ``img`` or ``image``, else in the one column of structs with ``bytes``; captions in a column of text
    called ``text``, ``caption`` or ``prompt``.

    Raises:
        DataError: no image column, or one of another type; labels that are no whole numbers. Names the file.
    """
    import pyarrow as pa

    names = schema.names
    structs = [n for n in names if pa.types.is_struct(schema.field(n).type) and _has_bytes(schema.field(n).type)]
    image = next((name for name in _IMAGE_COLUMNS if name in names), structs[0] if len(structs) == 1 else None)
    if image is None:
        raise DataError(f"{file}: has columns {', '.join(names)}; expected an image column img or image.")
    kind = schema.field(image).type
    if not (image in structs or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(f"{file}: the image column is {kind}; expected struct<bytes, path> or binary.")
    label = _LABEL_COLUMN if _LABEL_COLUMN in names else None
    if label is not None and not pa.types.is_integer(schema.field(label).type):
        raise DataError(f"{file}: column label is {schema.field(label).type}, expected whole numbers.")
    texts = [n for n in _CAPTION_COLUMNS if n in names and _is_text(schema.field(n).type)]
    return Columns(image, label, texts[0] if texts else None)


def _has_bytes(kind: Any) -> bool:
    return kind.get_field_index("bytes") >= 0


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def encoded_images(file: Path, column: Any) -> list[bytes | None]:
    """The bytes of each image of an image column, None where there are none."""
    import pyarrow as pa

    with _named(file):
        values: list[bytes | None] = (column.field("bytes") if pa.types.is_struct(column.type) else column).to_pylist()
    return values


def plain_values(file: Path, column: Any) -> list[Any]:
    """The values of a column as Python objects, None for null."""
    with _named(file):
        values: list[Any] = column.to_pylist()
    return values


def no_bytes(where: str) -> DataError:
    """The error for a row whose image is only a path."""
    return DataError(f"{where} holds no image bytes. Save the dataset with embedded images.")


def _read_images(files: list[Path]) -> np.ndarray:
    schemas = {file: read_schema(file) for file in files}
    stack = ImageStack(sum(rows for _, rows in schemas.values()))
    for file, (schema, _) in schemas.items():
        name = find_columns(file, schema).image
        row = 0
        for batch in read_batches(file, [name]):
            for data in encoded_images(file, batch[name]):
                if data is None:
                    raise no_bytes(f"{file}: row {row}")
                stack.add(data, f"{file}: row {row}")
                row += 1
    return stack.finish()


def read_labels(files: list[Path]) -> np.ndarray | None:
    """The labels (N,) int64 of files, -1 where there is none; None where a file has no such column.

    Raises:
        DataError: labels that are no whole numbers.
    """
    labels: list[np.ndarray] = []
    for file in files:
        name = find_columns(file, read_schema(file)[0]).label
        if name is None:
            return None
        for batch in read_batches(file, [name]):
            with _named(file):
                labels.append(batch[name].fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))
    return np.concatenate(labels) if labels else np.empty(0, dtype=np.int64)


def class_names(file: Path) -> tuple[str, ...]:
    """Class names from the ``huggingface`` metadata; empty where it has none that can be read."""
    metadata = read_schema(file)[0].metadata or {}
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][_LABEL_COLUMN]["names"]
        return tuple(str(name) for name in names)
    except (KeyError, ValueError, TypeError, RecursionError):
        return ()
