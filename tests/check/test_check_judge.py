"""Every verdict, and why: directions, right values, what is missing, failed or not comparable; filters, bad input."""

import numpy as np
import pytest
from check_fixture import entry, exact, metric, scored, timed

from genbench.check.finding import Options
from genbench.check.judge import judge
from genbench.check.tolerance import Tolerance, parse_tolerances
from genbench.errors import UsageError

RIGHT = {"provenance": {"extra": {"test_split": 0.2}}}


def verdicts(candidate, baseline, **options):
    return {(one.row, one.metric): one for one in judge(candidate, baseline, Options(**options)).findings}


def one_metric(before, after, **options):
    """The finding of one metric in one row."""
    found = judge([entry("vae", [after])], [entry("vae", [before])], Options(**options)).findings
    assert len(found) == 1
    return found[0]


def fid(value, half=0.1, **more):
    return metric("fid", value, half, **more)


@pytest.mark.parametrize(
    ("name", "before", "after", "verdict"),
    [
        ("fid", 2.0, 3.0, "worse"),
        ("fid", 3.0, 2.0, "better"),
        ("fid", 2.0, 2.05, "same"),
        ("fid", 2.0, 1.95, "same"),
        ("precision", 5.0, 4.0, "worse"),
        ("precision", 4.0, 5.0, "better"),
    ],
)
def test_directions(name, before, after, verdict):
    found = one_metric(metric(name, before, 0.1), metric(name, after, 0.1))
    assert found.verdict == verdict
    assert found.fails == (verdict == "worse")
    assert (found.baseline, found.candidate, found.change) == (before, after, pytest.approx(after - before))
    assert found.ci95[0] < found.change < found.ci95[1]


def test_alpha_is_where_the_verdict_turns():
    before, after = fid(2.0), fid(2.3)
    p = one_metric(before, after, alpha=0.5).p
    assert one_metric(before, after, alpha=p * 1.01).verdict == "worse"
    assert one_metric(before, after, alpha=p * 0.99).verdict == "same"


def test_more_tests_ask_for_more_evidence():
    rows = [f"model{k}" for k in range(60)]
    before = [entry(row, [fid(2.0)]) for row in rows]
    after = [entry(row, [fid(2.25 if row == "model0" else 2.0)]) for row in rows]
    assert verdicts(after[:1], before[:1])["model0", "fid"].verdict == "worse"
    assert verdicts(after, before)["model0", "fid"].verdict == "same"


def test_exact_values_need_no_test_and_count_as_none():
    rows = [f"model{k}" for k in range(60)]
    exactly = [exact("training_seconds", 20.0)]
    before = [entry(row, exactly) for row in rows] + [entry("vae", [fid(2.0)])]
    after = [entry(row, exactly) for row in rows[1:]] + [
        entry(rows[0], [exact("training_seconds", 21.0)]),
        entry("vae", [fid(2.25)]),
    ]
    found = verdicts(after, before)
    assert found["vae", "fid"].verdict == "worse"
    assert (found["model0", "training_seconds"].verdict, found["model0", "training_seconds"].p) == ("worse", 0.0)
    assert found["model1", "training_seconds"].verdict == "same"


def test_a_tolerance_is_harm_that_does_not_count():
    before, after = fid(2.0, 0.01), fid(2.1, 0.01)
    assert one_metric(before, after).verdict == "worse"
    assert one_metric(before, after, tolerances=parse_tolerances("fid=10%")).verdict == "same"
    assert one_metric(before, after, tolerances=parse_tolerances("fid=0.06")).verdict == "worse"
    assert "tolerance of 0.06" in one_metric(before, after, tolerances=parse_tolerances("fid=0.06")).reason
    assert one_metric(before, fid(1.9, 0.01), tolerances=parse_tolerances("fid=10%")).verdict == "better"
    higher = [metric("precision", value, 0.01) for value in (0.8, 0.7)]
    assert one_metric(*higher).verdict == "worse"
    assert one_metric(*higher, tolerances=parse_tolerances("precision=20%")).verdict == "same"
    right = [metric("ssim_pairwise", value, 0.01, **RIGHT) for value in (0.2, 0.3)]
    assert one_metric(*right).verdict == "worse"
    assert one_metric(*right, tolerances=parse_tolerances("ssim_pairwise=60%")).verdict == "same"


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (0.2, 0.3, "worse"),
        (0.2, 0.1, "worse"),
        (0.3, 0.2, "better"),
        (0.1, 0.2, "better"),
        (0.3, 0.1, "same"),
        (0.24, 0.12, "worse"),
        (0.28, 0.16, "better"),
        (0.2, 0.201, "same"),
    ],
)
def test_a_right_value_is_missed_on_either_side(before, after, verdict):
    found = one_metric(*(metric("ssim_pairwise", value, 0.01, **RIGHT) for value in (before, after)))
    assert found.verdict == verdict
    assert "0.2 is right" in found.reason


