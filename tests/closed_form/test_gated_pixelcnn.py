"""Gated PixelCNN: causal without a blind spot, normalised by enumeration, sampled from the distribution it scores."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
import torch
from scipy.stats import chisquare

from baselines.autoregressive.gated_pixelcnn import GatedPixelCNN, GatedPixelCNNConfig, StackCache
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, levels_to_float, to_levels
from genbench.noise import NoiseSource

SMALL = GatedPixelCNNConfig(channels=6, layers=2, first_kernel=3, head=9)
TOLD = SMALL.model_copy(update={"class_conditional": True})
CLASSES = ("a", "b", "c")


def build(spec: ImageSpec, config: GatedPixelCNNConfig = SMALL, scale: float = 1.0) -> GatedPixelCNN:
    """A model with random weights, large enough that its conditionals are far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GatedPixelCNN(config, spec).eval()
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight.normal_(0, 2.0 * scale / math.sqrt(layer.weight[0].numel()))
                    layer.bias.normal_(0, 0.3 * scale)
                if isinstance(layer, torch.nn.Embedding):
                    layer.weight.normal_(0, scale)
    return model


def all_images(spec: ImageSpec) -> torch.Tensor:
    """Every image of a small space as levels, (K^D, C, H, W), the last value varying fastest."""
    return torch.tensor(list(product(range(spec.levels), repeat=spec.dims))).reshape(-1, *spec.shape)


def log_prob(model: GatedPixelCNN, levels: torch.Tensor) -> torch.Tensor:
    batch = Batch(images=from_levels(levels, model.spec.levels), index=torch.arange(len(levels)))
    result = model.log_likelihood(batch, NoiseSource(0, batch.index), "exact")
    assert result.kind == "exact"
    assert result.standard_error is None
    return result.nats


def request(n: int, temperature: float | None = None, **condition: torch.Tensor) -> SampleRequest:
    return SampleRequest(
        NoiseSource(3, torch.arange(n)), SamplerOptions(temperature=temperature), Condition(**condition)
    )


def assert_drawn_from(levels: torch.Tensor, probabilities: torch.Tensor, spec: ImageSpec) -> None:
    """Chi-square of images against probabilities in the order of `all_images`; uniform ones must be refused."""
    weights = spec.levels ** torch.arange(spec.dims - 1, -1, -1)
    counts = torch.bincount(levels.flatten(1) @ weights, minlength=len(probabilities))
    total = len(levels)
    assert counts[probabilities == 0].sum() == 0
    keep = probabilities * total >= 5
    observed = torch.cat((counts[keep], counts[~keep].sum()[None])).double()
    expected = torch.cat((probabilities[keep], probabilities[~keep].sum()[None])) * total
    filled = expected > 0
    assert chisquare(observed[filled].numpy(), expected[filled].numpy()).pvalue > 1e-3
    assert chisquare(observed[filled].numpy()).pvalue < 1e-6


