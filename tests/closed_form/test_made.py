"""MADE: causal under every mask, normalised by enumeration, and sampled from the mixture that it scores."""

from __future__ import annotations

import math
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from baselines.autoregressive.made import MADE, MADEConfig
from baselines.nets.levels import draw_levels, level_inputs
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

BINARY = ImageSpec(1, 3, 3, 2)
TERNARY = ImageSpec(1, 2, 2, 3)


def build(spec: ImageSpec, scale: float = 1.0, **config: Any) -> MADE:
    """A model with random weights, large enough that its conditionals are far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MADE(MADEConfig(**{"hidden": (12, 10), **config}), spec).eval()
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.weight.normal_(0, scale)
                    if layer.bias is not None:
                        layer.bias.normal_(0, 0.3 * scale)
    return model


def all_levels(spec: ImageSpec) -> torch.Tensor:
    """Every image of a small space as levels, (K^D, C, H, W), the last value varying fastest."""
    return torch.tensor(list(product(range(spec.levels), repeat=spec.dims))).reshape(-1, *spec.shape)


def log_prob(model: MADE, estimator: str = "exact") -> torch.Tensor:
    """log P of every image of the model's space."""
    levels = all_levels(model.spec)
    batch = Batch(images=from_levels(levels, model.spec.levels), index=torch.arange(len(levels)))
    result = model.log_likelihood(batch, NoiseSource(0, batch.index), estimator)
    assert (result.kind, result.estimator, result.standard_error) == ("exact", estimator, None)
    return result.nats


def request(n: int, temperature: float | None = None, condition: Condition | None = None) -> SampleRequest:
    options = SamplerOptions(temperature=temperature)
    return SampleRequest(NoiseSource(3, torch.arange(n)), options, condition or Condition())


def frequencies_match(samples: torch.Tensor, spec: ImageSpec, probabilities: torch.Tensor) -> bool:
    """Chi-square of samples (N, C, H, W) uint8 against the probabilities of `all_levels`, rare images pooled."""
    codes = to_levels(samples, spec.levels).flatten(1) @ spec.levels ** torch.arange(spec.dims - 1, -1, -1)
    counts = torch.bincount(codes, minlength=spec.levels**spec.dims).double()
    rare = probabilities * len(samples) < 5
    observed = torch.cat((counts[~rare], counts[rare].sum()[None]))
    expected = torch.cat((probabilities[~rare], probabilities[rare].sum()[None])) * len(samples)
    kept = expected > 0
    return bool(counts[probabilities == 0].sum() == 0) and chisquare(observed[kept], expected[kept]).pvalue > 1e-3


@pytest.mark.parametrize("order", ["raster", "random"])
@pytest.mark.parametrize("spec", [BINARY, TERNARY], ids=["K=2", "K=3"])
def test_jacobian_is_strictly_causal_under_every_mask(spec: ImageSpec, order: str) -> None:
    model = build(spec, order=order, num_masks=3, hidden=(40, 40)).double()
    orderings = set()
    for index in range(3):
        inputs = torch.rand(8, spec.dims * (spec.levels - 1), dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda x, m=index: model.network(x, m).pow(2).sum((0, 2)), inputs)
        reached = jacobian.abs().sum(1).view(spec.dims, spec.dims, -1).sum(2) > 0
        position = model.network.degrees(index)[0]
        assert torch.equal(reached, position[:, None] > position[None, :])
        orderings.add(tuple(position.tolist()))
    assert len(orderings) == (3 if order == "random" else 1)


