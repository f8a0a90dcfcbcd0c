"""Series as shown: charts, tables and words, with texts of records as they are or escaped."""

from __future__ import annotations

import html
import json

import numpy as np
import pytest
from report_fixture import HOSTILE, absent, metric, record
from series_records import NOISE, jump, made, only, put, sha, values

from genbench.record import write_record
from genbench.report.series.chart import series_chart, series_charts
from genbench.report.series.read import read_series
from genbench.report.series.text import (
    change_text,
    joined_labels,
    method_text,
    p_text,
    point_table,
    series_summary,
    step_table,
    verdict_of,
)


def hostile_history(home):
    bad = '=cmd|<b>"x"</b>'
    for day, number in enumerate(jump(), start=1):
        commit = {"commit": f"{HOSTILE}{day}"}
        found = absent("fid", HOSTILE) if day == 4 else metric("fid", number, 0.1, extractor=bad)
        put(home, day, HOSTILE, [found], environment=commit)
    return read_series([home], "fid")


def strings(value):
    if isinstance(value, dict):
        for part in value.values():
            yield from strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value


def test_texts_of_records_are_escaped_in_charts_and_plain_in_tables(tmp_path):
    history = hostile_history(tmp_path)
    spec = series_chart(history.series[0], 3).spec()
    assert spec["id"] == "chart-series-3"
    texts = list(strings(spec))
    assert not any("<script" in text or '<b>"' in text for text in texts)
    assert html.escape(f"{HOSTILE}1") in spec["data"][0]["x"]
    json.dumps(spec, allow_nan=False)
    _, rows = step_table(history.series)
    assert rows[0][1] == HOSTILE
    assert rows[0][3] == f"{HOSTILE}9"


def test_the_chart_shows_points_means_and_steps(tmp_path):
    values(tmp_path, "vae", jump())
    put(tmp_path, 6, "vae", [absent("fid", "the disk was full")])
    one = only(read_series([tmp_path], "fid"))
    (chart,) = series_charts([one], {"latent": 3})
    (trace,) = chart.data
    assert trace["x"] == [p.label for p in one.points]
    assert trace["y"] == [p.value for p in one.points]
    assert trace["y"][5] is None
    assert trace["error_y"]["array"][5] is None
    assert trace["error_y"]["array"][0] == pytest.approx(0.1)
    assert trace["error_y"]["arrayminus"][0] == pytest.approx(0.1)
    assert trace["line"]["color"] == "--c3"
    assert chart.layout["xaxis"]["type"] == "category"
    assert chart.layout["xaxis"]["categoryarray"] == trace["x"]
    assert chart.layout["yaxis"]["title"]["text"] == "FID (digits-cnn) ↓"
    means, steps = chart.layout["shapes"][:2], chart.layout["shapes"][2:]
    assert [line["y0"] for line in means] == [s.mean for s in one.segments]
    assert [(line["x0"], line["x1"]) for line in means] == [
        pytest.approx((-0.375, 7.375), abs=0.01),
        pytest.approx((7.625, 11.375), abs=0.01),
    ]
    assert [(line["x0"], line["line"]["dash"], line["yref"]) for line in steps] == [
        (pytest.approx(7.5, abs=0.01), "dash", "paper")
    ]
    (note,) = chart.layout["annotations"]
    assert note["text"].startswith("+0.9")
    assert note["text"].endswith("(worse)")
    assert "2026-11-01 00:00:00 UTC" in trace["customdata"][0]
    assert "the disk was full" in chart.alt
    assert "1 step" in chart.alt


def test_no_position_of_the_chart_is_a_label(tmp_path):
    """Folders named by versions: plotly would take a line at 7.5 for one at the category "7.5"."""
    names = [f"{k / 8:g}" for k in range(-4, 100)]
    for day, name in enumerate(names, start=1):
        created = f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}T00:00:00+00:00"
        one = record("vae", [metric("fid", 2.0 + NOISE[day % 12] + (day > 60), 0.1)], created=created)
        write_record(tmp_path / name, one)
    one = only(read_series([tmp_path], "fid"))
    assert len(one.steps) == 1
    layout = series_chart(one, 0).layout
    places = [line[end] for line in layout["shapes"] for end in ("x0", "x1")] + [layout["annotations"][0]["x"]]
    assert not {f"{place:g}" for place in places} & {p.label for p in one.points} & set(names)
    assert not {str(place) for place in places} & set(names)


