"""Extractors of the user's own: a program in a file, and Python by name."""

import hashlib
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from genbench.errors import DataError, UsageError
from genbench.features import ExtractorOptions, load_extractor
from genbench.features.program import FILE


def noise(count=5, size=8, channels=3):
    return np.random.default_rng(1).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


class Means(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean((2, 3))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.float().mean(3), x.float().amax((2, 3))


@pytest.fixture
def script(tmp_path):
    def script(module, name="net.pt"):
        torch.jit.script(module).save(str(tmp_path / name))
        return tmp_path / name

    return script


def test_a_scripted_program_gets_uint8_or_floats(script):
    path, images = script(Means()), noise()
    plain = FILE.load(ExtractorOptions(argument=str(path), batch_size=2))
    scaled = FILE.load(ExtractorOptions(argument=f"{path}@float"))
    np.testing.assert_allclose(plain.extract(images).features, images.mean((2, 3)), rtol=1e-6)
    np.testing.assert_allclose(scaled.extract(images).features, images.mean((2, 3)) / 255, rtol=1e-6)
    assert plain.name == "file:net.pt" and scaled.name == "file:net.pt@float"
    assert plain.identity["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert plain.identity != scaled.identity


def test_a_size_resizes_by_pillow(script):
    images = noise(2)
    found = FILE.load(ExtractorOptions(argument=f"{script(Means())}@float@24")).extract(images)
    resized = np.stack([np.asarray(Image.fromarray(i.transpose(1, 2, 0)).resize((24, 24), 3)) for i in images])
    np.testing.assert_allclose(found.features, resized.mean((1, 2)) / 255, rtol=1e-5)


def test_a_pair_is_features_and_logits_and_features_are_flattened(script):
    images = noise()
    found = FILE.load(ExtractorOptions(argument=str(script(Pair())))).extract(images)
    np.testing.assert_allclose(found.features, images.mean(3).reshape(5, -1), rtol=1e-6)
    np.testing.assert_array_equal(found.logits, images.max((2, 3)))


def test_an_exported_program(tmp_path):
    batch = torch.export.Dim("batch", min=1, max=1024)
    example = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    exported = torch.export.export(Means(), (example,), dynamic_shapes={"x": {0: batch}})
    path = tmp_path / "net.pt2"
    torch.export.save(exported, path)
    images = noise()
    found = load_extractor(str(path), ExtractorOptions(batch_size=4)).extract(images)
    np.testing.assert_allclose(found.features, images.mean((2, 3)), rtol=1e-6)
    with pytest.raises(DataError, match=r"failed on torch.uint8 \(5, 3, 9, 9\) images.*@SIZE"):
        load_extractor(str(path)).extract(noise(size=9))


class Scalar(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float().mean()


class Texts(nn.Module):
    def forward(self, x: Tensor) -> str:
        return "x"


class Three(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x, x, x


@pytest.mark.parametrize("module", [Scalar(), Texts(), Three()])
def test_a_program_that_gives_no_features(script, module):
    with pytest.raises(DataError, match=r"for 5 images, expected features \(B, d\)"):
        FILE.load(ExtractorOptions(argument=str(script(module)))).extract(noise())


def test_files_that_are_no_programs(script, tmp_path):
    path = script(Means())
    (tmp_path / "noise.pt").write_bytes(b"noise")
    torch.save({"w": torch.zeros(1)}, tmp_path / "weights.pt")
    (tmp_path / "noise.pt2").write_bytes(b"noise")
    for name in ("noise.pt", "weights.pt", "noise.pt2"):
        with pytest.raises(DataError, match=f"{name}: not a loadable program"):
            FILE.load(ExtractorOptions(argument=str(tmp_path / name)))
    with pytest.raises(DataError, match=r"missing.pt: no such file"):
        FILE.load(ExtractorOptions(argument=str(tmp_path / "missing.pt")))
    with pytest.raises(UsageError, match="file:FILE"):
        FILE.load(ExtractorOptions())
    with pytest.raises(UsageError, match="leave --weights out"):
        FILE.load(ExtractorOptions(argument=str(path), weights=path))


PLUGIN = """
import numpy as np

def function():
    return lambda images: images.reshape(len(images), -1)

def scaled(options):
    return lambda images: images.mean((2, 3)) * options.batch_size

class Own:
    name = "own"
    notes = ("a note",)
    identity = {"weights": "mine"}

    def extract(self, images):
        from genbench.features import Features
        return Features(images.mean((2, 3)), logits=images.max((2, 3)))

def broken():
    raise ValueError("no luck")

def nothing():
    return 3

def wrong_rows():
    return lambda images: np.zeros((1, 2))

def objects():
    return lambda images: np.array([["a"]] * len(images))

constant = 7

def weighted():
    weights = np.load("weights.npy")
    return lambda images: images.reshape(len(images), -1)[:, :64] * weights

def large_only():
    def features(images):
        assert images.shape[1:] == (3, 224, 224)
        return images.mean((2, 3))
    return features

def odd_only():
    def features(images):
        assert images.shape[1:] == (2, 5, 5)
        return images.mean((2, 3))
    return features

def takes_images(images):
    return images.reshape(len(images), -1)

class Sized(Own):
    input_size = 96
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    (tmp_path / "genbench_test_plugin.py").write_text(PLUGIN)
    (tmp_path / "genbench_broken_plugin.py").write_text("import genbench_no_such_module\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "genbench_test_plugin.py"
    sys.modules.pop("genbench_test_plugin", None)


def test_a_function_becomes_an_extractor(plugin):
    images = noise()
    extractor = load_extractor("genbench_test_plugin:function", ExtractorOptions(batch_size=2))
    found = extractor.extract(images)
    assert np.array_equal(found.features, images.reshape(5, -1)) and found.features.dtype == np.float32
    assert extractor.name == "genbench_test_plugin:function"
    probed = dict(extractor.identity)
    probe = probed.pop("probe")
    assert probe["images"] == [2, 3, 32, 32] and len(probe["sha256"]) == 64
    assert probed == {
        "precision": "float32",
        "preprocessing": "tf1",
        "name": "genbench_test_plugin:function",
        "module": "genbench_test_plugin",
        "callable": "function",
        "source_sha256": hashlib.sha256(plugin.read_bytes()).hexdigest(),
    }


def test_a_factory_may_take_the_options(plugin):
    found = load_extractor("genbench_test_plugin:scaled", ExtractorOptions(batch_size=3)).extract(noise())
    np.testing.assert_allclose(found.features, noise().mean((2, 3)) * 3, rtol=1e-6)


def test_a_function_is_known_by_what_it_makes(plugin):
    """Its source stays; the file of weights that it loads does not."""

    def identity(weights):
        np.save(plugin.parent / "weights.npy", weights)
        return load_extractor("genbench_test_plugin:weighted").identity

    weights = np.random.default_rng(0).normal(size=64)
    first = identity(weights)
    assert identity(weights) == first == identity(weights * (1 + 1e-9))
    weights[3] *= 1.5
    assert identity(weights) != first
    precise = load_extractor("genbench_test_plugin:weighted", ExtractorOptions(precision="bfloat16")).identity
    assert precise["precision"] == "bfloat16"


def test_a_function_that_takes_no_probe_is_never_taken_for_another(plugin):
    large = [load_extractor("genbench_test_plugin:large_only") for _ in range(2)]
    assert large[0].identity == large[1].identity and large[0].identity["probe"]["images"] == [2, 3, 224, 224]
    assert not large[0].notes
    odd = [load_extractor("genbench_test_plugin:odd_only") for _ in range(2)]
    assert odd[0].identity == odd[0].identity and odd[0].identity != odd[1].identity
    assert "never reused" in odd[0].notes[0]
    assert odd[0].extract(noise(2, 5, 2)).features.shape == (2, 2)


def test_input_sizes(plugin, script):
    path = script(Means())
    assert FILE.load(ExtractorOptions(argument=f"{path}@24")).input_size == 24
    assert FILE.load(ExtractorOptions(argument=str(path))).input_size is None
    assert load_extractor("genbench_test_plugin:Sized").input_size == 96
    assert load_extractor("genbench_test_plugin:function").input_size is None


def test_a_class_may_be_the_extractor(plugin):
    extractor = load_extractor("genbench_test_plugin:Own")
    found = extractor.extract(noise())
    assert found.logits is not None and extractor.notes == ("a note",)
    assert extractor.identity["returned"] == {"weights": "mine"}


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("genbench_test_plugin:functoin", "Did you mean 'function'"),
        ("genbench_test_plugin:constant", "Unknown callable"),
        ("genbench_test_plugin:broken", "ValueError: no luck"),
        (
            "genbench_test_plugin:takes_images",
            r"AttributeError.*def make\(options\): return features, where",
        ),
        ("genbench_test_plugin:nothing", "made a int, expected a FeatureExtractor"),
        ("genbench_broken_plugin:make", "Importing genbench_broken_plugin failed: ModuleNotFoundError"),
        ("genbench_no_such_module:make", "Unknown extractor 'genbench_no_such_module:make'"),
        ("digits-cn", "Did you mean 'digits-cnn'"),
        ("net.pt", "Unknown extractor 'net.pt'"),
    ],
)
def test_bad_names(plugin, spec, reason):
    with pytest.raises(UsageError, match=reason):
        load_extractor(spec)


def test_bad_features(plugin):
    for name in ("wrong_rows", "objects"):
        with pytest.raises(DataError, match=r"for 5 images, expected \(5, d\)"):
            load_extractor(f"genbench_test_plugin:{name}").extract(noise())
    with pytest.raises(DataError, match="Expected uint8 images"):
        load_extractor("genbench_test_plugin:function").extract(noise().astype(np.float32))
    with pytest.raises(UsageError, match="leave --weights out"):
        load_extractor("genbench_test_plugin:function", ExtractorOptions(weights=plugin))


def test_registered_names_come_first_and_keep_their_argument():
    extractor = load_extractor("digits-cnn", ExtractorOptions())
    assert extractor.name == "digits-cnn"
