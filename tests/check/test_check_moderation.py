"""What rows tell each other of the spread of seeds: by hand, at its level, and in a verdict."""

from __future__ import annotations

import math

import numpy as np
import pytest
from check_fixture import entry, metric
from scipy import special, stats

from genbench.check.evidence import Evidence, Noise, Spread, evidence, holm
from genbench.check.judge import judge
from genbench.check.moderation import excess, posterior_variance, prior_variance, unbiased_log
from genbench.check.over_rows import CAUTION, moderated, moderated_table, row_excess


def seeds(values, half=1e-6, row="vae"):
    made = [metric("fid", float(value), half) for value in values]
    return [(entry(row, [found], seed), found) for seed, found in enumerate(made)]


def rows_of(spreads, shift=0.0, half=1e-6):
    """Evidence on rows of three seeds on each side, which scatter by exactly these standard deviations."""
    places = np.array([-1.0, 0.0, 1.0])
    return [evidence(seeds(5 + sd * places, half), seeds(5 + shift + sd * places, half)) for sd in spreads]


def test_rows_that_scatter_alike_share_all_their_degrees_of_freedom():
    found = moderated(rows_of([0.1] * 5, 0.3))[0]
    prior, weight = prior_variance([0.01] * 5, [4] * 5, CAUTION)
    assert math.isinf(weight)
    t = 0.3 / math.sqrt(prior * 2 / 3)
    assert found.p_above(0.0) == pytest.approx(stats.t.sf(t, 20), rel=1e-6)


def test_rows_that_scatter_unlike_share_as_much_as_their_prior_knows():
    spreads = np.array([0.05, 0.1, 0.1, 0.1, 0.2, 0.4])
    prior, weight = prior_variance(spreads**2, [4] * 6, CAUTION)
    assert 0.5 < weight < 20
    found = moderated(rows_of(spreads, 0.3))
    for one, sd in zip(found, spreads, strict=True):
        variance = (weight * prior + 4 * sd**2) / (weight + 4)
        assert one.p_above(0.0) == pytest.approx(stats.t.sf(0.3 / math.sqrt(variance * 2 / 3), weight + 4), rel=1e-6)
        assert posterior_variance(sd**2, 4, prior, weight) == pytest.approx(variance)


def test_rows_are_held_against_each_other_in_units_of_their_own_intervals():
    alike = [rows_of([scale * 0.1], scale * 0.3, scale * 0.1)[0] for scale in (0.01, 1.0, 100.0, 1e4)]
    together = moderated(alike)
    first = together[0].spread
    assert first.freedom == 16
    for one, scale in zip(together, (0.01, 1.0, 100.0, 1e4), strict=True):
        assert one.spread.variance == pytest.approx(first.variance * (scale / 0.01) ** 2, rel=1e-6)


def test_what_has_no_spread_neither_tells_nor_takes():
    rows = rows_of([0.05, 0.1, 0.2])
    still = rows_of([0.0])[0]
    single = evidence(seeds([2.0]), seeds([3.0]))
    assert moderated([*rows, still, single])[3:] == [still, single]
    assert moderated([*rows, still, single])[:3] == moderated(rows)
    assert moderated([]) == []


def test_two_rows_learn_nothing_from_each_other():
    rows = rows_of([0.05, 0.2])
    for one, other in zip(moderated(rows), rows, strict=True):
        assert (one.ci95, one.spread.freedom) == (pytest.approx(other.ci95), 4)


def test_caution_takes_variances_to_differ_more_than_they_do():
    variances = [0.4, 1.0, 2.5, 1.0, 0.5, 2.0]
    bold, careful = (prior_variance(variances, [4] * 6, caution)[1] for caution in (0.0, 2.0))
    assert math.isinf(bold) and 2 < careful < 20


def drawn(rng, rows, before, after, shift=0.0):
    """One metric of a suite whose rows scatter unlike, by a factor of about 2; the first row is off by ``shift`` of
    its standard deviations."""
    found = []
    for k in range(rows):
        sd = math.sqrt(4 / rng.chisquare(4))
        a, b = rng.normal(0, sd, before), rng.normal(shift * sd if k == 0 else 0, sd, after)
        found.append(evidence(seeds(a, 1e-3), seeds(b, 1e-3)))
    return found


def fires(found: list[Evidence]) -> list[bool]:
    return [p <= 0.01 for p in holm([one.p_above(0.0) for one in found])]


