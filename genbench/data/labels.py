"""Labels as readers find them to class indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def index_labels(values: Sequence[str | int] | np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class names or numbers, (N,), to ((N,) int64 indices into the sorted classes, the classes as text)."""
    classes, index = np.unique(np.asarray(values), return_inverse=True)
    return index.astype(np.int64), tuple(str(value) for value in classes)
