"""Copies of training images: distances from samples to their nearest training image, beside those of the test split.

Distances are root mean square over pixels, in units of the full range (0 for a copy, 1 for black against white).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from genbench.metrics.base import Estimate, Metric, MetricInputs
from genbench.metrics.estimates import mean_estimate, share_estimate
from genbench.metrics.statistics import blocks

_BLOCK = 512
_REFERENCE_BLOCK = 8192


@dataclass(frozen=True)
class NearestImages:
    """distance: (n,) RMS pixel distance to the nearest reference image, in [0, 1]. index: (n,) its position."""

    distance: np.ndarray
    index: np.ndarray


def nearest_images(images: np.ndarray, reference: np.ndarray) -> NearestImages:
    """Nearest image of ``reference`` (M, C, H, W) for each of ``images`` (N, C, H, W), both uint8, in blocks.

    The search runs in float32; the distance of what it finds is exact, so that a copy is at 0.
    """
    queries = _flat(images)
    best = np.full(len(images), np.inf, dtype=np.float32)
    index = np.zeros(len(images), dtype=np.int64)
    for columns in blocks(len(reference), _REFERENCE_BLOCK):
        candidates = _flat(reference[columns])
        norms = np.square(candidates).sum(1)
        for rows in blocks(len(images), _BLOCK):
            scores = norms - 2.0 * (queries[rows] @ candidates.T)
            nearest = scores.argmin(1)
            lowest = scores[np.arange(len(nearest)), nearest]
            better = lowest < best[rows]
            index[rows] = np.where(better, columns.start + nearest, index[rows])
            best[rows] = np.where(better, lowest, best[rows])
    difference = images.astype(np.float64) - reference[index].astype(np.float64)
    return NearestImages(np.sqrt(np.square(difference).mean((1, 2, 3))) / 255.0, index)


def _flat(images: np.ndarray) -> np.ndarray:
    """(N, D) float32, centred so that products stay small."""
    return images.reshape(len(images), -1).astype(np.float32) / 255.0 - 0.5


def _samples_and_test(inputs: MetricInputs) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the nearest training image of the samples (n,) and of the test split."""
    train, of_test = inputs.reference.kept_images(), inputs.test_split().images
    samples = inputs.shared("nearest_to_samples", lambda: nearest_images(inputs.samples.kept_images(), train))
    test = inputs.shared("nearest_to_test", lambda: nearest_images(of_test, train))
    return samples.distance, test.distance


class NearestTrainDistance(Metric):
    """Mean distance to the nearest training image. Right is what the test split shows: 0 is a memoriser."""

    name = "nearest_train_distance"
    needs = frozenset({"images"})
    summary = "mean RMS pixel distance from samples to the nearest training image"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; ``extra["test_split"]`` is the same figure for test images."""
        samples, test = _samples_and_test(inputs)
        return [
            mean_estimate(
                samples, bounds=(0.0, 1.0), interval="normal over samples", extra={"test_split": float(test.mean())}
            )
        ]


class MemorisedShare(Metric):
    """Share of samples as near to training images as the nearest 5 % of test images are: 0.05 for an honest model."""

    quantile = 0.05

    name = "memorised_share"
    needs = frozenset({"images"})
    summary = "share of samples as near to a training image as the nearest 5 % of test images; 1 is a memoriser"

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; ``extra["expected"]`` is the share for an honest model, ``extra["test_split"]`` test's own."""
        samples, test = _samples_and_test(inputs)
        threshold = float(np.quantile(test, self.quantile))
        near = (samples <= threshold).astype(np.float64)
        return [
            share_estimate(
                near,
                interval="Wilson over samples, threshold held fixed",
                extra={
                    "expected": self.quantile,
                    "test_split": float((test <= threshold).mean()),
                    "threshold": threshold,
                },
            )
        ]
