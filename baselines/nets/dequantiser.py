"""A learned dequantiser: a small conditional flow that draws the noise u of y = (k + u) / K given the image.

The idea is that of Ho et al., "Flow++" (ICML 2019, section 3.1): u = sigmoid(v), v the result of a flow that is
conditioned on the image, trained together with the density of y. Here the flow starts from logistic noise and as the
identity, so that an untrained dequantiser is the uniform one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genbench.api import ImageSpec
from genbench.errors import UsageError
from genbench.images import levels_to_float

NOISE_MIN, NOISE_MAX = 2.0**-25, 1.0 - 2.0**-24
"""Bounds of u and of the uniform noise: half of the smallest step of the noise, and the largest float32 below 1."""

MAX_LOG_SCALE = 3.0


def log_sigmoid_slope(v: Tensor) -> Tensor:
    """log d sigmoid(v) / dv, also the log-density of the standard logistic distribution at v."""
    return F.logsigmoid(v) + F.logsigmoid(-v)


class ConditionalCoupling(nn.Module):
    """Affine coupling of the channels under ``moved``, given the other channels and features of the image."""

    kept: Tensor
    moved: Tensor

    def __init__(self, kept: Tensor, moved: Tensor, context: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("moved", moved, persistent=False)
        self.net = nn.Sequential(
            nn.Conv2d(len(kept) + context, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
        )
        self.out = nn.Conv2d(hidden, 2 * len(moved), 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, v: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """v (B, 4C, H/2, W/2) to the same shape, and log |det| (B,)."""
        h = self.out(self.net(torch.cat((v[:, self.kept], context), dim=1))).to(v.dtype)
        s, t = h.chunk(2, dim=1)
        s = MAX_LOG_SCALE * torch.tanh(s / MAX_LOG_SCALE)
        changed = v.index_copy(1, self.moved, v[:, self.moved] * torch.exp(s) + t)
        return changed, s.flatten(1).sum(1)


class VariationalDequantiser(nn.Module):
    """q(u | k) of images with an even height and width; a `genbench.likelihood.dequantisation.Dequantiser`.

    Noise and image are squeezed (2 x 2 pixels to channels), and couplings part the 4C channels in four ways in turn.

    Args:
        hidden: width of all convolutions.
        couplings: number of affine couplings.

    Raises:
        UsageError: an odd height or width.
    """

    def __init__(self, spec: ImageSpec, hidden: int = 32, couplings: int = 4) -> None:
        super().__init__()
        if spec.height % 2 or spec.width % 2:
            raise UsageError(
                f"The variational dequantiser needs an even height and width, got {spec.height} x {spec.width}; "
                "use uniform dequantisation or pad the images."
            )
        self.levels, channels = spec.levels, 4 * spec.channels
        self.context = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU()
        )
        order = torch.arange(channels)
        halves = (order[: channels // 2], order[channels // 2 :], order[::2], order[1::2])
        pairs = [(halves[i % 4], halves[(i % 4) ^ 1]) for i in range(couplings)]
        self.couplings = nn.ModuleList(ConditionalCoupling(kept, moved, hidden, hidden) for kept, moved in pairs)

    def forward(self, levels: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Levels (B, C, H, W) int64 and uniform noise of that shape to u in (0, 1) and log q(u | k), (B,) nats."""
        image = levels_to_float(levels, self.levels).to(noise.dtype)
        context = self.context(F.pixel_unshuffle(image, 2)).to(noise.dtype)
        v = F.pixel_unshuffle(torch.logit(noise.clamp(NOISE_MIN, NOISE_MAX)), 2)
        log_q = log_sigmoid_slope(v).flatten(1).sum(1)
        for coupling in self.couplings:
            v, log_det = coupling(v, context)
            log_q = log_q - log_det
        log_q = log_q - log_sigmoid_slope(v).flatten(1).sum(1)
        u = torch.sigmoid(F.pixel_shuffle(v, 2)).clamp(NOISE_MIN, NOISE_MAX)
        return u, log_q
