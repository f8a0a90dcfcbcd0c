"""pytest-benchmark's files in the gate: medians of one name and machine."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from check_fixture import entry, metric

from genbench.check.benchmarks import judge_benchmarks, read_benchmarks
from genbench.check.decide import SpeedTest
from genbench.check.finding import Options
from genbench.check.judge import judge
from genbench.check.tolerance import parse_tolerances
from genbench.errors import DataError, UsageError

MACHINE = {"node": "a", "system": "Linux", "machine": "x86_64", "cpu": {"brand_raw": "Example CPU"}}


def stored(path, when="2026-01-01", machine=MACHINE, **medians):
    entries = [
        {"fullname": name, "stats": {"median": median, "iqr": 0.05 * median, "rounds": 100}}
        for name, median in medians.items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine_info": machine, "datetime": when, "benchmarks": entries}))
    return path


def verdicts(new, old, **options):
    options = Options(**options)
    row = [entry("a", [metric("fid", 1.0, 0.1)])]
    more = judge_benchmarks(read_benchmarks(new), read_benchmarks(old), options)
    return {one.row: one for one in judge(row, row, options, more).findings}


def test_medians_are_judged_in_the_same_gate(tmp_path):
    old = stored(tmp_path / "old.json", slower=1.0, faster=1.0, within=1.0, gone=1.0)
    new = stored(tmp_path / "new.json", slower=1.2, faster=0.8, within=1.08, added=1.0)
    found = verdicts(new, old)
    assert {name: one.verdict for name, one in found.items()} == {
        "a": "same",
        "slower": "worse",
        "faster": "better",
        "within": "same",
        "gone": "missing",
    }
    assert "20.0% slower by medians, tolerance 10 %" in found["slower"].reason
    assert verdicts(new, old, tolerances=parse_tolerances("benchmarks=25%"))["slower"].verdict == "same"
    assert verdicts(new, old, tolerances=parse_tolerances("benchmarks=5%"))["within"].verdict == "worse"
    assert verdicts(new, old, tolerances=parse_tolerances("benchmarks=0.1"))["slower"].verdict == "worse"


def test_another_machine_is_not_comparable_and_another_host_of_its_class_is(tmp_path):
    old = stored(tmp_path / "old.json", a_test=1.0)
    moved = stored(tmp_path / "b.json", machine=MACHINE | {"node": "b"}, a_test=2.0)
    other = stored(tmp_path / "c.json", machine=MACHINE | {"cpu": {"brand_raw": "Another CPU"}}, a_test=2.0)
    assert verdicts(moved, old)["a_test"].verdict == "worse"
    found = verdicts(other, old)["a_test"]
    assert found.verdict == "not comparable"
    assert "Example CPU against Linux, x86_64, Another CPU" in found.reason


def test_a_folder_gives_the_newest_of_each(tmp_path):
    folder = tmp_path / ".benchmarks" / "Linux-CPython-3.11-64bit"
    stored(folder / "0002_b.json", "2026-01-02", first=2.0)
    stored(folder / "0001_a.json", "2026-01-01", first=1.0, second=3.0)
    found = read_benchmarks(tmp_path / ".benchmarks")
    assert {name: one.median for name, one in found.items()} == {"first": 2.0, "second": 3.0}


def test_the_error_of_a_median_is_that_of_normal_samples(tmp_path):
    rng = np.random.default_rng(0)
    rounds = np.exp(rng.normal(0, 0.05, (4000, 101)))
    iqr = float(np.mean(np.subtract(*np.quantile(rounds, [0.75, 0.25], axis=1))))
    path = stored(tmp_path / "a.json", a_test=1.0)
    value = json.loads(path.read_text())
    value["benchmarks"][0]["stats"] = {"median": 1.0, "iqr": iqr, "rounds": 101}
    path.write_text(json.dumps(value))
    found = read_benchmarks(path)
    test = judge_benchmarks(found, found, Options())[0]
    assert isinstance(test, SpeedTest)
    spread = np.log(np.median(rounds, axis=1)).std()
    assert math.sqrt(test.contest.variance) == pytest.approx(math.sqrt(2) * spread, rel=0.05)


def test_what_pytest_benchmark_writes_itself_is_read(tmp_path):
    (tmp_path / "test_it.py").write_text("def test_sum(benchmark):\n    benchmark(sum, range(100))\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--benchmark-max-time=0.1"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    subprocess.run(
        [*command, "--benchmark-json", "out.json", "test_it.py"], cwd=tmp_path, check=True, timeout=120, env=alone
    )
    found = read_benchmarks(tmp_path / "out.json")
    assert list(found) == ["test_it.py::test_sum"]
    one = next(iter(found.values()))
    assert one.median > 0 and one.rounds > 1 and "Linux" in one.machine


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"machine_info": {}, "benchmarks": [{}]}',
        '{"machine_info": 1, "benchmarks": []}',
        "[" * 100_000,
        '{"machine_info": {}, "benchmarks": [{"fullname": "a", "stats": {"median": 1, "iqr": 0, "rounds": Infinity}}]}',
        '{"machine_info": {}, "benchmarks": [{"fullname": "a", "stats": {"median": 0, "iqr": 0, "rounds": 3}}]}',
        '{"machine_info": {}, "benchmarks": [{"fullname": "a", "stats": {"median": NaN, "iqr": 0, "rounds": 3}}]}',
    ],
)
def test_files_of_another_kind_are_named(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(DataError, match=r"bad\.json: not a readable file of pytest-benchmark"):
        read_benchmarks(tmp_path / "bad.json")


def test_nothing_there_is_named(tmp_path):
    for source in (tmp_path, tmp_path / "no.json"):
        with pytest.raises(UsageError, match="no JSON file of pytest-benchmark"):
            read_benchmarks(source)


@pytest.mark.parametrize("count", [1, 2])
def test_one_round_is_not_comparable(tmp_path, count):
    paths = [stored(tmp_path / f"{value}.json", a_test=value) for value in (1.0, 2.0)]
    for path in paths[:count]:
        value = json.loads(path.read_text())
        value["benchmarks"][0]["stats"] |= {"rounds": 1, "iqr": 0.0}
        path.write_text(json.dumps(value))
    found = verdicts(paths[1], paths[0])["a_test"]
    assert (found.verdict, found.by_nature) == ("not comparable", False)
    assert found.reason == "one repetition is no measure of its scatter; time it again in more rounds"


@pytest.mark.parametrize("processor", ["", "x86_64", "arm", None])
def test_machines_whose_processor_is_not_known_are_no_class(tmp_path, processor):
    unknown = {"system": "Linux", "machine": "x86_64", "processor": processor, "cpu": {}}
    known = stored(tmp_path / "known.json", a_test=1.0)
    left, right = (stored(tmp_path / f"{value}.json", machine=unknown, a_test=value) for value in (1.0, 2.0))
    for old, new in ((left, right), (known, right), (left, known)):
        found = verdicts(new, old)["a_test"]
        assert (found.verdict, found.by_nature) == ("not comparable", False)
        assert "one whose processor is not known" in found.reason


def test_a_processor_may_be_told_by_the_system(tmp_path):
    windows = {"system": "Windows", "machine": "AMD64", "processor": "Intel64 Family 6 Model 142, GenuineIntel"}
    old, new = (stored(tmp_path / f"{value}.json", machine=windows, a_test=value) for value in (1.0, 2.0))
    assert verdicts(new, old)["a_test"].verdict == "worse"


def test_a_set_without_a_benchmark_is_refused(tmp_path):
    for source in (stored(tmp_path / "one.json"), tmp_path):
        with pytest.raises(UsageError, match=r"without any benchmark\. Make one with `pytest --benchmark-json FILE`"):
            read_benchmarks(source)
    (tmp_path / "bare.json").write_text('{"machine_info": {}, "benchmarks": []}')
    with pytest.raises(UsageError, match="without any benchmark"):
        read_benchmarks(tmp_path / "bare.json")
    stored(tmp_path / "two.json", a_test=1.0)
    assert list(read_benchmarks(tmp_path)) == ["a_test"]
