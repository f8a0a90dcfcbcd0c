"""What a worker says of errors that are none of genbench's own, and what of its surroundings it records."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from genbench.run import training
from genbench.run.task import Task, describe

DYING_POOL = """
from genbench.errors import GenbenchError
from genbench.run.pool import Pool
from genbench.run.worker import Job

if __name__ == "__main__":
    pool = Pool(1, ["dying"], 1, print, print)
    try:
        pool.run([Job("make", None)])
    except GenbenchError as error:
        print(error)
"""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nmore"),
    ],
)
def test_out_of_memory_says_what_to_make_smaller(error):
    said = describe(error)
    assert said.startswith("out of memory (") and "sample_batch_size" in said and "more" not in said


def test_other_errors_are_named_with_their_class():
    assert describe(ValueError("no luck")) == "ValueError: no luck"


def test_a_server_of_workers_that_dies_is_told_in_words(tmp_path):
    (tmp_path / "dying.py").write_text("import os\n\nprint('no luck', flush=True)\nos._exit(3)\n")
    (tmp_path / "main.py").write_text(DYING_POOL)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert "The process that starts all workers ended by itself; its own words stand above." in done.stdout
    assert "no luck" in done.stdout and "Traceback" not in done.stderr


def test_a_module_that_cannot_be_imported_leaves_the_server_of_workers_as_it_is(tmp_path):
    (tmp_path / "dying.py").write_text("raise RuntimeError('no luck')\n")
    program = "import os, sys; os.environ['GENBENCH_PRELOAD'] = 'dying,fractions'; import genbench.run.preloaded"
    asked = "print('genbench.run.stages' in sys.modules, 'fractions' in sys.modules, 'dying' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; {asked}"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.split(), done.stderr) == (["True", "True", "False"], "")


def test_the_commit_is_that_of_the_beginning_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "describe_environment", lambda device, threads: {"commit": "later", "device": device})
    begun = {"commit": "first", "commit_dirty": False}
    task = Task(tmp_path, SimpleNamespace(threads=1), None, "cpu", begun)
    assert training.environment(task) == {"device": "cpu", **begun}