def test_a_right_value_is_tested_on_two_sides():
    sides = [
        [entry("vae", [metric(name, value, 0.01, **more)], seed) for seed, value in enumerate((0.2, 0.22))]
        for name, more in (("ssim_pairwise", RIGHT), ("fid", {}))
    ]
    two_sided, one_sided = (judge([after], [before]).findings[0] for before, after in sides)
    assert two_sided.p == pytest.approx(2 * one_sided.p)


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(0.0, 0.05, "same"), (0.05, 0.0, "same"), (0.0, 0.3, "worse"), (0.3, 0.0, "better"), (0.02, 0.06, "same")],
)
def test_an_expected_share_is_wrong_only_beyond(before, after, verdict):
    expected = {"provenance": {"extra": {"expected": 0.05, "test_split": 0.06}}}
    found = one_metric(*(metric("memorised_share", value, 0.02, **expected) for value in (before, after)))
    assert found.verdict == verdict
    assert "at most 0.05 is right" in found.reason


def test_without_direction_or_right_value_only_equal_is_judged():
    assert one_metric(exact("parameters", 10.0), exact("parameters", 10.0)).verdict == "same"
    before, after = ([entry("a", [exact("parameters", value), fid(1.0)])] for value in (10.0, 12.0))
    found = verdicts(after, before)["a", "parameters"]
    assert (found.verdict, found.by_nature, found.fails) == ("not comparable", True, False)


def test_without_an_interval_a_tolerance_is_asked_for():
    before, after = metric("training_seconds", 10.0), metric("training_seconds", 13.0)
    row = [fid(2.0)]
    found = verdicts([entry("a", [*row, after])], [entry("a", [*row, before])])["a", "training_seconds"]
    assert (found.verdict, found.by_nature) == ("not comparable", True)
    assert "--tolerance" in found.reason
    for tolerance, verdict in (("20%", "worse"), ("40%", "same")):
        found = one_metric(before, after, tolerances=parse_tolerances(f"training_seconds={tolerance}"))
        assert found.verdict == verdict
    faster = one_metric(after, before, tolerances=parse_tolerances("training_seconds=1%"))
    assert faster.verdict == "same"


def test_missing_rows_metrics_and_failed_ones():
    before = [entry("a", [fid(2.0), metric("kid", 0.1, 0.01)]), entry("b", [fid(2.0)]), entry("c", [fid(2.0)])]
    refused = metric("kid", 0.1).model_copy(update={"value": None, "status": "failed", "reason": "out of memory"})
    after = [entry("a", [fid(2.0), refused]), entry("c", [], status="failed", reason="loss is nan")]
    found = verdicts(after, before)
    assert found["a", "fid"].verdict == "same"
    assert found["a", "kid"].verdict == "missing" and "failed: out of memory" in found["a", "kid"].reason
    assert found["b", ""].verdict == "missing" and "no such row" in found["b", ""].reason
    assert found["c", ""].verdict == "missing" and "seed 0 failed: loss is nan" in found["c", ""].reason
    assert judge(after, before).failed


def test_a_metric_that_only_some_seeds_have_is_missing():
    before = [entry("a", [fid(2.0)])]
    found = verdicts([entry("a", [fid(2.0)]), entry("a", [metric("kid", 0.1, 0.01)], 1)], before)
    assert found["a", "fid"].verdict == "missing"


