"""Values at infinitely many samples (Chong and Forsyth 2020): a metric whose bias falls as 1 / N, at several N.

A least-squares line in 1 / N through the values at ``points`` sizes, evenly spaced from the smallest to all N samples,
meets 1 / N = 0 at the bias-free value. The smallest is 5000, as in the paper, or half of the samples where there are
fewer than 10 000: a smaller one would leave the range where the bias is linear, a larger one too short a lever.

Deviation from the authors' code: the subsets are nested, each the beginning of one permutation, where theirs are drawn
anew for every size. One pass over the samples makes all of them, and the intercept's error is known in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from genbench.metrics.base import NotApplicable
from genbench.metrics.frechet_interval import SamplingVariance
from genbench.metrics.options import require_count

SUBSET_SEED = 2020


@dataclass(frozen=True)
class Line:
    """Least squares in 1 / N: sizes (k,), values (k,), and weights (k,) that make the intercept of the values.

    fit_error: the standard error of the intercept that the residuals suggest; too small, since subsets share samples.
    """

    sizes: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    intercept: float
    slope: float
    fit_error: float

    @classmethod
    def through(cls, sizes: np.ndarray, values: np.ndarray) -> Line:
        """The line through values at three or more different sizes."""
        x = 1.0 / sizes
        centred = x - x.mean()
        spread = float(centred @ centred)
        slope = float(centred @ values) / spread
        weights = 1.0 / len(x) - x.mean() * centred / spread
        intercept = float(weights @ values)
        residuals = values - intercept - slope * x
        noise = float(residuals @ residuals) / (len(x) - 2)
        return cls(sizes, values, weights, intercept, slope, float(np.sqrt(noise * (weights @ weights))))

    def standard_error(self, variance: SamplingVariance) -> float:
        """Of the intercept, over fresh samples.

        A sample that comes in with size n has the weight sum_k w_k / n_k over the sizes n_k >= n, where a plain mean
        has 1 / N; a pair has sum_k w_k / n_k^2 in the same way.
        """
        single = np.cumsum((self.weights / self.sizes)[::-1])[::-1]
        double = np.cumsum((self.weights / np.square(self.sizes))[::-1])[::-1]
        pairs = self.sizes * (self.sizes - 1) / 2
        first = np.diff(self.sizes, prepend=0) @ np.square(single)
        second = np.diff(pairs, prepend=0) @ np.square(double)
        return float(np.sqrt(variance.first * first + variance.second * second))

    def extra(self) -> dict[str, Any]:
        """The fit, for the result."""
        return {
            "slope": self.slope,
            "fit_error": self.fit_error,
            "sizes": [int(n) for n in self.sizes],
            "values": [float(value) for value in self.values],
        }


@dataclass(frozen=True)
class Extrapolation:
    """The options that both metrics have.

    points: number of sizes. smallest: the first of them, or half of the samples where that is less. seed: of the
    permutation whose beginnings are the subsets.
    """

    points: int = 15
    smallest: int = 5000
    seed: int = SUBSET_SEED

    def check(self, metric: str) -> None:
        """Raise `UsageError` for options that cannot be."""
        require_count(metric, "points", self.points, least=3)
        require_count(metric, "smallest", self.smallest, least=2)
        require_count(metric, "seed", self.seed, least=0)

    def sizes(self, n: int) -> np.ndarray:
        """(points,) sizes, rising, the last of them n.

        Raises:
            NotApplicable: fewer samples than give as many different sizes.
        """
        least = 2 * self.points
        if n < least:
            raise NotApplicable(
                f"{n} samples are too few to extrapolate over {self.points} sizes; give {least} or more"
            )
        smallest = min(self.smallest, n // 2)
        return np.linspace(smallest, n, self.points).astype(np.int64)

    def order(self, n: int) -> np.ndarray:
        """(n,) the permutation whose beginnings are the subsets."""
        return np.random.RandomState(self.seed).permutation(n)
