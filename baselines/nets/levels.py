"""Levels of an image's values as the inputs and outputs of networks over flat images.

K = 2 levels are one logit of level 1 (a Bernoulli variable), more are K logits of a softmax.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.api import ImageSpec, SampleRequest


def level_inputs(levels: Tensor, num_levels: int) -> Tensor:
    """Levels (...) to (..., K - 1) float32: [x >= 1] .. [x >= K - 1] for each value x."""
    return (levels[..., None] >= torch.arange(1, num_levels, device=levels.device)).float()


def level_log_prob(logits: Tensor, levels: Tensor) -> Tensor:
    """log P of levels (...) in nats under logits (..., K), or (..., 1) of level 1 for K = 2."""
    if logits.shape[-1] == 1:
        return F.logsigmoid(logits[..., 0] * (2 * levels - 1))
    return logits.log_softmax(-1).gather(-1, levels[..., None])[..., 0]


def draw_levels(logits: Tensor, uniform: Tensor) -> Tensor:
    """Levels (B,) by inversion of uniform (B,) in [0, 1), from logits (B, K) or (B, 1)."""
    if logits.shape[-1] == 1:
        return (uniform < logits[:, 0].sigmoid()).long()
    cumulative = logits.softmax(-1).cumsum(-1)
    threshold = (uniform * cumulative[:, -1])[:, None]
    return (cumulative <= threshold).sum(-1).clamp(max=logits.shape[-1] - 1)


def flat_given(request: SampleRequest, spec: ImageSpec) -> tuple[Tensor, Tensor]:
    """Which values the request gives, (B, D) bool, and their levels, (B, D) int64; nowhere, where it has no mask.

    Raises:
        UsageError: see `SampleRequest.given`.
    """
    given = request.given(spec)
    if given is not None:
        return given.mask.flatten(1), given.levels.flatten(1)
    nothing = torch.zeros(len(request), spec.dims, device=request.noise.device, dtype=torch.int64)
    return nothing.bool(), nothing
