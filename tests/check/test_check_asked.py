"""What is asked of a check, and what there is to judge by: rows by name, metrics they lack, seeds without intervals."""

import numpy as np
import pytest
from check_fixture import entry, exact, metric
from scipy import stats

from genbench.check.finding import Options
from genbench.check.judge import judge
from genbench.check.tolerance import parse_tolerances
from genbench.errors import UsageError

FID, KID = metric("fid", 2.0, 0.1), metric("kid", 0.1, 0.01)


def verdicts(candidate, baseline, **options):
    return {(one.row, one.metric): one for one in judge(candidate, baseline, Options(**options)).findings}


def test_a_row_is_asked_for_without_its_models_variants():
    before = [entry(row, [FID]) for row in ("a", "a@fast", "b")]
    only, variant = ([entry(row, [FID])] for row in ("a", "a@fast"))
    found = judge(only, before, Options(models=["a"]))
    assert ([one.row for one in found.findings], found.failed, found.aside) == (["a"], False, ("a@fast",))
    found = judge(variant, before, Options(models=["a@fast"]))
    assert ([one.row for one in found.findings], found.failed, found.aside) == (["a@fast"], False, ("a",))
    both = judge(only, before, Options(models=["a", "a@fast"]))
    assert both.failed and both.aside == ()
    assert judge(before, before).aside == () == judge(before, before, Options(models=["b"])).aside


def test_a_model_is_no_row_where_only_its_variant_is_one():
    before = [entry("a@fast", [FID])]
    with pytest.raises(UsageError, match=r"Unknown row of the baseline 'a'\. .*a@fast"):
        judge([entry("a", [FID])], before, Options(models=["a"]))


NOT_APPLICABLE = metric("kid", 0.1).model_copy(update={"value": None, "status": "not_applicable", "reason": "none"})


FAILED = NOT_APPLICABLE.model_copy(update={"status": "failed"})


def test_a_metric_that_does_not_apply_to_a_row_leaves_the_others():
    rows = [entry("a", [FID, KID]), entry("b", [FID, NOT_APPLICABLE])]
    found = verdicts(rows, rows, models=["a", "b"], metrics=["fid", "kid"])
    assert found["b", "fid"].verdict == "same"
    assert found["b", "kid"].reason == "the baseline has no value of it (not applicable)"
    for models in (["a", "b"], ["b"]):
        with pytest.raises(UsageError, match=r"Row 'b' of the baseline has no value of 'kid' \(not applicable\)"):
            judge(rows, rows, Options(models=models, metrics=["kid"]))


@pytest.mark.parametrize(("own", "why"), [([], ""), ([FAILED], r" \(failed\)")])
def test_a_metric_that_an_asked_row_lacks_is_told(own, why):
    rows = [entry("a", [FID, KID]), entry("b", [FID, *own]), entry("c", [], status="failed", reason="x")]
    with pytest.raises(UsageError, match=rf"Row 'b' of the baseline has no value of 'kid'{why}\. Leave"):
        judge(rows, rows, Options(models=["a", "b"], metrics=["fid", "kid"]))
    found = verdicts(rows, rows, metrics=["fid", "kid"])
    told = {key: one.verdict for key, one in found.items()}
    assert told == {
        ("a", "fid"): "same",
        ("a", "kid"): "same",
        ("b", "fid"): "same",
        ("b", "kid"): "not comparable",
        ("c", ""): "not comparable",
    }
    assert not found["b", "kid"].by_nature and found["b", "kid"].reason.startswith("the baseline has no value of it")
    result = judge(rows, rows, Options(metrics=["kid"]))
    assert not result.failed and {(one.row, one.metric) for one in result.findings} == {
        ("a", "kid"),
        ("b", "kid"),
        ("c", ""),
    }
    assert {row for row, _ in verdicts(rows, rows, models=["a", "b"])} == {"a", "b"}


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ([], "the candidate's seed 1 does not have it"),
        ([metric("fid", 2.0, 0.1, estimator="other")], "the candidate's seed 1 has it by other only, not by plug-in"),
        (
            [metric("fid", 2.0, 0.1, extractor="inception-v3")],
            "the candidate's seed 1 has it by extractor inception-v3 only, not by digits-cnn",
        ),
        (
            [FID.model_copy(update={"value": None, "status": "failed", "reason": "out of memory"})],
            "seed 1: failed: out of memory",
        ),
    ],
)
def test_the_seed_that_lacks_a_metric_is_named(second, told):
    after = [entry("a", [FID, KID], 0), entry("a", [*second, KID], 1), entry("a", [FID, KID], 2)]
    found = verdicts(after, [entry("a", [FID, KID])])["a", "fid"]
    assert (found.verdict, found.reason) == ("missing", told)


def test_what_no_seed_has_is_told_of_the_candidate():
    other = [entry("a", [KID, metric("fid", 2.0, 0.1, estimator="other")], seed) for seed in range(2)]
    assert verdicts(other, [entry("a", [FID, KID])])["a", "fid"].reason == (
        "the candidate has it by other only, not by plug-in"
    )
    bare = [entry("a", [KID], seed) for seed in range(2)]
    assert verdicts(bare, [entry("a", [FID, KID])])["a", "fid"].reason == "the candidate does not have it"


