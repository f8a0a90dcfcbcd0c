"""The denoising autoencoder: its corruptions, its distributions on levels, and its chain by enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from baselines.autoencoder.denoising_autoencoder import (
    DenoisingAutoencoder,
    DenoisingAutoencoderConfig,
    GeneratorNoise,
    LevelDistributions,
    corrupt,
    start_of_chain,
)
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, levels_to_float, to_levels
from genbench.noise import NoiseSource

PI = torch.tensor([0.35, 0.05, 0.1, 0.2, 0.3], dtype=torch.float64)
"""The data's distribution of one pixel of five levels."""
PIXEL = ImageSpec(1, 1, 1, levels=5)
THREE = ImageSpec(1, 1, 3, levels=2)
NU = 0.5
COUNTS = torch.tensor([[1, 3], [1, 1], [4, 1]])
"""Of the levels of three binary pixels, where chains start; START (8,): the images' probabilities."""
START = COUNTS.double() / COUNTS.sum(1, keepdim=True)
START = torch.einsum("i,j,k->ijk", *START).flatten()


class Context:
    """A minimal `TrainContext`: no schedule, no clipping; keeps the loss."""

    def __init__(self, model: DenoisingAutoencoder, seed: int = 0) -> None:
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


def model_of(spec: ImageSpec, **changes: object) -> DenoisingAutoencoder:
    torch.manual_seed(0)
    settings = {"widths": (8,), "corruption_level": NU, "walkback_steps": 2, "sampling_steps": 3, **changes}
    return DenoisingAutoencoder(DenoisingAutoencoderConfig(**settings), spec)


def salt_and_pepper_matrix(levels: int) -> Tensor:
    """(K, K) float64: C(x~ | x) of one value, x~ in columns."""
    C = (1 - NU) * torch.eye(levels, dtype=torch.float64)
    C[:, 0] += NU / 2
    C[:, -1] += NU / 2
    return C


def batch_of(levels: Tensor, spec: ImageSpec) -> Batch:
    return Batch(from_levels(levels.view(-1, *spec.shape), spec.levels), torch.arange(len(levels)))


def draws(model: DenoisingAutoencoder, steps: int, count: int = 20_000, **condition: Tensor) -> Tensor:
    if model.spec == THREE:
        model.counts.copy_(COUNTS)
    request = SampleRequest(NoiseSource(0, torch.arange(count)), SamplerOptions(steps=steps), Condition(**condition))
    return to_levels(model.sample(request), model.spec.levels).flatten(1)


class ExactPosterior(nn.Module):
    """log p(x | x~) of one pixel under the data's distribution and salt-and-pepper corruption, as logits."""

    def __init__(self) -> None:
        super().__init__()
        joint = PI[:, None] * salt_and_pepper_matrix(5)
        self.table = (joint / joint.sum(0)).T  # (x~, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.table[x.argmax(1)].clamp(min=1e-30).log().float()


def test_with_the_exact_posterior_the_data_is_the_stationary_distribution() -> None:
    """The transition matrix by enumeration, its second eigenvalue, and the frequencies of `sample`."""
    model = model_of(PIXEL)
    model.denoiser = ExactPosterior()
    every = torch.linspace(-1, 1, 5)[:, None]
    T = salt_and_pepper_matrix(5) @ model.denoise(every)[:, 0].double().softmax(-1)
    torch.testing.assert_close(PI @ T, PI, rtol=0, atol=1e-7)
    second = sorted(np.abs(np.linalg.eigvals(T.numpy())))[-2]
    steps = math.ceil(math.log(1e-4) / math.log(second))
    counts = draws(model, steps)[:, 0].bincount(minlength=5)
    assert chisquare(counts.numpy(), (20_000 * PI).numpy()).pvalue > 1e-3
    assert chisquare(draws(model, 1)[:, 0].bincount(minlength=5).numpy(), (20_000 * PI).numpy()).pvalue < 1e-6


