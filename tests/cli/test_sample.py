"""`genbench sample`: published weights and checkpoints, formats, independence of the batch size."""

import errno
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genbench import registry
from genbench.api import ImageSpec
from genbench.checkpoint import load_checkpoint, read_manifest, save_checkpoint
from genbench.cli.main import main
from genbench.published import find_checkpoint, published_checkpoints

MODELS = [name for name in registry.names("models") if published_checkpoints(registry.load_model(name))]
TOYS = Path(__file__).parents[1] / "harness" / "toys.py"


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
    spec = read_manifest(find_checkpoint(model)).spec
    assert seven.shape == (20, spec["height"], spec["width"], spec["channels"])
    assert seven.dtype == np.uint8
    difference = np.abs(seven.astype(int) - all_at_once.astype(int))
    assert (difference > 0).mean() <= 0.001
    assert difference.max() <= 16
    assert seven.std() > 20


@pytest.mark.parametrize("model", MODELS)
def test_published_weights_fit_their_size(model):
    published = published_checkpoints(registry.load_model(model))
    assert published
    for folder in published.values():
        load_checkpoint(folder)
        assert max(p.stat().st_size for p in folder.iterdir()) <= 5 * 2**20


def test_classes_are_drawn_in_turn_and_written_beside_the_images(tmp_path):
    assert sample("conditional_vae", "-n", 12, "--variant", "mean", "--out", tmp_path / "a.npz") == 0
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["arr_1"].tolist() == [*range(10), 0, 1]
    assert sample("vae", "-n", 2, "--out", tmp_path / "b.npz") == 0
    with np.load(tmp_path / "b.npz") as arrays:
        assert list(arrays) == ["arr_0"]


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


@pytest.fixture
def toy(tmp_path):
    """Arguments that sample from an untrained toy, by the name of its class."""

    def arguments(name="Histogram"):
        cls, folder = registry.load_model(f"{TOYS}:{name}"), tmp_path / "checkpoints" / name
        spec = ImageSpec(1, 8, 8, 17)
        values = {"config": {}, "spec": vars(spec), "seed": 0, "key": "0", "genbench_version": "0"}
        save_checkpoint(folder, cls(cls.Config(), spec), {"model": f"toys.py:{name}", "suite": "digits"} | values)
        return folder, "--model", f"{TOYS}:{name}"

    return arguments


@pytest.fixture
def never_loads(monkeypatch):
    def load(*arguments):
        raise AssertionError("the model was loaded before --out was checked")

    monkeypatch.setattr("genbench.checkpoint.load_checkpoint", load)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("full", "not empty"),
        ("x.gif", "expected FILE.npz or a folder"),
        ("file", "a file is in the way"),
        ("folder.npz", "a folder has this name"),
        ("file/samples", "Cannot write to"),
        ("file/deeper/x.npz", "Cannot write to"),
    ],
)
@pytest.mark.usefixtures("never_loads")
def test_target_is_checked_before_the_model_is_loaded(tmp_path, toy, capfd, out, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "there.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.npz").mkdir()
    arguments = toy()
    before = sorted(tmp_path.rglob("*"))
    assert sample(*arguments, "--out", tmp_path / out) == 2
    error = capfd.readouterr().err
    assert message in error and out in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["samples", "x.npz"])
@pytest.mark.usefixtures("never_loads")
def test_read_only_place_is_refused_before_the_model_is_loaded(tmp_path, toy, capfd, monkeypatch, name):
    def refuse(dir):
        assert Path(dir) == tmp_path
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("genbench.write_images.tempfile.TemporaryFile", refuse)
    assert sample(*toy(), "--out", tmp_path / "new" / name) == 2
    assert "Permission denied" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    ("failure", "status", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
        (KeyboardInterrupt(), 130, "nothing was written"),
    ],
)
def test_failed_write_leaves_the_target_free(tmp_path, toy, capfd, monkeypatch, there, failure, status, message):
    out, save, arguments = tmp_path / "deep" / "samples", Image.Image.save, [*toy(), "-n", 3]
    out.parent.mkdir()
    if there:
        out.mkdir()

    def fails_at_the_third(image, path, *rest, **options):
        save(image, path, *rest, **options)
        if Path(path).stem == "000002":
            raise failure

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fails_at_the_third)
        assert sample(*arguments, "--out", out) == status
    assert message in capfd.readouterr().err
    assert list(out.parent.rglob("*")) == ([out] if there else [])
    assert sample(*arguments, "--out", out) == 0
    assert list(out.parent.iterdir()) == [out]
    assert sorted(p.name for p in out.iterdir()) == ["000000.png", "000001.png", "000002.png"]


def test_folder_appears_whole(tmp_path, toy, monkeypatch):
    out, save, seen = tmp_path / "samples", Image.Image.save, []

    def watch(image, path, *rest, **options):
        seen.append(out.exists())
        save(image, path, *rest, **options)

    monkeypatch.setattr(Image.Image, "save", watch)
    assert sample(*toy(), "-n", 3, "--out", out) == 0
    assert seen == [False] * 3
    (tmp_path / "plain").mkdir()
    assert out.stat().st_mode == (tmp_path / "plain").stat().st_mode


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("out", ["samples", "x.npz"])
def test_progress_on_a_terminal(tmp_path, toy, monkeypatch, out):
    arguments = toy()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert sample(*arguments, "-n", 5, "--batch-size", 2, "--out", tmp_path / out) == 0
    shown = sys.stderr.getvalue()
    for stage in ("sampling", "writing"):
        bar = next(line for line in reversed(shown.splitlines()) if stage in line)
        assert "5/5" in bar and "/s" in bar and "0:00:00" in bar


def test_quiet_without_a_terminal(tmp_path, toy, monkeypatch, capfd):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert sample(*toy(), "-n", 5, "--out", tmp_path / "x.npz") == 0
    streams = capfd.readouterr()
    assert streams.err == ""
    assert len(streams.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WrongShape", "returned shape (4, 8, 8), expected (4, 1, 8, 8)"),
        ("CannotSample", "sample() raised RuntimeError: no luck today"),
        ("WrongType", "holding NaN or infinity"),
        ("OffLevels", "not among the 17 levels"),
    ],
)
def test_wrong_output_of_a_model_is_one_sentence(tmp_path, toy, capfd, name, message):
    assert sample(*toy(name), "-n", 4, "--out", tmp_path / "samples") == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"genbench: toys.py:{name}: ") and message in lines[0]
    assert not (tmp_path / "samples").exists()


def test_more_samples_than_memory(tmp_path, toy, capfd):
    assert sample(*toy(), "-n", 10**15, "--out", tmp_path / "x.npz") == 2
    assert "do not fit in memory" in capfd.readouterr().err
    assert not (tmp_path / "x.npz").exists()
