"""Protocols: by one name, how images reach the network and which convention each metric follows.

Each stands for a tool that people quote numbers from (or a group of tools that agree). The name is part of every
result's ``comparable``, so that no two protocols share a column.

KID is 100 subsets of 1000 everywhere; tools differ by the generator that draws them (see `genbench.metrics.kid`).
IS under ``torchmetrics`` is over its chunks but in the order of ``RandomState(2020)``: its own permutation comes from
torch's global generator, so that its number depends on what was drawn before, by less than the spread over splits.
Precision and recall are k = 3 with <= but for ``dgm``, density and coverage k = 5 with < everywhere. Beyond that, ADM's
evaluator rounds its distances to float16, and dgm-eval draws 10 000 images a side for these four.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from genbench.errors import unknown

MetricOptions = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Protocol:
    """equals: the tool (and its version) that gives the same numbers. preprocessing: of InceptionV3.

    extractor: used where none is named. options: settings of metrics by name, over the metrics' own defaults.
    image_text: image-text model of the CLIP metrics where the tool has one of its own. num_samples: what published
    numbers under this protocol use; fewer is a warning.
    """

    name: str
    equals: str
    summary: str
    preprocessing: str
    extractor: str = "inception-v3"
    options: MetricOptions = field(default_factory=lambda: MappingProxyType({}))
    image_text: str | None = None
    num_samples: int = 50_000


_STRICT_FIVE = {"k": 5, "inequality": "<"}

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "tf1",
            equals="torch-fidelity 0.4",
            summary="TensorFlow 1 bilinear resize; 10 permuted IS splits; 100 KID subsets of 1000",
            preprocessing="tf1",
        ),
        Protocol(
            "pytorch-fid",
            equals="pytorch-fid 0.3",
            summary="bilinear resize without antialias, 2 x / 255 - 1",
            preprocessing="pytorch-fid",
        ),
        Protocol(
            "clean",
            equals="clean-fid 0.1.35",
            summary="Pillow bicubic resize of float channels, clipped to 0..255 and not quantised",
            preprocessing="clean",
        ),
        Protocol(
            "torchmetrics",
            equals="torchmetrics 1.9",
            summary="bilinear resize with antialias; IS over permuted chunks, ddof 1; CLIP score 100 cos",
            preprocessing="torchmetrics",
            options=MappingProxyType(
                {
                    "inception_score": {"order": "permuted", "bounds": "chunk", "ddof": 1},
                    "clip_score": {"prefix": "", "scale": 100.0, "clamp": "mean"},
                }
            ),
            image_text="clip:ViT-L-14",
        ),
        Protocol(
            "adm",
            equals="guided-diffusion's evaluator",
            summary="as tf1; IS over blocks of 5000 in given order; precision and recall on pool3, k = 3",
            preprocessing="tf1",
            options=MappingProxyType({"inception_score": {"order": "given", "bounds": "blocks-of-5000"}}),
        ),
        Protocol(
            "dgm",
            equals="dgm-eval",
            summary="DINOv2 ViT-L/14 features; precision, recall, density, coverage with k = 5 and distance < radius",
            preprocessing="pytorch-fid",
            extractor="dinov2:vitl14",
            options=MappingProxyType(dict.fromkeys(("precision", "recall", "f1", "density", "coverage"), _STRICT_FIVE)),
        ),
    )
}


def load_protocol(name: str) -> Protocol:
    """A protocol by name.

    Raises:
        UsageError: unknown name.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]
