"""Differences of speeds: per cent of the baseline, with an interval that holds what it says."""

import csv
import io
import math

import numpy as np
import pytest
from report_fixture import metric
from report_runs import row, write_records

from genbench.check.collect import Entry
from genbench.record import Timing, TimingWindow
from genbench.report.build import write_changes, write_report
from genbench.report.differences import SPEEDS, difference
from genbench.report.names import change_text
from genbench.report.sources import read_sources
from genbench.report.speeds import speed_change

RATE = ("images_per_second", "plug-in", None)


def timed(rates, paces=None, model="vae", **more):
    """A row of which the windows ran at these rates, and at these paces of the machine."""
    windows = [
        TimingWindow(images=1000, seconds=1000 / rate, pace=pace)
        for rate, pace in zip(rates, [None] * len(rates) if paces is None else paces, strict=True)
    ]
    timing = Timing(
        batch_size=8,
        windows=windows,
        latency_seconds=[1 / rate for rate in rates],
        latency_pace=None if paces is None else list(paces),
        reference_load=None if paces is None else "linear-conv-1",
        evaluations_per_image=1,
        precision="fp32",
        device="cpu",
        threads=1,
    )
    middle = float(np.median(rates))
    speeds = [
        metric("images_per_second", middle, unit="images/s"),
        metric("latency_seconds", 1 / middle, higher_is_better=False),
    ]
    return row(model, metrics=[metric("fid", 2.0, 0.2), *speeds], timing=timing, **more)


def entry(rates, paces=None):
    return Entry(timed(rates, paces))


@pytest.mark.parametrize("paced", [False, True])
@pytest.mark.parametrize("rate", [250, 11_000, 20_000, 44_000])
def test_the_interval_of_a_change_holds_it_as_often_as_it_says(rate, paced):
    """Five windows a side, with noise of 5 % of their own and of 10 % of the machine's pace where it is known."""
    rng = np.random.default_rng(rate)

    def side(speed):
        paces = np.exp(0.1 * rng.standard_normal(5)) if paced else np.ones(5)
        rates = speed * paces * np.exp(0.05 * rng.standard_normal(5))
        return entry(rates, 1000 * paces if paced else None)

    runs, held = 600, 0
    for _ in range(runs):
        found = speed_change([side(22_000)], [side(rate)], "images_per_second")
        held += found.ci95[0] <= rate / 22_000 - 1 <= found.ci95[1]
    assert 0.925 < held / runs < 0.975


def test_a_difference_of_speeds_is_a_share_of_the_baseline():
    before, after = [100.0, 101.0, 99.0, 100.0, 100.5], [50.0, 51.0, 49.5, 50.0, 50.2]
    found = difference([entry(before)], [entry(after)], RATE)
    assert found.is_share and found.value == pytest.approx(-0.5)
    assert (found.text, found.verdict) == ("−50.00 %", "worse")
    assert found.interval == f"[{', '.join(f'−{abs(100 * end):.2f} %' for end in found.ci95)}]"
    latency = difference([entry(before)], [entry(after)], ("latency_seconds", "plug-in", None))
    assert (latency.value, latency.verdict) == (pytest.approx(1.0), "worse")


@pytest.mark.filterwarnings("error")
def test_a_single_repetition_has_no_interval_and_huge_rates_no_difference():
    found = difference([entry([100.0])], [entry([150.0])], RATE)
    assert (found.text, found.interval, found.verdict) == ("+50.0 %", "", "no interval")
    for rates in ((1e-300, 1e300), (1e300, 1e-300)):
        found = difference(*([entry([rate] * 3)] for rate in rates), RATE)
        assert (found.verdict, found.value) == ("not comparable", None)


@pytest.mark.parametrize(
    ("share", "ci95", "shown"),
    [
        (0.0463, (0.012, 0.081), ("+4.6 %", "[1.2 %, 8.1 %]")),
        (-0.9886, (-0.98866, -0.98854), ("−98.860 %", "[−98.866 %, −98.854 %]")),
        (0.0, (-0.029, 0.03), ("0.0 %", "[−2.9 %, 3.0 %]")),
        (87.0, (80.0, 95.0), ("+8,700 %", "[8,000 %, 9,500 %]")),
        (0.5, None, ("+50.0 %", "")),
        (1e300, (1e290, 1e306), ("+1.00e+302 %", "[1.00e+292 %, 1.00e+308 %]")),
    ],
)
def test_changes_are_shown_in_per_cent(share, ci95, shown):
    assert change_text(share, ci95) == shown


@pytest.fixture
def two(tmp_path):
    before = timed([100.0, 101.0, 99.0, 100.0, 100.5])
    after = timed([120.0, 121.0, 119.0, 120.0, 120.5], config={"steps": 3})
    return read_sources([str(write_records(tmp_path / name, one)) for name, one in (("a", before), ("b", after))])


def test_the_columns_of_speeds_are_called_changes(two, tmp_path):
    text = write_report(two, tmp_path / "x.csv", baseline="a").read_text(encoding="utf-8")
    (line,) = (line for line in csv.DictReader(io.StringIO(text)) if line["baseline"])
    change, low, high = (float(line[f"images_per_second_change{end}"]) for end in ("", "_low", "_high"))
    assert change == pytest.approx(0.2) and low < 0.2 < high and math.isclose(high - low, 0.024, rel_tol=0.3)
    assert {"latency_seconds_change", "latency_seconds_verdict", "fid_difference"} <= set(line)
    assert not {"images_per_second_difference", "latency_seconds_difference", "fid_change"} & set(line)


def test_the_unit_of_a_changed_number_tells_shares_apart(two, tmp_path):
    text = write_changes(*two, tmp_path / "x.csv").read_text(encoding="utf-8")
    lines = {line["name"]: line for line in csv.DictReader(io.StringIO(text)) if line["what"] == "number"}
    assert (lines["images_per_second"]["unit"], lines["images_per_second"]["difference_unit"]) == (
        "images/s",
        "share of before",
    )
    assert float(lines["images_per_second"]["difference"]) == pytest.approx(0.2)
    assert lines["fid"]["difference_unit"] == ""


@pytest.mark.parametrize("suffix", [".html", ".md", ".tex"])
def test_every_format_for_people_says_what_a_difference_of_speeds_is(two, tmp_path, suffix):
    for out in (
        write_report(two, tmp_path / f"x{suffix}", baseline="a"),
        write_changes(*two, tmp_path / f"d{suffix}"),
    ):
        text = out.read_text(encoding="utf-8")
        assert SPEEDS in text
        assert "+20.0" in text
