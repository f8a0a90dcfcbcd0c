"""Neighbours and balls found in float32 are those of float64, on data made to trip them; bounds hold as promised."""

import numpy as np
import pytest

from genbench.errors import DataError
from genbench.metrics import balls, distances
from genbench.metrics.balls import Convention, count_balls, nearest_neighbours
from genbench.metrics.distances import Distances, Points, centre_of, round_up

CONVENTIONS = [Convention(3, "<="), Convention(4, "<"), Convention(4, "<="), Convention(5, "<")]


def all_distances(x, y):
    return np.array([np.square(a.astype(np.float64) - y).sum(1) for a in x])


def to_others(x):
    found = all_distances(x, x)
    np.fill_diagonal(found, np.inf)
    return found


def normal(rng, n, d, dtype=np.float32):
    return rng.normal(size=(n, d)).astype(dtype)


def lattice(rng):
    return tuple(rng.integers(0, 3, (n, 4)).astype(np.float32) for n in (90, 110))


def copies(rng):
    reference = normal(rng, 110, 16)
    return reference[rng.integers(0, 12, 90)], reference


def collapsed(rng):
    reference = normal(rng, 110, 16)
    return reference[:1] + 1e-5 * normal(rng, 90, 16), reference


def two_points(rng):
    samples = np.concatenate([1e-6 * normal(rng, 45, 16), 5 + 1e-6 * normal(rng, 45, 16)])
    return samples, samples + np.float32(1e-6)


def outlier(rng):
    samples = normal(rng, 90, 16)
    samples[0] *= 1e6
    return samples, normal(rng, 110, 16)


