"""The small CLIP that comes with genbench: images and texts of a packaged dataset in one space, offline.

``scripts/train_clip.py`` trains it on a training split captioned by templates and writes ``weights/<name>.safetensors``
beside ``weights/<name>.json``, a manifest with the weights' SHA-256, the architecture, the vocabulary, how well it does
on the test split and the training command. The network is `open_clip.model.CLIP`: a vision transformer and a causal
text transformer, each projected to embeddings that are compared by their cosine (Radford et al. 2021).

Texts are cut into tokens by open_clip's own byte-pair tokenizer; the few tokens that the captions use have an embedding
of their own, all others share one. Both the tokenizer and the network are imported when the first embedding is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from genbench.errors import DataError
from genbench.features.base import ExtractorOptions, ExtractorStatus, Features, Outputs, extract_in_batches
from genbench.features.packaged import preprocess
from genbench.features.packaged_files import WEIGHTS_FOLDER, PackagedFiles
from genbench.features.precision import arithmetic

if TYPE_CHECKING:
    from open_clip.model import CLIP

PAD, UNKNOWN, START, FIRST_WORD = 0, 1, 2, 3
"""Ids of the small vocabulary; its words follow, and the end mark is the largest, as open_clip's text pooling wants."""
TEXTS_AT_ONCE = 256


class ClipArchitecture(BaseModel):
    """Shape of the two transformers. Images are (C, height, width); heads have `head_width` channels.

    vocabulary: tokens that have an embedding of their own, with their ids in open_clip's tokenizer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: int
    width: int
    patch_size: int
    embed_dim: int
    vision_width: int
    vision_layers: int
    text_width: int
    text_layers: int
    head_width: int
    context_length: int
    vocabulary: dict[str, int]

    @property
    def end(self) -> int:
        """Id of the end mark."""
        return FIRST_WORD + len(self.vocabulary)


class ClipTraining(BaseModel):
    """How the weights were made, and how they do. The test split had no say in any choice.

    Accuracies are zero-shot, shares of images, with the prompt ``a photo of a {}.``. retrieval_precision: of the test
    images, ranked by their cosine with a class's prompt, the share of that class among as many as it has; mean over the
    classes. own_cosine, noise_cosine: mean cosine of test images with their prompt, of uniform noise with all prompts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str
    dataset: str
    dataset_fingerprint: str
    epochs: int
    best_epoch: int
    validation_accuracy: float
    test_accuracy: float
    test_images: int
    retrieval_precision: float
    own_cosine: float
    noise_cosine: float


class ClipManifest(BaseModel):
    """The JSON file beside the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    architecture: ClipArchitecture
    preprocessing: str
    logit_scale: float
    training: ClipTraining


def build_clip(architecture: ClipArchitecture) -> CLIP:
    """The open_clip network with initial weights."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    a = architecture
    vision = CLIPVisionCfg(
        image_size=(a.height, a.width),
        patch_size=a.patch_size,
        width=a.vision_width,
        layers=a.vision_layers,
        head_width=a.head_width,
    )
    text = CLIPTextCfg(
        context_length=a.context_length,
        vocab_size=a.end + 1,
        width=a.text_width,
        heads=a.text_width // a.head_width,
        layers=a.text_layers,
    )
    return CLIP(a.embed_dim, vision, text)


