"""Evaluating a model's likelihood of discrete images, one split at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from genbench.api import GenerativeModel, HasLikelihood
from genbench.data.base import ImageDataset
from genbench.metrics.base import ImageLikelihoods
from genbench.noise import NoiseSource
from genbench.sample import ModelOutputError


@torch.no_grad()
def evaluate_likelihood(
    model: GenerativeModel,
    data: ImageDataset,
    estimator: str,
    seed: int,
    batch_size: int,
    report: Callable[[int, int], None] | None = None,
) -> ImageLikelihoods:
    """Per-image log P(x) in nats of every image of ``data``, under one of the model's estimators.

    Raises:
        ModelOutputError: the model has no likelihood, or returned a wrong shape or values that are not finite.
    """
    if not isinstance(model, HasLikelihood):
        raise ModelOutputError(f"{type(model).__name__} has no log_likelihood()")
    nats, errors, kind = [], [], None
    for start in range(0, len(data), batch_size):
        index = np.arange(start, min(start + batch_size, len(data)))
        batch = data.batch(index).to(model.device)
        result = model.log_likelihood(batch, NoiseSource(seed, batch.index, stream="likelihood"), estimator)
        if tuple(result.nats.shape) != (len(index),):
            raise ModelOutputError(
                f"log_likelihood() returned shape {tuple(result.nats.shape)}, expected {(len(index),)}"
            )
        if not bool(torch.isfinite(result.nats).all()):
            raise ModelOutputError(f"log_likelihood() by '{estimator}' returned values that are not finite")
        nats.append(result.nats.cpu().double().numpy())
        if result.standard_error is not None:
            errors.append(result.standard_error.cpu().double().numpy())
        kind = result.kind
        if report is not None:
            report(int(index[-1]) + 1, len(data))
    assert kind is not None, "a split has at least one image"
    standard_error = np.concatenate(errors) if errors else None
    return ImageLikelihoods(np.concatenate(nats), kind, estimator, standard_error)
