"""FID-infinity and IS-infinity: the line, its error, the subsets, coverage of the value at infinity."""

import numpy as np
import pytest
from interval_coverage import coverage_of
from metric_inputs import FakeExtractor, compute_one, feature_inputs

from genbench.errors import UsageError
from genbench.features.base import Features
from genbench.metrics import MetricInputs, NotApplicable, Side
from genbench.metrics.extrapolation import Extrapolation, Line
from genbench.metrics.frechet_infinity import FrechetInfinity, nested_fits
from genbench.metrics.frechet_interval import SamplingVariance
from genbench.metrics.gaussian import fit_gaussian, frechet_distance, gaussian_from_moments
from genbench.metrics.inception_infinity import InceptionScoreInfinity, influences, nested_scores
from genbench.metrics.inception_score import split_score
from genbench.metrics.moments import Moments


def logits_inputs(logits):
    features = np.zeros((len(logits), 2))
    return feature_inputs(features, features, logits)


def test_a_line_in_one_over_n_is_found_exactly():
    sizes = np.array([50, 70, 100, 200])
    line = Line.through(sizes, 3.0 + 40.0 / sizes)
    assert (line.intercept, line.slope) == pytest.approx((3.0, 40.0), rel=1e-12)
    assert line.fit_error == pytest.approx(0.0, abs=1e-12)


def test_fit_error_is_that_of_least_squares(rng):
    sizes = np.linspace(100, 1000, 15).astype(int)
    values = 2.0 + 30.0 / sizes + rng.normal(size=15) * 0.01
    line = Line.through(sizes, values)
    (slope, intercept), covariance = np.polyfit(1.0 / sizes, values, 1, cov=True)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept), rel=1e-9)
    assert line.fit_error == pytest.approx(np.sqrt(covariance[1, 1]), rel=1e-9)


def test_standard_error_of_nested_means(rng):
    """Values that are plain means over nested subsets, and means over their pairs, with unit variances."""
    sizes = np.array([20, 35, 60])
    line = Line.through(sizes, np.zeros(3))
    single, double = [], []
    for _ in range(4000):
        x = rng.normal(size=60)
        single.append(line.weights @ [x[:n].mean() for n in sizes])
        double.append(line.weights @ [(x[:n].sum() ** 2 - np.square(x[:n]).sum()) / 2 / n**2 for n in sizes])
    linear, quadratic = SamplingVariance(60, 60, 1 / 60), SamplingVariance(60, 60, 1 / 60**2, 1 / 60**2)
    assert (linear.first, linear.second, quadratic.first) == pytest.approx((1.0, 0.0, 0.0))
    assert line.standard_error(linear) == pytest.approx(np.std(single), rel=0.04)
    assert line.standard_error(quadratic) == pytest.approx(np.std(double), rel=0.06)


def test_sizes_scale_down_when_there_are_few():
    found = {n: Extrapolation().sizes(n) for n in (50_000, 10_000, 9_999, 100)}
    assert all(len(sizes) == 15 and sizes[-1] == n for n, sizes in found.items())
    assert [sizes[0] for sizes in found.values()] == [5000, 5000, 4999, 50]
    assert (np.diff(Extrapolation().sizes(30)) > 0).all()
    with pytest.raises(NotApplicable, match="29 samples are too few"):
        Extrapolation().sizes(29)


def test_nested_fits_are_those_of_the_subsets(rng):
    """Sizes below and above the width."""
    x, order, sizes = rng.normal(size=(60, 20)), rng.permutation(60), np.array([10, 20, 25, 60])
    reference = fit_gaussian(rng.normal(size=(90, 20)))
    for n, fit in zip(sizes, nested_fits(x, order, sizes), strict=True):
        assert fit.n == n
        expected = frechet_distance(fit_gaussian(x[order[:n]]), reference)
        assert frechet_distance(fit, reference) == pytest.approx(expected, rel=1e-10)


def test_nested_scores_are_those_of_the_subsets(rng):
    logits, order, sizes = rng.normal(size=(60, 5)) * 2, rng.permutation(60), np.array([10, 30, 60])
    expected = [split_score(logits[order[:n]])[0] for n in sizes]
    np.testing.assert_allclose(nested_scores(logits, order, sizes), expected, rtol=1e-12)


