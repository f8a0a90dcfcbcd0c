"""Publish a run's checkpoints: copy them beside the models' sources, where `genbench sample MODEL` finds them.

    python scripts/publish_weights.py runs/digits

Only registered models are published, in the run's seed 0, each file at most 4 MiB.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from genbench import registry
from genbench.checkpoint import MANIFEST, WEIGHTS, load_checkpoint
from genbench.published import published_folder

LARGEST_BYTES = 4 * 2**20


def publish(run: Path) -> list[Path]:
    """Copy every checkpoint of ``run`` whose model is registered; returns the folders written."""
    written = []
    for name in registry.names("models"):
        source = run / "checkpoints" / f"{name}-s0"
        if not (source / MANIFEST).is_file():
            continue
        _, manifest = load_checkpoint(source)
        if (source / WEIGHTS).stat().st_size > LARGEST_BYTES:
            print(f"{name}: {WEIGHTS} is over {LARGEST_BYTES // 2**20} MiB; not published")
            continue
        target = published_folder(registry.load_model(name), manifest.suite)
        target.mkdir(parents=True, exist_ok=True)
        for part in (WEIGHTS, MANIFEST):
            shutil.copyfile(source / part, target / part)
        written.append(target)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    for folder in publish(parser.parse_args().run):
        print(folder)