def test_the_level_holds_over_rows_of_unlike_scatter_and_losses_are_found():
    """The share of suites with a false alarm stands near alpha, below the 5 % that the check is asked for."""
    rng = np.random.default_rng(0)
    false = np.mean([any(fires(moderated(drawn(rng, 10, 3, 3)))) for _ in range(150)])
    assert false <= 0.05
    shifted = [drawn(rng, 10, 3, 3, shift=5.0) for _ in range(60)]
    alone, together = (np.mean([fires(found)[0] for found in way]) for way in (shifted, map(moderated, shifted)))
    assert together > 0.7 and alone < together - 0.2


def test_a_row_is_taken_to_scatter_as_it_does_in_all_of_its_metrics():
    found = {(f"row{k}", name): rows_of([sd])[0] for k, sd in enumerate((0.1, 0.1, 0.5, 0.02)) for name in "abc"}
    assert list(row_excess(found).values()) == pytest.approx([1.0, 1.0, 25.0, 1.0])
    for name in "abc":
        rows = [found[f"row{k}", name] for k in range(4)]
        table = moderated_table(found)
        assert [table[f"row{k}", name] for k in range(4)] == moderated(rows, [1.0, 1.0, 25.0, 1.0])
    alike = rows_of([0.09, 0.1, 0.1, 0.11])
    alone, wider = (moderated(alike, factors)[3].spread for factors in (None, [1.0, 1.0, 1.0, 25.0]))
    assert wider.variance == pytest.approx(25 * alone.variance) and wider.freedom == alone.freedom


def test_the_excess_of_a_row_is_the_mean_over_the_metrics_that_it_has():
    logs = np.array([[0.0, 1.0, np.nan], [0.0, 1.0, 2.0], [3.0, np.nan, 4.0], [-1.0, 0.0, 2.0]])
    assert excess(logs) == pytest.approx(np.exp([0.0, 0.0, 2.5, 0.0]))
    assert unbiased_log([2.0], [4.0])[0] == pytest.approx(math.log(2) - special.digamma(2) + math.log(2))
    assert row_excess({("a", "fid"): evidence(seeds([2.0]), seeds([3.0]))}) == {}


def unsteady(rng, before, after, rows=15, metrics=13, factor=5.0):
    """A suite of which one row's seeds scatter more than those of the others, in every metric; no row has changed."""
    freedom, weight = before + after - 2, 1 / before + 1 / after
    found = {}
    for row in range(rows):
        sd = factor if row == 0 else 1.0
        for metric_index in range(metrics):
            variance = sd**2 * rng.chisquare(freedom) / freedom
            spread = Spread(variance, 1.0, freedom, weight)
            gap = rng.normal(0, sd * math.sqrt(weight))
            found[f"row{row}", metric_index] = Evidence(gap, (spread.noise, Noise(1e-9, 1e-9)), "", spread)
    return found


@pytest.mark.parametrize(("before", "after"), [(3, 1), (3, 3)])
@pytest.mark.parametrize("factor", [3.0, 10.0])
def test_the_level_holds_where_one_row_is_less_steady_than_the_others(before, after, factor):
    """13 metrics of 15 rows, independent of each other: without the row's excess the first case fires on 10 to 15 %."""
    rng = np.random.default_rng(0)
    false = [
        any(fires(list(moderated_table(unsteady(rng, before, after, factor=factor)).values()))) for _ in range(100)
    ]
    assert np.mean(false) <= 0.02


def test_a_loss_that_its_own_seeds_cannot_show_is_worse_by_what_other_rows_tell():
    rng = np.random.default_rng(1)

    def run(shift):
        values = {f"model{k}": 5 + rng.normal(0, 0.1, 3) + (shift if k == 0 else 0.0) for k in range(12)}
        return [
            entry(row, [metric("fid", value, 1e-3)], seed)
            for row, found in values.items()
            for seed, value in enumerate(found)
        ]

    before, after = run(0.0), run(0.5)
    verdicts = {one.row: one.verdict for one in judge(after, before).findings}
    assert verdicts == {f"model{k}": "worse" if k == 0 else "same" for k in range(12)}
    sides = [[(one, one.record.metrics[0]) for one in side[:3]] for side in (before, after)]
    assert 12 * evidence(*sides).p_above(0.0) > 0.01
