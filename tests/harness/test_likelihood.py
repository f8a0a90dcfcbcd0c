"""Likelihood of a split: batches do not matter, unnormalised models get their log Z once, bad output is refused."""

import math

import numpy as np
import pytest
import torch
from toys import Histogram

from genbench.api import GenerativeModel, ImageSpec, LogLikelihood, LogNormaliser, ModelConfig
from genbench.errors import NotConverged
from genbench.images import to_levels
from genbench.likelihood import evaluate_likelihood, likelihood_estimators
from genbench.sample import ModelOutputError
from genbench.testing import random_splits

SPEC = ImageSpec(1, 2, 2, 3)
TEST = random_splits(SPEC).test


class Unnormalised(GenerativeModel):
    """p~ = exp(sum of levels), so that log Z = D log(1 + e + e^2)."""

    asked = 0

    def likelihood_estimators(self):
        return ("exact", "ais")

    def log_unnormalised(self, batch, noise):
        return to_levels(batch.images, 3).double().flatten(1).sum(1)

    def log_normaliser(self, estimator, seed):
        self.asked += 1
        if estimator == "ais":
            raise NotConverged("2 of 100 chains carry the weight")
        return LogNormaliser(4 * math.log(1 + math.e + math.e**2), 0.25, "exact", {"chains": 7.0})


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_log_z_is_found_once_and_taken_from_every_image(batch_size):
    model = Unnormalised(ModelConfig(), SPEC)
    found = evaluate_likelihood(model, TEST, "exact", 0, batch_size)
    p = np.exp(np.arange(3)) / np.exp(np.arange(3)).sum()
    levels = to_levels(torch.from_numpy(TEST.images), 3).numpy()
    np.testing.assert_allclose(found.nats, np.log(p[levels]).reshape(len(TEST), -1).sum(1), rtol=1e-12)
    assert model.asked == 1 and found.kind == "exact" and found.shared_error == 0.25 and found.failure is None
    assert found.details["chains"] == 7.0 and found.details["log_normaliser_error"] == 0.25


def test_what_did_not_converge_has_a_reason_and_no_numbers():
    found = evaluate_likelihood(Unnormalised(ModelConfig(), SPEC), TEST, "ais", 0, 10)
    assert found.failure == "did not converge: 2 of 100 chains carry the weight" and len(found.nats) == 0


def test_estimators_are_listed_for_both_kinds_of_model_and_for_none():
    assert likelihood_estimators(Unnormalised(ModelConfig(), SPEC)) == ("exact", "ais")
    assert likelihood_estimators(Histogram(ModelConfig(), SPEC)) == ("exact",)
    assert likelihood_estimators(GenerativeModel(ModelConfig(), SPEC)) == ()
    with pytest.raises(ModelOutputError, match="has no log_likelihood"):
        evaluate_likelihood(GenerativeModel(ModelConfig(), SPEC), TEST, "exact", 0, 10)


@pytest.mark.parametrize(
    ("nats", "message"),
    [(torch.zeros(3, 1), r"shape \(3, 1\), expected \(3,\)"), (torch.tensor([0.0, math.nan, 0.0]), "not finite")],
)
def test_bad_output_is_refused(nats, message):
    class Bad(Histogram):
        def log_likelihood(self, batch, noise, estimator):
            return LogLikelihood(nats, "exact", "exact")

    with pytest.raises(ModelOutputError, match=message):
        evaluate_likelihood(Bad(ModelConfig(), SPEC), TEST, "exact", 0, 3)
