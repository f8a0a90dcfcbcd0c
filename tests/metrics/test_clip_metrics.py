"""CLIP score, R-precision and zero-shot accuracy on embeddings put in by hand."""

import math

import numpy as np
import pytest
import torch
from metric_inputs import compute_one
from torchmetrics.functional.multimodal.clip_score import clip_score as torchmetrics_clip_score

from genbench.errors import DataError, UsageError
from genbench.features.base import Features
from genbench.metrics import ImageText, MetricInputs, NotApplicable, Side
from genbench.metrics.clip_retrieval import ClipAccuracy, ClipRPrecision, draw_distractors
from genbench.metrics.clip_score import ClipScore
from genbench.metrics.scoring import _result
from genbench.protocols import PROTOCOLS


class FakeModel:
    """Embeds texts by a table; remembers what it was asked for."""

    name = "fake-clip"
    notes = ()
    context_length = 77
    logit_scale = 100.0
    identity = {"name": "fake-clip", "weights_sha256": "0" * 64}  # noqa: RUF012

    def __init__(self, table):
        self.table, self.asked = table, []

    def encode_images(self, images):
        raise AssertionError("images are embedded before")

    def encode_texts(self, texts):
        self.asked.append(list(texts))
        return np.array([self.table[text] for text in texts], dtype=np.float32)


def inputs(images, table, prompts=None, labels=None, class_names=()):
    images = np.asarray(images, dtype=np.float32)
    side = Side.of("samples", Features(np.zeros((max(2, len(images)), 1), np.float32)))
    given = ImageText(
        FakeModel(table),
        images,
        None if prompts is None else tuple(prompts),
        None if labels is None else np.asarray(labels),
        tuple(class_names),
    )
    return MetricInputs(side, side, image_text=given)


def plane(*degrees):
    """Vectors in the plane, each of another length."""
    return [[(i + 1) * math.cos(math.radians(d)), (i + 1) * math.sin(math.radians(d))] for i, d in enumerate(degrees)]


def random_pairs(rng, count, dim=12):
    """Images near their own texts, with as many distinct prompts as images."""
    texts = rng.normal(size=(count, dim))
    images = texts + 1.2 * rng.normal(size=(count, dim))
    prompts = [f"text {i}" for i in range(count)]
    return images, dict(zip(prompts, texts, strict=True)), prompts


def torchmetrics_on(images, texts):
    """torchmetrics' CLIP score of embeddings given beforehand."""

    class Model:
        config = None

        def to(self, device):
            return self

        def get_image_features(self, values):
            return torch.from_numpy(images).double()

        def get_text_features(self, ids, mask):
            return torch.from_numpy(texts).double()

    def processor(**given):
        return dict.fromkeys(("pixel_values", "input_ids", "attention_mask"), torch.zeros(1))

    pixels, words = [torch.zeros(3, 2, 2)] * len(images), ["word"] * len(images)
    return float(torchmetrics_clip_score(pixels, words, lambda: (Model(), processor)))


def test_clip_score_is_the_papers():
    table = {f"A photo depicts {p}": v for p, v in zip("abc", plane(0, 0, 0), strict=True)}
    found = compute_one(ClipScore(), inputs(plane(60, 120, 0), table, "abc"))
    np.testing.assert_allclose(found.per_image, [1.25, 0.0, 2.5], atol=1e-6)
    assert found.value == pytest.approx(1.25)
    assert found.extra["mean_cosine"] == pytest.approx(1 / 3)
    half = 1.959963984540054 * 1.25 / math.sqrt(3)
    assert found.ci95 == pytest.approx((max(0.0, 1.25 - half), 1.25 + half))
    assert (found.n, found.paired_by, found.interval) == (3, "prompt", "normal over images")


