"""InceptionV3: wired as torchvision's but for the documented differences, batch normalisation folded, weights files."""

import copy

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import inception as tv

from genbench.errors import DataError
from genbench.features import inception_network as net
from genbench.weights.tensors import load_into, read_tensors


@pytest.fixture(scope="module")
def state(inception_file):
    return read_tensors(inception_file)


@pytest.fixture(scope="module")
def network(state):
    """Not folded."""
    network = net.InceptionV3().eval().requires_grad_(False)
    load_into(network, state, "state", "InceptionV3")
    return network


@pytest.fixture(scope="module")
def x():
    return F.interpolate(torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)), size=299) * 2 - 1


def test_logits_are_those_of_the_classifier_without_its_bias(network, x):
    found = network(x)
    torch.testing.assert_close(found.logits, network.fc(found.features) - network.fc.bias, rtol=1e-4, atol=1e-4)
    assert found.features.shape == (1, 2048) and found.logits.shape == (1, 1008) and found.spatial is None


def test_wiring_is_torchvisions_once_the_differences_are_undone(network, state, x, monkeypatch):
    theirs = tv.Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval().requires_grad_(False)
    theirs.load_state_dict(state)
    theirs.dropout = torch.nn.Identity()
    expected = theirs(x)
    assert (expected - network(x).logits - network.fc.bias).abs().max() > 1e-2
    monkeypatch.setattr(net, "_pool", lambda x: F.avg_pool2d(x, 3, 1, 1))
    monkeypatch.setattr(network.Mixed_7c, "max_pool", False)
    torch.testing.assert_close(network(x).logits + network.fc.bias, expected, rtol=1e-4, atol=1e-4)


def test_pool_leaves_padding_out_of_the_mean():
    torch.testing.assert_close(net._pool(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 4, 4))


def test_folding_changes_nothing(network, x):
    folded = net.fold(copy.deepcopy(network))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    expected, found = network(x, spatial=True), folded(x, spatial=True)
    for name in ("features", "logits", "spatial"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4)


def test_counters_of_batch_normalisation_may_be_there(network, tmp_path, x):
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    torch.testing.assert_close(net.load_network(path)(x, 64).features, network(x, 64).features, rtol=1e-5, atol=1e-5)


def refused(path, content):
    torch.save(content, path)
    with pytest.raises(DataError) as error:
        net.load_network(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_files_that_are_no_weights(state, tmp_path):
    path = tmp_path / "weights.pth"
    small = {key: value for key, value in state.items() if key.startswith("fc.")}
    message = refused(path, small)
    assert "missing: Conv2d_1a_3x3.conv.weight, Conv2d_1a_3x3.bn.weight" in message and "InceptionV3" in message
    assert "unknown: AuxLogits.fc.weight" in refused(path, {**state, "AuxLogits.fc.weight": torch.zeros(1)})
    message = refused(path, {**state, "fc.bias": torch.zeros(1000)})
    assert "fc.bias (1000,), expected (1008,)" in message and "missing" not in message
    refused(path, [1, 2])
    path.write_bytes(b"not a file of torch")
    with pytest.raises(DataError, match=r"weights\.pth"):
        net.load_network(path)


@pytest.mark.parametrize("part, value", [("conv.weight", float("nan")), ("bn.running_var", -1.0)])
def test_values_that_make_no_network(state, tmp_path, part, value):
    key = f"Mixed_6a.branch3x3.{part}"
    message = refused(tmp_path / "weights.pth", {**state, key: torch.full_like(state[key], value)})
    assert "Mixed_6a.branch3x3 holds NaN" in message


class Dangerous:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_code_in_a_weights_file_never_runs(tmp_path):
    refused(tmp_path / "weights.pth", {"fc.weight": Dangerous()})
