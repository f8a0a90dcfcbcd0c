"""Records that are valid and strange: failed ones that hold values, huge numbers, odd passports and names."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_fixture import metric
from report_runs import bits, row, write_records
from series_records import jump, put, values

from genbench.evaluation.uncertainty import half_widths, metric_half_widths
from genbench.report.build import write_changes, write_report, write_series
from genbench.report.markup import _FORMULA, plain
from genbench.report.names import format_measured, format_seconds, format_value, significant
from genbench.report.seeds import pool, pooled_record
from genbench.report.series.read import read_series
from genbench.report.series.steps import find_steps
from genbench.report.sources import read_sources

SUFFIXES = [".html", ".md", ".tex", ".csv"]
HUGE = 1.7e308


def chart_data(page):
    """The specifications of charts, of JSON without Infinity and NaN."""

    def refuse(constant):
        raise ValueError(constant)

    text = re.search(r'id="chart-data">(.*?)</script>', page, flags=re.S)[1]
    return json.loads(text, parse_constant=refuse)


def failed(model="vae", seed=0, **more):
    return row(model, seed, status="failed", reason="it blew up", **more)


def test_what_a_failed_record_holds_is_no_result():
    assert pool([failed(), failed(seed=1)], "fid", "digits-cnn").metric.value is None
    assert pooled_record([failed(), failed(seed=1)]).metrics == pooled_record([failed()]).metrics == []
    found = pool([failed(fid=9.0), row("vae", 1, fid=3.0)], "fid", "digits-cnn")
    assert (found.metric.value, found.values) == (3.0, {0: None, 1: 3.0})
    only = failed(metrics=[metric("kid", 1.0, 0.1)])
    assert {m.name for m in pooled_record([only, row("vae", 1)]).metrics} == {"fid", "bits_per_dim", "parameters"}


def test_a_series_goes_on_beyond_failed_records(tmp_path):
    values(tmp_path, "vae", jump())
    put(tmp_path, 13, "vae", [metric("fid", 9.0, 0.1)], status="failed", reason="it blew up")
    put(tmp_path, 1, "gan", [metric("fid", 9.0, 0.1)], status="failed", reason="it blew up")
    history = read_series([str(tmp_path)], "fid")
    (one,) = history.series
    assert (one.points[-1].value, one.points[-1].reason) == (None, "the row failed: it blew up")
    assert history.notes == ("gan of suite 'digits' has no value of fid at any point.",)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_reports_of_failed_records_are_written(tmp_path, suffix):
    a = write_records(tmp_path / "a", failed(), failed(seed=1), row("gan"))
    b = write_records(tmp_path / "b", row("vae", config={"n": 1}), row("gan", fid=3.0))
    sources = read_sources([str(a), str(b)])
    assert "blew up" in write_report(sources, tmp_path / f"x{suffix}", baseline="b").read_text(encoding="utf-8")
    write_changes(*sources, tmp_path / f"d{suffix}")


@pytest.mark.parametrize("interval", [5, None, ["Wilson"], {"a": 1}])
def test_an_interval_method_that_is_no_text_is_none_of_ours(interval):
    assert metric_half_widths(metric("fid", 2.0, 0.5, provenance={"interval": interval})).above == 0.5


def test_half_widths_too_large_to_reckon_with_are_none():
    assert half_widths(1e308, (-1e308, 1.7e308), None) is None
    assert half_widths(1.0, None, None, 1e200) is None
    assert metric_half_widths(metric("fid", 1e308, 0, ci95=(-1e308, HUGE), kind="exact")) is None
    assert half_widths(1.0, (-1e100, 1e100), None).above == pytest.approx(1e100)


@pytest.mark.parametrize("name", ["fid", "recall", "memorised_share", "bits_per_dim", "latency_seconds", "parameters"])
def test_huge_numbers_are_shown_with_an_exponent(name):
    for value in (HUGE, -HUGE, 1.797e308, float("inf")):
        assert len(format_value(name, value)) < 20
    shown, interval = format_measured(name, HUGE, (-HUGE, 1.797e308))
    assert len(shown) < 20 and len(interval) < 40


def test_numbers_on_both_sides_of_the_exponent():
    assert [significant(value) for value in (999_000_000.0, 999_900_000.0, 1e9)] == [
        "999,000,000",
        "1.00e+09",
        "1.00e+09",
    ]
    assert format_seconds(1e10) == "1.00e+10 s"


def huge(seed, sign):
    """Values that no sum, square or difference of is a number."""
    metrics = [
        metric("fid", sign * HUGE, None, ci95=(-HUGE, HUGE)),
        metric("kid", HUGE, None, ci95=(1e300, HUGE)),
        metric("images_per_second", HUGE, None, ci95=(1.0, HUGE)),
        bits(sign * HUGE, ci95=None),
        metric("latency_seconds", HUGE),
        metric("recall", 1e200, None, ci95=(0.0, 1e201)),
        metric("parameters", HUGE),
    ]
    return {"metrics": metrics, "seed": seed}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_huge_values_break_no_report(tmp_path, suffix):
    made = [[row(name, **huge(seed, 1 - 2 * (k % 2))) for seed in (0, 1)] for k, name in enumerate(("vae", "gan"))]
    other = [row(name, **huge(0, 2 * (k % 2) - 1), config={"n": 1}) for k, name in enumerate(("vae", "gan"))]
    a = write_records(tmp_path / "a", *made[0], *made[1])
    sources = read_sources([str(a), str(write_records(tmp_path / "b", *other))])
    page = write_report(sources, tmp_path / f"x{suffix}", baseline="b").read_text(encoding="utf-8")
    changes = write_changes(*sources, tmp_path / f"d{suffix}").read_text(encoding="utf-8")
    if suffix == ".html":
        assert chart_data(page) and chart_data(changes)
    if suffix == ".csv":
        line = next(line for line in csv.DictReader(io.StringIO(page)) if line["label"] == "vae · a")
        assert line["fid_verdict"] in ("not comparable", "no interval")
        assert float(line["fid"]) == HUGE


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_huge_values_break_no_series(tmp_path, suffix):
    for seed in (0, 1):
        values(tmp_path / "h", "vae", [HUGE * (-1) ** k for k in range(4)] + [1e200, 2.0, 3.0], half=1e299, seed=seed)
    text = write_series([str(tmp_path / "h")], "fid", tmp_path / f"x{suffix}").read_text(encoding="utf-8")
    if suffix == ".html":
        assert len(chart_data(text)) == 1


@pytest.mark.filterwarnings("error")
def test_steps_do_not_depend_on_the_scale():
    found = find_steps(jump(), np.full(12, 0.05))
    large = find_steps([number * 2.0**900 for number in jump()], np.full(12, 0.05 * 2.0**900))
    assert [step.index for step in large.steps] == [step.index for step in found.steps] == [8]
    assert large.steps[0].p == found.steps[0].p
    assert [s.mean / 2.0**900 for s in large.segments] == [s.mean for s in found.segments]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_cells_that_a_spreadsheet_would_run_are_kept_from_it(sign):
    assert plain(f"{sign}1+1") == f"'{sign}1+1"


def test_the_page_keeps_the_same_cells_from_a_spreadsheet():
    script = (Path(__file__).parents[2] / "genbench" / "report" / "app.js").read_text(encoding="utf-8")
    signs = re.search(r"const safe = /\^\[(.*?)\]/", script)[1]
    assert set(signs.replace("\\-", "-").encode().decode("unicode_escape")) == set(_FORMULA)
