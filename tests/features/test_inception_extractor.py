"""InceptionV3 as an extractor: taps, options, identity, weights of the user's own, images of every shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from inception_weights import varied_images

from genbench.errors import DataError, UsageError
from genbench.features import ExtractorOptions, inception, load_extractor
from genbench.features.inception import INCEPTION_V3, InceptionExtractor
from genbench.features.precision import arithmetic
from genbench.files import hash_file
from genbench.weights import LocatedWeights


def load(inception_file, spec="inception-v3:64", **options):
    return load_extractor(spec, ExtractorOptions(weights=inception_file, **options))


@pytest.fixture(scope="module")
def network(inception_file):
    return inception.load_network(inception_file)


def with_network(network, tap, **options):
    weights = LocatedWeights(Path("weights.pth"), "5" * 64, known=True)
    return InceptionExtractor(network, weights, ExtractorOptions(argument=tap, **options))


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("tap, beyond", [(64, "Conv2d_3b_1x1"), (192, "Mixed_5b"), (768, "Mixed_7a")])
def test_a_pass_ends_at_its_tap(network, tap, beyond):
    def unexpected(*_):
        raise AssertionError("a layer beyond the tap ran")

    x = torch.zeros(1, 3, 75, 75)
    hook = getattr(network, beyond).register_forward_pre_hook(unexpected)
    try:
        found = network(x, tap)
        with pytest.raises(AssertionError, match="beyond the tap"):
            network(x, 2048)
    finally:
        hook.remove()
    assert found.features.shape == (1, tap) and found.logits is None and found.spatial is None


def test_name_and_identity_tell_apart_what_gives_other_numbers(network):
    plain = with_network(network, "")
    assert plain.name == with_network(network, "2048").name == "inception-v3"
    assert plain.identity == with_network(network, "2048", batch_size=1).identity
    stops_early, cleaned = with_network(network, "64"), with_network(network, "", preprocessing="clean")
    assert stops_early.name == "inception-v3:64"
    assert stops_early.identity != plain.identity != cleaned.identity
    assert cleaned.identity["preprocessing"].startswith("clean: Pillow bicubic")
    assert plain.input_size == stops_early.input_size == 299


def test_weights_of_the_users_own_are_noted_and_identified(inception_file):
    extractor = load(inception_file)
    assert extractor.identity["weights_sha256"] == hash_file(inception_file)
    (note,) = extractor.notes
    assert inception_file.name in note and hash_file(inception_file)[:12] in note


def test_known_weights_give_no_note(network):
    extractor = with_network(network, "64")
    assert extractor.notes == () and extractor.identity["weights_sha256"] == "5" * 64


@pytest.mark.parametrize(
    "spec, options, message",
    [
        ("inception-v3:2047", {}, "Unknown tap of 'inception-v3' '2047'.*Did you mean '2048'"),
        ("inception-v3", {"preprocessing": "clear"}, "Unknown preprocessing 'clear'.*Did you mean 'clean'"),
        ("inception-v3", {"precision": "bfloat"}, "Unknown precision 'bfloat'.*Did you mean 'bfloat16'"),
        ("inception-v3", {"precision": "tf32"}, "'tf32' needs a CUDA device, got 'cpu'"),
    ],
)
def test_unknown_options_are_refused_before_weights_are_looked_for(tmp_path, spec, options, message):
    with pytest.raises(UsageError, match=message):
        load(tmp_path / "missing.pth", spec, **options)


def test_batch_size_does_not_matter(network):
    images = varied_images(7, seed=1)
    expected = with_network(network, "64").extract(images)
    for batch_size in (1, 3, 6):
        found = with_network(network, "64", batch_size=batch_size).extract(images)
        assert relative(found.features, expected.features) < 1e-6
    whole = with_network(network, "2048", spatial=True).extract(images[:3])
    found = with_network(network, "2048", spatial=True, batch_size=2).extract(images[:3])
    for field in ("features", "logits", "spatial"):
        assert relative(getattr(found, field), getattr(whole, field)) < 1e-6


def test_rows_belong_to_their_images(network):
    images = varied_images(5, seed=2)
    extractor = with_network(network, "64", batch_size=2)
    found = extractor.extract(images).features
    reversed_order = extractor.extract(images[::-1]).features
    np.testing.assert_allclose(reversed_order[::-1], found, rtol=1e-5)
    assert relative(found[0], found[1]) > 1e-2


def test_grey_images_are_repeated(network):
    grey = varied_images(2, channels=1)
    extractor = with_network(network, "64")
    np.testing.assert_allclose(
        extractor.extract(grey).features, extractor.extract(grey.repeat(3, 1)).features, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("preprocessing", ["tf1", "pytorch-fid", "clean", "torchmetrics"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (299, 299), (400, 310)])
def test_any_size_becomes_an_input_within_bounds(preprocessing, shape):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (2, 3, *shape)).astype(np.uint8) * 255)
    x = inception.load_preprocessing(preprocessing)(images)
    assert x.shape == (2, 3, 299, 299) and x.dtype == torch.float32
    highest = 1.0 if preprocessing == "pytorch-fid" else 127 / 128
    assert x.min() >= -1.0 - 1e-6 and x.max() <= highest + 1e-6


@pytest.mark.parametrize("preprocessing", ["tf1", "pytorch-fid", "clean", "torchmetrics"])
def test_black_and_white_keep_their_level(preprocessing):
    images = torch.stack([torch.zeros(1, 8, 5), torch.full((1, 8, 5), 255)]).to(torch.uint8)
    x = inception.load_preprocessing(preprocessing)(images)
    torch.testing.assert_close(x[0], torch.full((3, 299, 299), -1.0))
    white = 1.0 if preprocessing == "pytorch-fid" else 127 / 128
    torch.testing.assert_close(x[1], torch.full((3, 299, 299), white))


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((1, 4, 8, 8), np.uint8), r"1 or 3 channels .*\(4, 8, 8\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), "1 or 3 channels"),
        (np.zeros((1, 3, 0, 8), np.uint8), "at least one pixel"),
        (np.zeros((0, 3, 8, 8), np.uint8), "N > 0"),
        (np.zeros((1, 3, 8, 8), np.float32), "Expected uint8 images"),
        (np.zeros((3, 8, 8), np.uint8), "Expected uint8 images"),
    ],
)
def test_arrays_that_are_no_images(network, images, message):
    with pytest.raises(DataError, match=message):
        with_network(network, "64").extract(images)


def test_bfloat16_is_near_and_not_the_same(inception_file, network):
    images = varied_images(2)
    full = with_network(network, "2048", spatial=True).extract(images)
    extractor = load(inception_file, "inception-v3", spatial=True, precision="bfloat16")
    found = extractor.extract(images)
    assert extractor.identity["precision"] == "bfloat16"
    for field in ("features", "logits", "spatial"):
        assert getattr(found, field).dtype == np.float32
        assert 1e-4 < relative(getattr(found, field), getattr(full, field)) < 0.1


def old_interface():
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = False


def new_interface():
    backends = torch.backends
    backends.cuda.matmul.fp32_precision = "tf32"
    backends.mkldnn.matmul.fp32_precision = backends.mkldnn.conv.fp32_precision = "bf16"
    backends.cudnn.conv.fp32_precision = "ieee"


def new_interface_for_all():
    torch.backends.fp32_precision = "tf32"


def settings():
    backends = torch.backends
    operations = [backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv, backends.cudnn.conv]
    return [backends.fp32_precision, *[operation.fp32_precision for operation in operations]]


@pytest.fixture
def defaults():
    yield
    backends = torch.backends
    for owner in (backends, backends.cudnn, backends.mkldnn, backends.mkldnn.conv):
        owner.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True


@pytest.mark.usefixtures("defaults")
@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9")
@pytest.mark.parametrize("change", [old_interface, new_interface, new_interface_for_all])
def test_settings_of_the_process_do_not_reach_the_features(network, change):
    images = varied_images(2)
    extractor = with_network(network, "64")
    expected = extractor.extract(images).features
    change()
    before = settings()
    np.testing.assert_array_equal(extractor.extract(images).features, expected)
    for precision in ("float32", "tf32"):
        with arithmetic(precision):
            allowed = precision == "tf32"
            assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == allowed
            assert torch.get_float32_matmul_precision() == ("high" if allowed else "highest")
            assert torch.backends.cudnn.deterministic
            generic, products, _, mkldnn_convolutions, convolutions = settings()
            assert generic == mkldnn_convolutions == "none"
            assert (products == "tf32") == (convolutions == "tf32") == allowed
    assert settings() == before
    assert not torch.backends.cudnn.deterministic


def test_status_names_the_file_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path))
    status = INCEPTION_V3.status()
    assert not status.available
    for part in ("pt_inception-2015-12-05-6726825d.pth", "https://", str(tmp_path), "weights add"):
        assert part in status.detail
    known = LocatedWeights(tmp_path / "file.pth", "6" * 64, known=True)
    monkeypatch.setattr(inception, "locate", lambda name, download: known)
    status = INCEPTION_V3.status()
    assert status.available and "file.pth" in status.detail and "6" * 12 in status.detail
