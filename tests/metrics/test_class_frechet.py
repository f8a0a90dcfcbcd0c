"""FID within classes: equal to FID class by class, and honest about classes that are not there."""

import numpy as np
import pytest
from interval_coverage import fresh_coverage
from metric_inputs import compute_one, feature_inputs

from genbench.features.base import Features
from genbench.metrics import MetricInputs, NotApplicable, Side
from genbench.metrics.class_frechet import ClassFrechetDistance
from genbench.metrics.frechet import FrechetInceptionDistance

NAMES = ("ant", "bee", "cat")


def labelled(who, features, labels, names=NAMES):
    side = Side.of(who, Features(features), np.array(labels))
    side.class_names = names
    return side


def inputs(x, x_labels, y, y_labels, names=NAMES, reference_names=NAMES):
    return MetricInputs(labelled("samples", x, x_labels, names), labelled("reference", y, y_labels, reference_names))


def draw(rng, sizes, d=4):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return rng.normal(size=(len(labels), d)) + labels[:, None], labels


def test_mean_of_the_distances_within_classes(rng):
    (x, x_labels), (y, y_labels) = draw(rng, (30, 20, 25)), draw(rng, (40, 60, 50))
    order = rng.permutation(len(x))
    found = compute_one(ClassFrechetDistance(), inputs(x[order], x_labels[order], y, y_labels))
    single = [
        compute_one(FrechetInceptionDistance(), feature_inputs(x[x_labels == i], y[y_labels == i])) for i in range(3)
    ]
    assert found.value == pytest.approx(np.mean([e.value for e in single]), rel=1e-10)
    assert found.standard_error == pytest.approx(np.sqrt(sum(e.standard_error**2 for e in single)) / 3, rel=1e-9)
    assert found.n == 75 and found.conditions["classes"] == 3 and found.notes == ()
    assert found.extra["classes"]["bee"] == {"value": pytest.approx(single[1].value), "n": 20, "reference_n": 60}


def test_mixed_up_classes_show_here_alone(rng):
    (x, labels), (y, y_labels) = draw(rng, (200, 200)), draw(rng, (200, 200))
    names = NAMES[:2]
    right = compute_one(ClassFrechetDistance(), inputs(x, labels, y, y_labels, names, names))
    swapped = compute_one(ClassFrechetDistance(), inputs(x, 1 - labels, y, y_labels, names, names))
    assert swapped.value > 10 * right.value


def test_missing_and_tiny_classes_are_named(rng):
    (x, labels), (y, y_labels) = draw(rng, (30, 1, 0)), draw(rng, (40, 40, 40))
    found = compute_one(ClassFrechetDistance(), inputs(x, labels, y, y_labels))
    assert list(found.extra["classes"]) == ["ant"] and found.conditions["classes"] == 1
    assert found.extra["missing"] == ["cat"] and found.extra["too_few"] == ["bee"]
    assert "no samples of 1 class of the reference: cat" in found.notes[0]
    assert "fewer than 2 images of 1 class on one side: bee" in found.notes[1]
    with pytest.raises(NotApplicable, match="no class has at least 2"):
        ClassFrechetDistance().compute(inputs(x[29:], labels[29:], y, y_labels))


def test_classes_meet_by_name(rng):
    """Folders without one of the classes count their labels differently."""
    (x, labels), (y, y_labels) = draw(rng, (30, 30)), draw(rng, (40, 40, 40))
    found = compute_one(ClassFrechetDistance(), inputs(x + 1.0, labels, y, y_labels, names=("bee", "cat")))
    assert list(found.extra["classes"]) == ["bee", "cat"] and found.extra["missing"] == ["ant"]
    assert found.value < 1
    unnamed = compute_one(ClassFrechetDistance(), inputs(x, labels, y, y_labels, names=(), reference_names=()))
    assert list(unnamed.extra["classes"]) == ["0", "1"] and unnamed.value < 1
    more = compute_one(ClassFrechetDistance(), inputs(y, y_labels, x, labels))
    assert "samples of 1 class that the reference lacks are left out: cat" in more.notes[0]


def test_notes_low_rank_and_missing_interval(rng):
    (x, labels), (y, y_labels) = draw(rng, (2, 30), d=6), draw(rng, (40, 40), d=6)
    found = compute_one(ClassFrechetDistance(), inputs(x, labels, y, y_labels))
    assert "fewer samples than features in 1 class" in found.notes[0] and "ant" in found.notes[0]
    assert found.ci95 is None and "at least 3 samples of each class" in found.notes[1]


def test_another_division_of_the_reference_does_not_compare(rng):
    (x, labels), (y, y_labels) = draw(rng, (30, 30)), draw(rng, (40, 40))

    def conditions(divided, who=labels):
        return compute_one(ClassFrechetDistance(), inputs(x, who, y, divided)).conditions

    swapped = np.concatenate(([1], y_labels[1:]))
    assert conditions(y_labels) == conditions(y_labels.astype(np.int32)) == conditions(y_labels, labels[::-1])
    assert conditions(y_labels)["labels_fingerprint"] != conditions(swapped)["labels_fingerprint"]


def test_needs_labels(rng):
    x = rng.normal(size=(20, 3))
    with pytest.raises(NotApplicable, match="no labels"):
        ClassFrechetDistance().compute(feature_inputs(x, x))


def test_coverage(rng):
    y, y_labels = draw(rng, (100, 100, 100))

    def fresh():
        x, labels = draw(rng, (30, 30, 30))
        return inputs(x * 1.1, labels, y, y_labels)

    assert 0.9 <= fresh_coverage(ClassFrechetDistance(), fresh, draws=200) <= 0.99
