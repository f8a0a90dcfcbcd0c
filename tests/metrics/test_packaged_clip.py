"""The packaged CLIP: what ships is what its manifest says, offline and without heavy imports until it is used."""

import json
import shutil
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from genbench.data import load_dataset
from genbench.errors import DataError
from genbench.features import ExtractorOptions, extractor_status, load_extractor, packaged_clip
from genbench.features.image_text import ImageTextSource, load_image_text
from genbench.features.packaged_clip import (
    DIGITS_CLIP,
    FIRST_WORD,
    PAD,
    START,
    UNKNOWN,
    ClipManifest,
    PackagedClipSource,
    to_pixels,
    to_tokens,
)
from genbench.metrics import ImageText, MetricInputs, Side
from genbench.metrics.clip_retrieval import ClipAccuracy
from genbench.metrics.clip_score import ClipScore
from genbench.metrics.frechet import FrechetInceptionDistance

NAMES = tuple("0123456789")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def clip():
    return load_image_text("digits-clip")


@pytest.fixture
def copy(tmp_path):
    for suffix in (".json", ".safetensors"):
        shutil.copy(packaged_clip.WEIGHTS_FOLDER / f"digits-clip{suffix}", tmp_path)
    return PackagedClipSource("digits-clip", tmp_path)


def measured(clip, images, labels, caption="the handwritten digit {}"):
    prompts = tuple(caption.format(label) for label in labels)
    side = Side("samples", len(images), images)
    return MetricInputs(side, side, image_text=ImageText(clip, clip.encode_images(images), prompts, labels, NAMES))


def value(metric, inputs):
    (estimate,) = metric.compute(inputs)
    return estimate.value


def uniform_noise(count):
    return (np.random.default_rng(0).integers(0, 17, (count, 1, 8, 8)) * 255 / 16).round().astype(np.uint8)


def test_accuracies_and_cosines_are_the_manifests(digits, clip):
    training = clip.manifest.training
    assert training.dataset_fingerprint == digits.fingerprint
    test = measured(clip, digits.test.images, digits.test.labels, "a photo of a {}.")
    assert value(ClipAccuracy(), test) == pytest.approx(training.test_accuracy, abs=1e-9)
    validation = measured(clip, digits.validation.images, digits.validation.labels)
    assert value(ClipAccuracy(), validation) == pytest.approx(training.validation_accuracy, abs=1e-9)
    assert value(ClipScore(prefix="", scale=1.0, clamp="mean"), test) == pytest.approx(training.own_cosine, abs=1e-5)
    assert training.test_accuracy >= 0.95 and training.test_images == 297


@pytest.mark.parametrize("template", ["{}", "the handwritten digit {}", "My aunt, in Perth, drew a lovely {} for us!"])
def test_other_phrasings_do_little_harm(digits, clip, template):
    assert value(ClipAccuracy(template), measured(clip, digits.test.images, digits.test.labels)) >= 0.95


def test_words_and_numerals_mean_the_same(clip):
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    a, b = (clip.encode_texts([f"a drawing of a {name}" for name in names]) for names in (words, NAMES))
    cosines = a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    assert (cosines.argmax(1) == np.arange(10)).all()
    assert np.diag(cosines).min() > 0.95


def test_clip_score_tells_digits_from_wrong_captions_and_from_noise(digits, clip):
    test, metric = digits.test, ClipScore()
    right = value(metric, measured(clip, test.images, test.labels))
    wrong = value(metric, measured(clip, test.images, (test.labels + 1) % 10))
    noise = value(metric, measured(clip, uniform_noise(297), test.labels))
    assert right > 1.5 > 0.5 > wrong > noise
    assert noise < 0.1


def test_the_weights_are_open_clips_own_and_small(clip):
    network = open_clip.model.CLIP(64, *_towers(clip.manifest.architecture))
    network.load_state_dict(load_file(DIGITS_CLIP.files.weights))
    images = uniform_noise(5)
    with torch.no_grad():
        found = network.eval().encode_image(to_pixels(torch.from_numpy(images)))
    np.testing.assert_allclose(clip.encode_images(images), found, rtol=1e-5, atol=1e-5)
    assert DIGITS_CLIP.files.weights.stat().st_size < 1.5e6
    assert clip.logit_scale == pytest.approx(float(network.logit_scale.detach().exp()), rel=1e-6)


def _towers(a):
    vision = {"image_size": 8, "patch_size": 2, "width": 64, "layers": a.vision_layers, "head_width": 16}
    text = {"context_length": 32, "vocab_size": a.end + 1, "width": 64, "heads": 4, "layers": a.text_layers}
    return vision, text


