"""Evidence of a difference against closed forms: paired t, normal, Student t over seeds; Holm by hand."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from check_fixture import entry, exact, metric, scored
from scipy import stats

from genbench.check.evidence import Evidence, Noise, evidence, holm
from genbench.check.over_rows import moderated, moderated_table

GUIDE = Path(__file__).parents[2] / "docs" / "regression-checks.md"


def side(*values, half=0.1, name="fid"):
    """One seed for each value, with a normal interval of ``half``."""
    made = [metric(name, value, half) for value in values]
    return [(entry("vae", [found], seed), found) for seed, found in enumerate(made)]


def paired_side(*scores, seed=0, name="bits_per_dim"):
    made = [scored(name, array) for array in scores]
    return [(entry("vae", [found], seed + k, arrays), found) for k, (found, arrays) in enumerate(made)]


def test_two_values_with_intervals_differ_by_the_normal_test():
    found = evidence(side(2.0, half=0.3), side(2.6, half=0.4))
    assert found.ci95 == pytest.approx((0.6 - 0.5, 0.6 + 0.5))
    z = 0.6 / (0.5 / stats.norm.ppf(0.975))
    assert found.p_above(0.0) == pytest.approx(stats.norm.sf(z), rel=1e-6)
    assert found.p_below(0.0) == pytest.approx(stats.norm.cdf(z), rel=1e-6)
    assert found.p_above(0.2) == pytest.approx(stats.norm.sf(z * 2 / 3), rel=1e-6)
    assert not found.exact


def test_a_skew_interval_counts_on_its_own_side():
    wilson = {"provenance": {"interval": "Wilson over samples"}}
    before, after = (metric("precision", 0.5, ci95=(0.4, 0.55), **wilson) for _ in range(2))
    found = evidence([(entry("a", []), before)], [(entry("a", []), after.model_copy(update={"value": 0.7}))])
    # low = 0.2 - hypot(candidate's below, baseline's above), by the square-and-add rule
    assert found.noises[0].below == pytest.approx(math.hypot(0.7 - 0.4, 0.05))
    assert found.noises[0].above == pytest.approx(math.hypot(0.0, 0.1))


def test_one_seed_on_each_side_is_a_paired_t_test():
    rng = np.random.default_rng(0)
    before = rng.normal(2, 1, 50)
    after = before + rng.normal(0.05, 0.1, 50)
    found = evidence(paired_side(before), paired_side(after))
    test = stats.ttest_rel(after, before, alternative="greater")
    assert found.p_above(0.0) == pytest.approx(test.pvalue, rel=1e-9)
    assert found.p_above(0.02) == pytest.approx(stats.ttest_1samp(after - before, 0.02, alternative="greater").pvalue)
    assert found.ci95 == pytest.approx(tuple(stats.ttest_rel(after, before).confidence_interval()))
    assert "paired over 50 test images" in found.method


def test_scores_of_unlike_seeds_are_not_paired():
    rng = np.random.default_rng(0)
    before = rng.normal(2, 1, 50)
    found = evidence(paired_side(before), paired_side(before + 0.05, seed=1))
    half = 1.96 * math.sqrt(2) * before.std(ddof=1) / math.sqrt(50)
    assert found.ci95 == pytest.approx((0.05 - half, 0.05 + half), rel=1e-3)
    assert "seed 0 against seed 1, not paired" in found.method


def sample_side(scores, seed=0, value=None):
    """One record whose metric is the mean of scores of its own samples (n,)."""
    found, arrays = scored("density", scores)
    changed = {"provenance": {"paired_by": None}, "value": found.value if value is None else value}
    return [(entry("vae", [], seed, arrays), found.model_copy(update=changed))]


def test_scores_of_samples_pair_by_number_where_the_seed_is_the_same():
    rng = np.random.default_rng(0)
    before = rng.normal(2, 1, 50)
    after = before + rng.normal(0.05, 0.1, 50)
    found = evidence(sample_side(before), sample_side(after))
    assert found.p_above(0.0) == pytest.approx(stats.ttest_rel(after, before, alternative="greater").pvalue, rel=1e-9)
    assert "paired over 50 samples" in found.method
    for other in (sample_side(after, seed=1), sample_side(after[:40]), sample_side(after, value=after.mean() + 0.01)):
        assert "paired over" not in evidence(sample_side(before), other).method


def test_scores_of_other_images_are_not_paired():
    before, after = paired_side(np.linspace(1, 2, 30)), paired_side(np.linspace(1, 2, 30) + 0.1)
    other = after[0][0].record.dataset.model_copy(update={"fingerprint": "f" * 64})
    moved = after[0][0].record.model_copy(update={"dataset": other})
    found = evidence(before, [(type(after[0][0])(moved, after[0][0].scores), after[0][1])])
    assert "paired over" not in found.method
    assert found.ci95[0] < 0 < found.ci95[1]


def shared_side(scores, error, seed=0):
    """One record of scores that share the standard error of an estimated log Z."""
    made, arrays = scored("bits_per_dim", scores)
    spread = math.hypot(made.provenance["standard_error"], error)
    where = made.provenance | {"standard_error": spread, "extra": {"shared_error": error}}
    found = made.model_copy(update={"provenance": where})
    return [(entry("rbm", [found], seed, arrays), found)]


def test_what_all_scores_share_is_not_paired_away():
    rng = np.random.default_rng(0)
    before = rng.normal(2, 1, 5000)
    after = before + rng.normal(0.05, 0.01, 5000)
    assert evidence(shared_side(before, 0.0), shared_side(after, 0.0)).p_above(0.0) < 1e-9
    found = evidence(shared_side(before, 0.03), shared_side(after, 0.04))
    assert found.p_above(0.0) == pytest.approx(stats.norm.sf(found.value / 0.05), rel=0.01)
    assert "paired over 5000 test images, widened by" in found.method
    three = [one for seed in range(3) for one in shared_side(before + rng.normal(0, 1e-6), 0.03, seed)]
    found = evidence(three, shared_side(after, 0.04))
    error = math.hypot(0.03 / math.sqrt(3), 0.04)
    assert found.p_above(0.0) == pytest.approx(stats.norm.sf(found.value / error), rel=0.02)
    same = evidence(shared_side(before, 0.03), shared_side(before, 0.03))
    assert same.exact and same.ci95 == (0.0, 0.0)


def test_several_seeds_are_students_t_of_their_spread():
    before, after = [2.0, 2.2, 2.1], [2.9, 3.3, 3.1, 2.7]
    found = evidence(side(*before, half=1e-6), side(*after, half=1e-6))
    test = stats.ttest_ind(after, before, alternative="greater")
    assert found.value == pytest.approx(0.9)
    assert found.p_above(0.0) == pytest.approx(test.pvalue, rel=1e-9)
    assert found.ci95 == pytest.approx(tuple(stats.ttest_ind(after, before).confidence_interval()))
    assert "means of 3 and 4 seeds" in found.method


def test_several_seeds_against_one_take_the_spread_of_the_several():
    before = [2.0, 2.2, 2.1, 2.3]
    found = evidence(side(*before, half=1e-6), side(3.0, half=1e-6))
    t = (3.0 - np.mean(before)) / (np.std(before, ddof=1) * math.sqrt(1 + 1 / 4))
    assert found.p_above(0.0) == pytest.approx(stats.t.sf(t, 3), rel=1e-9)


def price_of_few_seeds():
    """Seeds of both sides and the guide's figures, in standard deviations of the seeds."""
    line = r"^\| (\d+) against (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$"
    found = re.findall(line, GUIDE.read_text(), re.MULTILINE)
    return [(int(a), int(b), *map(float, figures)) for a, b, *figures in found]


