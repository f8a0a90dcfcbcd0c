"""How often intervals hold the truth, which comes from fresh draws."""

import numpy as np
from metric_inputs import compute_one

REPETITIONS = 200


def coverage_of(metric, draw, truth):
    """Share of the intervals of ``metric`` on 200 inputs from ``draw`` that hold ``truth``."""
    found = [compute_one(metric, draw()).ci95 for _ in range(REPETITIONS)]
    return np.mean([low <= truth <= high for low, high in found])


def expectation(metric, draw, draws=600):
    """Mean of the metric over fresh draws."""
    return np.mean([compute_one(metric, draw()).value for _ in range(draws)])


def fresh_coverage(metric, draw, draws=600):
    """Share of intervals that hold the metric's expectation, as fresh draws tell it."""
    return coverage_of(metric, draw, expectation(metric, draw, draws))
