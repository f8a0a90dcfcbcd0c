"""KID against torch-fidelity, clean-fid and torchmetrics on the same features and subsets."""

import numpy as np
import pytest
import torch
from cleanfid.fid import kernel_distance
from metric_inputs import compute_one, feature_inputs
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.kid import poly_mmd

from genbench.metrics.kernel import draw_subsets
from genbench.metrics.kid import KernelInceptionDistance


@pytest.fixture(scope="module")
def sides():
    rng = np.random.default_rng(3)
    mix = rng.normal(size=(12, 48))
    samples, reference = (np.maximum(rng.normal(size=(n, 12)) @ mix + s, 0) for n, s in ((330, 0.3), (270, 0.0)))
    return samples.astype(np.float32), reference.astype(np.float32)


@pytest.fixture(scope="module")
def ours(sides):
    return compute_one(KernelInceptionDistance(subsets=20, subset_size=100), feature_inputs(*sides))


def test_torch_fidelity(sides, ours):
    def peer(dtype):
        tensors = [torch.from_numpy(side).to(dtype) for side in sides]
        found = kid_features_to_metric(*tensors, kid_subsets=20, kid_subset_size=100, verbose=False)
        return found["kernel_inception_distance_mean"], found["kernel_inception_distance_std"]

    mean, std = peer(torch.float64)
    assert ours.value == pytest.approx(mean, rel=1e-9) and ours.extra["std_over_subsets"] == pytest.approx(
        std, rel=1e-9
    )
    assert ours.value == pytest.approx(peer(torch.float32)[0], rel=1e-5)


def test_clean_fid_with_the_same_seed(sides, ours):
    samples, reference = (side.astype(np.float64) for side in sides)
    state = np.random.get_state()
    np.random.seed(2020)
    peer = kernel_distance(reference, samples, num_subsets=20, max_subset_size=100)
    np.random.set_state(state)
    assert ours.value == pytest.approx(peer, rel=1e-9)


def test_torchmetrics_on_the_same_subsets(sides, ours):
    samples, reference = (torch.from_numpy(side).double() for side in sides)
    draws = draw_subsets(330, 270, 20, 100, 2020)
    peer = np.mean([poly_mmd(reference[j], samples[i]).item() for i, j in zip(draws.x, draws.y, strict=True)])
    assert ours.value == pytest.approx(peer, rel=1e-9)