def test_another_estimator_is_missing_and_another_extractor_not_comparable():
    before = [entry("a", [fid(2.0), metric("bits_per_dim", 2.0, 0.1, estimator="iwae-500")])]
    after = [entry("a", [fid(2.0, extractor="inception-v3"), metric("bits_per_dim", 2.1, 0.1, estimator="elbo")])]
    found = verdicts(after, before)
    assert found["a", "fid"].verdict == "not comparable"
    assert found["a", "fid"].reason == "extractor: digits-cnn against inception-v3"
    assert found["a", "bits_per_dim"].verdict == "missing"
    assert "elbo only" in found["a", "bits_per_dim"].reason


def test_another_measurement_is_not_comparable_and_names_the_first_difference():
    unlike = fid(9.0, comparable={"version": 2, "dataset": "x", "n": 297})
    before = [entry("a", [fid(2.0), metric("kid", 0.1, 0.01)])]
    result = judge([entry("a", [unlike, metric("kid", 0.1, 0.01)])], before)
    found = {one.metric: one for one in result.findings}
    assert found["fid"].verdict == "not comparable"
    assert found["fid"].reason == "version: 1 against 2"
    assert not found["fid"].by_nature
    assert not result.failed


def test_any_unlike_seed_makes_it_not_comparable():
    unlike = fid(2.0, comparable={"version": 2})
    three = [entry("a", [fid(2.0)], 0), entry("a", [unlike], 1), entry("a", [metric("kid", 1.0, 0.1)], 2)]
    for candidate, baseline in ((three[:2], three[:1]), (three[:1], three[:2])):
        assert verdicts(candidate, baseline)["a", "fid"].verdict == "not comparable"


def test_a_bound_is_not_held_against_an_exact_value():
    before, after = (metric("bits_per_dim", 2.0, 0.1, kind=kind) for kind in ("exact", "upper_bound"))
    found = verdicts([entry("a", [after, fid(1.0)])], [entry("a", [before, fid(1.0)])])["a", "bits_per_dim"]
    assert found.verdict == "not comparable" and "kind" in found.reason


def test_a_row_of_which_nothing_can_be_compared_is_missing():
    unlike = fid(2.0, comparable={"version": 2})
    result = judge([entry("a", [unlike])], [entry("a", [fid(2.0)])])
    assert result.failed
    assert [one.verdict for one in result.findings] == ["not comparable", "missing"]
    assert "version: 1 against 2" in result.findings[1].reason


def test_seeds_configs_and_budgets_are_what_is_judged():
    before = entry("a", [fid(2.0)])
    after = entry("a", [fid(2.0)], 5, config={"model": {"width": 1}, "train": {"steps": 1}})
    assert judge([after], [before]).findings[0].verdict == "same"


def test_models_and_metrics_choose():
    rows = [fid(2.0), metric("kid", 0.1, 0.01)]
    before = [entry(row, rows) for row in ("a", "a@fast", "b")]
    after = [entry(row, rows) for row in ("a", "a@fast", "b", "new")]
    assert set(verdicts(after, before)) == {(row, name) for row in ("a", "a@fast", "b") for name in ("fid", "kid")}
    assert set(verdicts(after, before, models=["a"], metrics=["kid"])) == {("a", "kid")}
    assert set(verdicts(after, before, models=["a@fast"])) == {("a@fast", "fid"), ("a@fast", "kid")}
    assert judge(after, before).new == ("new",)
    assert judge(after, before, Options(models=["b"])).new == ()


def test_names_that_the_baseline_does_not_have_are_refused():
    before = [entry("vae", [fid(2.0)])]
    for options, told in (
        ({"models": ["vea"]}, "Unknown row of the baseline 'vea'. Did you mean 'vae'"),
        ({"metrics": ["fdi"]}, "Unknown metric of the baseline 'fdi'. Did you mean 'fid'"),
        ({"metrics": ["kid"]}, "Unknown metric of the baseline 'kid'"),
        ({"tolerances": {"kid": Tolerance(0.1)}}, "Unknown metric of the baseline 'kid'"),
    ):
        with pytest.raises(UsageError, match=told.replace(".", r"\.")):
            judge(before, before, Options(**options))


