"""Speeds put to the test: each metric by its own scatter, hidden losses at the corrected level, one repetition none."""

import math
from dataclasses import replace

import numpy as np
import pytest
from check_fixture import entry, metric, timed

from genbench.check.decide import SpeedTest, decide, with_scatter
from genbench.check.finding import Finding, Options
from genbench.check.judge import judge
from genbench.check.speed import Sides, contest, p_values
from genbench.check.tolerance import parse_tolerances

RATE, LATENCY = "images_per_second", "latency_seconds"
SPREAD = np.array([-1.2, -0.6, 0.0, 0.6, 1.2])


def moved(row, name=RATE, sd=0.01, shift=0.0, tolerance=0.05):
    """A speed whose logarithms scatter by about ``sd`` on either side and moved by ``shift``."""
    found = contest(Sides((5 + sd * SPREAD, 5 + shift + sd * SPREAD), None))
    loss = 1 - found.ratio if name == RATE else 1 / found.ratio - 1
    return SpeedTest(Finding(row, name, "same", ""), found, loss, tolerance, f"{tolerance:.0%}")


def speed_row(row, rates, latencies=None, seed=0):
    made = [metric(RATE, float(np.median(rates)), 1.0)]
    if latencies is not None:
        made.append(metric(LATENCY, float(np.median(latencies)), 0.01, higher_is_better=False))
    return entry(row, made, seed, timing=timed(list(rates), latencies))


@pytest.mark.parametrize("name", [RATE, LATENCY])
def test_a_gain_within_the_tolerance_is_no_better_however_sure(name):
    within, beyond = (decide([moved("a", name, 0.001, shift)], 0.01)[0] for shift in (0.04, 0.06))
    assert within.verdict == "same" and beyond.verdict == "better"
    assert "faster by medians, tolerance 5%" in within.reason
    worse = [decide([moved("a", name, 0.001, -shift)], 0.01)[0].verdict for shift in (0.04, 0.06)]
    assert worse == ["same", "worse"]


def test_the_loss_that_scatter_hides_is_that_of_the_corrected_level():
    tests = [moved(f"model{k}", sd=0.04) for k in range(20)]
    found = p_values([one.contest for one in tests], [0.025] * 20)[0]
    hidden = [float(one.reason.split("hides losses up to ")[1].rstrip("%")) / 100 for one in decide(tests, 0.01)]
    assert hidden == pytest.approx([found.least_loss(0.01 / 20)] * 20, abs=0.0051)
    assert found.least_loss(0.01 / 20) > found.least_loss(0.01) + 0.02
    for loss, verdict in ((hidden[0] + 0.01, "worse"), (hidden[0] - 0.01, "same")):
        slower = [moved("model0", sd=0.04, shift=math.log1p(-loss)), *tests[1:]]
        assert decide(slower, 0.01)[0].verdict == verdict


def test_the_scatter_of_each_metric_is_moderated_by_its_own():
    """Single images that scatter widely say nothing of windows that hardly do."""
    quiet = [moved(f"model{k}", sd=0.01, shift=-0.08 if k == 0 else 0.0) for k in range(8)]
    wide = [moved(f"model{k}", LATENCY, 0.3) for k in range(8)]
    found = decide([*quiet, *wide], 0.01)
    assert found[0].verdict == "worse"
    alone = p_values([one.contest for one in quiet], [0.025] * 8)[0]
    assert found[0].p == pytest.approx(16 * alone.slower)
    calm = [moved(f"model{k}", RATE, 0.001) for k in range(8)]
    noisy = decide([moved("model0", LATENCY, 0.3, -0.4), *wide[1:], *calm], 0.01)
    assert noisy[0].verdict == "same"


def test_both_speeds_of_a_run_are_apart():
    def rows(loss):
        rng = np.random.default_rng(5)
        made = []
        for k in range(6):
            latencies = np.exp(rng.normal(-4, 0.5, 5)).tolist()
            rates = 100 * np.exp(rng.normal(0, 0.005, 5)) * (1 - loss if k == 0 else 1)
            made.append(speed_row(f"model{k}", rates, latencies))
        return made

    found = {(one.row, one.metric): one for one in judge(rows(0.1), rows(0.0)).findings}
    assert found["model0", RATE].verdict == "worse"
    assert {one.verdict for key, one in found.items() if key != ("model0", RATE)} == {"same"}


@pytest.mark.parametrize(("before", "after"), [([100.0], [10.0]), ([100.0], [10.0, 11.0]), ([100.0, 99.0], [10.0])])
def test_one_repetition_is_not_comparable(before, after):
    quality = metric("fid", 1.0, 0.1)
    rows = [speed_row("a", rates) for rates in (before, after)]
    rows = [
        replace(one, record=one.record.model_copy(update={"metrics": [*one.record.metrics, quality]})) for one in rows
    ]
    result = judge([rows[1]], [rows[0]])
    found = result.findings[0]
    assert (found.metric, found.verdict, found.by_nature) == (RATE, "not comparable", False)
    assert "one repetition is no measure of its scatter; time it again in more windows" in found.reason
    assert not result.failed
    only = judge([rows[1]], [rows[0]], Options(metrics=[RATE]))
    assert only.failed and only.findings[-1].verdict == "missing"


def test_one_repetition_a_seed_is_several():
    before, after = (
        [speed_row("a", [rate], seed=k) for k, rate in enumerate(rates)] for rates in ((100, 101), (50, 51))
    )
    options = Options(tolerances=parse_tolerances("images_per_second=10%"))
    assert judge(after, before, options).findings[0].verdict == "worse"


def test_a_speed_with_scatter_waits_for_its_test():
    test = moved("a")
    assert with_scatter(test, "x") is test
    alone = with_scatter(replace(test, contest=replace(test.contest, freedom=0)), "time it again")
    assert alone == replace(
        test.finding,
        verdict="not comparable",
        reason="one repetition is no measure of its scatter; time it again",
    )
