"""LPIPS: equal to the lpips package under one random classifier and the published linear weights; bad weights."""

from pathlib import Path
from types import SimpleNamespace

import lpips
import numpy as np
import pytest
import torch
import torchvision
from metric_inputs import compute_one, image_inputs, random_images
from torchmetrics.functional.image import lpips as torchmetrics_lpips

from genbench.errors import DataError, UsageError
from genbench.files import hash_file
from genbench.metrics import NotApplicable
from genbench.metrics.pairs import StoredPairs
from genbench.metrics.perceptual import BACKBONES, PerceptualNetwork, PerceptualSimilarity
from genbench.weights import LocatedWeights

HEADS = Path(lpips.__file__).parent / "weights" / "v0.1"
NETS = ["alex", "vgg"]


def random_features(net):
    """torchvision's feature layers with random weights that keep the activations' size."""
    with torch.device("meta"):
        features = getattr(torchvision.models, BACKBONES[net].model)(weights=None).features
    features.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(3)
    for parameter in features.parameters():
        spread = 0.2 if parameter.ndim == 1 else (2 / parameter[0].numel()) ** 0.5
        parameter.data.normal_(0, spread, generator=generator)
    return features.eval()


@pytest.fixture(scope="module", params=NETS)
def random_net(request, tmp_path_factory):
    """(net, its feature layers, the weights file in torchvision's format)."""
    features = random_features(request.param)
    path = tmp_path_factory.mktemp("lpips") / "classifier.pth"
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    torch.save(state | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    return request.param, features, path


@pytest.fixture
def metric(random_net, monkeypatch):
    net, _, path = random_net
    files = {BACKBONES[net].weights: path, BACKBONES[net].heads: HEADS / f"{net}.pth"}
    located = {
        name: LocatedWeights(
            path, hash_file(path), known=name.startswith("lpips"), note=None if "lpips" in name else "odd"
        )
        for name, path in files.items()
    }
    monkeypatch.setattr("genbench.metrics.perceptual.locate", lambda name, **_: located[name])
    return PerceptualSimilarity(net=net)


def peer(random_net, monkeypatch):
    net, features, _ = random_net
    fake = SimpleNamespace(**{BACKBONES[net].model: lambda pretrained: SimpleNamespace(features=features)})
    monkeypatch.setattr("lpips.pretrained_networks.tv", fake)
    return lpips.LPIPS(net=net, pnet_rand=True, verbose=False)


def colour_pairs(rng, shape=(3, 40, 52), num_images=3):
    x = random_images(rng, num_images, shape)
    y = np.clip(x + rng.normal(size=x.shape) * 40, 0, 255).astype(np.uint8)
    x[0] //= 20
    return x, y


def signed(images):
    return torch.from_numpy(images).float() / 127.5 - 1


def test_equals_the_lpips_package(rng, random_net, metric, monkeypatch):
    package = peer(random_net, monkeypatch)
    x, y = colour_pairs(rng)
    with torch.inference_mode():
        expected = package(signed(x), signed(y))[:, 0, 0, 0].numpy()
        unsigned = package((signed(x) + 1) / 2, (signed(y) + 1) / 2)[:, 0, 0, 0].numpy()
    found = metric.score_pairs(x, y)
    assert found.dtype == np.float64 and expected.min() > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-5)
    assert (np.abs(found / unsigned - 1) > 0.01).all(), "values in [0, 1] must give another number"


def test_equals_torchmetrics_with_normalize(rng, random_net, metric, monkeypatch):
    net, features, _ = random_net
    monkeypatch.setattr(torchmetrics_lpips, "_get_tv_model_features", lambda name, pretrained: features)
    network = torchmetrics_lpips._LPIPS(net=net, pnet_rand=True)
    x, y = colour_pairs(rng)
    with torch.inference_mode():
        expected = network((signed(x) + 1) / 2, (signed(y) + 1) / 2, normalize=True)[:, 0, 0, 0].numpy()
    np.testing.assert_allclose(metric.score_pairs(x, y), expected, atol=1e-6, rtol=1e-5)


