"""Publish a run's checkpoints: copy them beside the models' sources, where `genbench sample MODEL` finds them.

    python scripts/publish_weights.py runs/digits
    python scripts/publish_weights.py runs/mnist-binary --models made,nade --half made,nade

Only registered models are published, in the run's seed 0, each file at most 5 MiB. ``--half`` stores floating-point
weights in 16 bits; they are read back as 32. Score them before and after (`genbench run --from-published`): it must
cost nothing.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from genbench import registry
from genbench.checkpoint import MANIFEST, WEIGHTS, load_checkpoint, load_tensors, read_manifest, save_tensors
from genbench.files import hash_file, write_json
from genbench.published import published_folder

LARGEST_BYTES = 5 * 2**20


def store(source: Path, target: Path, half: bool) -> None:
    """Copy weights and manifest, the weights in half precision where asked."""
    target.mkdir(parents=True, exist_ok=True)
    if not half:
        for part in (WEIGHTS, MANIFEST):
            shutil.copyfile(source / part, target / part)
        return
    tensors, metadata = load_tensors(source / WEIGHTS)
    small = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    save_tensors(target / WEIGHTS, small, metadata)
    manifest = read_manifest(source).model_copy(update={"weights_sha256": hash_file(target / WEIGHTS)})
    write_json(target / MANIFEST, manifest.model_dump(mode="json"))


def publish(run: Path, models: set[str], half: set[str]) -> list[Path]:
    """Copy the checkpoints of ``run`` whose model is registered (and among ``models``, where there are any).

    Returns the folders written.
    """
    written = []
    for name in registry.names("models"):
        if models and name not in models:
            continue
        source = run / "checkpoints" / f"{name}-s0"
        if not (source / MANIFEST).is_file():
            continue
        _, manifest = load_checkpoint(source)
        target = published_folder(registry.load_model(name), manifest.suite)
        size = (source / WEIGHTS).stat().st_size // (2 if name in half else 1)
        if size > LARGEST_BYTES:
            print(f"{name}: {WEIGHTS} is over {LARGEST_BYTES // 2**20} MiB; not published")
            continue
        store(source, target, name in half)
        written.append(target)
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--models", default="", help="names, with commas between; all by default")
    parser.add_argument("--half", default="", help="names of models to store in half precision")
    given = parser.parse_args()
    chosen, halved = ({name for name in text.split(",") if name} for text in (given.models, given.half))
    for folder in publish(given.run, chosen, halved):
        print(folder)