def seeds_of(before, after, sd, shift=0.0):
    """Evidence on two sides of so many seeds, which scatter by exactly ``sd``."""

    def spread(count):
        values = np.arange(count) - (count - 1) / 2
        return sd * values / values.std(ddof=1) if count > 1 else values

    return evidence(side(*spread(before), half=1e-9), side(*(spread(after) + shift).tolist(), half=1e-9))


@pytest.mark.parametrize(("before", "after", "one_row", "all_rows", "moderate"), price_of_few_seeds())
def test_the_guide_says_what_few_seeds_cost(before, after, one_row, all_rows, moderate):
    freedom = before + after - 2
    others = [
        seeds_of(before, after, sd) for sd in np.sqrt(stats.chi2(freedom).ppf((np.arange(15) + 0.5) / 15) / freedom)
    ]
    for tests, figure, rows in ((13, one_row, []), (200, all_rows, []), (200, moderate, [*others[:7], *others[8:]])):
        for factor, caught in ((0.96, False), (1.04, True)):
            table = {(str(k), 0): one for k, one in enumerate([seeds_of(before, after, 1.0, factor * figure), *rows])}
            found = moderated_table(table)["0", 0]
            assert (tests * found.p_above(0.0) <= 0.01) == caught


def test_the_guides_figures_are_found():
    assert len(price_of_few_seeds()) == 5


