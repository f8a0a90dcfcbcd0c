"""The pytest plug-in through pytest itself: as good as the baseline passes, worse fails with the reason."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from genbench.check.baseline import update_baseline
from genbench.check.collect import read_entries
from genbench.run.run import RunOptions, run_suite

SUITE = """
name = "tiny"
dataset = "digits"
controls = ["noise"]
metrics = ["ssim_pairwise", "bits_per_dim", "parameters", "images_per_second"]
num_samples = 20
[options.ssim_pairwise]
window = 7
[timing]
batch_size = 4
window_seconds = 0.01
"""
MODEL = '''
"""Every level alike, or too many of them dark."""

import torch

from genbench.api import GenerativeModel, LogLikelihood
from genbench.images import from_levels, to_levels

DARK = 1.0


class Coin(GenerativeModel):
    def fit(self, data, rng):
        return {}

    def probabilities(self):
        p = torch.ones(self.spec.levels)
        p[0] = DARK
        return p / p.sum()

    def sample(self, request):
        p = self.probabilities().expand(len(request), *self.spec.shape, -1)
        return from_levels(request.noise.categorical(p), self.spec.levels)

    def likelihood_estimators(self):
        return ("exact",)

    def log_likelihood(self, batch, noise, estimator):
        levels = to_levels(batch.images, self.spec.levels)
        return LogLikelihood(self.probabilities().log()[levels].flatten(1).sum(1).double(), "exact", "exact")
'''
TESTS = """
def test_as_good(genbench_check):
    genbench_check("coin.py:Coin", suite="tiny.toml", tolerance="images_per_second=95%")


def test_own_baseline(genbench_check):
    genbench_check("coin.py:Coin", suite="tiny.toml", baseline="nowhere")


def test_metrics(genbench_check):
    found = genbench_check("coin.py:Coin", suite="tiny.toml", metrics=["parameters"])
    assert [finding.metric for finding in found.findings] == ["parameters"]


def test_unknown_row(genbench_check):
    genbench_check("noise", suite="tiny.toml")


def test_unknown_metric(genbench_check):
    genbench_check("coin.py:Coin", suite="tiny.toml", metrics=["paramters"])


def test_no_file(genbench_check):
    genbench_check("coyn.py:Coin", suite="tiny.toml")


def test_no_names(genbench_check):
    genbench_check(suite="tiny.toml")
"""


HEAVY = """
import sys


def pytest_collection_finish(session):
    print("heavy:", sorted({"torch", "numpy", "scipy", "pydantic"} & set(sys.modules)))
