"""Fréchet distance: closed forms, independent computation, routes that agree, metamorphic properties, bad input."""

import tracemalloc

import mpmath
import numpy as np
import pytest
import scipy.linalg
from metric_inputs import FakeExtractor, compute_one, feature_inputs

from genbench.errors import DataError
from genbench.features.base import Features
from genbench.metrics import MetricInputs, NotApplicable, Side
from genbench.metrics.frechet import FrechetInceptionDistance
from genbench.metrics.frechet_interval import Spectrum
from genbench.metrics.gaussian import fit_gaussian, frechet_distance, gaussian_from_moments, gaussian_of
from genbench.metrics.moments import Moments


def by_sqrtm(x, y):
    """The textbook formula, independent of the package."""
    s1, s2 = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(s1 @ s2)
    return np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s1) + np.trace(s2) - 2 * np.trace(root).real


def by_mpmath(x, y, digits=50):
    """The same in 50 digits: tr (S1 S2)^(1/2) from the symmetric R S2 R with R the root of S1."""
    with mpmath.workdps(digits):
        scatter = []
        for values in (x, y):
            rows = mpmath.matrix(values.tolist())
            mean = [mpmath.fsum(rows[:, j]) / rows.rows for j in range(rows.cols)]
            centred = mpmath.matrix(rows.rows, rows.cols)
            for i in range(rows.rows):
                for j in range(rows.cols):
                    centred[i, j] = rows[i, j] - mean[j]
            scatter.append((mean, centred.T * centred / (rows.rows - 1)))
        (m1, s1), (m2, s2) = scatter
        values, vectors = mpmath.eigsy(s1)
        root = vectors * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * vectors.T
        roots = mpmath.fsum(mpmath.sqrt(max(v, 0)) for v in mpmath.eigsy(root * s2 * root, eigvals_only=True))
        trace = mpmath.fsum(s1[i, i] + s2[i, i] for i in range(s1.rows))
        shift = mpmath.fsum((a - b) ** 2 for a, b in zip(m1, m2, strict=True))
        return float(shift + trace - 2 * roots)


def correlated(rng, n, d, scale=1.0):
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) * scale + rng.normal(size=d)


def distance(x, y):
    return frechet_distance(fit_gaussian(x), fit_gaussian(y))


def moments_side(who, features, count="known"):
    """A side of which only mean and covariance are known."""
    moments = Moments.of(features)
    if count is None:
        moments = Moments.from_covariance(moments.mean, moments.covariance(), None)
    return Side(who, moments.count, given_moments=moments)


def inputs_of(samples, reference):
    return MetricInputs(samples, reference, extractor=FakeExtractor())


def fid(samples, reference):
    return compute_one(FrechetInceptionDistance(), inputs_of(samples, reference))


def side(who, features):
    return Side.of(who, Features(features))


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


@pytest.mark.parametrize("n, d", [(60, 12), (8, 12), (13, 12)])
def test_equals_fifty_digits(rng, n, d):
    """Scales over six orders of magnitude in any order, as dead and live features have."""
    scales = rng.permutation(np.logspace(0, -6, d))
    x, y = (rng.normal(size=(k, d)) * scales for k in (n, 40))
    assert distance(x, y) == pytest.approx(by_mpmath(x, y), rel=1e-9)


def test_small_eigenvalues_keep_their_digits(rng):
    """Against singular values of the factors, which lose none, where the eigenvalues of S1 S2 span 16 orders."""
    scales = rng.permutation(np.logspace(0, -4, 200))
    a, b = (fit_gaussian(rng.normal(size=(n, 200)) * scales) for n in (600, 900))
    roots = scipy.linalg.svdvals(a.factor.T @ b.factor).sum()
    expected = np.square(a.mean - b.mean).sum() + a.trace + b.trace - 2 * roots
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)
    assert Spectrum(a, b).distance == pytest.approx(expected, rel=1e-10)


