"""The GSN's step, walkback and chain: by hand, by enumeration of all paths, and after training on one pixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from baselines.autoencoder.denoising_autoencoder import GeneratorNoise
from baselines.energy.gsn import GSN, GSNConfig, UpDown
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

PI = torch.tensor([0.35, 0.05, 0.1, 0.2, 0.3], dtype=torch.float64)
"""The data's distribution of one pixel of five levels."""
PIXEL = ImageSpec(1, 1, 1, levels=5)
TWO = ImageSpec(1, 1, 2, levels=2)
STATES = torch.tensor(list(itertools.product((0, 1), repeat=2)))
COUNTS = torch.tensor([[1, 3], [4, 1]])
"""Of the levels of two binary pixels, where chains start."""
NU = 0.5


class Context:
    """A minimal `TrainContext`: no schedule, no clipping; keeps the loss."""

    def __init__(self, model: GSN, seed: int = 0) -> None:
        self.step, self.progress, self.device = 0, 0.0, torch.device("cpu")
        self.rng = torch.Generator().manual_seed(seed)
        self.optimizers = model.optimizers()
        self.loss = torch.empty(0)

    def backward(self, loss: Tensor) -> None:
        self.loss = loss.detach()
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()
        self.step += 1


def model_of(spec: ImageSpec, scale: float = 1.0, **changes: object) -> GSN:
    torch.manual_seed(0)
    settings = {"widths": (4, 3), "corruption_level": NU, "hidden_noise": 0.0, "walkback_steps": 2, **changes}
    model = GSN(GSNConfig(**settings), spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape)).mul_(scale)
    return model


def batch_of(levels: Tensor, spec: ImageSpec) -> Batch:
    return Batch(from_levels(levels.view(-1, *spec.shape), spec.levels), torch.arange(len(levels)))


def draws(model: GSN, steps: int, count: int = 20_000, **condition: Tensor) -> Tensor:
    if model.spec == TWO:
        model.counts.copy_(COUNTS)
    request = SampleRequest(NoiseSource(0, torch.arange(count)), SamplerOptions(steps=steps), Condition(**condition))
    return to_levels(model.sample(request), model.spec.levels).flatten(1)


def test_odd_layers_are_updated_before_even_ones_from_their_neighbours() -> None:
    torch.manual_seed(0)
    step = UpDown((3, 4, 5, 6), 0.0, True)
    with torch.no_grad():
        for bias in step.biases:
            bias.normal_()
        x, h1, h2, h3 = (torch.randn(2, n) for n in (3, 4, 5, 6))
        W, b = list(step.weights), list(step.biases)
        logits, hidden = step(x, [h1, h2, h3], None)
        new1 = torch.tanh(x @ W[0].T + h2 @ W[1] + b[1])
        new3 = torch.tanh(h2 @ W[2].T + b[3])
        new2 = torch.tanh(new1 @ W[1].T + new3 @ W[2] + b[2])
        for found, expected in zip([logits, *hidden], [new1 @ W[0] + b[0], new1, new2, new3], strict=True):
            torch.testing.assert_close(found, expected)


def test_hidden_noise_is_added_before_and_after_the_activation_of_all_layers_but_the_first() -> None:
    """On silent inputs h_2 = tanh(s a) + s b: its variance is s^2 + E tanh^2(s a), by quadrature."""
    sigma, count = 0.7, 40_000
    step = UpDown((2, 3, 4), sigma, True)
    with torch.no_grad():
        step.weights[1].zero_()
        silent = [torch.zeros(count, 3), torch.zeros(count, 4)]
        _, (h1, h2) = step(torch.ones(count, 2), silent, NoiseSource(0, torch.arange(count)))
        _, (noisy, _) = UpDown((2, 3, 4), sigma, False)(
            torch.ones(count, 2), silent, NoiseSource(0, torch.arange(count))
        )
    assert float(h1.std(0).max()) == 0.0
    assert float(noisy.std(0).min()) > 0.5 * sigma
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    expected = sigma**2 + float(weights @ np.tanh(sigma * nodes) ** 2) / float(weights.sum())
    assert float(h2.var()) == pytest.approx(expected, rel=0.02)
    assert float(h2.mean()) == pytest.approx(0.0, abs=0.01)


