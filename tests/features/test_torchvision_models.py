"""torchvision classifiers: features before the last layer, and VGG16 as torch-fidelity uses it."""

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from genbench.errors import DataError, UsageError
from genbench.features.base import ExtractorOptions
from genbench.features.torchvision_models import TORCHVISION, _renamed, last_linear


def noise(count, height, width, channels=3):
    return np.random.default_rng(1).integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def random_file(folder, name, seed=0):
    """A network whose biases are large enough for its features to be of order one, and its weights file."""
    torch.manual_seed(seed)
    arguments = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, weights=None, **arguments)
    for key, parameter in network.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(parameter)
    torch.save(network.state_dict(), folder / f"{name}.pth")
    return network.eval(), folder / f"{name}.pth"


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    return random_file(tmp_path_factory.mktemp("tv"), "mobilenet_v3_small")


def test_features_and_logits_equal_the_models_own_pipeline(mobilenet):
    network, path = mobilenet
    extractor = TORCHVISION.load(ExtractorOptions(argument="mobilenet_v3_small", weights=path, batch_size=2))
    own = torchvision.models.get_model_weights("mobilenet_v3_small").IMAGENET1K_V1.transforms()
    images = noise(3, 50, 41)
    batch = torch.stack([own(Image.fromarray(i.transpose(1, 2, 0))) for i in images])
    with torch.inference_mode():
        logits = network(batch)
        hidden = network.classifier[:3](network.avgpool(network.features(batch)).flatten(1))
    found = extractor.extract(images)
    assert hidden.min() < -0.1 and hidden.max() > 0.1
    np.testing.assert_allclose(found.features, hidden.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits, logits.numpy(), rtol=1e-4, atol=1e-5)


def test_identity(mobilenet):
    _, path = mobilenet
    plain = TORCHVISION.load(ExtractorOptions(argument="mobilenet_v3_small", weights=path))
    stretched = TORCHVISION.load(ExtractorOptions(argument="mobilenet_v3_small@tf1", weights=path))
    assert plain.name == "torchvision:mobilenet_v3_small/IMAGENET1K_V1"
    assert "bilinear of the shorter side to 256, centre crop 224x224" in plain.identity["preprocessing"]
    assert stretched.name.endswith("@tf1") and "tf1: bilinear to 224" in stretched.identity["preprocessing"]
    assert plain.input_size == stretched.input_size == 224
    assert plain.notes and plain.identity["weights_sha256"][:12] in plain.notes[0]


def narrow_vgg16(weights=None, num_classes=1000):
    """VGG16 with its depth and layout and few channels."""
    widths = [4, 4, "M", 6, 6, "M", 8, 8, 8, "M", 8, 8, 8, "M", 8, 8, 8, "M"]
    network = torchvision.models.VGG(torchvision.models.vgg.make_layers(widths), init_weights=False)
    network.classifier[0], network.classifier[3] = nn.Linear(8 * 49, 64), nn.Linear(64, 32)
    network.classifier[6] = nn.Linear(32, num_classes)
    return network


def test_vgg16_equals_torch_fidelity(tmp_path, monkeypatch):
    peer = pytest.importorskip("torch_fidelity.feature_extractor_vgg16").FeatureExtractorVGG16
    monkeypatch.setattr(torchvision.models, "vgg16", narrow_vgg16)
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, **arguments: narrow_vgg16(**arguments))
    torch.manual_seed(0)
    network = narrow_vgg16()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=(2.0 / parameter[0].numel()) ** 0.5)
    path = tmp_path / "vgg16.pth"
    torch.save(network.state_dict(), path)
    images = noise(3, 20, 31)
    with torch.inference_mode():
        expected = peer("vgg16", ["fc2_relu"], feature_extractor_weights_path=str(path))(torch.from_numpy(images))[0]
    found = TORCHVISION.load(ExtractorOptions(argument="vgg16@tf1", weights=path)).extract(images)
    assert expected.min() == 0 and expected.max() > 0.1
    np.testing.assert_allclose(found.features, expected.numpy(), rtol=1e-4, atol=1e-5 * float(expected.max()))
    assert found.logits.shape == (3, 1000)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet50", "fc"),
        ("vgg16", "classifier.6"),
        ("alexnet", "classifier.6"),
        ("vit_b_16", "heads.head"),
        ("convnext_tiny", "classifier.2"),
        ("densenet121", "classifier"),
        ("googlenet", "fc"),
        ("inception_v3", "fc"),
        ("swin_t", "head"),
    ],
)
def test_the_last_layer_is_found(name, layer):
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None)
    assert last_linear(network, name) is network.get_submodule(layer)


def test_a_model_without_a_last_linear_layer_is_refused(tmp_path):
    _, path = random_file(tmp_path, "squeezenet1_1")
    with pytest.raises(UsageError, match="'squeezenet1_1' ends in no linear layer"):
        TORCHVISION.load(ExtractorOptions(argument="squeezenet1_1", weights=path))
    with pytest.raises(UsageError):
        last_linear(nn.Conv2d(1, 1, 1), "x")


def test_mnasnet_keeps_the_version_in_its_file(tmp_path):
    _, path = random_file(tmp_path, "mnasnet0_5")
    extractor = TORCHVISION.load(ExtractorOptions(argument="mnasnet0_5", weights=path))
    assert extractor.extract(noise(1, 32, 32)).features.shape == (1, 1280)


def test_old_densenet_names():
    assert _renamed("features.denseblock1.denselayer2.norm.1.weight") == (
        "features.denseblock1.denselayer2.norm1.weight"
    )
    assert _renamed("features.norm5.weight") == "features.norm5.weight"


def test_bad_requests(mobilenet, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path / "store"))
    _, path = mobilenet
    for argument, reason in (
        ("resnet51", "Did you mean 'resnet5"),
        ("fasterrcnn_resnet50_fpn", "Unknown torchvision classifier"),
        ("", "Unknown torchvision classifier"),
        ("resnet50/IMAGENET1K_V9", "Did you mean 'IMAGENET1K_V"),
        ("resnet50@clean", "Unknown way of resizing 'clean'"),
    ):
        with pytest.raises(UsageError, match=reason):
            TORCHVISION.load(ExtractorOptions(argument=argument, weights=path))
    with pytest.raises(DataError, match=r"not the weights of torchvision's resnet18 \(IMAGENET1K_V1\): missing: conv1"):
        TORCHVISION.load(ExtractorOptions(argument="resnet18", weights=path))


def test_files_outside_the_catalogue_are_checked_by_their_prefix(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path))
    (tmp_path / "resnet18-f37072fd.pth").write_bytes(b"another file")
    with pytest.raises(
        DataError, match=r"resnet18-f37072fd.pth: SHA-256 is \w+, expected one that begins with f37072fd"
    ):
        TORCHVISION.load(ExtractorOptions(argument="resnet18"))