def test_values_that_differ_by_rounding_alone_have_no_spread():
    found = evidence(side(0.5, 0.5 * (1 + 1e-7), 0.5), side(0.5, 0.5, 0.5 * (1 - 1e-7)))
    assert found.spread.variance == 0.0 and not found.spread.is_measured
    seen = [evidence(side(1.0, 1.1, 1.2), side(1.0, 1.3, 1.4)) for _ in range(3)]
    assert moderated([*seen, found])[:3] == moderated(seen)


def test_a_small_spread_of_few_seeds_does_not_undercut_the_intervals():
    found = evidence(side(2.0, 2.0, half=0.3), side(2.2, 2.2, half=0.4))
    error = math.sqrt(2 * (0.3 / 1.96 / 2) ** 2 + 2 * (0.4 / 1.96 / 2) ** 2)
    assert found.p_above(0.0) == pytest.approx(stats.norm.sf(0.2 / error), rel=1e-3)
    assert found.ci95[0] < 0


def test_images_that_seeds_share_are_no_more_images_for_more_seeds():
    def seeds(provenance):
        made = metric("bits_per_dim", 2.0, 0.1, provenance=provenance)
        return [(entry("vae", [made], seed), made) for seed in range(4)]

    shared, own = ({"paired_by": "test image"}, {})
    wide, narrow = (evidence(seeds(how), seeds(how)).ci95[1] for how in (shared, own))
    assert wide == pytest.approx(0.1 * math.sqrt(2), rel=1e-6)
    assert narrow == pytest.approx(0.1 * math.sqrt(2) / 2, rel=1e-6)


def test_seeds_of_paired_scores_must_stand_over_images_and_over_seeds():
    rng = np.random.default_rng(1)
    images = rng.normal(2, 1, 40)
    before = [images + rng.normal(0, 0.2, 40) for _ in range(3)]
    after = [images + 0.1 + rng.normal(0, 0.2, 40) for _ in range(3)]
    found = evidence(paired_side(*before), paired_side(*after, seed=7))
    over_images = stats.ttest_rel(np.mean(after, 0), np.mean(before, 0), alternative="greater").pvalue
    means = [[scores.mean() for scores in group] for group in (after, before)]
    over_seeds = stats.ttest_ind(*means, alternative="greater").pvalue
    assert found.p_above(0.0) == pytest.approx(max(over_images, over_seeds), rel=1e-9)
    assert min(over_images, over_seeds) < 0.9 * max(over_images, over_seeds)


def test_exact_values_are_certain_and_a_value_without_an_interval_leaves_it_open():
    before, after = (exact("evaluations_per_image", value) for value in (20.0, 19.0))
    found = evidence([(entry("a", []), before)], [(entry("a", []), after)])
    assert found.exact and found.p_below(0.0) == 0.0 and found.p_above(0.0) == 1.0
    seeds = [(entry("a", [], seed), before) for seed in range(3)]
    assert evidence(seeds, [(entry("a", []), before)]).p_below(0.0) == 1.0
    assert evidence(side(5.0, half=None), side(6.0, half=None)) is None
    assert evidence(side(5.0, 5.1, half=None), side(6.0, half=None)) is None
    equal = evidence(side(5.0, half=None), side(5.0, half=None))
    assert equal.p_above(0.0) == 1.0 and equal.method == "equal values"


def test_the_wider_noise_makes_the_interval():
    found = Evidence(1.0, (Noise(0.5, 0.1), Noise(0.2, 0.3, 4)), "")
    assert found.ci95 == pytest.approx((0.5, 1.3))
    assert found.p_beyond(0.6) >= found.noises[0].p(0.6, 0.5)


def test_holm_by_hand():
    # S. Holm (1979): sorted p times m, m - 1, ...; running maximum; at most 1
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.02]) == [0.02]


def test_holm_rejects_no_true_hypothesis_more_often_than_alpha():
    rng = np.random.default_rng(2)
    families = rng.uniform(size=(4000, 20))
    families[:, 0] = 1e-9
    any_false = np.mean([min(holm(list(family))[1:]) <= 0.05 for family in families])
    assert abs(any_false - 0.05) < 4 * math.sqrt(0.05 * 0.95 / 4000)
