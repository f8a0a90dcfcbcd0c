"""Precision, recall, density, coverage: against naive loops, and what holds without a reference value."""

import numpy as np
import pytest
from metric_inputs import compute_one, coverage, feature_inputs

from genbench.errors import UsageError
from genbench.metrics import NotApplicable
from genbench.metrics.neighbours import (
    Coverage,
    Density,
    Precision,
    Recall,
    count_balls,
    nearest_neighbours,
    precision_recall_density_coverage,
    reach,
)


def naive(samples, reference, k, strict):
    def radius(points, i):
        return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

    def inside(x, centre, r):
        distance = np.linalg.norm(x - centre)
        return distance < r if strict else distance <= r

    real = [(c, radius(reference, i)) for i, c in enumerate(reference)]
    fake = [(c, radius(samples, i)) for i, c in enumerate(samples)]
    holds = np.array([[inside(x, c, r) for c, r in real] for x in samples])
    return {
        "precision": holds.any(1).mean(),
        "recall": np.mean([any(inside(y, c, r) for c, r in fake) for y in reference]),
        "density": holds.sum() / (k * len(samples)),
        "coverage": holds.any(0).mean(),
    }


@pytest.fixture
def sets(rng):
    return rng.normal(size=(70, 5)) * 1.3 + 0.8, rng.normal(size=(90, 5))


@pytest.mark.parametrize("k, inequality", [(3, "<="), (5, "<")])
def test_equals_naive_loops(sets, k, inequality, monkeypatch):
    monkeypatch.setattr("genbench.metrics.neighbours._BLOCK", 32)
    found = precision_recall_density_coverage(*sets, k, inequality)
    assert found == pytest.approx(naive(*sets, k, inequality == "<"), abs=1e-12)
    assert 0.1 < found["precision"] < 1 and 0.1 < found["recall"] < 1


def test_metrics_follow_their_conventions(sets):
    inputs = feature_inputs(*sets)
    first, second = naive(*sets, 3, strict=False), naive(*sets, 5, strict=True)
    assert compute_one(Precision(), inputs).value == pytest.approx(first["precision"])
    assert compute_one(Recall(), inputs).value == pytest.approx(first["recall"])
    assert compute_one(Density(), inputs).value == pytest.approx(second["density"])
    assert compute_one(Coverage(), inputs).value == pytest.approx(second["coverage"])


def test_swapping_swaps_precision_and_recall(sets):
    samples, reference = sets
    there, back = feature_inputs(samples, reference), feature_inputs(reference, samples)
    assert compute_one(Precision(), there).value == compute_one(Recall(), back).value
    assert compute_one(Recall(), there).value == compute_one(Precision(), back).value


def test_order_does_not_matter(sets, rng):
    samples, reference = sets
    shuffled = feature_inputs(rng.permutation(samples), rng.permutation(reference))
    for metric in (Precision(), Recall(), Density(), Coverage()):
        assert compute_one(metric, shuffled).value == pytest.approx(compute_one(metric, feature_inputs(*sets)).value)


def test_inequality_on_a_line():
    """Points 0, 1, 2 with k = 1 have balls of radius 1; a sample at 3 lies on the border of one."""
    reference, samples = np.array([[0.0], [1.0], [2.0]]), np.array([[3.0], [3.0]])
    radii = nearest_neighbours(reference, 1).radii(1)
    assert count_balls(samples, reference, radii, "<=").holding.tolist() == [1, 1]
    assert count_balls(samples, reference, radii, "<").holding.tolist() == [0, 0]


def test_collapse_keeps_precision_and_loses_recall(rng):
    reference = rng.normal(size=(200, 4))
    collapsed = reference[:1] + 1e-3 * rng.normal(size=(100, 4))
    inputs = feature_inputs(collapsed, reference)
    assert compute_one(Precision(), inputs).value == 1.0
    assert compute_one(Recall(), inputs).value < 0.02
    assert compute_one(Coverage(), inputs).value < 0.15


@pytest.mark.parametrize("inequality", ["<=", "<"])
def test_recall_jackknife_equals_refits(rng, inequality):
    samples, reference = rng.normal(size=(60, 6)), rng.normal(size=(150, 6))

    def reached(points):
        return count_balls(reference, points, nearest_neighbours(points, 3).radii(3), inequality).holding > 0

    found = reach(reference, samples, nearest_neighbours(samples, 4), 3, inequality)
    assert (found.reached == reached(samples)).all()
    lost = [reached(samples).sum() - reached(np.delete(samples, i, 0)).sum() for i in range(60)]
    assert found.lost.tolist() == lost
    assert min(lost) < 0 < max(lost)


def test_coverage_jackknife_equals_refits(sets):
    samples, reference = sets
    radii = nearest_neighbours(reference, 5).radii(5)
    counts = count_balls(samples, reference, radii, "<")
    lost = [
        (counts.held > 0).sum() - (count_balls(np.delete(samples, i, 0), reference, radii, "<").held > 0).sum()
        for i in range(len(samples))
    ]
    assert counts.only.tolist() == lost


@pytest.mark.parametrize("metric", [Precision(), Recall(), Density(), Coverage()])
def test_interval_holds_the_expectation(rng, metric):
    y = rng.normal(size=(300, 16))
    draw = lambda: feature_inputs(rng.normal(size=(150, 16)) * 0.9 + 0.1, y)  # noqa: E731
    assert coverage(metric, draw, repetitions=60) >= 0.88


def test_no_interval_where_no_sample_matters(rng):
    far = compute_one(Recall(), feature_inputs(rng.normal(size=(50, 3)) + 100, rng.normal(size=(60, 3))))
    assert far.value == 0.0 and far.ci95 is None and "no interval" in far.notes[0]


def test_refuses_too_few_points_and_bad_options(rng):
    with pytest.raises(NotApplicable, match="4 samples"):
        Precision().compute(feature_inputs(rng.normal(size=(4, 2)), rng.normal(size=(50, 2))))
    with pytest.raises(UsageError, match="'k'"):
        Density(k=0)
    with pytest.raises(UsageError, match="'inequality'"):
        Precision(inequality=">")
