"""Pixel transformer: causal, normalised by enumeration, its cache equal to full passes, its samples of its density."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
import torch
from scipy.stats import chisquare

from baselines.autoregressive.transformer import PixelTransformer, PixelTransformerConfig
from baselines.nets.causal_transformer import CausalTransformer
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

SMALL = PixelTransformerConfig(width=12, layers=2, heads=3)
PATCHES = SMALL.model_copy(update={"patch": 2})
CLASSES = ("a", "b", "c")


def randomised(network: torch.nn.Module, std: float = 0.6) -> None:
    """Random weights, large enough that conditionals are far from uniform."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, std, generator=generator)


def build(spec: ImageSpec, config: PixelTransformerConfig = SMALL) -> PixelTransformer:
    model = PixelTransformer(config, spec).eval()
    randomised(model)
    return model


def sequences(num_classes: int = 0, length: int = 6) -> CausalTransformer:
    network = CausalTransformer(5, length, 12, layers=2, heads=3, num_classes=num_classes).eval()
    randomised(network)
    return network


def tokens_of(count: int, length: int = 6) -> torch.Tensor:
    return torch.randint(5, (count, length), generator=torch.Generator().manual_seed(1))


def all_images(spec: ImageSpec) -> torch.Tensor:
    """Every image of a small space as levels, (K^D, C, H, W), the last value varying fastest."""
    return torch.tensor(list(product(range(spec.levels), repeat=spec.dims))).reshape(-1, *spec.shape)


def log_prob(model: PixelTransformer, levels: torch.Tensor) -> torch.Tensor:
    batch = Batch(images=from_levels(levels, model.spec.levels), index=torch.arange(len(levels)))
    result = model.log_likelihood(batch, NoiseSource(0, batch.index), "exact")
    assert result.kind == "exact"
    assert result.standard_error is None
    return result.nats


def request(n: int, temperature: float | None = None, **given: torch.Tensor) -> SampleRequest:
    return SampleRequest(NoiseSource(3, torch.arange(n)), SamplerOptions(temperature=temperature), Condition(**given))


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


def test_jacobian_over_token_embeddings_is_strictly_causal() -> None:
    network, tokens = sequences().double(), tokens_of(3)
    embedded: list[torch.Tensor] = []

    def keep(_: object, __: object, output: torch.Tensor) -> torch.Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    network.tokens.register_forward_hook(keep)
    logits = network(tokens)
    rows = [torch.autograd.grad(logits[:, i].pow(2).sum(), embedded[-1], retain_graph=True)[0] for i in range(6)]
    seen = torch.stack(rows).abs().sum((1, 3)) > 0  # (logits' position, position of the token); the last is not read
    assert torch.equal(seen, torch.ones(6, 5).tril(-1).bool())


