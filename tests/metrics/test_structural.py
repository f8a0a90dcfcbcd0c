"""SSIM and PSNR: equal to scikit-image; the 7 x 7 protocol against its definition; pairwise SSIM."""

import numpy as np
import pytest
from metric_inputs import compute_one, image_inputs, random_images
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from genbench.errors import DataError, UsageError
from genbench.metrics import NotApplicable
from genbench.metrics.pairs import StoredPairs
from genbench.metrics.psnr import PeakSignalToNoiseRatio, psnr
from genbench.metrics.structural import (
    PairwiseSimilarity,
    StructuralSimilarity,
    gaussian_window,
    pair_mean_error,
    sample_pairs,
    ssim,
)


def noisy(rng, images, scale=30):
    return np.clip(images + rng.normal(size=images.shape) * scale, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 20), (1, 11, 11)])
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


def test_blocks_change_nothing(rng, monkeypatch):
    x = random_images(rng, 9, (1, 12, 12))
    y = noisy(rng, x)
    whole = ssim(x, y)
    monkeypatch.setattr("genbench.metrics.structural._BLOCK_VALUES", 300)
    np.testing.assert_allclose(ssim(x, y), whole, atol=1e-14)


def test_psnr_equals_scikit_image(rng):
    x = random_images(rng, 5, (3, 16, 16))
    y = noisy(rng, x)
    expected = [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(x, y)]
    np.testing.assert_allclose(psnr(x, y), expected, rtol=1e-12)


def reconstruction_inputs(originals, reconstructions):
    pairs = None if reconstructions is None else StoredPairs(reconstructions, originals[: len(reconstructions)])
    return image_inputs(originals, originals, pairs=pairs)


def test_metrics_are_means_over_the_first_test_images(rng):
    originals = random_images(rng, 12, (1, 12, 12))
    rebuilt = noisy(rng, originals)[:7]
    found = compute_one(StructuralSimilarity(), reconstruction_inputs(originals, rebuilt))
    assert found.value == pytest.approx(ssim(rebuilt, originals[:7]).mean()) and found.n == 7
    assert found.conditions == {"protocol": "gaussian-11"} and found.per_image.shape == (7,)
    decibels = compute_one(PeakSignalToNoiseRatio(), reconstruction_inputs(originals, rebuilt))
    assert decibels.value == pytest.approx(psnr(rebuilt, originals[:7]).mean())


def test_psnr_leaves_identical_images_out(rng):
    originals = random_images(rng, 6)
    rebuilt = noisy(rng, originals)
    rebuilt[:2] = originals[:2]
    found = compute_one(PeakSignalToNoiseRatio(), reconstruction_inputs(originals, rebuilt))
    assert found.value == pytest.approx(psnr(rebuilt[2:], originals[2:]).mean())
    assert "2 of 6 images" in found.notes[0] and found.extra["identical_images"] == 2
    with pytest.raises(NotApplicable, match="infinite"):
        PeakSignalToNoiseRatio().compute(reconstruction_inputs(originals, originals))


def test_without_or_with_wrong_reconstructions(rng):
    originals = random_images(rng, 6, (1, 12, 12))
    for metric in (StructuralSimilarity(), PeakSignalToNoiseRatio()):
        with pytest.raises(NotApplicable, match="does not reconstruct"):
            metric.compute(reconstruction_inputs(originals, None))
        with pytest.raises(DataError, match="expected uint8"):
            metric.compute(reconstruction_inputs(originals, originals[:, :, :8]))


def test_window_must_fit(rng):
    images = random_images(rng, 4)
    with pytest.raises(NotApplicable, match="window = 7"):
        StructuralSimilarity().compute(reconstruction_inputs(images, images))
    assert compute_one(StructuralSimilarity(window=7), reconstruction_inputs(images, images)).value == pytest.approx(1)
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
