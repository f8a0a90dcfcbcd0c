"""Train a packaged CLIP on a dataset's training split, captioned by templates.

    python scripts/train_clip.py --dataset digits --out genbench/features/weights

writes ``digits-clip.safetensors`` and its manifest ``digits-clip.json``. The validation split chooses the epoch; the
test split is looked at once, at the end, for the figures that the manifest reports.

Every image gets a caption drawn anew in every epoch: a template with the digit as word or numeral. Captions of one
class are all right for its images, so the contrastive loss spreads its target over them (UniCL, Yang et al. 2022). Each
batch also has pictures of nothing, captioned as noise, so that noise ends far from every digit. Words that say neither
digit nor noise are replaced by the unknown token now and then, and unknown tokens are put in, so that other phrasings
do little harm. The image embeddings must also rebuild the image through a linear decoder, thrown away afterwards, lest
they collapse to one point a class.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip import decode, tokenize
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from train_feature_network import SETTINGS as AUGMENTATION
from train_feature_network import augment

from genbench.data import load_dataset
from genbench.data.base import ImageDataset, Splits
from genbench.errors import DataError
from genbench.features.packaged import PREPROCESSING, preprocess
from genbench.features.packaged_clip import (
    UNKNOWN,
    ClipArchitecture,
    ClipManifest,
    ClipTraining,
    build_clip,
    to_tokens,
)
from genbench.files import atomic_path, hash_file, write_json

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "{}",
    "a {}",
    "a {}.",
    "the digit {}",
    "the number {}",
    "the numeral {}.",
    "a photo of a {}.",
    "a photo of the digit {}",
    "an image of a {}",
    "an image of the number {}.",
    "a picture of the numeral {}",
    "a drawing of a {}",
    "a scan of the digit {}.",
    "a handwritten {}",
    "a handwritten digit {}",
    "the handwritten digit {}",
    "a small handwritten {}.",
)
NOISE_CAPTIONS = ("noise", "random noise", "an image of noise", "a photo of noise.", "a random pattern", "no digit")
PREFIXES = ("", "", "", "A photo depicts ")
ZERO_SHOT = "a photo of a {}."


@dataclass(frozen=True)
class Settings:
    """Size and budget. noise_share: pictures of nothing for each image of a batch. unknown: how often a word is lost.

    inserted: up to so many unknown tokens are put in, in half of the captions.
    reconstruction: weight of the decoder's mean squared error, images in [-1, 1].
    """

    patch_size: int = 2
    embed_dim: int = 64
    width: int = 64
    vision_layers: int = 3
    text_layers: int = 1
    head_width: int = 16
    context_length: int = 32
    epochs: int = 250
    batch_size: int = 100
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    noise_share: float = 0.2
    unknown: float = 0.1
    inserted: int = 6
    reconstruction: float = 1.0


class Captions:
    """Tokens of random captions, drawn with one generator. Class `num_classes` is noise."""

    def __init__(self, architecture: ClipArchitecture, settings: Settings, rng: torch.Generator) -> None:
        self.settings, self.rng, self.end = settings, rng, architecture.end
        texts = [[t.format(name) for t in TEMPLATES for name in (word, str(k))] for k, word in enumerate(WORDS)]
        self.tokens = []
        for group in [*texts, list(NOISE_CAPTIONS)]:
            every = [prefix + text for prefix in PREFIXES for text in group]
            self.tokens.append(to_tokens(every, architecture))
        meaning = [*WORDS, *map(str, range(len(WORDS))), "noise", "random", "no", "pattern"]
        self.kept = set(to_tokens(meaning, architecture)[:, 1].tolist())

    def draw(self, classes: Tensor) -> Tensor:
        """(B,) classes to (B, context) tokens."""
        return torch.stack([self._one(self.tokens[int(c)]) for c in classes])

    def _one(self, choices: Tensor) -> Tensor:
        tokens = choices[int(torch.randint(len(choices), (), generator=self.rng))].tolist()
        words = tokens[1 : tokens.index(self.end)]
        lost = torch.rand(len(words), generator=self.rng) < self.settings.unknown
        words = [UNKNOWN if gone and word not in self.kept else word for word, gone in zip(words, lost.tolist())]
        count = int(torch.randint(-self.settings.inserted, self.settings.inserted + 1, (), generator=self.rng))
        for _ in range(max(0, count)):
            words.insert(int(torch.randint(len(words) + 1, (), generator=self.rng)), UNKNOWN)
        row = torch.zeros(len(choices[0]), dtype=torch.int64)
        row[: len(words) + 2] = torch.tensor([tokens[0], *words, self.end])
        return row


def architecture(splits: Splits, settings: Settings) -> ClipArchitecture:
    """The network's shape, with the tokens of all captions as its vocabulary."""
    texts = [p + t.format(n) for p in PREFIXES for t in TEMPLATES for n in (*WORDS, *map(str, range(10)))]
    texts += [prefix + caption for prefix in PREFIXES for caption in NOISE_CAPTIONS]
    start, end = tokenize("", context_length=2)[0].tolist()
    used = sorted(set(tokenize(texts, context_length=settings.context_length).unique().tolist()) - {0, start, end})
    vocabulary = {decode(torch.tensor([token])): token for token in used}
    _, height, width = splits.spec.shape
    return ClipArchitecture(
        height=height,
        width=width,
        patch_size=settings.patch_size,
        embed_dim=settings.embed_dim,
        vision_width=settings.width,
        vision_layers=settings.vision_layers,
        text_width=settings.width,
        text_layers=settings.text_layers,
        head_width=settings.head_width,
        context_length=settings.context_length,
        vocabulary=vocabulary,
    )


