"""CLIP (Radford et al. 2021, arXiv:2103.00020) and its relatives, through open_clip.

``clip:MODEL[/PRETRAINED]``, names as in ``open_clip.list_pretrained()``: ``clip:ViT-B-32`` is OpenAI's, the tag that
is meant where none is given. OpenAI's files come from genbench's own store; for other tags give the file with
``--weights``. Preprocessing is open_clip's for the weights: Pillow bicubic of the shorter side, centre crop, mean and
standard deviation of the channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.errors import DataError, UsageError, unknown
from genbench.features.base import ExtractorOptions, ExtractorStatus, Outputs
from genbench.features.network import NetworkExtractor
from genbench.features.pillow_input import PillowInput
from genbench.features.precision import check_precision, computing
from genbench.weights import LocatedWeights, WeightsEntry, by_url, locate
from genbench.weights.tensors import load_into, read_tensors

DEFAULT = "ViT-B-32"
OPENAI = "openai"
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's files hold beside the weights."""


class ClipExtractor(NetworkExtractor):
    """An open_clip model with loaded weights: image features for any metric, and texts for those that ask for them."""

    def __init__(
        self,
        name: str,
        model: Any,
        prepare: PillowInput,
        tokenizer: Any,
        weights: LocatedWeights,
        options: ExtractorOptions,
    ) -> None:
        super().__init__(name, weights.sha256, prepare.describe(), options, weights.note, prepare.side)
        self.context_length = int(tokenizer.context_length)
        self._model = model.eval().requires_grad_(False).to(options.device)
        self.logit_scale = float(self._model.logit_scale.detach().exp())
        self._prepare = prepare
        self._tokenizer = tokenizer

    @property
    def identity(self) -> dict[str, Any]:
        tokenizer = f"{type(self._tokenizer).__name__}, {self.context_length} tokens"
        return {**super().identity, "tokenizer": tokenizer}

    def encode_images(self, images: np.ndarray) -> np.ndarray:
        """The features of `extract` alone."""
        return self.extract(images).features

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """N texts to (N, d) float32, not normalised; tokens beyond the context are cut off.

        Raises:
            DataError: no text at all.
        """
        if not texts:
            raise DataError(f"Extractor '{self.name}' got no text to embed.")
        tokens = self._tokenizer(list(texts), context_length=self.context_length)
        parts = []
        with torch.inference_mode(), computing(self.options.precision, self.options.device):
            for start in range(0, len(tokens), self.options.batch_size):
                block = tokens[start : start + self.options.batch_size].to(self.options.device)
                parts.append(self._model.encode_text(block).float().cpu().numpy())
        return np.concatenate(parts)

    def forward(self, images: Tensor) -> Outputs:
        """Projected embeddings, not normalised."""
        return Outputs(self._model.encode_image(self._prepare(images)))


