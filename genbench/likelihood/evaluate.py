"""Evaluating a model's likelihood of discrete images, one split and one estimator at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from genbench.api import Batch, GenerativeModel, HasLikelihood, HasNormaliser, LogLikelihood
from genbench.data.base import ImageDataset
from genbench.errors import NotConverged
from genbench.metrics.base import ImageLikelihoods
from genbench.noise import NoiseSource, derive_seed
from genbench.sample import ModelOutputError

Report = Callable[[int, int], None]


def likelihood_estimators(model: GenerativeModel) -> tuple[str, ...]:
    """Names of the estimators of log P(x) that a model offers, the one to quote first; empty where it has none."""
    if isinstance(model, HasLikelihood | HasNormaliser):
        return model.likelihood_estimators()
    return ()


@torch.no_grad()
def evaluate_likelihood(
    model: GenerativeModel,
    data: ImageDataset,
    estimator: str,
    seed: int,
    batch_size: int,
    report: Report | None = None,
) -> ImageLikelihoods:
    """Per-image log P(x) in nats of every image of ``data``, under one of the model's estimators.

    Of an unnormalised model, log Z is found first, once for all images. An estimate that did not converge is returned
    without numbers and with its reason.

    Raises:
        ModelOutputError: the model has no likelihood, or returned a wrong shape or values that are not finite.
    """
    if isinstance(model, HasLikelihood):
        return _pass(model, data, estimator, seed, batch_size, report)
    if not isinstance(model, HasNormaliser):
        raise ModelOutputError(f"{type(model).__name__} has no log_likelihood()")
    try:
        found = model.log_normaliser(estimator, derive_seed(seed, "normaliser", estimator))
    except NotConverged as error:
        return ImageLikelihoods(np.empty(0), "estimate", estimator, failure=f"did not converge: {error}")
    shifted = cast(HasLikelihood, _Normalised(model, found.value, estimator))
    result = _pass(shifted, data, estimator, seed, batch_size, report)
    details = {"log_normaliser": found.value, "log_normaliser_error": found.standard_error, **found.details}
    return ImageLikelihoods(
        result.nats, found.kind, estimator, result.standard_error, abs(found.standard_error), details
    )


@dataclass(frozen=True)
class _Normalised:
    """log P = log p~ - log Z with log Z given."""

    model: HasNormaliser
    log_z: float
    estimator: str

    @property
    def device(self) -> torch.device:
        return cast(GenerativeModel, self.model).device

    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        nats: Tensor = self.model.log_unnormalised(batch, noise)
        return LogLikelihood(nats.double() - self.log_z, "estimate", estimator)


def _pass(
    model: HasLikelihood, data: ImageDataset, estimator: str, seed: int, batch_size: int, report: Report | None
) -> ImageLikelihoods:
    nats, errors, kind = [], [], None
    for batch in _batches(data, batch_size, cast(GenerativeModel, model).device):
        result = model.log_likelihood(batch, NoiseSource(seed, batch.index, stream="likelihood"), estimator)
        if tuple(result.nats.shape) != (len(batch),):
            raise ModelOutputError(
                f"log_likelihood() returned shape {tuple(result.nats.shape)}, expected {(len(batch),)}"
            )
        if not bool(torch.isfinite(result.nats).all()):
            raise ModelOutputError(f"log_likelihood() by '{estimator}' returned values that are not finite")
        nats.append(result.nats.cpu().double().numpy())
        if result.standard_error is not None:
            errors.append(result.standard_error.cpu().double().numpy())
        kind = result.kind
        if report is not None:
            report(int(batch.index[-1]) + 1, len(data))
    assert kind is not None, "a split has at least one image"
    standard_error = np.concatenate(errors) if errors else None
    return ImageLikelihoods(np.concatenate(nats), kind, estimator, standard_error)


def _batches(data: ImageDataset, batch_size: int, device: torch.device) -> Iterator[Batch]:
    for start in range(0, len(data), batch_size):
        yield data.batch(np.arange(start, min(start + batch_size, len(data)))).to(device)
