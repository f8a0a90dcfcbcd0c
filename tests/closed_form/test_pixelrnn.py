"""PixelRNN: its layers equal LSTMs written pixel by pixel, and it is causal, normalised and sampled as it is scored."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from baselines.autoregressive.pixelrnn import (
    LAYERS,
    DiagonalBiLSTMLayer,
    PixelRNN,
    PixelRNNConfig,
    RowLSTM,
    RowLSTMLayer,
)
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, levels_to_float, to_levels
from genbench.noise import NoiseSource
from genbench.recipe import load_recipe

KINDS = [PixelRNN, RowLSTM]


def enlarge(module: torch.nn.Module, scale: float) -> None:
    """Random weights, large enough that what they make is far from constant."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fan = 3 if name.endswith("bias") or parameter.dim() < 2 else math.sqrt(parameter[0].numel())
            parameter.normal_(0, 2.0 * scale / fan)


def build(kind: type[PixelRNN], spec: ImageSpec, scale: float = 1.0, **settings: int) -> PixelRNN:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = kind.Config(**{"hidden": 4, "layers": 2, "head": 6, **settings})
        model = kind(config, spec).eval()
        enlarge(model, scale)
    return model


def build_layer(kind: str, hidden: int, spec: ImageSpec) -> RowLSTMLayer | DiagonalBiLSTMLayer:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = LAYERS[kind](hidden, spec).double()
        enlarge(layer, 1.0)
    return layer


