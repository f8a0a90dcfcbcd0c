"""EBM: Langevin's stationary law, the contrastive gradient, the replay buffer, the spectral norm and log Z by AIS."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from baselines.energy.ebm import EBM, EBMConfig, contrastive_loss, langevin
from genbench.api import Batch, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import NotConverged, UsageError
from genbench.images import from_levels
from genbench.noise import NoiseSource

UNBOUNDED = (-math.inf, math.inf)
SPEC = ImageSpec(1, 8, 8, 17)
SMALL = {"network": "mlp", "widths": (16, 16), "buffer_size": 32, "langevin_steps": 3, "sampling_steps": 4}


class Context:
    """A minimal `TrainContext`: no schedule, no clipping."""

    def __init__(self, model: EBM, seed: int = 0) -> None:
        self.step, self.progress, self.device = 0, 0.0, torch.device("cpu")
        self.rng = torch.Generator().manual_seed(seed)
        self.optimizers = model.optimizers()

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        self.optimizers[name].step()
        self.optimizers[name].zero_grad()


def normal(shape: tuple[int, ...], seed: int = 0) -> Callable[[], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=rng)


def model_of(**changes: object) -> EBM:
    torch.manual_seed(0)
    return EBM(EBMConfig(**{**SMALL, **changes}), SPEC)


def batch_of(size: int) -> Batch:
    rng = torch.Generator().manual_seed(1)
    return Batch(
        images=torch.randint(0, 256, (size, 1, 8, 8), generator=rng, dtype=torch.uint8), index=torch.arange(size)
    )


@pytest.mark.parametrize(("step", "noise"), [(0.2, 0.3), (1.0, 0.5), (2.1, 0.1)])
def test_langevin_variance_on_a_quadratic_energy(step: float, noise: float) -> None:
    v, mean, shape = 1.3, 0.7, (40_000, 1)
    y = langevin(
        lambda y: ((y - mean) ** 2 / (2 * v)).sum(1),
        torch.zeros(shape),
        normal(shape),
        steps=80,
        step_size=step,
        noise_scale=noise,
        bounds=UNBOUNDED,
    )
    expected = noise**2 / (1 - (1 - step / v) ** 2)
    assert float(y.var()) == pytest.approx(expected, rel=5 * math.sqrt(2 / shape[0]))
    assert float(y.mean()) == pytest.approx(mean, abs=5 * math.sqrt(expected / shape[0]))


def test_langevin_without_noise_is_gradient_descent_within_limits_and_bounds() -> None:
    start = torch.tensor([[0.9], [0.5]])

    def run(limit: float | None, bounds: tuple[float, float]) -> list[float]:
        y = langevin(
            lambda y: 3.0 * y.sum(1),
            start,
            lambda: torch.zeros(2, 1),
            steps=2,
            step_size=0.1,
            noise_scale=1.0,
            gradient_limit=limit,
            bounds=bounds,
        )
        return y.flatten().tolist()

    assert run(None, UNBOUNDED) == pytest.approx([0.3, -0.1])
    assert run(1.0, UNBOUNDED) == pytest.approx([0.7, 0.3])
    assert run(None, (0.0, 1.0)) == pytest.approx([0.3, 0.0], abs=1e-6)
    assert start.flatten().tolist() == pytest.approx([0.9, 0.5])


def test_contrastive_gradient_moves_a_gaussian_mean_to_the_data() -> None:
    """For E = (y - mu)^2 / 2 the gradient is mean(negatives) - mean(data), zero when the means agree."""
    data = 1.5 + torch.randn(4096, 1, generator=torch.Generator().manual_seed(0))
    mu = torch.zeros((), requires_grad=True)

    def energy(y: Tensor) -> Tensor:
        return 0.5 * (y - mu).square().sum(1)

    draw = normal((4096, 1), seed=1)
    chains = torch.zeros(4096, 1)
    for _ in range(200):
        chains = langevin(energy, chains, draw, steps=2, step_size=0.1, noise_scale=math.sqrt(0.2), bounds=UNBOUNDED)
        (gradient,) = torch.autograd.grad(contrastive_loss(energy(data), energy(chains), 0.0), mu)
        assert float(gradient) == pytest.approx(float(chains.mean() - data.mean()), abs=1e-4)
        mu.data -= 0.1 * gradient
    assert float(mu.detach()) == pytest.approx(float(data.mean()), abs=0.1)


def test_energy_l2_adds_the_mean_squares_of_both() -> None:
    real, generated = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    expected = (real.mean() - generated.mean()) + 0.7 * (2.5 + (0.25 + 9.0) / 2)
    assert float(contrastive_loss(real, generated, 0.7)) == pytest.approx(float(expected))


@pytest.mark.parametrize("network", ["mlp", "resnet"])
def test_layers_have_unit_spectral_norm(network: str) -> None:
    model = model_of(network=network, widths=(8, 12))
    y = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
        for _ in range(200):
            model.energy(y)
    model.eval()
    layers = [m for m in model.energy.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == (3 if network == "mlp" else 11)
    for layer in layers:
        assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1.0, abs=1e-3)


def test_dense_energy_is_lipschitz() -> None:
    """|E(a) - E(b)| <= 1.1^2 |a - b|: unit layers, and SiLU's slope is below 1.1."""
    model = model_of(widths=(16, 16)).train()
    with torch.no_grad():
        for _ in range(200):
            model.energy(torch.zeros(1, 1, 8, 8))
        a, b = 5 * torch.randn(2, 500, 1, 8, 8)
        slope = (model.energy(a) - model.energy(b)).abs() / (a - b).flatten(1).norm(dim=1)
    assert float(slope.max()) <= 1.1**2