def test_zero_where_equal_symmetric_and_free_of_batches(rng, metric, monkeypatch):
    x, y = colour_pairs(rng, (3, 33, 31), 5)
    whole = metric.score_pairs(x, y)
    np.testing.assert_array_equal(metric.score_pairs(x, x), 0.0)
    np.testing.assert_allclose(metric.score_pairs(y, x), whole, atol=1e-7)
    monkeypatch.setattr("genbench.metrics.perceptual._BATCH_PIXELS", 2 * 33 * 31)
    np.testing.assert_allclose(metric.score_pairs(x, y), whole, atol=1e-7)


def test_greyscale_is_three_equal_channels(rng, metric):
    x, y = colour_pairs(rng, (1, 32, 32))
    np.testing.assert_allclose(
        metric.score_pairs(x, y), metric.score_pairs(*(np.repeat(i, 3, 1) for i in (x, y))), atol=1e-7
    )
    with pytest.raises(NotApplicable, match="got 4"):
        metric.score_pairs(np.repeat(x, 4, 1), np.repeat(y, 4, 1))


def test_smallest_size_is_what_the_network_can_pool(rng, random_net, metric, monkeypatch):
    package = peer(random_net, monkeypatch)
    side = BACKBONES[metric.net].smallest_side
    x, y = colour_pairs(rng, (3, side, side + 9))
    with torch.inference_mode():
        np.testing.assert_allclose(metric.score_pairs(x, y), package(signed(x), signed(y))[:, 0, 0, 0], atol=1e-6)
        with pytest.raises(RuntimeError, match="too small"):
            package(signed(x[:, :, 1:]), signed(y[:, :, 1:]))
    with pytest.raises(
        NotApplicable, match=f"at least {side} pixels, the images have {side - 1} x {side + 9}"
    ) as caught:
        metric.score_pairs(x[:, :, 1:], y[:, :, 1:])
    assert ("net = vgg" in str(caught.value)) == (metric.net == "alex")


def test_estimate_names_its_weights(rng, random_net, metric):
    x, y = colour_pairs(rng, (3, 32, 32), 4)
    found = compute_one(metric, image_inputs(x, y, pairs=StoredPairs(x, y)))
    values = metric.score_pairs(x, y)
    assert found.value == pytest.approx(values.mean()) and found.standard_error == pytest.approx(values.std(ddof=1) / 2)
    assert found.conditions == {
        "protocol": "lpips-v0.1",
        "weights_sha256": hash_file(random_net[2]),
        "heads_sha256": hash_file(HEADS / f"{metric.net}.pth"),
    }
    assert found.notes == ("odd",) and found.paired_by == "reference image" and found.ci95[0] >= 0
    assert metric.options() == {"net": metric.net}


@pytest.mark.parametrize("used_before", [False, True])
def test_network_and_images_go_to_the_device(rng, metric, used_before):
    """On the device without storage everything works but the way back."""
    x, y = colour_pairs(rng, (3, 32, 32))
    if used_before:
        metric.score_pairs(x, y)
    metric.use_device("meta")
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        metric.score_pairs(x, y)
    assert metric.options() == {"net": metric.net}


def test_missing_weights_say_what_to_do(rng, monkeypatch, tmp_path):
    def none(name, *, packaged):
        assert not packaged
        raise DataError(f"The weights '{name}' are missing")

    monkeypatch.setattr("genbench.metrics.perceptual.locate", none)
    with pytest.raises(DataError, match=r"'alexnet-imagenet' are missing.*'lpips-alex' are missing"):
        PerceptualSimilarity().score_pairs(*colour_pairs(rng))


def test_weights_must_fit(random_net, tmp_path):
    net, _, path = random_net
    heads = HEADS / f"{net}.pth"
    bad = tmp_path / "bad.pth"
    with pytest.raises(DataError, match="expected"):
        PerceptualNetwork(net, path, HEADS / f"{NETS[net == 'alex']}.pth")
    with pytest.raises(DataError, match=f"torchvision's {BACKBONES[net].model}: missing: 0.weight"):
        PerceptualNetwork(net, heads, heads)
    bad.write_bytes(b"no weights at all")
    with pytest.raises(DataError, match="not a readable file"):
        PerceptualNetwork(net, path, bad)


def test_unknown_net_and_unlike_shapes(rng):
    with pytest.raises(UsageError, match="one of alex, vgg"):
        PerceptualSimilarity(net="squeeze")
    x, y = colour_pairs(rng)
    with pytest.raises(DataError, match="one to one"):
        PerceptualSimilarity().score_pairs(x, y[:, :, 1:])