SETS = {
    "Gaussians": lambda rng: (normal(rng, 90, 64), normal(rng, 110, 64)),
    "wide features": lambda rng: (normal(rng, 60, 2048), normal(rng, 70, 2048)),
    "float64": lambda rng: (normal(rng, 90, 8, np.float64), normal(rng, 110, 8, np.float64)),
    "far from the origin": lambda rng: (normal(rng, 90, 64) + 1000, normal(rng, 110, 64) + 1000),
    "ties on a lattice": lattice,
    "copies of a few": copies,
    "one point": lambda rng: (np.ones((40, 8), np.float32), np.ones((50, 8), np.float32)),
    "one mode": collapsed,
    "two modes": two_points,
    "an outlier": outlier,
    "huge": lambda rng: (1e25 * normal(rng, 90, 16), 1e25 * normal(rng, 110, 16)),
    "tiny": lambda rng: (1e-20 * normal(rng, 90, 16), 1e-20 * normal(rng, 110, 16)),
    "every ball holds all": lambda rng: (8 * normal(rng, 90, 4), normal(rng, 110, 4)),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("small_blocks", [False, True])
def test_equals_float64_throughout(rng, name, small_blocks, monkeypatch):
    if small_blocks:
        monkeypatch.setattr(distances, "_BLOCK", 2**11)
        monkeypatch.setattr(distances, "_PANEL", 2**9)
        monkeypatch.setattr(distances, "_DIFFERENCES", 2**8)
        monkeypatch.setattr(balls, "_PART", 2**9)
    samples, reference = SETS[name](rng)
    of_samples, of_reference = nearest_neighbours(samples, 6), nearest_neighbours(reference, 6)
    within = to_others(samples)
    np.testing.assert_array_equal(of_samples.squared, np.sort(within, 1)[:, :6])
    np.testing.assert_array_equal(np.take_along_axis(within, of_samples.index, 1), of_samples.squared)
    across = all_distances(reference, samples)
    found = count_balls(samples, reference, of_samples, of_reference.squared, CONVENTIONS)
    for (k, inequality), counts in found.items():
        inside = np.less if inequality == "<" else np.less_equal
        held = inside(across, np.sort(to_others(reference), 1)[:, k - 1, None])
        reaching = inside(across, of_samples.radii(k))
        np.testing.assert_array_equal(counts.holding, held.sum(0))
        np.testing.assert_array_equal(counts.held, held.sum(1))
        np.testing.assert_array_equal(counts.reaching, reaching.sum(1))
        for number, members, mask in (
            (counts.held, counts.held_members, held),
            (counts.reaching, counts.reaching_members, reaching),
        ):
            for row in range(len(mask)):
                few = np.flatnonzero(mask[row])[:3]
                assert members[row, : min(number[row], 3)].tolist() == few.tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale, shift", [(1, 0), (1e-3, 100), (1e10, 0), (1e-12, 0)])
def test_bounds_hold_the_distance(rng, dtype, scale, shift):
    x, y = ((normal(rng, n, 300) * scale + shift).astype(np.float32) for n in (40, 50))
    y[:20] = x[:20] + (1e-4 * scale * normal(rng, 20, 300)).astype(np.float32)
    centre = centre_of(x[:3], y)
    pairs = Distances(Points(x, centre), Points(y, centre))
    exact = all_distances(x, y)
    lower = pairs.lower(slice(0, 40), dtype).astype(np.float64)
    slack = pairs.slack(np.arange(40)[:, None], np.arange(50), dtype)
    assert (lower <= exact).all() and (exact <= lower + slack).all()
    assert (slack[25:, 25:] < 1e-3 * exact[25:, 25:]).all() or shift, "bounds too wide to be of use"


def test_bounds_hold_where_products_vanish(rng):
    """Beside one far point the others are so near that their products lie below float32's range."""
    points = np.concatenate([np.full((1, 300), 1e-12), 1e-22 * rng.normal(size=(30, 300))]).astype(np.float32)
    seen = Points(points, np.zeros(300))
    pairs = Distances(seen, seen)
    assert pairs.dtype is np.float32
    lower = pairs.lower(slice(0, 31), np.float32)
    exact = all_distances(points, points)
    assert (lower <= exact).all()
    assert (exact <= lower + pairs.slack(np.arange(31)[:, None], np.arange(31), np.float32)).all()


def test_search_runs_in_float32_unless_it_cannot_tell(rng, monkeypatch):
    asked = []
    lower = Distances.lower
    monkeypatch.setattr(Distances, "lower", lambda self, part, dtype: asked.append(dtype) or lower(self, part, dtype))
    nearest_neighbours(normal(rng, 200, 32), 6)
    assert asked == [np.float32]
    nearest_neighbours(two_points(rng)[0], 6)
    assert asked[1:] == [np.float32, np.float64]
    asked.clear()
    samples, reference = two_points(rng)
    radii = nearest_neighbours(reference, 6).squared
    near = nearest_neighbours(samples, 6)
    asked.clear()
    count_balls(samples, reference, near, radii, CONVENTIONS)
    assert asked == [np.float32, np.float64, np.float64]


def test_few_exact_distances_are_needed(rng, monkeypatch):
    """Of 400 x 400 pairs little more than the neighbours themselves is computed twice."""
    computed = []
    exact = Distances.exact
    monkeypatch.setattr(Distances, "exact", lambda self, i, j: computed.append(len(i)) or exact(self, i, j))
    samples, reference = normal(rng, 400, 256), normal(rng, 400, 256)
    near = nearest_neighbours(samples, 6)
    assert sum(computed) < 400 * 6 * 1.2
    radii = nearest_neighbours(reference, 6).squared
    computed.clear()
    count_balls(samples, reference, near, radii, CONVENTIONS)
    assert sum(computed) < 400


def test_many_copies_cost_no_more_than_their_originals(rng, monkeypatch):
    computed = []
    exact = Distances.exact
    monkeypatch.setattr(Distances, "exact", lambda self, i, j: computed.append(len(i)) or exact(self, i, j))
    points = np.concatenate([np.zeros((5000, 4), np.float32), normal(rng, 50, 4)])
    found = nearest_neighbours(points, 3)
    assert (found.squared[:5000] == 0).all() and (found.squared[5000:] > 0).all()
    assert (found.index[:5000] < 5000).all() and (found.index != np.arange(5050)[:, None]).all()
    assert all(len(set(row)) == 3 for row in found.index.tolist())
    assert sum(computed) < 1000


def test_rounding_up():
    values = np.array([0.1, 0.5, 1e-60, 0.0, 1 / 3])
    rounded = round_up(values, np.float32)
    assert rounded.dtype == np.float32 and (rounded >= values).all() and rounded[1] == 0.5 and rounded[3] == 0
    assert (rounded[[0, 4]] <= values[[0, 4]] * (1 + 2**-22)).all()


def test_refuses_features_whose_distances_overflow():
    points = np.array([[1e200], [0.0], [2e200], [3e200]])
    with pytest.raises(DataError, match="3e\\+200, so that their squared distances overflow"):
        nearest_neighbours(points, 2)
