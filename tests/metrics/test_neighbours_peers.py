"""Precision, recall, F1, density and coverage equal those of torch-fidelity and prdc on the same features."""

import numpy as np
import pytest
import torch
from metric_inputs import compute_one, feature_inputs
from prdc import compute_prdc
from torch_fidelity.metric_prc import prc_features_to_metric

from genbench.metrics.f1 import F1
from genbench.metrics.neighbours import Coverage, Density, Precision, Recall


@pytest.fixture(scope="module", params=[24, 512], ids=["narrow", "wide"])
def sides(request):
    rng = np.random.default_rng(11)
    mix = rng.normal(size=(20, request.param))
    samples = np.maximum(rng.normal(size=(380, 20)) * 0.9 @ mix + 0.3, 0)
    return samples.astype(np.float32), np.maximum(rng.normal(size=(450, 20)) @ mix, 0).astype(np.float32)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("save_memory", [False, True])
def test_torch_fidelity(sides, k, save_memory):
    tensors = [torch.from_numpy(side) for side in sides]
    peer = prc_features_to_metric(
        *tensors, prc_neighborhood=k, prc_batch_size=100, save_cpu_ram=save_memory, verbose=False
    )
    inputs = feature_inputs(*sides)
    for metric, name in ((Precision, "precision"), (Recall, "recall"), (F1, "f_score")):
        assert compute_one(metric(k=k), inputs).value == pytest.approx(peer[name], rel=1e-6)
    assert 0.2 < peer["precision"] < 1 and 0.2 < peer["recall"] < 1 and peer["precision"] != peer["recall"]


@pytest.mark.parametrize("k", [3, 5])
def test_prdc(sides, k, capsys):
    samples, reference = sides
    peer = compute_prdc(real_features=reference, fake_features=samples, nearest_k=k)
    inputs = feature_inputs(samples, reference)
    for metric in (Precision, Recall, Density, Coverage):
        found = compute_one(metric(k=k, inequality="<"), inputs)
        assert found.value == pytest.approx(peer[metric.name], rel=1e-12)
