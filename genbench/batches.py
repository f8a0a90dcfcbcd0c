"""The batches of a training: a permutation keyed by the epoch, redrawn and mirrored where the recipe asks for it."""

from __future__ import annotations

import torch
from torch import Tensor

from genbench.api import Batch, TrainingData
from genbench.errors import UsageError
from genbench.noise import derive_seed
from genbench.recipe import TrainRecipe


class Batches:
    """The training split in batches; each is a function of (seed, step) and the step's generator.

    size: images of a batch, the recipe's, or the whole split where that is smaller.

    Raises:
        UsageError: see `check_data`.
    """

    def __init__(self, data: TrainingData, recipe: TrainRecipe, seed: int, device: torch.device) -> None:
        check_data(recipe, data.intensities is not None)
        self._data, self._recipe, self._seed, self._device = data.train.to(device), recipe, seed, device
        self.size = min(recipe.batch_size, len(self._data))
        grey = data.intensities if recipe.dynamic_binarisation else None
        self._intensities = None if grey is None else grey.to(device)
        self._epoch_order: tuple[int, Tensor] | None = None

    def of_step(self, step: int, rng: torch.Generator) -> Batch:
        """The batch of a step: consecutive pieces of the epoch's permutation; what is left over is dropped."""
        data, per_epoch = self._data, len(self._data) // self.size
        start = (step % per_epoch) * self.size
        chosen = self._order(step // per_epoch)[start : start + self.size]
        images = data.images[chosen] if self._intensities is None else self._binarised(self._intensities[chosen], rng)
        if self._recipe.horizontal_flip:
            flip = torch.rand(self.size, 1, 1, 1, generator=rng, device=self._device) < 0.5
            images = torch.where(flip, images.flip(-1), images)
        labels = None if data.labels is None else data.labels[chosen]
        return Batch(images=images, index=data.index[chosen], labels=labels)

    def _binarised(self, grey: Tensor, rng: torch.Generator) -> Tensor:
        """A new Bernoulli(x / 255) draw of grey images, 0 or 255."""
        above = torch.rand(grey.shape, generator=rng, device=self._device) * 255.0 < grey
        return above.to(torch.uint8) * 255

    def _order(self, epoch: int) -> Tensor:
        if self._epoch_order is None or self._epoch_order[0] != epoch:
            rng = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
            self._epoch_order = (epoch, torch.randperm(len(self._data), generator=rng).to(self._device))
        return self._epoch_order[1]


def check_data(recipe: TrainRecipe, has_intensities: bool) -> None:
    """Refuse a recipe that needs grey values of binary images where the data have none.

    Raises:
        UsageError: they have none.
    """
    if recipe.dynamic_binarisation and not has_intensities:
        raise UsageError(
            "dynamic_binarisation redraws binary training images from their grey values, and this dataset has none. "
            "Use dataset mnist-binary, or set dynamic_binarisation = false."
        )
