"""SSIM: equal to scikit-image; the traps of its peers; the 7 x 7 protocol against its definition; pairwise SSIM."""

import numpy as np
import piq
import pytest
import torch
from metric_inputs import compute_one, coverage, image_inputs, random_images
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from genbench.errors import DataError, UsageError
from genbench.metrics import NotApplicable
from genbench.metrics.pairs import StoredPairs
from genbench.metrics.similarity_maps import gaussian_window
from genbench.metrics.structural import (
    PairwiseSimilarity,
    StructuralSimilarity,
    pair_mean_error,
    sample_pairs,
    ssim,
)


def noisy(rng, images, scale=30):
    return np.clip(images + rng.normal(size=images.shape) * scale, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (1, 11, 11), (4, 11, 95), (3, 67, 12), (1, 150, 513)])
def test_ssim_equals_scikit_image(rng, shape):
    x = random_images(rng, 6, shape)
    y = noisy(rng, x)
    expected = [
        structural_similarity(
            a, b, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        for a, b in zip(x, y)
    ]
    np.testing.assert_allclose(ssim(x, y), expected, atol=1e-6)


def test_small_window_is_the_gaussian_cut_to_seven_pixels(rng):
    x = random_images(rng, 4)
    y = noisy(rng, x)

    def smooth(image):
        return gaussian_filter(image.astype(float), 1.5, radius=3)[3:-3, 3:-3]

    expected = []
    for a, b in zip(x[:, 0], y[:, 0]):
        a, b = a.astype(float), b.astype(float)
        ma, mb = smooth(a), smooth(b)
        va, vb, cov = smooth(a * a) - ma**2, smooth(b * b) - mb**2, smooth(a * b) - ma * mb
        c1, c2 = 2.55**2, 7.65**2
        expected.append(((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean())
    np.testing.assert_allclose(ssim(x, y, window=7), expected, atol=1e-10)


def test_window_is_normalised_and_symmetric():
    for size in (7, 11):
        window = gaussian_window(size)
        assert window.sum() == pytest.approx(1.0) and len(window) == size
        np.testing.assert_allclose(window, window[::-1])


def test_ssim_of_equal_images_is_one_and_it_is_symmetric(rng):
    x = random_images(rng, 5, (3, 16, 16))
    y = noisy(rng, x)
    np.testing.assert_allclose(ssim(x, x), 1.0, atol=1e-12)
    np.testing.assert_allclose(ssim(x, y), ssim(y, x), atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 33, 47), (2, 200, 30), (1, 30, 200)])
def test_blocks_and_batches_change_nothing(rng, monkeypatch, shape):
    x = random_images(rng, 5, shape)
    y = noisy(rng, x)
    whole = ssim(x, y)
    np.testing.assert_array_equal(np.concatenate([ssim(x[:2], y[:2]), ssim(x[2:], y[2:])]), whole)
    monkeypatch.setattr("genbench.metrics.similarity_maps._BLOCK_VALUES", 1500)
    monkeypatch.setattr("genbench.metrics.similarity_maps._MIN_ROWS", 7)
    np.testing.assert_allclose(ssim(x, y), whole, atol=1e-14)


def test_constant_images_have_the_luminance_term_alone(rng):
    """Variances of flat bright images must cancel: in float32 they do not."""
    x = np.array([0, 3, 200, 255, 255], np.uint8)[:, None, None, None] * np.ones((1, 20, 24), np.uint8)
    y = np.array([255, 4, 201, 254, 255], np.uint8)[:, None, None, None] * np.ones((1, 20, 24), np.uint8)
    a, b = x[:, 0, 0, 0].astype(float), y[:, 0, 0, 0].astype(float)
    np.testing.assert_allclose(ssim(x, y), (2 * a * b + 2.55**2) / (a * a + b * b + 2.55**2), atol=1e-12)


def test_border_is_left_out_where_torchmetrics_pads_it(rng):
    x = random_images(rng, 3, (3, 24, 31))
    y = noisy(rng, x)
    as_tensors = [torch.from_numpy(images).double() for images in (x, y)]
    padded, full = structural_similarity_index_measure(
        *as_tensors, data_range=255.0, reduction="none", return_full_image=True
    )
    np.testing.assert_allclose(ssim(x, y), full[..., 5:-5, 5:-5].mean((1, 2, 3)), atol=1e-10)
    assert np.abs(ssim(x, y) - padded.numpy()).min() > 1e-4


def test_large_images_are_not_shrunk_as_in_piq(rng):
    x = np.broadcast_to(np.linspace(30, 220, 400), (1, 1, 512, 400)).astype(np.uint8)
    y = noisy(rng, x)
    as_tensors = [torch.from_numpy(images).double() for images in (x, y)]
    whole, shrunk = (
        piq.ssim(*as_tensors, data_range=255.0, reduction="none", downsample=down).numpy() for down in (False, True)
    )
    np.testing.assert_allclose(ssim(x, y), whole, atol=1e-10)
    assert abs(whole - shrunk) > 1e-2


def test_data_range_is_that_of_uint8_whatever_the_images_hold(rng):
    x = random_images(rng, 4, (1, 16, 16)) // 16
    y = x[::-1]
    for wrong in (1.0, 15.0):
        other = [structural_similarity(a[0], b[0], gaussian_weights=True, data_range=wrong) for a, b in zip(x, y)]
        assert np.abs(ssim(x, y) - other).min() > 1e-2


def stored_pairs(originals, rebuilt):
    return image_inputs(originals, originals, pairs=StoredPairs(rebuilt, originals))


def test_estimate_is_the_mean_over_pairs(rng):
    originals = random_images(rng, 7, (1, 12, 12))
    rebuilt = noisy(rng, originals)
    found = compute_one(StructuralSimilarity(), stored_pairs(originals, rebuilt))
    values = ssim(rebuilt, originals)
    assert found.value == pytest.approx(values.mean()) and found.n == 7
    assert found.standard_error == pytest.approx(values.std(ddof=1) / np.sqrt(7))
    assert found.ci95 == pytest.approx(
        (found.value - 1.96 * found.standard_error, found.value + 1.96 * found.standard_error), abs=1e-4
    )
    assert found.conditions == {"protocol": "gaussian-11"} and found.paired_by == "reference image"
    np.testing.assert_array_equal(found.per_image, values)


def test_interval_stays_in_the_range_of_the_metric(rng):
    originals = random_images(rng, 4, (1, 12, 12))
    rebuilt = originals.copy()
    rebuilt[0] = noisy(rng, originals[:1])
    found = compute_one(StructuralSimilarity(), stored_pairs(originals, rebuilt))
    assert found.value + 1.96 * found.standard_error > 1.0 == found.ci95[1]


def test_one_pair_has_no_interval(rng):
    images = random_images(rng, 1, (1, 12, 12))
    found = compute_one(StructuralSimilarity(), stored_pairs(images, images))
    assert (found.value, found.ci95, found.interval, found.standard_error) == (pytest.approx(1.0), None, None, None)


def test_interval_covers(rng):
    def draw():
        originals = random_images(rng, 60, (1, 11, 11))
        return stored_pairs(originals, noisy(rng, originals, rng.uniform(10, 60, (60, 1, 1, 1))))

    assert 0.9 <= coverage(StructuralSimilarity(), draw, 200) <= 0.99


def test_without_or_with_wrong_pairs(rng):
    originals = random_images(rng, 6, (1, 12, 12))
    with pytest.raises(NotApplicable, match="does not reconstruct"):
        StructuralSimilarity().compute(image_inputs(originals, originals))
    with pytest.raises(DataError, match="expected uint8"):
        stored_pairs(originals, originals[:, :, :8])
    with pytest.raises(DataError, match="one to one"):
        ssim(originals, originals[:, :, :11])


def test_window_must_fit(rng):
    images, small = random_images(rng, 4), random_images(rng, 1, (1, 6, 9))
    with pytest.raises(NotApplicable, match="window = 7"):
        StructuralSimilarity().compute(stored_pairs(images, images))
    with pytest.raises(NotApplicable, match="of 6 x 9 pixels"):
        StructuralSimilarity(window=7).score_pairs(small, small)
    seven = compute_one(StructuralSimilarity(window=7), stored_pairs(images, images))
    assert seven.value == pytest.approx(1) and seven.conditions == {"protocol": "gaussian-7"}
    with pytest.raises(UsageError, match="one of 11, 7"):
        StructuralSimilarity(window=9)
    with pytest.raises(DataError, match="does not fit"):
        ssim(images, images)


@pytest.mark.parametrize("num_images, partners, count", [(2, 4, 1), (3, 4, 3), (4, 4, 6), (9, 3, 27), (100, 4, 400)])
def test_pairs_are_distinct_and_balanced(num_images, partners, count):
    pairs = sample_pairs(num_images, partners)
    assert len({frozenset(p) for p in pairs.tolist()}) == len(pairs) == count
    assert len(set(np.bincount(pairs.ravel(), minlength=num_images))) == 1


def test_pairwise_similarity_sees_diversity(rng):
    train = random_images(rng, 80)
    few = train[rng.integers(0, 2, 80)]
    diverse = compute_one(PairwiseSimilarity(window=7), image_inputs(train, train))
    collapsed = compute_one(PairwiseSimilarity(window=7), image_inputs(few, train))
    assert abs(diverse.value) < 0.05 and collapsed.value > 0.3
    assert collapsed.extra["test_split"] == diverse.value == diverse.extra["test_split"]


def test_error_of_a_mean_over_pairs(rng):
    """For values u_i + u_j the error is known: each image's share is 2 / n of its u, whatever the number of pairs."""
    pairs = sample_pairs(400, 4)
    means, errors = [], []
    for _ in range(200):
        u = rng.normal(size=400)
        values = u[pairs].sum(1)
        means.append(values.mean())
        errors.append(pair_mean_error(values, pairs, 400))
    assert np.std(means) == pytest.approx(2 / 20, rel=0.15)
    assert np.mean(errors) == pytest.approx(2 / 20, rel=0.05)