def test_empty_sets_unlike_suites_and_bad_alpha_are_refused():
    one = [entry("a", [fid(2.0)])]
    for candidate, baseline in (([], one), (one, [])):
        with pytest.raises(UsageError, match="one side has no records"):
            judge(candidate, baseline)
    with pytest.raises(UsageError, match="one suite"):
        judge([entry("a", [fid(2.0)], suite="mnist")], one)
    for alpha in (0, 1, -1, float("nan")):
        with pytest.raises(UsageError, match="alpha must be between 0 and 1"):
            judge(one, one, Options(alpha=alpha))
    failed = [entry("a", [], status="failed", reason="x")]
    with pytest.raises(UsageError, match="nothing to check"):
        judge(one, failed)


def test_paired_scores_see_what_intervals_do_not():
    rng = np.random.default_rng(0)
    images = rng.normal(2, 1, 200)
    made = [scored("bits_per_dim", array) for array in (images, images + rng.normal(0.02, 0.02, 200))]
    before, after = (entry("a", [found], scores=scores) for found, scores in made)
    assert judge([after], [before]).findings[0].verdict == "worse"
    assert judge([entry("a", [made[1][0]])], [entry("a", [made[0][0]])]).findings[0].verdict == "same"


def speed(rates, value=None, **more):
    return [metric("images_per_second", value or float(np.median(rates)), 1.0, **more)], timed(list(rates))


def test_speed_is_judged_by_its_windows():
    made = {
        name: speed([rate * factor for rate in (99.0, 100.0, 101.0)])
        for name, factor in (("was", 1.0), ("slower", 0.9), ("faster", 1.2), ("noise", 0.97))
    }
    rows = {name: entry("a", metrics, timing=timing) for name, (metrics, timing) in made.items()}
    found = {name: judge([row], [rows["was"]]).findings[0] for name, row in rows.items()}
    assert {name: one.verdict for name, one in found.items()} == {
        "was": "same",
        "slower": "worse",
        "faster": "better",
        "noise": "same",
    }
    assert "10.0% slower by medians, tolerance 5 %" in found["slower"].reason
    allowed = judge([rows["slower"]], [rows["was"]], Options(tolerances=parse_tolerances("images_per_second=15")))
    assert allowed.findings[0].verdict == "same"


def with_windows(rates, **more):
    """A row whose windows have these rates, each with more of what a window holds, by name."""
    metrics, timing = speed(rates)
    filled = [
        window.model_copy(update={name: values[k] for name, values in more.items()})
        for k, window in enumerate(timing.windows)
    ]
    timing = timing.model_copy(update={"windows": filled, "reference_load": "linear-conv-1"})
    return entry("a", metrics, timing=timing)


def test_a_slow_machine_is_not_a_slow_model():
    quick = with_windows([100.0, 101.0, 99.0, 100.5], pace=[1000.0, 1003.0, 996.0, 1009.0])
    busy = with_windows([80.0, 81.0, 79.0, 80.5], pace=[800.0, 803.0, 796.0, 809.0])
    slower = with_windows([64.0, 65.0, 63.0, 64.5], pace=[800.0, 803.0, 796.0, 809.0])
    assert judge([busy], [quick]).findings[0].verdict == "same"
    assert judge([quick], [busy]).findings[0].verdict == "same"
    found = judge([slower], [quick]).findings[0]
    assert found.verdict == "worse"
    assert "by medians at the machine's pace" in found.reason


def test_what_the_scatter_hides_is_said():
    metrics, timing = speed(100 * np.exp(0.04 * np.array([-1.2, -0.6, 0.0, 0.6, 1.2])))
    row = entry("a", metrics, timing=timing)
    reason = judge([row], [row]).findings[0].reason
    hidden = float(reason.split("hides losses up to ")[1].rstrip("%")) / 100
    for loss, verdict in ((hidden + 0.01, "worse"), (hidden - 0.01, "same")):
        windows = [w.model_copy(update={"seconds": w.seconds / (1 - loss)}) for w in timing.windows]
        slower = entry("a", metrics, timing=timing.model_copy(update={"windows": windows}))
        assert judge([slower], [row]).findings[0].verdict == verdict
    metrics, timing = speed([99.99, 100.0, 100.01])
    quiet = entry("a", metrics, timing=timing)
    assert "hides" not in judge([quiet], [quiet]).findings[0].reason