def to_pixels(images: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) uint8 to (B, 3, H, W) float32 in [-1, 1]; grey goes into all three channels."""
    return preprocess(images).expand(-1, 3, -1, -1)


def to_tokens(texts: Sequence[str], architecture: ClipArchitecture) -> Tensor:
    """N texts to (N, context_length) int64 ids of the small vocabulary; longer texts are cut, the end mark stays."""
    from open_clip import tokenize

    length = architecture.context_length
    theirs = tokenize(list(texts), context_length=length).numpy()
    start, end = tokenize("", context_length=2)[0].tolist()
    known = {start: START, end: architecture.end, PAD: PAD}
    known |= {theirs_id: FIRST_WORD + i for i, theirs_id in enumerate(architecture.vocabulary.values())}
    values, inverse = np.unique(theirs, return_inverse=True)
    ours = np.array([known.get(int(value), UNKNOWN) for value in values])
    return torch.from_numpy(ours[inverse].reshape(theirs.shape))


class PackagedClip:
    """A packaged CLIP with checked weights: an `ImageTextModel`, and an extractor of image embeddings."""

    def __init__(
        self, manifest: ClipManifest, files: PackagedFiles[ClipManifest], device: str, batch_size: int
    ) -> None:
        self.name = manifest.name
        self.manifest = manifest
        self.notes: tuple[str, ...] = ()
        self.input_size: int | None = None
        self.context_length = manifest.architecture.context_length
        self.logit_scale = manifest.logit_scale
        self._files, self._device, self._batch_size = files, device, batch_size

    @property
    def identity(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "weights_sha256": self.manifest.sha256,
            "preprocessing": self.manifest.preprocessing,
            "tokenizer": f"open_clip BPE, {len(self.manifest.architecture.vocabulary)} known tokens, "
            f"context {self.context_length}",
        }

    @cached_property
    def _network(self) -> CLIP:
        network = build_clip(self.manifest.architecture)
        try:
            network.load_state_dict(load_file(self._files.weights))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise DataError(
                f"{self._files.weights}: does not fit its manifest: {error}. {self._files.repair}"
            ) from None
        return network.eval().requires_grad_(False).to(self._device)

    def extract(self, images: np.ndarray) -> Features:
        """(N, 1 or 3, H, W) uint8 of the size that the network was trained on, to embeddings; no logits.

        Raises:
            DataError: images of another size.
        """
        a = self.manifest.architecture
        if images.ndim == 4 and (images.shape[1] not in (1, 3) or images.shape[2:] != (a.height, a.width)):
            raise DataError(
                f"'{self.name}' takes images of (C, H, W) = (1 or 3, {a.height}, {a.width}), got "
                f"{tuple(images.shape[1:])}. Choose an image-text model for this size, such as clip:ViT-B-32."
            )
        network = self._network

        def forward(batch: Tensor) -> Outputs:
            return Outputs(network.encode_image(to_pixels(batch)))

        with arithmetic("float32"):
            return extract_in_batches(forward, images, self._device, self._batch_size)

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """Embeddings (N, d) float32; takes and raises what `extract` does."""
        return self.extract(images).features

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts to (N, d) float32.

        Raises:
            DataError: no text at all.
        """
        if not texts:
            raise DataError(f"'{self.name}' was given no text to embed.")
        tokens = to_tokens(texts, self.manifest.architecture)
        with torch.inference_mode(), arithmetic("float32"):
            parts = [
                self._network.encode_text(tokens[start : start + TEXTS_AT_ONCE].to(self._device)).cpu().numpy()
                for start in range(0, len(tokens), TEXTS_AT_ONCE)
            ]
        return np.concatenate(parts)


@dataclass(frozen=True)
class PackagedClipSource:
    """The weights of one packaged CLIP in ``folder``: a source of extractors and of image-text models."""

    name: str
    folder: Path = WEIGHTS_FOLDER

    @property
    def files(self) -> PackagedFiles[ClipManifest]:
        return PackagedFiles(self.name, self.folder, ClipManifest, "train_clip.py")

    def load(self, options: ExtractorOptions) -> PackagedClip:
        """Check the weights; they are read, and open_clip is imported, with the first embedding.

        Raises:
            UsageError: an argument, weights, or a precision other than float32.
            DataError: weights that are missing or damaged.
        """
        self.files.check_options(options)
        return PackagedClip(self.files.manifest(), self.files, options.device, options.batch_size)

    load_image_text = load

    def status(self) -> ExtractorStatus:
        """Check the manifest and the hash."""
        try:
            manifest = self.files.manifest()
        except DataError as error:
            return ExtractorStatus(self.name, False, str(error))
        t = manifest.training
        detail = f"packaged, SHA-256 {manifest.sha256[:12]}, zero-shot {100 * t.test_accuracy:.2f} % on {t.dataset}"
        return ExtractorStatus(self.name, True, detail)


DIGITS_CLIP = PackagedClipSource("digits-clip")