def test_symmetric(rng):
    for n, m in [(100, 200), (10, 200), (10, 12)]:
        x, y = correlated(rng, n, 16), correlated(rng, m, 16)
        assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-10)
        swapped = [fid(side("samples", a), side("reference images", b)).value for a, b in ((x, y), (y, x))]
        assert swapped[0] == pytest.approx(swapped[1], rel=1e-9)


def test_low_rank_route_equals_full_route(rng):
    """Zero columns raise d above N without changing the distance, and so choose the other route."""
    x, y = correlated(rng, 30, 12), correlated(rng, 50, 12)
    wide = [np.concatenate([a, np.zeros((len(a), 60))], 1) for a in (x, y)]
    assert not fit_gaussian(x).low_rank and fit_gaussian(wide[0]).low_rank
    assert distance(*wide) == pytest.approx(distance(x, y), rel=1e-10)
    assert frechet_distance(
        fit_gaussian(wide[0]), gaussian_from_moments(wide[1].mean(0), np.cov(wide[1].T), 500)
    ) == pytest.approx(distance(x, y), rel=1e-9)


@pytest.mark.parametrize("n, m", [(200, 300), (10, 300), (10, 12)])
def test_moments_alone_give_the_distance_of_the_features(rng, n, m):
    """Singular covariances too: their rank is known from the count."""
    x, y = correlated(rng, n, 16), correlated(rng, m, 16)
    expected = distance(x, y)
    pairs = [
        (moments_side("samples", x), side("reference images", y)),
        (side("samples", x), moments_side("reference images", y)),
        (moments_side("samples", x), moments_side("reference images", y)),
    ]
    for pair in pairs:
        assert fid(*pair).value == pytest.approx(expected, rel=1e-9)


def test_count_tells_the_rank(rng):
    """Rounding noise below the rank that n samples can have is no part of the distance."""
    covariance = np.diag([1.0, 1.0, 1e-10, 1e-10])
    known, unknown = (gaussian_from_moments(np.zeros(4), covariance, n) for n in (3, None))
    assert known.factor.shape == (4, 2) and unknown.factor.shape == (4, 4)


def test_parts_merge_to_the_whole(rng):
    x, y = correlated(rng, 700, 16), correlated(rng, 300, 16)
    parts = Moments.empty(16)
    for part in np.split(rng.permutation(x), [50, 51, 400]):
        parts.merge(Moments.of(part))
    whole = Moments.of(x)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.covariance(), whole.covariance(), rtol=1e-12, atol=1e-12)
    expected = distance(x, y)
    assert frechet_distance(gaussian_of(parts), fit_gaussian(y)) == pytest.approx(expected, rel=1e-12)


def test_equal_sets_and_shift(rng):
    x = correlated(rng, 200, 8)
    assert distance(x, x) == pytest.approx(0.0, abs=1e-10)
    assert distance(x, x + 2.0) == pytest.approx(4.0 * 8, rel=1e-10)


def test_order_does_not_matter(rng):
    for n, d in ((3000, 4), (200, 8), (10, 16)):
        x, y = correlated(rng, n, d), correlated(rng, 300, d)
        found = [fid(side("samples", a), side("reference images", y)) for a in (x, rng.permutation(x))]
        assert found[0].value == pytest.approx(found[1].value, rel=1e-11)
        assert found[0].ci95 == pytest.approx(found[1].ci95, rel=1e-9)


def test_duplicated_samples_change_it_as_known(rng):
    """Twice the same images keep the mean and shrink the covariance by (2 n - 2) / (2 n - 1)."""
    x, y = correlated(rng, 40, 6), correlated(rng, 90, 6)
    twice = fit_gaussian(np.concatenate([x, x]))
    once = fit_gaussian(x)
    shrunk = gaussian_from_moments(once.mean, once.covariance * (78 / 79), 80)
    assert distance(np.concatenate([x, x]), y) == pytest.approx(frechet_distance(shrunk, fit_gaussian(y)), rel=1e-12)
    assert frechet_distance(twice, once) > 1e-6


