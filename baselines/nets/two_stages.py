"""Training in two stages within one budget: an autoencoder, then a prior on the codes of the finished autoencoder."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer


class TwoStages:
    """Where a training is: the first 1 - `second_share` of the budget is stage 0, the rest stage 1.

    Each optimiser given to `anneal` has its learning rate brought to zero by a half cosine over its own stage, on top
    of the recipe's schedule, which is best constant. Its rate is set anew before every step, as the harness does.
    """

    def __init__(self, second_share: float) -> None:
        self.second_share = second_share
        self.stage = 0
        self.done = 0.0

    def enter(self, progress: float) -> int:
        """Set the place from the share of the budget spent, in [0, 1); returns the stage.

        `done` becomes the share of the stage spent.
        """
        first = 1.0 - self.second_share
        self.stage = int(progress >= first)
        self.done = (progress - first) / self.second_share if self.stage else progress / first
        return self.stage

    def anneal(self, optimizer: Optimizer) -> Optimizer:
        """Scale the rate of each step of ``optimizer`` by 1/2 (1 + cos(pi done)); returns it."""

        def scale(stepped: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG001
            for group in stepped.param_groups:
                group["lr"] *= 0.5 * (1.0 + math.cos(math.pi * self.done))

        optimizer.register_step_pre_hook(scale)
        return optimizer