@pytest.mark.parametrize("channels", [1, 3])
def test_jacobian_is_causal_and_has_no_blind_spot(channels: int) -> None:
    spec = ImageSpec(channels, 5, 6, 4)
    model = build(spec, SMALL.model_copy(update={"channels": 24, "layers": 5, "head": 48})).double()
    x = torch.rand(6, *spec.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    jacobian = torch.autograd.functional.jacobian(lambda v: model.network(v).pow(2).sum((0, 2)), x).abs().sum(3)
    raster = jacobian.permute(1, 2, 0, 4, 5, 3).reshape(spec.dims, spec.dims)  # rows, columns, then colours
    assert torch.equal(raster != 0, torch.ones_like(raster).tril(-1).bool())


def test_receptive_field_grows_by_the_kernels_alone() -> None:
    spec = ImageSpec(1, 8, 11, 4)
    model = build(spec, SMALL.model_copy(update={"layers": 1, "first_kernel": 5})).double()
    x = torch.rand(8, *spec.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(model.network(x)[:, 0, :, 6, 5].pow(2).sum(), x)
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(11), indexing="ij")
    above = (rows < 6) & (rows >= 3) & ((columns - 5).abs() <= 3)
    left = (rows == 6) & (columns < 5) & (columns >= 2)
    assert torch.equal(gradient.abs().sum((0, 1)) > 0, above | left)


@pytest.mark.parametrize("spec", [ImageSpec(1, 3, 3, 2), ImageSpec(3, 1, 2, 3)])
def test_probabilities_of_all_images_sum_to_one(spec: ImageSpec) -> None:
    log_p = log_prob(build(spec, scale=2.0), all_images(spec))
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert log_p.std() > 0.5


def test_a_class_conditional_model_is_a_mixture_over_its_classes() -> None:
    spec = ImageSpec(1, 2, 3, 2, CLASSES)
    model, levels = build(spec, TOLD), all_images(spec)
    images = from_levels(levels, 2)
    with torch.no_grad():
        given = torch.stack([model.log_prob(images, torch.full((len(levels),), y)) for y in range(3)])
    assert torch.allclose(given.exp().sum(1), torch.ones(3, dtype=torch.float64), atol=1e-6)
    assert (given[0] - given[1]).abs().max() > 0.1
    assert torch.allclose(log_prob(model, levels), given.exp().mean(0).log(), atol=1e-12)


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_sampling_frequencies_match_the_probabilities(temperature: float | None) -> None:
    spec = ImageSpec(1, 2, 2, 2)
    model, levels = build(spec), all_images(spec)
    with torch.no_grad():
        logits = model.network(levels_to_float(levels, 2)).double() / (temperature or 1.0)
    probabilities = logits.log_softmax(2).gather(2, levels[:, :, None]).flatten(1).sum(1).exp()
    assert_drawn_from(to_levels(model.sample(request(4000, temperature)), 2), probabilities, spec)


def test_samples_of_no_asked_class_come_from_the_mixture() -> None:
    spec = ImageSpec(1, 2, 2, 2, CLASSES)
    model = build(spec, TOLD)
    assert_drawn_from(to_levels(model.sample(request(4000)), 2), log_prob(model, all_images(spec)).exp(), spec)


@pytest.mark.parametrize("colours", [1, 2])
def test_inpainting_what_follows_is_the_exact_conditional(colours: int) -> None:
    spec = ImageSpec(colours, 2, 2, 2)
    model, levels = build(spec), all_images(spec)
    source = torch.full((4000, *spec.shape), 255, dtype=torch.uint8)
    mask = torch.zeros(4000, 1, 2, 2, dtype=torch.bool)
    mask[:, :, 0] = True
    possible = (levels[:, :, 0] == 1).flatten(1).all(1)
    joint = log_prob(model, levels).exp() * possible
    drawn = to_levels(model.sample(request(4000, mask=mask, source=source)), 2)
    assert_drawn_from(drawn, joint / joint.sum(), spec)


def test_given_pixels_are_kept_and_no_mask_is_ordinary_sampling() -> None:
    spec = ImageSpec(3, 4, 5, 4)
    model = build(spec)
    source = from_levels(torch.randint(4, (8, *spec.shape), generator=torch.Generator().manual_seed(0)), 4)
    mask = torch.rand(8, 1, 4, 5, generator=torch.Generator().manual_seed(1)) < 0.5
    ordinary, filled = model.sample(request(8)), model.sample(request(8, mask=mask, source=source))
    given = mask.expand_as(source)
    assert torch.equal(filled[given], source[given])
    assert not torch.equal(filled[~given], source[~given])
    assert torch.equal(model.sample(request(8, mask=torch.zeros_like(mask), source=source)), ordinary)


@pytest.mark.parametrize("spec", [ImageSpec(1, 6, 5, 5), ImageSpec(3, 4, 3, 4), ImageSpec(1, 5, 7, 2, CLASSES)])
def test_cached_logits_and_samples_equal_those_of_full_passes(spec: ImageSpec) -> None:
    config = (TOLD if spec.num_classes else SMALL).model_copy(update={"kernel": 5, "first_kernel": 7})
    model, asked, cache = build(spec, config), request(12), StackCache(spec.width)
    labels = torch.arange(12) % 3 if spec.num_classes else None
    levels = torch.zeros(12, *spec.shape, dtype=torch.int64)
    with torch.no_grad():
        for row, column, colour in product(range(spec.height), range(spec.width), range(spec.channels)):
            x = levels_to_float(levels, spec.levels)
            full = model.network(x, labels)[:, colour, :, row, column]
            cache.row, cache.column = row, column
            cached = model.network(x, labels, cache)[:, colour, :, 0, 0]
            assert torch.allclose(cached, full, atol=1e-5)
            levels[:, colour, row, column] = asked.noise.categorical(full.softmax(-1))
    assert levels.unique().numel() == spec.levels
    again = request(12) if labels is None else request(12, labels=labels)
    assert torch.equal(model.sample(again), from_levels(levels, spec.levels))


def test_two_levels_are_one_logit() -> None:
    model = build(ImageSpec(3, 4, 4, 2))
    assert model.network.logits.out_channels == 3
    logits = model.network(torch.zeros(1, 3, 4, 4))
    assert logits.shape == (1, 3, 2, 4, 4)
    assert not logits[:, :, 0].any()


def test_low_temperature_gives_the_most_likely_values_greedily() -> None:
    samples = build(ImageSpec(1, 4, 4, 3)).sample(request(8, temperature=1e-4))
    assert all(torch.equal(a, b) for a, b in pairwise(samples))


def test_bad_input_says_what_to_do() -> None:
    small = ImageSpec(1, 2, 2, 2)
    with pytest.raises(UsageError, match="temperature must be positive, got 0"):
        build(small).sample(request(2, temperature=0.0))
    for name in ("first_kernel", "kernel"):
        with pytest.raises(UsageError, match=f" {name} must be odd, got 4"):
            GatedPixelCNN(GatedPixelCNNConfig(**{name: 4}), ImageSpec(1, 8, 8, 17))
    with pytest.raises(UsageError, match="at least the images' 3 channels"):
        GatedPixelCNN(GatedPixelCNNConfig(channels=2), ImageSpec(3, 8, 8, 17))
    with pytest.raises(UsageError, match=r"no labels\. Set class_conditional = false"):
        GatedPixelCNN(TOLD, small)
    batch = Batch(images=torch.zeros(1, 1, 2, 2, dtype=torch.uint8), index=torch.arange(1))
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'elbo'"):
        build(small).log_likelihood(batch, NoiseSource(0, batch.index), "elbo")
    with pytest.raises(UsageError, match="learns from labelled images"):
        build(ImageSpec(1, 2, 2, 2, CLASSES), TOLD).validate(batch, NoiseSource(0, batch.index))
