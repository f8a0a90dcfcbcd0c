"""Intervals of precision, recall, F1, density and coverage hold their expectation and are no wider than need be."""

import numpy as np
import pytest
from fresh_draws import share_of_intervals
from metric_inputs import compute_one, feature_inputs

from genbench.metrics.f1 import F1
from genbench.metrics.neighbours import Coverage, Density, Precision, Recall
from genbench.metrics.occupancy import higher_order_share

METRICS = (Precision(), Recall(), F1(), Density(), Coverage())


@pytest.mark.parametrize("scale, shift", [(0.9, 0.1), (1.2, 0.3)])
def test_interval_holds_the_expectation(rng, scale, shift):
    y = rng.normal(size=(200, 16))
    held = share_of_intervals(METRICS, lambda: feature_inputs(rng.normal(size=(120, 16)) * scale + shift, y))
    assert all(0.90 <= share <= 0.99 for share in held.values()), held


@pytest.mark.parametrize("width, outliers", [(4, 0.0), (16, 0.0), (4, 0.7)])
def test_errors_are_those_of_fresh_draws(rng, width, outliers):
    """A plain jackknife would be up to 1.9 times too wide. Outliers move precision and recall together."""
    y = rng.normal(size=(200, width))
    found = []
    for _ in range(200):
        away = np.where(rng.random((120, 1)) < outliers, 40.0, 0.0) * rng.choice([-1.0, 1.0], (120, width))
        inputs = feature_inputs(rng.normal(size=(120, width)) + away, y)
        found.append([compute_one(metric, inputs) for metric in METRICS[1:]])
    for metric, estimates in zip(METRICS[1:], zip(*found, strict=True), strict=True):
        ratio = np.mean([e.standard_error for e in estimates]) / np.std([e.value for e in estimates])
        assert 0.85 < ratio < (1.45 if metric.name == "recall" else 1.2), metric.name


def test_variance_of_arcs_that_hold_a_point(rng):
    """300 points on a circle, arcs that expect 1.5 of them: the jackknife is too wide, its corrected share is not."""
    start, n = rng.random(300), 300
    number, jackknife, corrected = [], [], []
    for _ in range(500):
        inside = (rng.random(n) - start[:, None]) % 1.0 < 0.005
        count, rank = inside.sum(1), inside.cumsum(1)
        members = np.stack([(rank >= t).argmax(1) for t in (1, 2, 3)], axis=1)
        lost = inside[count == 1].sum(0)
        number.append((count > 0).sum())
        jackknife.append((n - 1) / n * np.square(lost - lost.mean()).sum())
        corrected.append(jackknife[-1] * higher_order_share(count, members, n))
    assert np.mean(jackknife) > 1.7 * np.var(number)
    assert np.mean(corrected) == pytest.approx(np.var(number), rel=0.2)


def test_variance_of_occupied_cells(rng):
    """400 points in 500 cells: the variance of the number of occupied ones is known in closed form."""
    n, m = 400, 500
    corrected = []
    for _ in range(200):
        cell = rng.integers(0, m, n)
        count = np.bincount(cell, minlength=m)
        order = np.argsort(cell, kind="stable")
        start = np.cumsum(count) - count
        members = np.stack([order[np.minimum(start + t, n - 1)] for t in range(3)], axis=1)
        alone = (count[cell] == 1).astype(float)
        jackknife = (n - 1) / n * np.square(alone - alone.mean()).sum()
        corrected.append(jackknife * higher_order_share(count, members, n))
    variance = m * (m - 1) * (1 - 2 / m) ** n + m * (1 - 1 / m) ** n - m**2 * (1 - 1 / m) ** (2 * n)
    assert np.mean(corrected) == pytest.approx(variance, rel=0.2)


def test_share_stays_within_limits():
    members = np.zeros((6, 3), dtype=np.int64)
    assert higher_order_share(np.array([0, 0, 0, 7, 9, 4]), members, 50) == 1.0
    assert higher_order_share(np.array([2, 2, 2, 2, 2, 1]), members, 50) == pytest.approx(1 / 3)
    assert higher_order_share(np.array([1, 0, 0, 0, 0, 0]), members, 10**9) == pytest.approx(0.96)