def paths(model: GSN, steps: int, given: int | None = None) -> Tensor:
    """(4,) float64 probabilities of two binary pixels after ``steps`` steps from independent pixels, over all paths."""
    levels, hidden = STATES.clone(), [torch.zeros(4, w) for w in model.config.widths]
    start = COUNTS.double() / COUNTS.sum(1, keepdim=True)
    p = torch.einsum("i,j->ij", *start).flatten()
    if given is not None:
        levels[:, given] = 1
    for _ in range(steps):
        count = len(levels)
        corrupted = STATES.repeat(count, 1)
        same = corrupted == levels.repeat_interleave(4, 0)
        p = p.repeat_interleave(4) * torch.where(same, 1 - NU / 2, NU / 2).double().prod(1)
        hidden = [h.repeat_interleave(4, 0) for h in hidden]
        with torch.no_grad():
            logits, hidden = model.updown(corrupted.float(), hidden, None)
        one = logits.double().sigmoid().repeat_interleave(4, 0)
        new = STATES.repeat(len(corrupted), 1)
        factor = torch.where(new == 1, one, 1 - one)
        if given is not None:
            factor[:, given] = (new[:, given] == 1).double()
        p, levels = p.repeat_interleave(4) * factor.prod(1), new
        hidden = [h.repeat_interleave(4, 0) for h in hidden]
    return torch.zeros(4, dtype=torch.float64).index_add_(0, levels @ torch.tensor([2, 1]), p)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_samples_follow_all_paths_from_independent_pixels_and_silent_layers(steps: int) -> None:
    """Without hidden noise the chain on (x, h) is a tree of known probabilities; layers carry memory."""
    model = model_of(TWO, scale=3.0)
    expected = paths(model, steps)
    assert float(expected.sum()) == pytest.approx(1.0)
    found = (draws(model, steps) @ torch.tensor([2, 1])).bincount(minlength=4)
    assert chisquare(found.numpy(), (20_000 * expected).numpy()).pvalue > 1e-3


def test_the_hidden_layers_of_the_chain_matter() -> None:
    """The tree without memory, layers silenced before each step, is another distribution than the one sampled."""
    model = model_of(TWO, scale=3.0)
    one_step = model.updown.forward

    def forgetful(visible: Tensor, hidden: list[Tensor], noise: object) -> tuple[Tensor, list[Tensor]]:
        return one_step(visible, [torch.zeros_like(h) for h in hidden], noise)

    remembered = paths(model, 3)
    model.updown.forward = forgetful
    assert float((paths(model, 3) - remembered).abs().sum()) > 0.05


def test_given_pixels_stay_and_the_rest_follows_the_clamped_chain() -> None:
    model, count = model_of(TWO), 20_000
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_().mul_(5.0)
    source = batch_of(torch.tensor([[1, 0]]), TWO).images.expand(count, -1, -1, -1)
    mask = torch.tensor([True, False]).expand(count, 1, 1, 2)
    levels = draws(model, 3, source=source, mask=mask)
    assert (levels[:, 0] == 1).all()
    expected = paths(model, 3, given=0)[2:]
    assert chisquare(levels[:, 1].bincount(minlength=2).numpy(), (count * expected).numpy()).pvalue > 1e-3
    assert float((expected - paths(model, 3).view(2, 2).sum(0)).abs().sum()) > 0.05


def stationary(model: GSN, count: int = 20_000, steps: int = 25) -> Tensor:
    """Frequencies of one pixel's levels at the end of the chain."""
    return draws(model, steps, count)[:, 0].bincount(minlength=5).double() / count


@pytest.mark.parametrize(("widths", "walkback_steps"), [((16,), 2), ((16, 8), 6)])
def test_a_trained_chain_has_the_data_as_its_stationary_distribution(
    widths: tuple[int, ...], walkback_steps: int
) -> None:
    """Consistency: on one pixel p(x | h) can be the exact posterior, so that the chain must return the data.

    Above one layer the chain's hidden state is older than any that training has seen, hence the longer walk.
    """
    settings = {"hidden_noise": 0.5, "noiseless_first": False, "learning_rate": 2e-2}
    model = model_of(PIXEL, widths=widths, walkback_steps=walkback_steps, **settings)
    rng, context = torch.Generator().manual_seed(1), Context(model)
    for step in range(250):
        levels = torch.multinomial(PI.float(), 256, replacement=True, generator=rng)[:, None]
        context.optimizers["updown"].param_groups[0]["lr"] = 2e-2 * (1 - step / 250)
        model.update(batch_of(levels, PIXEL), context)
    assert float((stationary(model.eval()) - PI).abs().sum()) < 0.05


