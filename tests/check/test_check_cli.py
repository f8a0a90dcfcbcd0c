"""`genbench check` and `genbench baseline` at the command line: exit statuses, files, messages."""

import json
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from check_fixture import entry, metric, scored, timed, write

from genbench.check.baseline import read_baseline
from genbench.check.collect import read_entries
from genbench.cli.main import main

HOSTILE = "::error::<b>x"


def genbench(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    output = capsys.readouterr()
    return stop.value.code, output.out, output.err


def run(folder, worse=0.0, rows=("vae", "ddpm"), **more):
    found, scores = scored("bits_per_dim", np.linspace(1, 2, 30) + np.sin(np.arange(30)) * worse + worse)
    rate = [100.0 - 50 * worse, 101.0 - 50 * worse, 99.0 - 50 * worse]
    speed = metric("images_per_second", rate[0], 1.0)
    made = [metric("fid", 2.0 + worse, 0.1), found, speed, metric("training_seconds", 10.0 + worse)]
    return write(folder, *(entry(row, made, scores=scores, timing=timed(rate), **more) for row in rows))


@pytest.fixture
def gate(tmp_path, capsys):
    status, out, _ = genbench(
        capsys, "baseline", "update", run(tmp_path / "first"), tmp_path / "gate", "--reason", "first", "--author", "Ada"
    )
    assert status == 0
    assert "Baseline of suite 'digits': 2 records" in out
    assert "One seed of vae, ddpm" in out or "One seed of ddpm, vae" in out
    return tmp_path / "gate"


def test_no_regression_is_0(gate, tmp_path, capsys):
    status, out, _ = genbench(capsys, "check", tmp_path / "first", "--baseline", gate)
    assert status == 0
    assert out.splitlines() == ["no regression: 8 the same within noise"]
    status, out, _ = genbench(capsys, "check", tmp_path / "first", "--baseline", gate, "--all")
    assert status == 0
    assert "- vae: FID (digits-cnn) is the same within noise: 2.00 -> 2.00" in out


def test_a_regression_is_1_with_a_readable_reason(gate, tmp_path, capsys):
    status, out, _ = genbench(capsys, "check", run(tmp_path / "second", 0.5), "--baseline", gate)
    assert status == 1
    lines = out.splitlines()
    assert any(line.startswith("- vae: FID (digits-cnn) is worse: 2.00 -> 2.50, changed by +0.5 [") for line in lines)
    assert any("25.0% slower by medians, tolerance 5 %" in line for line in lines)
    assert lines[-1].startswith("REGRESSION: 6 worse")
    assert "training" not in out.lower()


def test_a_missing_row_is_1(gate, tmp_path, capsys):
    second = run(tmp_path / "second", rows=["vae"])
    status, out, _ = genbench(capsys, "check", second, "--baseline", gate)
    assert status == 1
    assert "- ddpm: whole row is missing: the candidate has no such row" in out
    assert genbench(capsys, "check", second, "--baseline", gate, "--models", "vae")[0] == 0


def test_a_record_of_an_earlier_run_is_named_where_its_row_is_missing(gate, tmp_path, capsys):
    second = run(tmp_path / "second")
    (second / "run.json").write_text('{"rows": ["vae-s0"]}')
    status, out, _ = genbench(capsys, "check", second, "--baseline", gate)
    assert status == 1
    assert f"Records of ddpm are in {second}, but of an earlier run than the last" in " ".join(out.split())
    assert "earlier run" not in genbench(capsys, "check", second, "--baseline", gate, "--models", "vae")[1]


def test_speeds_of_a_busy_machine_are_told_when_they_are_accepted(tmp_path, capsys):
    timing = timed([100.0, 101.0])
    busy = timing.model_copy(update={"windows": [w.model_copy(update={"given": 0.1}) for w in timing.windows]})
    speed = metric("images_per_second", 100.0, 1.0)
    folder = write(tmp_path / "busy", *(entry(row, [speed], timing=busy) for row in ("vae", "ddpm")))
    _, out, _ = genbench(capsys, "baseline", "update", folder, tmp_path / "gate", "--reason", "x")
    told = "timed while other processes held the processor 90% of the time"
    assert f"Speeds of ddpm and 1 more rows cannot be compared: {told}. On a quiet machine" in " ".join(out.split())


def test_a_row_is_checked_without_the_variants_of_its_model(tmp_path, capsys):
    both, table = run(tmp_path / "both", rows=["vae", "vae@fast"]), tmp_path / "check.md"
    arguments = ["check", run(tmp_path / "base", rows=["vae"]), "--baseline", both, "--models"]
    status, out, _ = genbench(capsys, *arguments, "vae", "--markdown", table)
    assert status == 0
    assert "Not asked for: vae@fast" in out.splitlines()
    assert "Not asked for: vae@fast." in table.read_text().splitlines()
    assert genbench(capsys, *arguments, "vae,vae@fast")[0] == 1
    assert "Not asked for" not in genbench(capsys, "check", both, "--baseline", both)[1]


def test_a_row_without_the_metric_asked_for_is_told(tmp_path, capsys):
    made = {"a": [metric("fid", 1.0, 0.1), metric("kid", 1.0, 0.1)], "b": [metric("fid", 1.0, 0.1)]}
    folder = write(tmp_path / "run", *(entry(row, metrics) for row, metrics in made.items()))
    arguments = ["check", folder, "--baseline", folder, "--metrics"]
    status, _, error = genbench(capsys, *arguments, "kid", "--models", "a,b")
    assert status == 2
    assert "Row 'b' of the baseline has no value of 'kid'." in error
    status, out, _ = genbench(capsys, *arguments, "kid")
    assert status == 0
    assert "- b: KID (digits-cnn) is not comparable: the baseline has no value of it" in out or "- b: KID is not" in out


def test_filters_tolerance_and_alpha_reach_the_judge(gate, tmp_path, capsys):
    second = run(tmp_path / "second", 0.5)
    arguments = ["check", second, "--baseline", gate]
    assert genbench(capsys, *arguments, "--metrics", "fid", "--models", "vae, ddpm")[0] == 1
    assert genbench(capsys, *arguments, "--metrics", "fid", "--tolerance", "fid=40%")[0] == 0
    assert genbench(capsys, *arguments, "--metrics", "fid", "--alpha", "1e-15")[0] == 0
    assert (
        genbench(capsys, *arguments, "--metrics", "images_per_second", "--tolerance", "images_per_second=30%")[0] == 0
    )


def test_files_and_annotations(gate, tmp_path, capsys, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    second, junit, table = run(tmp_path / "second", 0.5), tmp_path / "out" / "check.xml", tmp_path / "check.md"
    arguments = ["check", second, "--baseline", gate, "--junit", junit, "--markdown", table]
    status, out, _ = genbench(capsys, *arguments, "--github")
    assert status == 1
    assert ET.parse(junit).getroot().get("failures") == "6"
    assert table.read_text().startswith("### genbench check, suite digits: REGRESSION")
    assert summary.read_text() == "before\n" + table.read_text()
    assert sum(line.startswith("::error ") for line in out.splitlines()) == 6
    assert "::" not in genbench(capsys, *arguments)[1]
    assert summary.read_text() == "before\n" + table.read_text()


def test_a_hostile_name_is_no_command(tmp_path, capsys):
    before, after = (
        write(tmp_path / name, entry(HOSTILE, [metric("fid", value, 0.1)])) for name, value in (("a", 1.0), ("b", 2.0))
    )
    status, out, _ = genbench(capsys, "check", after, "--baseline", before)
    assert status == 1
    assert f"- {HOSTILE}: FID" in out
    assert not any(line.lstrip().startswith("::") for line in out.splitlines())


def test_benchmarks_are_in_the_same_gate(gate, tmp_path, capsys):
    files = {}
    for name, median in (("old", 1.0), ("new", 1.5)):
        stats = {"median": median, "iqr": 0.01, "rounds": 50}
        machine = {"system": "Linux", "cpu": {"brand_raw": "Example CPU"}}
        value = {"machine_info": machine, "benchmarks": [{"fullname": "test_it", "stats": stats}]}
        files[name] = tmp_path / f"{name}.json"
        files[name].write_text(json.dumps(value))
    arguments = ["check", tmp_path / "first", "--baseline", gate, "--benchmarks"]
    status, out, _ = genbench(capsys, *arguments, files["new"], "--benchmarks-baseline", files["old"])
    assert status == 1
    assert "- test_it: Median time is worse: 1.00 s -> 1.50 s; 50.0% slower" in out
    assert genbench(capsys, *arguments, files["new"], "--benchmarks-baseline", files["new"])[0] == 0
    status, _, error = genbench(capsys, *arguments, files["new"])
    assert (status, "belong together" in error) == (2, True)
    files["old"].write_text('{"machine_info": {}, "benchmarks": []}')
    for new, old in (("new", "old"), ("old", "new"), ("old", "old")):
        status, _, error = genbench(capsys, *arguments, files[new], "--benchmarks-baseline", files[old])
        assert (status, "without any benchmark" in error) == (2, True)


def test_bad_input_is_2_and_says_what(gate, tmp_path, capsys):
    first, broken = tmp_path / "first", run(tmp_path / "broken")
    (broken / "records" / "vae-s0.json").write_text("{")
    other = write(tmp_path / "other", entry("vae", [metric("fid", 1.0, 0.1)], suite="mnist"))
    (tmp_path / "empty").mkdir()
    for arguments, told in (
        ([first], "Missing option '--baseline'"),
        ([first, "--baseline", tmp_path / "nowhere"], "nowhere: no such file or folder"),
        ([tmp_path / "empty", "--baseline", gate], "no records"),
        ([broken, "--baseline", gate], "not a readable record"),
        ([other, "--baseline", gate], "A check is about one suite"),
        ([first, "--baseline", "leaderboard:nowhere"], "No leaderboard of suite 'nowhere'"),
        ([first, "--baseline", gate, "--models", "vea"], "Did you mean 'vae'"),
        ([first, "--baseline", gate, "--metrics", "kid"], "Unknown metric of the baseline 'kid'"),
        ([first, "--baseline", gate, "--tolerance", "fid"], "expected METRIC=NUMBER%"),
        ([first, "--baseline", gate, "--alpha", "1.5"], "alpha must be between 0 and 1"),
        ([first, "--baseline", gate, "--alpha", "often"], "Invalid value for '--alpha'"),
    ):
        status, _, error = genbench(capsys, "check", *arguments)
        assert status == 2, arguments
        assert told in error
        assert "Traceback" not in error
    record = gate / "records" / "vae-s0.json"
    record.write_text(record.read_text().replace('"value": 2.0', '"value": 9.0'))
    for source in (gate, gate / "baseline.json"):
        status, _, error = genbench(capsys, "check", first, "--baseline", source)
        assert (status, "changed since the baseline was written" in error) == (2, True)


def test_a_baseline_is_updated_row_by_row(gate, tmp_path, capsys):
    second = run(tmp_path / "second", 0.5)
    status, *_ = genbench(
        capsys, "baseline", "update", second, gate, "--reason", "wider", "--author", "Bo", "--models", "vae"
    )
    assert status == 0
    assert {stem: values["fid"] for stem, values in read_baseline(gate).values.items()} == {
        "ddpm-s0": 2.0,
        "vae-s0": 2.5,
    }
    assert genbench(capsys, "check", second, "--baseline", gate, "--models", "vae")[0] == 0
    assert genbench(capsys, "check", second, "--baseline", gate)[0] == 1


def test_a_retired_row_is_dropped_and_no_longer_missing(gate, tmp_path, capsys):
    only = write(tmp_path / "only", *[one for one in read_entries(tmp_path / "first") if one.record.row == "vae"])
    assert genbench(capsys, "check", only, "--baseline", gate)[0] == 1
    words = ["baseline", "drop", gate, "ddpm", "--reason", "retired", "--author", "Bo"]
    status, out, _ = genbench(capsys, *words)
    assert status == 0 and "ddpm dropped, 1 records left in" in out
    assert genbench(capsys, "check", only, "--baseline", gate)[0] == 0
    status, _, error = genbench(capsys, *words)
    assert status == 2 and "Unknown row 'ddpm'" in error


def test_a_baseline_needs_a_reason(gate, tmp_path, capsys):
    before = (gate / "baseline.json").read_bytes()
    for words in ([], ["--reason", " "]):
        status, _, error = genbench(capsys, "baseline", "update", tmp_path / "first", gate, *words)
        assert (status, "reason" in error) == (2, True)
    assert (gate / "baseline.json").read_bytes() == before


def test_the_author_is_gits(tmp_path, capsys, monkeypatch):
    for command in (["init", "-q"], ["config", "user.name", "Grace"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    assert genbench(capsys, "baseline", "update", run(tmp_path / "first"), "gate", "--reason", "x")[0] == 0
    assert read_baseline(tmp_path / "gate").history[0].author == "Grace"


def test_a_metric_that_failed_is_told_when_it_is_accepted(tmp_path, capsys):
    gone = metric("fid", 1.0).model_copy(update={"value": None, "status": "failed", "reason": "no\n::weights"})
    source = write(tmp_path / "r", entry("vae", [gone, metric("kid", 1.0, 0.1)]))
    arguments = ["baseline", "update", source, tmp_path / "gate", "--reason", "x", "--author", "y"]
    status, out, _ = genbench(capsys, *arguments)
    assert status == 0
    assert "vae-s0 has no fid (no ::weights): no check will ask for it." in out.splitlines()


def test_several_seeds_need_no_warning(tmp_path, capsys):
    made = [entry("vae", [metric("fid", 2.0, 0.1)], seed) for seed in range(3)]
    made.append(entry("noise", [metric("fid", 9.0, 0.1)], control=True))
    status, out, _ = genbench(
        capsys, "baseline", "update", write(tmp_path / "r", *made), tmp_path / "gate", "--reason", "x", "--author", "y"
    )
    assert status == 0
    assert "One seed" not in out
