"""`genbench sample`: published weights and checkpoints, formats, independence of the batch size."""

import numpy as np
import pytest
from PIL import Image

from genbench import registry
from genbench.checkpoint import load_checkpoint
from genbench.cli.main import main
from genbench.published import published_checkpoints

MODELS = registry.names("models")


def sample(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["sample", *map(str, arguments)])
    return stop.value.code


def images(path):
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["arr_0"]


@pytest.mark.parametrize("model", MODELS)
def test_published_weights_sample_at_any_batch_size(tmp_path, model):
    quick = ["--variant", "ddim20"] if model == "ddpm" else []
    for size in (7, 64):
        out = tmp_path / f"{size}.npz"
        assert sample(model, "-n", 20, "--seed", 3, "--batch-size", size, "--out", out, *quick) == 0
    seven, all_at_once = images(tmp_path / "7.npz"), images(tmp_path / "64.npz")
    assert seven.shape == (20, 8, 8, 1)
    assert seven.dtype == np.uint8
    difference = np.abs(seven.astype(int) - all_at_once.astype(int))
    assert (difference > 0).mean() <= 0.001
    assert difference.max() <= 16
    assert seven.std() > 20


@pytest.mark.parametrize("model", MODELS)
def test_published_weights_fit_their_size(model):
    for folder in published_checkpoints(registry.load_model(model)).values():
        load_checkpoint(folder)
        assert max(p.stat().st_size for p in folder.iterdir()) <= 4 * 2**20


def test_folder_of_png(tmp_path):
    out = tmp_path / "images"
    assert sample("pca", "-n", 3, "--out", out) == 0
    assert sample("pca", "-n", 3, "--out", tmp_path / "a.npz") == 0
    files = sorted(out.iterdir())
    assert [f.name for f in files] == ["000000.png", "000001.png", "000002.png"]
    assert np.array_equal(np.stack([np.asarray(Image.open(f)) for f in files]), images(tmp_path / "a.npz")[..., 0])


def test_seeds_and_indices(tmp_path):
    for name, arguments in {"a": ["-n", 5], "b": ["-n", 9], "c": ["-n", 5, "--seed", 1]}.items():
        assert sample("vae", *arguments, "--out", tmp_path / f"{name}.npz") == 0
    a, b, c = (images(tmp_path / f"{name}.npz") for name in "abc")
    assert np.array_equal(a, b[:5])
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vae", "--steps", "3"], "does not honour the sampler option 'steps'"),
        (["vae", "--variant", "ddim"], "Unknown variant"),
        (["vae", "--suite", "digist"], "Did you mean 'digits'"),
        (["."], "is no checkpoint"),
    ],
)
def test_bad_requests(tmp_path, monkeypatch, capfd, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert sample(*arguments, "--out", "x.npz") == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "x.npz").exists()


def test_model_without_published_weights_says_how_to_train_it(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("genbench.published.published_checkpoints", lambda model: {})
    assert sample("vae", "--out", tmp_path / "x.npz") == 2
    assert "genbench run --suite digits --models vae" in capfd.readouterr().err


def test_folder_in_use_and_wrong_ending(tmp_path, capfd):
    (tmp_path / "there.txt").write_text("x")
    assert sample("pca", "--out", tmp_path) == 2
    assert "not empty" in capfd.readouterr().err
    assert sample("pca", "--out", tmp_path / "x.gif") == 2
    assert "expected FILE.npz or a folder" in capfd.readouterr().err
