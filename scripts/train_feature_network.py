"""Train a packaged feature network on a dataset's training split.

    python scripts/train_feature_network.py --dataset digits --out genbench/features/weights

writes ``digits-cnn.safetensors`` and its manifest ``digits-cnn.json``. The validation split chooses the epoch; the test
split is looked at once, at the end, for the accuracy that the manifest reports.

A classifier's features collapse to one point a class: a Fréchet distance between them would compare class proportions
and little else. So the features must also rebuild the image through a linear decoder, which is thrown away afterwards.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.data import load_dataset
from genbench.data.base import ImageDataset, Splits
from genbench.errors import DataError
from genbench.features.packaged import (
    PREPROCESSING,
    Architecture,
    Manifest,
    PackagedNetwork,
    TrainingReport,
    preprocess,
)
from genbench.files import atomic_path, hash_file, write_json


@dataclass(frozen=True)
class Settings:
    """Size, budget and augmentation. rotation in degrees, shift in pixels, scale and shear as shares.

    reconstruction: weight of the decoder's mean squared error, images in [-1, 1].
    """

    widths: tuple[int, ...]
    epochs: int
    batch_size: int
    learning_rate: float
    blocks: int = 1
    rotation: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    noise: float = 0.0
    flip: bool = False
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    reconstruction: float = 10.0


SETTINGS = {
    "digits": Settings((32, 64), 30, 32, 4e-3, rotation=10, shift=1, scale=0.1, shear=0.1, noise=0.1),
    "mnist": Settings((16, 32, 128), 4, 128, 5e-3, rotation=10, shift=2, scale=0.1, shear=0.1, noise=0.05),
    "cifar10": Settings((16, 32, 128), 7, 128, 6e-3, shift=3, flip=True, reconstruction=1.0),
}


def augment(x: Tensor, settings: Settings, rng: torch.Generator) -> Tensor:
    """A random affine map, mirror and noise for each image; what comes in from outside repeats the border."""
    batch, _, height, width = x.shape

    def symmetric(limit: float) -> Tensor:
        return (2 * torch.rand(batch, generator=rng) - 1) * limit

    angle = symmetric(math.radians(settings.rotation))
    scale = 1 + symmetric(settings.scale)
    shear = symmetric(settings.shear)
    mirror = torch.where(torch.rand(batch, generator=rng) < 0.5, -1.0, 1.0) if settings.flip else torch.ones(batch)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = mirror * scale * angle.cos()
    theta[:, 0, 1] = -angle.sin() + shear
    theta[:, 1, 0] = angle.sin()
    theta[:, 1, 1] = scale * angle.cos()
    whole_pixels = settings.rotation == 0
    for row, size in ((0, width), (1, height)):
        shift = symmetric(settings.shift + 0.5 * whole_pixels)
        theta[:, row, 2] = (shift.round() if whole_pixels else shift) * 2 / size
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    return moved + settings.noise * torch.randn(x.shape, generator=rng)


def accuracy(network: PackagedNetwork, dataset: ImageDataset) -> float:
    """Share of images whose class is predicted."""
    network.eval()
    batch = dataset.batch()
    assert batch.labels is not None
    with torch.inference_mode():
        predicted = torch.cat([network(preprocess(x))[1].argmax(1) for x in batch.images.split(256)])
    return float((predicted == batch.labels).double().mean())


def train(splits: Splits, settings: Settings, seed: int) -> tuple[PackagedNetwork, int]:
    """Train with AdamW and a one-cycle schedule; returns the network of the best validation epoch, and that epoch."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    network = PackagedNetwork(architecture(splits, settings))
    data = splits.train.batch()
    assert data.labels is not None
    steps = len(data) // settings.batch_size
    decoder = nn.Linear(settings.widths[-1], splits.spec.dims)
    parameters = [*network.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs, pct_start=0.25
    )
    best, best_epoch, best_state = -1.0, 0, network.state_dict()
    for epoch in range(1, settings.epochs + 1):
        network.train()
        order = torch.randperm(len(data), generator=rng)[: steps * settings.batch_size]
        for index in order.split(settings.batch_size):
            x = augment(preprocess(data.images[index]), settings, rng)
            features, logits = network(x)
            loss = F.cross_entropy(logits, data.labels[index], label_smoothing=settings.label_smoothing)
            loss = loss + settings.reconstruction * F.mse_loss(decoder(features), x.flatten(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        score = accuracy(network, splits.validation)
        print(f"epoch {epoch:3d}  loss {loss.item():.4f}  validation {100 * score:.2f} %", flush=True)
        if score >= best:
            best, best_epoch = score, epoch
            best_state = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(best_state)
    return network, best_epoch


def architecture(splits: Splits, settings: Settings) -> Architecture:
    """The network's shape for this dataset."""
    channels, height, width = splits.spec.shape
    return Architecture(
        channels=channels,
        height=height,
        width=width,
        num_classes=splits.spec.num_classes,
        widths=settings.widths,
        blocks=settings.blocks,
    )


def main() -> None:
    """Read the command line, train, write weights and manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, choices=sorted(SETTINGS), help="whose network to train")
    parser.add_argument("--dataset-spec", help="where its images are, e.g. parquet:DIR (default: the dataset's name)")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and manifest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = SETTINGS[arguments.dataset]
    splits = load_dataset(arguments.dataset_spec or arguments.dataset)
    if splits.train.labels is None:
        raise DataError(f"{splits.name}: a feature network needs labels; this dataset has none.")

    started = time.process_time()
    network, best_epoch = train(splits, settings, arguments.seed)
    seconds = time.process_time() - started
    name = f"{arguments.dataset}-cnn"
    weights = arguments.out / f"{name}.safetensors"
    with atomic_path(weights) as temporary:
        save_file(network.state_dict(), temporary)
    given = arguments.dataset_spec
    spec = f" --dataset-spec {given.partition(':')[0]}:{splits.name}" if given else ""
    manifest = Manifest(
        name=name,
        sha256=hash_file(weights),
        architecture=architecture(splits, settings),
        preprocessing=PREPROCESSING,
        training=TrainingReport(
            command=f"scripts/train_feature_network.py --dataset {arguments.dataset}{spec} --seed {arguments.seed}",
            dataset=splits.name,
            dataset_fingerprint=splits.fingerprint,
            epochs=settings.epochs,
            best_epoch=best_epoch,
            validation_accuracy=accuracy(network, splits.validation),
            test_accuracy=accuracy(network, splits.test),
            test_images=len(splits.test),
        ),
    )
    write_json(arguments.out / f"{name}.json", manifest.model_dump(mode="json"))
    size = weights.stat().st_size / 2**20
    print(
        f"{weights}: {size:.2f} MiB, test accuracy {100 * manifest.training.test_accuracy:.2f} %, {seconds:.0f} CPU s"
    )


if __name__ == "__main__":
    main()
