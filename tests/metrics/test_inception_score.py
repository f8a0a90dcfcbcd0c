"""Inception Score: closed forms, every way to split against the tools' own, the jackknife, memory."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from interval_coverage import fresh_coverage
from metric_inputs import compute_one, feature_inputs

from genbench.errors import DataError, UsageError
from genbench.metrics import NotApplicable
from genbench.metrics.inception_score import InceptionScore, split_bounds, split_score
from genbench.metrics.options import build_metric
from genbench.metrics.statistics import jackknife_error
from genbench.protocols import PROTOCOLS


def logits_inputs(logits):
    features = np.zeros((len(logits), 2))
    return feature_inputs(features, features, logits)


def by_hand(logits):
    """exp of the mean divergence, from the definition."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return np.exp((p * np.log(p / p.mean(0))).sum(1).mean())


def under(protocol):
    return build_metric(InceptionScore, dict(PROTOCOLS[protocol].options.get("inception_score", {})))


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


@pytest.mark.parametrize("n", [57, 4000])
def test_equals_the_definition(rng, n):
    """Split by split in the documented shuffle; one split of more rows than a block."""
    logits = rng.normal(size=(n, 4)) * 3
    order = np.random.RandomState(2020).permutation(n)
    expected = [by_hand(logits[order[i * n // 10 : (i + 1) * n // 10]]) for i in range(10)]
    found = compute_one(InceptionScore(), logits_inputs(logits))
    assert found.value == pytest.approx(np.mean(expected), rel=1e-9)
    assert found.extra["std_over_splits"] == pytest.approx(np.std(expected), rel=1e-7)
    assert compute_one(InceptionScore(splits=1), logits_inputs(logits)).value == pytest.approx(
        by_hand(logits), rel=1e-9
    )


@pytest.mark.parametrize("n", [1500, 1003])
def test_equals_torch_fidelity(rng, n):
    module = pytest.importorskip("torch_fidelity.metric_isc")
    logits = (rng.normal(size=(n, 60)) * 3).astype(np.float32)
    theirs = module.isc_features_to_metric(torch.from_numpy(logits))
    found = compute_one(under("tf1"), logits_inputs(logits))
    assert found.value == pytest.approx(theirs[module.KEY_METRIC_ISC_MEAN], rel=1e-9)
    assert found.extra["std_over_splits"] == pytest.approx(theirs[module.KEY_METRIC_ISC_STD], rel=1e-7)


@pytest.mark.parametrize("n", [1500, 1003, 21])
def test_equals_torchmetrics(rng, n, monkeypatch):
    """Its arithmetic and its chunks; its shuffle, which the global generator draws, is replaced by ours."""
    inception = pytest.importorskip("torchmetrics.image.inception")
    logits = (rng.normal(size=(n, 60)) * 3).astype(np.float32)
    monkeypatch.setattr(torch, "randperm", lambda n: torch.from_numpy(np.random.RandomState(2020).permutation(n)))
    theirs = SimpleNamespace(features=[torch.from_numpy(logits)], splits=10)
    mean, std = inception.InceptionScore.compute(theirs)
    found = compute_one(under("torchmetrics"), logits_inputs(logits))
    assert found.value == pytest.approx(float(mean), rel=1e-5)
    assert found.extra["std_over_splits"] == pytest.approx(float(std), rel=1e-4)


def test_equals_blocks_of_5000_in_given_order(rng):
    """guided-diffusion's evaluator: the last block may be shorter, down to one image that scores 1."""
    logits = rng.normal(size=(10_001, 3)) * 2
    found = compute_one(under("adm"), logits_inputs(logits))
    expected = [by_hand(logits[:5000]), by_hand(logits[5000:10_000]), 1.0]
    assert found.value == pytest.approx(np.mean(expected), rel=1e-9)
    assert found.estimator == "mean-of-3-splits"
    assert len(found.notes) == 1 and "the last of 3 blocks has 1 of 5000 samples" in found.notes[0]
    assert not compute_one(under("adm"), logits_inputs(logits[:7500])).notes
    assert compute_one(under("adm"), logits_inputs(logits[:7499])).notes
    assert not compute_one(under("adm"), logits_inputs(logits[:100])).notes


def test_bounds():
    assert [part.stop - part.start for part in split_bounds(23, 10, "floor")] == [2, 2, 2, 3, 2, 2, 3, 2, 2, 3]
    for n in (20, 21, 23, 101):
        chunks = [len(chunk) for chunk in torch.arange(n).chunk(10)]
        assert [part.stop - part.start for part in split_bounds(n, 10, "chunk")] == chunks


def test_fewer_chunks_than_splits_are_noted(rng):
    found = compute_one(InceptionScore(order="given", bounds="chunk"), logits_inputs(rng.normal(size=(21, 4))))
    assert found.notes == ("21 samples make 7 equal parts, not 10",)


def test_one_split_is_free_of_order_and_ten_are_not(rng):
    logits = rng.normal(size=(90, 4))
    shuffled = rng.permutation(logits)
    one = [compute_one(InceptionScore(splits=1), logits_inputs(x)).value for x in (logits, shuffled)]
    ten = [compute_one(InceptionScore(), logits_inputs(x)).value for x in (logits, shuffled)]
    assert one[0] == pytest.approx(one[1], rel=1e-12)
    assert ten[0] != pytest.approx(ten[1], rel=1e-6)


@pytest.mark.parametrize("n", [25, 2100])
def test_jackknife_equals_refits(rng, n):
    logits = rng.normal(size=(n, 6)) * 3
    some = range(n) if n < 100 else None
    score, error = split_score(logits)
    assert score == pytest.approx(by_hand(logits), rel=1e-10)
    if some:
        refits = np.array([by_hand(np.delete(logits, i, 0)) for i in some])
        assert error == pytest.approx(jackknife_error(refits), rel=1e-9)
    else:
        draws = [split_score(rng.normal(size=(n, 6)) * 3)[0] for _ in range(100)]
        assert error == pytest.approx(np.std(draws), rel=0.25)


def test_coverage(rng):
    assert 0.9 <= fresh_coverage(InceptionScore(), lambda: logits_inputs(rng.normal(size=(300, 6)) * 2)) <= 0.99


def test_memory_stays_that_of_some_blocks(rng):
    """One split of many images: the probabilities of all are never held at once."""
    logits = rng.normal(size=(20_000, 100)).astype(np.float32)
    inputs = logits_inputs(logits)
    inputs.samples.features()
    tracemalloc.start()
    compute_one(InceptionScore(splits=1), inputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.2 * logits.nbytes


def test_refuses_what_it_cannot_score():
    with pytest.raises(NotApplicable, match="fewer than 2 for each of 10 splits"):
        InceptionScore().compute(logits_inputs(np.zeros((19, 3))))
    with pytest.raises(NotApplicable, match="no class probabilities"):
        InceptionScore().compute(feature_inputs(np.ones((50, 2)), np.ones((50, 2))))
    with pytest.raises(DataError, match="NaN"):
        InceptionScore().compute(logits_inputs(np.full((50, 3), np.nan)))
    for option in ({"order": "random"}, {"bounds": "halves"}, {"ddof": 2}, {"splits": 0}):
        with pytest.raises(UsageError, match=next(iter(option))):
            InceptionScore(**option)
