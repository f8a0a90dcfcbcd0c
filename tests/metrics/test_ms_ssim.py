"""MS-SSIM: equal to piq at even and odd sizes; where its peers part ways; sizes that five scales do not fit."""

import numpy as np
import piq
import pytest
import torch
from metric_inputs import compute_one, image_inputs, random_images
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from genbench.errors import DataError
from genbench.metrics import NotApplicable
from genbench.metrics.ms_ssim import WEIGHTS, MultiScaleSimilarity, ms_ssim
from genbench.metrics.pairs import StoredPairs


def noisy(rng, images, scale=60):
    return np.clip(images + rng.normal(size=images.shape) * scale, 0, 255).astype(np.uint8)


def of_piq(x, y):
    x, y = (torch.from_numpy(images.copy()).double() for images in (x, y))
    return piq.multi_scale_ssim(x, y, data_range=255.0, reduction="none").numpy()


@pytest.mark.parametrize("shape", [(1, 176, 176), (3, 161, 161), (2, 170, 163), (1, 163, 170), (1, 161, 287)])
def test_equals_piq(rng, shape):
    x = random_images(rng, 2, shape)
    y = noisy(rng, x)
    np.testing.assert_allclose(ms_ssim(x, y), of_piq(x, y), atol=1e-10)


def test_negative_contrast_counts_as_zero(rng):
    x = random_images(rng, 1, (1, 176, 176))
    np.testing.assert_array_equal(ms_ssim(x, 255 - x), [0.0])
    np.testing.assert_array_equal(of_piq(x, 255 - x), [0.0])


def test_negative_similarity_of_the_coarsest_scale_counts_as_zero():
    """Boards of 8 pixels agree and vanish at the last scale, where boards of 16 pixels are opposite."""
    row, column = np.indices((192, 192))
    fine, coarse = (40 * ((row // size + column // size) % 2) for size in (8, 16))
    x, y = ((100 + 2 * fine + sign * coarse).astype(np.uint8)[None, None] for sign in (1, -1))
    np.testing.assert_array_equal(ms_ssim(x, y), [0.0])
    np.testing.assert_array_equal(of_piq(x, y), [0.0])


def test_channels_are_averaged_after_the_product(rng):
    """torchmetrics averages them before, and pads the border of the coarsest scale."""
    x = random_images(rng, 1, (2, 176, 176))
    y = np.stack([noisy(rng, x[:, 0], 5), noisy(rng, x[:, 1], 250)], 1)
    apart = [ms_ssim(x[:, [c]], y[:, [c]])[0] for c in (0, 1)]
    assert ms_ssim(x, y)[0] == pytest.approx(np.mean(apart), abs=1e-12)
    peer = multiscale_structural_similarity_index_measure(
        torch.from_numpy(x).double(), torch.from_numpy(y).double(), data_range=255.0
    )
    assert abs(ms_ssim(x, y)[0] - float(peer)) > 1e-3


def test_constant_images_have_the_luminance_term_alone():
    x, y = np.full((1, 1, 161, 165), 80, np.uint8), np.full((1, 1, 161, 165), 200, np.uint8)
    luminance = (2 * 80 * 200 + 2.55**2) / (80**2 + 200**2 + 2.55**2)
    np.testing.assert_allclose(ms_ssim(x, y), luminance ** WEIGHTS[-1], atol=1e-12)


def test_symmetric_one_where_equal_and_free_of_batches(rng, monkeypatch):
    x = random_images(rng, 3, (2, 161, 162))
    y = noisy(rng, x)
    whole = ms_ssim(x, y)
    np.testing.assert_allclose(ms_ssim(x, x), 1.0, atol=1e-12)
    np.testing.assert_allclose(ms_ssim(y, x), whole, atol=1e-12)
    np.testing.assert_array_equal(np.concatenate([ms_ssim(x[:1], y[:1]), ms_ssim(x[1:], y[1:])]), whole)
    monkeypatch.setattr("genbench.metrics.ms_ssim._BLOCK_VALUES", 1)
    np.testing.assert_allclose(ms_ssim(x, y), whole, atol=1e-14)


def test_estimate(rng):
    x = random_images(rng, 4, (1, 161, 161))
    y = noisy(rng, x)
    found = compute_one(MultiScaleSimilarity(), image_inputs(x, y, pairs=StoredPairs(x, y)))
    values = ms_ssim(x, y)
    assert found.value == pytest.approx(values.mean()) and found.standard_error == pytest.approx(values.std(ddof=1) / 2)
    assert found.conditions == {"protocol": "gaussian-11-piq"} and found.paired_by == "reference image"
    y[1:] = x[1:]
    same = compute_one(MultiScaleSimilarity(), image_inputs(x, y, pairs=StoredPairs(x, y)))
    assert same.value + 1.96 * same.standard_error > 1.0 == same.ci95[1]


@pytest.mark.parametrize("height, width", [(160, 300), (300, 160), (32, 32)])
def test_smallest_size(rng, height, width):
    x = random_images(rng, 2, (1, height, width))
    with pytest.raises(NotApplicable, match=f"at least 161 pixels, the images have {height} x {width}"):
        MultiScaleSimilarity().score_pairs(x, x)
    with pytest.raises(DataError, match="161"):
        ms_ssim(x, x)
    with pytest.raises(ValueError, match="161"):
        of_piq(x, x)
    with pytest.raises(DataError, match="one to one"):
        ms_ssim(x, x[:, :, :9])
