"""KID: against a naive double loop, unbiasedness, variance and coverage."""

import numpy as np
import pytest
from fresh_draws import share_of_intervals
from metric_inputs import compute_one, feature_inputs

from genbench.errors import UsageError
from genbench.metrics import kernel, kid
from genbench.metrics.kernel import draw_subsets, kernel_mean, mmd, mmd_and_subsets, polynomial_kernel, subset_mmds
from genbench.metrics.kid import FullKernelInceptionDistance, KernelInceptionDistance


def naive_mmd(x, y):
    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def full(x, y):
    return compute_one(FullKernelInceptionDistance(), feature_inputs(x, y))


def test_equals_naive_loops(rng):
    x, y = rng.normal(size=(11, 5)) + 0.5, rng.normal(size=(17, 5))
    assert mmd(x, y).value == pytest.approx(naive_mmd(x, y), rel=1e-10)


def test_swapping_and_reordering_leave_all_pairs_alone(rng):
    x, y = rng.normal(size=(600, 32)) * 1.1, rng.normal(size=(800, 32))
    value = full(x, y).value
    assert full(y, x).value == pytest.approx(value, rel=1e-9)
    assert full(rng.permutation(x), rng.permutation(y)).value == pytest.approx(value, abs=1e-12)
    assert value > 1e-4


def test_blocks_change_nothing(rng, monkeypatch):
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(70, 4)) + 1
    draws = draw_subsets(50, 70, 6, 20, 2020)
    whole, values = mmd_and_subsets(x, y, draws)
    monkeypatch.setattr(kernel, "_BLOCK", 16)
    parts, of_subsets = mmd_and_subsets(x, y, draws)
    for field in ("value", "zeta1", "zeta2", "cross"):
        assert getattr(parts, field) == pytest.approx(getattr(whole, field), rel=1e-9)
        assert getattr(mmd(x, y), field) == pytest.approx(getattr(whole, field), rel=1e-9)
    np.testing.assert_allclose(of_subsets, values, rtol=1e-10)


def test_unbiased_for_equal_distributions(rng):
    """The mean over fresh pairs is 0 within its own error; the biased estimate would be off by far more."""
    values = [mmd(rng.normal(size=(40, 6)), rng.normal(size=(40, 6))).value for _ in range(400)]
    error = np.std(values) / 20
    assert abs(np.mean(values)) < 3 * error
    diagonal = 2 * np.mean([(z @ z / 6 + 1) ** 3 for z in rng.normal(size=(400, 6))]) / 40
    assert diagonal > 20 * error


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_variance_in_closed_form(rng, shift):
    y = rng.normal(size=(500, 6))
    constant = kernel_mean(y)
    found = [mmd(rng.normal(size=(80, 6)) + shift, y, constant) for _ in range(400)]
    predicted = np.mean([m.variance(80) for m in found])
    assert predicted == pytest.approx(np.var([m.value for m in found]), rel=0.25)


def test_subsets_follow_the_documented_draws(rng):
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(40, 4)) + 0.3
    draws = np.random.RandomState(2020)
    expected = [
        naive_mmd(x[draws.choice(30, 10, replace=False)], y[draws.choice(40, 10, replace=False)]) for _ in range(3)
    ]
    subsets = draw_subsets(30, 40, 3, 10, kid.SUBSET_SEED)
    np.testing.assert_allclose([m.value for m in subset_mmds(x, y, subsets)], expected, rtol=1e-9)
    np.testing.assert_allclose(mmd_and_subsets(x, y, subsets)[1], expected, rtol=1e-9)


def test_both_routes_give_one_number(rng, monkeypatch):
    """All pairs at once where that is cheaper, subset by subset for large sides; float32 features count as float64."""
    x, y = rng.normal(size=(300, 8)).astype(np.float32) + 0.2, rng.normal(size=(260, 8)).astype(np.float32)
    metric = KernelInceptionDistance(subsets=40, subset_size=100)
    looked = []
    monkeypatch.setattr(kid, "subset_mmds", lambda *a: looked.append(1) or subset_mmds(*a))
    at_once = compute_one(metric, feature_inputs(x, y))
    assert not looked
    monkeypatch.setattr(kid, "_pairs_cost_less", lambda *_: False)
    one_by_one = compute_one(metric, feature_inputs(x, y))
    assert looked
    assert one_by_one.value == pytest.approx(at_once.value, rel=1e-11)
    assert one_by_one.extra["std_over_subsets"] == pytest.approx(at_once.extra["std_over_subsets"], rel=1e-9)
    assert one_by_one.standard_error == pytest.approx(at_once.standard_error, rel=0.1)
    as_float64 = compute_one(metric, feature_inputs(x.astype(np.float64), y.astype(np.float64)))
    assert as_float64.value == pytest.approx(at_once.value, rel=1e-11)