def test_tokens_of_a_text(clip):
    a = clip.manifest.architecture
    position = {token: FIRST_WORD + i for i, token in enumerate(a.vocabulary)}
    (row,) = to_tokens(["The Digit zebra 7"], a).tolist()
    assert row[:6] == [START, position["the "], position["digit "], UNKNOWN, position["7 "], a.end]
    assert set(row[6:]) == {PAD} and len(row) == a.context_length == clip.context_length
    (empty,) = to_tokens([""], a).tolist()
    assert empty[:3] == [START, a.end, PAD]


def test_a_text_beyond_the_context_is_cut(clip):
    a = clip.manifest.architecture
    words = ["seven"] * (a.context_length - 2)
    exact, longer = " ".join(words), " ".join([*words, "nine", "nine"])
    (row,) = to_tokens([longer], a).tolist()
    assert row[-1] == a.end and PAD not in row
    np.testing.assert_array_equal(*clip.encode_texts([exact, longer]))


def test_embeddings_do_not_depend_on_the_batch(digits, clip, monkeypatch):
    images, texts = digits.test.images[:50], [f"the number {name}" for name in NAMES]
    small = DIGITS_CLIP.load(ExtractorOptions(batch_size=7))
    np.testing.assert_allclose(small.encode_images(images), clip.encode_images(images), rtol=1e-4, atol=1e-5)
    whole = clip.encode_texts(texts)
    monkeypatch.setattr(packaged_clip, "TEXTS_AT_ONCE", 3)
    np.testing.assert_allclose(clip.encode_texts(texts), whole, rtol=1e-4, atol=1e-5)


def test_grey_in_three_channels_is_grey(digits, clip):
    grey = digits.test.images[:9]
    np.testing.assert_array_equal(clip.encode_images(np.repeat(grey, 3, 1)), clip.encode_images(grey))


def test_it_is_an_extractor_for_any_feature_metric(digits):
    extractor = load_extractor("digits-clip")
    assert isinstance(DIGITS_CLIP, ImageTextSource)
    train, test = (extractor.extract(split.images) for split in (digits.train, digits.test))
    assert test.features.shape == (297, 64) and test.features.dtype == np.float32 and test.logits is None
    reference = Side.of("reference images", train)
    real, noise = (
        value(FrechetInceptionDistance(), MetricInputs(Side.of("samples", f), reference, extractor=extractor))
        for f in (test, extractor.extract(uniform_noise(297)))
    )
    assert 0 < 20 * real < noise
    labels, features = digits.train.labels, train.features.astype(np.float64)
    means = np.stack([features[labels == c].mean(0) for c in range(10)])
    within = np.square(features - means[labels]).sum(1).mean()
    between = np.square(means[labels] - features.mean(0)).sum(1).mean()
    assert within / (within + between) > 0.08


def test_nothing_heavy_is_imported_before_the_first_embedding():
    code = (
        "import sys; from genbench.features.packaged_clip import DIGITS_CLIP; "
        "from genbench.features.base import ExtractorOptions; "
        "found = DIGITS_CLIP.load(ExtractorOptions()); found.identity; "
        "assert not {'open_clip', 'torchvision', 'timm'} & set(sys.modules), 'imported too soon'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_other_input_is_refused(clip):
    for shape in ((2, 1, 9, 8), (2, 2, 8, 8), (2, 4, 8, 8)):
        with pytest.raises(DataError, match=r"takes images of \(C, H, W\) = \(1 or 3, 8, 8\)"):
            clip.encode_images(np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match="Expected uint8"):
        clip.encode_images(np.zeros((2, 1, 8, 8), np.float32))
    with pytest.raises(DataError, match="no text to embed"):
        clip.encode_texts([])


def test_damaged_or_missing_files_are_refused(copy):
    assert extractor_status("digits-clip").available and copy.status().available
    data = bytearray(copy.files.weights.read_bytes())
    data[-1] ^= 1
    copy.files.weights.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"SHA-256 is .*, the manifest says"):
        copy.load(ExtractorOptions())
    assert not copy.status().available
    copy.files.weights.unlink()
    with pytest.raises(DataError, match=r"missing.*scripts/train_clip\.py --dataset digits"):
        copy.load(ExtractorOptions())
    manifest = copy.folder / "digits-clip.json"
    text = manifest.read_text()
    for content in (text[:50], json.dumps({**json.loads(text), "colour": "red"})):
        manifest.write_text(content)
        with pytest.raises(DataError, match="no readable manifest"):
            copy.load(ExtractorOptions())


def test_weights_of_another_architecture_are_refused(copy):
    path = copy.folder / "digits-clip.json"
    manifest = ClipManifest.model_validate_json(path.read_text())
    wider = manifest.architecture.model_copy(update={"embed_dim": 65})
    path.write_text(manifest.model_copy(update={"architecture": wider}).model_dump_json())
    with pytest.raises(DataError, match="does not fit its manifest"):
        copy.load(ExtractorOptions()).encode_texts(["a 3"])
