"""The interval of the Fréchet distance: exact left-out values against refits, and coverage of fresh truth."""

import numpy as np
import pytest
from interval_coverage import fresh_coverage
from metric_inputs import compute_one, feature_inputs

from genbench.features.base import Features
from genbench.metrics import MetricInputs, Side
from genbench.metrics.frechet import FrechetInceptionDistance
from genbench.metrics.frechet_interval import (
    INTERVAL_ROWS,
    LeftOut,
    SamplingVariance,
    Spectrum,
    leave_one_out,
    sampling_variance,
    spread_rows,
)
from genbench.metrics.gaussian import fit_gaussian, frechet_distance, gaussian_of
from genbench.metrics.moments import Moments
from genbench.metrics.spatial_frechet import SpatialFrechetDistance
from genbench.metrics.statistics import jackknife_error, normal_interval, positive_interval

SHAPES = [(60, 8, 200), (20, 30, 100), (20, 30, 25), (31, 30, 50), (30, 30, 12)]


def correlated(rng, n, d):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def distance(x, y):
    return frechet_distance(fit_gaussian(x), fit_gaussian(y))


def refits(x, reference, *without):
    return [frechet_distance(fit_gaussian(np.delete(x, rows, 0)), reference) for rows in zip(*without, strict=True)]


@pytest.mark.parametrize("n, d, m", SHAPES)
def test_jackknife_equals_refits(rng, n, d, m):
    x, y = correlated(rng, n, d), correlated(rng, m, d)
    reference, fit = fit_gaussian(y), fit_gaussian(x)
    np.testing.assert_allclose(leave_one_out(x, fit, reference), refits(x, reference, range(n)), rtol=1e-8)