@pytest.mark.parametrize("num_classes", [0, 3])
def test_key_value_cache_equals_a_full_pass(num_classes: int) -> None:
    network, tokens = sequences(num_classes), tokens_of(7)
    labels = torch.arange(7) % 3 if num_classes else None
    full = network(tokens, labels)
    cache = network.start(7, labels)
    previous = [None, *tokens[:, :-1].unbind(1)]
    stepped = torch.stack([network.step(token, cache) for token in previous], dim=1)
    assert torch.allclose(stepped, full, atol=1e-5)
    assert full.std() > 0.3
    assert torch.allclose(network(tokens[:, :4], labels), full[:, :4], atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sequences_equal_those_of_a_full_pass_per_token(temperature: float) -> None:
    network, noise = sequences(), NoiseSource(3, torch.arange(9))
    given = torch.ones(9, 6, 5, dtype=torch.bool)
    given[:, 2] = torch.eye(5, dtype=torch.bool)[4]
    given[:, 4, :2] = False
    tokens = torch.zeros(9, 6, dtype=torch.int64)
    with torch.no_grad():
        for i in range(6):
            probabilities = (network(tokens)[:, i] / temperature).softmax(-1) * given[:, i]
            tokens[:, i] = noise.categorical(probabilities / probabilities.sum(-1, keepdim=True))
    assert torch.equal(network.sample(NoiseSource(3, torch.arange(9)), temperature, given), tokens)
    assert (tokens[:, 2] == 4).all()
    assert (tokens[:, 4] >= 2).all()


def test_a_grid_adds_the_embeddings_of_its_axes() -> None:
    plain, gridded = sequences(), CausalTransformer(5, 6, 12, layers=2, heads=3, grid=(2, 3)).eval()
    randomised(gridded)
    rows, columns = gridded.positions
    values = plain.state_dict() | {k: v for k, v in gridded.state_dict().items() if not k.startswith("positions")}
    values["positions.0"] = torch.stack([rows[i] + columns[j] for i in range(2) for j in range(3)])
    plain.load_state_dict(values)
    assert torch.allclose(plain(tokens_of(4)), gridded(tokens_of(4)), atol=1e-6)


@pytest.mark.parametrize(("spec", "config"), [(ImageSpec(3, 4, 3, 4), SMALL), (ImageSpec(1, 4, 6, 2), PATCHES)])
def test_an_untrained_model_is_uniform(spec: ImageSpec, config: PixelTransformerConfig) -> None:
    levels = torch.randint(spec.levels, (4, *spec.shape), generator=torch.Generator().manual_seed(0))
    nats = log_prob(PixelTransformer(config, spec).eval(), levels)
    assert torch.allclose(nats, torch.full_like(nats, -spec.dims * math.log(spec.levels)), atol=1e-5)


def test_tokens_are_values_in_raster_order_or_bits_of_patches() -> None:
    colours = build(ImageSpec(2, 2, 3, 7))
    levels = torch.arange(12).reshape(1, 2, 2, 3) % 7
    assert colours.tokens_of(levels)[0, :4].tolist() == [0, 6, 1, 0]  # both colours of (0, 0), then of (0, 1)
    patches = build(ImageSpec(1, 2, 4, 2), PATCHES)
    image = torch.tensor([[1, 0, 0, 1], [0, 1, 1, 1]])[None, None]
    assert patches.tokens_of(image).tolist() == [[0b1001, 0b0111]]


@pytest.mark.parametrize("spec", [ImageSpec(1, 4, 6, 2), ImageSpec(3, 6, 2, 2)])
def test_images_and_tokens_correspond(spec: ImageSpec) -> None:
    model = build(spec, PATCHES)
    levels = torch.randint(2, (5, *spec.shape), generator=torch.Generator().manual_seed(0))
    tokens = model.tokens_of(levels)
    assert tokens.shape == (5, spec.height * spec.width // 4)
    assert torch.equal(model.levels_of(tokens), levels)


@pytest.mark.parametrize(
    ("spec", "config"),
    [(ImageSpec(1, 3, 3, 2), SMALL), (ImageSpec(3, 1, 2, 3), SMALL), (ImageSpec(1, 2, 4, 2), PATCHES)],
)
def test_probabilities_of_all_images_sum_to_one(spec: ImageSpec, config: PixelTransformerConfig) -> None:
    log_p = log_prob(build(spec, config), all_images(spec))
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert log_p.std() > 0.5


@pytest.mark.parametrize("config", [SMALL, PATCHES])
def test_a_class_conditional_model_is_a_mixture_over_its_classes(config: PixelTransformerConfig) -> None:
    spec = ImageSpec(1, 2, 2, 2, CLASSES)
    model, levels = build(spec, config.model_copy(update={"class_conditional": True})), all_images(spec)
    images = from_levels(levels, 2)
    with torch.no_grad():
        given = torch.stack([model.log_prob(images, torch.full((16,), y)) for y in range(3)])
    assert torch.allclose(given.exp().sum(1), torch.ones(3, dtype=torch.float64), atol=1e-6)
    assert (given[0] - given[1]).abs().max() > 0.1
    assert torch.allclose(log_prob(model, levels), given.exp().mean(0).log(), atol=1e-12)
    assert_drawn_from(to_levels(model.sample(request(4000)), 2), given.exp().mean(0), spec)
    asked = model.sample(request(4000, labels=torch.full((4000,), 1)))
    assert_drawn_from(to_levels(asked, 2), given[1].exp(), spec)


@pytest.mark.parametrize(("spec", "config"), [(ImageSpec(1, 2, 2, 3), SMALL), (ImageSpec(1, 2, 4, 2), PATCHES)])
def test_sampling_frequencies_match_the_probabilities(spec: ImageSpec, config: PixelTransformerConfig) -> None:
    model = build(spec, config)
    probabilities = log_prob(model, all_images(spec)).exp()
    assert_drawn_from(to_levels(model.sample(request(6000)), spec.levels), probabilities, spec)


@pytest.mark.parametrize(
    ("spec", "config", "given"),
    [
        (ImageSpec(2, 2, 2, 2), SMALL, [[True, True], [False, False]]),
        (ImageSpec(1, 2, 4, 2), PATCHES, [[True, False, False, False], [False, True, False, False]]),
    ],
)
def test_inpainting_what_follows_is_the_exact_conditional(
    spec: ImageSpec, config: PixelTransformerConfig, given: list[list[bool]]
) -> None:
    model, levels, known = build(spec, config), all_images(spec), torch.tensor(given).expand(spec.shape)
    source = torch.full((4000, *spec.shape), 255, dtype=torch.uint8)
    joint = log_prob(model, levels).exp() * (levels[:, known] == 1).all(1)
    drawn = model.sample(request(4000, mask=known[None, :1].expand(4000, -1, -1, -1), source=source))
    assert_drawn_from(to_levels(drawn, 2), joint / joint.sum(), spec)


@pytest.mark.parametrize(("spec", "config"), [(ImageSpec(3, 4, 3, 4), SMALL), (ImageSpec(1, 6, 4, 2), PATCHES)])
def test_given_pixels_are_kept_and_no_mask_is_ordinary_sampling(
    spec: ImageSpec, config: PixelTransformerConfig
) -> None:
    model, generator = build(spec, config), torch.Generator().manual_seed(0)
    source = from_levels(torch.randint(spec.levels, (8, *spec.shape), generator=generator), spec.levels)
    mask = torch.rand(8, 1, *spec.shape[1:], generator=generator) < 0.5
    filled, given = model.sample(request(8, mask=mask, source=source)), mask.expand_as(source)
    assert torch.equal(filled[given], source[given])
    assert not torch.equal(filled[~given], source[~given])
    unmasked = model.sample(request(8, mask=torch.zeros_like(mask), source=source))
    assert torch.equal(unmasked, model.sample(request(8)))


def test_low_temperature_gives_the_most_likely_values_greedily() -> None:
    samples = build(ImageSpec(1, 4, 4, 3)).sample(request(8, temperature=1e-4))
    assert all(torch.equal(a, b) for a, b in pairwise(samples))


def test_every_parameter_is_optimised_once_and_matrices_alone_decay() -> None:
    model = PixelTransformer(PATCHES, ImageSpec(1, 4, 4, 2))
    decayed, rest = model.parameter_groups()
    chosen = [id(p) for group in (decayed, rest) for p in group["params"]]
    assert sorted(chosen) == sorted(id(p) for p in model.parameters())
    assert {p.dim() for p in decayed["params"]} == {2}
    assert (decayed["weight_decay"], rest["weight_decay"]) == (PATCHES.weight_decay, 0.0)


@pytest.mark.parametrize(
    ("config", "spec", "message"),
    [
        ({"patch": 2}, ImageSpec(1, 8, 8, 17), r"images of 2 levels, and these have 17\. Set patch = 1"),
        ({"patch": 3}, ImageSpec(1, 8, 9, 2), "do not divide images of 8 x 9"),
        ({"patch": 4}, ImageSpec(1, 8, 8, 2), "has 16 bits, and at most 12"),
        ({"width": 10, "heads": 4}, ImageSpec(1, 8, 8, 2), "must be a multiple of its heads, got 10 and 4"),
        ({"class_conditional": True}, ImageSpec(1, 8, 8, 2), r"no labels\. Set class_conditional = false"),
    ],
)
def test_configs_that_do_not_fit_say_what_to_do(config: dict[str, int], spec: ImageSpec, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PixelTransformer(PixelTransformerConfig(**config), spec)


def test_bad_requests_say_what_to_do() -> None:
    model = build(ImageSpec(1, 2, 2, 2))
    with pytest.raises(UsageError, match="temperature must be positive, got 0"):
        model.sample(request(2, temperature=0.0))
    batch = Batch(images=torch.zeros(1, 1, 2, 2, dtype=torch.uint8), index=torch.arange(1))
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'elbo'"):
        model.log_likelihood(batch, NoiseSource(0, batch.index), "elbo")
    told = build(ImageSpec(1, 2, 2, 2, CLASSES), SMALL.model_copy(update={"class_conditional": True}))
    with pytest.raises(UsageError, match="learns from labelled images"):
        told.validate(batch, NoiseSource(0, batch.index))
    for network, labels in ((sequences(), torch.zeros(2, dtype=torch.int64)), (sequences(3), None)):
        with pytest.raises(UsageError, match=r"A transformer of [03] classes was given"):
            network(tokens_of(2), labels)
