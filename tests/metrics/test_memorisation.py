"""Distance to the nearest training image: exact, and able to tell a memoriser from an honest model."""

import numpy as np
import pytest
from metric_inputs import compute_one, image_inputs, random_images

from genbench.metrics.memorisation import MemorisedShare, NearestTrainDistance, nearest_images


def test_equals_naive_search(rng, monkeypatch):
    monkeypatch.setattr("genbench.metrics.memorisation._BLOCK", 8)
    monkeypatch.setattr("genbench.metrics.memorisation._REFERENCE_BLOCK", 10)
    x, y = random_images(rng, 30, (3, 4, 4)), random_images(rng, 45, (3, 4, 4))
    distances = np.sqrt(np.square(x[:, None] / 255.0 - y[None] / 255.0).mean((2, 3, 4)))
    found = nearest_images(x, y)
    assert (found.index == distances.argmin(1)).all()
    np.testing.assert_allclose(found.distance, distances.min(1), rtol=1e-12)


def test_scale():
    white, black = np.full((1, 1, 4, 4), 255, np.uint8), np.zeros((1, 1, 4, 4), np.uint8)
    assert nearest_images(white, black).distance[0] == 1.0


def smooth_images(rng, num_images):
    """Images of a few degrees of freedom, so that nearest neighbours are near."""
    basis = np.linspace(0, 1, 64).reshape(8, 8)
    weights = rng.uniform(size=(num_images, 2, 1, 1))
    return (255 * np.clip(weights[:, :1] * basis + (1 - weights[:, 1:]) * basis.T, 0, 1) / 2).astype(np.uint8)


@pytest.fixture
def splits(rng):
    return smooth_images(rng, 600), smooth_images(rng, 400)


def test_memoriser_is_flagged_and_fresh_data_is_not(splits, rng):
    train, test = splits
    memoriser = compute_one(MemorisedShare(), image_inputs(train[:200], train, test))
    honest = compute_one(MemorisedShare(), image_inputs(smooth_images(rng, 400), train, test))
    assert memoriser.value == 1.0
    assert honest.ci95[0] <= 0.05 <= honest.ci95[1] and honest.value < 0.12
    assert honest.extra["expected"] == 0.05 and honest.extra["test_split"] == pytest.approx(0.05, abs=0.01)


def test_memoriser_is_flagged_where_the_test_split_repeats_training_images(splits):
    train, test = splits
    leaky = np.concatenate([train[:60], test])
    assert compute_one(MemorisedShare(), image_inputs(train[100:200], train, leaky)).value == 1.0


def test_distance_of_copies_is_zero_and_the_test_split_stands_beside(splits):
    train, test = splits
    copies = compute_one(NearestTrainDistance(), image_inputs(train[:50], train, test))
    itself = compute_one(NearestTrainDistance(), image_inputs(test, train, test))
    assert copies.value == 0.0
    assert itself.value == itself.extra["test_split"] == copies.extra["test_split"] > 0


def test_far_samples_are_no_copies(splits, rng):
    train, test = splits
    assert compute_one(MemorisedShare(), image_inputs(random_images(rng, 50), train, test)).value == 0.0
