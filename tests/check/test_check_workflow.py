"""The documented workflow and hook: their steps are run in a copy with a tiny suite; the guide's commands exist."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import click
import pytest
import yaml

from genbench.cli.main import cli

DOCS = Path(__file__).parents[2] / "docs"
TOYS = Path(__file__).parents[1] / "harness"
SUITE = """
name = "tiny"
dataset = "digits"
models = ["toys.py:Histogram"]
controls = ["noise"]
metrics = ["ssim_pairwise", "bits_per_dim", "parameters", "images_per_second"]
num_samples = 20
[options.ssim_pairwise]
window = 7
[timing]
batch_size = 4
window_seconds = 0.01
"""


@pytest.fixture(scope="module")
def workflow():
    return yaml.safe_load((DOCS / "github-workflow.yml").read_text())


def steps(workflow):
    """The shell commands of the job by name, but for those that install."""
    found = workflow["jobs"]["check"]["steps"]
    return {step["name"]: step["run"] for step in found if "run" in step and "install" not in step["run"]}


class Project:
    """A folder with a model, a tiny suite and a baseline, and the environment of a runner."""

    def __init__(self, folder: Path, workflow: dict) -> None:
        self.folder = folder
        for name in ("toys.py", "toys.toml"):
            shutil.copy(TOYS / name, folder)
        (folder / "tiny.toml").write_text(SUITE)
        given = {key: str(value) for key, value in workflow["env"].items()}
        own = {"SUITE": "tiny.toml", "BASELINE": "gate/tiny", "SEEDS": "0,1", "TOLERANCE": "images_per_second=95%"}
        assert set(own) <= set(given)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        summary = {"GITHUB_STEP_SUMMARY": str(folder / "summary.md"), "COLUMNS": "200"}
        self.environment = {**os.environ, **given, **own, **summary, "PATH": path}

    def run(self, command: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory, workflow):
    made = Project(tmp_path_factory.mktemp("project"), workflow)
    first = made.run(steps(workflow)["Train, sample, score and time what changed"])
    assert first.returncode == 0, first.stderr
    update = made.run('genbench baseline update runs/ci gate/tiny --reason "first baseline" --author Ada')
    assert update.returncode == 0, update.stderr
    return made


def test_the_workflow_installs_runs_checks_and_keeps(workflow):
    job = workflow["jobs"]["check"]
    assert list(steps(workflow)) == ["Train, sample, score and time what changed", "Check against the baseline"]
    assert {step["uses"].split("@")[0] for step in job["steps"] if "uses" in step} == {
        "actions/checkout",
        "actions/setup-python",
        "actions/cache",
        "actions/upload-artifact",
    }
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    checked = next(step for step in job["steps"] if step.get("name") == "Check against the baseline")
    assert checked["if"] == "${{ !cancelled() }}", "a row that failed is told by the check too"
    assert workflow["permissions"] == {"contents": "read"}


def test_its_steps_pass_on_the_baselines_own_code(workflow, project):
    for name, command in steps(workflow).items():
        found = project.run(command)
        assert found.returncode == 0, f"{name}: {found.stdout}{found.stderr}"
    assert "no regression" in found.stdout
    assert (project.folder / "summary.md").read_text().startswith("### genbench check, suite tiny: no regression")
    kept = workflow["jobs"]["check"]["steps"][-1]["with"]["path"].split()
    assert [path for path in kept if not (project.folder / path).exists()] == []


def test_its_steps_fail_on_a_broken_model(workflow, project):
    model = project.folder / "toys.py"
    text = model.read_text()
    model.write_text(text.replace("lr=0.05", "lr=0.0"))
    try:
        found = [project.run(command) for command in steps(workflow).values()]
    finally:
        model.write_text(text)
    assert [one.returncode for one in found] == [0, 1], found[0].stderr
    assert (
        "::error title=histogram%3A Bits/dim (exact) is worse::histogram: Bits/dim (exact) is worse" in found[1].stdout
    )
    assert int(ET.parse(project.folder / "runs/ci/check.xml").getroot().get("failures")) >= 1


def test_the_hook_runs_the_check(project):
    hooks = yaml.safe_load((DOCS / "pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entry = hooks[0]["entry"].replace("runs/digits", "gate/tiny").replace("gate/digits", "gate/tiny")
    assert (hooks[0]["language"], hooks[0]["pass_filenames"], hooks[0]["stages"]) == ("system", False, ["pre-push"])
    assert project.run(entry).returncode == 0
    assert project.run(entry.replace("--baseline gate/tiny", "--baseline nowhere")).returncode == 2


def commands():
    """Command lines of the guide that call genbench."""
    text = (DOCS / "regression-checks.md").read_text().replace("\\\n", " ")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("genbench ")]


@pytest.mark.parametrize("line", commands())
def test_the_guides_commands_exist(line):
    command: click.Command = cli
    arguments = shlex.split(line, comments=True)[1:]
    context = click.Context(cli)
    while isinstance(command, click.Group):
        _, command, arguments = command.resolve_command(context, arguments)
    command.make_context("genbench", arguments).close()


def test_no_host_is_named():
    for path in DOCS.glob("*"):
        assert re.findall(r"https?://\S+", path.read_text()) == []
