"""Variance of how many balls hold at least one of n independent points, with the balls fixed.

Two balls are both empty with probability q, and their emptiness has covariance q (1 - exp(-l)), where l is the expected
number of points in both (points being Poisson). The jackknife puts l in place of 1 - exp(-l), since it counts a term of
order t in Hoeffding's decomposition t times (Efron and Stein 1981), and is up to twice too wide. A cubic

    w1 l - w2 l^2 / 2! + w3 l^3 / 3!

is within 4 % of 1 - exp(-l) up to l = 4, and each term has an unbiased estimate: q l^t / t! is the probability that
both balls hold the same t points and no other. Summed over all pairs of balls, with b_T the number of balls that hold
exactly the points T, the variance is w1 sum b_i^2 - w2 sum b_ij^2 + w3 sum b_ijk^2, less (sum b_i)^2 / n as n is no
Poisson number but fixed.
"""

from __future__ import annotations

import numpy as np

FEW = 3
"""Members of balls with at most so many points matter."""
_WEIGHTS = (0.96, -0.69, 0.25)
"""Of the best cubic on (0, 4]: the largest relative error is smallest."""
_LEAST = 1 / 3
"""The jackknife is hardly ever wider than by 1.7: noise does not take the variance below this share of it."""


def higher_order_share(count: np.ndarray, members: np.ndarray, num_points: int) -> float:
    """The variance over the jackknife's, between 1/3 and 1.

    Args:
        count: (m,) number of points in each ball.
        members: (m, FEW) positions of the points in balls of at most FEW, ascending, padded at will.
        num_points: n.
    """
    squares = []
    for size in range(1, FEW + 1):
        held = members[count == size, :size]
        number = np.unique(held, axis=0, return_counts=True)[1] if len(held) else np.zeros(1)
        squares.append(float(np.square(number).sum()))
    fixed_size = float((count == 1).sum()) ** 2 / num_points
    jackknife = squares[0] - fixed_size
    if jackknife <= 0:
        return 1.0
    variance = sum(weight * square for weight, square in zip(_WEIGHTS, squares, strict=True)) - fixed_size
    return float(np.clip(variance / jackknife, _LEAST, 1.0))