def transitions(model: DenoisingAutoencoder, given: int | None = None) -> tuple[Tensor, Tensor]:
    """States (8, 3) of three binary pixels, and T (8, 8) of the chain; pixel ``given`` stays as it is where asked."""
    states = torch.tensor(list(itertools.product((0, 1), repeat=3)))
    C = salt_and_pepper_matrix(2)
    with torch.no_grad():
        p_one = model.denoise(levels_to_float(states, 2))[..., 0].double().sigmoid()  # (x~, 3)

    def product(factors: Callable[[int], Tensor]) -> Tensor:
        return torch.stack([factors(j) for j in range(3)]).prod(0)

    corruption = product(lambda j: C[states[:, j][:, None], states[:, j][None, :]])
    one = [p_one[:, j][:, None] for j in range(3)]
    new = [torch.where(states[:, j][None, :] == 1, one[j], 1 - one[j]) for j in range(3)]
    if given is None:
        return states, corruption @ product(lambda j: new[j])
    free = torch.stack([new[j] for j in range(3) if j != given]).prod(0)
    same = (states[:, given][:, None] == states[:, given][None, :]).double()
    return states, (corruption @ free) * same


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_samples_follow_the_transition_matrix_from_independent_pixels(steps: int) -> None:
    model = model_of(THREE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    _, T = transitions(model)
    expected = START @ torch.linalg.matrix_power(T, steps)
    assert float(expected.max() / expected.min()) > 2
    found = (draws(model, steps) * torch.tensor([4, 2, 1])).sum(1).bincount(minlength=8)
    assert chisquare(found.numpy(), (20_000 * expected).numpy()).pvalue > 1e-3


def test_given_pixels_stay_and_the_rest_follows_the_clamped_chain() -> None:
    torch.manual_seed(3)
    count, steps = 20_000, 3
    model = DenoisingAutoencoder(DenoisingAutoencoderConfig(widths=(8,), corruption_level=NU), THREE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6.0)
    states, T = transitions(model, given=1)
    start = START * (states[:, 1] == 1)
    expected = start / start.sum() @ torch.linalg.matrix_power(T, steps)
    source = batch_of(torch.tensor([[0, 1, 0]]), THREE).images.expand(count, -1, -1, -1)
    mask = torch.tensor([False, True, False]).expand(count, 1, 1, 3)
    levels = draws(model, steps, source=source, mask=mask)
    assert (levels[:, 1] == 1).all()
    found = (levels * torch.tensor([4, 2, 1])).sum(1).bincount(minlength=8).numpy()
    kept = expected.numpy() > 0
    assert found[~kept].sum() == 0
    assert chisquare(found[kept], count * expected.numpy()[kept]).pvalue > 1e-3
    unclamped = (START @ torch.linalg.matrix_power(transitions(model)[1], steps)) * (states[:, 1] == 1)
    assert float((expected - unclamped / unclamped.sum()).abs().sum()) > 0.3


@pytest.mark.parametrize("walkback_steps", [1, 3])
def test_a_trained_chain_has_the_data_as_its_stationary_distribution(walkback_steps: int) -> None:
    """Consistency, with and without walkback: the transition matrix of the learned p(x | x~) on one pixel."""
    model = model_of(PIXEL, widths=(32,), walkback_steps=walkback_steps, learning_rate=1e-2)
    rng, context = torch.Generator().manual_seed(1), Context(model)
    for step in range(400):
        levels = torch.multinomial(PI.float(), 512, replacement=True, generator=rng)[:, None]
        for group in context.optimizers["denoiser"].param_groups:
            group["lr"] = 1e-2 * (1 - step / 400)
        model.update(batch_of(levels, PIXEL), context)
    with torch.no_grad():
        learned = model.denoise(torch.linspace(-1, 1, 5)[:, None])[:, 0].double().softmax(-1)
    T = salt_and_pepper_matrix(5) @ learned
    stationary = torch.linalg.matrix_power(T, 200)[0]
    assert float((stationary - PI).abs().sum()) < 0.05


@pytest.mark.parametrize("walkback_steps", [1, 2, 5])
def test_walkback_takes_that_many_steps_and_always_asks_for_the_original(walkback_steps: int) -> None:
    """With a network that turns every pixel over for certain and hardly any corruption, the walk is known."""
    model = model_of(THREE, walkback_steps=walkback_steps, corruption_level=1e-9)
    seen: list[Tensor] = []

    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return 40.0 - 80.0 * x

    model.denoiser = Turned()
    levels = torch.tensor([[0, 1, 1], [1, 0, 0]])
    found = model.walkback(levels, GeneratorNoise(torch.Generator().manual_seed(0), 2))
    assert len(found) == len(seen) == walkback_steps
    for t, (x, nats) in enumerate(zip(seen, found, strict=True)):
        assert torch.equal(x, (levels if t % 2 == 0 else 1 - levels).float())
        expected = -120.0 if t % 2 == 0 else 0.0
        assert nats.tolist() == pytest.approx([expected] * 2, abs=1e-6)


def test_the_loss_is_the_mean_over_the_walk_per_value() -> None:
    model = model_of(PIXEL, walkback_steps=4)
    batch = batch_of(torch.tensor([[0], [2], [4]]), PIXEL)
    context = Context(model, seed=5)
    context.step = 1
    nats = model.walkback(torch.tensor([[0], [2], [4]]), GeneratorNoise(torch.Generator().manual_seed(5), 3))
    figures = model.update(batch, context)
    assert float(context.loss) == pytest.approx(-float(torch.stack(nats).detach().mean()))
    assert float(figures["denoising_nats_last"]) == pytest.approx(-float(nats[-1].detach().mean()))


@pytest.mark.parametrize("levels", [2, 5])
def test_output_biases_start_at_the_frequencies_of_the_first_batch(levels: int) -> None:
    spec = ImageSpec(1, 1, 1, levels)
    model = model_of(spec, learning_rate=1e-12)
    batch = batch_of(torch.tensor([[0], [1], [1], [1], [levels - 1], [levels - 1]]), spec)
    context = Context(model)
    model.update(batch, context)
    with torch.no_grad():
        model.denoiser[-1].weight.zero_()
        logits = model.denoise(torch.zeros(1, 1))
        p = [float(model.observation.log_prob(logits, torch.tensor([[k]])).exp()) for k in range(levels)]
    expected = torch.bincount(torch.tensor([0, 1, 1, 1, levels - 1, levels - 1]), minlength=levels) + 1.0
    assert torch.equal(model.counts[0], expected.long())
    assert p == pytest.approx((expected / expected.sum()).tolist(), rel=1e-5)
    assert context.step == 1
    model.denoiser[-1].bias.data.zero_()
    model.update(batch, context)
    assert float(model.denoiser[-1].bias.detach().abs().max()) < 1e-6


@pytest.mark.parametrize("levels", [2, 3, 17])
def test_distributions_on_levels_sum_to_one_and_are_drawn_from(levels: int) -> None:
    observation = LevelDistributions(levels)
    logits = torch.randn(1, 1, observation.parameters, generator=torch.Generator().manual_seed(levels))
    every = torch.arange(levels)[:, None]
    p = observation.log_prob(logits.expand(levels, -1, -1), every).double().exp()
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-6)
    values = levels_to_float(every[:, 0], levels).double()
    assert float(observation.mean(logits)) == pytest.approx(float(p @ values), abs=1e-6)
    count = 20_000
    found = observation.draw(logits.expand(count, -1, -1), NoiseSource(0, torch.arange(count)))
    frequencies = found[:, 0].bincount(minlength=levels).numpy()
    assert chisquare(frequencies, (count * p / p.sum()).numpy()).pvalue > 1e-3


