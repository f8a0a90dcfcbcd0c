"""The RBM against enumeration: log Z exact and by AIS, gradients, Gibbs sampling, sampling under a mask."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from baselines.energy.rbm import RBM, BaseRatePath, Machine, RBMConfig, centre_gradients, exact_log_normaliser
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import NotConverged, UsageError
from genbench.images import from_levels, to_levels
from genbench.likelihood.annealed import ChainNoise, anneal, forward_estimate, reverse_estimate, summarise, temperatures
from genbench.noise import NoiseSource

BINARY, TERNARY = ImageSpec(1, 2, 2, levels=2), ImageSpec(1, 1, 3, levels=3)


class Context:
    """A minimal `TrainContext`; with ``keep`` it leaves the gradients where they are and does not step."""

    def __init__(self, model: RBM, seed: int = 0, keep: bool = False) -> None:
        self.step, self.progress, self.device = 0, 0.0, torch.device("cpu")
        self.rng, self.keep = torch.Generator().manual_seed(seed), keep
        self.optimizers = model.optimizers()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        if not self.keep:
            self.optimizers[name].step()
            self.optimizers[name].zero_grad()


def rbm(spec: ImageSpec, hidden: int = 4, scale: float = 1.0, seed: int = 0, **changes: Any) -> RBM:
    """A machine with weights and biases of the given size, and a base-rate model that is not uniform."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RBM(RBMConfig(hidden=hidden, **changes), spec).eval()
        for parameter in model.machine.parameters():
            parameter.data = scale * torch.randn(parameter.shape)
        model.feature_counts += torch.randint(1, 50, model.feature_counts.shape)
    model.images_seen += 50
    if spec.levels > 2:
        per_level = model.feature_counts.view(spec.dims, spec.levels)
        per_level[:, 0] += 150 - per_level.sum(1)
        model.images_seen += 100
    return model


def all_levels(spec: ImageSpec) -> Tensor:
    """(K^D, D), the first value the most significant."""
    return torch.cartesian_prod(*[torch.arange(spec.levels)] * spec.dims).view(-1, spec.dims)


def all_images(spec: ImageSpec) -> Batch:
    levels = all_levels(spec)
    return Batch(from_levels(levels, spec.levels).view(-1, *spec.shape), torch.arange(len(levels)))


def number_of(levels: Tensor, spec: ImageSpec) -> Tensor:
    """(N, D) levels to the row of `all_levels`."""
    return levels.flatten(1) @ spec.levels ** torch.arange(spec.dims).flip(0)


def log_p(model: RBM) -> Tensor:
    """(K^D,) exact log P of every image, by a sum over visible states."""
    batch = all_images(model.spec)
    unnormalised = model.log_unnormalised(batch, NoiseSource(0, batch.index)).detach()
    return unnormalised - unnormalised.logsumexp(0)


def log_path(path: BaseRatePath, spec: ImageSpec, beta: float) -> Tensor:
    """(K^D,) log f_beta of every image from its definition, by a sum over hidden states."""
    machine = path.machine
    v = machine.features(all_levels(spec), torch.float64)
    hidden = len(machine.hidden_bias)
    h = torch.cartesian_prod(*[torch.arange(2)] * hidden).double()
    joint = (
        v @ machine.visible_bias.double()[:, None]
        + h @ machine.hidden_bias.double()
        + (v @ machine.weight.double() @ h.T)
    )
    return ((1 - beta) * (v @ path.base_bias.double())[:, None] + beta * joint).logsumexp(1).detach()


def fits(found: Tensor, probabilities: Tensor) -> bool:
    """Chi-square of observed counts of states against their probabilities; rare states are pooled."""
    expected = probabilities * len(found)
    counts = torch.bincount(found, minlength=len(expected)).double()
    rare = expected < 5
    observed = torch.cat((counts[~rare], counts[rare].sum()[None]))
    wanted = torch.cat((expected[~rare], expected[rare].sum()[None]))
    keep = wanted > 0
    return float(stats.chisquare(observed[keep].numpy(), wanted[keep].numpy()).pvalue) > 1e-3


@pytest.mark.parametrize("spec", [BINARY, TERNARY])
def test_log_unnormalised_is_the_sum_over_hidden_states(spec: ImageSpec) -> None:
    model = rbm(spec, 3)
    batch = all_images(spec)
    found = model.log_unnormalised(batch, NoiseSource(0, batch.index)).detach()
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, log_path(model._path(), spec, 1.0), rtol=0, atol=1e-10)