@pytest.mark.parametrize("walkback_steps", [2, 3, 5])
def test_walkback_takes_that_many_steps_and_always_asks_for_the_original(walkback_steps: int) -> None:
    """With logits that turn every pixel over for certain and no corruption, the walk is known."""
    model = model_of(TWO, walkback_steps=walkback_steps, corruption_level=0.0)
    seen: list[Tensor] = []

    def turned(visible: Tensor, hidden: list[Tensor], noise: object) -> tuple[Tensor, list[Tensor]]:
        seen.append(visible)
        return 40.0 - 80.0 * visible, [h + 1 for h in hidden]

    model.updown.forward = turned
    levels = torch.tensor([[0, 1], [1, 0], [1, 1]])
    found = model.walkback(levels, GeneratorNoise(torch.Generator().manual_seed(0), 3))
    assert len(found) == len(seen) == walkback_steps
    for t, (visible, nats) in enumerate(zip(seen, found, strict=True)):
        assert torch.equal(visible, (levels if t % 2 == 0 else 1 - levels).float())
        assert nats.tolist() == pytest.approx([-80.0 if t % 2 == 0 else 0.0] * 3, abs=1e-6)


def test_the_loss_is_the_mean_over_the_walk_and_reaches_the_top_layer() -> None:
    model = model_of(PIXEL, walkback_steps=3)
    levels = torch.tensor([[0], [2], [4]])
    nats = model.walkback(levels, GeneratorNoise(torch.Generator().manual_seed(5), 3))
    (first,) = torch.autograd.grad(nats[0].sum(), model.updown.weights[1], retain_graph=True, allow_unused=True)
    (second,) = torch.autograd.grad(nats[1].sum(), model.updown.weights[1], retain_graph=True)
    assert first is None or float(first.abs().max()) == 0.0
    assert float(second.abs().max()) > 0.0
    context = Context(model, seed=5)
    context.step = 1
    model.update(batch_of(levels, PIXEL), context)
    assert float(context.loss) == pytest.approx(-float(torch.stack(nats).detach().mean()))


def test_levels_are_counted_and_the_biases_of_the_image_start_at_their_log_frequencies() -> None:
    model = model_of(PIXEL, learning_rate=1e-12)
    context = Context(model)
    for expected in ([1 + 1, 1, 1 + 2, 1, 1 + 1], [1 + 2, 1, 1 + 4, 1, 1 + 2]):
        model.update(batch_of(torch.tensor([[0], [2], [2], [4]]), PIXEL), context)
        assert model.counts.tolist() == [expected]
    p = model.updown.biases[0].detach().softmax(0)
    assert p.tolist() == pytest.approx([2 / 9, 1 / 9, 3 / 9, 1 / 9, 2 / 9], rel=1e-4)


def test_salt_and_pepper_on_levels_by_frequency() -> None:
    model, count = model_of(PIXEL), 40_000
    found = model.corrupt(torch.full((count, 1), 3), NoiseSource(0, torch.arange(count)))
    shares = found[:, 0].bincount(minlength=5) / count
    assert shares.tolist() == pytest.approx([NU / 2, 0, 0, 1 - NU, NU / 2], abs=0.01)


def test_reconstruction_is_noiseless_and_rounded() -> None:
    model = model_of(PIXEL, hidden_noise=2.0, noiseless_first=False, walkback_steps=2)
    batch = batch_of(torch.arange(5)[:, None], PIXEL)
    x, W, b = torch.eye(5), list(model.updown.weights), list(model.updown.biases)
    with torch.no_grad():
        h2 = torch.tanh(torch.tanh(x @ W[0].T + b[1]) @ W[1].T + b[2])
        logits = torch.tanh(x @ W[0].T + h2 @ W[1] + b[1]) @ W[0] + b[0]
    mean = logits.softmax(1) @ torch.linspace(0, 4, 5)
    found = to_levels(model.reconstruct(batch, NoiseSource(0, batch.index)), 5).flatten()
    assert torch.equal(found, mean.round().long())


def test_a_walk_too_short_for_the_top_layer_is_refused() -> None:
    with pytest.raises(UsageError, match="Give at least 3"):
        model_of(TWO, widths=(4, 4, 4), walkback_steps=2)
