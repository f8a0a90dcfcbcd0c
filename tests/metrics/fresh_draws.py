"""How often intervals hold the truth, with the truth taken from draws of its own."""

import numpy as np
from metric_inputs import compute_one


def share_of_intervals(metrics, draw, repetitions=200, truth_draws=300):
    """For each metric: the share of ``repetitions`` intervals that hold its mean over ``truth_draws`` other draws."""
    truths = np.zeros(len(metrics))
    for _ in range(truth_draws):
        inputs = draw()
        truths += [compute_one(metric, inputs).value / truth_draws for metric in metrics]
    held = np.zeros(len(metrics))
    for _ in range(repetitions):
        inputs = draw()
        for i, metric in enumerate(metrics):
            low, high = compute_one(metric, inputs).ci95
            held[i] += low <= truths[i] <= high
    return dict(zip([metric.name for metric in metrics], held / repetitions, strict=True))