@pytest.mark.parametrize("spec", [ImageSpec(1, 3, 3, levels=2), TERNARY, ImageSpec(2, 1, 2, levels=4)])
def test_probabilities_of_all_images_sum_to_one(spec: ImageSpec) -> None:
    """Under log Z summed over hidden states, in one piece and in several."""
    model, batch = rbm(spec, 13), all_images(spec)
    found = model.log_normaliser("exact", 0)
    assert (found.kind, found.standard_error) == ("exact", 0.0)
    unnormalised = model.log_unnormalised(batch, NoiseSource(0, batch.index)).detach()
    assert float((unnormalised - found.value).exp().sum()) == pytest.approx(1.0, abs=1e-10)


def test_base_rate_model_starts_the_path() -> None:
    for spec in (BINARY, TERNARY):
        model = rbm(spec)
        path = model._path()
        assert path.log_base_normaliser == pytest.approx(float(log_path(path, spec, 0.0).logsumexp(0)), abs=1e-5)
        state = path.start(ChainNoise(0, 20_000))
        found = state.visible.mean(0)
        assert (found - model.base_rate()).abs().max() < 4.5 * 0.5 / math.sqrt(20_000)
        assert fits(number_of(model.machine.to_levels(state.visible), spec), log_path(path, spec, 0.0).softmax(0))


def test_base_rates_are_the_frequencies_of_training_images() -> None:
    model = RBM(RBMConfig(hidden=2, chains=3), TERNARY)
    torch.testing.assert_close(model.base_rate(), torch.full((9,), 1 / 3))
    batch = Batch(from_levels(torch.tensor([0, 2, 2, 1, 2, 0]).view(2, 1, 1, 3), 3), torch.arange(2))
    for _ in range(3):
        model.update(batch, Context(model))
    expected = torch.tensor([[3, 3, 0], [0, 0, 6], [3, 0, 3]]) + 1.0
    torch.testing.assert_close(model.base_rate().view(3, 3), expected / 9)


