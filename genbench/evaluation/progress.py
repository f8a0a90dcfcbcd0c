"""How far an evaluation is: a stage, how many images of it are done, and how many there are where that is known."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, images done, images in all or None)."""


def silent(stage: str, done: int, total: int | None) -> None:
    """Report nothing."""


class Report:
    """Adds up the images of one stage."""

    def __init__(self, progress: Progress, stage: str, total: int | None) -> None:
        self._progress, self._stage, self._total, self._done = progress, stage, total, 0
        progress(stage, 0, total)

    def __call__(self, images: int) -> None:
        """``images`` more are done."""
        self._done += images
        self._progress(self._stage, self._done, self._total)