def test_replay_buffer_keeps_the_chains_and_is_state() -> None:
    model = model_of()
    before = model.buffer.clone()
    model.update(batch_of(8), Context(model))
    changed = (model.buffer != before).flatten(1).any(1)
    assert int(changed.sum()) == 8
    restored = model_of()
    restored.load_state_dict(model.state_dict())
    assert torch.equal(restored.buffer, model.buffer)
    for one in (model, restored):
        one.update(batch_of(8), Context(one, seed=1))
    assert torch.equal(restored.buffer, model.buffer)


@pytest.mark.parametrize(("share", "kept"), [(1e-9, True), (1.0, False)])
def test_chains_start_from_the_buffer_or_from_noise(share: float, kept: bool) -> None:
    model = model_of(fresh_share=share)
    model.buffer.fill_(51)
    start = model._start(torch.arange(16), Context(model))
    assert bool((start == 0.2).all()) is kept


def test_samples_do_not_depend_on_their_batch_or_on_the_buffer() -> None:
    model = model_of().eval()
    whole = model.sample(SampleRequest(NoiseSource(3, torch.arange(6))))
    model.buffer.zero_()
    piece = model.sample(SampleRequest(NoiseSource(3, torch.arange(4, 6))))
    assert torch.equal(whole[4:], piece)


def test_steps_option_sets_the_chain_length() -> None:
    model, calls = model_of().eval(), []
    model.energy.register_forward_hook(lambda *_: calls.append(1))
    for steps, expected in ((None, 4), (9, 9)):
        calls.clear()
        model.sample(SampleRequest(NoiseSource(0, torch.arange(2)), SamplerOptions(steps=steps)))
        assert len(calls) == expected


def test_a_batch_larger_than_the_buffer_is_refused() -> None:
    model = model_of(buffer_size=4)
    with pytest.raises(UsageError, match="raise buffer_size"):
        model.update(batch_of(8), Context(model))


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 32)])
def test_residual_energy_of_any_size(channels: int, side: int) -> None:
    torch.manual_seed(0)
    spec = ImageSpec(channels, side, side)
    model = EBM(EBMConfig(widths=(4, 6, 6), buffer_size=2, sampling_steps=2), spec).eval()
    assert model.energy(torch.rand(5, *spec.shape)).shape == (5,)
    assert model.sample(SampleRequest(NoiseSource(0, torch.arange(2)))).shape == (2, *spec.shape)


