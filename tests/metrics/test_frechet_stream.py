"""A stream of features: equal to the whole, merged from parts, in memory that does not grow."""

import subprocess
import sys

import numpy as np
import pytest
from interval_coverage import REPETITIONS
from metric_inputs import compute_one, feature_inputs

from genbench.errors import DataError
from genbench.features.base import Features
from genbench.metrics import Side
from genbench.metrics.frechet import FrechetInceptionDistance
from genbench.metrics.frechet_interval import INTERVAL_ROWS
from genbench.metrics.frechet_stream import FrechetStream, row_keys

PEAK = """
import sys, tracemalloc
import numpy as np
from genbench.metrics.frechet_stream import FrechetStream

rng = np.random.default_rng(0)
reference = FrechetStream(64)
reference.update(rng.standard_normal((1000, 64), dtype=np.float32))
tracemalloc.start()
stream = FrechetStream(64)
for _ in range(int(sys.argv[1]) // 1000):
    stream.update(rng.standard_normal((1000, 64), dtype=np.float32))
assert stream.compute(reference).ci95 is not None
print(tracemalloc.get_traced_memory()[1])
"""


def streamed(features, *cuts):
    stream = FrechetStream(features.shape[1])
    for part in np.split(features, cuts):
        stream.update(part)
    return stream


def reference_side(features):
    return Side.of("reference images", Features(features))


def draw(rng, n, d):
    return (rng.normal(size=(n, d)) * np.linspace(1, 2, d) + 0.2).astype(np.float32)


@pytest.mark.parametrize("n, d", [(3000, 5), (60, 5), (20, 30), (2, 3)])
def test_equals_the_distance_of_all_features(rng, n, d):
    x, y = draw(rng, n, d), draw(rng, 400, d)
    expected = compute_one(FrechetInceptionDistance(), feature_inputs(x, y))
    found = streamed(x, 1, n // 2).compute(reference_side(y))
    assert found.value == pytest.approx(expected.value, rel=1e-9)
    assert found.n == n
    assert streamed(x).compute(streamed(y, 100)).value == pytest.approx(expected.value, rel=1e-9)
    if 3 <= n <= INTERVAL_ROWS:
        assert found.ci95 == pytest.approx(expected.ci95, rel=1e-7)


def test_few_features_keep_their_precision(rng):
    x, y = rng.normal(size=(20, 30)), rng.normal(size=(400, 30))
    expected = compute_one(FrechetInceptionDistance(), feature_inputs(x, y))
    assert streamed(x, 3).compute(reference_side(y)).value == pytest.approx(expected.value, rel=1e-10)
    whole = rng.integers(0, 9, (40, 30))
    assert streamed(whole).compute(streamed(whole.astype(np.float64))).value == pytest.approx(0.0, abs=1e-9)


def test_merged_parts_equal_the_whole(rng):
    x = draw(rng, 5000, 4)
    whole, merged = streamed(x), FrechetStream(4)
    for part in np.split(rng.permutation(x), [7, 2000, 2001]):
        other = streamed(part, len(part) // 3)
        before = other.rows.copy()
        merged.merge(other)
        np.testing.assert_array_equal(other.rows, before)
    assert merged.count == 5000
    np.testing.assert_allclose(merged.moments.mean, whole.moments.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.moments.covariance(), whole.moments.covariance(), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(merged.rows, whole.rows)


def test_rows_are_a_fair_draw(rng):
    """Without replacement, and no matter when they come: a third of those kept come from each third of the stream."""
    x = draw(rng, 6000, 3)
    rows = streamed(x, 10, 4000).rows
    assert rows.shape == (INTERVAL_ROWS, 3) and len(np.unique(rows, axis=0)) == INTERVAL_ROWS
    place = {row.tobytes(): i for i, row in enumerate(x)}
    thirds = np.bincount([place[row.tobytes()] // 2000 for row in rows])
    assert (np.abs(thirds - INTERVAL_ROWS / 3) < 4 * np.sqrt(INTERVAL_ROWS * 2 / 9)).all()


def test_keys_tell_rows_apart_and_know_copies(rng):
    x = draw(rng, 4000, 3)
    keys = row_keys(x)
    assert len(np.unique(keys)) == 4000
    np.testing.assert_array_equal(row_keys(x[::-1].copy()), keys[::-1])
    np.testing.assert_array_equal(row_keys(np.float32([[0.0, 1.0]])), row_keys(np.float32([[-0.0, 1.0]])))
    assert row_keys(x[:1, ::-1].copy()) != keys[0]


def test_a_copy_goes_its_own_way(rng):
    stream = streamed(draw(rng, 100, 3))
    other = stream.copy()
    other.update(draw(rng, 50, 3))
    assert (stream.count, other.count, len(stream.rows)) == (100, 150, 100)
    assert other.moments.scatter[0, 0] > stream.moments.scatter[0, 0]


def test_interval_holds_the_expectation(rng):
    """More features than rows are kept."""
    reference = streamed(draw(rng, 2000, 3))
    found = [streamed(draw(rng, 2000, 3) * 1.1).compute(reference) for _ in range(REPETITIONS)]
    truth = np.mean([streamed(draw(rng, 2000, 3) * 1.1).compute(reference).value for _ in range(REPETITIONS)])
    assert 0.9 <= np.mean([e.ci95[0] <= truth <= e.ci95[1] for e in found]) <= 0.99


def test_memory_does_not_grow():
    peaks = []
    for total in (10_000, 100_000):
        found = subprocess.run([sys.executable, "-c", PEAK, str(total)], check=True, capture_output=True, text=True)
        peaks.append(int(found.stdout))
    assert peaks[1] == pytest.approx(peaks[0], rel=0.05)


def test_refuses_what_is_no_feature(rng):
    stream = FrechetStream(3)
    with pytest.raises(DataError, match="expected"):
        stream.update(np.zeros((4, 2)))
    with pytest.raises(DataError, match="NaN or infinite"):
        stream.update(np.full((1, 3), np.nan))
    with pytest.raises(DataError, match="width 2"):
        stream.merge(FrechetStream(2))
    with pytest.raises(DataError, match="at least 2"):
        streamed(draw(rng, 1, 3)).compute(streamed(draw(rng, 10, 3)))
    assert stream.count == 0