@pytest.mark.parametrize("spec", [BINARY, TERNARY])
def test_ratios_along_the_path_are_those_of_its_densities(spec: ImageSpec) -> None:
    path = rbm(spec)._path()
    state = path.at(path.machine.features(all_levels(spec), torch.float32))
    for a, b in ((0.0, 0.3), (0.3, 1.0), (1.0, 0.4)):
        expected = log_path(path, spec, b) - log_path(path, spec, a)
        torch.testing.assert_close(path.log_ratio(state, a, b).detach(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("spec", "beta"), [(BINARY, 1.0), (BINARY, 0.4), (TERNARY, 1.0), (TERNARY, 0.4)])
@torch.no_grad()
def test_gibbs_step_keeps_each_density_and_is_reversible(spec: ImageSpec, beta: float) -> None:
    """From exact draws of f_beta: chi-square of the images after 3 steps, and of pairs (x, x') against (x', x)."""
    path, chains = rbm(spec)._path(), 20_000
    p = log_path(path, spec, beta).softmax(0)
    noise = ChainNoise(1, chains)
    drawn = torch.bucketize(noise.uniform((1,))[:, 0].double(), p.cumsum(0)).clamp(max=len(p) - 1)
    state = path.at(path.machine.features(all_levels(spec)[drawn], torch.float32))
    for _ in range(3):
        before, state = state, path.move(state, beta, noise)
    x, y = (number_of(path.machine.to_levels(s.visible), spec) for s in (before, state))
    assert fits(y, p)
    counts = torch.bincount(len(p) * x + y, minlength=len(p) ** 2).view(len(p), -1).double()
    row, column = torch.triu_indices(len(p), len(p), 1)
    up, down = counts[row, column], counts[column, row]
    common = up + down >= 10
    statistic = float(((up - down).square() / (up + down))[common].sum())
    assert stats.chi2.sf(statistic, int(common.sum())) > 1e-3
    assert int(common.sum()) > 5


@pytest.mark.parametrize("spec", [ImageSpec(1, 3, 3, levels=2), TERNARY])
@torch.no_grad()
def test_ais_meets_enumeration_from_both_sides(spec: ImageSpec) -> None:
    model, chains = rbm(spec, 10, scale=1.2, seed=1), 500
    path, betas, truth = model._path(), temperatures(200), exact_log_normaliser(model.machine)
    p = log_p(model).exp()
    drawn = torch.multinomial(p, chains, replacement=True, generator=torch.Generator().manual_seed(0))
    state = path.at(path.machine.features(all_levels(spec)[drawn], torch.float32))
    forward, _ = forward_estimate(path, betas, ChainNoise(0, chains))
    reverse = reverse_estimate(path, state, betas, ChainNoise(1, chains))
    for found in (forward, reverse):
        assert found.standard_error < 0.1
        assert abs(found.log_normaliser - truth) < 3 * found.standard_error
    assert abs(path.log_base_normaliser - truth) > 3, "the base must be far from the target here"


@torch.no_grad()
def test_ais_lies_below_forward_and_above_in_reverse_on_average() -> None:
    """A short schedule and few chains, repeated: both biases are many standard errors, and of opposite signs."""
    spec, repetitions, chains = BINARY, 600, 5
    model = rbm(spec, 8, scale=2.0)
    path, betas, truth, total = model._path(), temperatures(6), exact_log_normaliser(model.machine), 600 * 5
    p = log_p(model).exp()
    drawn = torch.multinomial(p, total, replacement=True, generator=torch.Generator().manual_seed(0))
    noise = ChainNoise(0, total)
    up, _ = anneal(path, path.start(noise), betas, noise)
    state = path.at(path.machine.features(all_levels(spec)[drawn], torch.float32))
    down, _ = anneal(path, state, betas[::-1], noise)
    for log_weight, reverse, sign in ((up, False, -1.0), (down, True, 1.0)):
        runs = [summarise(w, path.log_base_normaliser, reverse) for w in log_weight.view(repetitions, chains)]
        gap = sign * (np.array([run.log_normaliser for run in runs]) - truth)
        assert gap.mean() > 4 * gap.std() / math.sqrt(repetitions)


def negatives_gradient(model: RBM, weights: Tensor) -> dict[str, Tensor]:
    """Gradient of the mean log p~ under a distribution over all images, by autograd on the sum over them."""
    v = model.machine.features(all_levels(model.spec), torch.float64)
    value = (weights * model.machine.log_density(v)).sum()
    gradients = torch.autograd.grad(value, list(model.machine.parameters()))
    return dict(zip(("weight", "visible_bias", "hidden_bias"), gradients, strict=True))


def gibbs_matrix(model: RBM) -> Tensor:
    """(N, N) probability of v' after one Gibbs step from v, from the machine's two conditionals."""
    machine, spec = model.machine, model.spec
    v = machine.features(all_levels(spec), torch.float64)
    h = torch.cartesian_prod(*[torch.arange(2)] * model.config.hidden).double()
    given_v = (v @ machine.weight.double() + machine.hidden_bias.double()) @ h.T
    given_h = (h @ machine.weight.double().T + machine.visible_bias.double()) @ v.T
    return (given_v.softmax(1) @ given_h.softmax(1)).detach()


@pytest.mark.parametrize("spec", [BINARY, TERNARY])
@pytest.mark.parametrize("algorithm", ["cd", "pcd"])
def test_gradient_in_expectation(spec: ImageSpec, algorithm: str) -> None:
    """CD-2 from the data, by the Gibbs matrix; PCD from chains at the model, where it is that of the mean -log P."""
    many = 20_000
    model = rbm(spec, 3, algorithm=algorithm, gibbs_steps=2, chains=many, centred=False)
    some = torch.tensor([0, 3, 5, 5])
    p_data = torch.bincount(some, minlength=len(all_levels(spec))).double() / len(some)
    p_negative = log_p(model).exp() if algorithm == "pcd" else p_data @ gibbs_matrix(model).matrix_power(2)
    if algorithm == "pcd":
        drawn = torch.multinomial(p_negative, many, replacement=True, generator=torch.Generator().manual_seed(5))
        model.chains.copy_(all_levels(spec)[drawn])
    positive, negative = negatives_gradient(model, p_data), negatives_gradient(model, p_negative)
    images = all_images(spec).images[some].repeat(many // 4, 1, 1, 1)
    context = Context(model, seed=1, keep=True)
    context.step = 1
    model.update(Batch(images, torch.arange(many)), context)
    for name, parameter in model.machine.named_parameters():
        assert (parameter.grad + positive[name] - negative[name]).abs().max() < 4.5 * 0.5 / math.sqrt(many)
    far = max(float((positive[n] - negative[n]).abs().max()) for n in positive)
    assert far > 0.1, "the gradient must be far from zero here"
    if algorithm == "pcd":
        v = model.machine.features(all_levels(spec), torch.float64)
        log_z = model.machine.log_density(v).logsumexp(0)
        by_autograd = torch.autograd.grad(log_z, model.machine.weight)[0]
        torch.testing.assert_close(by_autograd, negative["weight"])


def test_centred_gradients_are_those_of_a_centred_machine() -> None:
    """Autograd in W, b' and c' of b = b' - W n and c = c' - m W, moved back to W, b and c."""
    model = rbm(ImageSpec(1, 2, 3, levels=2), 4)
    machine, m, n = model.machine, torch.rand(6), torch.rand(4)
    data, model_side = torch.randint(2, (2, 10, 6), generator=torch.Generator().manual_seed(0)).float()

    def loss(weight: Tensor, b: Tensor, c: Tensor) -> Tensor:
        value = lambda v: (v @ b + F.softplus(c + v @ weight).sum(1)).mean()  # noqa: E731
        return value(model_side) - value(data)

    loss(machine.weight, machine.visible_bias, machine.hidden_bias).backward()
    centre_gradients(machine, m, n)
    weight = machine.weight.detach().clone().requires_grad_()
    b = (machine.visible_bias.detach() + weight.detach() @ n).requires_grad_()
    c = (machine.hidden_bias.detach() + m @ weight.detach()).requires_grad_()
    dw, db, dc = torch.autograd.grad(loss(weight, b - weight @ n, c - m @ weight), (weight, b, c))
    torch.testing.assert_close(machine.weight.grad, dw)
    torch.testing.assert_close(machine.visible_bias.grad, db - dw @ n)
    torch.testing.assert_close(machine.hidden_bias.grad, dc - m @ dw)


@pytest.mark.parametrize("changes", [{}, {"algorithm": "cd", "centred": False, "gibbs_steps": 3}])
def test_learning_beats_independent_pixels(changes: dict[str, Any]) -> None:
    """Eight equally likely stripes on 3 x 3, log 8 = 2.1 nats at best; independent pixels need 9 log 2 = 6.2."""
    spec = ImageSpec(1, 3, 3, levels=2)
    rows = torch.cartesian_prod(*[torch.arange(2)] * 3)
    images = from_levels(rows.repeat_interleave(3, 1).view(8, 1, 3, 3).repeat(6, 1, 1, 1), 2)
    torch.manual_seed(0)
    model = RBM(RBMConfig(hidden=6, chains=48, learning_rate=0.2, **changes), spec)
    context = Context(model)
    for step in range(750):
        context.step = step
        model.train().update(Batch(images, torch.arange(48)), context)
    batch = Batch(images[:8], torch.arange(8))
    assert float(model.eval().validate(batch, NoiseSource(0, batch.index)).detach().mean()) < 3.2


def test_chains_persist_and_are_state() -> None:
    model = rbm(BINARY, chains=7, gibbs_steps=2)
    images = all_images(BINARY)
    before = model.chains.clone()
    model.update(images, Context(model))
    assert not torch.equal(model.chains, before)
    restored = rbm(BINARY, seed=9, chains=7, gibbs_steps=2)
    restored.load_state_dict(model.state_dict())
    for one in (model, restored):
        one.update(images, Context(one, seed=1))
    assert torch.equal(model.chains, restored.chains)
    assert torch.equal(model.machine.weight, restored.machine.weight)


@pytest.mark.parametrize("spec", [BINARY, TERNARY])
@torch.no_grad()
def test_samples_follow_the_probabilities(spec: ImageSpec) -> None:
    model = rbm(spec, 5)
    x = model.sample(SampleRequest(NoiseSource(0, torch.arange(8000)), SamplerOptions(steps=40)))
    assert fits(number_of(to_levels(x, spec.levels), spec), log_p(model).exp())


@pytest.mark.parametrize("spec", [BINARY, TERNARY])
@torch.no_grad()
def test_inpainting_keeps_what_is_given_and_draws_the_exact_conditional(spec: ImageSpec) -> None:
    model, count = rbm(spec, 5), 6000
    source = from_levels(torch.full((count, *spec.shape), spec.levels - 1), spec.levels)
    mask = torch.zeros((count, 1, spec.height, spec.width), dtype=torch.bool)
    mask[:, :, 0, 0] = True
    condition = Condition(mask=mask, source=source)
    x = model.sample(SampleRequest(NoiseSource(0, torch.arange(count)), SamplerOptions(steps=60), condition))
    assert torch.equal(x[mask], source[mask])
    p = log_p(model).exp() * (all_levels(spec)[:, 0] == spec.levels - 1)
    assert fits(number_of(to_levels(x, spec.levels), spec), p / p.sum())


@torch.no_grad()
def test_samples_do_not_depend_on_their_batch() -> None:
    model = rbm(ImageSpec(1, 8, 8, levels=17), 60, scale=0.3)
    whole = model.sample(SampleRequest(NoiseSource(3, torch.arange(9)), SamplerOptions(steps=50)))
    piece = model.sample(SampleRequest(NoiseSource(3, torch.arange(4, 6)), SamplerOptions(steps=50)))
    assert torch.equal(whole[4:6], piece)


@torch.no_grad()
def test_reconstruction_is_one_pass_up_and_down() -> None:
    for spec in (BINARY, TERNARY):
        model, batch = rbm(spec, 4, scale=2.0), all_images(spec)
        m = model.machine
        v = F.one_hot(all_levels(spec), spec.levels).double()[..., 1 if spec.levels == 2 else slice(None)].flatten(1)
        h = 1 / (1 + torch.exp(-(v @ m.weight.double() + m.hidden_bias)))
        odds = torch.exp(h @ m.weight.double().T + m.visible_bias)
        if spec.levels == 2:
            expected = (odds > 1).long()
        else:
            p = odds.view(len(v), 3, 3) / odds.view(len(v), 3, 3).sum(2, keepdim=True)
            expected = (p[..., 1] + 2 * p[..., 2]).round().long()
        found = to_levels(model.reconstruct(batch, NoiseSource(0, batch.index)), spec.levels)
        assert torch.equal(found.flatten(1), expected)


def test_estimators_and_their_verdict() -> None:
    small, large = rbm(BINARY, 20), rbm(ImageSpec(1, 3, 3, levels=2), 21, scale=0.5, reverse_steps=20)
    assert small.likelihood_estimators() == ("exact",)
    assert large.likelihood_estimators() == ("ais-forward", "ais-reverse")
    batch = all_images(large.spec)
    truth = float(large.log_unnormalised(batch, NoiseSource(0, batch.index)).detach().logsumexp(0))
    found = {name: large.log_normaliser(name, 0) for name in large.likelihood_estimators()}
    for name, one in found.items():
        assert one.kind == "estimate"
        assert abs(one.value - truth) < 3.5 * one.standard_error
        assert one.value == one.details["log_normaliser_" + name.removeprefix("ais-")]
        assert one.details["effective_sample_size"] > 50
    for name in ("log_normaliser_forward", "log_normaliser_reverse"):
        assert found["ais-forward"].details[name] == found["ais-reverse"].details[name], "the seed alone decides"


def test_a_reverse_run_starts_from_each_kept_chain_once() -> None:
    """Runs that share a start are not independent, and would make the error look smaller than it is."""
    model = rbm(ImageSpec(1, 3, 3, levels=2), 21, scale=0.5, reverse_steps=20, chains=60, ais_chains=100)
    details = {name: model.log_normaliser(name, 0).details for name in model.likelihood_estimators()}
    assert (details["ais-forward"]["chains"], details["ais-reverse"]["chains"]) == (100.0, 60.0)


def test_each_gibbs_step_is_one_evaluation_of_the_network() -> None:
    model, calls = rbm(BINARY, 6), []
    model.machine.register_forward_hook(lambda *_: calls.append(1))
    model.sample(SampleRequest(NoiseSource(0, torch.arange(2)), SamplerOptions(steps=7)))
    assert len(calls) == 1 + 7


def test_a_machine_that_does_not_mix_is_reported() -> None:
    model = rbm(ImageSpec(1, 3, 3, levels=2), 21, scale=40.0, reverse_steps=5)
    with pytest.raises(NotConverged, match="use more"):
        model.log_normaliser("ais-forward", 0)


def test_validation_is_the_negative_log_probability() -> None:
    """Exact for a small machine; a short AIS run for a larger one, made anew after each change of the weights."""
    batch = all_images(BINARY)
    small = rbm(BINARY, 6)
    torch.testing.assert_close(small.validate(batch, NoiseSource(0, batch.index)).detach(), -log_p(small))
    large = rbm(BINARY, 21, scale=0.5)
    for factor in (1.0, 1.5):
        large.machine.weight.data *= factor
        found = large.train().eval().validate(batch, NoiseSource(0, batch.index)).detach()
        torch.testing.assert_close(found, -log_p(large), rtol=0, atol=0.15)


def test_misuse_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 20 hidden units, this machine has 21"):
        rbm(BINARY, 21).log_normaliser("exact", 0)
    with pytest.raises(UsageError, match="Did you mean 'ais-forward'"):
        rbm(BINARY, 21).log_normaliser("ais-forwards", 0)
    with pytest.raises(ValueError, match="greater than or equal to 1000"):
        RBMConfig(ais_temperatures=10)


def test_features_and_levels_are_inverse() -> None:
    for spec in (BINARY, TERNARY):
        machine, levels = Machine(spec, 2, 1.0), all_levels(spec)
        v = machine.features(levels, torch.float32)
        assert torch.equal(machine.to_levels(v), levels)
        assert v.shape[1] == (4 if spec.levels == 2 else 9)
