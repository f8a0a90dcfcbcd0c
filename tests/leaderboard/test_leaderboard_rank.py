"""Rank intervals and fronts: hand examples, and agreement with the report's comparison of two values."""

import random

import pytest
from board_records import fid, metric

from genbench.leaderboard.rank import front, rank_intervals, surely_better
from genbench.report.ranking import is_worse


def test_ranks_leave_open_what_the_intervals_leave_open():
    metrics = {"a": fid(1.0), "b": fid(1.05), "c": fid(2.0), "d": fid(3.0, 5.0)}
    assert rank_intervals(metrics, False) == {"a": (1, 3), "b": (1, 3), "c": (3, 4), "d": (1, 4)}


def test_higher_may_be_better():
    metrics = {name: metric("inception_score", value, 0.1) for name, value in (("a", 1.0), ("b", 2.0), ("c", 2.01))}
    assert rank_intervals(metrics, True) == {"a": (3, 3), "b": (1, 2), "c": (1, 2)}


def test_equal_exact_values_share_their_ranks():
    metrics = {name: fid(value, None) for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0))}
    assert rank_intervals(metrics, False) == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}


@pytest.mark.parametrize("higher", [False, True])
def test_ranks_count_what_the_report_calls_surely_worse(higher):
    rng = random.Random(3)
    metrics = {}
    for i in range(25):
        value = rng.gauss(0, 1)
        ci95 = (value - rng.random(), value + rng.random()) if i % 5 else None
        metrics[str(i)] = fid(value, None, ci95=ci95, higher_is_better=higher)
    better = surely_better(metrics, higher)
    ranks = rank_intervals(metrics, higher)
    for j, (key, one) in enumerate(metrics.items()):
        beaten_by = [is_worse(one, other) for other in metrics.values()]
        beats = [is_worse(other, one) for other in metrics.values()]
        assert better[:, j].tolist() == beaten_by
        assert ranks[key] == (1 + sum(beaten_by), len(metrics) - sum(beats))
    assert all(lo <= hi for lo, hi in ranks.values())


def test_a_value_that_is_missing_is_not_ranked():
    missing = fid(1.0).model_copy(update={"value": None})
    with pytest.raises(ValueError, match="rows without a value cannot be ranked: gone"):
        rank_intervals({"a": fid(1.0), "gone": missing}, False)


def test_the_front_holds_what_no_row_surely_beats_in_both():
    quality = {"best": fid(1.0), "fast": fid(3.0), "beaten": fid(3.5), "open": fid(1.02)}
    speed = {name: metric("images_per_second", rate, 1.0) for name, rate in zip(quality, (10, 100, 50, 5), strict=True)}
    assert front(quality, speed, (False, True)) == ["best", "fast", "open"]


def test_samplers_of_one_model_dominate_by_quality_alone():
    quality = {"slow": fid(1.0), "quick": fid(2.0), "other": fid(3.0)}
    size = {name: metric("parameters", n) for name, n in zip(quality, (100.0, 100.0, 99.0), strict=True)}
    assert front(quality, size, (False, False)) == ["slow", "other"]


def test_a_cost_that_is_equal_by_chance_dominates_nothing():
    quality = {"a": fid(1.0), "b": fid(2.0)}
    speed = {name: metric("images_per_second", 10.0, 1.0) for name in quality}
    assert front(quality, speed, (False, True)) == ["a", "b"]


def test_both_sides_of_a_front_need_the_same_rows():
    with pytest.raises(ValueError, match="other rows have a quality"):
        front({"a": fid(1.0)}, {"b": metric("parameters", 1.0)}, (False, False))