@pytest.mark.parametrize("direct", [False, True])
def test_hidden_paths_alone_are_causal_with_few_units(direct: bool) -> None:
    model = build(BINARY, hidden=(3, 20, 4), num_masks=2, order="random", direct=direct).double()
    for index in range(2):
        inputs = torch.rand(16, 9, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(lambda x, m=index: model.network(x, m).pow(2).sum((0, 2)), inputs)
        position, *hidden = model.network.degrees(index)
        later = position[:, None] > position[None, :]
        assert not (jacobian.abs().sum(1) > 0)[~later].any()
        assert all(int(degrees.min()) >= 1 and int(degrees.max()) <= 8 for degrees in hidden)
        assert all(int(above.min()) >= int(below.min()) for below, above in pairwise(hidden))


@pytest.mark.parametrize("spec", [BINARY, TERNARY], ids=["K=2", "K=3"])
@pytest.mark.parametrize("estimator", ["exact", "first-mask"])
def test_probabilities_of_all_images_sum_to_one(spec: ImageSpec, estimator: str) -> None:
    log_p = log_prob(build(spec, num_masks=3, order="random"), estimator)
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert log_p.std() > 0.5


def test_the_model_is_the_mixture_of_its_masks() -> None:
    model = build(BINARY, num_masks=4, order="random")
    images = from_levels(all_levels(BINARY), 2)
    each = model.log_probs(images, 4).exp()
    assert each.std(0).max() > 1e-3
    assert torch.allclose(log_prob(model).exp(), each.mean(0), rtol=1e-10)
    assert torch.equal(log_prob(model, "first-mask").exp(), each[0])
    assert build(BINARY).likelihood_estimators() == ("exact",)


def test_a_mask_is_trained_at_a_time_in_turn() -> None:
    model = build(BINARY, num_masks=3, order="random")
    images = from_levels(all_levels(BINARY)[:50], 2)
    batch = Batch(images=images, index=torch.arange(50))
    for step in range(4):
        ctx = SimpleNamespace(step=step, backward=lambda _: None, step_optimizer=lambda _: None)
        nats = model.update(batch, ctx)["nats"]
        assert nats.item() == pytest.approx(-model.log_probs(images, 3)[step % 3].mean().item(), rel=1e-5)


def test_frequencies_of_samples_match_the_mixture() -> None:
    model = build(TERNARY, num_masks=3, order="random", scale=0.7)
    probabilities = log_prob(model).exp()
    samples = model.sample(request(6000))
    assert frequencies_match(samples, TERNARY, probabilities)
    assert not frequencies_match(samples, TERNARY, log_prob(model, "first-mask").exp())


@pytest.mark.parametrize("spec", [ImageSpec(1, 5, 4, 2), ImageSpec(3, 2, 3, 5)], ids=["K=2", "K=5"])
@pytest.mark.parametrize("direct", [False, True])
def test_incremental_sampling_equals_full_passes(spec: ImageSpec, direct: bool) -> None:
    model = build(spec, scale=0.6, num_masks=3, order="random", hidden=(30, 25), direct=direct)
    asked = request(40)
    which = (asked.noise.uniform(()) * 3).long()
    uniform = asked.noise.uniform((spec.dims,))
    levels = torch.zeros(40, spec.dims, dtype=torch.int64)
    with torch.no_grad():
        for i in range(40):
            for dim in model.network.degrees(int(which[i]))[0].argsort().tolist():
                logits = model.network(level_inputs(levels[i : i + 1], spec.levels).flatten(1), int(which[i]))
                levels[i, dim] = draw_levels(logits[:, dim], uniform[i : i + 1, dim])[0]
    assert which.unique().numel() == 3
    assert torch.equal(model.sample(request(40)), from_levels(levels.view(-1, *spec.shape), spec.levels))


def test_inpainting_is_the_exact_conditional_for_values_first_in_the_ordering() -> None:
    model = build(TERNARY, scale=0.7)
    given = torch.tensor([True, True, False, False]).view(1, 1, 2, 2).expand(4000, 1, 2, 2)
    source = from_levels(torch.tensor([1, 2, 0, 0]), 3).view(1, 1, 2, 2).expand(4000, 1, 2, 2)
    samples = model.sample(request(4000, condition=Condition(source=source, mask=given)))
    assert torch.equal(samples[given], source[given])
    matching = (all_levels(TERNARY).flatten(1)[:, :2] == torch.tensor([1, 2])).all(1)
    joint = log_prob(model).exp() * matching
    assert frequencies_match(samples, TERNARY, joint / joint.sum())


def test_inpainting_keeps_given_pixels_of_any_mask_and_channel() -> None:
    spec = ImageSpec(3, 4, 4, 5)
    model = build(spec, num_masks=2, order="random")
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(20, 1, 4, 4, generator=generator) < 0.5
    source = from_levels(torch.randint(5, (20, *spec.shape), generator=generator), 5)
    samples = model.sample(request(20, condition=Condition(source=source, mask=mask)))
    kept = mask.expand(20, *spec.shape)
    assert torch.equal(samples[kept], source[kept])
    assert not torch.equal(samples, source)
    nothing = Condition(source=source, mask=torch.zeros_like(mask))
    assert torch.equal(model.sample(request(20, condition=nothing)), model.sample(request(20)))


def test_low_temperature_gives_the_most_likely_values_greedily() -> None:
    model = build(BINARY)
    samples = model.sample(request(8, temperature=1e-4))
    assert all(torch.equal(sample, samples[0]) for sample in samples)
    logits = model.network(level_inputs(to_levels(samples[:1], 2).flatten(1), 2).flatten(1))[0, :, 0]
    assert torch.equal(to_levels(samples[0], 2).flatten(), (logits > 0).long())


def test_inputs_of_a_value_are_the_levels_that_it_reaches() -> None:
    assert level_inputs(torch.tensor([[0, 1, 3]]), 4).tolist() == [[[0, 0, 0], [1, 0, 0], [1, 1, 1]]]
    assert level_inputs(torch.tensor([[0, 1]]), 2).tolist() == [[[0], [1]]]


def test_a_single_value_has_no_conditions() -> None:
    model = build(ImageSpec(1, 1, 1, 3))
    assert log_prob(model).exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    bias = model.network.layers[-1].bias.detach().double()
    assert math.isclose(log_prob(model)[0].item(), bias.log_softmax(0)[0].item(), rel_tol=1e-6)


def test_bad_input_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"hidden = \[\], expected the width of each hidden layer"):
        MADE(MADEConfig(hidden=()), BINARY)
    with pytest.raises(UsageError, match=r"hidden = \[8, 0\]"):
        MADE(MADEConfig(hidden=(8, 0)), BINARY)
    model = build(BINARY)
    with pytest.raises(UsageError, match="temperature must be positive, got 0"):
        model.sample(request(2, temperature=0.0))
    with pytest.raises(UsageError, match="Unknown likelihood estimator of MADE 'first-mask'"):
        log_prob(model, "first-mask")
    mask, source = torch.ones(2, 1, 3, 3, dtype=torch.bool), torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    with pytest.raises(UsageError, match=r"no source.*Give one mask and one source for each sample"):
        model.sample(request(2, condition=Condition(mask=mask)))
    with pytest.raises(UsageError, match=r"a source of shape \(1, 1, 3, 3\)"):
        model.sample(request(2, condition=Condition(mask=mask, source=source[:1])))
