"""NADE and its orderless form: gradients by hand, causality, normalisation, sampling, and the order-agnostic loss."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare

from baselines.autoregressive.nade import (
    NADE,
    Conditionals,
    NADEConfig,
    OrderlessNADE,
    OrderlessNADEConfig,
    distinct_prefixes,
)
from baselines.nets.levels import draw_levels, level_inputs, level_log_prob
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

BINARY = ImageSpec(1, 3, 3, 2)
TERNARY = ImageSpec(1, 2, 2, 3)
MODELS = [(NADE, NADEConfig), (OrderlessNADE, OrderlessNADEConfig)]


def build(kind: type[NADE], spec: ImageSpec, scale: float = 1.0, **config: Any) -> Any:
    """A model with random weights, large enough that its conditionals are far from uniform."""
    settings = dict(MODELS)[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(settings(**{"hidden": 16, "order": "random", **config}), spec).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(0, scale * (1.0 if kind is NADE else 0.5))
    return model


def all_levels(spec: ImageSpec) -> torch.Tensor:
    """Every image of a small space as levels, (K^D, D), the last value varying fastest."""
    return torch.tensor(list(product(range(spec.levels), repeat=spec.dims)))


def log_prob(model: NADE, estimator: str = "exact") -> torch.Tensor:
    """log P of every image of the model's space."""
    levels = all_levels(model.spec).view(-1, *model.spec.shape)
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


def naive_conditionals(
    inputs: torch.Tensor, W: torch.Tensor, c: torch.Tensor, V: torch.Tensor, b: torch.Tensor
) -> torch.Tensor:
    """The recursion of the paper, a value at a time."""
    a, logits = c.expand(len(inputs), -1), []
    for t in range(W.shape[0]):
        logits.append(torch.sigmoid(a) @ V[t].T + b[t])
        a = a + inputs[:, t] @ W[t]
    return torch.stack(logits, 1)


