"""Decoder distributions p(x | z) on the levels of an image: what a decoder's output means as a probability.

Each is independent over the image's values given the output. `DiscretisedLogistic` is that of Salimans et al.,
"PixelCNN++" (ICLR 2017, section 2.1) with one component; none of them is a density.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from genbench.errors import UsageError
from genbench.images import from_float, levels_to_float
from genbench.noise import NoiseSource

MIN_LOG_SCALE = -7.0

Decoder = Literal["categorical", "discretised_logistic", "bernoulli"]


class Observation(Protocol):
    """A decoder distribution, given the decoder's output (..., C, H, W, P)."""

    parameters: int
    """P, numbers the decoder gives per value."""

    def log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        """Log-probability of each level (B, C, H, W), broadcast to output's (..., B, C, H, W); nats."""

    def image_log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        """The sum of `log_prob` over an image's values, (..., B)."""

    def draw(self, output: Tensor, noise: NoiseSource) -> Tensor:
        """Values in [-1, 1] drawn for (B, C, H, W, P)."""

    def centre(self, output: Tensor) -> Tensor:
        """The central value in [-1, 1] for (B, C, H, W, P)."""


class Categorical:
    """Any distribution on K levels, by its logits."""

    def __init__(self, num_levels: int) -> None:
        self.parameters = self.num_levels = num_levels

    def log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        index = levels.expand(output.shape[:-1])[..., None]
        return output.gather(-1, index)[..., 0] - output.logsumexp(-1)

    def image_log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        return self.log_prob(output, levels).flatten(-3).sum(-1)

    def draw(self, output: Tensor, noise: NoiseSource) -> Tensor:
        return levels_to_float(noise.categorical(output.softmax(-1)), self.num_levels)

    def centre(self, output: Tensor) -> Tensor:
        values = levels_to_float(torch.arange(self.num_levels, device=output.device), self.num_levels)
        return output.softmax(-1) @ values


class DiscretisedLogistic:
    """A logistic in [-1, 1] rounded to the nearest level: P(k) = F(x_k + 1/(K-1)) - F(x_k - 1/(K-1)), tails open."""

    parameters = 2

    def __init__(self, num_levels: int) -> None:
        self.num_levels = num_levels

    def _location_and_log_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        return output[..., 0], output[..., 1].clamp(min=MIN_LOG_SCALE)

    def log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        """With a, b the standardised upper and lower edge: s(a) - s(b) = s(a) s(-b) (1 - exp(b - a)), s sigmoid."""
        location, log_scale = self._location_and_log_scale(output)
        half, inverse = 1.0 / (self.num_levels - 1), torch.exp(-log_scale)
        centred = levels_to_float(levels, self.num_levels) - location
        first, last = levels == 0, levels == self.num_levels - 1
        below_upper = F.logsigmoid((centred + half) * inverse).masked_fill(last, 0.0)
        above_lower = F.logsigmoid((half - centred) * inverse).masked_fill(first, 0.0)
        between = torch.log(-torch.expm1(-2.0 * half * inverse)).masked_fill(first | last, 0.0)
        return below_upper + above_lower + between

    def image_log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        return self.log_prob(output, levels).flatten(-3).sum(-1)

    def draw(self, output: Tensor, noise: NoiseSource) -> Tensor:
        location, log_scale = self._location_and_log_scale(output)
        u = noise.uniform(tuple(location.shape[1:]))
        return (location + log_scale.exp() * torch.logit(u, eps=2.0**-25)).clamp(-1, 1)

    def centre(self, output: Tensor) -> Tensor:
        return self._location_and_log_scale(output)[0].clamp(-1, 1)


class Bernoulli:
    """Two levels, by the logit of the upper one."""

    parameters = 1

    def __init__(self, num_levels: int) -> None:
        if num_levels != 2:
            raise UsageError(
                f"decoder = 'bernoulli' needs images of 2 levels, these have {num_levels}. "
                "Use 'categorical' or 'discretised_logistic'."
            )

    def log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        return F.logsigmoid(output[..., 0] * (2 * levels - 1).to(output.dtype))

    def image_log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        """x logit - softplus(logit), which costs a product and a softplus over the values."""
        logit = output[..., 0].flatten(-3)
        x = levels.flatten(-3).to(logit.dtype)
        return torch.linalg.vecdot(logit, x) - F.softplus(logit).sum(-1)

    def draw(self, output: Tensor, noise: NoiseSource) -> Tensor:
        logit = output[..., 0]
        return levels_to_float(noise.uniform(tuple(logit.shape[1:])) < logit.sigmoid(), 2)

    def centre(self, output: Tensor) -> Tensor:
        return levels_to_float(output[..., 0] > 0, 2)


OBSERVATIONS: dict[Decoder, Callable[[int], Observation]] = {
    "categorical": Categorical,
    "discretised_logistic": DiscretisedLogistic,
    "bernoulli": Bernoulli,
}


def draw_images(
    observation: Observation, output: Tensor, noise: NoiseSource, num_levels: int, temperature: float | None
) -> Tensor:
    """Images (B, C, H, W) uint8 drawn for the output (B, C, H, W, P).

    A temperature T scales the draw's deviation from the central image, 0 giving that image; None is T = 1.
    """
    x = observation.draw(output, noise)
    if temperature is not None:
        x = torch.lerp(observation.centre(output), x, temperature)
    return from_float(x, num_levels)
