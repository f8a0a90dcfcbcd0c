"""KID: against a naive double loop, unbiasedness, variance and coverage."""

import numpy as np
import pytest
from metric_inputs import compute_one, coverage, feature_inputs

from genbench.errors import UsageError
from genbench.metrics.kid import KernelInceptionDistance, kernel_mean, mmd, polynomial_kernel, subset_mmds


def naive_mmd(x, y):
    def k(a, b):
        return (a @ b / len(a) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_equals_naive_loops(rng):
    x, y = rng.normal(size=(11, 5)) + 0.5, rng.normal(size=(17, 5))
    assert mmd(x, y).value == pytest.approx(naive_mmd(x, y), rel=1e-10)


def test_symmetric_and_free_of_order(rng):
    x, y = rng.normal(size=(60, 5)) + 0.5, rng.normal(size=(80, 5))
    assert mmd(x, y).value == pytest.approx(mmd(y, x).value, rel=1e-10)
    assert mmd(rng.permutation(x), y).value == pytest.approx(mmd(x, y).value, rel=1e-10)


def test_blocks_change_nothing(rng, monkeypatch):
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(70, 4)) + 1
    whole = mmd(x, y)
    monkeypatch.setattr("genbench.metrics.kid._BLOCK", 16)
    parts = mmd(x, y)
    for field in ("value", "zeta1", "zeta2", "cross"):
        assert getattr(parts, field) == pytest.approx(getattr(whole, field), rel=1e-9)


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
    np.testing.assert_allclose([m.value for m in subset_mmds(x, y, 3, 10)], expected, rtol=1e-9)


def test_kernel():
    assert polynomial_kernel(np.array([[1.0, 2.0]]), np.array([[3.0, 5.0]]))[0, 0] == pytest.approx(7.5**3)


def test_names_its_estimator(rng):
    inputs = feature_inputs(rng.normal(size=(60, 4)), rng.normal(size=(90, 4)))
    full = compute_one(KernelInceptionDistance(), inputs)
    assert full.estimator == "full" and "all pairs" in full.notes[0] and full.conditions == {"estimator": "full"}
    subsets = compute_one(KernelInceptionDistance(subsets=7, subset_size=20), inputs)
    assert subsets.estimator == "subset-7x20" and not subsets.notes
    sides = (inputs.samples.features().features, inputs.reference.features().features)
    assert full.value == pytest.approx(mmd(*sides).value)


@pytest.mark.parametrize("metric", [KernelInceptionDistance(), KernelInceptionDistance(subsets=20, subset_size=50)])
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_interval_holds_the_expectation(rng, metric, shift):
    y = rng.normal(size=(300, 8))
    assert coverage(metric, lambda: feature_inputs(rng.normal(size=(150, 8)) + shift, y), repetitions=60) >= 0.88


def test_interval_of_subsets_is_not_too_wide(rng):
    """Equal distributions: the error is that of fresh draws, though each subset sees little of the reference."""
    y = rng.normal(size=(300, 8))
    metric = KernelInceptionDistance(subsets=20, subset_size=50)
    found = [compute_one(metric, feature_inputs(rng.normal(size=(150, 8)), y)) for _ in range(150)]
    half = np.mean([e.ci95[1] - e.ci95[0] for e in found]) / 2
    assert half == pytest.approx(1.96 * np.std([e.value for e in found]), rel=0.3)


@pytest.mark.parametrize("options", [{"subsets": 0}, {"subset_size": 1}, {"subsets": 2.5}])
def test_refuses_bad_options(options):
    with pytest.raises(UsageError, match="must be an integer"):
        KernelInceptionDistance(**options)
