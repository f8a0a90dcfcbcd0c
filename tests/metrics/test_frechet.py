"""Fréchet distance: closed forms, independent computation, the jackknife against refits, coverage."""

import numpy as np
import pytest
import scipy.linalg
from metric_inputs import compute_one, coverage, feature_inputs

from genbench.errors import DataError
from genbench.metrics.frechet import (
    FrechetInceptionDistance,
    fit_gaussian,
    frechet_distance,
    gaussian_from_moments,
    leave_one_out,
)


def by_sqrtm(x, y):
    """The textbook formula, independent of the package."""
    s1, s2 = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(s1 @ s2)
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s1) + np.trace(s2) - 2 * np.trace(root).real


def correlated(rng, n, d, scale=1.0):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * scale + rng.normal(size=d)


def distance(x, y):
    return frechet_distance(fit_gaussian(x), fit_gaussian(y))


def test_two_gaussians_in_closed_form():
    """Commuting covariances: |m1 - m2|^2 + sum (sqrt s1 - sqrt s2)^2."""
    s1, s2 = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.25])
    m1, m2 = np.array([1.0, 0.0, 2.0]), np.array([0.0, 0.0, 4.0])
    found = frechet_distance(gaussian_from_moments(m1, np.diag(s1), 10), gaussian_from_moments(m2, np.diag(s2), 10))
    assert found == pytest.approx(1 + 4 + 1 + 1 + 2.5**2, rel=1e-12)


@pytest.mark.parametrize("sizes", [(500, 300), (40, 3000)])
def test_equals_matrix_square_root(rng, sizes):
    x, y = correlated(rng, sizes[0], 24), correlated(rng, sizes[1], 24)
    assert distance(x, y) == pytest.approx(by_sqrtm(x, y), rel=1e-9)


def test_symmetric(rng):
    for n, m in [(100, 200), (10, 200), (10, 12)]:
        x, y = correlated(rng, n, 16), correlated(rng, m, 16)
        assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-10)


def test_low_rank_route_equals_full_route(rng):
    """Zero columns raise d above N without changing the distance, and so choose the other route."""
    x, y = correlated(rng, 30, 12), correlated(rng, 50, 12)
    wide = [np.concatenate([a, np.zeros((len(a), 60))], 1) for a in (x, y)]
    assert not fit_gaussian(x).low_rank and fit_gaussian(wide[0]).low_rank
    assert distance(*wide) == pytest.approx(distance(x, y), rel=1e-10)
    assert frechet_distance(
        fit_gaussian(wide[0]), gaussian_from_moments(wide[1].mean(0), np.cov(wide[1].T), 500)
    ) == pytest.approx(distance(x, y), rel=1e-9)


def test_equal_sets_and_shift(rng):
    x = correlated(rng, 200, 8)
    assert distance(x, x) == pytest.approx(0.0, abs=1e-10)
    assert distance(x, x + 2.0) == pytest.approx(4.0 * 8, rel=1e-10)


def test_order_does_not_matter(rng):
    x, y = correlated(rng, 200, 8), correlated(rng, 300, 8)
    assert distance(rng.permutation(x), y) == pytest.approx(distance(x, y), rel=1e-12)


@pytest.mark.parametrize("n, d, m", [(60, 8, 200), (20, 30, 100), (20, 30, 25), (31, 30, 50)])
def test_jackknife_equals_refits(rng, n, d, m):
    x, y = correlated(rng, n, d), correlated(rng, m, d)
    reference, fit = fit_gaussian(y), fit_gaussian(x)
    refits = [frechet_distance(fit_gaussian(np.delete(x, i, 0)), reference) for i in range(n)]
    np.testing.assert_allclose(leave_one_out(x, fit, reference), refits, rtol=1e-7)


def test_jackknife_with_constant_features(rng):
    x, y = correlated(rng, 40, 6), correlated(rng, 90, 6)
    x[:, 2] = y[:, 2] = 3.0
    reference, fit = fit_gaussian(y), fit_gaussian(x)
    refits = [frechet_distance(fit_gaussian(np.delete(x, i, 0)), reference) for i in range(40)]
    np.testing.assert_allclose(leave_one_out(x, fit, reference), refits, rtol=1e-7)


@pytest.mark.parametrize("n, d, shift", [(300, 16, 0.3), (24, 32, 0.3)])
def test_interval_holds_the_expectation(rng, n, d, shift):
    y = rng.normal(size=(1000, d))
    share = coverage(
        FrechetInceptionDistance(), lambda: feature_inputs(rng.normal(size=(n, d)) * 1.2 + shift, y), repetitions=60
    )
    assert share >= 0.88


def test_interval_is_not_too_wide(rng):
    """The standard error is that of fresh draws, within a fifth."""
    y = rng.normal(size=(1000, 8))
    found = [
        compute_one(FrechetInceptionDistance(), feature_inputs(rng.normal(size=(400, 8)) + 0.5, y)) for _ in range(100)
    ]
    half = np.mean([e.ci95[1] - e.ci95[0] for e in found]) / 2
    assert half == pytest.approx(1.96 * np.std([e.value for e in found]), rel=0.2)


def test_notes_fewer_samples_than_features(rng):
    estimate = compute_one(
        FrechetInceptionDistance(), feature_inputs(rng.normal(size=(10, 16)), rng.normal(size=(50, 16)))
    )
    assert "10 samples for 16 features" in estimate.notes[0] and len(estimate.notes) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_features_that_are_not_finite(rng, bad):
    x = rng.normal(size=(20, 4))
    x[3, 1] = bad
    with pytest.raises(DataError, match="row 3"):
        FrechetInceptionDistance().compute(feature_inputs(x, rng.normal(size=(30, 4))))


def test_refuses_one_sample(rng):
    with pytest.raises(DataError, match="at least 2"):
        FrechetInceptionDistance().compute(feature_inputs(np.ones((1, 4)), rng.normal(size=(30, 4))))
    with pytest.raises(DataError, match="at least 2"):
        fit_gaussian(np.ones((1, 4)))


def test_refuses_unlike_widths(rng):
    with pytest.raises(DataError, match="width 4"):
        FrechetInceptionDistance().compute(feature_inputs(rng.normal(size=(9, 4)), rng.normal(size=(30, 5))))