def test_influence_is_the_derivative_of_the_score(rng):
    """Weighing image 3 a little more moves the score by its influence."""
    logits, step = rng.normal(size=(40, 5)) * 2, 1e-6
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)

    def score(weights):
        marginal = weights @ p
        return np.exp(weights @ (p * np.log(p / marginal)).sum(1))

    weights = np.full(40, 1 / 40)
    moved = (1 - step) * weights + step * np.eye(40)[3]
    assert influences(logits)[3] == pytest.approx((score(moved) - score(weights)) / step, rel=1e-4)
    assert influences(logits).mean() == pytest.approx(0.0, abs=1e-12)


def test_seed_chooses_the_subsets_and_nothing_else_does(rng):
    inputs = feature_inputs(rng.normal(size=(100, 3)), rng.normal(size=(200, 3)))
    one, again, other = (compute_one(FrechetInfinity(seed=seed), inputs) for seed in (1, 1, 2))
    assert one.value == again.value != other.value
    assert one.extra["values"][-1] == pytest.approx(other.extra["values"][-1], rel=1e-12)
    assert len(one.extra["sizes"]) == 15 and one.extra["fit_error"] > 0 and one.extra["slope"] != 0


def test_fid_infinity_takes_the_bias_off(rng):
    y = rng.normal(size=(500, 8))
    truth = frechet_distance(gaussian_from_moments(np.full(8, 0.2), np.eye(8) * 1.21, 10**9), fit_gaussian(y))
    found = [compute_one(FrechetInfinity(), feature_inputs(draw_samples(rng, 200), y)) for _ in range(100)]
    values = np.array([e.value for e in found])
    plain = np.array([e.extra["values"][-1] for e in found])
    assert abs(values.mean() - truth) < 0.25 * (plain.mean() - truth)


def draw_samples(rng, n):
    return rng.normal(size=(n, 8)) * 1.1 + 0.2


@pytest.mark.parametrize("shift, scale", [(0.2, 1.1), (0.0, 1.0)], ids=["unlike", "equal"])
def test_coverage_of_fid_infinity(rng, shift, scale):
    y = rng.normal(size=(500, 4))
    truth = frechet_distance(gaussian_from_moments(np.full(4, shift), np.eye(4) * scale**2, 10**9), fit_gaussian(y))
    share = coverage_of(FrechetInfinity(), lambda: feature_inputs(rng.normal(size=(300, 4)) * scale + shift, y), truth)
    assert 0.9 <= share <= 0.99


@pytest.mark.parametrize("spread", [2.0, 0.3])
def test_coverage_of_is_infinity(rng, spread):
    truth = split_score(rng.normal(size=(400_000, 6)) * spread)[0]
    share = coverage_of(InceptionScoreInfinity(), lambda: logits_inputs(rng.normal(size=(300, 6)) * spread), truth)
    assert 0.9 <= share <= 0.99


def test_says_what_it_cannot_do(rng):
    y = rng.normal(size=(60, 40))
    low_rank = compute_one(FrechetInfinity(), feature_inputs(rng.normal(size=(70, 40)), y))
    assert "subsets of 35 and more samples for 40 features" in low_rank.notes[-1]
    moments = Side("samples", 70, given_moments=Moments.of(y))
    with pytest.raises(NotApplicable, match="only mean and covariance"):
        FrechetInfinity().compute(MetricInputs(moments, Side.of("reference images", Features(y))))
    with pytest.raises(NotApplicable, match="too few"):
        InceptionScoreInfinity().compute(logits_inputs(np.zeros((20, 3))))
    with pytest.raises(NotApplicable, match="no class probabilities"):
        InceptionScoreInfinity().compute(feature_inputs(y, y))
    for metric in (FrechetInfinity, InceptionScoreInfinity):
        with pytest.raises(UsageError, match="points"):
            metric(points=2)


def test_reference_may_be_statistics_alone(rng):
    x, y = rng.normal(size=(100, 4)), rng.normal(size=(200, 4))
    known = compute_one(FrechetInfinity(), feature_inputs(x, y))
    statistics = Side("reference images", 200, given_moments=Moments.of(y))
    found = compute_one(
        FrechetInfinity(), MetricInputs(Side.of("samples", Features(x)), statistics, extractor=FakeExtractor())
    )
    assert found.value == pytest.approx(known.value, rel=1e-9)