def nade_tensors(levels: int, dims: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Inputs of six images and weights of five hidden units, float64, the weights with gradients."""
    rng = torch.Generator().manual_seed(seed)
    inputs = level_inputs(torch.randint(levels, (6, dims), generator=rng), levels).double()
    logits = levels if levels > 2 else 1
    shapes = ((dims, levels - 1, 5), (5,), (dims, logits, 5), (dims, logits))
    return inputs, *(torch.randn(s, generator=rng, dtype=torch.float64).requires_grad_() for s in shapes)


@pytest.mark.parametrize(("levels", "dims", "block"), [(2, 9, 4), (2, 7, 14), (3, 5, 2), (4, 4, 1)])
def test_blocks_give_the_values_and_gradients_of_the_plain_recursion(levels: int, dims: int, block: int) -> None:
    inputs, *weights = nade_tensors(levels, dims)
    logits, naive = Conditionals.apply(inputs, *weights, block), naive_conditionals(inputs, *weights)
    assert torch.allclose(logits, naive, rtol=1e-12, atol=1e-12)
    direction = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = torch.autograd.grad((naive * direction).sum(), weights)
    for mine, plain in zip(torch.autograd.grad((logits * direction).sum(), weights), expected, strict=True):
        assert torch.allclose(mine, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("levels", "block"), [(2, 3), (3, 2)])
def test_gradients_by_finite_differences(levels: int, block: int) -> None:
    inputs, *weights = nade_tensors(levels, 4)
    assert torch.autograd.gradcheck(lambda *w: Conditionals.apply(inputs, *w, block), weights)


def test_distinct_prefixes_of_blocks() -> None:
    x = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0]])[..., None]
    prefixes, image, rows, counts = distinct_prefixes(x, 3)
    assert prefixes.tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert image.tolist() == [0, 0, 1, 1, 1, 0, 0, 1]
    assert rows.tolist() == [[[0, 0, 1], [2, 3, 4]], [[0, 1, 1], [2, 2, 2]]]
    assert counts == [5, 3]


def conditionals(model: Any, levels: torch.Tensor, ordering: int) -> torch.Tensor:
    """Logits (B, D, L) of all values in raster order, as the model's walk through an ordering yields them."""
    order, nothing = model.orderings[ordering].tolist(), torch.zeros_like(levels, dtype=torch.bool)
    logits = dict(model.network.walk(levels, nothing, order))
    return torch.stack([logits[dim] for dim in range(levels.shape[1])], 1)


@pytest.mark.parametrize("kind", [NADE, OrderlessNADE])
@pytest.mark.parametrize("spec", [BINARY, TERNARY], ids=["K=2", "K=3"])
def test_a_value_reaches_the_later_ones_of_every_ordering_and_no_others(kind: type[NADE], spec: ImageSpec) -> None:
    model = build(kind, spec)
    levels = torch.randint(spec.levels, (20, spec.dims), generator=torch.Generator().manual_seed(0))
    for ordering in range(model.num_orderings):
        before, place = conditionals(model, levels, ordering), model.orderings[ordering].argsort()
        for dim in range(spec.dims):
            changed = levels.clone()
            changed[:, dim] = (changed[:, dim] + 1) % spec.levels
            reached = (conditionals(model, changed, ordering) != before).any(2).any(0)
            assert torch.equal(reached, place > place[dim])


@pytest.mark.parametrize("spec", [ImageSpec(1, 5, 6, 2), ImageSpec(3, 2, 3, 5)], ids=["K=2", "K=5"])
def test_the_pass_over_blocks_is_the_walk_over_values(spec: ImageSpec) -> None:
    model = build(NADE, spec)
    levels = torch.randint(spec.levels, (9, spec.dims), generator=torch.Generator().manual_seed(0))
    order = model.orderings[0]
    assert sorted(order.tolist()) == list(range(spec.dims)) != order.tolist()
    in_order = model.network(levels[:, order])
    assert torch.allclose(in_order, conditionals(model, levels, 0)[:, order], atol=1e-4)
    changed = levels.clone()
    changed[:, order[7:]] = 0
    assert torch.allclose(model.network(changed[:, order])[:, :8], in_order[:, :8], atol=1e-5)
    assert not torch.allclose(model.network(changed[:, order])[:, 8:], in_order[:, 8:], atol=1e-2)


@pytest.mark.parametrize("kind", [NADE, OrderlessNADE])
@pytest.mark.parametrize("spec", [BINARY, TERNARY], ids=["K=2", "K=3"])
def test_probabilities_of_all_images_sum_to_one(kind: type[NADE], spec: ImageSpec) -> None:
    model = build(kind, spec)
    for estimator in model.likelihood_estimators():
        log_p = log_prob(model, estimator)
        assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
        assert log_p.std() > 0.5


def test_the_orderless_model_is_the_mixture_of_its_orderings() -> None:
    model = build(OrderlessNADE, BINARY, num_orderings=4)
    levels = all_levels(BINARY)
    each = model.log_probs(from_levels(levels.view(-1, 1, 3, 3), 2), 4).exp()
    assert torch.allclose(log_prob(model).exp(), each.mean(0), rtol=1e-10)
    assert torch.allclose(log_prob(model, "first-ordering").exp(), each[0], rtol=1e-10)
    assert each.std(0).max() > 1e-3
    assert len({tuple(order) for order in model.orderings.tolist()}) == 4
    assert build(OrderlessNADE, BINARY, order="raster").orderings[0].tolist() == list(range(9))
    assert build(OrderlessNADE, BINARY, num_orderings=1).likelihood_estimators() == ("exact",)


def test_the_orderless_walk_is_the_network_given_what_is_known() -> None:
    model = build(OrderlessNADE, TERNARY, hidden_layers=3)
    levels, order = all_levels(TERNARY), model.orderings[2].tolist()
    walked, known = conditionals(model, levels, 2), torch.zeros(len(levels), 4, dtype=torch.bool)
    for dim in order:
        assert torch.allclose(model.network(levels, known)[:, dim], walked[:, dim], atol=1e-5)
        known[:, dim] = True


def test_order_agnostic_loss_is_unbiased_over_all_orderings() -> None:
    model = build(OrderlessNADE, TERNARY)
    levels = all_levels(TERNARY)[[0, 5, 17, 40, 80]]
    nothing = torch.zeros_like(levels, dtype=torch.bool)
    losses, nats = [], []
    with torch.no_grad():
        for order in permutations(range(4)):
            walk = model.network.walk(levels, nothing, list(order))
            nats.append(-sum(level_log_prob(logits, levels[:, dim]) for dim, logits in walk))
            keys = torch.tensor(order).argsort().expand(5, 4).float()
            losses += [model.order_agnostic(levels, torch.full((5,), number), keys) for number in range(4)]
    assert torch.stack(nats).std(0).min() > 0.01
    assert torch.allclose(torch.stack(losses).mean(0), torch.stack(nats).mean(0), rtol=1e-5)
    repeated, rng = levels[3].expand(40_000, 4), torch.Generator().manual_seed(0)
    tolerance = 5 * torch.stack(losses)[:, 3].std() / 200
    with torch.no_grad():
        assert abs(model.loss(repeated, rng) - torch.stack(nats)[:, 3].mean()) < tolerance


def test_validation_draws_one_set_of_known_values_an_image() -> None:
    model = build(OrderlessNADE, BINARY)
    images = from_levels(all_levels(BINARY).view(-1, 1, 3, 3), 2)
    whole, part = Batch(images, torch.arange(512)), Batch(images[100:110], torch.arange(100, 110))
    with torch.no_grad():
        figures = [model.validate(batch, NoiseSource(0, batch.index)) for batch in (whole, whole, part)]
    assert torch.equal(figures[0], figures[1])
    assert torch.allclose(figures[0][100:110], figures[2], rtol=1e-5)


@pytest.mark.parametrize("kind", [NADE, OrderlessNADE])
def test_frequencies_of_samples_match_the_probabilities(kind: type[NADE]) -> None:
    model = build(kind, TERNARY, scale=0.7)
    probabilities = log_prob(model).exp()
    samples = model.sample(request(6000))
    assert frequencies_match(samples, TERNARY, probabilities)
    assert not frequencies_match(samples, TERNARY, probabilities.flip(0))


@pytest.mark.parametrize("spec", [ImageSpec(1, 5, 4, 2), ImageSpec(3, 2, 3, 5)], ids=["K=2", "K=5"])
def test_incremental_sampling_equals_full_passes(spec: ImageSpec) -> None:
    model, asked = build(NADE, spec, scale=0.6), request(30)
    calls: list[int] = []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    samples = model.sample(request(30))
    assert len(calls) == spec.dims
    asked.noise.uniform(())
    uniform, order = asked.noise.uniform((spec.dims,)), model.orderings[0]
    levels = torch.zeros(30, spec.dims, dtype=torch.int64)
    with torch.no_grad():
        for place, dim in enumerate(order.tolist()):
            levels[:, dim] = draw_levels(model.network(levels[:, order])[:, place], uniform[:, dim])
    assert levels.unique().numel() == spec.levels
    assert torch.equal(samples, from_levels(levels.view(-1, *spec.shape), spec.levels))


def inpainted(model: NADE, mask: torch.Tensor, values: torch.Tensor, n: int) -> torch.Tensor:
    """Samples (n, 1, 2, 2) with ``values`` (4,) where ``mask`` (4,) is set; asserts that they are kept."""
    given = mask.view(1, 1, 2, 2).expand(n, 1, 2, 2)
    source = from_levels(values, 3).view(1, 1, 2, 2).expand(n, 1, 2, 2)
    samples = model.sample(request(n, condition=Condition(source=source, mask=given)))
    assert torch.equal(samples[given], source[given])
    return samples


def test_nade_inpaints_exactly_where_the_given_values_come_first() -> None:
    model = build(NADE, TERNARY, scale=0.7, order="raster")
    mask, values = torch.tensor([True, True, False, False]), torch.tensor([1, 2, 0, 0])
    matching = (all_levels(TERNARY)[:, :2] == values[:2]).all(1)
    joint = log_prob(model).exp() * matching
    assert frequencies_match(inpainted(model, mask, values, 4000), TERNARY, joint / joint.sum())


def test_orderless_nade_inpaints_exactly_under_any_mask() -> None:
    model = build(OrderlessNADE, TERNARY, num_orderings=2)
    mask, values = torch.tensor([False, True, False, True]), torch.tensor([0, 2, 0, 1])
    samples = inpainted(model, mask, values, 6000)
    matching = (all_levels(TERNARY)[:, mask] == values[mask]).all(1)
    conditional = torch.zeros(81, dtype=torch.float64)
    for order in model.orderings.tolist():
        given_first = build(OrderlessNADE, TERNARY, num_orderings=2)
        rest = [dim for dim in order if not mask[dim]]
        given_first.orderings[0] = torch.tensor([1, 3, *rest])
        joint = log_prob(given_first, "first-ordering").exp() * matching
        conditional += joint / joint.sum() / 2
    assert frequencies_match(samples, TERNARY, conditional)
    joint = log_prob(model).exp() * matching
    assert not frequencies_match(samples, TERNARY, joint / joint.sum())


@pytest.mark.parametrize("kind", [NADE, OrderlessNADE])
def test_inpainting_keeps_given_pixels_of_any_mask_and_channel(kind: type[NADE]) -> None:
    spec = ImageSpec(3, 4, 4, 5)
    model, rng = build(kind, spec), torch.Generator().manual_seed(0)
    mask = torch.rand(20, 1, 4, 4, generator=rng) < 0.5
    source = from_levels(torch.randint(5, (20, *spec.shape), generator=rng), 5)
    samples = model.sample(request(20, condition=Condition(source=source, mask=mask)))
    kept = mask.expand(20, *spec.shape)
    assert torch.equal(samples[kept], source[kept])
    assert not torch.equal(samples, source)
    nothing = Condition(source=source, mask=torch.zeros_like(mask))
    assert torch.equal(model.sample(request(20, condition=nothing)), model.sample(request(20)))


def test_low_temperature_gives_the_most_likely_values_greedily() -> None:
    model = build(NADE, BINARY)
    samples = model.sample(request(8, temperature=1e-4))
    assert all(torch.equal(sample, samples[0]) for sample in samples)
    levels = to_levels(samples[:1], 2).flatten(1)
    assert torch.equal(levels, (conditionals(model, levels, 0)[..., 0] > 0).long())


def test_bernoulli_is_a_softmax_of_two() -> None:
    logit, levels = torch.randn(50, 1, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 2
    two = torch.cat((torch.zeros(50, 1), logit), 1)
    expected = -F.cross_entropy(two, levels, reduction="none")
    assert torch.allclose(level_log_prob(logit, levels), expected, atol=1e-6)
    assert torch.allclose(level_log_prob(torch.cat((two, two), 1), levels), expected - torch.tensor(2.0).log())


@pytest.mark.parametrize("kind", [NADE, OrderlessNADE])
def test_bad_input_says_what_to_do(kind: type[NADE]) -> None:
    model = build(kind, BINARY)
    with pytest.raises(UsageError, match=f"{kind.__name__}: temperature must be positive, got 0"):
        model.sample(request(2, temperature=0.0))
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'elbo'"):
        log_prob(model, "elbo")
    mask, source = torch.ones(2, 1, 3, 3, dtype=torch.bool), torch.zeros(2, 1, 3, 3, dtype=torch.uint8)
    with pytest.raises(UsageError, match="no source, expected"):
        model.sample(request(2, condition=Condition(mask=mask)))
    with pytest.raises(UsageError, match=r"a source of shape \(1, 1, 3, 3\).*Give one mask and one source"):
        model.sample(request(2, condition=Condition(mask=mask, source=source[:1])))
