"""PixelCNN: causal by its Jacobian, normalised by enumeration, and sampled from the distribution that it scores."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
import torch
from scipy.stats import chisquare

from baselines.autoregressive.pixelcnn import PixelCNN, PixelCNNConfig
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, levels_to_float, to_levels
from genbench.noise import NoiseSource

SMALL = PixelCNNConfig(hidden=6, blocks=2, head=9)


def build(spec: ImageSpec, config: PixelCNNConfig = SMALL, scale: float = 1.0) -> PixelCNN:
    """A model with random weights, large enough that its conditionals are far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PixelCNN(config, spec).eval()
        with torch.no_grad():
            for layer in model.modules():
                if isinstance(layer, torch.nn.Conv2d):
                    layer.weight.normal_(0, 2.0 * scale / math.sqrt(layer.weight[0].numel()))
                    layer.bias.normal_(0, 0.3 * scale)
    return model


def all_images(spec: ImageSpec) -> torch.Tensor:
    """Every image of a small space as levels, (K^D, C, H, W), the last value varying fastest."""
    return torch.tensor(list(product(range(spec.levels), repeat=spec.dims))).reshape(-1, *spec.shape)


def batch_of(levels: torch.Tensor, spec: ImageSpec) -> Batch:
    return Batch(images=from_levels(levels, spec.levels), index=torch.arange(len(levels)))


def log_prob(model: PixelCNN, levels: torch.Tensor) -> torch.Tensor:
    batch = batch_of(levels, model.spec)
    result = model.log_likelihood(batch, NoiseSource(0, batch.index), "exact")
    assert result.kind == "exact"
    assert result.standard_error is None
    return result.nats


def request(
    n: int, temperature: float | None = None, start: int = 0, condition: Condition | None = None
) -> SampleRequest:
    index = torch.arange(start, start + n)
    return SampleRequest(NoiseSource(3, index), SamplerOptions(temperature=temperature), condition or Condition())


@pytest.mark.parametrize("channels", [1, 3])
def test_jacobian_is_strictly_causal(channels: int) -> None:
    spec = ImageSpec(channels, 4, 4, 4)
    model = build(spec).double()
    x = torch.rand(8, *spec.shape, dtype=torch.float64) * 2 - 1
    jacobian = torch.autograd.functional.jacobian(lambda v: model.network(v).pow(2).sum((0, 2)), x).abs().sum(3)
    raster = jacobian.permute(1, 2, 0, 4, 5, 3).reshape(spec.dims, spec.dims)  # rows, columns, then colours
    assert torch.equal(raster.triu(), torch.zeros_like(raster))
    within_row = [i for i in range(spec.dims) if i % (spec.width * channels)]
    assert all(raster[i, i - 1] != 0 for i in within_row)


def test_blind_spot_is_where_the_docstring_says() -> None:
    spec = ImageSpec(1, 6, 9, 4)
    model = build(spec, PixelCNNConfig(hidden=4, blocks=1, head=4, first_kernel=3)).double()
    x = (torch.rand(8, *spec.shape, dtype=torch.float64) * 2 - 1).requires_grad_()
    (gradient,) = torch.autograd.grad(model.network(x)[:, 0, :, 3, 3].pow(2).sum(), x)
    seen = gradient.abs().sum((0, 1)) > 0
    assert seen[2, 3:].tolist() == [True, True, False, False, False, False]
    assert seen[1, 3:].tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("spec", [ImageSpec(1, 3, 3, 2), ImageSpec(3, 1, 2, 3)])
def test_probabilities_of_all_images_sum_to_one(spec: ImageSpec) -> None:
    log_p = log_prob(build(spec, scale=2.0), all_images(spec))
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert log_p.std() > 0.5


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_sampling_frequencies_match_the_probabilities(temperature: float | None) -> None:
    spec = ImageSpec(1, 2, 2, 2)
    model = build(spec, scale=0.6)
    images = all_images(spec)
    probabilities = tempered(model, images, temperature or 1.0)
    drawn = to_levels(model.sample(request(4000, temperature)), 2).reshape(-1, 4)
    code = drawn @ torch.tensor([8, 4, 2, 1])
    counts = torch.bincount(code, minlength=16)
    keep = probabilities * 4000 >= 5
    observed = torch.cat((counts[keep], counts[~keep].sum()[None])).double()
    expected = torch.cat((probabilities[keep], probabilities[~keep].sum()[None])) * 4000
    filled = expected > 0
    assert chisquare(observed[filled].numpy(), expected[filled].numpy()).pvalue > 1e-3
    assert chisquare(observed[filled].numpy()).pvalue < 1e-6


