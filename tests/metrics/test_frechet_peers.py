"""Fréchet distance from given features against the tools' own functions."""

import numpy as np
import pytest
import torch
from metric_inputs import compute_one, feature_inputs

from genbench.metrics.frechet import FrechetInceptionDistance


def torch_fidelity(x, y):
    module = pytest.importorskip("torch_fidelity.metric_fid")
    statistics = [module.fid_features_to_statistics(torch.from_numpy(values)) for values in (x, y)]
    return module.fid_statistics_to_metric(*statistics, False)[module.KEY_METRIC_FID]


def pytorch_fid(x, y):
    module = pytest.importorskip("pytorch_fid.fid_score")
    return own_code(module.calculate_frechet_distance, *statistics(x), *statistics(y))


def clean_fid(x, y):
    module = pytest.importorskip("cleanfid.fid")
    return own_code(module.frechet_distance, *statistics(x), *statistics(y))


def torchmetrics(x, y):
    module = pytest.importorskip("torchmetrics.image.fid")
    return float(module._compute_fid(*map(torch.from_numpy, (*statistics(x), *statistics(y)))))


def statistics(features):
    return features.mean(0), np.cov(features, rowvar=False)


def own_code(function, *arguments):
    """Some call `sqrtm(disp=...)`, which newer SciPy does not have."""
    try:
        return function(*arguments)
    except (TypeError, ValueError) as error:
        pytest.skip(f"the tool's own code fails with this SciPy: {error}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("peer", [torch_fidelity, pytorch_fid, clean_fid, torchmetrics])
@pytest.mark.parametrize("n, tolerance", [(200, 1e-5), (40, 1e-4)], ids=["N > d", "N < d"])
def test_equals_the_tool(rng, peer, n, tolerance):
    d = 64
    mix = rng.normal(size=(d, d))
    x, y = rng.normal(size=(n, d)) @ mix + 0.3, rng.normal(size=(300, d)) @ mix
    ours = compute_one(FrechetInceptionDistance(), feature_inputs(x, y)).value
    assert ours == pytest.approx(peer(x, y), rel=tolerance)