def test_timing_that_waited_for_others_is_not_compared():
    calm = with_windows([100.0, 101.0, 99.0], given=[1.0, 0.97, 1.0])
    held = with_windows([50.0, 51.0, 49.0], given=[0.5, 0.45, 0.9])
    for before, after, who in ((calm, held, "candidate"), (held, calm, "baseline")):
        found = judge([after], [before]).findings[0]
        assert found.verdict == "not comparable"
        assert f"the {who} was timed while others held the processor 50% of the time" in found.reason
    assert judge([calm], [calm]).findings[0].verdict == "same"


def test_the_speed_of_a_control_is_not_judged():
    metrics, timing = speed([99.0, 100.0, 101.0])
    slow, slow_timing = speed([49.0, 50.0, 51.0])
    before = entry("a", [*metrics, fid(1.0)], timing=timing, control=True)
    after = entry("a", [*slow, fid(1.0)], timing=slow_timing, control=True)
    assert [one.metric for one in judge([after], [before]).findings] == ["fid"]
    fast = Options(metrics=["images_per_second"])
    assert not judge(
        [entry("b", metrics, timing=timing), after], [entry("b", metrics, timing=timing), before], fast
    ).failed


def test_a_loss_must_surely_exceed_half_of_the_tolerance():
    """A loss of 6 % +- 2 % is beyond 5 % by medians and surely above 0, but not surely above 2.5 %."""
    rates = 100 * np.exp(0.025 * np.array([-1.2, -0.6, 0.0, 0.6, 1.2]))
    before, after = entry("a", *[speed(rates)[0]], timing=speed(rates)[1]), None
    metrics, timing = speed(rates * 0.94)
    after = entry("a", metrics, timing=timing)
    assert judge([after], [before]).findings[0].verdict == "same"
    exact = Options(tolerances=parse_tolerances("images_per_second=0%"))
    assert judge([after], [before], exact).findings[0].verdict == "worse"


def test_speeds_are_corrected_for_their_number():
    rng = np.random.default_rng(3)

    def rows(count, loss):
        made = []
        for k in range(count):
            metrics, timing = speed(100 * np.exp(rng.normal(0, 0.02, 3)) * (1 - loss if k == 0 else 1))
            made.append(entry(f"model{k}", metrics, timing=timing))
        return made

    strict = Options(tolerances=parse_tolerances("images_per_second=0%"))
    alone = [judge(rows(1, 0.12), rows(1, 0), strict).failed for _ in range(40)]
    crowd = [judge(rows(60, 0.0), rows(60, 0), strict).failed for _ in range(40)]
    assert sum(alone) > 20
    assert sum(crowd) <= 2


def test_latency_is_a_share_of_time_not_of_rate():
    def row(*seconds):
        made = metric("latency_seconds", float(np.median(seconds)), 0.01, higher_is_better=False)
        return entry("a", [made], timing=timed([100.0], list(seconds)))

    before = row(0.0999, 0.1, 0.1001)
    assert judge([row(0.1104, 0.1105, 0.1106)], [before]).findings[0].verdict == "worse"
    assert judge([row(0.1094, 0.1095, 0.1096)], [before]).findings[0].verdict == "same"
    assert judge([row(0.0894, 0.0895, 0.0896)], [before]).findings[0].verdict == "better"


def test_speed_of_another_device_is_not_comparable():
    metrics, timing = speed([99.0, 100.0, 101.0])
    moved, _ = speed([99.0, 100.0, 101.0], comparable={"device": "another"})
    before, after = entry("a", [*metrics, fid(1.0)], timing=timing), entry("a", [*moved, fid(1.0)], timing=timing)
    found = judge([after], [before]).findings
    assert [one.verdict for one in found] == ["not comparable", "same"]


