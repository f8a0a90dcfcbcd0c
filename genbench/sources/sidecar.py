"""Labels and prompts that lie beside the images, in the formats in which people keep them."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genbench.data.arrays import StoredArray, open_npy, open_npz
from genbench.data.members import read_regular
from genbench.errors import DataError, UsageError

What = Literal["labels", "prompts"]
Rows = tuple[list[Any], list[str] | None]
"""Values, and the names that go with them where there are some."""

_COLUMNS: dict[What, tuple[str, ...]] = {
    "labels": ("label", "class", "labels", "cls"),
    "prompts": ("prompt", "caption", "text"),
}
_NAME_COLUMNS = ("name", "file_name", "filename", "file", "path", "image")
_LABEL_KEYS = ("labels", "label", "arr_1", "arr_0")


@dataclass(frozen=True)
class Sidecar:
    """Values for images. names: the image that each belongs to, or None where they are in the images' order.

    where: how errors call it. labels: whole numbers (-1: unlabelled) or names of classes; prompts: texts.
    """

    where: str
    values: list[Any]
    names: list[str] | None = None


def read_labels(given: str | Path | Sequence[Any] | np.ndarray) -> Sidecar:
    """One class (a number or a name) for each image.

    Args:
        given: values themselves, or a file: .npy or .npz (``labels``, ``label``, ``arr_1`` or ``arr_0``); .json (a
            list, an object from name to class, or ``{"labels": ...}`` of a list or of EDM's ``[name, class]``); .jsonl;
            .csv or .tsv with a column ``label`` or ``class`` and maybe one of file names; any other text with one class
            or ``name,class`` a line.

    Raises:
        DataError: unreadable, empty, or entries that are no class; names the file and the entry.
    """
    sidecar = _read(given, "labels")
    numbers = [_as_number(value) for value in sidecar.values]
    if all(number is not None for number in numbers):
        return Sidecar(sidecar.where, numbers, sidecar.names)
    for place, value in enumerate(sidecar.values):
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise DataError(f"{sidecar.where}: entry {place} is {_shown(value)}, expected a class number or name.")
    return Sidecar(sidecar.where, [str(value) for value in sidecar.values], sidecar.names)


def read_prompts(given: str | Path | Sequence[Any]) -> Sidecar:
    """One text for each image.

    Args:
        given: texts themselves, or a file: .csv or .tsv with a column ``prompt``, ``caption`` or ``text`` and maybe one
            of file names; .json (a list, or an object from name to prompt); .jsonl (texts, or objects with the same
            keys); any other text with one prompt a line.

    Raises:
        DataError: unreadable, empty, or entries that are no text; names the file and the entry.
    """
    sidecar = _read(given, "prompts")
    for place, value in enumerate(sidecar.values):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{sidecar.where}: entry {place} is {_shown(value)}, expected a prompt.")
    return sidecar


def _read(given: Any, what: What) -> Sidecar:
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        values, names = _read_file(path, what)
        where = str(path)
    elif isinstance(given, np.ndarray) or hasattr(given, "tolist"):
        where, values, names = what, np.asarray(given).reshape(-1).tolist(), None
    elif isinstance(given, Sequence):
        where, values, names = what, list(given), None
    else:
        raise UsageError(f"{what}: got {type(given).__name__}, expected a file or a list.")
    if not values:
        raise DataError(f"{where}: has no {what}.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: names {twice[0]!r} twice.")
    return Sidecar(where, values, names)


def _read_file(path: Path, what: What) -> Rows:
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz") and what == "labels":
        return _from_array(path, open_npy(path) if suffix == ".npy" else _array_of(path)), None
    try:
        text = read_regular(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}.") from None
    if suffix == ".json":
        return _from_json(str(path), _parsed(str(path), text))
    if suffix == ".jsonl":
        objects = [_parsed(f"{path}: line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
        return _from_objects(str(path), objects, what)
    if suffix in (".csv", ".tsv"):
        return _from_table(str(path), _rows(str(path), text, "\t" if suffix == ".tsv" else ","), what)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n") if text.strip() else []
    if what == "labels" and lines and all("," in line for line in lines):
        return _from_table(str(path), _rows(str(path), text, ","), what)
    return [line if what == "prompts" else line.strip() for line in lines], None


def _array_of(path: Path) -> StoredArray:
    arrays = open_npz(path)
    key = next((key for key in _LABEL_KEYS if key in arrays), None)
    if key is None:
        raise DataError(f"{path}: has {', '.join(arrays) or 'nothing'}; expected one of {', '.join(_LABEL_KEYS)}.")
    return arrays[key]


def _from_array(path: Path, stored: StoredArray) -> list[Any]:
    if stored.dtype.kind not in "iu" or sum(size > 1 for size in stored.shape) > 1:
        raise DataError(f"{path}: is {stored.dtype} of shape {stored.shape}, expected whole numbers (N,).")
    values: list[Any] = stored.load().reshape(-1).tolist()
    return values


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}.") from None


def _from_json(where: str, content: Any) -> Rows:
    if isinstance(content, dict) and isinstance(content.get("labels"), list):
        pairs = content["labels"]
        if all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
            return [pair[1] for pair in pairs], [pair[0] for pair in pairs]
        return pairs, None
        return pairs, None
    if isinstance(content, dict):
        return list(content.values()), list(content)
    if isinstance(content, list):
        return content, None
    raise DataError(f"{where}: is {_shown(content)}, expected a list or an object from name to value.")


def _from_objects(where: str, objects: list[Any], what: What) -> Rows:
    if not any(isinstance(entry, dict) for entry in objects):
        return objects, None
    if not all(isinstance(entry, dict) for entry in objects):
        raise DataError(f"{where}: has objects and other values, expected one kind.")
    column, name = _columns(where, list(objects[0]), what)
    for number, entry in enumerate(objects):
        if column not in entry or (name is not None and not isinstance(entry.get(name), str)):
            raise DataError(f"{where}: object {number} lacks {column}{'' if name is None else f' or a text {name}'}.")
    return [entry[column] for entry in objects], None if name is None else [entry[name] for entry in objects]


def _columns(where: str, found: list[str], what: What) -> tuple[str, str | None]:
    """The columns of the values and of file names."""
    by_lower = {column.strip().lower(): column for column in reversed(found)}
    column = next((by_lower[name] for name in _COLUMNS[what] if name in by_lower), None)
    if column is None:
        raise DataError(f"{where}: has {', '.join(found) or 'nothing'}; expected {' or '.join(_COLUMNS[what])}.")
    return column, next((by_lower[name] for name in _NAME_COLUMNS if name in by_lower), None)


def _rows(where: str, text: str, delimiter: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise DataError(f"{where}: not a table: {error}.") from None


def _from_table(where: str, rows: list[list[str]], what: What) -> Rows:
    """A table with a header, or of labels without one: ``class`` or ``name,class`` a row."""
    if not rows:
        return [], None
    width = len(rows[0])
    wrong = next((number for number, row in enumerate(rows) if len(row) != width), None)
    if wrong is not None:
        raise DataError(f"{where}: row {wrong} has {len(rows[wrong])} cells, the first row {width}.")
    header = [cell.strip().lower() for cell in rows[0]]
    if what == "labels" and not set(header) & set(_COLUMNS[what]):
        if width > 2:
            raise DataError(f"{where}: rows have {width} cells and no header, expected class or name,class.")
        names = [row[0].strip() for row in rows] if width == 2 else None
        return [row[-1].strip() for row in rows], names
    column, name = _columns(where, header, what)
    values = [row[header.index(column)] for row in rows[1:]]
    return values, None if name is None else [row[header.index(name)] for row in rows[1:]]


def _as_number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if (
        isinstance(value, str)
        and value.strip().removeprefix("-").isascii()
        and value.strip().removeprefix("-").isdigit()
    ):
        return int(value) if len(value.strip()) < 20 else None
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
