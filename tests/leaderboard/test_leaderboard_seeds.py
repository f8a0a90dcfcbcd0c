"""Seeds are pooled: means, intervals in closed form, and nothing pooled that is unlike."""

import math

import pytest
from board_records import fid, metric, row
from scipy import stats

from genbench.record import MetricResult
from genbench.report.seeds import group_of, mean_of_seeds, pool, quoted


def pooled(*metrics, name="fid", extractor="digits-cnn"):
    return pool([row("m", one, seed=seed) for seed, one in enumerate(metrics)], name, extractor)


def test_one_seed_keeps_its_value_and_interval():
    found = pooled(fid(1.5, 0.2))
    assert (found.metric.value, found.metric.ci95, found.spread) == (1.5, (1.3, 1.7), None)
    assert found.values == {0: 1.5}


def test_the_mean_of_seeds_with_students_interval_of_their_spread():
    found = pooled(fid(1.0, 0.001), fid(2.0, 0.001), fid(6.0, 0.001))
    assert found.values == {0: 1.0, 1: 2.0, 2: 6.0}
    assert found.metric.value == 3.0
    assert found.spread == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    half = stats.t.ppf(0.975, 2) * found.spread / math.sqrt(3)
    assert found.metric.ci95 == pytest.approx((3.0 - half, 3.0 + half))


def test_seeds_that_agree_by_chance_keep_the_width_of_their_own_intervals():
    mean, half, spread = mean_of_seeds([fid(2.0, 0.4), fid(2.0, 0.4)])
    assert (mean, spread) == (2.0, 0.0)
    assert half == pytest.approx(0.4 / math.sqrt(2), rel=1e-5)


def test_seeds_that_differ_by_float_arithmetic_alone_have_no_spread():
    mean, half, spread = mean_of_seeds([fid(0.3, 0.4), fid(0.1 + 0.2, 0.4)])
    assert (mean, spread) == (pytest.approx(0.3), 0.0)
    assert half == pytest.approx(0.4 / math.sqrt(2), rel=1e-5)
    assert mean_of_seeds([fid(0.3, 0.4), fid(0.3 + 1e-6, 0.4)])[2] > 0


def test_equal_values_without_intervals_have_none():
    found = pooled(metric("parameters", 7.0), metric("parameters", 7.0), name="parameters", extractor=None)
    assert (found.metric.value, found.metric.ci95, found.spread) == (7.0, None, 0.0)


def test_a_seed_without_a_value_is_named_and_leaves_the_mean_alone():
    failed = MetricResult(name="fid", value=None, status="failed", reason="no samples", extractor="digits-cnn")
    found = pooled(fid(1.0), failed, fid(3.0))
    assert found.metric.value == 2.0
    assert found.values == {0: 1.0, 1: None, 2: 3.0}
    assert found.note == "seed 1 is not in it: failed: no samples"


def test_seeds_that_are_measured_in_another_way_are_not_pooled():
    other = fid(9.0, comparable={"version": 2, "dataset": "x", "n": 297})
    found = pooled(fid(1.0), other)
    assert (found.metric.value, found.metric.ci95) == (1.0, fid(1.0).ci95)
    assert found.values == {0: 1.0, 1: None}
    assert "seed 1 is not in it: version: 1 against 2" in found.note


def test_bounds_of_unlike_estimators_are_not_pooled():
    bound = {"kind": "upper_bound"}
    found = pool(
        [
            row("m", metric("bits_per_dim", 2.0, 0.1, estimator="elbo", **bound), seed=0),
            row("m", metric("bits_per_dim", 1.9, 0.1, estimator="iwae-5", **bound), seed=1),
        ],
        "bits_per_dim",
        None,
    )
    assert found.metric.value == 2.0
    assert found.note == "seed 1 is not in it: it is upper bound (iwae-5), not upper bound (elbo)"