class Quadratic(nn.Module):
    """E(y) = a sum (y - m)^2 / 2 of images in the unit cube."""

    def __init__(self, a: float, m: float) -> None:
        super().__init__()
        self.a, self.m = a, m

    def forward(self, y: Tensor) -> Tensor:
        return 0.5 * self.a * (y.flatten(1) - self.m).square().sum(1)


def quadratic_ebm(a: float, m: float = 0.3, **changes: object) -> EBM:
    """K = 4 levels on 1 x 2 x 2; its replay buffer holds values near the energy's minimum."""
    settings = {"ais_temperatures": 200, "likelihood_temperature": 0.5, "reverse_steps": 20, "buffer_size": 100}
    model = EBM(EBMConfig(**{**SMALL, **settings, **changes}), ImageSpec(1, 2, 2, 4)).eval()
    model.energy = Quadratic(a, m)
    model.buffer.fill_(round(255 * m))
    return model


def log_z_of_quadratic(a: float, m: float, temperature: float) -> float:
    """Four times the log of the integral of exp(-a (y - m)^2 / 2T) over [0, 1]."""
    width = math.sqrt(a / (2 * temperature))
    return 4 * math.log(math.sqrt(math.pi) / (2 * width) * (math.erf(width * (1 - m)) + math.erf(width * m)))


@pytest.mark.parametrize(("a", "temperature", "estimator"), [(20.0, 0.5, "ais-forward"), (0.4, 0.01, "ais-reverse")])
@torch.no_grad()
def test_log_normaliser_is_the_integral_over_the_cube(a: float, temperature: float, estimator: str) -> None:
    model, truth = quadratic_ebm(a, likelihood_temperature=temperature), log_z_of_quadratic(a, 0.3, temperature)
    assert truth < -3, "the base must be far from the target here"
    assert estimator in model.likelihood_estimators()
    found = model.log_normaliser(estimator, 0)
    assert abs(found.value - truth) < 3.5 * found.standard_error
    assert found.standard_error < 0.1
    assert found.kind == "estimate"


def test_log_unnormalised_is_the_bound_of_uniform_dequantisation() -> None:
    """E_u of the quadratic in closed form; below the log of the integral over the bin."""
    a, m, t, many = 6.0, 0.3, 0.5, 2000
    model = quadratic_ebm(a, m, likelihood_temperature=t)
    levels = torch.tensor([[0, 1], [3, 3]])
    batch = Batch(from_levels(levels, 4).expand(many, 1, 2, 2), torch.arange(many))
    found = model.log_unnormalised(batch, NoiseSource(0, batch.index)).detach()
    centre = (levels.double() + 0.5) / 4 - m
    expected = float((-0.5 * a / t * (centre.square() + 1 / (12 * 16))).sum()) - 4 * math.log(4)
    assert float(found.mean()) == pytest.approx(expected, abs=4.5 * float(found.std()) / math.sqrt(many))
    assert 0 < float(found.std()) < 0.2
    low, high = levels.double() / 4 - m, (levels.double() + 1) / 4 - m
    width = math.sqrt(a / (2 * t))
    mass = math.sqrt(math.pi) / (2 * width) * (torch.erf(width * high) - torch.erf(width * low))
    assert expected < float(mass.log().sum())


def test_likelihood_is_offered_only_where_asked_for_and_refused_where_it_does_not_converge() -> None:
    assert model_of().likelihood_estimators() == ()
    with pytest.raises(UsageError, match="ais_temperatures is 0"):
        model_of().log_normaliser("ais-forward", 0)
    with pytest.raises(UsageError, match="Did you mean 'ais-reverse'"):
        quadratic_ebm(1.0).log_normaliser("ais-revers", 0)
    with pytest.raises(NotConverged, match="use more temperatures"):
        quadratic_ebm(1e6, ais_temperatures=3, reverse_steps=0).log_normaliser("ais-forward", 0)


def test_temperature_is_that_of_langevin_unless_given() -> None:
    assert model_of(step_size=2.0, noise_scale=0.4).temperature() == pytest.approx(0.04)
    assert model_of(step_size=2.0, noise_scale=0.4, likelihood_temperature=3.0).temperature() == 3.0
    with pytest.raises(UsageError, match="Set likelihood_temperature"):
        model_of(noise_scale=0.0).temperature()
