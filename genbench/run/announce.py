"""What a run says before it starts, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from genbench import __version__
from genbench.data.base import Splits
from genbench.features import extractor_status, load_extractor
from genbench.suite import Row, Suite


def announce(suite: Suite, rows: Sequence[Row], device: torch.device, root: Path, dataset: str | None) -> None:
    """Say what is about to run, and what it takes; with another ``dataset`` than the suite's that is not known."""
    print(
        f"genbench {__version__}: suite '{suite.name}', {len(rows)} rows, device {device}, folder {root}",
        file=sys.stderr,
    )
    if suite.requirements and device.type == "cpu" and dataset is None:
        print(f"No GPU is used. {suite.requirements}", file=sys.stderr)


def with_extractor(suite: Suite) -> Suite:
    """The suite with an extractor that is here: its own, its fallback, or none; says so where it is not its own.

    Raises:
        DataError: weights that are here and damaged.
    """
    if suite.extractor is None:
        return suite
    status = extractor_status(suite.extractor)
    if status.available:
        load_extractor(suite.extractor)
        return suite
    print(f"{suite.extractor} is not here. {status.detail}", file=sys.stderr)
    if suite.fallback_extractor is None:
        print("Metrics that need features will be marked as not applicable.", file=sys.stderr)
        return suite
    print(f"Features are those of {suite.fallback_extractor} instead, and every number says so.", file=sys.stderr)
    return suite.model_copy(update={"extractor": suite.fallback_extractor, "fallback_extractor": None})


def announce_image_text(suite: Suite) -> None:
    """Say so where the image-text model is not here."""
    if suite.image_text is None:
        return
    status = extractor_status(suite.image_text.partition(":")[0])
    if not status.available:
        print(f"{suite.image_text} is not here. {status.detail}", file=sys.stderr)
        print("Metrics of images and texts will be marked as not applicable.", file=sys.stderr)


def announce_grey_values(splits: Splits) -> bool:
    """Whether the training images have grey values that they were drawn from; says so where binary ones have none."""
    found = splits.train.intensities is not None
    if splits.spec.levels == 2 and not found:
        print(
            "The dataset has no grey values: models learn from its binary images as they are, without "
            "dynamic_binarisation.",
            file=sys.stderr,
        )
    return found