def test_corruptions_by_frequency() -> None:
    x, count = torch.tensor([[-1.0, 0.25, 1.0]]), 40_000
    noise = NoiseSource(0, torch.arange(count))
    masked = corrupt(x.expand(count, -1), "masking", 0.3, noise)
    assert float((masked[:, 1] == -1).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float((masked[:, 1] == 0.25).float().mean()) == pytest.approx(0.7, abs=0.01)
    salted = corrupt(x.expand(count, -1), "salt_and_pepper", 0.3, noise)
    shares = [float((salted[:, 1] == value).float().mean()) for value in (-1.0, 0.25, 1.0)]
    assert shares == pytest.approx([0.15, 0.7, 0.15], abs=0.01)
    assert float((salted[:, 0] == -1).float().mean()) == pytest.approx(0.85, abs=0.01)
    noisy = corrupt(x.expand(count, -1), "gaussian", 0.3, noise) - x
    assert float(noisy.std()) == pytest.approx(0.3, rel=0.01)
    assert float(noisy.mean(0).abs().max()) < 0.01


def test_temperature_zero_is_the_rounded_mean_of_the_last_distribution() -> None:
    model = model_of(PIXEL, sampling_steps=1)
    request = SampleRequest(NoiseSource(0, torch.arange(50)), SamplerOptions(temperature=0.0))
    noise = NoiseSource(0, torch.arange(50))
    with torch.no_grad():
        logits = model.denoise(model.corrupt(start_of_chain(model.counts, noise), noise))
    mean = model.observation.mean(logits)
    nearest = ((mean + 1) * 2).round().long()
    assert torch.equal(to_levels(model.sample(request), 5).flatten(1), nearest)
    drawn = SampleRequest(NoiseSource(0, torch.arange(50)), SamplerOptions(temperature=1.0))
    assert torch.equal(model.sample(drawn), model.sample(SampleRequest(NoiseSource(0, torch.arange(50)))))


def test_reconstruction_is_the_mean_given_the_image_itself() -> None:
    model = model_of(PIXEL)
    model.denoiser = ExactPosterior()
    batch = batch_of(torch.arange(5)[:, None], PIXEL)
    joint = PI[:, None] * salt_and_pepper_matrix(5)
    mean = (joint / joint.sum(0)).T @ torch.linspace(-1, 1, 5, dtype=torch.float64)
    found = to_levels(model.reconstruct(batch, NoiseSource(0, batch.index)), 5).flatten()
    assert torch.equal(found, ((mean + 1) * 2).round().long())


def test_a_share_above_one_is_refused_and_a_deviation_is_not() -> None:
    with pytest.raises(UsageError, match="Give at most 1"):
        model_of(THREE, corruption="masking", corruption_level=1.5)
    model_of(THREE, corruption="gaussian", corruption_level=1.5)
