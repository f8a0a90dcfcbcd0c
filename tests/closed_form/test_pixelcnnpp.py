"""PixelCNN++: causal by its Jacobian, normalised by enumeration, and sampled from the distribution that it scores."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from scipy.stats import chisquare, logistic
from torch import Tensor

from baselines.autoregressive.pixelcnnpp import (
    Cache,
    Features,
    GatedResnet,
    GrowingConv,
    LogisticMixture,
    PixelCNNPP,
    PixelCNNPPConfig,
    ShiftedConv,
)
from genbench.api import Batch, Condition, ImageSpec, SampleRequest
from genbench.errors import UsageError
from genbench.images import from_levels, levels_to_float, to_levels
from genbench.noise import NoiseSource
from genbench.train import build_model

CLASSES = ("a", "b", "c")


def build(spec: ImageSpec, scale: float = 1.5, **settings: object) -> PixelCNNPP:
    """A model with weights and biases large enough that its conditionals are far from constant."""
    config = PixelCNNPPConfig(**{"filters": 6, "resnets": 1, "scales": 2, "mixtures": 3, **settings})
    model = build_model(PixelCNNPP, config, spec, 0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("original0"):
                parameter.fill_(scale)
            elif name.endswith(("bias", "label.weight")):
                parameter.normal_(0, 0.3 * scale, generator=generator)
    return model


def normal(*shape: int, seed: int = 5) -> Tensor:
    """Standard normal float64 values, the same in every run."""
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def all_images(spec: ImageSpec) -> Tensor:
    """Every image of a small space as levels, (K^D, C, H, W), the last value varying fastest."""
    return torch.tensor(list(product(range(spec.levels), repeat=spec.dims))).reshape(-1, *spec.shape)


def batch_of(levels: Tensor, spec: ImageSpec, labels: Tensor | None = None) -> Batch:
    return Batch(images=from_levels(levels, spec.levels), index=torch.arange(len(levels)), labels=labels)


def log_prob(model: PixelCNNPP, levels: Tensor) -> Tensor:
    batch = batch_of(levels, model.spec)
    result = model.log_likelihood(batch, NoiseSource(0, batch.index), "exact")
    assert (result.kind, result.standard_error) == ("exact", None)
    return result.nats


def request(n: int, condition: Condition | None = None) -> SampleRequest:
    return SampleRequest(NoiseSource(3, torch.arange(n)), condition=condition or Condition())


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


def seen_by(module: torch.nn.Module, row: int, column: int, *inputs: Tensor) -> Tensor:
    """Which positions (H, W) of the first input an output position depends on."""
    x = inputs[0].requires_grad_()
    (gradient,) = torch.autograd.grad(module(x, *inputs[1:])[:, :, row, column].pow(2).sum(), x)
    return gradient.abs().sum((0, 1)) > 0


@pytest.mark.parametrize("kind", ["vertical", "horizontal"])
def test_layers_see_nothing_below_and_the_horizontal_ones_nothing_to_the_right(kind: str) -> None:
    x = normal(2, 4, 5, 7)
    rows, columns = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    right = 1 if kind == "vertical" else 0

    def within(row: int, column: int) -> Tensor:
        return (rows >= row - 1) & (rows <= row) & (columns >= column - 1) & (columns <= column + right)

    conv = ShiftedConv(kind, 4, 6, 0).double()
    assert torch.equal(seen_by(conv, 2, 3, x), within(2, 3))
    shrink = ShiftedConv(kind, 4, 4, 0, stride=2).double()
    assert shrink(x).shape == (2, 4, 3, 4)
    assert torch.equal(seen_by(shrink, 1, 2, x), within(2, 4))
    grow = GrowingConv(kind, 4, 0).double()
    coarse, fine = normal(2, 4, 3, 4), x.detach()
    assert grow(coarse, fine).shape == fine.shape
    assert seen_by(grow, 3, 2, coarse, fine).nonzero().tolist() == [[1, 1]]
    assert seen_by(grow, 2, 3, coarse, fine).nonzero().tolist() == ([[1, 1], [1, 2]] if right else [[1, 1]])
    config = PixelCNNPPConfig(filters=4, dropout=0.0)
    block = GatedResnet(kind, config, 0, 4, 0).double()
    seen = seen_by(lambda v: block(v, [fine], None, None), 3, 3, x)
    assert torch.equal(seen, (rows >= 1) & (rows <= 3) & (columns >= 1) & (columns <= 3 + 2 * right))


@pytest.mark.parametrize("spec", [ImageSpec(1, 7, 5, 17), ImageSpec(3, 4, 5, 4)])
def test_jacobian_is_strictly_causal_and_has_no_blind_spot(spec: ImageSpec) -> None:
    model = build(spec, scales=3).double()
    x = normal(3, *spec.shape)
    jacobian = torch.autograd.functional.jacobian(lambda v: model.network(model.network.pad(v)).pow(2).sum((0, 1)), x)
    pixels = spec.height * spec.width
    raster = jacobian.abs().sum((2, 3)).reshape(pixels, pixels)
    assert torch.equal(raster > 0, torch.ones(pixels, pixels, dtype=torch.bool).tril(-1))


@pytest.mark.parametrize("channels", [1, 3])
def test_mixture_sums_to_one_and_sees_earlier_colours_alone(channels: int) -> None:
    """Each colour's conditional, marginalised over later colours, is that of a mixture whose weights are reweighted."""
    K = 5
    mixture = LogisticMixture(channels, 2, K)
    output = 2.0 * normal(1, mixture.parameters, 1, 1)
    levels = all_images(ImageSpec(channels, 1, 1, K))
    p = mixture.log_prob(output.expand(len(levels), -1, -1, -1), levels).exp().reshape([K] * channels)
    assert p.sum().item() == pytest.approx(1.0, abs=1e-12)
    log_pi, mu, log_s, coefficients = (part.squeeze().tolist() for part in mixture.unpack(output))
    if channels == 1:
        mu, log_s, coefficients = [mu], [log_s], []
    x = [2.0 * k / (K - 1) - 1.0 for k in range(K)]

    def component(m: int, values: tuple[int, ...]) -> float:
        """Equations (2) and (3), literally."""
        total = math.exp(log_pi[m])
        for c, k in enumerate(values):
            slopes = {1: [0], 2: [1, 2]}.get(c, [])
            centre = mu[c][m] + sum(coefficients[s][m] * x[values[j]] for j, s in enumerate(slopes))
            upper = logistic.cdf((x[k] + 0.25 - centre) / math.exp(log_s[c][m])) if k < K - 1 else 1.0
            lower = logistic.cdf((x[k] - 0.25 - centre) / math.exp(log_s[c][m])) if k > 0 else 0.0
            total *= upper - lower
        return total

    for values in product(range(K), repeat=channels):
        expected = component(0, values) + component(1, values)
        assert p[values].item() == pytest.approx(expected, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_drawn_from_the_mixture(channels: int) -> None:
    K = 4 if channels == 1 else 3
    mixture = LogisticMixture(channels, 3, K)
    output = 1.5 * normal(1, mixture.parameters, 1, 1)
    levels = all_images(ImageSpec(channels, 1, 1, K))
    p = mixture.log_prob(output.expand(len(levels), -1, -1, -1), levels).exp().flatten()
    drawn = mixture.draw(output.expand(6000, -1, -1, -1), NoiseSource(1, torch.arange(6000))).flatten(1)
    assert_drawn_from(p, drawn @ torch.tensor([K**c for c in range(channels)][::-1]))


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_gradients_are_finite_at_the_extremes(levels: int) -> None:
    mixture = LogisticMixture(1, 2, levels)
    k = torch.tensor([0, levels // 2, levels - 1]).reshape(3, 1, 1, 1)
    for mu, log_s in product((-1e4, 0.0, 1e4), (-1e3, -7.0, 0.0, 7.0, 1e3)):
        parts = [torch.zeros(2), torch.full((2,), mu), torch.full((2,), log_s)]
        output = torch.cat(parts).reshape(1, -1, 1, 1).expand(3, -1, -1, -1).clone().requires_grad_()
        log_p = mixture.log_prob(output, k)
        (gradient,) = torch.autograd.grad(log_p.sum(), output)
        assert torch.isfinite(log_p).all()
        assert torch.isfinite(gradient).all()


def test_two_levels_are_a_bernoulli() -> None:
    """With one component the odds of the upper level are exp(mu / s)."""
    mixture = LogisticMixture(1, 1, 2)
    output = torch.tensor([0.3, 0.7, -0.4], dtype=torch.float64).reshape(1, 3, 1, 1)
    log_p = [mixture.log_prob(output, torch.full((1, 1, 1, 1), k)).item() for k in (0, 1)]
    assert log_p[1] - log_p[0] == pytest.approx(0.7 * math.exp(0.4), rel=1e-12)
    assert sum(map(math.exp, log_p)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("spec", [ImageSpec(1, 3, 3, 2), ImageSpec(1, 2, 3, 3), ImageSpec(3, 1, 2, 3)])
def test_probabilities_of_all_images_sum_to_one(spec: ImageSpec) -> None:
    log_p = log_prob(build(spec, scales=1 if spec.height == 1 else 2), all_images(spec))
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert log_p.std() > 0.5


@pytest.mark.parametrize("spec", [ImageSpec(1, 2, 2, 2), ImageSpec(3, 1, 2, 2)])
def test_sampling_frequencies_match_the_probabilities(spec: ImageSpec) -> None:
    model = build(spec, scales=1 if spec.height == 1 else 2)
    drawn = to_levels(model.sample(request(4000)), 2).flatten(1)
    code = drawn @ torch.tensor([2**i for i in reversed(range(spec.dims))])
    assert_drawn_from(log_prob(model, all_images(spec)).exp(), code)


def full_pass_samples(model: PixelCNNPP, asked: SampleRequest) -> Tensor:
    """A pass over the whole image for every pixel."""
    spec = model.spec
    levels = torch.zeros(len(asked), *spec.shape, dtype=torch.int64)
    with torch.no_grad():
        for row, column in product(range(spec.height), range(spec.width)):
            output = model.network(model.network.pad(levels_to_float(levels, spec.levels)), asked.condition.labels)
            here = output[:, :, row : row + 1, column : column + 1]
            levels[:, :, row, column] = model.mixture.draw(here, asked.noise)[:, :, 0, 0]
    return from_levels(levels, spec.levels)


@pytest.mark.parametrize(
    ("spec", "settings"),
    [
        (ImageSpec(1, 5, 5, 5), {"scales": 3}),
        (ImageSpec(3, 3, 4, 4), {}),
        (ImageSpec(1, 4, 3, 2, CLASSES), {"class_conditional": True}),
    ],
)
def test_incremental_sampling_equals_full_passes(spec: ImageSpec, settings: dict) -> None:
    model = build(spec, **settings)
    condition = Condition(labels=torch.arange(8) % 3 if spec.num_classes else None)
    expected = full_pass_samples(model, request(8, condition))
    assert to_levels(expected, spec.levels).unique().numel() == spec.levels
    assert torch.equal(model.sample(request(8, condition)), expected)


def test_incremental_features_equal_those_of_a_full_pass() -> None:
    spec = ImageSpec(1, 7, 5, 17)
    model = build(spec, resnets=2, scales=3).double()
    padded, cache = model.network.pad(normal(2, *spec.shape)), Cache(spec.width)
    with torch.no_grad():
        full = model.network(padded)
        for cache.row, cache.column in product(range(spec.height), range(spec.width)):
            here = model.network(padded, None, cache)[:, :, 0, 0]
            assert torch.allclose(here, full[:, :, cache.row, cache.column], atol=1e-12)


def test_streams_have_the_blocks_and_the_shortcuts_of_the_reference() -> None:
    """n blocks down at each scale; up, n at the coarsest and n + 1 at the others, the last made taken first."""
    stream = build(ImageSpec(1, 8, 8, 17), resnets=2, scales=3).network.vertical
    x, taken = torch.ones(1, 6, 8, 8), []
    for block in stream.up:
        block.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[1][-1]))
    with torch.no_grad():
        made = stream(x, None, None, None)
    shortcuts = [made.down[1], made.down[0], x]
    assert all(a is b for a, b in zip(taken, shortcuts, strict=True))
    counts, features = [], made
    while isinstance(features, Features):
        counts.append((len(features.down), len(features.up), features.up[-1].shape[-1]))
        features = features.coarser
    assert counts == [(2, 3, 8), (2, 3, 4), (2, 2, 2)]


def test_inpainting_after_a_raster_prefix_is_the_exact_conditional() -> None:
    spec = ImageSpec(1, 2, 3, 2)
    model = build(spec)
    mask = torch.tensor([[True, True, True], [False, False, False]]).expand(4000, 1, 2, 3)
    source = from_levels(torch.tensor([[1, 0, 1], [1, 1, 1]]), 2).expand(4000, 1, 2, 3)
    drawn = to_levels(model.sample(request(4000, Condition(source=source, mask=mask))), 2)
    assert torch.equal(drawn[:, 0, 0], torch.tensor([1, 0, 1]).expand(4000, 3))
    images = all_images(spec)
    with_prefix = images[(images[:, 0, 0] == torch.tensor([1, 0, 1])).all(1)]
    assert_drawn_from(log_prob(model, with_prefix).softmax(0), drawn[:, 0, 1] @ torch.tensor([4, 2, 1]))


def test_inpainting_keeps_given_pixels_of_all_colours() -> None:
    spec = ImageSpec(3, 4, 4, 5)
    model = build(spec)
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(8, 1, 4, 4, generator=generator) < 0.5
    source = from_levels(torch.randint(0, 5, (8, 3, 4, 4), generator=generator), 5)
    filled = model.sample(request(8, Condition(source=source, mask=mask)))
    given = mask.expand_as(source)
    assert torch.equal(filled[given], source[given])
    assert not torch.equal(filled[~given], source[~given])


def test_class_conditional_probabilities_are_mixed_over_the_classes() -> None:
    spec = ImageSpec(1, 2, 2, 3, CLASSES)
    model = build(spec, class_conditional=True)
    images = all_images(spec)
    with torch.no_grad():
        of_class = [model.log_prob(from_levels(images, 3), torch.full((len(images),), y)).exp() for y in range(3)]
    assert all(p.sum().item() == pytest.approx(1.0, abs=1e-6) for p in of_class)
    assert (of_class[0] - of_class[1]).abs().sum() > 0.1
    assert torch.allclose(log_prob(model, images).exp(), torch.stack(of_class).mean(0))
    assert model.conditions == {"labels", "mask"}
    assert build(spec).conditions == {"mask"}
    drawn = to_levels(model.sample(request(6000)), 3).flatten(1) @ torch.tensor([27, 9, 3, 1])
    assert_drawn_from(torch.stack(of_class).mean(0), drawn)


def test_bad_input_says_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"images of 8 x 3 cannot be halved 2 times\. Use scales = 2 or fewer"):
        build(ImageSpec(1, 8, 3, 17), scales=3)
    with pytest.raises(UsageError, match="this dataset has no classes"):
        build(ImageSpec(1, 8, 8, 17), class_conditional=True)
    spec = ImageSpec(1, 2, 2, 2, CLASSES)
    with pytest.raises(UsageError, match="and no source, expected"):
        build(spec).sample(request(2, Condition(mask=torch.ones(2, 1, 2, 2, dtype=torch.bool))))
    batch = batch_of(torch.zeros(1, 1, 2, 2), spec)
    with pytest.raises(UsageError, match="these have no labels"):
        build(spec, class_conditional=True).validate(batch, NoiseSource(0, batch.index))
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'elbo'"):
        build(spec).log_likelihood(batch, NoiseSource(0, batch.index), "elbo")
