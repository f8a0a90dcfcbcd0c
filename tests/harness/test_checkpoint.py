"""Checkpoints: round trip, damage, and code that must not run."""

import pickle

import pytest
import torch
from toys import FILE, Histogram

from genbench.api import ImageSpec, ModelConfig
from genbench.checkpoint import load_checkpoint, load_tensors, read_manifest, save_checkpoint
from genbench.errors import DataError, UsageError
from genbench.train import build_model

SPEC = ImageSpec(1, 4, 4, 5)


@pytest.fixture
def folder(tmp_path):
    model = build_model(Histogram, ModelConfig(), SPEC, 0)
    manifest = {"suite": "s", "config": {}, "spec": vars(SPEC), "seed": 0, "key": "k", "genbench_version": "0"}
    save_checkpoint(tmp_path, model, {**manifest, "model": f"{FILE}:Histogram"})
    return tmp_path


def test_round_trip(folder):
    model, manifest = load_checkpoint(folder, model_class=Histogram)
    assert torch.equal(model.net.logits, build_model(Histogram, ModelConfig(), SPEC, 0).net.logits)
    assert not model.training
    assert manifest.key == "k"


def test_code_path_in_a_manifest_is_not_followed(folder):
    with pytest.raises(UsageError, match="pass --model"):
        load_checkpoint(folder)


def test_pickle_with_code_is_refused(folder, tmp_path_factory):
    witness = tmp_path_factory.mktemp("w") / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(witness), "w"))

    path = folder / "weights.safetensors"
    path.write_bytes(pickle.dumps({"net.logits": Evil()}))
    with pytest.raises(DataError, match=r"pickles\) are never loaded"):
        load_tensors(path)
    with pytest.raises(DataError, match=r"weights\.safetensors: SHA-256"):
        load_checkpoint(folder, model_class=Histogram)
    assert not witness.exists()


@pytest.mark.parametrize("keep", [0, 10, 60])
def test_truncated_weights_are_named(folder, keep):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"weights\.safetensors"):
        load_checkpoint(folder, model_class=Histogram)
    with pytest.raises(DataError, match=r"weights\.safetensors"):
        load_tensors(path)


def test_missing_and_malformed_manifest(folder):
    (folder / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match=r"manifest\.json"):
        read_manifest(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="a checkpoint is a folder"):
        load_checkpoint(folder)


def test_weights_of_another_shape(folder):
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"levels": 5', '"levels": 6'))
    with pytest.raises(DataError, match="do not fit Histogram"):
        load_checkpoint(folder, model_class=Histogram)
