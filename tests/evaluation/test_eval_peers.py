"""`genbench eval` against the peers end to end: the same files, the same weights file, their entry points."""

import numpy as np
import pytest
import pytorch_fid.fid_score
import pytorch_fid.inception
import torch
import torch_fidelity
from eval_inputs import save
from inception_weights import varied_images
from torchmetrics.image.fid import FrechetInceptionDistance

import genbench

SAMPLES, REFERENCE = 80, 90
SMALL_KID = {"kid": {"subsets": 20, "subset_size": 30}}


@pytest.fixture(scope="module")
def images():
    return varied_images(SAMPLES, seed=1), varied_images(REFERENCE, seed=2)


@pytest.fixture(scope="module")
def folders(images, tmp_path_factory):
    root = tmp_path_factory.mktemp("sides")
    return save(root / "samples", images[0]), save(root / "reference", images[1])


def ours(folders, inception_file, metrics, tap="64", **more):
    return genbench.evaluate(
        *folders, metrics, extractor=f"inception-v3:{tap}", weights=inception_file, cache=False, **more
    )


def theirs(folders, inception_file, tap, **more):
    return torch_fidelity.calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(inception_file),
        feature_layer_fid=tap,
        feature_layer_kid=tap,
        feature_layer_prc=tap,
        cuda=False,
        cache=False,
        verbose=False,
        **more,
    )


def test_torch_fidelity_where_images_outnumber_features(folders, inception_file):
    peer = theirs(folders, inception_file, "64", fid=True, kid=True, prc=True, kid_subsets=20, kid_subset_size=30)
    found = ours(folders, inception_file, ["fid", "kid", "precision", "recall"], options=SMALL_KID)
    assert found["fid"].value == pytest.approx(peer["frechet_inception_distance"], rel=1e-5)
    assert found["kid"].value == pytest.approx(peer["kernel_inception_distance_mean"], rel=1e-5)
    assert found["kid"].provenance["extra"]["std_over_subsets"] == pytest.approx(
        peer["kernel_inception_distance_std"], rel=1e-5
    )
    assert found["precision"].value == pytest.approx(peer["precision"], abs=1e-7)
    assert found["recall"].value == pytest.approx(peer["recall"], abs=1e-7)
    assert 0 < found["precision"].value < 1 and 0 < found["recall"].value < 1
    assert found["fid"].comparable["protocol"] == "tf1" and any(w.code == "weights" for w in found.warnings)


def test_torch_fidelity_below_the_feature_width(folders, inception_file):
    peer = theirs(folders, inception_file, "192", fid=True)
    found = ours(folders, inception_file, ["fid"], "192")
    assert found["fid"].value == pytest.approx(peer["frechet_inception_distance"], rel=1e-4)
    assert any("low-rank" in warning.message for warning in found.warnings)


def test_torch_fidelity_inception_score(inception_file, tmp_path):
    few = save(tmp_path / "few", varied_images(20, seed=3))
    peer = torch_fidelity.calculate_metrics(
        input1=str(few),
        isc=True,
        isc_splits=4,
        feature_extractor_weights_path=str(inception_file),
        cuda=False,
        cache=False,
        verbose=False,
    )
    options = {"is": {"splits": 4}}
    found = genbench.evaluate(few, None, ["is"], weights=inception_file, options=options)["inception_score"]
    assert found.value == pytest.approx(peer["inception_score_mean"], rel=1e-5) and found.value > 1.1
    assert found.provenance["extra"]["std_over_splits"] == pytest.approx(peer["inception_score_std"], rel=1e-4)


def test_torchmetrics(images, inception_file):
    peer = FrechetInceptionDistance(feature=64, feature_extractor_weights_path=str(inception_file))
    peer.set_dtype(torch.float64)
    peer.update(torch.from_numpy(images[1]), real=True)
    peer.update(torch.from_numpy(images[0]), real=False)
    found = ours(images, inception_file, ["fid"], protocol="torchmetrics")["fid"]
    assert found.value == pytest.approx(float(peer.compute()), rel=1e-5)


def test_pytorch_fid(folders, inception_file, monkeypatch):
    load = lambda url, progress: torch.load(inception_file, weights_only=True)  # noqa: E731
    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", load)
    paths = [str(folder) for folder in folders]
    peer = pytorch_fid.fid_score.calculate_fid_given_paths(paths, 40, "cpu", 64, num_workers=0)
    found = ours(folders, inception_file, ["fid"], protocol="pytorch-fid")["fid"]
    assert found.value == pytest.approx(peer, rel=1e-5)


def test_protocols_differ_and_say_so(images, inception_file):
    few = images[0][:12], images[1][:12]
    found = {
        name: ours(few, inception_file, ["fid"], protocol=name)["fid"]
        for name in ("tf1", "pytorch-fid", "clean", "torchmetrics", "adm")
    }
    assert found["adm"].value == found["tf1"].value
    distinct = {name: found[name].value for name in ("tf1", "pytorch-fid", "clean", "torchmetrics")}
    assert len(set(np.round(list(distinct.values()), 9))) == 4, distinct
    assert len({metric.comparable["protocol"] for metric in found.values()}) == 5
