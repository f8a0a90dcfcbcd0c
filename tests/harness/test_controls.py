"""The controls: what they return is what their names say, and their probabilities are probabilities."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from genbench import registry
from genbench.api import Batch, HasLikelihood, ImageSpec, SampleRequest
from genbench.controls import (
    Control,
    FitsSplits,
    Gaussian,
    IndependentPixels,
    Memoriser,
    ModeDropper,
    ReplayConfig,
    TestSplit,
    UniformNoise,
)
from genbench.data import Splits, load_dataset
from genbench.data.split import Part, RawDataset, complete, to_splits
from genbench.errors import UsageError
from genbench.images import bits_per_dim, from_levels, to_levels
from genbench.noise import NoiseSource

CONTROLS: list[type[Control]] = [TestSplit, Memoriser, Gaussian, ModeDropper, UniformNoise, IndependentPixels]


@pytest.fixture(scope="module")
def digits() -> Splits:
    return load_dataset("digits")


def fitted(control: type[Control], splits: Splits, seed: int = 0, **config: int) -> Control:
    model = control(control.Config(**config), splits.spec)
    assert isinstance(model, FitsSplits)
    model.fit_splits(splits, torch.Generator().manual_seed(seed))
    return model


def draw(model: Control, index: Tensor | range, seed: int = 0) -> Tensor:
    return model.sample(SampleRequest(NoiseSource(seed, torch.as_tensor(index))))


def as_set(images: Tensor | np.ndarray) -> set[bytes]:
    return {np.asarray(image).tobytes() for image in images}


def no_noise(batch: Batch) -> NoiseSource:
    return NoiseSource(0, batch.index, "likelihood")


def tiny_splits(levels: int, seed: int = 0) -> Splits:
    """Sixty images of 1 x 2 x 2 on few levels, with correlated pixels."""
    rng = np.random.RandomState(seed)
    k = np.minimum(rng.randint(0, levels, (60, 1, 1, 1)), rng.randint(0, levels, (60, 1, 2, 2)))
    images = from_levels(torch.from_numpy(k), levels).numpy()
    return to_splits("tiny", complete(RawDataset("tiny", {"train": Part(images, None)}, levels=levels), 0))


def test_names_stand_for_these_classes() -> None:
    names = ["test_split", "memoriser", "gaussian", "mode_dropper", "noise", "independent_pixels"]
    assert [registry.load_model(name) for name in names] == CONTROLS
    assert all(control.control for control in CONTROLS)


@pytest.mark.parametrize("control", CONTROLS)
def test_samples_fit_the_contract(control: type[Control], digits: Splits) -> None:
    model = fitted(control, digits)
    whole = draw(model, range(50))
    assert whole.shape == (50, 1, 8, 8)
    assert whole.dtype == torch.uint8
    assert torch.equal(whole, from_levels(to_levels(whole, 17), 17))
    assert torch.equal(torch.cat([draw(model, range(i, min(i + 7, 50))) for i in range(0, 50, 7)]), whole)
    shuffled = torch.randperm(50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draw(model, shuffled), whole[shuffled])
    assert not list(model.parameters())


@pytest.mark.parametrize("control", CONTROLS)
def test_state_loads_into_a_fresh_instance(control: type[Control], digits: Splits) -> None:
    model = fitted(control, digits)
    fresh = control(control.Config(), digits.spec)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(draw(fresh, range(20)), draw(model, range(20)))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        fresh.load_state_dict({**model.state_dict(), "other": torch.zeros(1)})


def test_test_split_returns_each_test_image_once_then_again(digits: Splits) -> None:
    model = fitted(TestSplit, digits)
    images = draw(model, range(594))
    assert sorted(i.numpy().tobytes() for i in images[:297]) == sorted(i.tobytes() for i in digits.test.images)
    assert torch.equal(images[:297], images[297:])


def test_memoriser_replays_training_images_without_repetition(digits: Splits) -> None:
    train = as_set(digits.train.images)
    images = draw(fitted(Memoriser, digits), range(1300))
    assert as_set(images) == train
    assert not torch.equal(images[:100], torch.from_numpy(digits.train.images[:100]))
    assert not torch.equal(images, draw(fitted(Memoriser, digits, seed=1), range(1300)))
    capped = fitted(Memoriser, digits, max_images=40)
    assert len(as_set(draw(capped, range(100)))) == 40
    assert as_set(draw(capped, range(100))) <= train


def test_mode_dropper_keeps_half_of_the_classes(digits: Splits) -> None:
    model = ModeDropper(ReplayConfig(), digits.spec)
    figures = model.fit_splits(digits, torch.Generator())
    assert digits.train.labels is not None
    kept = digits.train.images[digits.train.labels < 5]
    assert figures == {"images": len(kept), "classes": 5}
    assert as_set(draw(model, range(len(kept)))) == as_set(kept)


def test_mode_dropper_needs_labels(digits: Splits) -> None:
    spec = replace(digits.spec, class_names=())
    train = replace(digits.train, labels=None, spec=spec)
    with pytest.raises(UsageError, match="'digits' has no labels"):
        fitted(ModeDropper, replace(digits, train=train))


def test_replay_before_fitting_is_an_error(digits: Splits) -> None:
    with pytest.raises(UsageError, match="has no images yet"):
        draw(Memoriser(ReplayConfig(), digits.spec), range(3))


def test_gaussian_has_the_training_moments(digits: Splits) -> None:
    model = fitted(Gaussian, digits)
    assert isinstance(model, Gaussian)
    k = to_levels(torch.from_numpy(digits.train.images), 17).reshape(1300, 64).double()
    factor = model.factor.double()
    assert torch.allclose(model.mean.double(), k.mean(0), atol=1e-5)
    assert torch.allclose(factor @ factor.T, torch.cov(k.T), atol=1e-4)
    constant = k.var(0) == 0
    assert constant.any()
    assert torch.equal(draw(model, range(200)).reshape(200, 64)[:, constant], torch.zeros(200, int(constant.sum())))


def test_gaussian_samples_have_its_moments_up_to_rounding() -> None:
    rng = np.random.RandomState(0)
    mixing = np.array([[9.0, 0, 0, 0], [6, 5, 0, 0], [-4, 3, 8, 0], [0, -7, 2, 6]])
    pixels = np.clip(np.rint(128 + rng.randn(4000, 4) @ mixing.T), 0, 255).astype(np.uint8).reshape(-1, 1, 2, 2)
    splits = to_splits("g", complete(RawDataset("g", {"train": Part(pixels, None)}), 0))
    samples = draw(fitted(Gaussian, splits), range(20_000)).reshape(-1, 4).double()
    train = torch.from_numpy(splits.train.images).reshape(-1, 4).double()
    expected = torch.cov(train.T) + torch.eye(4, dtype=torch.float64) / 12
    assert torch.allclose(samples.mean(0), train.mean(0), atol=4 * 12 / math.sqrt(20_000))
    scale = expected.diagonal().sqrt()
    assert (torch.cov(samples.T) - expected).div(torch.outer(scale, scale)).abs().max() < 4 * math.sqrt(2 / 20_000)


def test_noise_is_uniform_and_its_likelihood_exact(digits: Splits) -> None:
    model = fitted(UniformNoise, digits)
    levels = to_levels(draw(model, range(1000)), 17)
    counts = torch.bincount(levels.reshape(-1), minlength=17).double()
    expected = counts.sum() / 17
    assert ((counts - expected) ** 2 / expected).sum() < 39.3
    assert isinstance(model, HasLikelihood)
    batch = digits.test.batch(np.arange(3))
    result = model.log_likelihood(batch, no_noise(batch), "exact")
    assert torch.allclose(bits_per_dim(result.nats, 64), torch.full((3,), math.log2(17), dtype=torch.float64))


@pytest.mark.parametrize("control", [UniformNoise, IndependentPixels])
def test_probabilities_of_all_images_sum_to_one(control: type[Control]) -> None:
    splits = tiny_splits(levels=3)
    model = fitted(control, splits)
    assert isinstance(model, HasLikelihood)
    every = torch.tensor(list(itertools.product(range(3), repeat=4))).reshape(-1, 1, 2, 2)
    batch = Batch(from_levels(every, 3), torch.arange(len(every)))
    result = model.log_likelihood(batch, no_noise(batch), "exact")
    assert result.kind == "exact"
    assert result.nats.dtype == torch.float64
    assert math.isclose(float(result.nats.exp().sum()), 1.0, rel_tol=1e-12)
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'elbo'"):
        model.log_likelihood(batch, no_noise(batch), "elbo")


def test_independent_pixels_samples_follow_the_probabilities() -> None:
    model = fitted(IndependentPixels, tiny_splits(levels=5))
    assert isinstance(model, IndependentPixels)
    levels = to_levels(draw(model, range(20_000)), 5).reshape(-1, 4)
    found = torch.stack([torch.bincount(levels[:, d], minlength=5) for d in range(4)]) / 20_000
    assert (found - model.log_probabilities().exp()).abs().max() < 4 * 0.5 / math.sqrt(20_000)
    correlation = torch.corrcoef(levels.T.double()) - torch.eye(4)
    assert correlation.abs().max() < 4 / math.sqrt(20_000)


def test_independent_pixels_pseudo_count_is_the_best_on_validation() -> None:
    splits = tiny_splits(levels=9)
    model = fitted(IndependentPixels, splits)
    assert isinstance(model, IndependentPixels)
    chosen = float(model.pseudo_count)
    batch = splits.validation.batch()
    totals = {}
    for count in IndependentPixels.PSEUDO_COUNTS:
        model.pseudo_count.fill_(count)
        totals[count] = float(model.log_likelihood(batch, no_noise(batch), "exact").nats.sum())
    assert max(totals, key=totals.__getitem__) == pytest.approx(chosen)


def test_independent_pixels_on_digits(digits: Splits) -> None:
    model = fitted(IndependentPixels, digits)
    assert isinstance(model, HasLikelihood)
    batch = digits.test.batch()
    nats = model.log_likelihood(batch, no_noise(batch), "exact").nats
    assert float(bits_per_dim(nats, 64).mean()) == pytest.approx(2.437, abs=0.02)


def test_a_control_for_colour_images_of_256_levels() -> None:
    images = np.random.RandomState(0).randint(0, 256, (30, 3, 4, 5)).astype(np.uint8)
    splits = to_splits("c", complete(RawDataset("c", {"train": Part(images, np.arange(30) % 2)}, ("a", "b")), 0))
    assert splits.spec == ImageSpec(3, 4, 5, 256, ("a", "b"))
    for control in CONTROLS:
        assert draw(fitted(control, splits), range(6)).shape == (6, 3, 4, 5)
