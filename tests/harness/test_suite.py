"""Suites: the packaged ones are whole, and what is wrong in a file is said with the nearest right name."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from genbench import registry
from genbench.errors import UsageError
from genbench.suite import Row, Suite, load_suite, suite_names

MINIMAL = """
name = "mine"
dataset = "digits"
models = ["pca"]
metrics = ["fid", "ssim"]
num_samples = 10
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_packaged_suites() -> None:
    assert suite_names() == ["cifar10", "digits", "digits-full", "mnist", "mnist-binary"]
    for name in suite_names():
        suite = load_suite(name)
        assert suite.name == name and suite.dataset == suite.recipe_table == name.removesuffix("-full")
        assert len(suite.controls) == 6
        if name != "mnist-binary":
            assert Row("ddpm", "ddim50" if name in ("mnist", "cifar10") else "ddim20") in suite.rows()
        assert suite.requirements
        assert suite.reference == "train"
    digits, cifar10 = load_suite("digits"), load_suite("cifar10")
    whole = load_suite("digits-full")
    assert set(digits.rows()) < set(whole.rows())
    assert {row.model for row in whole.rows()} >= set(registry.names("models"))
    assert load_suite("mnist-binary").metrics[0] == "nats_per_image"
    assert (digits.num_samples, digits.threads, digits.likelihood.num_images) == (297, 1, "all")
    assert digits.options["ssim"] == {"window": 7}
    assert cifar10.options["ssim"] == {"window": 11}
    assert (digits.extractor, cifar10.extractor) == ("digits-cnn", "inception-v3")
    assert [name for name in digits.metrics if not name.startswith("clip_")] == list(cifar10.metrics)
    assert (digits.image_text, cifar10.image_text) == ("digits-clip", None)
    assert digits.caption == "the handwritten digit {}"


def test_a_file_is_a_suite_with_defaults(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, MINIMAL))
    assert suite.rows() == (Row("pca"),)
    assert suite.seeds == (0,)
    assert suite.extractor is None
    assert Suite.model_validate(suite.model_dump()) == suite


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("ddpm", Row("ddpm")),
        ("ddpm@ddim20", Row("ddpm", "ddim20")),
        ("dir/m.py:Net@fast", Row("dir/m.py:Net", "fast")),
        ("me@home/m.py:Net", Row("me@home/m.py:Net")),
        ("me@home/m.py:Net@fast", Row("me@home/m.py:Net", "fast")),
    ],
)
def test_rows(text: str, row: Row) -> None:
    assert Row.parse(text) == row
    assert str(row) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('extracter = "x"', "unknown key 'extracter'. Did you mean 'extractor'"),
        ("[timing]\nbatchsize = 3", "unknown key 'timing.batchsize'. Did you mean 'batch_size'"),
        ("[timing]\nwindows = 2", "timing.windows"),
        ("[options.ssmi]\nwindow = 7", "Did you mean 'ssim'"),
        ("seeds = [1, 1]", "seeds: '1' is listed twice"),
        ("seeds = [-1]", "must not be negative"),
        ("seeds = []", "seeds"),
        ("threads = 0", "threads"),
        ('reference = "test"', "reference"),
        ("[likelihood]\nnum_images = 0", "likelihood.num_images"),
        ('[likelihood]\nnum_images = "some"', "likelihood.num_images"),
        ('controls = ["noise@"]', "expected MODEL or MODEL@VARIANT"),
        ('caption = "a digit"', "caption: 'a digit' needs one {}"),
        ('caption = "{} and {}"', "needs one {}"),
        ('caption = "{0}"', "needs one {}"),
        ("= 3", "not valid TOML"),
    ],
)
def test_wrong_files_are_explained(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_suite(write(tmp_path, MINIMAL + change))
    assert message in str(caught.value)


def test_missing_fields_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mine\.toml: num_samples"):
        load_suite(write(tmp_path, MINIMAL.replace("num_samples = 10", "")))
    with pytest.raises(UsageError, match="at least one model or control"):
        load_suite(write(tmp_path, MINIMAL.replace('models = ["pca"]', "")))
    with pytest.raises(UsageError, match="Did you mean 'digits'"):
        load_suite("digit")
    with pytest.raises(UsageError, match="No such suite file"):
        load_suite(tmp_path / "none.toml")


def test_names_are_looked_up_without_importing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = {
        "models": ["pca", "vae"],
        "controls": ["noise"],
        "metrics": ["fid", "ssim"],
        "extractors": ["digits-cnn"],
    }

    def entries(group: str) -> dict[str, EntryPoint]:
        return {name: EntryPoint(name, "no.such.module:Thing", f"genbench.{group}") for name in installed[group]}

    monkeypatch.setattr(registry, "entries", entries)
    suite = load_suite(write(tmp_path, MINIMAL))
    suite.check_names()
    wrong = {
        "models": (["pac@fast"], "Unknown model 'pac'. Did you mean 'pca'"),
        "controls": (["nois"], "Unknown control 'nois'. Did you mean 'noise'"),
        "metrics": (["fdi"], "Unknown metric 'fdi'. Did you mean 'fid'"),
        "extractor": ("digit-cnn", "Unknown extractor 'digit-cnn'. Did you mean 'digits-cnn'"),
        "image_text": ("digit-cnn:x", "Unknown extractor 'digit-cnn'. Did you mean 'digits-cnn'"),
    }
    for field, (value, message) in wrong.items():
        with pytest.raises(UsageError, match=message.replace("'", ".")):
            Suite.model_validate({**suite.model_dump(), field: value}).check_names()
    plugin = tmp_path / "net.py"
    with_file = Suite.model_validate({**suite.model_dump(), "models": [f"{plugin}:Net@fast"]})
    with pytest.raises(UsageError, match="No such model file"):
        with_file.check_names()
    plugin.write_text("raise RuntimeError('imported')")
    with_file.check_names()
