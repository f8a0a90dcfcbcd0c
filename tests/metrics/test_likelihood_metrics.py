"""Bits per dimension and nats per image: numbers, kinds, noise."""

import math

import numpy as np
import pytest
from metric_inputs import compute_one, image_inputs, random_images

from genbench.errors import DataError
from genbench.metrics import ImageLikelihoods, NotApplicable
from genbench.metrics.likelihood import BitsPerDim, NatsPerImage
from genbench.metrics.scoring import score


def inputs(rng, *likelihoods, shape=(3, 4, 5)):
    images = random_images(rng, 6, shape)
    return image_inputs(images, images, likelihoods=likelihoods)


def test_uniform_model_over_256_levels_has_eight_bits(rng):
    nats = np.full(6, -60 * math.log(256))
    found = compute_one(BitsPerDim(), inputs(rng, ImageLikelihoods(nats, "exact", "exact")))
    assert found.value == pytest.approx(8.0, rel=1e-12)
    assert found.kind == "exact" and found.n == 6
    assert compute_one(NatsPerImage(), inputs(rng, ImageLikelihoods(nats, "exact", "exact"))).value == pytest.approx(
        60 * math.log(256)
    )


def test_bounds_turn_around_and_estimators_stay_apart(rng):
    nats = rng.normal(size=6) - 50
    given = [
        ImageLikelihoods(nats - i, kind, name)
        for i, (kind, name) in enumerate([("exact", "exact"), ("lower_bound", "elbo"), ("estimate", "ais-forward")])
    ]
    found = BitsPerDim().compute(inputs(rng, *given))
    assert [(e.kind, e.estimator) for e in found] == [
        ("exact", "exact"),
        ("upper_bound", "elbo"),
        ("estimate", "ais-forward"),
    ]
    assert found[0].value < found[1].value < found[2].value
    np.testing.assert_allclose(found[0].per_image, -nats / (60 * math.log(2)))


def test_interval_and_monte_carlo_error(rng):
    nats = rng.normal(size=6) - 50
    found = compute_one(NatsPerImage(), inputs(rng, ImageLikelihoods(nats, "lower_bound", "elbo", np.full(6, 0.6))))
    half = 1.959964 * nats.std(ddof=1) / math.sqrt(6)
    assert found.ci95 == pytest.approx((-nats.mean() - half, -nats.mean() + half), rel=1e-6)
    assert found.extra["monte_carlo_error"] == pytest.approx(0.6 / math.sqrt(6))
    bits = compute_one(BitsPerDim(), inputs(rng, ImageLikelihoods(nats, "lower_bound", "elbo", np.full(6, 0.6))))
    assert bits.extra["monte_carlo_error"] == pytest.approx(0.6 / math.sqrt(6) / (60 * math.log(2)))


def test_refuses_nothing_infinite_and_unknown_kinds(rng):
    with pytest.raises(NotApplicable, match="no likelihood"):
        BitsPerDim().compute(inputs(rng))
    with pytest.raises(DataError, match="1 of 2 test images"):
        BitsPerDim().compute(inputs(rng, ImageLikelihoods(np.array([-1.0, -np.inf]), "exact", "exact")))
    with pytest.raises(DataError, match="kind 'upper_bound'"):
        BitsPerDim().compute(inputs(rng, ImageLikelihoods(np.array([-1.0, -2.0]), "upper_bound", "x")))


def test_an_error_that_all_images_share_widens_the_interval_and_does_not_shrink_with_them(rng):
    nats = rng.normal(size=6) - 50
    alone = compute_one(NatsPerImage(), inputs(rng, ImageLikelihoods(nats, "estimate", "ais")))
    both = compute_one(
        NatsPerImage(), inputs(rng, ImageLikelihoods(nats, "estimate", "ais", None, 0.7, {"chains": 5.0}))
    )
    assert both.value == alone.value and both.extra["chains"] == 5.0 and both.extra["shared_error"] == 0.7
    assert both.standard_error == pytest.approx(math.hypot(alone.standard_error, 0.7))
    assert both.ci95[1] - both.value == pytest.approx(1.959964 * both.standard_error, rel=1e-6)
    bits = compute_one(BitsPerDim(), inputs(rng, ImageLikelihoods(nats, "estimate", "ais", None, 0.7)))
    assert bits.standard_error == pytest.approx(both.standard_error / (60 * math.log(2)))


def test_an_estimate_that_did_not_converge_says_so_and_stops_no_other(rng):
    good = ImageLikelihoods(rng.normal(size=6) - 50, "estimate", "ais-forward")
    bad = ImageLikelihoods(np.empty(0), "estimate", "ais-reverse", failure="did not converge: 3 of 100 chains count")
    results, arrays = score(inputs(rng, good, bad), ["nats_per_image"], {}, {})
    assert [(r.estimator, r.status) for r in results] == [("ais-forward", "ok"), ("ais-reverse", "failed")]
    assert results[1].reason == bad.failure and results[1].value is None
    assert list(arrays) == ["nats_per_image.ais-forward"]