@dataclass(frozen=True)
class ClipSource:
    """``clip:MODEL[/PRETRAINED]``; ``clip`` alone is OpenAI's ViT-B/32."""

    name: str = "clip"

    def load(self, options: ExtractorOptions) -> ClipExtractor:
        """Build the model with the store's weights, or those of ``options.weights``.

        Raises:
            UsageError: open_clip not installed; unknown model or tag; a precision that the device does not have.
            DataError: weights that are missing, damaged, or of another shape.
        """
        check_precision(options.precision, options.device)
        open_clip = _open_clip()
        model_name, _, tag = (options.argument or DEFAULT).partition("/")
        if model_name not in open_clip.list_models():
            raise unknown("CLIP model", model_name, open_clip.list_models())
        tags = open_clip.list_pretrained_tags_by_model(model_name)
        if tag and tag not in tags:
            raise unknown(f"weights of CLIP model {model_name}", tag, tags)
        tag = tag or (OPENAI if OPENAI in tags else "")
        config = open_clip.get_pretrained_cfg(model_name, tag)
        weights = _locate(model_name, tag, config, options.weights)
        tensors = _tensors(weights, config)
        try:
            model = open_clip.create_model(
                model_name, pretrained_text=False, force_quick_gelu=bool(config.get("quick_gelu"))
            )
            tokenizer = open_clip.get_tokenizer(model_name)
        except Exception as error:  # towers and tokenizers of other libraries, which may want a network
            raise UsageError(f"open_clip cannot build CLIP model {model_name} here: {error}.") from error
        load_into(model, tensors, weights.path, f"CLIP {model_name}")
        prepare = _input(model_name, model, config)
        name = f"{self.name}:{model_name}/{tag}" if tag else f"{self.name}:{model_name}"
        return ClipExtractor(name, model, prepare, tokenizer, weights, options)

    def load_image_text(self, options: ExtractorOptions) -> ClipExtractor:
        """`load`: the same object embeds texts."""
        return self.load(options)

    def status(self) -> ExtractorStatus:
        """Whether open_clip is installed and the default model's weights are in the store."""
        try:
            _open_clip()
            found = locate("clip-vit-b-32", download=False)
        except UsageError as error:
            return ExtractorStatus(self.name, False, str(error))
        return ExtractorStatus(self.name, True, f"{DEFAULT}: {found.path}, SHA-256 {found.sha256[:12]}")


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise UsageError(f"CLIP needs open_clip ({error}). Install it: pip install 'genbench[clip]'.") from None
    return open_clip


def _locate(model_name: str, tag: str, config: Mapping[str, Any], given: Path | None) -> LocatedWeights:
    url = str(config.get("url", ""))
    name = f"clip-{model_name}-{tag}".lower().rstrip("-")
    if tag == OPENAI:
        sha256, file = url.split("/")[-2:]
        entry = by_url(url) or _entry(name, url, file, sha256)
        return locate(entry, given)
    origin = url or (f"https://huggingface.co/{config['hf_hub']}" if config.get("hf_hub") else "its author")
    if given is None:
        raise DataError(
            f"The weights of CLIP {model_name} '{tag}' are not among those that genbench fetches: get them from "
            f"{origin} and give the file with --weights. OpenAI's are fetched for {DEFAULT} and its relatives."
        )
    return locate(_entry(name, origin, Path(given).name, None), given)


def _entry(name: str, url: str, file: str, sha256: str | None) -> WeightsEntry:
    return WeightsEntry(
        name=name,
        summary=f"weights of {name}",
        url=url,
        files=(file,),
        sha256=sha256,
        hash_source="author" if sha256 else "first use",
        licence="MIT" if sha256 else "see its author",
        used_by=("clip",),
    )


def _tensors(weights: LocatedWeights, config: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The state dict; OpenAI's own files are TorchScript, which is read only where the hash is the published one."""
    if weights.known and "openaipublic" in str(config.get("url", "")):
        with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # torch advises the file's author
            archive = torch.jit.load(str(weights.path), map_location="cpu")  # type: ignore[no-untyped-call]
        tensors: Mapping[str, Tensor] = archive.state_dict()
    else:
        tensors = read_tensors(weights.path)
    return {key: value for key, value in tensors.items() if key not in _NOT_WEIGHTS}


def _input(model_name: str, model: Any, config: Mapping[str, Any]) -> PillowInput:
    from open_clip.transform import PreprocessCfg

    known = PreprocessCfg()
    mode, method = config.get("resize_mode", known.resize_mode), config.get("interpolation", known.interpolation)
    size = model.visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    if mode not in ("shortest", "squash") or (mode == "shortest" and height != width):
        raise UsageError(
            f"CLIP model {model_name} resizes by '{mode}' to {(height, width)}, which genbench does not do."
        )
    return PillowInput(
        "exact" if mode == "squash" else "shorter side",
        (height, width) if mode == "squash" else height,
        (height, width),
        method,
        tuple(config.get("mean") or known.mean),
        tuple(config.get("std") or known.std),
    )


CLIP = ClipSource()
