"""Series of any source, of models as any report takes them, and as raw numbers in CSV."""

import csv
import io

import pytest
from report_fixture import absent, metric
from report_runs import row, write_records
from series_records import jump, only, put, sha, values

from genbench.errors import UsageError
from genbench.report.build import write_series
from genbench.report.series.read import read_series


def rows_of(history):
    return [one.row for one in history.series]


def labels(history):
    return [point.label for point in only(history).points]


def made(day):
    return f"2026-11-0{day}T03:00:00+00:00"


def test_points_without_a_commit_are_called_by_the_name_of_their_source(tmp_path):
    for day in (1, 2):
        write_records(tmp_path / str(day), row("vae", created=made(day)))
    one, other = tmp_path / "1", tmp_path / "2"
    assert labels(read_series([f"old={one}", f"new={other}"], "fid")) == ["old", "new"]
    assert labels(read_series([f"old={one / 'records'}", f"new={other / 'records' / 'vae-s0.json'}"], "fid")) == [
        "old",
        "new",
    ]
    assert labels(read_series([f"all={tmp_path}"], "fid")) == ["all/1", "all/2"]
    assert labels(read_series([one, other], "fid")) == ["1", "2"]
    times = [f"t={one / 'records'}/", f"u={other}"]
    assert labels(read_series(times, "fid")) == ["t", "u"]


def test_a_commit_is_a_point_whatever_its_source_is_called(tmp_path):
    values(tmp_path / "a", "vae", [1.0, 2.0])
    assert labels(read_series([f"x={tmp_path / 'a'}"], "fid")) == [sha(1)[:7], sha(2)[:7]]


def test_two_sources_of_one_name_are_refused(tmp_path):
    values(tmp_path, "vae", [1.0, 2.0])
    with pytest.raises(UsageError, match="Two sources are called 'x'"):
        read_series([f"x={tmp_path}", f"x={tmp_path}"], "fid")


def test_a_folder_with_an_equals_sign_is_a_path(tmp_path):
    values(tmp_path / "a=b", "vae", [1.0, 2.0])
    assert len(labels(read_series([str(tmp_path / "a=b")], "fid"))) == 2


def test_a_leaderboard_is_a_point(tmp_path, monkeypatch):
    write_records(tmp_path / "leaderboards" / "mine", row("vae", created=made(1)))
    write_records(tmp_path / "now", row("vae", created=made(2)))
    monkeypatch.chdir(tmp_path)
    assert labels(read_series(["leaderboard:mine", "now"], "fid")) == ["leaderboard:mine", "now"]
    assert labels(read_series(["then=leaderboard:mine", "now"], "fid")) == ["then", "now"]
    with pytest.raises(UsageError, match="No leaderboard of suite 'other'"):
        read_series(["leaderboard:other", "now"], "fid")


def test_a_baseline_may_be_given_by_its_file(tmp_path):
    a = write_records(tmp_path / "a", row("vae", created=made(1)))
    (a / "baseline.json").write_text("{}")
    b = write_records(tmp_path / "b", row("vae", created=made(2)))
    assert labels(read_series([a / "baseline.json", b], "fid")) == ["a", "b"]


def test_a_model_is_all_its_rows_and_a_row_itself(tmp_path):
    values(tmp_path, "vae", [1.0, 2.0])
    values(tmp_path, "gan", [1.0, 2.0])
    for day in (1, 2):
        put(tmp_path / "more", day, "vae", [metric("fid", 3.0, 0.1)], variant="fast")
    assert rows_of(read_series([tmp_path], "fid", rows=["vae"])) == ["vae", "vae@fast"]
    assert rows_of(read_series([tmp_path], "fid", rows=["vae@fast"])) == ["vae@fast"]
    assert rows_of(read_series([tmp_path], "fid", rows=["vae@fast", "gan"])) == ["gan", "vae@fast"]
    with pytest.raises(UsageError, match=r"Unknown model of the report 'vea'\. Did you mean 'vae'"):
        read_series([tmp_path], "fid", rows=["vea"])


def test_the_csv_of_a_series_holds_raw_numbers_and_steps(tmp_path):
    numbers = [10000 * value for value in jump()]
    values(tmp_path, "=vae", numbers, half=1000.0)
    put(tmp_path, 6, "=vae", [absent("fid", "-too few")])
    text = write_series([str(tmp_path)], "fid", tmp_path / "x.csv").read_text(encoding="utf-8")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert all(len(line) == 18 for line in lines)
    valued = [line for line in lines if line["value"]]
    assert [float(line["value"]) for line in valued] == [n for i, n in enumerate(numbers) if i != 5]
    assert [float(line["ci95_low"]) for line in valued] == [n - 1000 for i, n in enumerate(numbers) if i != 5]
    assert {line["row"] for line in lines} == {"'=vae"}
    assert (lines[5]["reason"], lines[5]["segment_mean"]) == ("'-too few", "")
    (step,) = [line for line in lines if line["change"]]
    assert (step["point"], step["verdict"]) == (sha(9)[:7], "worse")
    assert float(step["change_low"]) < float(step["change"]) < float(step["change_high"])
    assert float(step["p"]) < 0.01
    means = {line["segment_mean"] for line in valued}
    assert len(means) == 2 and all(float(mean) > 0 for mean in means)


def test_a_falling_step_is_a_negative_number_in_the_csv(tmp_path):
    values(tmp_path, "vae", jump(size=-1.0, base=5.0))
    text = write_series([str(tmp_path)], "fid", tmp_path / "x.csv").read_text(encoding="utf-8")
    (change,) = [line["change"] for line in csv.DictReader(io.StringIO(text)) if line["change"]]
    assert float(change) < -0.9