def tempered(model: PixelCNN, levels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Probabilities of images when each conditional's logits are divided by the temperature."""
    with torch.no_grad():
        logits = model.network(levels_to_float(levels, model.spec.levels)).double() / temperature
    return logits.log_softmax(2).gather(2, levels[:, :, None]).flatten(1).sum(1).exp()


@pytest.mark.parametrize("spec", [ImageSpec(1, 6, 5, 5), ImageSpec(3, 4, 3, 4)])
def test_incremental_sampling_equals_full_passes(spec: ImageSpec) -> None:
    model = build(spec)
    asked = request(16)
    levels = torch.zeros(16, *spec.shape, dtype=torch.int64)
    with torch.no_grad():
        for row, column, colour in product(range(spec.height), range(spec.width), range(spec.channels)):
            logits = model.network(levels_to_float(levels, spec.levels))[:, colour, :, row, column]
            levels[:, colour, row, column] = asked.noise.categorical(logits.softmax(-1))
    assert levels.unique().numel() == spec.levels
    assert torch.equal(model.sample(request(16)), from_levels(levels, spec.levels))


def test_low_temperature_gives_the_most_likely_values_greedily() -> None:
    spec = ImageSpec(1, 4, 4, 3)
    samples = build(spec).sample(request(8, temperature=1e-4))
    assert all(torch.equal(a, b) for a, b in pairwise(samples))


def test_bad_options_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="temperature must be positive, got 0"):
        build(ImageSpec(1, 2, 2, 2)).sample(request(2, temperature=0.0))
    with pytest.raises(UsageError, match="first_kernel must be odd, got 4"):
        PixelCNN(PixelCNNConfig(first_kernel=4), ImageSpec(1, 8, 8, 17))
    with pytest.raises(UsageError, match="at least the images' 3 channels"):
        PixelCNN(PixelCNNConfig(hidden=2), ImageSpec(3, 8, 8, 17))
    batch = batch_of(torch.zeros(1, 1, 2, 2), ImageSpec(1, 2, 2, 2))
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'elbo'"):
        build(ImageSpec(1, 2, 2, 2)).log_likelihood(batch, NoiseSource(0, batch.index), "elbo")


def test_inpainting_after_a_raster_prefix_is_the_exact_conditional() -> None:
    spec = ImageSpec(1, 2, 3, 2)
    model = build(spec, scale=0.7)
    mask = torch.tensor([[True, True, True], [False, False, False]]).expand(4000, 1, 2, 3)
    source = from_levels(torch.tensor([[1, 0, 1], [1, 1, 1]]), 2).expand(4000, 1, 2, 3)
    drawn = to_levels(model.sample(request(4000, condition=Condition(source=source, mask=mask))), 2)
    assert torch.equal(drawn[:, 0, 0], torch.tensor([1, 0, 1]).expand(4000, 3))
    images = all_images(spec)
    with_prefix = images[(images[:, 0, 0] == torch.tensor([1, 0, 1])).all(1)]
    expected = 4000 * log_prob(model, with_prefix).softmax(0)
    observed = torch.bincount(drawn[:, 0, 1] @ torch.tensor([4, 2, 1]), minlength=8)
    assert chisquare(observed, expected).pvalue > 0.01


def test_inpainting_keeps_given_values_of_all_colours() -> None:
    spec = ImageSpec(3, 4, 4, 5)
    model = build(spec)
    mask = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    source = from_levels(torch.randint(0, 5, (8, 3, 4, 4), generator=torch.Generator().manual_seed(1)), 5)
    filled = model.sample(request(8, condition=Condition(source=source, mask=mask)))
    given = mask.expand_as(source)
    assert torch.equal(filled[given], source[given])
    assert not torch.equal(filled[~given], source[~given])
    again = model.sample(request(8, condition=Condition(source=filled, mask=mask)))
    assert torch.equal(again, filled)
