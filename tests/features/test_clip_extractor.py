"""CLIP through open_clip, with a small architecture and random weights."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from genbench.errors import DataError, UsageError
from genbench.features.base import ExtractorOptions
from genbench.features.clip import CLIP

open_clip = pytest.importorskip("open_clip")

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    (folder / "genbench-tiny.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / "genbench-tiny.json")
    torch.manual_seed(0)
    model = open_clip.create_model("genbench-tiny").eval()
    path = folder / "tiny.safetensors"
    save_file({k: v.clone() for k, v in model.state_dict().items()}, path)
    return model, path


def load(path, **options):
    return CLIP.load_image_text(ExtractorOptions(argument="genbench-tiny", weights=path, **options))


def noise(count, height, width, channels=3):
    return np.random.default_rng(1).integers(0, 256, (count, channels, height, width), dtype=np.uint8)


def test_images_and_texts_equal_open_clips_own_pipeline(tiny):
    model, path = tiny
    clip = load(path, batch_size=2)
    images, texts = noise(5, 40, 61), ["a photo of a 3.", "a dog " * 100, "", "x", "ß"]
    own = open_clip.image_transform(32, is_train=False)
    with torch.inference_mode():
        batch = torch.stack([own(Image.fromarray(i.transpose(1, 2, 0))) for i in images])
        expected_images = model.encode_image(batch).numpy()
        expected_texts = model.encode_text(open_clip.get_tokenizer("genbench-tiny")(texts)).numpy()
    np.testing.assert_allclose(clip.encode_images(images), expected_images, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(clip.encode_texts(texts), expected_texts, rtol=1e-4, atol=1e-6)
    assert np.array_equal(clip.extract(images).features, clip.encode_images(images))
    assert clip.encode_texts(texts).dtype == np.float32
    assert (clip.context_length, round(clip.logit_scale, 4)) == (77, round(1 / 0.07, 4))


def test_embeddings_are_not_normalised_and_grey_is_repeated(tiny):
    clip = load(tiny[1])
    grey = noise(2, 8, 8, channels=1)
    found = clip.encode_images(grey)
    assert np.array_equal(found, clip.encode_images(np.repeat(grey, 3, 1)))
    assert np.abs(np.linalg.norm(found, axis=1) - 1).min() > 1e-3


def test_identity_says_what_made_the_numbers(tiny):
    clip = load(tiny[1])
    assert clip.name == clip.identity["name"] == "clip:genbench-tiny"
    assert clip.input_size == 32
    assert "shorter side to 32, centre crop 32x32" in clip.identity["preprocessing"]
    assert "77 tokens" in clip.identity["tokenizer"]
    assert clip.notes and clip.identity["weights_sha256"][:12] in clip.notes[0]


def test_openai_tags_use_quick_gelu_and_half_precision_files(tmp_path, monkeypatch):
    built = {}
    create = open_clip.create_model

    def spy(name, **arguments):
        built.update(arguments, name=name)
        return create("genbench-tiny", **arguments)

    (tmp_path / "genbench-tiny.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(tmp_path / "genbench-tiny.json")
    torch.manual_seed(0)
    state = create("genbench-tiny", force_quick_gelu=True).state_dict()
    wanted = {k: v.half() for k, v in state.items()} | {"input_resolution": torch.tensor(32)}
    torch.save(wanted, tmp_path / "half.pth")
    monkeypatch.setattr(open_clip, "create_model", spy)
    clip = CLIP.load(ExtractorOptions(argument="", weights=tmp_path / "half.pth"))
    assert built["name"] == "ViT-B-32" and built["force_quick_gelu"] is True
    assert clip.name == "clip:ViT-B-32/openai" and clip.encode_texts(["x"]).shape == (1, 16)
    assert "40d365715913" in clip.notes[0]
    laion = CLIP.load(ExtractorOptions(argument="ViT-B-32/laion2b_s34b_b79k", weights=tmp_path / "half.pth"))
    assert built["force_quick_gelu"] is False
    assert not np.allclose(laion.encode_images(noise(2, 8, 8)), clip.encode_images(noise(2, 8, 8)))


def test_a_known_torchscript_file_is_read_and_an_unknown_one_refused(tiny, tmp_path, monkeypatch):
    from genbench.features import clip as module
    from genbench.weights import LocatedWeights

    class Archive(torch.nn.Module):
        def __init__(self, state):
            super().__init__()
            self.weight = torch.nn.Parameter(state["text_projection"])

        def forward(self, x):
            return x @ self.weight

    torch.jit.save(torch.jit.script(Archive(tiny[0].state_dict())), tmp_path / "a.pt")
    config = {"url": "https://openaipublic.azureedge.net/x/y.pt"}
    known = module._tensors(LocatedWeights(tmp_path / "a.pt", "0" * 64, known=True), config)
    assert list(known) == ["weight"]
    with pytest.raises(DataError, match=r"a.pt: not a readable file of weights"):
        module._tensors(LocatedWeights(tmp_path / "a.pt", "0" * 64, known=False), config)


def test_bad_requests(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path))
    with pytest.raises(UsageError, match="Did you mean 'ViT-B-32'"):
        CLIP.load(ExtractorOptions(argument="ViT-B32"))
    with pytest.raises(UsageError, match="Unknown weights of CLIP model ViT-B-32 'laion'"):
        CLIP.load(ExtractorOptions(argument="ViT-B-32/laion"))
    with pytest.raises(DataError, match=r"laion2b_s34b_b79k.*huggingface.co/laion/.*--weights"):
        CLIP.load(ExtractorOptions(argument="ViT-B-32/laion2b_s34b_b79k"))
    torch.save({"x": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(DataError, match=r"not the weights of CLIP genbench-tiny: missing: .*unknown: x"):
        load(tmp_path / "wrong.pth")
    clip = load(tiny[1])
    with pytest.raises(DataError, match="no text"):
        clip.encode_texts([])
    with pytest.raises(DataError, match="1 or 3 channels"):
        clip.encode_images(noise(1, 8, 8, channels=2))
    status = CLIP.status()
    assert not status.available and "ViT-B-32.pt" in status.detail


def test_a_tokenizer_that_wants_a_network_is_a_sentence(tiny, monkeypatch):
    def offline(name):
        raise OSError("no network")

    monkeypatch.setattr(open_clip, "get_tokenizer", offline)
    with pytest.raises(UsageError, match="cannot build CLIP model genbench-tiny here: no network"):
        load(tiny[1])
