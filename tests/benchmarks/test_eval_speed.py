"""`genbench eval` with seven metrics against torch-fidelity with three, on the same files and weights, in one run."""

import os
import time

import numpy as np
import pytest
import torch
from inception_weights import varied_images
from PIL import Image

import genbench
from genbench.features import ExtractorOptions, load_extractor

COUNT = int(os.environ.get("GENBENCH_BENCHMARK_IMAGES", "1500"))
METRICS = ("fid", "is", "kid", "precision", "recall", "density", "coverage")
LIMIT = 0.6


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for name, seed in (("samples", 1), ("reference", 2)):
        (root / name).mkdir()
        for i, image in enumerate(varied_images(COUNT, seed=seed)):
            Image.fromarray(image.transpose(1, 2, 0)).save(root / name / f"{i:05d}.png")
    return root / "samples", root / "reference"


def peer(folders, weights):
    import torch_fidelity

    return torch_fidelity.calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        isc=True,
        fid=True,
        kid=True,
        kid_subset_size=min(1000, COUNT),
        feature_extractor_weights_path=str(weights),
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=False,
    )


def ours(folders, weights):
    options = {"kid": {"subset_size": min(1000, COUNT)}}
    return genbench.evaluate(*folders, METRICS, weights=weights, options=options, cache=False)


def test_seven_metrics_against_three_of_torch_fidelity(benchmark, folders, inception_file):
    torch.set_num_threads(os.cpu_count() or 1)
    start = time.perf_counter()
    theirs = peer(folders, inception_file)
    peer_seconds = time.perf_counter() - start
    found = benchmark.pedantic(ours, (folders, inception_file), rounds=1)
    torch.set_num_threads(1)
    ratio = benchmark.stats.stats.mean / peer_seconds
    benchmark.extra_info.update(images=2 * COUNT, peer_seconds=peer_seconds, ratio=ratio)
    assert found["fid"].value == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    assert found["inception_score"].value == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert found["kid"].value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5, abs=1e-7)
    assert all(metric.status == "ok" for metric in found.metrics)
    assert ratio < LIMIT


def test_features_equal_those_of_torch_fidelity(inception_file):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    images = varied_images(16, seed=5)
    network = FeatureExtractorInceptionV3("fe", ["2048"], feature_extractor_weights_path=str(inception_file))
    theirs = network(torch.from_numpy(images))[0].detach().numpy()
    found = load_extractor("inception-v3", ExtractorOptions(weights=inception_file)).extract(images).features
    assert np.abs(found - theirs).max() / np.abs(theirs).max() < 1e-4