def test_a_speed_that_lost_its_windows_is_missing_and_one_that_had_none_not_comparable():
    metrics, timing = speed([99.0, 100.0, 101.0])
    timed_row, bare = entry("a", [*metrics, fid(1.0)], timing=timing), entry("a", [*metrics, fid(1.0)])
    assert judge([bare], [timed_row]).findings[0].verdict == "missing"
    assert judge([timed_row], [bare]).findings[0].verdict == "not comparable"


def test_a_lost_interval_is_missing():
    found = one_metric(fid(2.0), fid(9.0, half=None))
    assert (found.verdict, found.by_nature) == ("missing", False)
    assert "the baseline's has one" in found.reason
    assert one_metric(fid(2.0), fid(9.0, half=None), tolerances=parse_tolerances("fid=900%")).verdict == "missing"
    before, after = ([entry("a", [fid(value, half), metric("kid", 1.0, 0.1)])] for value, half in ((2, None), (9, 0.1)))
    assert verdicts(after, before)["a", "fid"].by_nature


@pytest.mark.parametrize("share", [-0.9e-5, 0.9e-5, -1.1e-5, 1.1e-5])
def test_what_rounding_moves_is_the_same(share):
    images = np.linspace(2, 3, 40)
    made = [scored("bits_per_dim", array) for array in (images, images + share * images.mean())]
    before, after = (entry("a", [found], scores=scores) for found, scores in made)
    certain = [exact("bits_per_dim", value) for value in (4.0, 4.0 * (1 + share))]
    for found in (judge([after], [before]).findings[0], one_metric(*certain)):
        assert found.verdict == ("same" if abs(share) < 1e-5 else "worse" if share > 0 else "better")
        assert ("no more than rounding" in found.reason) == (abs(share) < 1e-5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, "0.2"])
def test_a_right_value_that_is_no_number_is_none(value):
    where = {"provenance": {"extra": {"test_split": value}}}
    before, after = ([entry("a", [metric("ssim_pairwise", v, 0.01, **where), fid(v * 10)])] for v in (0.2, 0.3))
    found = verdicts(after, before)
    assert found["a", "ssim_pairwise"].by_nature
    assert found["a", "fid"].verdict == "worse"


def test_a_row_of_whose_quality_nothing_can_be_compared_is_missing_however_fast_it_is():
    metrics, timing = speed([99.0, 100.0, 101.0])
    cost = [*metrics, exact("evaluations_per_image", 20.0, higher_is_better=False)]
    unlike = [metric(name, 1.0, 0.1, comparable={"n": 100}) for name in ("fid", "kid")]
    before = [entry("a", [fid(1.0), metric("kid", 1.0, 0.1), *cost], timing=timing)]
    result = judge([entry("a", [*unlike, *cost], timing=timing)], before)
    assert result.failed
    assert [one.verdict for one in result.findings if not one.metric] == ["missing"]
    assert "nothing of this row's quality can be compared, fid for one" in result.findings[-1].reason
    assert not judge([entry("a", [unlike[0], metric("kid", 1.0, 0.1), *cost], timing=timing)], before).failed
    fast = Options(metrics=["images_per_second"])
    assert not judge([entry("a", [*unlike, *cost], timing=timing)], before, fast).failed
    mixed = [entry("a", [fid(1.0), metric("precision", 0.5), *cost], timing=timing)]
    assert judge([entry("a", [unlike[0], metric("precision", 0.6), *cost], timing=timing)], mixed).failed
    bare = [entry("a", [fid(1.0, half=None), *cost], timing=timing)]
    assert not judge([entry("a", [fid(1.1, half=None), *cost], timing=timing)], bare).failed


def test_a_row_that_failed_in_the_baseline_is_told():
    before = [entry("a", [fid(2.0)]), entry("b", [], status="failed", reason="loss is nan")]
    after = [entry("a", [fid(2.0)]), entry("b", [fid(2.0)])]
    result = judge(after, before)
    found = {one.row: one for one in result.findings}
    assert (found["b"].verdict, found["b"].reason) == ("not comparable", "the baseline's seed 0 failed: loss is nan")
    assert not found["b"].by_nature and not result.failed