def pictures_of_nothing(x: Tensor, count: int, levels: int, rng: torch.Generator) -> Tensor:
    """(count, C, H, W): half uniform noise on the levels, half with every pixel from another image of ``x``."""
    half = count // 2
    uniform = torch.randint(levels, (half, *x.shape[1:]), generator=rng).float() * (2.0 / (levels - 1)) - 1.0
    pixels = x[0].numel()
    chosen = torch.randint(len(x), (count - half, pixels), generator=rng)
    mixed = x.flatten(1)[chosen, torch.arange(pixels)].reshape(-1, *x.shape[1:])
    return torch.cat((uniform, mixed))


def contrastive_loss(network: CLIP, images: Tensor, texts: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of each image's softmax over texts, and the reverse, against all pairs of one class."""
    logits = network.logit_scale.exp() * F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T
    same = (classes[:, None] == classes).float()
    target = same / same.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


@torch.no_grad()
def class_cosines(network: CLIP, shape: ClipArchitecture, x: Tensor, template: str = ZERO_SHOT) -> Tensor:
    """(N, classes): cosines of images in [-1, 1] with the prompts of the numerals."""
    network.eval()
    prompts = to_tokens([template.format(k) for k in range(len(WORDS))], shape)
    texts = F.normalize(network.encode_text(prompts), dim=-1)
    images = torch.cat([network.encode_image(part.expand(-1, 3, -1, -1)) for part in x.split(256)])
    return F.normalize(images, dim=-1) @ texts.T


@torch.no_grad()
def accuracy_and_loss(network: CLIP, shape: ClipArchitecture, dataset: ImageDataset) -> tuple[float, float]:
    """Zero-shot accuracy, and cross-entropy over the classes."""
    batch = dataset.batch()
    assert batch.labels is not None
    cosines = class_cosines(network, shape, preprocess(batch.images))
    loss = F.cross_entropy(network.logit_scale.exp() * cosines, batch.labels)
    return float((cosines.argmax(1) == batch.labels).double().mean()), float(loss)


def train(splits: Splits, settings: Settings, seed: int) -> tuple[CLIP, ClipArchitecture, int]:
    """Train with AdamW and a one-cycle schedule; returns the network of the best validation epoch, and that epoch."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    shape = architecture(splits, settings)
    network, captions = build_clip(shape), Captions(shape, settings, rng)
    data = splits.train.batch()
    assert data.labels is not None
    steps, nothing = len(data) // settings.batch_size, round(settings.noise_share * settings.batch_size)
    decoder = nn.Linear(settings.embed_dim, splits.spec.dims)
    parameters = [*network.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps * settings.epochs, pct_start=0.15
    )
    best, best_epoch, best_state = (-1.0, 0.0), 0, network.state_dict()
    for epoch in range(1, settings.epochs + 1):
        network.train()
        order = torch.randperm(len(data), generator=rng)[: steps * settings.batch_size]
        for index in order.split(settings.batch_size):
            clean = preprocess(data.images[index])
            digits = augment(clean, AUGMENTATION["digits"], rng)
            x = torch.cat((digits, pictures_of_nothing(clean, nothing, splits.spec.levels, rng)))
            classes = torch.cat((data.labels[index], torch.full((nothing,), len(WORDS))))
            embedded = network.encode_image(x.expand(-1, 3, -1, -1))
            loss = contrastive_loss(network, embedded, network.encode_text(captions.draw(classes)), classes)
            rebuilt = decoder(embedded[: len(index)])
            loss = loss + settings.reconstruction * F.mse_loss(rebuilt, digits.flatten(1))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            network.logit_scale.data.clamp_(0.0, math.log(100.0))
        accuracy, held_out = accuracy_and_loss(network, shape, splits.validation)
        figures = f"loss {loss.item():.4f}  validation {100 * accuracy:.2f} %, loss {held_out:.4f}"
        print(f"epoch {epoch:3d}  {figures}", flush=True)
        if (accuracy, -held_out) >= best:
            best, best_epoch = (accuracy, -held_out), epoch
            best_state = {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(best_state)
    return network, shape, best_epoch


@torch.no_grad()
def retrieval_precision(cosines: Tensor, labels: Tensor) -> float:
    """Mean over classes of the share of a class among the n images nearest to its prompt, n its number of images."""
    shares = []
    for k in range(cosines.shape[1]):
        count = int((labels == k).sum())
        shares.append(float((labels[cosines[:, k].topk(count).indices] == k).double().mean()))
    return sum(shares) / len(shares)


def report(network: CLIP, shape: ClipArchitecture, splits: Splits, seed: int) -> dict[str, float | int]:
    """The figures of the manifest on validation and test split."""
    test = splits.test.batch()
    assert test.labels is not None
    cosines = class_cosines(network, shape, preprocess(test.images))
    rng = torch.Generator().manual_seed(seed)
    levels = splits.spec.levels
    noise = torch.randint(levels, test.images.shape, generator=rng).float() * (2.0 / (levels - 1)) - 1.0
    return {
        "validation_accuracy": accuracy_and_loss(network, shape, splits.validation)[0],
        "test_accuracy": float((cosines.argmax(1) == test.labels).double().mean()),
        "test_images": len(test),
        "retrieval_precision": retrieval_precision(cosines, test.labels),
        "own_cosine": float(cosines.gather(1, test.labels[:, None]).mean()),
        "noise_cosine": float(class_cosines(network, shape, noise).mean()),
    }


def main() -> None:
    """Read the command line, train, write weights and manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, choices=["digits"], help="whose network to train")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and manifest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = Settings()
    splits = load_dataset(arguments.dataset)
    if splits.train.labels is None:
        raise DataError(f"{splits.name}: captions are made of labels; this dataset has none.")

    started = time.process_time()
    network, shape, best_epoch = train(splits, settings, arguments.seed)
    seconds = time.process_time() - started
    name = f"{arguments.dataset}-clip"
    weights = arguments.out / f"{name}.safetensors"
    with atomic_path(weights) as temporary:
        save_file(network.state_dict(), temporary)
    training = ClipTraining(
        command=f"scripts/train_clip.py --dataset {arguments.dataset} --seed {arguments.seed}",
        dataset=splits.name,
        dataset_fingerprint=splits.fingerprint,
        epochs=settings.epochs,
        best_epoch=best_epoch,
        **report(network, shape, splits, arguments.seed),  # type: ignore[arg-type]
    )
    manifest = ClipManifest(
        name=name,
        sha256=hash_file(weights),
        architecture=shape,
        preprocessing=PREPROCESSING,
        logit_scale=float(network.logit_scale.detach().exp()),
        training=training,
    )
    write_json(arguments.out / f"{name}.json", manifest.model_dump(mode="json"))
    print(f"{weights}: {weights.stat().st_size / 2**20:.2f} MiB, {seconds:.0f} CPU s")
    print(training)


if __name__ == "__main__":
    main()
