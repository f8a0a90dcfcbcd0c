"""Speed against closed forms: medians, the moderated t test, and its prior."""

import math
from dataclasses import replace

import numpy as np
import pytest
from check_fixture import entry, timed
from scipy import linalg, stats

from genbench.check import speed
from genbench.check.moderation import prior_variance
from genbench.check.speed import Sides, contest, given, p_values, sides


def repetitions(rows, metric):
    """Rates of one side, per second."""
    return np.exp(sides(rows, rows, metric).rates[0])


def test_rates_of_windows_and_of_single_images():
    rows = [entry("a", [], timing=timed([100.0, 120.0], [0.1, 0.2])), entry("a", [], 1, timing=timed([80.0], [0.5]))]
    assert repetitions(rows, "images_per_second").tolist() == pytest.approx([100.0, 120.0, 80.0])
    assert repetitions(rows, "latency_seconds").tolist() == pytest.approx([10.0, 5.0, 2.0])
    assert len(repetitions([entry("a", [])], "images_per_second")) == 0
    nothing = timed([100.0], [0.0, -1.0, 0.5])
    assert repetitions([entry("a", [], timing=nothing)], "latency_seconds").tolist() == pytest.approx([2.0])


def per_second(before, after):
    """The contest of rates whose paces are not known."""
    return contest(Sides((np.log(before), np.log(after)), None))


def p_slower(contests, margin=0.0):
    return [found.slower for found in p_values(contests, [margin] * len(contests))]


def test_one_row_alone_is_students_t_of_logarithms():
    before, after = np.array([100.0, 102.0, 99.0]), np.array([95.0, 93.0, 97.0, 94.0])
    found = per_second(before, after)
    assert found.ratio == pytest.approx(94.5 / 100.0)
    test = stats.ttest_ind(np.log(after), np.log(before), alternative="less")
    assert p_slower([found]) == pytest.approx([test.pvalue])
    assert p_values([found], [0.0])[0].faster == pytest.approx(1 - test.pvalue)


def test_a_margin_is_what_the_difference_must_exceed():
    before, after = np.array([100.0, 102.0, 99.0]), np.array([95.0, 93.0, 97.0, 94.0])
    found = p_values([per_second(before, after)], [0.025])[0]
    moved = stats.ttest_ind(np.log(after * 1.025), np.log(before), alternative="less")
    assert found.slower == pytest.approx(moved.pvalue)
    moved = stats.ttest_ind(np.log(after / 1.025), np.log(before), alternative="greater")
    assert found.faster == pytest.approx(moved.pvalue)


def test_many_rows_share_their_scatter():
    rng = np.random.default_rng(0)
    pairs = [np.exp(rng.normal(5, 0.01, (2, 3))) for _ in range(40)]
    quiet = np.array([100.0, 100.0, 100.0])
    alone, crowd = (
        p_slower([per_second(quiet, quiet * 0.995), *(per_second(*pair) for pair in rest)])[0] for rest in ([], pairs)
    )
    assert alone < 1e-6
    assert crowd > 0.05


def with_scatter(sd, shift=0.0):
    """Three repetitions on each side whose logarithms have this standard deviation exactly."""
    spread = sd * np.array([-1.0, 0.0, 1.0])
    return per_second(np.exp(5 + spread), np.exp(5 + shift + spread))


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
    found = []
    for _ in range(60):
        scatter = 0.01 * np.sqrt(4 / rng.chisquare(4, 20))
        found += p_slower([per_second(*np.exp(rng.normal(5, sd, (2, 3)))) for sd in scatter])
    for level in (0.1, 0.01, 0.001):
        share = np.mean(np.array(found) < level)
        assert share < level + 3 * math.sqrt(level / len(found))
    assert np.mean(np.array(found) < 0.1) > 0.05


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
    found = per_second(np.array([100.0]), np.array([50.0, 51.0]))
    assert found.freedom == 0
    assert math.isnan(p_slower([found])[0])


def test_equal_repetitions_leave_a_floor_of_scatter():
    quiet = np.array([100.0] * 3)
    assert p_slower([per_second(quiet, quiet)]) == [0.5]
    assert 0 < p_slower([per_second(quiet, quiet * 0.9)])[0] < 1e-6


def at_pace(rates, paces, load="linear-conv-1"):
    """A row whose windows and single images have these rates, with these paces of the machine."""
    timing = timed(rates, [1 / rate for rate in rates])
    windows = [window.model_copy(update={"pace": pace}) for window, pace in zip(timing.windows, paces)]
    paced = {"windows": windows, "latency_pace": paces, "reference_load": load}
    return [entry("a", [], timing=timing.model_copy(update=paced))]


@pytest.mark.parametrize("metric", ["images_per_second", "latency_seconds"])
def test_what_slowed_the_whole_machine_is_taken_out(metric):
    quick = at_pace([100.0, 101.0, 99.2], [1000.0, 1010.0, 990.0])
    busy = contest(sides(quick, at_pace([80.0, 80.7, 79.2], [800.0, 808.0, 792.0]), metric))
    assert busy.ratio == pytest.approx(1.0, abs=0.03)
    assert p_slower([busy])[0] > 0.05
    slower = contest(sides(quick, at_pace([64.0, 64.6, 63.4], [800.0, 808.0, 792.0]), metric))
    assert slower.ratio == pytest.approx(0.8, abs=0.03)
    assert p_slower([slower])[0] < 0.01


