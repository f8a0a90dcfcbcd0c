"""The counter-based noise source: known vectors, moments, independence of the batch."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genbench.noise import NoiseSource, derive_seed, philox

# Known answers of Philox-4x32-10 from the authors' Random123 distribution.
VECTORS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), VECTORS)
def test_philox_known_answers(counter, key, expected):
    words = philox(tuple(torch.tensor([c]) for c in counter), key)
    assert tuple(int(w) for w in words) == expected


def draws(index, seed=0, stream="sample"):
    source = NoiseSource(seed, torch.tensor(index), stream)
    return torch.cat([source.normal((3, 5)).flatten(1), source.uniform((7,)), source.rademacher((2,))], dim=1)


def test_noise_depends_on_seed_index_and_draw_alone():
    together = draws([4, 9, 2**40])
    for position, index in enumerate([4, 9, 2**40]):
        assert torch.equal(together[position], draws([index])[0])
    assert not torch.equal(draws([4]), draws([4], seed=1))
    assert not torch.equal(draws([4]), draws([4], stream="likelihood"))
    assert not torch.equal(draws([2**40]), draws([2**40 + 2**33]))


def test_consecutive_draws_differ():
    source = NoiseSource(0, torch.arange(2))
    assert not torch.equal(source.uniform((4,)), source.uniform((4,)))


def test_draws_made_ahead_are_the_draws_asked_for():
    """Element (seed, index, draw) is the same however the calls before it were mixed."""
    same, mixed = NoiseSource(5, torch.arange(3)), NoiseSource(5, torch.arange(3))
    expected = [same.normal((6,)) for _ in range(40)]
    for number, value in enumerate(expected):
        if number % 3 == 1:
            mixed.uniform((2,))
        else:
            assert torch.equal(mixed.normal((6,)), value)


def test_distributions():
    source = NoiseSource(3, torch.arange(2000))
    normal = source.normal((31,)).numpy().ravel()
    uniform = source.uniform((31,)).numpy().ravel()
    assert stats.kstest(normal, "norm").pvalue > 1e-3
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert uniform.min() >= 0.0 and uniform.max() < 1.0
    signs = source.rademacher((31,))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / math.sqrt(signs.numel())


def test_normal_halves_are_uncorrelated():
    z = NoiseSource(0, torch.arange(20_000)).normal((4,)).numpy()
    assert np.abs(np.corrcoef(z.T) - np.eye(4)).max() < 0.03


def test_categorical_frequencies():
    p = torch.tensor([0.5, 0.0, 0.2, 0.3])
    n = 20_000
    drawn = NoiseSource(1, torch.arange(n)).categorical(p.expand(n, 1, 4))
    counts = torch.bincount(drawn.flatten(), minlength=4).numpy()
    assert counts[1] == 0
    assert stats.chisquare(counts[[0, 2, 3]], n * p.numpy()[[0, 2, 3]]).pvalue > 1e-3


def test_derived_seeds_differ():
    seeds = {derive_seed(0, "a"), derive_seed(0, "b"), derive_seed(1, "a"), derive_seed("0", "a", "")}
    assert len(seeds) == 4
    assert all(0 <= s < 2**63 for s in seeds)
