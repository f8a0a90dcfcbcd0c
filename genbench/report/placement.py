"""Where the labels of a scatter plot go, so that they cover neither points nor one another."""

from __future__ import annotations

from collections.abc import Sequence

PLOT = (235, 290)
"""Width and height in pixels of the smallest plot, that of a phone; what is free there is free on larger screens."""
LETTER, LINE, MARKER = 7.0, 14.0, 9.0

Box = tuple[float, float, float, float]


def place(points: Sequence[tuple[float, float]], names: Sequence[str]) -> list[str]:
    """Positions (``"middle right"``, ``"middle left"``, ``"top center"``, ``"bottom center"``) of the labels.

    points: (x, y) as shares of the plot's width and height, y upwards. Each label in turn takes the position with the
    least overlap, the earlier one where several are free.
    """
    pixels = [(x * PLOT[0], y * PLOT[1]) for x, y in points]
    taken: list[Box] = [(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in pixels]
    chosen = []
    for i, ((x, y), name) in enumerate(zip(pixels, names, strict=True)):
        boxes = _candidates(x, y, len(name) * LETTER)
        others = taken[:i] + taken[i + 1 :]
        position = min(boxes, key=lambda p: _outside(boxes[p]) + sum(_overlap(boxes[p], box) for box in others))
        chosen.append(position)
        taken.append(boxes[position])
    return chosen


def _candidates(x: float, y: float, width: float) -> dict[str, Box]:
    half = LINE / 2
    return {
        "middle right": (x + MARKER, y - half, x + MARKER + width, y + half),
        "middle left": (x - MARKER - width, y - half, x - MARKER, y + half),
        "top center": (x - width / 2, y + MARKER, x + width / 2, y + MARKER + LINE),
        "bottom center": (x - width / 2, y - MARKER - LINE, x + width / 2, y - MARKER),
    }


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Box) -> float:
    area = (box[2] - box[0]) * (box[3] - box[1])
    return area - _overlap(box, (0.0, 0.0, *PLOT))