def seeds(values, name="precision", **more):
    return [entry("a", [metric(name, value, **more), FID], seed) for seed, value in enumerate(values)]


BEFORE, AFTER = [0.50, 0.52, 0.51, 0.49, 0.53], [0.40, 0.42, 0.39, 0.41, 0.43]


def test_seeds_without_intervals_are_judged_by_their_spread():
    found = verdicts(seeds(AFTER), seeds(BEFORE))["a", "precision"]
    assert found.verdict == "worse" and "5 and 5 seeds without intervals, beyond their spread" in found.reason
    assert found.p == pytest.approx(2 * stats.ttest_ind(AFTER, BEFORE, alternative="less").pvalue, rel=1e-6)
    assert found.ci95[0] < found.change < found.ci95[1] < 0
    assert verdicts(seeds(BEFORE), seeds(AFTER))["a", "precision"].verdict == "better"
    assert verdicts(seeds([0.50, 0.51]), seeds([0.51]))["a", "precision"].verdict == "same"
    allowed = parse_tolerances("precision=30%")
    assert verdicts(seeds(AFTER), seeds(BEFORE), tolerances=allowed)["a", "precision"].verdict == "same"
    assert verdicts(seeds([0.2]), seeds(BEFORE))["a", "precision"].verdict == "worse"


def test_the_spread_alone_holds_its_level():
    rng = np.random.default_rng(0)
    fired = [
        verdicts(seeds(rng.normal(0, 1, 2)), seeds(rng.normal(0, 1, 3)), alpha=0.1)["a", "precision"].fails
        for _ in range(400)
    ]
    assert np.mean(fired) <= 0.1 + 3 * (0.09 / 400) ** 0.5


def test_a_right_value_without_an_interval_is_judged_by_seeds_and_their_sum():
    right = {"provenance": {"extra": {"test_split": 0.5}}}
    across = [0.45 + (value - 0.51) for value in BEFORE], [0.55 + (value - 0.51) for value in BEFORE]
    sides = [seeds(values, "ssim_pairwise", **right) for values in across]
    assert verdicts(sides[1], sides[0])["a", "ssim_pairwise"].verdict == "same"
    far = seeds([0.2 + value for value in across[1]], "ssim_pairwise", **right)
    assert verdicts(far, sides[0])["a", "ssim_pairwise"].verdict == "worse"


def test_a_cost_without_an_interval_asks_for_a_tolerance_however_many_seeds():
    before, after = (seeds(np.array(BEFORE) * factor, "training_seconds") for factor in (20, 200))
    found = verdicts(after, before)["a", "training_seconds"]
    assert (found.verdict, found.by_nature) == ("not comparable", True)
    assert "--tolerance" in found.reason
    named = parse_tolerances("training_seconds=50%")
    assert verdicts(after, before, tolerances=named)["a", "training_seconds"].verdict == "worse"


def test_seeds_that_do_not_scatter_are_no_measure_of_noise():
    still, moved = seeds([0.5] * 3), seeds([0.49] * 3)
    assert verdicts(still, still)["a", "precision"].verdict == "same"
    found = verdicts(moved, still)["a", "precision"]
    assert (found.verdict, found.by_nature) == ("not comparable", True)
    named = parse_tolerances("precision=1%")
    assert verdicts(moved, still, tolerances=named)["a", "precision"].verdict == "worse"


def test_an_interval_that_seeds_lost_is_missing():
    sure = seeds(BEFORE)
    for one in sure:
        one.record.metrics[0] = metric("precision", one.record.metrics[0].value, 0.01)
    assert verdicts(seeds(AFTER), sure)["a", "precision"].verdict == "missing"
    assert verdicts(sure, seeds(BEFORE))["a", "precision"].verdict == "same"


def test_a_right_value_that_lost_its_interval_is_missing_and_a_tolerance_judges_its_distance():
    right = {"provenance": {"extra": {"test_split": 0.5}}}
    values = [
        metric("ssim_pairwise", value, half, **right) for value, half in ((0.45, 0.01), (0.56, None), (0.44, None))
    ]
    sure, above, below = ([entry("a", [one, FID])] for one in values)
    assert verdicts(above, sure)["a", "ssim_pairwise"].verdict == "missing"
    assert verdicts(above, below)["a", "ssim_pairwise"].by_nature
    for tolerance, verdict in (("0.03", "same"), ("0.01", "worse")):
        named = parse_tolerances(f"ssim_pairwise={tolerance}")
        further = [entry("a", [metric("ssim_pairwise", 0.58, **right), FID])]
        assert verdicts(further, below, tolerances=named)["a", "ssim_pairwise"].verdict == verdict


def test_a_loss_of_just_the_tolerance_is_within_it():
    before, after = ([entry("a", [metric("training_seconds", value), FID])] for value in (8.0, 10.0))
    for tolerance, verdict in (("25%", "same"), ("24%", "worse")):
        named = parse_tolerances(f"training_seconds={tolerance}")
        assert verdicts(after, before, tolerances=named)["a", "training_seconds"].verdict == verdict


def test_equal_values_are_not_told_as_rounding():
    row = [entry("a", [exact("bits_per_dim", 4.0)])]
    assert "rounding" not in verdicts(row, row)["a", "bits_per_dim"].reason
