"""InceptionV3 against torch-fidelity, pytorch-fid, clean-fid and torchmetrics themselves, on the same weights file."""

import cleanfid.inception_pytorch
import numpy as np
import pytest
import pytorch_fid.inception
import torch
from cleanfid.resize import build_resizer
from inception_weights import varied_images
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import NoTrainInceptionV3

from genbench.features import ExtractorOptions
from genbench.features.inception import INCEPTION_V3
from genbench.features.inception_preprocessing import PREPROCESSINGS

SIZES = [(1, 1), (8, 40), (32, 32), (299, 299), (300, 298), (640, 480)]
OUTPUTS = ["64", "192", "768", "2048", "logits_unbiased"]


def relative(found, expected):
    expected = np.asarray(expected)
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.fixture(scope="module")
def images():
    return varied_images(3, seed=5)


@pytest.fixture(scope="module")
def torch_fidelity(inception_file):
    return FeatureExtractorInceptionV3("peer", OUTPUTS, str(inception_file))


@pytest.fixture(scope="module")
def torchmetrics(inception_file):
    return NoTrainInceptionV3("peer", ["192"], str(inception_file))


def port_of_pytorch_fid(module, inception_file, monkeypatch, **options):
    """The InceptionV3 of pytorch-fid, or of clean-fid, whose weights come from a URL; block 1 ends in 192 features."""
    load = lambda url, progress: torch.load(inception_file, weights_only=True)  # noqa: E731
    monkeypatch.setattr(module, "load_state_dict_from_url", load)
    return module.InceptionV3([1], **options).eval()


def ours(inception_file, images, **options):
    return INCEPTION_V3.load(ExtractorOptions(weights=inception_file, **options)).extract(images)


class SeenError(Exception):
    pass


def input_of(layer, run):
    """What reaches a network's first layer; the pass goes no further."""

    def stop(module, given):
        raise SeenError(given[0])

    hook = layer.register_forward_pre_hook(stop)
    try:
        with torch.no_grad(), pytest.raises(SeenError) as seen:
            run()
    finally:
        hook.remove()
    return seen.value.args[0]


def same_input(name, images, expected):
    torch.testing.assert_close(PREPROCESSINGS[name](images), expected, rtol=0, atol=1e-5)


def random_image(size):
    return torch.from_numpy(np.random.default_rng(size[0]).integers(0, 256, (1, 3, *size)).astype(np.uint8))


@pytest.mark.parametrize("size", SIZES)
def test_inputs_of_the_network_are_the_peers(size, torch_fidelity, torchmetrics):
    image = random_image(size)
    same_input("tf1", image, input_of(torch_fidelity.Conv2d_1a_3x3, lambda: torch_fidelity(image)))
    same_input("torchmetrics", image, input_of(torchmetrics.Conv2d_1a_3x3, lambda: torchmetrics(image)))
    resized = build_resizer("clean")(image[0].permute(1, 2, 0).numpy())
    same_input("clean", image, ((torch.from_numpy(resized) - 128) / 128).permute(2, 0, 1)[None])


def test_inputs_of_pytorch_fid(inception_file, monkeypatch):
    peer = port_of_pytorch_fid(pytorch_fid.inception, inception_file, monkeypatch)
    for size in SIZES:
        image = random_image(size)
        same_input("pytorch-fid", image, input_of(peer.blocks[0][0], lambda image=image: peer(image.float() / 255)))


def test_preprocessings_differ():
    image = random_image((40, 20))
    inputs = [p(image) for p in PREPROCESSINGS.values()]
    for i, first in enumerate(inputs):
        assert all((first - second).abs().max() > 1e-3 for second in inputs[:i])


@pytest.fixture(scope="module")
def whole_pass(torch_fidelity, images):
    """torch-fidelity's outputs by name, and what its mixed_6/conv gave under "spatial"."""
    seen = {}
    hook = torch_fidelity.Mixed_6d.branch1x1.register_forward_hook(lambda m, given, x: seen.update(spatial=x))
    with torch.no_grad():
        outputs = torch_fidelity(torch.from_numpy(images))
    hook.remove()
    return seen | dict(zip(OUTPUTS, outputs, strict=True))


@pytest.mark.parametrize("tap", OUTPUTS[:4])
def test_features_and_logits_of_torch_fidelity(whole_pass, inception_file, images, tap):
    found = ours(inception_file, images, argument=tap)
    assert found.features.shape == (3, int(tap))
    assert relative(found.features, whole_pass[tap]) < 1e-5
    if tap == "2048":
        assert relative(found.logits, whole_pass["logits_unbiased"]) < 1e-5


def test_spatial_features_are_the_first_channels_of_mixed_6_conv(whole_pass, inception_file, images):
    found = ours(inception_file, images, argument="64", spatial=True)
    pixel_by_pixel = whole_pass["spatial"][:, :7].permute(0, 2, 3, 1).reshape(3, 17 * 17 * 7)
    assert found.spatial.shape == (3, 2023)
    assert relative(found.spatial, pixel_by_pixel) < 1e-5
    assert relative(found.features, whole_pass["64"]) < 1e-5


def test_features_of_torchmetrics(torchmetrics, inception_file, images):
    with torch.no_grad():
        expected = torchmetrics(torch.from_numpy(images))
    found = ours(inception_file, images, argument="192", preprocessing="torchmetrics")
    assert relative(found.features, expected) < 1e-5


def test_features_of_pytorch_fid(inception_file, images, monkeypatch):
    peer = port_of_pytorch_fid(pytorch_fid.inception, inception_file, monkeypatch)
    with torch.no_grad():
        expected = peer(torch.from_numpy(images) / 255)[0].mean((2, 3))
    found = ours(inception_file, images, argument="192", preprocessing="pytorch-fid")
    assert relative(found.features, expected) < 1e-5


@pytest.mark.filterwarnings("ignore:.*pretrained:UserWarning", "ignore:Arguments other than a weight enum:UserWarning")
def test_features_of_clean_fid(inception_file, images, monkeypatch):
    options = {"resize_input": False, "normalize_input": False}
    peer = port_of_pytorch_fid(cleanfid.inception_pytorch, inception_file, monkeypatch, **options)
    resized = np.stack([build_resizer("clean")(image.transpose(1, 2, 0)) for image in images])
    with torch.no_grad():
        expected = peer(((torch.from_numpy(resized) - 128) / 128).permute(0, 3, 1, 2))[0].mean((2, 3))
    found = ours(inception_file, images, argument="192", preprocessing="clean")
    assert relative(found.features, expected) < 1e-5
