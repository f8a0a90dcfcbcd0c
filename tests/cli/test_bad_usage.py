"""Bad usage and bad input: exit status 2, one clear sentence, the nearest known name, no traceback."""

import os

import numpy as np
import pytest
from click.testing import CliRunner

from genbench.cli.main import main
from genbench.record import read_record


def call(capfd, *arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, arguments)))
    streams = capfd.readouterr()
    return stop.value.code, streams.out + streams.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "Did you mean 'run'"),
        (["run", "--suite", "digist"], "Did you mean 'digits'"),
        (["run", "--suit", "digits"], "--suite"),
        (["run", "--suite", "digits", "--models", "pixlecnn"], "Did you mean 'pixelcnn'"),
        (["run", "--suite", "digits", "--models", "ddpm@ddim2"], "Did you mean 'ddim20'"),
        (["run", "--suite", "digits", "--models", "VAE"], "Did you mean 'vae'"),
        (["run", "--suite", "digits", "--models", "nowhere.py:Model"], "No such model file"),
        (["run", "--suite", "digits", "--budget-scale", "0"], "above 0"),
        (["run", "--suite", "digits", "--device", "gpu"], "gpu"),
        (["run", "--suite", "digits", "--models", ","], "--models: got ',', expected names with commas between them"),
        (["run", "--suite", "digits", "--models", ""], "--models: got ''"),
        (["run", "--suite", "digits", "--seed", ""], "--seed: got ''"),
        (["check", "a", "--baseline", "b", "--metrics", " ,"], "--metrics: got ' ,'"),
        (["baseline", "update", "a", "b", "--reason", "x", "--models", ""], "--models: got ''"),
        (["report", "a", "--models", "", "--out", "x.md"], "--models: got ''"),
        (["run", "--suite", "nowhere.toml"], "No such suite file"),
        (["list", "modles"], "models"),
        (["sample", "vea", "--out", "x.npz"], "Did you mean 'vae'"),
        (["sample", "vae", "-n", "0", "--out", "x.npz"], "-n"),
        (["report", "nowhere"], "not the folder of a run"),
        (["rescore", "nowhere"], "not the folder of a run"),
    ],
)
def test_bad_usage(capfd, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, output = call(capfd, *arguments)
    assert status == 2
    assert message in output
    assert "Traceback" not in output
    assert list(tmp_path.iterdir()) == []


def test_unknown_key_in_a_suite(capfd, tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text('name = "x"\ndataset = "digits"\nmodel = ["pca"]\nmetrics = ["fid"]\nnum_samples = 4\n')
    status, output = call(capfd, "run", "--suite", suite, "--out", tmp_path / "out")
    assert status == 2
    assert "unknown key 'model'" in output and "Did you mean 'models'" in output
    assert not (tmp_path / "out").exists()


def test_unknown_metric_in_a_suite(capfd, tmp_path):
    suite = tmp_path / "mine.toml"
    suite.write_text('name = "digits"\ndataset = "digits"\nmodels = ["pca"]\nmetrics = ["fdi"]\nnum_samples = 4\n')
    status, output = call(capfd, "run", "--suite", suite, "--out", tmp_path / "out")
    assert status == 2
    assert "Did you mean 'fid'" in output


def test_bad_metric_option_is_found_before_the_work(capfd, tmp_path):
    suite = tmp_path / "mine.toml"
    head = 'name = "digits"\ndataset = "digits"\nmodels = ["pca"]\nmetrics = ["ssim"]\nnum_samples = 4\n'
    suite.write_text(head + "[options.ssim]\nwindw = 7\n")
    status, output = call(capfd, "run", "--suite", suite, "--out", tmp_path / "out")
    assert status == 2
    assert "Did you mean 'window'" in output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["[]", "{}", '{"suite": 1'])
@pytest.mark.parametrize("verb", ["rescore", "report"])
def test_damaged_run_file_is_named(capfd, tmp_path, verb, content):
    (tmp_path / "run.json").write_text(content)
    status, output = call(capfd, verb, tmp_path)
    assert status == 2
    assert "run.json: not readable" in output


def test_missing_extractor_is_announced_and_replaced(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path))
    suite = tmp_path / "mine.toml"
    head = 'name = "digits"\ndataset = "digits"\ncontrols = ["test_split"]\nmetrics = ["fid"]\nnum_samples = 40\n'
    suite.write_text(head + 'extractor = "inception-v3"\nfallback_extractor = "digits-cnn"\n')
    status, output = call(capfd, "run", "--suite", suite, "--out", tmp_path / "out")
    assert status == 0
    assert "inception-v3 is not here" in output
    assert "Features are those of digits-cnn" in output
    assert read_record(tmp_path / "out" / "records" / "test_split-s0.json").find("fid").extractor == "digits-cnn"


def test_output_that_cannot_be_written(capfd, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, output = call(capfd, "run", "--suite", "digits", "--out", tmp_path / "file" / "out")
    assert status == 2
    assert "Cannot write" in output


def test_too_little_space(capfd, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, 0))
    status, output = call(capfd, "run", "--suite", "digits", "--out", tmp_path / "out")
    assert status == 2
    assert "0 MiB free" in output
    assert not any((tmp_path / "out").rglob("*.json"))


def test_broken_dataset_is_named(capfd, tmp_path):
    data = tmp_path / "data.npz"
    np.savez(data, arr_0=np.zeros((50, 8, 8, 1), np.uint8))
    data.write_bytes(data.read_bytes()[:200])
    arguments = ["--dataset", f"npz:{data}", "--out", tmp_path / "out"]
    status, output = call(capfd, "run", "--suite", "digits", "--models", "pca", *arguments)
    assert status == 2
    assert "data.npz" in output


@pytest.mark.parametrize("verb", ["run", "list", "sample", "report", "rescore", "doctor"])
def test_help_has_an_example(verb):
    from genbench.cli.main import cli

    result = CliRunner().invoke(cli, [verb, "-h"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"genbench {verb}" in result.output


@pytest.mark.parametrize("kind", ["suites", "models", "metrics", "extractors"])
def test_list(capfd, kind):
    status, output = call(capfd, "list", kind)
    assert status == 0
    expected = {"suites": "digits", "models": "ddpm", "metrics": "fid", "extractors": "digits-cnn"}[kind]
    assert expected in output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folder(capfd, tmp_path):
    tmp_path.chmod(0o500)
    status, output = call(capfd, "run", "--suite", "digits", "--out", tmp_path / "out")
    assert status == 2
    assert "Cannot write" in output
