"""Structural similarity (Wang et al. 2004): `ssim` of reconstructions, `ssim_pairwise` as a figure of diversity.

Gaussian window of sigma 1.5, K = (0.01, 0.03), data range 255, biased covariance, mean of the map where the whole
window lies inside the image, mean over channels. With 11 x 11 pixels (protocol ``gaussian-11``) this is scikit-image's
``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)``. Images too
small for it take the same Gaussian cut to 7 x 7 (``gaussian-7``), a protocol of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from genbench.errors import DataError
from genbench.metrics.base import Estimate, Metric, MetricInputs, NotApplicable, PairMetric
from genbench.metrics.estimates import pair_estimate
from genbench.metrics.options import require_choice, require_count
from genbench.metrics.similarity_maps import similarity_and_contrast
from genbench.metrics.statistics import normal_interval

WINDOWS = (11, 7)
PAIR_SEED = 2020


def ssim(x: np.ndarray, y: np.ndarray, window: int = 11) -> np.ndarray:
    """(N,) SSIM of pairs of images (N, C, H, W) uint8.

    Raises:
        DataError: unlike shapes, or images smaller than the window.
    """
    if x.shape != y.shape:
        raise DataError(f"SSIM compares images one to one, got {x.shape} and {y.shape}.")
    if min(x.shape[2:]) < window:
        raise DataError(f"A window of {window} does not fit images of {x.shape[2]} x {x.shape[3]} pixels.")
    num_images, channels, height, width = x.shape
    similarity, _ = similarity_and_contrast(x.reshape(-1, height, width), y.reshape(-1, height, width), window)
    values: np.ndarray = similarity.reshape(num_images, channels).mean(1)
    return values


def sample_pairs(num_images: int, partners: int, seed: int = PAIR_SEED) -> np.ndarray:
    """(P, 2) pairs of unlike indices below ``num_images``: neighbours at distances 1..partners on a shuffled circle.

    Each image is in 2 * partners pairs (all pairs are taken where there are fewer); no pair occurs twice.
    """
    order = np.random.RandomState(seed).permutation(num_images)
    pairs = [np.stack([order, np.roll(order, -step)], 1) for step in range(1, min(partners, (num_images - 1) // 2) + 1)]
    if num_images % 2 == 0 and partners >= num_images // 2:
        half = num_images // 2
        pairs.append(np.stack([order[:half], order[half:]], 1))
    return np.concatenate(pairs)


def pair_mean_error(values: np.ndarray, pairs: np.ndarray, num_images: int) -> float:
    """Standard error of the mean of values (P,) over pairs (P, 2) that share images.

    Sums the covariances of pairs with an image in common (Fafchamps and Gubert 2007); never below what independent
    pairs would have.
    """
    deviation = values - values.mean()
    by_image = np.bincount(pairs.ravel(), np.repeat(deviation, 2), minlength=num_images)
    own = float(np.square(deviation).sum())
    return math.sqrt(max(float(np.square(by_image).sum()) - own, own)) / len(values)


def _require_window(window: int, height: int, width: int) -> None:
    if min(height, width) < window:
        raise NotApplicable(
            f"a window of {window} does not fit images of {height} x {width} pixels"
            + ("; set the option window = 7" if min(height, width) >= min(WINDOWS) else "")
        )


@dataclass(frozen=True)
class StructuralSimilarity(PairMetric):
    """SSIM between the images of a pair; 1 where they are equal."""

    window: int = 11

    name = "ssim"
    higher_is_better = True
    summary = "structural similarity of image pairs (a suite: reconstructions and their test images)"

    def __post_init__(self) -> None:
        require_choice(self.name, "window", self.window, WINDOWS)

    def score_pairs(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(B,) SSIM.

        Raises:
            NotApplicable: the window does not fit.
        """
        _require_window(self.window, *x.shape[2:])
        return ssim(x, y, self.window)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate: the mean over images.

        Raises:
            NotApplicable: there are no pairs, or the window does not fit.
        """
        protocol = {"protocol": f"gaussian-{self.window}"}
        return [pair_estimate(self.scores(inputs), bounds=(-1.0, 1.0), conditions=protocol)]


@dataclass(frozen=True)
class PairwiseSimilarity(Metric):
    """Mean SSIM between samples: high where samples resemble each other. The test split's own value is the target."""

    window: int = 11
    images: int = 1000
    partners: int = 4

    name = "ssim_pairwise"
    needs = frozenset({"images"})
    summary = "mean structural similarity between samples, for comparison with the test split's own"

    def __post_init__(self) -> None:
        require_choice(self.name, "window", self.window, WINDOWS)
        require_count(self.name, "images", self.images, least=2)
        require_count(self.name, "partners", self.partners)

    def compute(self, inputs: MetricInputs) -> list[Estimate]:
        """One estimate; ``extra["test_split"]`` is the same figure among test images.

        Raises:
            NotApplicable: the window does not fit.
        """
        images, test_images = inputs.samples.kept_images(), inputs.test_split().images
        _require_window(self.window, *images.shape[2:])
        value, error = self._measure(images)
        test = inputs.shared(("ssim_pairwise", self), lambda: self._measure(test_images))
        return [
            Estimate(
                value=value,
                n=len(images),
                ci95=normal_interval(value, error),
                interval="normal over pairs, with the covariance of pairs that share an image",
                estimator="mean-of-pairs",
                extra={"test_split": test[0], "images": min(self.images, len(images))},
                conditions={"protocol": f"gaussian-{self.window}"},
            )
        ]

    def _measure(self, images: np.ndarray) -> tuple[float, float]:
        chosen = np.random.RandomState(PAIR_SEED).permutation(len(images))[: self.images]
        pairs = sample_pairs(len(chosen), self.partners)
        values = ssim(images[chosen[pairs[:, 0]]], images[chosen[pairs[:, 1]]], self.window)
        return float(values.mean()), pair_mean_error(values, pairs, len(chosen))
