"""Labels of samples: the classes that are asked for, those that controls know, and the captions made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import toys

from genbench.api import Condition, ImageSpec, ModelConfig, SampleRequest
from genbench.controls import Gaussian, Memoriser, ModeDropper, TestSplit
from genbench.data import Splits, load_dataset
from genbench.errors import DataError
from genbench.files import write_npz
from genbench.images import from_levels, to_levels
from genbench.metrics.base import MetricInputs, Side
from genbench.metrics.clip_score import ClipScore
from genbench.noise import NoiseSource
from genbench.run.captions import asked_labels, image_text_of
from genbench.run.stages import read_labels
from genbench.sample import ModelOutputError, default_condition, draw, draw_samples, sample_labels
from genbench.testing import check_labels, subject_for
from genbench.timing import time_sampling

SPEC = ImageSpec(1, 4, 4, 5, ("a", "b", "c"))


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_dataset("digits")


def fitted(control, splits, seed=0):
    model = control(control.Config(), splits.spec)
    model.fit_splits(splits, torch.Generator().manual_seed(seed))
    return model


class ShowsLabel(toys.Histogram):
    """Every pixel is the label's level."""

    conditions = frozenset({"labels"})

    def sample(self, request):
        shown = request.condition.labels[:, None, None, None].expand(-1, *self.spec.shape)
        return from_levels(shown, self.spec.levels)


class WrongLabels(toys.Histogram):
    """Knows labels that are no classes."""

    def labels_of(self, request):
        return torch.full((len(request),), 3)


class ShortLabels(toys.Histogram):
    """Knows too few labels."""

    def labels_of(self, request):
        return request.noise.index[:-1]


def test_classes_are_asked_for_in_turn():
    model = ShowsLabel(ModelConfig(), SPEC)
    expected = np.arange(8) % 3
    for batch_size in (3, 8):
        shown = to_levels(torch.from_numpy(draw_samples(model, 8, 0, batch_size)), 5)
        np.testing.assert_array_equal(shown[:, 0, 0, 0], expected)
    np.testing.assert_array_equal(sample_labels(model, 8, seed=5), expected)
    asked = draw(model, torch.arange(2), 0, condition=Condition(labels=torch.tensor([2, 2])))
    np.testing.assert_array_equal(to_levels(asked, 5)[:, 0, 0, 0], [2, 2])
    assert time_sampling(model, batch_size=4, seed=0, window_seconds=0.001).batch_size == 4


def test_other_models_are_asked_for_nothing():
    model = toys.Histogram(ModelConfig(), SPEC)
    assert default_condition(model, torch.arange(4)) == Condition()
    assert sample_labels(model, 4, 0) is None
    nameless = ShowsLabel(ModelConfig(), replace(SPEC, class_names=()))
    assert default_condition(nameless, torch.arange(4)) == Condition()


@pytest.mark.parametrize("control", [TestSplit, Memoriser, ModeDropper])
def test_replayed_images_keep_their_labels(control, digits):
    model = fitted(control, digits)
    labels = sample_labels(model, 2000, 0)
    assert labels.dtype == np.int64
    split = digits.test if control is TestSplit else digits.train
    of_image = {image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)}
    images = draw_samples(model, 2000, 0, 500)
    assert [of_image[image.tobytes()] for image in images] == labels.tolist()
    assert len(set(labels.tolist())) == (5 if control is ModeDropper else 10)
    request = SampleRequest(NoiseSource(0, torch.tensor([1999, 3])))
    np.testing.assert_array_equal(model.labels_of(request), labels[[1999, 3]])
    fresh = control(control.Config(), digits.spec)
    fresh.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(sample_labels(fresh, 50, 0), labels[:50])


def test_without_labels_a_replay_knows_none(digits):
    spec = replace(digits.spec, class_names=())
    bare = {name: replace(getattr(digits, name), labels=None, spec=spec) for name in ("train", "validation", "test")}
    assert sample_labels(fitted(TestSplit, Splits("bare", **bare)), 10, 0) is None
    assert sample_labels(fitted(Gaussian, digits), 10, 0) is None


def test_wrong_labels_are_described():
    with pytest.raises(ModelOutputError, match=r"outside 0\.\.2"):
        sample_labels(WrongLabels(ModelConfig(), SPEC), 4, 0)
    with pytest.raises(ModelOutputError, match=r"expected int64 \(4,\)"):
        sample_labels(ShortLabels(ModelConfig(), SPEC), 4, 0)


def test_the_contract_wants_labels_to_matter():
    class Deaf(toys.Histogram):
        conditions = frozenset({"labels"})

    check_labels(subject_for(ShowsLabel))
    with pytest.raises(AssertionError, match="other labels gave the same samples"):
        check_labels(subject_for(Deaf))


def test_labels_are_read_back_from_beside_the_samples(tmp_path):
    images = np.zeros((3, 2, 2, 1), np.uint8)
    write_npz(tmp_path / "with.npz", arr_0=images, arr_1=np.array([2, 0, 1]))
    write_npz(tmp_path / "without.npz", arr_0=images)
    write_npz(tmp_path / "odd.npz", arr_0=images, arr_1=np.zeros((3, 2)))
    np.testing.assert_array_equal(read_labels(tmp_path / "with.npz"), [2, 0, 1])
    assert read_labels(tmp_path / "without.npz") is None
    with pytest.raises(DataError, match=r"odd\.npz: arr_1 is float64 \(3, 2\)"):
        read_labels(tmp_path / "odd.npz")


def test_what_a_row_is_held_against(digits):
    own = np.array([4, 4])
    assert asked_labels(digits, 2, own, control=False) is own
    assert asked_labels(digits, 2, own, control=True) is own
    assert asked_labels(digits, 2, None, control=False) is None
    floor = asked_labels(digits, 300, None, control=True)
    np.testing.assert_array_equal(floor, [*digits.test.labels, *digits.test.labels[:3]])


class OneAxisAClass:
    """An image's embedding is the axis of its first level; a text's that of the digit it ends with."""

    name, notes, context_length, logit_scale, identity = "axes", (), 77, 1.0, {}
    images = 0

    def encode_images(self, images):
        self.images += len(images)
        return np.eye(10, dtype=np.float32)[to_levels(torch.from_numpy(images), 17)[:, 0, 0, 0]]

    def encode_texts(self, texts):
        return np.array([np.eye(10)[int(text[-1])] for text in texts], dtype=np.float32)


def test_samples_meet_the_captions_of_their_labels(digits):
    model = OneAxisAClass()
    levels = torch.arange(10)[:, None, None, None].expand(-1, 1, 8, 8)
    images, labels = from_levels(levels, 17).numpy(), np.array([0, 1, 2, 3, 4, 9, 8, 7, 6, 5])
    found = image_text_of(model, "the digit {}", digits, images, labels)
    assert model.images == 0
    assert found.prompts[5] == "the digit 9" and found.class_names == digits.spec.class_names
    side = Side("samples", 10, images)
    (estimate,) = ClipScore().compute(MetricInputs(side, side, image_text=found))
    assert estimate.value == pytest.approx(2.5 * 6 / 10)
    assert estimate.conditions["prompts_fingerprint"] == found.known_fingerprint
    reordered = image_text_of(model, "the digit {}", digits, images, labels[::-1])
    assert reordered.prompts_fingerprint == found.prompts_fingerprint
    assert image_text_of(model, "a {}", digits, images, labels).prompts_fingerprint != found.prompts_fingerprint
    assert image_text_of(model, "a {}", digits, images, None).prompts is None
    assert model.images == 10
