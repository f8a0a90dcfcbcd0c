"""Precision, recall, F1, density, coverage: against naive loops, and what holds without a reference value."""

import numpy as np
import pytest
from metric_inputs import compute_one, feature_inputs

from genbench.errors import UsageError
from genbench.metrics import NotApplicable, balls
from genbench.metrics.balls import Convention, count_balls, nearest_neighbours
from genbench.metrics.f1 import F1
from genbench.metrics.neighbours import Coverage, Density, Precision, Recall

ALL = (Precision, Recall, F1, Density, Coverage)


def naive(samples, reference, k, strict):
    def radius(points, i):
        return sorted(np.linalg.norm(points[i] - p) for j, p in enumerate(points) if j != i)[k - 1]

    def inside(x, centre, r):
        distance = np.linalg.norm(x - centre)
        return distance < r if strict else distance <= r

    real = [(c, radius(reference, i)) for i, c in enumerate(reference)]
    fake = [(c, radius(samples, i)) for i, c in enumerate(samples)]
    holds = np.array([[inside(x, c, r) for c, r in real] for x in samples])
    precision, recall = holds.any(1).mean(), np.mean([any(inside(y, c, r) for c, r in fake) for y in reference])
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 / (1 / precision + 1 / recall),
        "density": holds.sum() / (k * len(samples)),
        "coverage": holds.any(0).mean(),
    }


@pytest.fixture
def sets(rng):
    return rng.normal(size=(70, 5)) * 1.3 + 0.8, rng.normal(size=(90, 5))


def values(samples, reference, *options):
    inputs = feature_inputs(samples, reference)
    return {metric.name: compute_one(metric(*options), inputs).value for metric in ALL}


@pytest.mark.parametrize("k, inequality", [(3, "<="), (5, "<"), (12, "<=")])
def test_equals_naive_loops(sets, k, inequality):
    found = values(*sets, k, inequality)
    assert found == pytest.approx(naive(*sets, k, inequality == "<"), abs=1e-12)
    assert 0.1 < found["precision"] < 1 and found["recall"] > 0.1


def test_metrics_follow_their_conventions(sets):
    found = values(*sets)
    first, second = naive(*sets, 3, strict=False), naive(*sets, 5, strict=True)
    expected = {**first, "density": second["density"], "coverage": second["coverage"]}
    assert found == pytest.approx(expected, abs=1e-12)


def test_one_pass_serves_all_metrics(sets, monkeypatch):
    passes = []
    real = balls.Distances.lower
    monkeypatch.setattr(balls.Distances, "lower", lambda self, *a: passes.append(1) or real(self, *a))
    inputs = feature_inputs(*sets)
    for metric in (Recall(), Precision(), F1(), Density(), Coverage(), Precision(k=5, inequality="<")):
        compute_one(metric, inputs)
    assert len(passes) == 3, "one among the samples, one among the reference, one across"
    compute_one(Precision(k=4), inputs)
    assert len(passes) == 4


def test_swapping_swaps_precision_and_recall(sets):
    there, back = values(*sets), values(*reversed(sets))
    assert there["precision"] == back["recall"] and there["recall"] == back["precision"]
    assert there["precision"] != there["recall"] and there["f1"] == pytest.approx(back["f1"], rel=1e-15)


def test_order_does_not_matter(sets, rng):
    assert values(*(rng.permutation(side) for side in sets)) == pytest.approx(values(*sets), abs=1e-12)


def test_inequality_on_a_line():
    """Points 0, 1, 2 with k = 1 have balls of radius 1; a sample at 3 lies on the border of one."""
    reference, samples = np.array([[0.0], [1.0], [2.0]]), np.array([[3.0], [3.0]])
    inputs = feature_inputs(samples, reference)
    assert compute_one(Density(k=1, inequality="<="), inputs).value == 1.0
    assert compute_one(Density(k=1, inequality="<"), inputs).value == 0.0


def test_collapse_keeps_precision_and_loses_recall(rng):
    reference = rng.normal(size=(200, 4))
    found = values(reference[:1] + 1e-3 * rng.normal(size=(100, 4)), reference)
    assert found["precision"] == 1.0
    assert found["recall"] < 0.02 and found["f1"] < 0.04 and found["coverage"] < 0.15


@pytest.mark.parametrize("inequality", ["<=", "<"])
def test_recall_jackknife_equals_refits(rng, inequality):
    samples, reference = rng.normal(size=(60, 6)), rng.normal(size=(150, 6))
    radii = nearest_neighbours(reference, 3).squared
    convention = Convention(3, inequality)

    def counts(points):
        return count_balls(points, reference, nearest_neighbours(points, 4), radii, [convention])[convention]

    found = counts(samples)
    reached = (found.reaching > 0).sum()
    lost = [reached - (counts(np.delete(samples, i, 0)).reaching > 0).sum() for i in range(60)]
    assert found.lost.tolist() == lost
    assert min(lost) < 0 < max(lost)


def test_warns_of_balls_without_extent(rng):
    reference = rng.normal(size=(40, 3))
    samples = np.concatenate([np.repeat(reference[:1], 6, axis=0), rng.normal(size=(30, 3))])
    inputs = feature_inputs(samples, reference)
    (note,) = compute_one(Recall(k=5), inputs).notes
    assert note == "6 of the samples have 5 or more duplicates: their balls have radius 0"
    assert not compute_one(Recall(k=6), inputs).notes and not compute_one(Precision(k=5), inputs).notes
    swapped = feature_inputs(reference, samples)
    assert "6 of the reference images have 3 or more" in compute_one(Precision(), swapped).notes[0]
    assert "6 of the reference images have 3 or more" in compute_one(F1(), swapped).notes[0]


def test_no_interval_where_no_sample_matters(rng):
    inputs = feature_inputs(rng.normal(size=(50, 3)) + 100, rng.normal(size=(60, 3)))
    for metric in (Recall(), F1()):
        far = compute_one(metric, inputs)
        assert far.value == 0.0 and far.ci95 is None and "no interval" in far.notes[0]


def test_as_many_points_as_the_balls_need(rng):
    inputs = feature_inputs(rng.normal(size=(4, 2)), rng.normal(size=(50, 2)))
    assert compute_one(Precision(), inputs).value == naive(*sides(inputs), 3, strict=False)["precision"]
    recall = compute_one(Recall(), inputs)
    assert recall.value == naive(*sides(inputs), 3, strict=False)["recall"]
    assert recall.ci95 is None and "too few neighbours" in recall.notes[0]


def sides(inputs):
    return inputs.samples.features().features, inputs.reference.features().features


def test_refuses_too_few_points_and_bad_options(rng):
    with pytest.raises(NotApplicable, match="3 samples are too few"):
        Precision().compute(feature_inputs(rng.normal(size=(3, 2)), rng.normal(size=(50, 2))))
    with pytest.raises(NotApplicable, match=r"5 reference images are too few: k = 5 .* at least 6"):
        Density().compute(feature_inputs(rng.normal(size=(50, 2)), rng.normal(size=(5, 2))))
    with pytest.raises(UsageError, match="'k'"):
        Density(k=0)
    with pytest.raises(UsageError, match="'inequality'"):
        Precision(inequality=">")
