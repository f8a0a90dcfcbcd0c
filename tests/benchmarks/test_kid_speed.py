"""KID and the neighbour metrics against torch-fidelity and prdc, on the same features."""

import time

import numpy as np
import torch
from prdc import compute_prdc
from torch_fidelity.metric_kid import kid_features_to_metric

from genbench.features.base import Features
from genbench.metrics import MetricInputs, Side
from genbench.metrics.kid import FullKernelInceptionDistance, KernelInceptionDistance
from genbench.metrics.neighbours import Coverage, Density, Precision, Recall

IMAGES, WIDTH = 1500, 2048


def features():
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(64, WIDTH)) / 8
    return [np.maximum(rng.normal(size=(IMAGES, 64)) @ mix + s, 0).astype(np.float32) for s in (0.05, 0.0)]


def seconds(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def ours(metrics, samples, reference):
    inputs = MetricInputs(Side.of("samples", Features(samples)), Side.of("reference images", Features(reference)))
    for metric in metrics:
        metric.compute(inputs)


def report(benchmark, what, mine, peer):
    benchmark.extra_info.update({"seconds": mine, "peer_seconds": peer})
    benchmark.pedantic(lambda: None, rounds=1)
    print(f"\n{what}: {mine:.2f} s, peer {peer:.2f} s, ratio {mine / peer:.3f}")
    return mine / peer


def test_kid_against_torch_fidelity(benchmark):
    """All pairs once, and the 100 subsets out of them, against a hundred times 1000 x 1000."""
    sides = features()
    metrics = (KernelInceptionDistance(), FullKernelInceptionDistance())
    mine = min(seconds(lambda: ours(metrics, *sides)) for _ in range(3))
    tensors = [torch.from_numpy(side) for side in sides]
    peer = seconds(lambda: kid_features_to_metric(*tensors, verbose=False))
    assert report(benchmark, "kid + kid_full", mine, peer) < 0.25


def test_neighbours_against_prdc(benchmark):
    samples, reference = features()
    metrics = (Precision(), Recall(), Density(), Coverage())
    mine = min(seconds(lambda: ours(metrics, samples, reference)) for _ in range(3))
    peer = min(seconds(lambda: compute_prdc(reference, samples, 5)) for _ in range(3))
    assert report(benchmark, "precision, recall, density, coverage", mine, peer) < 1.0
