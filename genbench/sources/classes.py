"""Labels as files have them to label k of class ``class_names[k]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from genbench.data.labels import index_labels
from genbench.errors import DataError

MAX_CLASSES = 100_000

Key = TypeVar("Key")


def number_names(labels: np.ndarray | Sequence[int], where: str) -> tuple[str, ...]:
    """Names of classes that are whole numbers: 0, 1, ... up to the largest; -1 stands for unlabelled.

    Raises:
        DataError: a number that can be no class.
    """
    values = np.asarray(labels)
    largest = int(values.max(initial=-1))
    if largest >= MAX_CLASSES:
        raise DataError(f"{where}: a label is {largest}, expected class numbers from 0 to {MAX_CLASSES - 1}.")
    return tuple(str(number) for number in range(largest + 1))


def known(label: int) -> int | None:
    """A label as a reader found it; negative numbers stand for unlabelled."""
    return label if label >= 0 else None


def resolve(classes: Mapping[Key, str | int], where: str) -> tuple[dict[Key, int], tuple[str, ...]]:
    """Classes by file, all names or all numbers, to labels by file and the names of the classes.

    Raises:
        DataError: a number that can be no class.
    """
    values = list(classes.values())
    if all(isinstance(value, int) for value in values):
        numbers = {key: int(value) for key, value in classes.items()}
        return numbers, number_names(list(numbers.values()), where)
    index, names = index_labels([str(value) for value in values])
    return dict(zip(classes, index.tolist())), names
