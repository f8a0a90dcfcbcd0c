"""Speed against closed forms: medians, the moderated t test, and its prior."""

import math

import numpy as np
import pytest
from check_fixture import entry, timed
from scipy import stats

from genbench.check.speed import contest, p_slower, prior_variance, repetitions


def test_rates_of_windows_and_of_single_images():
    rows = [entry("a", [], timing=timed([100.0, 120.0], [0.1, 0.2])), entry("a", [], 1, timing=timed([80.0], [0.5]))]
    assert repetitions(rows, "images_per_second").tolist() == pytest.approx([100.0, 120.0, 80.0])
    assert repetitions(rows, "latency_seconds").tolist() == pytest.approx([10.0, 5.0, 2.0])
    assert len(repetitions([entry("a", [])], "images_per_second")) == 0
    nothing = timed([100.0], [0.0, -1.0, 0.5])
    assert repetitions([entry("a", [], timing=nothing)], "latency_seconds").tolist() == [2.0]


def test_one_row_alone_is_students_t_of_logarithms():
    before, after = np.array([100.0, 102.0, 99.0]), np.array([95.0, 93.0, 97.0, 94.0])
    found = contest(before, after)
    assert found.ratio == pytest.approx(94.5 / 100.0)
    test = stats.ttest_ind(np.log(after), np.log(before), alternative="less")
    assert p_slower([found]) == pytest.approx([test.pvalue])


def test_many_rows_share_their_scatter():
    rng = np.random.default_rng(0)
    pairs = [np.exp(rng.normal(5, 0.01, (2, 3))) for _ in range(40)]
    quiet = np.array([100.0, 100.0, 100.0])
    alone, crowd = (
        p_slower([contest(quiet, quiet * 0.995), *(contest(*pair) for pair in rest)])[0] for rest in ([], pairs)
    )
    assert alone < 1e-6
    assert crowd > 0.05


def with_scatter(sd, shift=0.0):
    """Three repetitions on each side whose logarithms have this standard deviation exactly."""
    spread = sd * np.array([-1.0, 0.0, 1.0])
    return contest(np.exp(5 + spread), np.exp(5 + shift + spread))


def test_no_row_is_quieter_than_the_middle_one():
    rows = [with_scatter(sd) for sd in (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)]
    weight = prior_variance([one.variance for one in (with_scatter(0.0002), *rows)], [4] * 9)[1]
    found = p_slower([with_scatter(0.0002, -0.02), *rows])[0]
    assert weight < 4
    assert found == pytest.approx(stats.t.cdf(-0.02 / (0.01 * math.sqrt(2 / 3)), weight + 4), rel=1e-6)


def test_equal_scatter_is_known_no_better_than_from_all_repetitions():
    rows = [with_scatter(0.01, -0.02), with_scatter(0.01), with_scatter(0.01)]
    prior, weight = prior_variance([one.variance for one in rows], [4, 4, 4])
    assert math.isinf(weight)
    t = -0.02 / (math.sqrt(max(prior, 0.0001)) * math.sqrt(2 / 3))
    assert p_slower(rows)[0] == pytest.approx(stats.t.cdf(t, 12), rel=1e-6)


def test_the_test_holds_its_level_over_rows_of_unlike_scatter():
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(60):
        scatter = 0.01 * np.sqrt(4 / rng.chisquare(4, 20))
        p_values += p_slower([contest(*np.exp(rng.normal(5, sd, (2, 3)))) for sd in scatter])
    for level in (0.1, 0.01, 0.001):
        share = np.mean(np.array(p_values) < level)
        assert share < level + 3 * math.sqrt(level / len(p_values))
    assert np.mean(np.array(p_values) < 0.1) > 0.05


def test_the_prior_is_found_again():
    rng = np.random.default_rng(2)
    true = 0.04 * 6 / rng.chisquare(6, 4000)
    scale, freedom = prior_variance(true * rng.chisquare(4, 4000) / 4, [4] * 4000)
    assert scale == pytest.approx(0.04, rel=0.1)
    assert freedom == pytest.approx(6, rel=0.25)
    scale, freedom = prior_variance(0.04 * stats.chi2(4).ppf((np.arange(50) + 0.5) / 50) / 4, [4] * 50)
    assert math.isinf(freedom) or freedom > 50
    assert scale == pytest.approx(0.04, rel=0.1)
    assert prior_variance([0.1, 0.2], [4, 4])[1] == 0


def test_one_repetition_is_no_test():
    found = contest(np.array([100.0]), np.array([50.0, 51.0]))
    assert found.freedom == 0
    assert math.isnan(p_slower([found])[0])


def test_equal_repetitions_leave_a_floor_of_scatter():
    quiet = np.array([100.0] * 3)
    assert p_slower([contest(quiet, quiet)]) == [0.5]
    assert 0 < p_slower([contest(quiet, quiet * 0.9)])[0] < 1e-6
