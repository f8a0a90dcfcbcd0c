"""`genbench run` with its workers: resume, determinism, bad models, bad input, interruption.

Where the process of the command itself does not matter it is the test's own, which has imported torch already.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from baselines.latent import vae
from genbench.cli.main import main
from genbench.record import read_record

TOYS = Path(__file__).parents[1] / "harness" / "toys.py"
WEIGHTS = Path(vae.__file__).parent / "weights"
SUITE = """
name = "tiny"
dataset = "digits"
models = [{models}]
controls = ["test_split", "noise"]
metrics = ["ssim_pairwise", "bits_per_dim", "parameters", "images_per_second", "training_seconds"]
num_samples = 20
sample_batch_size = 7
[options.ssim_pairwise]
window = 7
[timing]
batch_size = 4
window_seconds = 0.01
"""


def genbench(*arguments, cwd=None, **environment):
    command = [sys.executable, "-c", "from genbench.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"} | environment,
    )


@pytest.fixture(autouse=True, scope="module")
def own_process():
    """What the command sets for its process is set back."""
    environment, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    yield
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGTERM, handler)


def genbench_here(*arguments):
    """The command in this process; the output of its workers is not caught."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, ended.value.code, out.getvalue(), errors.getvalue())


def suite_file(folder, *models):
    path = folder / "tiny.toml"
    path.write_text(SUITE.format(models=", ".join(f'"{TOYS}:{m}"' for m in models)))
    return path


def content(root, *rows):
    """Records without what may differ between runs: times, memory, dates."""
    found = {}
    for path in sorted((root / "records").glob("*.json")):
        record = read_record(path)
        timed = {"images_per_second", "training_seconds"}
        metrics = [m.model_dump(exclude={"provenance"}) for m in record.metrics if m.name not in timed]
        curves = {k: c.model_dump() for k, c in record.training.curves.items()} if record.training else {}
        found[path.stem] = (record.status, record.config, record.keys["cell"], metrics, curves)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    suite = suite_file(folder, "Histogram")
    result = genbench("run", "--suite", suite, "--out", folder / "out")
    assert result.returncode == 0, result.stderr
    return suite, folder / "out", result


def test_run_leaves_records_samples_checkpoints_summary_and_report(finished):
    _, out, result = finished
    assert f"Report: {out / 'report' / 'index.html'}" in result.stdout
    assert "Where the time went" in result.stdout
    record = read_record(out / "records" / "histogram-s0.json")
    assert record.status == "ok"
    assert record.find("bits_per_dim").kind == "exact"
    assert record.find("bits_per_dim").value > 0
    assert record.timing.evaluations_per_image == 1
    assert record.training.steps == 60
    with np.load(out / "samples" / "histogram-s0.npz") as arrays:
        assert arrays["arr_0"].shape == (20, 8, 8, 1)
        assert arrays["arr_0"].dtype == np.uint8
    assert "histogram" in (out / "summary.csv").read_text()
    assert "histogram" in (out / "summary.md").read_text()


