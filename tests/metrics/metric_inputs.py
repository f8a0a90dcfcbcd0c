"""Small inputs for metrics: datasets of random images, and features put in by hand."""

import numpy as np

from genbench.api import ImageSpec
from genbench.data.base import ImageDataset
from genbench.features.base import Features
from genbench.metrics import MetricInputs, Side


class FakeExtractor:
    """Stands for an extractor whose features are given beforehand."""

    name = "fake"
    notes = ()

    @property
    def identity(self):
        return {"name": self.name, "weights_sha256": "0" * 64}

    def extract(self, images):
        return Features(images.reshape(len(images), -1).astype(np.float32))


def dataset(images, split="train", levels=256):
    channels, height, width = images.shape[1:]
    return ImageDataset("toy", split, images, None, ImageSpec(channels, height, width, levels))


def random_images(rng, num_images, shape=(1, 8, 8)):
    return rng.integers(0, 256, (num_images, *shape)).astype(np.uint8)


def image_inputs(samples, reference, test=None, **more):
    extractor = more.setdefault("extractor", FakeExtractor())
    return MetricInputs(
        image_side("samples", samples, extractor),
        image_side("reference images", reference, extractor),
        dataset(reference if test is None else test, "test"),
        **more,
    )


def image_side(who, images, extractor):
    """A side whose images are at hand."""
    return Side(who, len(images), images, extract=extractor and (lambda: extractor.extract(images)))


def feature_inputs(samples, reference, logits=None):
    """Inputs whose features are ``samples`` (n, d) and ``reference`` (m, d)."""
    return MetricInputs(
        Side.of("samples", Features(samples, logits)),
        Side.of("reference images", Features(reference)),
        extractor=FakeExtractor(),
    )


def compute_one(metric, inputs):
    """The only estimate of a metric."""
    (estimate,) = metric.compute(inputs)
    return estimate


def coverage(metric, draw, repetitions):
    """Share of 95 % intervals that hold the mean over fresh draws of the metric."""
    found = [compute_one(metric, draw()) for _ in range(repetitions)]
    truth = np.mean([e.value for e in found])
    return np.mean([e.ci95[0] <= truth <= e.ci95[1] for e in found])