"""
NAMED = ["-p", "genbench.pytest_plugin"]


def pytest_in(folder, *arguments, named=True):
    command = [sys.executable, "-m", "pytest", *(NAMED if named else []), "-q", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    environment.pop("PYTEST_ADDOPTS", None)
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    return found.returncode, found.stdout + found.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a suite, a baseline of its model, and tests in a folder of their own, beside the model."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "tests").mkdir()
    (folder / "tests" / "coin.py").write_text(MODEL)
    (folder / "tests" / "test_it.py").write_text(TESTS)
    (folder / "tiny.toml").write_text(SUITE)
    run_suite(RunOptions(str(folder / "tiny.toml"), folder / "run", (f"{folder}/tests/coin.py:Coin",)))
    update_baseline(folder / "gate", read_entries(folder / "run"), reason="first", author="Ada")
    return folder


def test_each_test_passes_or_fails_with_its_reason(project):
    status, out = pytest_in(project, "-rA", "--genbench-baseline", "gate")
    assert status == 1, out
    outcomes = dict(line.split("tests/test_it.py::test_")[::-1] for line in out.splitlines() if "::test_" in line)
    outcomes = {name.split(" - ")[0]: (verdict.strip(), name) for name, verdict in outcomes.items()}
    assert {name: verdict for name, (verdict, _) in outcomes.items()} == {
        "as_good": "PASSED",
        "own_baseline": "FAILED",
        "metrics": "PASSED",
        "unknown_row": "FAILED",
        "unknown_metric": "FAILED",
        "no_file": "FAILED",
        "no_names": "FAILED",
    }
    assert "genbench_check: nowhere: no such file or folder" in outcomes["own_baseline"][1]
    assert "Unknown row of gate 'noise'" in outcomes["unknown_row"][1]
    assert "Accept its record with `genbench baseline update`" in out and "During handling" not in out
    assert "Unknown metric of gate 'paramters'. Did you mean 'parameters'" in out
    assert "No such model file: coyn.py" in outcomes["no_file"][1]
    assert "name at least one row" in outcomes["no_names"][1]
    assert "Traceback" not in out
    assert (project / ".pytest_cache" / "d" / "genbench-tiny" / "records" / "coin-s0.json").is_file()


@pytest.mark.parametrize("named", [True, False])
def test_an_installed_genbench_offers_the_fixture_once_and_imports_nothing_heavy(tmp_path, named):
    (tmp_path / "conftest.py").write_text(HEAVY)
    (tmp_path / "test_it.py").write_text("def test_it(genbench_check):\n    assert callable(genbench_check)\n")
    status, out = pytest_in(tmp_path, "-s", "-p", "no:cacheprovider", named=named)
    assert status == 0, out
    assert "1 passed" in out and "heavy: []" in out
    status, out = pytest_in(tmp_path, "--fixtures", named=named)
    assert out.count("genbench_check -- ") == 1


def test_what_a_passing_test_did_not_judge_is_a_warning(project):
    shutil.copytree(project / "gate" / "records", project / "unlike", dirs_exist_ok=True)
    path = project / "unlike" / "coin-s0.json"
    value = json.loads(path.read_text())
    for found in value["metrics"]:
        if found["name"] == "bits_per_dim":
            found["comparable"]["version"] = 99
    path.write_text(json.dumps(value))
    status, out = pytest_in(project, "-k", "as_good", "--genbench-baseline", "unlike")
    assert status == 0, out
    assert "1 passed, 6 deselected" in out
    assert "genbench_check: coin: Bits/dim (exact) is not comparable" in out and "version: 99 against" in out


def test_a_worse_model_fails_with_the_sentences_and_the_ini_names_the_baseline(project):
    (project / "pytest.ini").write_text("[pytest]\ngenbench_baseline = gate\n")
    (project / "tests" / "coin.py").write_text(MODEL.replace("DARK = 1.0", "DARK = 0.01"))
    try:
        status, out = pytest_in(project, "-p", "no:cacheprovider", "-k", "metrics or as_good")
    finally:
        (project / "tests" / "coin.py").write_text(MODEL)
        (project / "pytest.ini").unlink()
    assert status == 1, out
    assert "1 failed, 1 passed" in out
    assert "genbench check, REGRESSION: " in out
    assert "coin: Bits/dim (exact) is worse: 4.087 -> " in out
    assert "is the same" not in out


VARIANTS = """
def test_base(genbench_check):
    found = genbench_check("coin.py:Coin", suite="tiny.toml", metrics=["bits_per_dim", "parameters"])
    assert {one.row for one in found.findings} == {"coin"}


def test_variant(genbench_check):
    found = genbench_check("coin.py:Coin@slow", suite="tiny.toml", metrics=["bits_per_dim", "parameters"])
    assert {one.row for one in found.findings} == {"coin@slow"}


def test_both(genbench_check):
    found = genbench_check("coin.py:Coin", "coin.py:Coin@slow", suite="tiny.toml", metrics=["parameters"])
    assert {one.row for one in found.findings} == {"coin", "coin@slow"}
"""


def test_the_rows_that_are_named_are_judged_without_the_models_other_ones(tmp_path):
    told = "class Coin(GenerativeModel):\n"
    (tmp_path / "coin.py").write_text(MODEL.replace(told, f"{told}    sampler_options = frozenset({{'steps'}})\n"))
    (tmp_path / "coin.toml").write_text("[default.variants.slow]\nsteps = 2\n")
    (tmp_path / "test_it.py").write_text(VARIANTS)
    (tmp_path / "tiny.toml").write_text(SUITE)
    coin = f"{tmp_path}/coin.py:Coin"
    run_suite(RunOptions(str(tmp_path / "tiny.toml"), tmp_path / "run", (coin, f"{coin}@slow")))
    update_baseline(tmp_path / "gate", read_entries(tmp_path / "run"), reason="first", author="Ada")
    status, out = pytest_in(tmp_path, "--genbench-baseline", "gate")
    assert status == 0, out
    assert "3 passed" in out


def test_without_a_baseline_it_is_the_suites_leaderboard(project):
    status, out = pytest_in(project, "-k", "as_good")
    assert status == 1, out
    assert "genbench_check: No leaderboard of suite 'tiny'" in out