def test_a_failed_row_says_so():
    broken = row("m", seed=1, status="failed", reason="out of memory")
    found = pool([row("m", fid(1.0), seed=0), broken], "fid", "digits-cnn")
    assert found.note == "seed 1 is not in it: it failed: out of memory"
    nothing = pool([broken], "fid", "digits-cnn")
    assert (nothing.metric.value, nothing.metric.reason) == (None, "the row failed: out of memory")
    assert pool([row("m", fid(1.0))], "kid", None) is None


def test_the_first_estimator_is_quoted_and_of_estimates_the_less_flattering_one():
    two = [metric("nats_per_image", v, 0.1, kind="estimate", estimator=e) for v, e in ((86.0, "fwd"), (87.0, "rev"))]
    assert quoted(row("rbm", *two), "nats_per_image", None).estimator == "rev"
    bounds = [
        metric("bits_per_dim", v, 0.1, kind="upper_bound", estimator=e) for v, e in ((2.1, "elbo"), (2.0, "iwae-5"))
    ]
    assert quoted(row("vae", *bounds), "bits_per_dim", None).estimator == "elbo"
    gap = MetricResult(name="bits_per_dim", value=None, status="failed", reason="no", estimator="elbo")
    assert quoted(row("vae", gap, bounds[1]), "bits_per_dim", None).estimator == "iwae-5"


def test_groups_tell_comparable_apart_and_kinds_of_likelihood():
    assert group_of(fid(1.0)) == group_of(fid(2.0, kind="exact"))
    assert group_of(fid(1.0)) != group_of(fid(1.0, comparable={"n": 5}))
    exact, bound = (metric("bits_per_dim", 2.0, 0.1, kind=kind) for kind in ("exact", "upper_bound"))
    assert group_of(exact) != group_of(bound)


def test_the_interval_of_a_share_does_not_fall_below_zero():
    low = pooled(metric("recall", 0.0, 0.01), metric("recall", 0.3, 0.01), name="recall").metric
    assert low.ci95[0] == 0.0
    kid = pooled(metric("kid", 0.0, 0.01), metric("kid", 0.3, 0.01), name="kid").metric
    assert kid.ci95[0] < 0.0


def test_a_mean_does_not_carry_the_standard_error_of_one_seed():
    one = metric("fid", 2.0, 0.1, provenance={"standard_error": 0.05, "interval": "x"})
    assert pooled(one).metric.provenance["standard_error"] == 0.05
    assert "standard_error" not in pooled(one, one).metric.provenance


def test_images_that_all_seeds_share_are_an_error_that_seeds_do_not_shrink():
    """The same scores again and again are no more images; samples of each seed's own are."""
    images = {"kind": "exact", "provenance": {"paired_by": "test image"}}
    shared = metric("bits_per_dim", 2.0, 0.03, **images)
    assert [mean_of_seeds([shared] * n)[1] for n in (2, 5)] == pytest.approx([0.03, 0.03])
    own = [mean_of_seeds([fid(2.0, 0.03)] * n)[1] for n in (2, 5)]
    assert own == pytest.approx([0.03 / math.sqrt(2), 0.03 / math.sqrt(5)])
    moved = [metric("bits_per_dim", value, 0.03, **images) for value in (1.9, 2.0, 2.1)]
    of_seeds = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert mean_of_seeds(moved)[1] == pytest.approx(math.hypot(of_seeds, 0.03))


def test_intervals_end_where_the_metric_does():
    shares = [metric("precision", value, 0.01, kind="estimate") for value in (0.80, 0.99)]
    found = pooled(*shares, name="precision", extractor=shares[0].extractor).metric
    assert found.ci95[0] >= 0
    assert found.ci95[1] == 1.0
    free = [metric("density", value, 0.01, kind="estimate") for value in (0.80, 0.99)]
    assert pooled(*free, name="density", extractor=free[0].extractor).metric.ci95[1] > 1.0