def test_labels_and_captions_reach_the_records(tmp_path):
    text = SUITE.format(models=f'"{TOYS}:Shade", "{TOYS}:Histogram"').replace(
        '"ssim_pairwise"', '"clip_accuracy", "clip_score"'
    )
    text = text.replace("[options.ssim_pairwise]\nwindow = 7", "").replace(
        '["test_split",', '["test_split", "mode_dropper",'
    )
    path = tmp_path / "tiny.toml"
    path.write_text(text.replace("[timing]", 'image_text = "digits-clip"\ncaption = "the digit {}"\n[timing]'))
    result = genbench_here("run", "--suite", path, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    records = {p.stem: read_record(p) for p in (tmp_path / "out" / "records").glob("*.json")}
    scores = {row: record.find("clip_score") for row, record in records.items()}
    accuracies = {row: record.find("clip_accuracy") for row, record in records.items()}
    labels = {}
    for row in records:
        with np.load(tmp_path / "out" / "samples" / f"{row}.npz") as arrays:
            labels[row] = arrays["arr_1"].tolist() if "arr_1" in arrays else None
    assert labels["shade-s0"] == [*range(10), *range(10)]
    assert labels["histogram-s0"] is None is labels["noise-s0"]
    assert set(labels["mode_dropper-s0"]) <= set(range(5))
    assert (scores["histogram-s0"].status, accuracies["histogram-s0"].status) == ("not_applicable", "not_applicable")
    assert "not class-conditional" in scores["histogram-s0"].reason
    assert accuracies["test_split-s0"].value >= 0.9 <= accuracies["mode_dropper-s0"].value
    assert scores["test_split-s0"].value > 1.5 > 0.3 > scores["noise-s0"].value
    assert scores["shade-s0"].status == "ok" and scores["shade-s0"].extractor == "digits-clip"
    ok = [score.comparable for row, score in scores.items() if row != "histogram-s0"]
    assert all(comparable == ok[0] for comparable in ok)


def test_a_folder_called_genbench_in_the_working_folder_is_not_taken_for_the_package(tmp_path):
    """As where a checkout of this name is."""
    (tmp_path / "genbench").mkdir()
    command = [sys.executable, "-P", "-c", "from genbench.cli.main import main; main()"]
    suite = suite_file(tmp_path, "Histogram")
    arguments = ["run", "--suite", str(suite), "--models", f"{TOYS}:Histogram", "--out", "out"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "records").is_dir()


def test_finished_run_does_nothing_again(finished):
    suite, out, _ = finished
    files = [p for p in out.rglob("*") if p.is_file() and p.parent.name in ("records", "samples", "histogram-s0")]
    before = {p: p.stat().st_mtime_ns for p in files}
    assert len(before) > 5
    assert genbench_here("run", "--suite", suite, "--out", out).returncode == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_same_seed_same_record(finished, tmp_path):
    suite, out, _ = finished
    assert genbench_here("run", "--suite", suite, "--out", tmp_path / "again").returncode == 0
    assert content(tmp_path / "again") == content(out)


def test_other_budget_makes_new_cells_and_comes_back(finished):
    suite, out, _ = finished
    before = content(out)
    samples = (out / "samples" / "histogram-s0.npz").read_bytes()
    assert genbench_here("run", "--suite", suite, "--out", out, "--budget-scale", "0.5").returncode == 0
    halved = content(out)
    assert read_record(out / "records" / "histogram-s0.json").training.steps == 30
    assert halved["histogram-s0"] != before["histogram-s0"]
    assert genbench_here("run", "--suite", suite, "--out", out).returncode == 0
    assert content(out) == before
    assert (out / "samples" / "histogram-s0.npz").read_bytes() == samples


def test_rescore_needs_no_model(tmp_path):
    """Neither the model's file nor its checkpoint; a damaged piece is named and keeps the record that was there."""
    shutil.copy(TOYS, tmp_path / "gone.py")
    suite = suite_file(tmp_path, "Histogram")
    suite.write_text(suite.read_text().replace(str(TOYS), str(tmp_path / "gone.py")))
    out = tmp_path / "out"
    assert genbench_here("run", "--suite", suite, "--out", out).returncode == 0
    before, path = content(out), out / "records" / "histogram-s0.json"
    (tmp_path / "gone.py").unlink()
    shutil.rmtree(out / "checkpoints")
    record = json.loads(path.read_text())
    for metric in record["metrics"]:
        if metric["name"] == "ssim_pairwise":
            metric["value"] = 0.123
    path.write_text(json.dumps(record))
    result = genbench("rescore", out)
    assert result.returncode == 0, result.stderr
    assert content(out) == before
    likelihood = out / "stages" / "histogram-s0" / "likelihood.npz"
    likelihood.write_bytes(likelihood.read_bytes()[:100])
    result = genbench_here("rescore", out)
    assert result.returncode == 1
    assert "the likelihood of histogram-s0 is missing or damaged" in result.stderr
    assert content(out) == before


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert genbench_here("run", "--suite", suite_file(folder, "Slow"), "--out", folder / "out").returncode == 0
    return content(folder / "out")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM", "SIGTERM to all processes"])
def test_interrupted_run_goes_on_and_equals_an_uninterrupted_one(tmp_path, uninterrupted, name):
    suite = suite_file(tmp_path, "Slow")
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from genbench.cli.main import main; main()", "run", "--suite", str(suite)]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    state = out / "checkpoints" / "slow-s0" / "training.safetensors"
    deadline = time.monotonic() + 120
    while not state.exists():
        assert process.poll() is None and time.monotonic() < deadline, "no training state appeared"
        time.sleep(0.01)
    number, saved = signal.Signals[name.split()[0]], state.stat().st_mtime_ns
    if name in ("SIGINT", "SIGTERM to all processes"):
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (-9 if name == "SIGKILL" else 130)
    if name != "SIGKILL":
        assert "goes on from here" in errors
        assert state.stat().st_mtime_ns > saved, "the worker saved its state"
    assert not (out / "records" / "slow-s0.json").exists()
    time.sleep(1.5)
    assert genbench_here("run", "--suite", suite, "--out", out).returncode == 0
    assert content(out) == uninterrupted


def test_the_server_of_workers_says_nothing_of_an_interrupt_while_it_imports(tmp_path):
    command = [sys.executable, "-c", "from genbench.cli.main import main; main()", "run", "--suite"]
    process = subprocess.Popen(
        [*command, str(suite_file(tmp_path, "Histogram")), "--out", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not any("forkserver" in " ".join(child.cmdline()) for child in psutil.Process(process.pid).children()):
        assert process.poll() is None and time.monotonic() < deadline, "no server of workers appeared"
        time.sleep(0.01)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "forkserver" not in errors and "KeyboardInterrupt" not in errors


def test_bad_models_are_recorded_and_the_others_finish(tmp_path):
    bad = {
        "Raises": "RuntimeError: no luck today",
        "Diverges": "'loss' is nan",
        "WrongShape": "shape (7, 8, 8), expected (7, 1, 8, 8)",
        "WrongType": "NaN",
        "OffLevels": "17 levels",
        "BadLikelihood": "not finite",
        "Dies": "exit status 7",
    }
    slow_to_die = "FailsWhenTimed"
    suite = suite_file(tmp_path, "Histogram", slow_to_die, *bad)
    result = genbench("run", "--suite", suite, "--out", tmp_path / "out")
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    for name, reason in bad.items():
        record = read_record(tmp_path / "out" / "records" / f"{name.lower()}-s0.json")
        assert record.status == "failed"
        assert reason in record.reason
    assert read_record(tmp_path / "out" / "records" / "histogram-s0.json").status == "ok"
    timed = read_record(tmp_path / "out" / "records" / "failswhentimed-s0.json")
    assert timed.status == "ok"
    assert timed.find("bits_per_dim").status == "ok"
    assert timed.find("images_per_second").status == "failed"
    assert "no memory for four" in timed.find("images_per_second").reason


@pytest.mark.parametrize("damage", ["checkpoint", "samples", "record"])
def test_damaged_files_are_named_or_made_again(finished, tmp_path, damage):
    suite, whole, _ = finished
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    before = content(out)
    target = {
        "checkpoint": out / "checkpoints" / "histogram-s0" / "weights.safetensors",
        "samples": out / "samples" / "histogram-s0.npz",
        "record": out / "records" / "histogram-s0.json",
    }[damage]
    target.write_bytes(target.read_bytes()[:50])
    if damage == "checkpoint":
        (out / "samples" / "histogram-s0.npz").unlink()
    result = genbench("run", "--suite", suite, "--out", out)  # what its workers say is caught as well
    assert "Traceback" not in result.stderr
    if damage == "checkpoint":
        assert result.returncode == 1
        assert "weights.safetensors" in read_record(out / "records" / "histogram-s0.json").reason
        assert read_record(out / "records" / "noise-s0.json").status == "ok"
    else:
        assert result.returncode == 0
        assert content(out) == before


def published_suite(folder, *models):
    path = folder / "mine.toml"
    rows = ", ".join(f'"{model}"' for model in models)
    path.write_text(SUITE.format(models=rows).replace('name = "tiny"', 'name = "mine"\nrecipes = "digits"'))
    return path


def test_published_weights_are_scored_in_place_of_a_training(tmp_path):
    suite = published_suite(tmp_path, "pca", "vae", f"{TOYS}:Histogram")
    done = genbench_here("run", "--suite", suite, "--from-published", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert f"No published weights for suite 'mine': {TOYS}:Histogram; left out." in done.stderr
    record = read_record(tmp_path / "run" / "records" / "vae-s0.json")
    manifest = json.loads((WEIGHTS / "vae-digits" / "manifest.json").read_text())
    assert record.training.source == "published" and record.training.steps == manifest["training"]["steps"]
    assert (record.config["model"], record.config["train"]) == (manifest["config"], manifest["train"])
    assert not (tmp_path / "run" / "records" / "histogram-s0.json").exists()
    mine = (tmp_path / "run" / "checkpoints" / "vae-s0" / "weights.safetensors").read_bytes()
    assert len(mine) == len((WEIGHTS / "vae-digits" / "weights.safetensors").read_bytes())
    again = genbench_here("run", "--suite", suite, "--from-published", "--out", tmp_path / "run")
    assert again.returncode == 0 and read_record(tmp_path / "run" / "records" / "vae-s0.json") == record


def test_published_weights_that_are_missing_or_of_other_images_are_named(tmp_path):
    suite = published_suite(tmp_path, "vae")
    row = f"{TOYS}:Histogram"
    asked = genbench_here("run", "--suite", suite, "--from-published", "--models", row, "--out", tmp_path / "a")
    assert asked.returncode == 2 and "'histogram' has no published weights for suite 'mine'" in asked.stderr
    small = tmp_path / "small.npz"
    np.savez(small, train=np.zeros((30, 12, 12, 1), np.uint8))
    other = genbench_here(
        *("run", "--suite", suite, "--from-published", "--models", "vae"),
        *("--dataset", f"npz:{small}", "--out", tmp_path / "b"),
    )
    assert other.returncode == 1
    message = "are for images of 1 x 8 x 8 and 17 levels, 10 classes, this dataset's are of 1 x 12 x 12 and 256 levels"
    assert message in " ".join(other.stderr.split())


def test_binary_images_without_grey_values_train_as_they_are(tmp_path):
    """Recipes of binarised MNIST redraw their images; a user's binary images have nothing to be redrawn from."""
    data = tmp_path / "bits.npz"
    np.savez(data, train=np.resize(np.array([0, 255, 255], np.uint8), (40, 28, 28, 1)))
    done = genbench_here(
        *("run", "--suite", "mnist-binary", "--models", "made", "--dataset", f"npz:{data}?levels=2"),
        *("--budget-scale", "0.0001", "--out", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    assert "The dataset has no grey values" in done.stderr
    record = read_record(tmp_path / "run" / "records" / "made-s0.json")
    assert record.dataset.levels == 2 and record.config["train"]["dynamic_binarisation"] is False
    assert record.find("nats_per_image").status == "ok"