def normal(*shape: int) -> Tensor:
    """Standard normal float64 values, the same in every run."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def all_images(spec: ImageSpec) -> Tensor:
    """Every image of a small space as levels, (K^D, C, H, W), the last value varying fastest."""
    return torch.tensor(list(product(range(spec.levels), repeat=spec.dims))).reshape(-1, *spec.shape)


def log_prob(model: PixelRNN, levels: Tensor) -> Tensor:
    batch = Batch(images=from_levels(levels, model.spec.levels), index=torch.arange(len(levels)))
    result = model.log_likelihood(batch, NoiseSource(0, batch.index), "exact")
    assert (result.kind, result.standard_error) == ("exact", None)
    return result.nats


def request(n: int, temperature: float | None = None, condition: Condition | None = None) -> SampleRequest:
    options = SamplerOptions(temperature=temperature)
    return SampleRequest(NoiseSource(3, torch.arange(n)), options, condition or Condition())


def raster_jacobian(function, x: Tensor) -> Tensor:
    """|d out_i / d in_j| for (C, H, W) tensors, summed over a batch: (C, H, W, C, H, W)."""
    return torch.autograd.functional.jacobian(lambda v: function(v).sum(0), x).abs().sum(3)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_jacobian_is_strictly_causal(kind: type[PixelRNN], channels: int) -> None:
    spec = ImageSpec(channels, 3, 4, 3)
    model = build(kind, spec, hidden=5, head=24).double()
    x = normal(4, *spec.shape)
    jacobian = raster_jacobian(lambda v: model.network(v).pow(2).sum(2), x)
    raster = jacobian.permute(1, 2, 0, 4, 5, 3).reshape(spec.dims, spec.dims)  # rows, columns, then colours
    assert torch.equal(raster.triu(), torch.zeros_like(raster))
    within_row = [i for i in range(spec.dims) if i % (spec.width * channels)]
    assert all(raster[i, i - 1] != 0 for i in within_row)


@pytest.mark.parametrize("kind", LAYERS)
def test_layer_sees_its_own_colours_and_the_pixels_before(kind: str) -> None:
    """A diagonal layer sees every pixel before; a row layer a triangle, one column wider to the right a row."""
    spec, hidden = ImageSpec(3, 4, 5, 2), 3
    layer = build_layer(kind, hidden, spec)
    x = normal(4, 5, 2, 2 * hidden)
    row, column = 2, 1
    jacobian = torch.autograd.functional.jacobian(lambda v: layer(v)[row, column].sum(0), x)  # (h, H, W, B, 2h)
    seen = jacobian.abs().sum(3).unflatten(-1, (3, 2)).sum(-1).permute(0, 3, 1, 2) > 0  # (h, colour, H, W)
    for colour, source in product(range(3), range(3)):
        expected = torch.zeros(4, 5, dtype=torch.bool)
        expected[:row] = True
        expected[row, :column] = True
        if kind == "row_lstm":
            expected[1, 3:], expected[0, 4:] = False, False
        expected[row, column] = source <= colour
        assert torch.equal(seen[colour, source], expected)


def naive_cell(pre: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Equation (3) for pre-activations (4h,) in the order o, f, i, g."""
    o, f, i, g = pre.view(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


@pytest.mark.parametrize("shape", [(4, 5), (5, 3), (1, 4), (4, 1)])
def test_skewed_diagonals_equal_an_lstm_pixel_by_pixel(shape: tuple[int, int]) -> None:
    spec, hidden = ImageSpec(1, *shape, 2), 3
    layer = build_layer("diagonal_bilstm", hidden, spec)
    assert isinstance(layer, DiagonalBiLSTMLayer)
    x = normal(*shape, 1, 2 * hidden)
    inputs = torch.nn.functional.linear(x[:, :, 0], layer.input_to_state.weight, layer.input_to_state.bias)
    zeros = torch.zeros(hidden, dtype=torch.float64)
    out = torch.zeros(shape[0] + 1, shape[1], hidden, dtype=torch.float64)
    for direction, step in enumerate((1, -1)):
        h, c = {}, {}
        for i, j in product(range(shape[0]), range(shape[1])[::step]):
            beside, above = h.get((i, j - step), zeros), h.get((i - 1, j), zeros)
            own = inputs[i, j, 12 * direction : 12 * direction + 12]
            pre = own + torch.cat((beside, above)) @ layer.state_to_state[direction]
            h[i, j], c[i, j] = naive_cell(pre, c.get((i, j - step), zeros))
            out[i + direction, j] += h[i, j]
    assert torch.allclose(layer(x)[:, :, 0], out[:-1], atol=1e-12)


def test_rows_equal_an_lstm_pixel_by_pixel() -> None:
    hidden, height, width = 3, 4, 5
    layer = build_layer("row_lstm", hidden, ImageSpec(1, height, width, 2))
    assert isinstance(layer, RowLSTMLayer)
    x = normal(height, width, 1, 2 * hidden)
    zeros = torch.zeros(hidden, dtype=torch.float64)
    weight, bias = layer.input_to_state.weight, layer.input_to_state.bias
    h, c = {}, {}
    for i, j in product(range(height), range(width)):
        left = x[i, j - 1, 0] if j else torch.zeros(2 * hidden, dtype=torch.float64)
        above = torch.cat([h.get((i - 1, j + k), zeros) for k in (-1, 0, 1)])
        pre = weight @ torch.cat((left, x[i, j, 0])) + bias + layer.state_to_state.weight @ above
        h[i, j], c[i, j] = naive_cell(pre, c.get((i - 1, j), zeros))
        assert torch.allclose(layer(x)[i, j, 0], h[i, j], atol=1e-12)


@pytest.mark.parametrize("spec", [ImageSpec(1, 3, 3, 2), ImageSpec(3, 1, 2, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_all_images_sum_to_one(kind: type[PixelRNN], spec: ImageSpec) -> None:
    log_p = log_prob(build(kind, spec, scale=2.0), all_images(spec))
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert log_p.std() > 0.5


def assert_drawn_from(probabilities: Tensor, drawn: Tensor) -> None:
    """Chi-square of counts of categories (N,) against probabilities (K,); rare categories are taken together."""
    total = len(drawn)
    counts = torch.bincount(drawn, minlength=len(probabilities)).double()
    keep = probabilities * total >= 5
    observed = torch.cat((counts[keep], counts[~keep].sum()[None]))
    expected = torch.cat((probabilities[keep], probabilities[~keep].sum()[None])) * total
    filled = expected > 0
    assert observed[~filled].sum() == 0
    expected = expected[filled] * (total / expected.sum())
    assert chisquare(observed[filled].numpy(), expected.numpy()).pvalue > 1e-3
    assert chisquare(observed[filled].numpy()).pvalue < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_frequencies_match_the_probabilities(kind: type[PixelRNN]) -> None:
    spec = ImageSpec(1, 2, 2, 2)
    model = build(kind, spec, scale=2.0)
    drawn = to_levels(model.sample(request(4000)), 2).reshape(-1, 4) @ torch.tensor([8, 4, 2, 1])
    assert_drawn_from(log_prob(model, all_images(spec)).exp(), drawn)


@pytest.mark.parametrize("kind", KINDS)
def test_inpainting_after_a_raster_prefix_is_the_exact_conditional(kind: type[PixelRNN]) -> None:
    spec = ImageSpec(1, 2, 3, 2)
    model = build(kind, spec, scale=2.0)
    mask = torch.tensor([[True, True, True], [False, False, False]]).expand(4000, 1, 2, 3)
    source = from_levels(torch.tensor([[1, 0, 1], [1, 1, 1]]), 2).expand(4000, 1, 2, 3)
    drawn = to_levels(model.sample(request(4000, condition=Condition(source=source, mask=mask))), 2)
    assert torch.equal(drawn[:, 0, 0], torch.tensor([1, 0, 1]).expand(4000, 3))
    images = all_images(spec)
    with_prefix = images[(images[:, 0, 0] == torch.tensor([1, 0, 1])).all(1)]
    assert_drawn_from(log_prob(model, with_prefix).softmax(0), drawn[:, 0, 1] @ torch.tensor([4, 2, 1]))


def test_inpainting_keeps_given_pixels_of_all_colours() -> None:
    spec = ImageSpec(3, 4, 4, 5)
    model = build(PixelRNN, spec)
    mask = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    source = from_levels(torch.randint(0, 5, (8, 3, 4, 4), generator=torch.Generator().manual_seed(1)), 5)
    filled = model.sample(request(8, condition=Condition(source=source, mask=mask)))
    given = mask.expand_as(source)
    assert torch.equal(filled[given], source[given])
    assert not torch.equal(filled[~given], source[~given])
    again = model.sample(request(8, condition=Condition(source=filled, mask=mask)))
    assert torch.equal(again, filled)


@pytest.mark.parametrize("spec", [ImageSpec(1, 6, 5, 5), ImageSpec(3, 4, 3, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_incremental_sampling_equals_full_passes(kind: type[PixelRNN], spec: ImageSpec) -> None:
    model = build(kind, spec, scale=1.0, head=24)
    for temperature in (None, 2.0):
        asked = request(8, temperature)
        levels = torch.zeros(8, *spec.shape, dtype=torch.int64)
        with torch.no_grad():
            for row, column, colour in product(range(spec.height), range(spec.width), range(spec.channels)):
                logits = model.network(levels_to_float(levels, spec.levels))[:, colour, :, row, column]
                levels[:, colour, row, column] = asked.noise.categorical((logits / (temperature or 1.0)).softmax(-1))
        assert levels.unique().numel() == spec.levels
        assert torch.equal(model.sample(request(8, temperature)), from_levels(levels, spec.levels))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_at_the_extremes(kind: type[PixelRNN]) -> None:
    spec = ImageSpec(1, 4, 4, 17)
    for scale, level in product((0.01, 100.0), (0, 16)):
        model = build(kind, spec, scale=scale)
        model.log_prob(from_levels(torch.full((2, *spec.shape), level), 17)).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_the_two_kinds_differ_by_their_layer_alone() -> None:
    assert load_recipe(PixelRNN, "digits") == load_recipe(RowLSTM, "digits")
    assert PixelRNNConfig().layer == "diagonal_bilstm"
    assert RowLSTM.Config().layer == "row_lstm"
    changed = RowLSTM.Config(layer="diagonal_bilstm")
    assert PixelRNNConfig().model_dump() == changed.model_dump()


def test_bad_input_says_what_to_do() -> None:
    spec = ImageSpec(1, 2, 2, 2)
    with pytest.raises(UsageError, match="temperature must be positive, got 0"):
        build(PixelRNN, spec).sample(request(2, temperature=0.0))
    with pytest.raises(UsageError, match="and no source, expected"):
        mask = torch.ones(2, 1, 2, 2, dtype=torch.bool)
        build(PixelRNN, spec).sample(request(2, condition=Condition(mask=mask)))
    with pytest.raises(UsageError, match="first_kernel must be odd, got 4"):
        PixelRNN(PixelRNNConfig(first_kernel=4), spec)
    with pytest.raises(UsageError, match="at least the images' 3 channels"):
        PixelRNN(PixelRNNConfig(hidden=2), ImageSpec(3, 8, 8, 17))
    batch = Batch(images=torch.zeros(1, 1, 2, 2, dtype=torch.uint8), index=torch.arange(1))
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'elbo'"):
        build(PixelRNN, spec).log_likelihood(batch, NoiseSource(0, batch.index), "elbo")
