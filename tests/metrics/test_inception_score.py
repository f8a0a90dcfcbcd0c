"""Inception Score: closed forms, the documented shuffle, the jackknife against refits."""

import numpy as np
import pytest
from metric_inputs import compute_one, coverage, feature_inputs

from genbench.errors import DataError
from genbench.metrics import NotApplicable
from genbench.metrics.inception_score import InceptionScore, inception_score, left_out_scores, split_score


def logits_inputs(logits):
    features = np.zeros((len(logits), 2))
    return feature_inputs(features, features, logits)


def test_uniform_predictions_score_one():
    assert compute_one(InceptionScore(), logits_inputs(np.zeros((100, 7)))).value == pytest.approx(1.0, abs=1e-12)


def test_balanced_one_hot_predictions_score_the_number_of_classes():
    labels = np.repeat(np.arange(5), 40)
    order = np.random.RandomState(2020).permutation(200)
    logits = np.empty((200, 5))
    logits[order] = 1000.0 * np.eye(5)[np.arange(200) % 5]
    assert compute_one(InceptionScore(), logits_inputs(logits)).value == pytest.approx(5.0, rel=1e-12)
    unsplit = compute_one(InceptionScore(splits=1), logits_inputs(1000.0 * np.eye(5)[labels]))
    assert unsplit.value == pytest.approx(5.0, rel=1e-12)


def test_splits_and_shuffle(rng):
    logits = rng.normal(size=(57, 4)) * 3
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = p[np.random.RandomState(2020).permutation(57)]
    expected = []
    for i in range(10):
        part = p[i * 57 // 10 : (i + 1) * 57 // 10]
        expected.append(np.exp((part * np.log(part / part.mean(0))).sum(1).mean()))
    np.testing.assert_allclose(inception_score(logits)[0], expected, rtol=1e-10)


def test_one_split_is_free_of_order(rng):
    logits = rng.normal(size=(90, 4))
    scores = [compute_one(InceptionScore(splits=1), logits_inputs(x)).value for x in (logits, rng.permutation(logits))]
    assert scores[0] == pytest.approx(scores[1], rel=1e-12)


def test_jackknife_equals_refits(rng):
    p = rng.dirichlet(np.ones(6) * 0.3, 25)
    np.testing.assert_allclose(left_out_scores(p), [split_score(np.delete(p, i, 0)) for i in range(25)], rtol=1e-10)


def test_interval_holds_the_expectation(rng):
    draw = lambda: logits_inputs(rng.normal(size=(300, 6)) * 2)  # noqa: E731
    assert coverage(InceptionScore(), draw, repetitions=60) >= 0.88


def test_refuses_what_it_cannot_score():
    with pytest.raises(NotApplicable, match="fewer than 2 for each of 10 splits"):
        InceptionScore().compute(logits_inputs(np.zeros((19, 3))))
    with pytest.raises(NotApplicable, match="no class probabilities"):
        InceptionScore().compute(feature_inputs(np.ones((50, 2)), np.ones((50, 2))))
    with pytest.raises(DataError, match="NaN"):
        InceptionScore().compute(logits_inputs(np.full((50, 3), np.nan)))
