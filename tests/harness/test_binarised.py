"""Binarised MNIST: the draw, its hash, the split, the published text files, and redrawing while training."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import Histogram

from genbench.api import Batch, ImageSpec, ModelConfig, TrainingData
from genbench.data.binarised import AMAT_FILES, STATIC_SHA256, binarise, check_static_draw, read_binarised_mnist
from genbench.data.load import load_dataset
from genbench.data.split import Part, RawDataset
from genbench.errors import DataError, UsageError
from genbench.files import hash_array
from genbench.recipe import TrainRecipe
from genbench.train import Trainer, build_model

ROOT = os.environ.get("GENBENCH_DATA_ROOT")


def test_a_pixel_is_on_with_probability_its_grey_value():
    grey = np.repeat(np.array([0, 1, 51, 204, 254, 255], np.uint8), 200_000).reshape(6, -1)
    drawn = binarise(grey, np.random.RandomState(1))
    assert set(np.unique(drawn)) == {0, 255}
    share = (drawn == 255).mean(1)
    p = np.array([0, 1, 51, 204, 254, 255]) / 255
    assert share[0] == 0.0 and share[-1] == 1.0
    assert (abs(share - p) <= 4 * np.sqrt(p * (1 - p) / 200_000)).all()


@pytest.mark.skipif(ROOT is None, reason="needs MNIST under GENBENCH_DATA_ROOT")
def test_the_static_draw_is_this_one_and_is_split_as_mnist_is(tmp_path):
    raw = read_binarised_mnist([Path(ROOT)], tmp_path)
    assert {name: hash_array(part.images) for name, part in raw.parts.items()} == STATIC_SHA256
    binary, grey = load_dataset("mnist-binary"), load_dataset("mnist")
    assert [len(split) for split in (binary.train, binary.validation, binary.test)] == [50_000, 10_000, 10_000]
    assert binary.spec.levels == 2 and set(np.unique(binary.test.images)) == {0, 255}
    assert np.array_equal(binary.validation.labels, grey.validation.labels)
    assert np.array_equal(binary.train.intensities, grey.train.images)
    on, p = binary.train.images[:2000] == 255, grey.train.images[:2000] / 255
    assert (on[p == 1]).all() and not on[p == 0].any()
    assert ((on - p).sum() / np.sqrt((p * (1 - p)).sum())) ** 2 < 16
    assert (on != (p > 0.5)).sum() > 10_000, "a threshold would agree everywhere"


def test_images_that_are_not_the_published_ones_in_order_are_refused():
    parts = {name: Part(np.zeros((3, 1, 28, 28), np.uint8), None) for name in ("train", "test")}
    with pytest.raises(DataError, match=r"SHA-256 [0-9a-f]{12}\.\.\., expected 3f5ec35337c3.*\(here\) do not hold"):
        check_static_draw(RawDataset("here", parts, levels=2))


def write_amat(folder, counts=(5, 3, 2), text=None):
    rng = np.random.default_rng(0)
    images = {}
    for name, count in zip(("train", "validation", "test"), counts):
        bits = rng.integers(0, 2, (count, 784))
        lines = "\n".join(" ".join(map(str, row)) for row in bits) + "\n"
        (folder / AMAT_FILES[name]).write_text(lines if text is None or name != "test" else text)
        images[name] = bits.reshape(count, 1, 28, 28) * 255
    return images


def test_the_published_text_files_are_read_in_their_order(tmp_path):
    images = write_amat(tmp_path)
    splits = load_dataset(f"amat:{tmp_path}")
    assert splits.spec.levels == 2
    for part in (splits.train, splits.validation, splits.test):
        found = sorted(image.tobytes() for image in part.images)
        assert found == sorted(image.astype(np.uint8).tobytes() for image in images[part.split])


@pytest.mark.parametrize(
    ("text", "message"),
    [("0 1 2\n", "values 0 and 1"), ("0 1 0\n", "truncated"), ("01" * 392 + "\n", "one space"), ("", "values 0 and 1")],
)
def test_damaged_text_files_are_refused(tmp_path, text, message):
    write_amat(tmp_path, text=text)
    with pytest.raises(DataError, match=f"{AMAT_FILES['test']}.*{message}"):
        load_dataset(f"amat:{tmp_path}")


def test_a_missing_text_file_is_named(tmp_path):
    write_amat(tmp_path)
    (tmp_path / AMAT_FILES["validation"]).unlink()
    with pytest.raises(DataError, match=r"binarized_mnist_valid.amat: no such file"):
        load_dataset(f"amat:{tmp_path}")


SPEC = ImageSpec(1, 4, 4, 2)


def train(intensities, steps=200, dynamic=True):
    seen = []

    class Watches(Histogram):
        def update(self, batch, ctx):
            seen.append(batch.images)
            return super().update(batch, ctx)

    images = torch.zeros(10, 1, 4, 4, dtype=torch.uint8)
    batch = Batch(images, torch.arange(10))
    recipe = TrainRecipe(steps=steps, batch_size=10, dynamic_binarisation=dynamic)
    model = build_model(Watches, ModelConfig(), SPEC, 0)
    data = TrainingData(batch, batch, SPEC, intensities)
    Trainer(model, data, recipe, seed=0, device=torch.device("cpu")).run()
    return torch.stack(seen)


def test_dynamic_binarisation_redraws_each_image_from_its_grey_values():
    grey = torch.full((10, 1, 4, 4), 51, dtype=torch.uint8)
    grey[..., 0], grey[..., 1] = 0, 255
    seen = train(grey)
    assert set(seen.unique().tolist()) == {0, 255}
    assert not seen[..., 0].any() and bool((seen[..., 1] == 255).all())
    share = float((seen[..., 2:] == 255).double().mean())
    assert abs(share - 0.2) < 4 * (0.16 / seen[..., 2:].numel()) ** 0.5
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(seen, train(grey)), "the draw of a step is a function of seed and step"
    assert not train(grey, dynamic=False).any()


def test_dynamic_binarisation_needs_grey_values():
    with pytest.raises(UsageError, match=r"dynamic_binarisation redraws .* has none"):
        train(None)