def simulated(rng, *, repetitions, power, noise, machine=0.15, loss=0.0):
    """Two sides on a machine whose pace scatters by ``machine``; the rate goes as a power of the pace, not quite the
    same from run to run."""
    found = []
    for ratio in (0.0, math.log1p(-loss)):
        moment, pace = rng.normal(0, machine), rng.normal(0, machine, repetitions)
        drifted = power + rng.normal(0, 0.05)
        pace = pace + moment
        found.append((5 + ratio + drifted * moment + power * (pace - moment) + rng.normal(0, noise, repetitions), pace))
    return Sides((found[0][0], found[1][0]), (found[0][1], found[1][1]))


def test_covariance_with_a_free_power_is_least_squares(monkeypatch):
    """With a prior as wide as this the difference and its p-value are those of the regression on pace and side."""
    monkeypatch.setattr(speed, "_POWER_SD", 1e6)
    monkeypatch.setattr(speed, "_POWER_DRIFT", 0.0)
    rng = np.random.default_rng(3)
    found = simulated(rng, repetitions=400, power=0.7, noise=0.03, loss=0.01)
    rates, paces = (np.concatenate(pair) for pair in (found.rates, found.paces))
    side = np.repeat([0.0, 1.0], 400)
    design = np.column_stack([np.ones(800), side, paces])
    solution, *_ = linalg.lstsq(design, rates)
    left = rates - design @ solution
    error = math.sqrt(left @ left / 797 * linalg.inv(design.T @ design)[1, 1])
    made = contest(found)
    assert made.mean == pytest.approx(solution[1], rel=1e-3)
    assert math.sqrt(made.variance * made.weight) == pytest.approx(error, rel=1e-3)
    assert p_slower([made])[0] == pytest.approx(stats.t.cdf(solution[1] / error, 797), rel=1e-2)


def test_few_repetitions_lean_on_a_power_of_one():
    """Paces that hardly scatter within the sides, but differ between them, leave the power to its prior."""
    before, after = np.log([100.0, 101.0, 99.0]), np.log([80.0, 80.8, 79.2])
    paces = (np.log([999.9, 1000.1, 1000.1]), np.log([799.9, 800.1, 800.1]))
    made = contest(Sides((before, after), paces))
    assert made.ratio == pytest.approx(1.0, abs=0.02)
    error = math.sqrt(made.variance * made.weight + made.drift)
    expected = (0.01 * math.sqrt(2 / 3), 0.25 * math.log(1.25), 0.05 * math.log(1.25))
    assert error == pytest.approx(math.hypot(*expected), rel=0.2)


def test_the_test_at_pace_holds_its_level_and_finds_a_tenth():
    rng = np.random.default_rng(4)
    false, caught = [], 0
    for _ in range(200):
        rows = [{"repetitions": 8, "power": rng.normal(1, 0.25), "noise": 0.03} for _ in range(15)]
        contests = [contest(simulated(rng, **row)) for row in rows]
        false += p_slower(contests)
        slow = contest(simulated(rng, **rows[0], loss=0.1))
        caught += p_slower([slow, *contests[1:]], 0.025)[0] < 0.01 / 30
    for level in (0.1, 0.01):
        assert np.mean(np.array(false) < level) < level + 4 * math.sqrt(level / len(false))
    assert np.mean(np.array(false) < 0.1) > 0.07
    assert caught > 0.6 * 200


@pytest.mark.parametrize(
    "other",
    [
        at_pace([50.0], [500.0], load="another-load"),
        at_pace([50.0], [None]),
        at_pace([50.0], [0.0]),
        at_pace([50.0], [500.0], load=None),
        [entry("a", [], timing=timed([50.0], [0.02]))],
    ],
)
def test_rates_are_per_second_where_a_side_lacks_the_pace(other):
    known = at_pace([100.0], [1000.0])
    for before, after in ((known, other), (other, known)):
        found = sides(before, after, "images_per_second")
        assert found.paces is None
        assert sorted(np.exp(np.concatenate(found.rates))) == pytest.approx([50.0, 100.0])


def test_single_images_without_their_paces_are_per_second():
    lacking = at_pace([100.0, 100.0], [1000.0, 1000.0])[0]
    timing = lacking.record.timing.model_copy(update={"latency_pace": [1000.0]})
    lacking = replace(lacking, record=lacking.record.model_copy(update={"timing": timing}))
    assert sides([lacking], [lacking], "latency_seconds").paces is None
    assert sides([lacking], [lacking], "images_per_second").paces is not None


def held(shares):
    """An entry whose windows were given the processor for these shares of the time."""
    timing = timed([100.0, 101.0, 99.0])
    windows = [window.model_copy(update={"given": share}) for window, share in zip(timing.windows, shares)]
    return entry("a", [], timing=timing.model_copy(update={"windows": windows}))


def test_the_share_of_the_processor_is_that_of_the_busiest_record():
    assert given([held([0.9, 0.5, 1.0])]) == 0.9
    assert given([held([0.9, 0.5, 1.0]), held([0.4, 0.5, 0.6])]) == 0.5
    assert given([held([None, None, 0.7])]) == 0.7
    assert given([held([None] * 3), entry("a", [])]) == 1.0


def test_the_least_loss_that_is_seen_is_one_that_is_just_seen():
    rates = np.exp(5 + 0.03 * np.array([-1.2, -0.6, 0.0, 0.6, 1.2]))
    loss = p_values([per_second(rates, rates)], [0.025])[0].least_loss(0.001)
    assert 0.05 < loss < 0.3
    seen, unseen = (p_slower([per_second(rates, rates * (1 - loss * k))], 0.025)[0] for k in (1.01, 0.99))
    assert seen < 0.001 < unseen
    assert math.isnan(p_values([per_second(np.array([100.0]), rates)], [0.025])[0].least_loss(0.001))
