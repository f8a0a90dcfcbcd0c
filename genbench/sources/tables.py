"""Parquet files in the Hugging Face image layout, read in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from genbench.data.base import SplitName
from genbench.data.parquet import (
    class_names,
    encoded_images,
    find_columns,
    list_files,
    no_bytes,
    plain_values,
    read_batches,
    read_labels,
    read_schema,
    split_of,
)
from genbench.errors import DataError
from genbench.sources.base import ImageSource, Observations, OnError, SourceImage
from genbench.sources.classes import known, number_names
from genbench.sources.decoding import Encoded, decoded
from genbench.sources.hashing import hash_files, relative_files, remembered

_ROWS = 64


class ParquetSource(ImageSource):
    """Images of parquet files, in the order of the files' names; see `genbench.data.parquet` for the columns.

    Args:
        root: what the user named.
        files: the files to read.
        name: of the source.

    Raises:
        DataError: unreadable files, no image column, no rows, or unfit labels.
    """

    kind = "parquet"

    def __init__(self, root: Path, files: Sequence[Path], name: str) -> None:
        self.name = name
        self._root = root
        self._files = list(files)
        schemas = [read_schema(file) for file in self._files]
        self._columns = [find_columns(file, schema) for file, (schema, _) in zip(self._files, schemas, strict=True)]
        self.length = sum(rows for _, rows in schemas)
        if not self.length:
            raise DataError(f"{root}: has no rows.")
        self.has_captions = any(columns.caption is not None for columns in self._columns)
        labels = read_labels(self._files)
        if labels is not None and labels.max() >= 0:
            self.class_names = class_names(self._files[0]) or number_names(labels, str(root))
            if labels.max() >= len(self.class_names):
                raise DataError(
                    f"{root}: a label is {labels.max()}, but the schema names {len(self.class_names)} classes."
                )

    def images(self, on_error: OnError = "fail", seen: Observations | None = None) -> Iterator[SourceImage]:
        """Read all images, see `ImageSource.images`."""
        return decoded(self._encoded(), str(self._root), on_error, seen)

    def _encoded(self) -> Iterator[Encoded]:
        for file, columns in zip(self._files, self._columns, strict=True):
            row, prefix = 0, "" if len(self._files) == 1 else f"{file.name}: "
            label = columns.label if self.class_names else None
            wanted = [name for name in (columns.image, label, columns.caption) if name is not None]
            for batch in read_batches(file, wanted, _ROWS):
                images = encoded_images(file, batch[columns.image])
                nothing = [None] * len(images)
                labels = plain_values(file, batch[label]) if label else nothing
                captions = plain_values(file, batch[columns.caption]) if columns.caption else nothing
                for data, number, caption in zip(images, labels, captions, strict=True):
                    where = f"{file}: row {row}"
                    read = partial(_present, data, where)
                    yield Encoded(f"{prefix}row {row}", where, read, None if number is None else known(number), caption)
                    row += 1

    def fingerprint(self, *, verify: bool = False) -> str:
        """SHA-256 over the files' contents, and their names where there are several."""
        files = relative_files(self._files)
        return remembered("parquet", self._root, files, lambda: hash_files(files), verify=verify)


def _present(data: bytes | None, where: str) -> bytes:
    if data is None:
        raise no_bytes(where)
    return data


def open_parquet(path: Path, split: SplitName | None) -> ParquetSource:
    """A parquet file, or a folder of them; of a folder with splits one is to be chosen.

    Raises:
        DataError: as `ParquetSource`, no such split, or several and none chosen; says which there are.
    """
    files = list_files(path)
    by_split: dict[SplitName | None, list[Path]] = {}
    for file in files:
        by_split.setdefault(split_of(file), []).append(file)
    name = path.resolve().name
    if split is None and (path.is_file() or len(by_split) == 1):
        return ParquetSource(path, files, name)
    if split in by_split and split is not None:
        return ParquetSource(path, by_split[split], f"{name}:{split}")
    there = [known_split for known_split in by_split if known_split is not None]
    ask = f"Choose one: parquet:{path}:{there[0]}." if there else "Leave the split out."
    raise DataError(f"{path}: has {'the splits ' + ', '.join(there) if there else 'no splits'}. {ask}")