def test_float32_features_are_summed_in_float64(rng):
    x = (rng.normal(size=(5000, 4)) + 1000.0).astype(np.float32)
    fit = fit_gaussian(x)
    np.testing.assert_allclose(fit.covariance, np.cov(x.astype(np.float64).T), rtol=1e-9)
    np.testing.assert_allclose(fit.mean, x.astype(np.float64).mean(0), rtol=1e-14)


def test_large_features_are_converted_in_blocks(rng):
    """Value and interval of float32 features need less than a second copy of them."""
    x = rng.normal(size=(100_000, 16)).astype(np.float32)
    inputs = feature_inputs(x, x[:1000] + np.float32(0.1))
    tracemalloc.start()
    found = compute_one(FrechetInceptionDistance(), inputs)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.ci95 is not None and peak < x.nbytes


def test_notes_fewer_samples_than_features(rng):
    estimate = compute_one(
        FrechetInceptionDistance(), feature_inputs(rng.normal(size=(10, 16)), rng.normal(size=(50, 16)))
    )
    assert "10 samples for 16 features" in estimate.notes[0] and len(estimate.notes) == 1
    from_moments = fid(moments_side("samples", rng.normal(size=(10, 16))), side("reference", rng.normal(size=(50, 16))))
    assert "covariance's own rank" in from_moments.notes[0]


def test_notes_what_statistics_do_not_tell(rng):
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(60, 4))
    estimate = fid(moments_side("samples", x, None), moments_side("reference images", y, None))
    assert estimate.value == pytest.approx(distance(x, y), rel=1e-12)
    assert estimate.n is None and estimate.ci95 is None and estimate.standard_error is None
    assert "statistics of the samples do not say" in estimate.notes[0]
    assert "statistics of the reference images do not say" in estimate.notes[1]
    assert "no interval: of the samples only mean and covariance are known" in estimate.notes[2]


def test_two_samples_have_a_value_and_no_interval(rng):
    estimate = fid(side("samples", rng.normal(size=(2, 4))), side("reference images", rng.normal(size=(60, 4))))
    assert estimate.value > 0 and estimate.ci95 is None and "at least 3 samples" in estimate.notes[-1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_refuses_features_that_are_not_finite(rng, bad):
    x = rng.normal(size=(20, 4))
    x[3, 1] = bad
    with pytest.raises(DataError, match="row 3"):
        FrechetInceptionDistance().compute(feature_inputs(x, rng.normal(size=(30, 4))))
    covariance = np.eye(4)
    covariance[0, 1] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        gaussian_from_moments(np.zeros(4), covariance, 10)


def test_refuses_what_is_no_covariance():
    wrong = gaussian_from_moments(np.zeros(3), np.diag([1.0, 2.0, -0.5]), None)
    with pytest.raises(DataError, match=r"eigenvalue of -0\.5"):
        frechet_distance(wrong, gaussian_from_moments(np.zeros(3), np.eye(3), None))


def test_refuses_one_sample(rng):
    with pytest.raises(DataError, match="at least 2"):
        FrechetInceptionDistance().compute(feature_inputs(np.ones((1, 4)), rng.normal(size=(30, 4))))
    with pytest.raises(DataError, match="at least 2"):
        fit_gaussian(np.ones((1, 4)))


def test_refuses_unlike_widths(rng):
    with pytest.raises(DataError, match="width 4"):
        FrechetInceptionDistance().compute(feature_inputs(rng.normal(size=(9, 4)), rng.normal(size=(30, 5))))
    with pytest.raises(DataError, match="width 4"):
        fid(moments_side("samples", rng.normal(size=(9, 4))), side("reference images", rng.normal(size=(30, 5))))


def test_needs_an_extractor():
    with pytest.raises(NotApplicable, match="no feature extractor"):
        fid(Side("samples", 5), Side("reference images", 5))
