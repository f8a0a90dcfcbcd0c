"""Harm by a right value: alarms at their level wherever the values lie around it, and what is caught across it."""

import numpy as np
import pytest
from check_fixture import entry, metric, scored
from scipy import stats

from genbench.check.evidence import Evidence, Noise, evidence, with_sum
from genbench.check.harm import harm
from genbench.check.judge import judge

RIGHT, COUNT = 0.20, 297
ALPHA = 0.01
WITH_RIGHT = {"extra": {"test_split": RIGHT}}


def sampled(scores, seed=0, paired=True, name="nearest_train_distance", extra=WITH_RIGHT):
    """A row whose metric is a mean over samples; without ``paired`` its scores are not at hand."""
    found, kept = scored(name, scores, higher_is_better=None)
    provenance = {"standard_error": found.provenance["standard_error"]} | extra
    return entry("vae", [found.model_copy(update={"provenance": provenance})], seed, kept if paired else {})


def verdict(after, before):
    return judge(after, before).findings[0].verdict


def shares(make, runs=400):
    """How often two sides that ``make`` makes of common and own noise are called worse, and better."""
    rng = np.random.default_rng(0)
    found = [verdict(*make(lambda sd: rng.normal(0, sd, COUNT))) for _ in range(runs)]
    return [np.mean([one == told for one in found]) for told in ("worse", "better")]


LEVEL = ALPHA + 3 * (ALPHA / 400) ** 0.5


@pytest.mark.parametrize("own", [0.02, 0.2])
@pytest.mark.parametrize("off", [0.0, 0.002, 0.01, 0.03])
@pytest.mark.parametrize("paired", [True, False])
def test_as_far_off_on_the_other_side_is_the_same(off, own, paired):
    def make(noise):
        common = noise(0.2)
        made = [sampled(RIGHT + side * off + common + noise(own), paired=paired) for side in (1, -1)]
        return made[:1], made[1:]

    assert max(shares(make)) <= LEVEL


@pytest.mark.parametrize("off", [0.002, 0.01])
def test_so_it_is_where_many_seeds_share_their_noise(off):
    def make(noise):
        common = [noise(0.2) for _ in range(3)]
        made = [
            [sampled(RIGHT + side * off + common[seed] + noise(0.02), seed) for seed in range(3)] for side in (1, -1)
        ]
        return made[0], made[1]

    assert max(shares(make)) <= LEVEL


@pytest.mark.parametrize(("off", "further"), [(0.03, 0.2), (0.0, 0.15), (-0.01, 0.15)])
def test_a_real_crossing_is_caught(off, further):
    def make(noise):
        common = noise(0.2)
        before, after = (RIGHT + place + common + noise(0.05) for place in (-off, further))
        return [sampled(after)], [sampled(before)]

    assert shares(make, 50) == [1.0, 0.0]
    assert shares(lambda noise: make(noise)[::-1], 50) == [0.0, 1.0]


def test_on_one_side_pairs_see_what_their_difference_shows():
    def make(noise):
        common = noise(0.2)
        return [sampled(0.56 + common + noise(0.02))], [sampled(0.55 + common + noise(0.02))]

    assert shares(make, 50)[0] == 1.0


def test_the_noise_of_a_sum_is_that_of_summed_scores():
    rng = np.random.default_rng(1)
    common = rng.normal(0, 1, COUNT)
    scores = [common + rng.normal(0, 0.1, COUNT) for _ in range(2)]
    sides = [[(one, one.record.metrics[0])] for one in map(sampled, scores)]
    found = with_sum(evidence(*sides), *sides)
    error = (scores[0] + scores[1]).std(ddof=1) / COUNT**0.5
    t = found.paired_sum
    assert t.freedom == COUNT - 1 and t.above == pytest.approx(1.968 * error, rel=1e-3)
    assert found.noises[0].above < 0.2 * t.above
    assert found.p_sum_beyond(2 * error) == pytest.approx(t.p(2 * error, t.above))


@pytest.mark.parametrize(("seed", "wider"), [(0, 2**0.5), (1, 1.0)])
def test_sides_that_share_a_seed_may_share_its_noise(seed, wider):
    rng = np.random.default_rng(1)
    sides = [
        [(one, one.record.metrics[0])]
        for one in (sampled(rng.normal(0.2, 0.1, COUNT), at, paired=False) for at in (0, seed))
    ]
    found = with_sum(evidence(*sides), *sides)
    assert found.paired_sum is None
    assert found.p_sum_beyond(0.02) == pytest.approx(found.p_beyond(0.02 / wider))


def test_an_expected_share_is_exceeded_by_the_candidates_own_noise():
    """Ten samples more are too near: that is sure, but not that the share of all exceeds what is right."""
    before, after = (np.arange(COUNT) < count for count in (10, 20))
    extra = {"extra": {"expected": 0.05}}
    rows = [[sampled(side.astype(float), name="memorised_share", extra=extra)] for side in (before, after)]
    found = judge(rows[1], rows[0]).findings[0]
    assert found.change == pytest.approx(10 / COUNT) and found.ci95[0] > 0
    errors = [side.std(ddof=1) / COUNT**0.5 for side in (before + 0.0 + after, after)]
    p_sum, p_alone = (stats.t.sf((20 / COUNT - 0.05) / error, COUNT - 1) for error in errors)
    assert (found.verdict, found.p) == ("same", pytest.approx(p_sum, rel=1e-3))
    assert 0.01 < p_alone < p_sum


def test_a_share_that_was_too_large_before_is_worse_only_by_more():
    extra = {"extra": {"expected": 0.05}}
    counts = (100, 100, 60, 140)
    sides = [[sampled((np.arange(COUNT) < count) + 0.0, name="memorised_share", extra=extra)] for count in counts]
    assert [verdict(after, sides[0]) for after in sides] == ["same", "same", "better", "worse"]


def test_certain_values_are_certain_on_either_side():
    made = metric("ssim_pairwise", 0.25, provenance={"extra": {"test_split": 0.25}}, kind="exact")
    exactly = Evidence(0.25, (Noise(0.0, 0.0),), "exact values")
    same, worse, better = (harm(exactly, made, before, 0.0) for before in (0.125, 0.1875, 0.0625))
    assert [(one.p_worse, one.p_better, one.certain) for one in (same, worse, better)] == [
        (1.0, 1.0, True),
        (0.0, 1.0, True),
        (1.0, 0.0, True),
    ]


def test_a_difference_without_noise_is_not_certain_where_the_sum_has_some():
    scores = np.random.default_rng(2).normal(RIGHT - 0.01, 0.2, COUNT)
    rows = [[sampled(np.round(one * 2**20) / 2**20)] for one in (scores, scores + 2.0**-4)]
    sides = [[(one, one.record.metrics[0]) for one in side] for side in rows]
    assert evidence(*sides).exact
    found = judge(rows[1], rows[0]).findings[0]
    assert found.verdict == "same" and 0.01 < found.p < 0.5
    for one in (rows[0][0], rows[1][0]):
        one.record.metrics.append(metric("fid", 2.0, 0.1))
    assert judge(rows[1], rows[0]).findings[0].p == pytest.approx(2 * found.p)