def test_each_text_is_embedded_once_for_all_metrics():
    table = {"x a": [1.0, 0.0], "x b": [0.0, 1.0]}
    given = inputs(plane(0, 10, 90, 80), table, "abba")
    first = compute_one(ClipScore(prefix="x "), given)
    again = compute_one(ClipScore(prefix="x ", scale=5.0), given)
    assert given.image_text.model.asked == [["x a", "x b"]]
    np.testing.assert_allclose(again.per_image, 2 * first.per_image)
    np.testing.assert_allclose(first.per_image / 2.5, np.maximum(np.cos(np.radians([0, 80, 0, 80])), 0), atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_torchmetrics_variant_equals_torchmetrics(rng, shift):
    """Also where the mean is below zero, which torchmetrics clamps after averaging."""
    images, table, prompts = random_pairs(rng, 40)
    images = (shift * images).astype(np.float32)
    metric = ClipScore(**PROTOCOLS["torchmetrics"].options["clip_score"])
    found = compute_one(metric, inputs(images, table, prompts))
    texts = np.array([table[p] for p in prompts], dtype=np.float32)
    assert found.value == pytest.approx(torchmetrics_on(images, texts), rel=1e-9)
    assert found.value > 20 if shift > 0 else found.value == 0.0
    assert (found.per_image < 0).any()
    clamped_each = compute_one(ClipScore(prefix="", scale=100.0), inputs(images, table, prompts)).value
    assert clamped_each > found.value + 0.1
    assert found.estimator != compute_one(ClipScore(prefix=""), inputs(images, table, prompts)).estimator


def test_lengths_and_order_do_not_matter(rng):
    images, table, prompts = random_pairs(rng, 30)
    whole = compute_one(ClipScore(prefix=""), inputs(images, table, prompts))
    scaled = images * rng.uniform(0.1, 10, (30, 1))
    assert compute_one(ClipScore(prefix=""), inputs(scaled, table, prompts)).value == pytest.approx(whole.value)
    order = rng.permutation(30)
    shuffled = compute_one(ClipScore(prefix=""), inputs(images[order], table, [prompts[i] for i in order]))
    assert shuffled.value == pytest.approx(whole.value, rel=1e-12)
    np.testing.assert_allclose(shuffled.per_image, whole.per_image[order])


def test_r_precision_with_all_prompts_is_the_argmax(rng):
    images, table, prompts = random_pairs(rng, 60)
    found = compute_one(ClipRPrecision(), inputs(images, table, prompts))
    texts = np.array([table[p] for p in prompts])
    cosines = images @ texts.T / np.linalg.norm(texts, axis=1)
    np.testing.assert_array_equal(found.per_image, cosines.argmax(1) == np.arange(60))
    assert found.extra == {"candidates": 60, "chance": 1 / 60}
    assert found.notes == ("only 60 distinct prompts: 59 distractors in place of 99",)
    assert 0.2 < found.value < 0.95


def test_r_precision_draws_distractors_with_its_seed(rng):
    images, table, prompts = random_pairs(rng, 200)
    found, again, other, few = (
        compute_one(m, inputs(images, table, prompts))
        for m in (ClipRPrecision(), ClipRPrecision(), ClipRPrecision(seed=1), ClipRPrecision(distractors=5))
    )
    assert found.notes == () and found.extra["candidates"] == 100
    np.testing.assert_array_equal(found.per_image, again.per_image)
    assert (found.per_image != other.per_image).any()
    assert few.value > found.value
    assert (few.per_image >= compute_one(ClipRPrecision(199), inputs(images, table, prompts)).per_image).all()


def test_distractors_are_others_distinct_and_uniform():
    own = np.arange(4000) % 7
    drawn = draw_distractors(own, 7, 3, 0)
    assert (drawn != own[:, None]).all() and drawn.min() == 0 and drawn.max() == 6
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    for place in range(7):
        counts = np.bincount(drawn[own == place].ravel(), minlength=7)
        expected = 3 * (own == place).sum() / 6
        assert counts[place] == 0
        assert (np.abs(np.delete(counts, place) - expected) < 5 * math.sqrt(expected)).all()
    everything = draw_distractors(own, 7, 6, 0)
    assert (np.sort(everything, 1) == [sorted(set(range(7)) - {o}) for o in own]).all()


def test_shared_prompts_are_no_rivals_and_ties_share_the_credit():
    table = {"a": [1.0, 0.0], "b": [0.0, 1.0], "A": [1.0, 0.0]}
    same = compute_one(ClipRPrecision(), inputs(plane(5, 10, 80), table, "aab"))
    assert same.value == 1.0 and same.extra["candidates"] == 2
    tied = compute_one(ClipRPrecision(), inputs(plane(5, 10, 80), table, "aAb"))
    np.testing.assert_array_equal(tied.per_image, [0.5, 0.5, 1.0])
    blind = {f"{i}": [1.0, 2.0] for i in range(20)}
    found = compute_one(ClipRPrecision(distractors=9), inputs(plane(*range(20)), blind, list(blind)))
    assert found.value == pytest.approx(0.1) == found.extra["chance"]
    with pytest.raises(NotApplicable, match="same prompt"):
        ClipRPrecision().compute(inputs(plane(5, 10), table, "aa"))


def test_accuracy_of_known_angles():
    table = {f"a photo of a {name}.": v for name, v in zip(["cat", "dog", "eel"], plane(0, 90, 180), strict=True)}
    names = ("cat", "dog", "eel")
    given = inputs(plane(10, 80, 100, 170), table, labels=[0, 0, 1, 2], class_names=names)
    found = compute_one(ClipAccuracy(), given)
    np.testing.assert_array_equal(found.per_image, [1, 0, 1, 1])
    assert found.value == 0.75 and found.extra["chance"] == pytest.approx(1 / 3)
    keys = ("labels_fingerprint", "prompts_fingerprint")
    others = inputs(plane(10, 80, 170, 100), table, labels=[0, 1, 1, 1], class_names=names)
    asked = compute_one(ClipAccuracy(), others).conditions
    assert len({asked[key] for key in keys} | {found.conditions[key] for key in keys}) == 2
    between = compute_one(ClipAccuracy(), inputs(plane(45.0), table, labels=[1], class_names=names))
    assert between.value == 0.5
    other = {f"the {name}": v for name, v in zip(names, plane(90, 0, 180), strict=True)}
    swapped = inputs(plane(10, 80), other, labels=[0, 0], class_names=names)
    np.testing.assert_array_equal(compute_one(ClipAccuracy("the {}"), swapped).per_image, [0, 1])


def test_intervals_hold_the_expectation(rng):
    """95 % intervals over 200 draws of images and prompts from one population."""

    def share(metric, count):
        found = []
        for _ in range(200):
            images, table, prompts = random_pairs(rng, count, dim=6)
            found.append(compute_one(metric, inputs(images, table, prompts)))
        truth = np.mean([e.value for e in found])
        return np.mean([e.ci95[0] <= truth <= e.ci95[1] for e in found])

    assert 0.90 <= share(ClipScore(prefix=""), 60) <= 0.99
    assert 0.90 <= share(ClipScore(prefix="", scale=100.0, clamp="mean"), 60) <= 0.99
    assert 0.90 <= share(ClipRPrecision(distractors=4), 60) <= 0.99


def test_accuracy_interval_holds_the_expectation(rng):
    names = ("a", "b", "c")
    table = dict(zip(names, np.eye(3), strict=True))
    found = []
    for _ in range(200):
        labels = rng.integers(0, 3, 60)
        images = np.eye(3)[labels] + 0.5 * rng.normal(size=(60, 3))
        found.append(compute_one(ClipAccuracy("{}"), inputs(images, table, labels=labels, class_names=names)))
    truth = np.mean([e.value for e in found])
    assert 0.90 <= np.mean([e.ci95[0] <= truth <= e.ci95[1] for e in found]) <= 0.99


def test_without_prompts_or_labels_there_is_no_value():
    table = {"a": [1.0, 0.0]}
    nothing = inputs(plane(0, 1), table)
    for metric, reason in (
        (ClipScore(), "no prompts"),
        (ClipRPrecision(), "no prompts"),
        (ClipAccuracy(), "no labels"),
    ):
        with pytest.raises(NotApplicable, match=reason):
            metric.compute(nothing)
        with pytest.raises(NotApplicable, match="no image-text model"):
            metric.compute(MetricInputs(nothing.samples, nothing.reference))
    with pytest.raises(NotApplicable, match="two classes"):
        ClipAccuracy().compute(inputs(plane(0, 1), table, labels=[0, 0], class_names=("a",)))


def test_misfits_are_refused():
    table = {"a": [1.0, 0.0], "zero": [0.0, 0.0], "b": [0.0, 1.0]}
    plain = ClipScore(prefix="")
    with pytest.raises(DataError, match="1 prompts for 2 images"):
        plain.compute(inputs(plane(0, 1), table, "a"))
    with pytest.raises(DataError, match=r"1 of 2 samples are zero, NaN or infinite \(first: row 1\)"):
        plain.compute(inputs([[1, 0], [np.nan, 1]], table, "aa"))
    with pytest.raises(DataError, match="1 of 1 texts are zero"):
        plain.compute(inputs(plane(0, 1), table, ["zero", "zero"]))
    names = ("a", "b")
    with pytest.raises(DataError, match="one label an image"):
        ClipAccuracy("{}").compute(inputs(plane(0, 1), table, labels=[0], class_names=names))
    with pytest.raises(DataError, match="from 0 to 2, but there are 2 classes"):
        ClipAccuracy("{}").compute(inputs(plane(0, 1), table, labels=[0, 2], class_names=names))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClipScore(clamp="each"), "'clamp' of metric 'clip_score' must be one of image, mean"),
        (lambda: ClipScore(scale=0.0), "'scale' of metric 'clip_score' must be a number above 0"),
        (lambda: ClipScore(scale=True), "'scale'"),
        (lambda: ClipScore(prefix=3), "'prefix'"),
        (lambda: ClipRPrecision(distractors=0), "'distractors' of metric 'clip_r_precision'"),
        (lambda: ClipRPrecision(seed=-1), "'seed'"),
        (lambda: ClipAccuracy(template="a photo"), "'template' of metric 'clip_accuracy' must be a text with one {}"),
        (lambda: ClipAccuracy(template="{} {}"), "'template'"),
        (lambda: ClipAccuracy(template="{x} {}"), "'template'"),
        (lambda: ClipAccuracy(template=None), "'template'"),
    ],
)
def test_wrong_options_are_explained(make, message):
    with pytest.raises(UsageError) as caught:
        make()
    assert message in str(caught.value)


def test_the_result_carries_the_model_and_its_name():
    table = {"A photo depicts a": [1.0, 0.0]}
    given, metric = inputs(plane(0, 1), table, "aa"), ClipScore()
    result = _result(metric, given, compute_one(metric, given), {"dataset": "toy"})
    assert result.extractor == "fake-clip"
    assert result.comparable["extractor"] == FakeModel.identity
    assert result.comparable["options"] == {"prefix": "A photo depicts ", "scale": 2.5, "clamp": "image"}