def test_the_chart_of_two_ways_of_measuring_has_a_trace_each(tmp_path):
    for day in range(1, 7):
        put(tmp_path, day, "vae", [metric("fid", 100.0 if day < 3 else 2.0, 5.0, comparable={"n": day < 3})])
    one = only(read_series([tmp_path], "fid"))
    chart = series_chart(one, 0)
    assert [trace["y"] for trace in chart.data] == [[None, None, 2, 2, 2, 2], [100, 100, None, None, None, None]]
    assert chart.layout["yaxis"]["type"] == "log"
    assert all(bar is None or bar < 2 for bar in chart.data[0]["error_y"]["arrayminus"])


def test_tables_hold_every_point(tmp_path):
    values(tmp_path, "vae", jump())
    put(tmp_path, 6, "vae", [absent("fid", "the disk was full")])
    put(tmp_path, 7, "vae", [metric("fid", 2.0, 0.1)], seed=1)
    heads, rows = point_table(read_series([tmp_path], "fid").series)
    assert all(len(row) == len(heads) for row in rows)
    assert all(isinstance(cell, str) for row in rows for cell in row)
    first = dict(zip(heads, rows[0], strict=True))
    assert first == {
        "suite": "digits",
        "row": "vae",
        "metric": "FID (digits-cnn)",
        "point": sha(1)[:7],
        "commit": sha(1),
        "created": made(1),
        "value": "2.02",
        "95 % interval": "[1.92, 2.12]",
        "seeds": "0",
        "segment mean": first["segment mean"],
    }
    assert float(first["segment mean"]) == pytest.approx(np.mean(jump()[:8]), abs=0.02)
    assert dict(zip(heads, rows[5], strict=True))["value"] == "–"
    assert dict(zip(heads, rows[5], strict=True))["95 % interval"] == "the disk was full"
    assert dict(zip(heads, rows[6], strict=True))["seeds"] == "0, 1"
    assert float(dict(zip(heads, rows[11], strict=True))["segment mean"]) == pytest.approx(
        np.mean(jump()[8:]), abs=0.01
    )
    heads, rows = step_table(read_series([tmp_path], "fid").series)
    (row,) = rows
    assert len(row) == len(heads)
    assert row[3:5] == [sha(9)[:7], sha(8)[:7]]
    assert row[8] == "worse"


def test_a_step_of_a_control_says_what_it_means(tmp_path):
    values(tmp_path, "test_split", jump(), control=True)
    values(tmp_path, "vae", jump())
    history = read_series([tmp_path], "fid")
    assert [(one.row, one.control) for one in history.series] == [("vae", False), ("test_split", True)]
    assert "measurement" in history.series[1].steps[0].text
    assert "measurement" not in history.series[0].steps[0].text
    heads, rows = step_table(history.series)
    assert [(row[1], bool(row[heads.index("note")])) for row in rows] == [("vae", False), ("test_split", True)]


def test_words():
    assert joined_labels(list("abcde"), [0, 1, 3, 5, 6]) == "a to b, c, d to e"
    assert (p_text(0.00001), p_text(0.0042), p_text(0.0)) == ("< 0.0001", "0.0042", "< 0.0001")
    fid, neutral = metric("fid", 1.0), metric("ssim_pairwise", 1.0)
    assert [verdict_of(fid, change) for change in (1, -1)] == ["worse", "better"]
    assert verdict_of(neutral, 1) == "changed"
    assert change_text(fid, -0.4, (-0.5, -0.3)) == ("−0.40", "[−0.50, −0.30]")
    assert change_text(fid, 2.0, (2.0, 2.0)) == ("+2.00", "")
    assert "0.05" in method_text(0.05)


def test_summary(tmp_path):
    values(tmp_path, "vae", jump())
    put(tmp_path, 2, "vae", [absent("fid", "n/a")])
    told = series_summary(only(read_series([tmp_path], "fid")))
    assert told == f"11 points and 1 without a value, 1 step; 2.99 [2.89, 3.09] at {sha(12)[:7]} (lower is better)."
