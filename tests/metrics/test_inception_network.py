"""InceptionV3: wired as torchvision's but for the documented differences, TensorFlow's resize, weights files."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torchvision.models import inception as tv

from genbench.errors import DataError
from genbench.features import ExtractorOptions, extractor_status, inception, load_extractor
from genbench.files import hash_file


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = inception.InceptionV3().eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / inception.FILE_NAME
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def folder(weights, monkeypatch):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(weights.parent))
    return weights.parent


def test_shapes_and_logits_without_bias(network):
    x = torch.rand(2, 3, 299, 299) * 2 - 1
    with torch.inference_mode():
        features, logits = network(x)
        torch.testing.assert_close(logits, network.fc(features) - network.fc.bias)
    assert features.shape == (2, 2048) and logits.shape == (2, 1008)


def test_wiring_is_torchvisions_once_the_differences_are_undone(network, monkeypatch):
    theirs = tv.Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    assert set(theirs.state_dict()) == set(network.state_dict())
    theirs.load_state_dict(network.state_dict())
    theirs.dropout = torch.nn.Identity()
    x = torch.rand(1, 3, 299, 299) * 2 - 1
    with torch.inference_mode():
        expected, ours = theirs(x), network(x)[1] + network.fc.bias
        assert (expected - ours).abs().max() > 1e-3
        monkeypatch.setattr(inception, "_pool", lambda x: F.avg_pool2d(x, 3, 1, 1))
        monkeypatch.setattr(network.Mixed_7c, "max_pool", False)
        torch.testing.assert_close(network(x)[1] + network.fc.bias, expected, rtol=1e-4, atol=1e-5)


def test_pool_leaves_padding_out_of_the_mean():
    torch.testing.assert_close(inception._pool(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize("size_in, size_out", [(32, 299), (8, 299), (299, 299), (512, 299)])
def test_resize_reads_position_i_in_out(size_in, size_out):
    matrix = inception.interpolation_matrix(size_in, size_out)
    torch.testing.assert_close(matrix.sum(1), torch.ones(size_out))
    position = torch.clamp(torch.arange(size_out) * size_in / size_out, max=size_in - 1)
    torch.testing.assert_close(matrix @ torch.arange(size_in, dtype=torch.float32), position, rtol=1e-5, atol=1e-4)
    assert (matrix > 0).sum(1).max() <= 2


def test_preprocessing_range_and_grey_images():
    images = torch.stack([torch.zeros(1, 8, 8), torch.full((1, 8, 8), 255)]).to(torch.uint8)
    x = inception.preprocess(images)
    assert x.shape == (2, 3, 299, 299)
    torch.testing.assert_close(x[0], torch.full((3, 299, 299), -1.0))
    torch.testing.assert_close(x[1], torch.full((3, 299, 299), 127 / 128))


def test_weights_survive_a_file(network, folder):
    source = inception.InceptionSource(sha256=hash_file(folder / inception.FILE_NAME))
    extractor = source.load(ExtractorOptions(batch_size=2))
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16)).astype(np.uint8)
    found = extractor.extract(images)
    with torch.inference_mode():
        features, logits = network(inception.preprocess(torch.from_numpy(images)))
    np.testing.assert_allclose(found.features, features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-4)
    assert extractor.identity["weights_sha256"] == source.sha256 and extractor.identity["protocol"] == "tf1"
    assert source.status().available


def test_missing_weights_say_which_file_from_where_and_where_to(monkeypatch, tmp_path):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(inception, "user_cache_dir", lambda _: str(tmp_path / "cache"))
    with pytest.raises(DataError) as error:
        load_extractor("inception-v3")
    for part in (inception.FILE_NAME, inception.URL, str(tmp_path), "GENBENCH_WEIGHTS"):
        assert part in str(error.value)
    status = extractor_status("inception-v3")
    assert not status.available and inception.URL in status.detail


@pytest.mark.usefixtures("folder")
def test_other_weights_than_the_pinned_ones_are_refused():
    with pytest.raises(DataError, match=r"SHA-256 is .*, expected 6726825d"):
        load_extractor("inception-v3")


def refused(path, content):
    torch.save(content, path)
    with pytest.raises(DataError, match="not the weights of InceptionV3") as error:
        inception.load_state(inception.InceptionV3(), path)
    return str(error.value)


def test_files_that_are_no_weights(network, tmp_path):
    path = tmp_path / "weights.pth"
    state = dict(network.state_dict())
    assert "fc.weight" in refused(path, {k: v for k, v in state.items() if k != "fc.weight"})
    assert "AuxLogits" in refused(path, {**state, "AuxLogits.fc.weight": torch.zeros(1)})
    assert "size mismatch" in refused(path, {**state, "fc.bias": torch.zeros(1000)})
    refused(path, dict.fromkeys(state, 1))
    refused(path, [1, 2])
    path.write_bytes(b"not a file of torch")
    with pytest.raises(DataError, match="not the weights"):
        inception.load_state(inception.InceptionV3(), path)


class Dangerous:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_code_in_a_weights_file_never_runs(tmp_path):
    refused(tmp_path / "weights.pth", {"fc.weight": Dangerous()})


def test_refuses_images_of_four_channels(network):
    extractor = inception.InceptionExtractor(network, "0", "cpu", 1)
    with pytest.raises(DataError, match="1 or 3 channels, got 4"):
        extractor.extract(np.zeros((1, 4, 8, 8), np.uint8))
