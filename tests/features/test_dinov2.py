"""DINOv2 against timm's network with the same weights, and against the official resampling of positions."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from genbench.errors import DataError, UsageError
from genbench.features import dinov2
from genbench.features.base import ExtractorOptions
from genbench.features.dinov2 import DINOV2, Architecture, DinoVisionTransformer
from genbench.weights import entry

TINY = Architecture("DINOv2 tiny", width=24, depth=2, heads=3)


def random_state(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {k: 0.3 * torch.randn(v.shape, generator=generator) for k, v in network.state_dict().items()}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.setitem(dinov2.ARCHITECTURES, "vits14", TINY)
    network = DinoVisionTransformer(TINY)
    state = random_state(network)
    network.load_state_dict(state)
    torch.save(state, tmp_path / "tiny.pth")
    return network.eval(), tmp_path / "tiny.pth"


def noise(count, height, width, channels=3):
    return np.random.default_rng(1).integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def to_timm(state):
    """timm has no mask token and keeps the two halves of SwiGLU apart under other names."""
    return {k: v for k, v in state.items() if k != "mask_token"}


@pytest.mark.parametrize(("grid", "size"), [(5, 70), (37, 518)])
def test_network_equals_timm_at_its_native_size(grid, size):
    timm = pytest.importorskip("timm")
    other = timm.create_model("vit_small_patch14_dinov2", img_size=size, depth=1, num_classes=0).eval()
    own = DinoVisionTransformer(Architecture("S", 384, 1, 6, grid=grid)).eval()
    state = random_state(own)
    own.load_state_dict(state)
    other.load_state_dict(to_timm(state))
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert torch.allclose(own(x), other(x), rtol=1e-4, atol=1e-4)


def test_gated_network_equals_timm():
    timm = pytest.importorskip("timm")
    other = timm.create_model(
        "vit_giant_patch14_dinov2",
        img_size=28,
        embed_dim=48,
        depth=2,
        num_heads=3,
        mlp_ratio=2.66667 * 2,
        num_classes=0,
    ).eval()
    own = DinoVisionTransformer(Architecture("g", 48, 2, 3, swiglu=True, grid=2)).eval()
    state = random_state(own)
    own.load_state_dict(state)
    renamed = {k.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): v for k, v in to_timm(state).items()}
    other.load_state_dict(renamed)
    x = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        assert torch.allclose(own(x), other(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", ["vits14", "vitb14", "vitl14"])
def test_float32_parameters_fill_the_published_files(model):
    with torch.device("meta"):
        network = DinoVisionTransformer(dinov2.ARCHITECTURES[model])
    size = 4 * sum(p.numel() for p in network.parameters())
    assert 0 < entry(f"dinov2-{model}").size_bytes - size < 200_000  # names and zip headers


def cubic(x, a=-0.75):
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resampling_matrix(size_out, size_in):
    """Bicubic (Keys, a = -3/4) at (i + 1/2) / s - 1/2 with s = (size_out + 0.1) / size_in, borders repeated."""
    matrix = np.zeros((size_out, size_in))
    for i in range(size_out):
        position = (i + 0.5) * size_in / (size_out + 0.1) - 0.5
        for tap in range(math.floor(position) - 1, math.floor(position) + 3):
            matrix[i, min(max(tap, 0), size_in - 1)] += cubic(position - tap)
    return matrix


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (16, 20), (37, 36)])
def test_positions_are_resampled_with_the_official_offset(tiny, rows, columns):
    network, _ = tiny
    square = network.pos_embed.detach().double().numpy()[0, 1:].reshape(37, 37, -1)
    expected = np.einsum("ih,jw,hwd->ijd", resampling_matrix(rows, 37), resampling_matrix(columns, 37), square)
    with torch.inference_mode():
        found = network.positions(rows, columns)
        kept = network.positions(37, 37)
    np.testing.assert_allclose(found[0, 1:].numpy(), expected.reshape(rows * columns, -1), atol=1e-5)
    assert torch.equal(found[:, :1], network.pos_embed[:, :1]) and torch.equal(kept, network.pos_embed)


def test_features_follow_the_preprocessing_of_dgm_eval(tiny):
    network, path = tiny
    extractor = DINOV2.load(ExtractorOptions(argument="vits14", weights=path, batch_size=2))
    given = noise(3, 40, 28)
    own = transforms.Compose([
        transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ])  # fmt: skip
    batch = torch.stack([own(Image.fromarray(i.transpose(1, 2, 0))) for i in given])
    with torch.inference_mode():
        expected = network(batch)
    found = extractor.extract(given)
    np.testing.assert_allclose(found.features, expected.numpy(), rtol=1e-5, atol=1e-5)
    assert found.logits is None and found.features.shape == (3, TINY.width)


def test_identity_and_note_of_a_file_with_another_hash(tiny):
    _, path = tiny
    extractor = DINOV2.load(ExtractorOptions(argument="vits14", weights=path))
    assert extractor.name == "dinov2:vits14"
    assert set(extractor.identity) == {"name", "weights_sha256", "preprocessing", "precision"}
    assert "Pillow bicubic to 224x224" in extractor.identity["preprocessing"]
    assert extractor.input_size == 224
    assert len(extractor.notes) == 1 and extractor.identity["weights_sha256"][:12] in extractor.notes[0]


def test_grey_images_and_bfloat16(tiny):
    _, path = tiny
    exact = DINOV2.load(ExtractorOptions(argument="vits14", weights=path))
    rounded = DINOV2.load(ExtractorOptions(argument="vits14", weights=path, precision="bfloat16"))
    grey = noise(2, 8, 8, channels=1)
    colour = np.repeat(grey, 3, 1)
    assert np.array_equal(exact.extract(grey).features, exact.extract(colour).features)
    difference = np.abs(rounded.extract(grey).features - exact.extract(grey).features).max()
    assert 0 < difference < 0.2
    assert rounded.identity != exact.identity


def test_bad_requests(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path / "store"))
    _, path = tiny
    with pytest.raises(UsageError, match="Did you mean 'vits14'"):
        DINOV2.load(ExtractorOptions(argument="vits", weights=path))
    with pytest.raises(UsageError, match="tf32"):
        DINOV2.load(ExtractorOptions(argument="vits14", weights=path, precision="tf32"))
    with pytest.raises(
        DataError, match=r"not the weights of DINOv2 ViT-B/14: missing: blocks.*of another shape: cls_token"
    ):
        DINOV2.load(ExtractorOptions(argument="vitb14", weights=path))
    with pytest.raises(DataError, match="1 or 3 channels"):
        DINOV2.load(ExtractorOptions(argument="vits14", weights=path)).extract(noise(1, 8, 8, channels=4))
    status = DINOV2.status()
    assert not status.available and "dinov2_vitl14_pretrain.pth" in status.detail
