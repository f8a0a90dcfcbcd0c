"""PSNR: the mean over images equal to scikit-image, the pooled one to torchmetrics; identical pairs; intervals."""

import numpy as np
import piq
import pytest
import torch
from metric_inputs import compute_one, coverage, image_inputs, random_images
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.image import PeakSignalNoiseRatio

from genbench.errors import DataError
from genbench.metrics import NotApplicable
from genbench.metrics.pairs import ScoredPairs, StoredPairs
from genbench.metrics.psnr import (
    PeakSignalToNoiseRatio,
    PooledPeakSignalToNoiseRatio,
    psnr,
    squared_error,
)

BOTH = [PeakSignalToNoiseRatio(), PooledPeakSignalToNoiseRatio()]


def noisy(rng, images, scale=30):
    return np.clip(images + rng.normal(size=images.shape) * scale, 0, 255).astype(np.uint8)


def pair_inputs(x, y):
    return image_inputs(x, y, pairs=StoredPairs(x, y))


@pytest.fixture
def pairs(rng):
    """Samples and references whose errors differ from image to image."""
    y = random_images(rng, 9, (3, 16, 13))
    return noisy(rng, y, np.linspace(1, 90, 9)[:, None, None, None]), y


def test_psnr_equals_scikit_image(pairs):
    x, y = pairs
    expected = [peak_signal_noise_ratio(b, a, data_range=255) for a, b in zip(x, y)]
    np.testing.assert_allclose(psnr(x, y), expected, rtol=1e-12)


def test_largest_error_does_not_overflow():
    x, y = np.zeros((2, 1, 300, 300), np.uint8), np.full((2, 1, 300, 300), 255, np.uint8)
    np.testing.assert_array_equal(squared_error(x, y), [255.0**2] * 2)
    np.testing.assert_array_equal(psnr(y, x), [0.0, 0.0])


def test_mean_over_images(pairs):
    found = compute_one(BOTH[0], pair_inputs(*pairs))
    assert found.value == pytest.approx(psnr(*pairs).mean()) and found.n == 9
    assert found.standard_error == pytest.approx(psnr(*pairs).std(ddof=1) / 3)
    assert found.paired_by == "reference image" and found.estimator == "mean" and found.notes == ()
    np.testing.assert_allclose(found.per_image, psnr(*pairs))


def test_pooled_equals_torchmetrics_and_is_another_number(pairs):
    peer = PeakSignalNoiseRatio(data_range=255.0)
    for x, y in zip(*pairs):
        peer.update(torch.from_numpy(x).float()[None], torch.from_numpy(y).float()[None])
    found = compute_one(BOTH[1], pair_inputs(*pairs))
    assert found.value == pytest.approx(float(peer.compute()), abs=1e-4)
    assert found.value == pytest.approx(10 * np.log10(255**2 / squared_error(*pairs).mean()), abs=1e-12)
    assert found.estimator == "pooled" and found.per_image.mean() == pytest.approx(found.value, abs=1e-10)
    assert (np.diff(found.per_image[np.argsort(squared_error(*pairs))]) < 0).all()
    assert compute_one(BOTH[0], pair_inputs(*pairs)).value > found.value + 3


def test_pooled_standard_error_is_that_of_a_jackknife(rng):
    y = random_images(rng, 300)
    x = noisy(rng, y, rng.uniform(10, 40, (300, 1, 1, 1)))
    errors = squared_error(x, y)
    left_out = 10 * np.log10(255**2 / ((errors.sum() - errors) / 299))
    jackknife = np.sqrt(299 / 300 * np.square(left_out - left_out.mean()).sum())
    found = compute_one(BOTH[1], pair_inputs(x, y))
    assert found.standard_error == pytest.approx(jackknife, rel=0.01)
    assert found.ci95[1] - found.ci95[0] == pytest.approx(2 * 1.96 * found.standard_error, rel=1e-4)


def test_one_score_serves_both(pairs):
    calls = []

    class Counting(StoredPairs):
        def scores(self, key, score):
            calls.append(key)
            return super().scores(key, score)

    inputs = image_inputs(*pairs, pairs=Counting(*pairs))
    for metric in BOTH:
        metric.compute(inputs)
    assert len(calls) == 1


def test_streamed_scores_give_the_same(pairs):
    errors = np.concatenate([BOTH[0].score_pairs(a[None], b[None]) for a, b in zip(*pairs)])
    for metric in BOTH:
        streamed = image_inputs(*pairs, pairs=ScoredPairs(9, {metric.score_key: errors}))
        assert compute_one(metric, streamed).value == compute_one(metric, pair_inputs(*pairs)).value


def test_identical_pairs_are_infinite_and_not_eighty_decibels(pairs):
    x, y = pairs
    x[:2] = y[:2]
    assert np.isinf(psnr(x[:2], y[:2])).all()
    assert piq.psnr(torch.from_numpy(x[:2]), torch.from_numpy(y[:2]), data_range=255) == pytest.approx(80)
    found = compute_one(BOTH[0], pair_inputs(x, y))
    assert found.value == pytest.approx(psnr(x[2:], y[2:]).mean()) and found.n == 9
    assert "2 of 9 pairs" in found.notes[0] and found.extra["identical_images"] == 2
    assert np.isinf(found.per_image).sum() == 2 and np.isfinite(found.ci95).all()
    pooled = compute_one(BOTH[1], pair_inputs(x, y))
    assert pooled.value == pytest.approx(10 * np.log10(255**2 / squared_error(x, y).mean()))
    assert pooled.extra["identical_images"] == 2


@pytest.mark.parametrize("metric", BOTH, ids=lambda metric: metric.name)
def test_no_finite_value(metric, pairs):
    with pytest.raises(NotApplicable, match="infinite"):
        metric.compute(pair_inputs(pairs[0], pairs[0]))
    with pytest.raises(NotApplicable, match="--pairs"):
        metric.compute(image_inputs(*pairs))
    with pytest.raises(DataError, match="one to one"):
        metric.score_pairs(pairs[0], pairs[0][:, :, :8])


@pytest.mark.parametrize("metric", BOTH, ids=lambda metric: metric.name)
def test_interval_covers(rng, metric):
    def draw():
        y = random_images(rng, 60, (1, 4, 4))
        return pair_inputs(noisy(rng, y, rng.uniform(5, 50, (60, 1, 1, 1))), y)

    assert 0.9 <= coverage(metric, draw, 200) <= 0.99