def test_large_sides_are_never_paired_in_full():
    pair = feature_inputs(np.empty((50_000, 1)), np.empty((50_000, 1)))
    pair = kid.FeaturePair(pair.samples.extract().features, pair.reference.extract().features)
    assert not kid._pairs_cost_less(pair, 100, 1000)


def test_kernel():
    assert polynomial_kernel(np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]]))[0, 0] == pytest.approx(7.5**3)


def test_names_its_estimator(rng):
    inputs = feature_inputs(rng.normal(size=(60, 4)), rng.normal(size=(90, 4)))
    shrunk = compute_one(KernelInceptionDistance(), inputs)
    assert shrunk.estimator == "full" and shrunk.conditions == {"estimator": "full"}
    assert "KID subset of 1000 shrunk to N = 60" in shrunk.notes[0] and "all pairs" in shrunk.notes[0]
    subsets = compute_one(KernelInceptionDistance(subsets=7, subset_size=20), inputs)
    assert subsets.estimator == "subset-7x20" and not subsets.notes
    whole = compute_one(FullKernelInceptionDistance(), inputs)
    assert whole.estimator == "full" and not whole.notes and whole.value == shrunk.value
    assert whole.ci95[1] - whole.value == pytest.approx(1.959964 * whole.standard_error, rel=1e-6)


def test_one_look_at_the_pairs_serves_both_metrics(rng, monkeypatch):
    monkeypatch.setattr(kid, "_SUBSET_SIZE", 30)
    monkeypatch.setattr(kid, "_SUBSETS", 9)
    inputs = feature_inputs(rng.normal(size=(60, 4)), rng.normal(size=(50, 4)))
    whole = compute_one(FullKernelInceptionDistance(), inputs)
    monkeypatch.setattr(kernel, "polynomial_kernel", None)
    assert np.isfinite(compute_one(KernelInceptionDistance(subsets=9, subset_size=30), inputs).value)
    assert whole.value == compute_one(FullKernelInceptionDistance(), inputs).value


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_interval_holds_the_expectation(rng, shift):
    y = rng.normal(size=(200, 8))
    metrics = [KernelInceptionDistance(subsets=10, subset_size=50), FullKernelInceptionDistance()]
    held = share_of_intervals(metrics, lambda: feature_inputs(rng.normal(size=(100, 8)) + shift, y))
    assert all(0.90 <= share <= 0.99 for share in held.values()), held


def test_interval_of_large_sides_holds_the_expectation(rng, monkeypatch):
    monkeypatch.setattr(kid, "_pairs_cost_less", lambda *_: False)
    y = rng.normal(size=(200, 8))
    metric = KernelInceptionDistance(subsets=5, subset_size=40)
    held = share_of_intervals([metric], lambda: feature_inputs(rng.normal(size=(100, 8)) + 0.2, y))
    assert 0.90 <= held["kid"] <= 0.99


@pytest.mark.parametrize("at_once", [True, False])
def test_interval_of_subsets_is_not_too_wide(rng, monkeypatch, at_once):
    """Equal distributions: the error is that of fresh draws, though each subset sees little of the reference."""
    monkeypatch.setattr(kid, "_pairs_cost_less", lambda *_: at_once)
    y = rng.normal(size=(300, 8))
    metric = KernelInceptionDistance(subsets=20, subset_size=50)
    found = [compute_one(metric, feature_inputs(rng.normal(size=(150, 8)), y)) for _ in range(150)]
    assert np.mean([e.standard_error for e in found]) == pytest.approx(np.std([e.value for e in found]), rel=0.3)


def test_one_subset_has_no_interval(rng):
    inputs = feature_inputs(rng.normal(size=(60, 4)), rng.normal(size=(50, 4)))
    found = compute_one(KernelInceptionDistance(subsets=1, subset_size=30), inputs)
    assert found.ci95 is None and found.standard_error is None and "one subset" in found.notes[0]


@pytest.mark.parametrize("options", [{"subsets": 0}, {"subset_size": 1}, {"subsets": 2.5}])
def test_refuses_bad_options(options):
    with pytest.raises(UsageError, match="must be an integer"):
        KernelInceptionDistance(**options)
