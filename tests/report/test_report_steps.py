"""Steps in a series: closed forms, an independent test of the p-value, invariances, and measured error rates."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from genbench.errors import UsageError
from genbench.report.series.steps import find_steps


def indices(found):
    return [step.index for step in found.steps]


def noisy(rng, means, sd=1.0):
    return np.asarray(means, dtype=np.float64) + sd * rng.normal(size=len(means))


@pytest.mark.parametrize(
    "values", [[3.0], [1.0, 900.0], [0.0, 0.1, 5.0], [1.0, 1.2, 0.9, 1.1], [0.0, 1.0, 0.2, 1.1, 6.0]]
)
def test_few_points_are_no_step(values):
    found = find_steps(values)
    assert indices(found) == []
    assert [(s.first, s.last) for s in found.segments] == [(0, len(values) - 1)]
    assert found.segments[0].mean == pytest.approx(np.mean(values))


@pytest.mark.parametrize("error", [0.0, np.nan, 0.3])
def test_three_points_do_not_cry_wolf(error):
    assert indices(find_steps([1.0, 1.3, 4.0], [error] * 3)) == []


@pytest.mark.parametrize("count", [3, 4, 5, 12])
@pytest.mark.parametrize("level", [0.1, -3e5, 1e-12])
def test_a_jump_after_exactly_equal_values_is_found(count, level):
    values = [level] * (count - 1) + [level * 1.001]
    found = find_steps(values)
    assert indices(found) == [count - 1]
    assert found.steps[0].change == pytest.approx(0.001 * level, rel=1e-6)
    assert found.steps[0].p < 1e-3
    low, high = found.steps[0].ci95
    assert low <= found.steps[0].change <= high
    assert high - low < 0.01 * abs(found.steps[0].change)


def test_rounding_of_equal_values_is_no_step():
    assert indices(find_steps([0.1 + 0.2] * 5 + [0.3] * 5)) == []
    assert indices(find_steps([0.0] * 6)) == []
    assert indices(find_steps([7.5] * 6)) == []


def test_every_change_of_exact_values_is_a_step():
    found = find_steps([5.0, 5.0, 6.0, 6.0, 5.0], exact=True)
    assert [(s.index, s.change, s.ci95, s.p) for s in found.steps] == [
        (2, 1.0, (1.0, 1.0), 0.0),
        (4, -1.0, (-1.0, -1.0), 0.0),
    ]
    assert [(s.first, s.last, s.mean) for s in found.segments] == [(0, 1, 5.0), (2, 3, 6.0), (4, 4, 5.0)]
    assert indices(find_steps([1e9, 1e9 + 1], exact=True)) == [1]


def test_change_and_interval_are_those_of_the_two_sample_t_test():
    rng = np.random.default_rng(3)
    values = noisy(rng, [10.0] * 7 + [14.0] * 9, 0.5)
    found = find_steps(values)
    assert indices(found) == [7]
    expected = stats.ttest_ind(values[7:], values[:7])
    interval = expected.confidence_interval(0.95)
    assert found.steps[0].change == pytest.approx(values[7:].mean() - values[:7].mean())
    assert found.steps[0].ci95 == pytest.approx((interval.low, interval.high))
    within = np.concatenate([values[:7] - values[:7].mean(), values[7:] - values[7:].mean()])
    assert found.noise == pytest.approx(np.sqrt(np.square(within).sum() / 14))


def test_change_weighs_points_by_their_errors():
    """Without scatter beside them the means are those of inverse variances, and the interval is not below theirs."""
    errors = np.array([0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1, 0.2])
    signs = np.array([0.3, -0.3, -0.3, 0.3, 0.0, 0.3, -0.3, 0.3, -0.3, 0.0])
    values = np.array([1.0] * 5 + [3.0] * 5) + signs * errors
    found = find_steps(values, errors)
    assert indices(found) == [5]
    weights = 1 / errors**2
    means = [np.average(values[part], weights=weights[part]) for part in (slice(0, 5), slice(5, 10))]
    assert [s.mean for s in found.segments] == pytest.approx(means)
    own = np.sqrt(1 / weights[:5].sum() + 1 / weights[5:].sum())
    half = (found.steps[0].ci95[1] - found.steps[0].ci95[0]) / 2
    assert half == pytest.approx(stats.t.ppf(0.975, 8) * own, rel=1e-6)


def largest_statistic(values):
    """Over all splits of each row of (R, n), the squared t statistic by the correlation with "after the split"."""
    count = values.shape[1]
    after = np.array([[float(i >= k) for i in range(count)] for k in range(1, count)])
    squares = np.array([[np.corrcoef(row, side)[0, 1] ** 2 for side in after] for row in values])
    return ((count - 2) * squares / (1 - squares)).max(1)


def test_p_value_is_that_of_the_largest_statistic_over_all_splits():
    rng = np.random.default_rng(4)
    values = noisy(rng, [0.0] * 4 + [4.0] * 4)
    found = find_steps(values, alpha=0.05)
    assert indices(found) == [4]
    null = largest_statistic(np.random.default_rng(5).normal(size=(4000, 8)))
    share = float((null >= largest_statistic(values[None])).mean())
    assert 0.002 < share < 0.05
    assert found.steps[0].p == pytest.approx(2 * share, abs=2 * 3.5 * np.sqrt(share / 2000 + share / 4000))


def test_p_value_of_a_clear_step_is_the_bound_over_all_splits():
    values = noisy(np.random.default_rng(14), [0.0] * 6 + [6.0] * 6)
    found = find_steps(values)
    assert indices(found) == [6]
    test = stats.ttest_ind(values[:6], values[6:])
    assert found.steps[0].p == pytest.approx(2 * 11 * test.pvalue)


def test_scale_shift_and_direction_do_not_matter():
    rng = np.random.default_rng(6)
    errors = rng.uniform(0.5, 1.0, 24)
    values = noisy(rng, [0.0] * 9 + [5.0] * 7 + [-1.0] * 8)
    found = find_steps(values, errors)
    assert indices(found) == [9, 16]
    for factor, shift in ((1e-6, 0.0), (1e4, 1e5), (-2.0, 7.0)):
        other = find_steps(factor * values + shift, abs(factor) * errors)
        assert indices(other) == indices(found)
        assert [s.change for s in other.steps] == pytest.approx([factor * s.change for s in found.steps])
        assert [s.p for s in other.steps] == pytest.approx([s.p for s in found.steps])
    mirrored = find_steps(values[::-1], errors[::-1])
    assert sorted(24 - k for k in indices(mirrored)) == indices(found)


def test_a_regression_that_was_mended_is_two_steps():
    rng = np.random.default_rng(7)
    found = find_steps(noisy(rng, [0.0] * 14 + [5.0] * 3 + [0.0] * 13))
    assert indices(found) == [14, 17]
    assert found.steps[0].change == pytest.approx(5, abs=2)
    assert found.steps[1].change == pytest.approx(-5, abs=2)
    assert found.apart == ()


def test_one_point_apart_is_no_step_and_hides_none():
    rng = np.random.default_rng(8)
    values = noisy(rng, [2.0] * 10 + [3.0] * 6, 0.1)
    values[4] = 300.0
    found = find_steps(values)
    assert found.apart == (4,)
    assert indices(found) == [10]
    assert [(s.first, s.last) for s in found.segments] == [(0, 9), (10, 15)]
    assert found.segments[0].mean == pytest.approx(2.0, abs=0.1)


def test_few_points_are_left_out():
    """One in five at the most: what is apart as often as that is the noise itself."""
    values = np.full(20, 1.0)
    values[[2, 5, 8, 11, 14, 17]] = 100.0, 3e4, 7e6, 1e9, 5e11, 2e14
    found = find_steps(values)
    assert len(found.apart) == 4
    assert {17, 14, 11, 8} == set(found.apart)


def test_a_jump_within_the_standard_errors_is_no_step():
    """Values that are equal to the digit under one seed still stand for their expectation to the standard error."""
    values = [2.0] * 9 + [2.1]
    assert indices(find_steps(values, [0.1] * 10)) == []
    assert indices(find_steps(values, [0.001] * 10)) == [9]


def test_scatter_that_the_errors_do_not_hold_is_noise():
    rng = np.random.default_rng(9)
    values = noisy(rng, np.zeros(20), 3.0)
    assert indices(find_steps(values, np.full(20, 0.01))) == []


def test_scatter_evens_out_the_weights():
    """Errors of 0.01 and 1 beside a scatter of 1: weights of about 1 to 1 / 2, not of 100 to 1."""
    values = np.array([-1.0, 2.0, 1.0, 0.0, 1.0, 2.0, -1.0, 0.0, 1.0, 2.0, -1.0, 0.0])
    found = find_steps(values, [0.01, 1.0] * 6)
    assert indices(found) == []
    assert 0.2 < found.segments[0].mean < 0.45


def test_an_imprecise_point_is_no_step():
    rng = np.random.default_rng(10)
    values, errors = noisy(rng, np.zeros(12), 0.1), np.full(12, 0.1)
    values[-1], errors[-1] = 2.0, 1.5
    assert indices(find_steps(values, errors)) == []
    errors[-1] = 0.1
    assert indices(find_steps(values, errors)) == [11]


def test_errors_that_are_not_known_are_taken_as_the_others():
    rng = np.random.default_rng(11)
    values = noisy(rng, [0.0] * 8 + [6.0] * 8)
    some = np.full(16, 1.0)
    some[[2, 11]] = np.nan, 0.0
    assert find_steps(values, some) == find_steps(values, np.full(16, 1.0))


@pytest.mark.parametrize(
    ("values", "errors", "alpha", "told"),
    [
        ([], None, 0.01, "got (0,)"),
        ([1.0, 2.0], [1.0], 0.01, "(1,)"),
        ([[1.0]], None, 0.01, "(1, 1)"),
        ([1.0, np.nan, 2.0], None, 0.01, "not finite"),
        ([1.0, np.inf], None, 0.01, "not finite"),
        ([1.0, 2.0], None, 0.0, "alpha 0.0"),
        ([1.0, 2.0], None, 1.5, "alpha 1.5"),
    ],
)
def test_bad_input_is_told(values, errors, alpha, told):
    with pytest.raises(UsageError, match=told.replace("(", r"\(").replace(")", r"\)")):
        find_steps(values, errors, alpha=alpha)


def share_of(count, make, hit, **options):
    rng = np.random.default_rng(12)
    return sum(hit(find_steps(*make(rng), **options)) for _ in range(count)) / count


def any_step(found):
    return bool(found.steps)


NULLS = {
    "normal, errors not known": lambda rng: (rng.normal(size=20), None),
    "normal, six points": lambda rng: (rng.normal(size=6), None),
    "errors hold all noise": lambda rng: (rng.normal(size=20), np.ones(20)),
    "errors hold half of the variance": lambda rng: (np.sqrt(2) * rng.normal(size=12), np.ones(12)),
    "errors hold a fifth of the variance": lambda rng: (np.sqrt(5) * rng.normal(size=12), np.ones(12)),
    "Student t with 5 degrees of freedom": lambda rng: (rng.standard_t(5, size=20), None),
}


@pytest.mark.parametrize("noise", NULLS)
def test_false_alarms_at_one_percent_stay_below_five(noise):
    assert share_of(300, NULLS[noise], any_step) <= 0.05


def test_false_alarms_keep_the_asked_level():
    """Exact where the errors are not known: 300 series at 10 % hold 30, 47 with a chance of one in a thousand."""
    share = share_of(300, lambda rng: (rng.normal(size=10), None), any_step, alpha=0.1)
    assert 0.02 <= share <= 47 / 300


def unlike_errors(rng):
    errors = np.exp(rng.uniform(np.log(0.3), np.log(3), 12))
    return errors * rng.normal(size=12), errors


def test_false_alarms_with_unlike_errors():
    assert share_of(200, unlike_errors, any_step) <= 0.05


CAUGHT = {
    "last of 20, 8 sd": ([0] * 19 + [8], None, [19], 0.95),
    "last of 8, 8 sd, errors known": ([0] * 7 + [8], 1.0, [7], 0.75),
    "middle of 20, 3 sd": ([0] * 10 + [3] * 10, None, None, 0.95),
    "passage of 4 in 30, 5 sd": ([0] * 13 + [5] * 4 + [0] * 13, None, [13, 17], 0.85),
    "two up, 5 sd each": ([0] * 8 + [5] * 8 + [10] * 8, None, [8, 16], 0.85),
}


@pytest.mark.parametrize("case", CAUGHT)
def test_steps_are_caught(case):
    means, error, wanted, least = CAUGHT[case]
    errors = None if error is None else np.full(len(means), error)

    def hit(found):
        return indices(found) == wanted if wanted else len(found.steps) == 1 and abs(found.steps[0].index - 10) <= 2

    assert share_of(100, lambda rng: (noisy(rng, means), errors), hit) >= least


def test_intervals_of_changes_cover():
    def covers(found):
        return len(found.steps) == 1 and found.steps[0].ci95[0] <= 6 <= found.steps[0].ci95[1]

    assert share_of(200, lambda rng: (noisy(rng, [0] * 8 + [6] * 8), None), covers) >= 0.91