@pytest.mark.parametrize("n, d, m", SHAPES)
def test_pairs_left_out_equal_refits(rng, n, d, m):
    x, y = correlated(rng, n, d), correlated(rng, m, d)
    reference = fit_gaussian(y)
    found = LeftOut(x, Spectrum(fit_gaussian(x), reference), np.arange(n)).pairs()
    expected = refits(x, reference, range(0, n - 1, 2), range(1, n, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize("n, d", [(60, 8), (20, 30)])
def test_moments_and_some_rows_leave_out_the_same(rng, n, d):
    x, y = correlated(rng, n, d), correlated(rng, 100, d)
    reference = fit_gaussian(y)
    some = LeftOut(x[[4, 9, 2]], Spectrum(gaussian_of(Moments.of(x)), reference)).singles()
    np.testing.assert_allclose(some, leave_one_out(x, fit_gaussian(x), reference)[[4, 9, 2]], rtol=1e-8)


def test_jackknife_with_constant_features(rng):
    x, y = correlated(rng, 40, 6), correlated(rng, 90, 6)
    x[:, 2] = y[:, 2] = 3.0
    reference, fit = fit_gaussian(y), fit_gaussian(x)
    np.testing.assert_allclose(leave_one_out(x, fit, reference), refits(x, reference, range(40)), rtol=1e-8)


def test_variance_is_a_jackknife_corrected_for_curvature(rng):
    """Less half of the quadratic part, where that is small; the parts make up the jackknife."""
    x, y = correlated(rng, 60, 5), correlated(rng, 90, 5)
    fit, reference = fit_gaussian(x), fit_gaussian(y)
    found = sampling_variance(x, Spectrum(fit, reference))
    plain = jackknife_error(leave_one_out(x, fit, reference))
    assert found.jackknife == pytest.approx(plain**2, rel=1e-9)
    assert found.first / 60 + found.second / 60**2 == pytest.approx(plain**2, rel=1e-9)
    assert 0.5 * plain < found.standard_error < plain
    assert SamplingVariance(9, 9, 4.0, 1e-3).standard_error ** 2 == pytest.approx(4.0 - 0.5e-3, rel=1e-6)


def test_second_differences_are_those_of_refits(rng):
    n = 12
    x, y = correlated(rng, n, 4), correlated(rng, 50, 4)
    reference = fit_gaussian(y)
    chosen = spread_rows(x)
    one = np.array(refits(x, reference, range(n)))[chosen]
    two = np.array(refits(x, reference, chosen[::2], chosen[1::2]))
    second = n * distance(x, y) - (n - 1) * (one[::2] + one[1::2]) + (n - 2) * two
    assert sampling_variance(x, Spectrum(fit_gaussian(x), reference)).quadratic == pytest.approx(second.var(), rel=1e-6)


@pytest.mark.parametrize("n, d, shift, scale", [(400, 6, 0.5, 1.0), (400, 6, 0.0, 1.0), (30, 40, 0.0, 1.0)])
def test_standard_error_is_that_of_fresh_draws(rng, n, d, shift, scale):
    """Equal distributions too, where a plain jackknife is too wide by the root of 2."""
    reference = fit_gaussian(rng.normal(size=(1000, d)))
    spectra = [(x, Spectrum(fit_gaussian(x), reference)) for x in rng.normal(size=(400, n, d)) * scale + shift]
    errors = [sampling_variance(x, spectrum).standard_error for x, spectrum in spectra]
    assert np.mean(errors) == pytest.approx(np.std([spectrum.distance for _, spectrum in spectra]), rel=0.12)


@pytest.mark.parametrize(
    "n, d, m, shift, scale",
    [
        (24, 32, 500, 0.3, 1.2),
        (60, 60, 500, 0.0, 1.0),
        (33, 30, 300, 0.2, 1.1),
        (300, 16, 1000, 0.3, 1.2),
        (1000, 4, 1000, 0.2, 1.0),
        (200, 4, 2000, 0.0, 1.0),
    ],
    ids=["N < d", "N = d, equal", "N ~ d", "N > d", "N >> d", "N >> d, equal"],
)
def test_coverage(rng, n, d, m, shift, scale):
    y = rng.normal(size=(m, d))
    share = fresh_coverage(
        FrechetInceptionDistance(), lambda: feature_inputs(rng.normal(size=(n, d)) * scale + shift, y), draws=400
    )
    assert 0.9 <= share <= 0.99


def test_coverage_of_moments_with_some_rows(rng):
    """More samples than the interval looks at, of which only some rows were kept."""
    y = Side.of("reference images", Features(rng.normal(size=(2000, 3))))

    def draw():
        x = rng.normal(size=(1500, 3)) * [1.0, 1.3, 0.8] + 0.1
        samples = Side("samples", len(x), given_moments=Moments.of(x), sampled_features=x[:200])
        return MetricInputs(samples, y)

    assert 0.9 <= fresh_coverage(FrechetInceptionDistance(), draw, draws=300) <= 0.99


def spatial_inputs(x, y):
    return MetricInputs(
        Side.of("samples", Features(np.zeros((len(x), 2)), spatial=x)),
        Side.of("reference images", Features(np.zeros((len(y), 2)), spatial=y)),
    )


def test_coverage_of_sfid(rng):
    y = rng.normal(size=(500, 12))
    share = fresh_coverage(
        SpatialFrechetDistance(), lambda: spatial_inputs(rng.normal(size=(40, 12)) * 1.1 + 0.2, y), draws=400
    )
    assert 0.9 <= share <= 0.99


def test_sfid_is_the_distance_of_spatial_features(rng):
    x, y = correlated(rng, 50, 6), correlated(rng, 70, 6)
    expected = compute_one(FrechetInceptionDistance(), feature_inputs(x, y))
    found = compute_one(SpatialFrechetDistance(), spatial_inputs(x, y))
    assert (found.value, found.ci95) == (expected.value, expected.ci95)
    moments = Side(
        "samples", 50, given_moments=Moments.empty(2), given_spatial_moments=Moments.of(x), sampled_spatial=x[:20]
    )
    streamed = compute_one(SpatialFrechetDistance(), MetricInputs(moments, spatial_inputs(x, y).reference))
    assert streamed.value == pytest.approx(expected.value, rel=1e-10)
    assert streamed.standard_error == pytest.approx(expected.standard_error, rel=0.5)


def test_spread_rows_are_the_same_rows_in_any_order(rng):
    x = rng.normal(size=(3 * INTERVAL_ROWS, 5))
    order = rng.permutation(len(x))
    chosen = spread_rows(x)
    assert len(set(chosen)) == INTERVAL_ROWS
    np.testing.assert_array_equal(x[chosen], x[order][spread_rows(x[order])])
    assert sorted(spread_rows(x[:10])) == list(range(10))


def test_interval_of_a_square_is_normal_where_precise_and_stays_positive():
    assert positive_interval(100.0, 0.5) == pytest.approx(normal_interval(100.0, 0.5), rel=1e-4)
    assert positive_interval(0.0, 2.0) == pytest.approx((0.0, 3.92), rel=1e-3)
    low, high = positive_interval(1.0, 0.7)
    assert 0 < low < 1 < high
    assert positive_interval(1e-12, 2.0)[1] == pytest.approx(3.92, rel=1e-3)
