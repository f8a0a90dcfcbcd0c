"""Packaged networks: what ships is what its manifest says, and features do not depend on the batch."""

import json
import shutil

import numpy as np
import pytest

from genbench import registry
from genbench.data import load_dataset
from genbench.errors import DataError, UsageError
from genbench.features import ExtractorOptions, extractor_status, load_extractor, packaged
from genbench.features.packaged import Manifest, PackagedSource

SHIPPED = sorted(path.stem for path in packaged.WEIGHTS_FOLDER.glob("*-cnn.json"))


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("digits-cnn")


@pytest.fixture
def copy(tmp_path):
    for suffix in (".json", ".safetensors"):
        shutil.copy(packaged.WEIGHTS_FOLDER / f"digits-cnn{suffix}", tmp_path)
    return PackagedSource("digits-cnn", tmp_path)


def test_digits_accuracy_is_the_manifests(digits, extractor):
    found = extractor.extract(digits.test.images)
    accuracy = (found.logits.argmax(1) == digits.test.labels).mean()
    assert accuracy == pytest.approx(extractor.manifest.training.test_accuracy, abs=1e-9)
    assert accuracy >= 0.98
    assert extractor.manifest.training.dataset_fingerprint == digits.fingerprint


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_load(name):
    extractor = load_extractor(name)
    a = extractor.manifest.architecture
    found = extractor.extract(np.zeros((2, a.channels, a.height, a.width), np.uint8))
    assert found.features.shape == (2, 64 if name == "digits-cnn" else 128) and found.logits.shape == (2, 10)
    assert found.features.dtype == np.float32 and (found.features >= 0).all()
    assert extractor.identity["weights_sha256"] == extractor.manifest.sha256
    assert (packaged.WEIGHTS_FOLDER / f"{name}.safetensors").stat().st_size <= 4 * 2**20
    assert extractor_status(name).available
    assert name in registry.names("extractors")


def test_features_do_not_depend_on_the_batch(digits):
    images = digits.test.images[:50]
    whole = load_extractor("digits-cnn", ExtractorOptions(batch_size=50)).extract(images)
    parts = load_extractor("digits-cnn", ExtractorOptions(batch_size=7)).extract(images)
    np.testing.assert_allclose(parts.features, whole.features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(parts.logits, whole.logits, rtol=1e-4, atol=1e-4)


def test_extraction_repeats_itself(digits, extractor):
    images = digits.test.images[:20]
    assert (extractor.extract(images).features == extractor.extract(images).features).all()


def test_features_tell_apart_what_differs(digits, extractor):
    """The classes are far apart, but an image's features are not those of its class alone."""
    features = extractor.extract(digits.train.images).features.astype(np.float64)
    labels = digits.train.labels
    means = np.stack([features[labels == c].mean(0) for c in range(10)])
    within = np.square(features - means[labels]).sum(1).mean()
    between = np.square(means[labels] - features.mean(0)).sum(1).mean()
    assert 0.3 < within / (within + between) < 0.95


def test_damaged_weights_are_refused(copy):
    data = bytearray(copy.files.weights.read_bytes())
    data[-1] ^= 1
    copy.files.weights.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"SHA-256 is .*, the manifest says"):
        copy.load(ExtractorOptions())
    assert not copy.status().available


def test_missing_or_malformed_files_are_refused(copy):
    manifest = copy.folder / "digits-cnn.json"
    text = manifest.read_text()
    copy.files.weights.rename(copy.folder / "elsewhere")
    with pytest.raises(DataError, match="missing"):
        copy.load(ExtractorOptions())
    for content in (text[:50], json.dumps({**json.loads(text), "colour": "red"})):
        manifest.write_text(content)
        with pytest.raises(DataError, match="no readable manifest"):
            copy.load(ExtractorOptions())


def test_weights_of_another_architecture_are_refused(copy):
    manifest = Manifest.model_validate_json((copy.folder / "digits-cnn.json").read_text())
    wider = manifest.architecture.model_copy(update={"widths": (32, 65)})
    (copy.folder / "digits-cnn.json").write_text(manifest.model_copy(update={"architecture": wider}).model_dump_json())
    with pytest.raises(DataError, match="does not fit its manifest"):
        copy.load(ExtractorOptions())


def test_grey_images_may_have_one_channel_or_three(digits, extractor):
    images = digits.test.images[:5]
    colour = load_extractor("cifar10-cnn")
    grey = np.random.default_rng(0).integers(0, 256, (5, 1, 32, 32), dtype=np.uint8)
    for network, one in ((extractor, images), (colour, grey)):
        found, expected = network.extract(one), network.extract(np.repeat(one, 3, 1))
        np.testing.assert_array_equal(found.features, expected.features)
        assert network.input_size is None
    tinted = np.repeat(images, 3, 1)
    tinted[1, 2, 0, 0] ^= 1
    with pytest.raises(DataError, match="takes grey images, and 1 of 5 are coloured"):
        extractor.extract(tinted)


@pytest.mark.parametrize("name", ["digits-cnn", "digits-clip"])
def test_options_that_would_be_ignored_are_refused(name, tmp_path):
    for spec, options, reason in (
        (name, ExtractorOptions(weights=tmp_path / "w.pth"), "comes with its weights; leave --weights out"),
        (name, ExtractorOptions(precision="bfloat16"), "in float32 only, got precision bfloat16"),
        (f"{name}:64", ExtractorOptions(), "takes no argument"),
    ):
        with pytest.raises(UsageError, match=reason):
            load_extractor(spec, options)


def test_refuses_other_images(extractor):
    for shape in ((3, 9, 9), (1, 9, 9), (2, 8, 8)):
        with pytest.raises(DataError, match=r"\(1, 8, 8\), got \(\d, \d, \d\)"):
            extractor.extract(np.zeros((2, *shape), np.uint8))
    with pytest.raises(DataError, match="Expected uint8"):
        extractor.extract(np.zeros((2, 1, 8, 8), np.float32))
    with pytest.raises(DataError, match="N > 0"):
        extractor.extract(np.zeros((0, 1, 8, 8), np.uint8))


def test_unknown_extractor():
    with pytest.raises(UsageError, match="Did you mean 'digits-cnn'"):
        load_extractor("digit-cnn")
    with pytest.raises(UsageError, match="Did you mean 'digits-cnn'"):
        extractor_status("digit-cnn")
