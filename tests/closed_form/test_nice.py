"""NICE: invertible, volume-preserving up to its scaling, normalised, and sampled from the density that it scores."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from scipy.stats import chisquare, kstest, logistic
from torch import Tensor

from baselines.flow.nice import (
    NICE,
    Coupling,
    NICEConfig,
    log_prior,
    logistic_from_normal,
    normal_from_logistic,
)
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

DIGITS = ImageSpec(1, 8, 8, 17)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    """The same random inputs at every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def build(spec: ImageSpec = DIGITS, noise: float = 0.15, **settings: object) -> NICE:
    """A float64 model in evaluation mode with every parameter moved off its start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NICE(NICEConfig(**{"hidden": 12, "layers": 2, **settings}), spec).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
    return model


def log_det_by_autograd(function: object, x: Tensor) -> float:
    """log |det| of the Jacobian of a map of one image."""
    jacobian = torch.autograd.functional.jacobian(function, x)
    return torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet.item()


def batch_of(levels: Tensor, spec: ImageSpec) -> Batch:
    return Batch(images=from_levels(levels, spec.levels), index=torch.arange(len(levels)))


def random_batch(n: int, spec: ImageSpec = DIGITS) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return batch_of(torch.randint(spec.levels, (n, *spec.shape), generator=generator), spec)


@pytest.mark.parametrize("dims", [2, 7, 12])
@pytest.mark.parametrize("parity", [0, 1])
def test_a_coupling_moves_one_parity_inverts_and_keeps_volume(dims: int, parity: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        coupling = Coupling(dims, parity, NICEConfig(hidden=6, layers=2)).double()
        torch.nn.init.normal_(coupling.out.weight)
    x = torch.randn(1, dims, dtype=torch.float64)
    y = coupling(x)
    assert torch.equal(y[:, parity::2], x[:, parity::2])
    assert (y[:, 1 - parity :: 2] != x[:, 1 - parity :: 2]).all()
    assert torch.allclose(coupling(y, -1.0), x, atol=1e-12, rtol=0)
    assert log_det_by_autograd(coupling, x) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("spec", [DIGITS, ImageSpec(3, 3, 5, 256), ImageSpec(1, 1, 2, 2)])
def test_the_flow_inverts_and_its_log_det_is_autograds(spec: ImageSpec) -> None:
    flow = build(spec).flow
    x = torch.randn(2, spec.dims, dtype=torch.float64)
    h, log_det = flow(x)
    back, inverse_log_det = flow(h, inverse=True)
    assert torch.allclose(back, x, atol=1e-9, rtol=0)
    assert torch.allclose(inverse_log_det, -log_det)
    for i in range(2):
        expected = log_det_by_autograd(lambda v: flow(v)[0], x[i : i + 1])
        assert log_det[i].item() == pytest.approx(expected, abs=1e-9)
    assert abs(log_det[0].item()) > 1e-3


def test_every_latent_depends_on_every_pixel() -> None:
    flow, x = build(noise=0.4).flow, torch.randn(1, 64, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: flow(v)[0], x)[0, :, 0]
    assert (jacobian != 0).double().mean().item() > 0.99


@pytest.mark.parametrize("prior", ["logistic", "gaussian"])
def test_density_on_two_pixels_integrates_to_one(prior: str) -> None:
    model = build(ImageSpec(1, 1, 2, 17), noise=0.4, prior=prior)
    side = torch.linspace(-36, 36, 721, dtype=torch.float64)
    with torch.no_grad():
        log_p = model.log_density(torch.cartesian_prod(side, side).view(-1, 1, 1, 2))
    assert log_p.exp().sum().item() * (side[1] - side[0]).item() ** 2 == pytest.approx(1.0, abs=1e-3)


def test_logistic_prior_and_its_normal_latents() -> None:
    h = torch.linspace(-30, 30, 61, dtype=torch.float64)[:, None]
    assert torch.allclose(log_prior(h, "logistic"), torch.from_numpy(logistic.logpdf(h[:, 0])), atol=1e-10)
    assert torch.allclose(logistic_from_normal(normal_from_logistic(h)), h, atol=1e-8, rtol=0)
    z = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert kstest(logistic_from_normal(z).numpy(), "logistic").pvalue > 1e-3
    assert logistic_from_normal(torch.tensor(0.0)).item() == 0.0


def test_sampling_frequencies_match_the_probabilities() -> None:
    """P(k) by integrating the density over bins; levels at the ends also take what lies beyond them."""
    spec = ImageSpec(1, 1, 2, 3)
    model = build(spec, noise=0.2, couplings=4)
    with torch.no_grad():
        model.flow.s.copy_(torch.tensor([1.2, 1.5]))
        for coupling in [*model.flow.couplings][-2:]:
            coupling.out.bias.fill_(-0.5)
    cells, bounds = 20, (-5, 6)
    side = torch.arange(*(3 * cells * b for b in bounds), dtype=torch.float64).add(0.5) / (3 * cells)
    with torch.no_grad():
        mass = model.log_density(torch.cartesian_prod(side, side).view(-1, 1, 1, 2)).exp() / (3 * cells) ** 2
    level = torch.floor(3 * side).clamp(0, 2).long()
    index = (3 * level[:, None] + level[None, :]).flatten()
    expected = torch.zeros(9, dtype=torch.float64).index_add(0, index, mass)
    assert expected.sum().item() == pytest.approx(1.0, abs=2e-3)
    n = 20000
    images = model.sample(SampleRequest(NoiseSource(0, torch.arange(n))))
    drawn = to_levels(images, 3).flatten(1)
    counts = torch.bincount(3 * drawn[:, 0] + drawn[:, 1], minlength=9).double()
    assert counts.min().item() > 20
    assert chisquare(counts.numpy(), (expected / expected.sum() * n).numpy()).pvalue > 1e-3


def test_log_p_of_own_samples_is_minus_the_entropy() -> None:
    """H(y) = H(h) - E log |det dh/dy|; the standard logistic has 2 nats a dimension, the determinant is constant."""
    model = build(ImageSpec(1, 2, 2, 17), noise=0.3)
    h = logistic_from_normal(torch.randn(40000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    with torch.no_grad():
        log_p = model.log_density(model.flow(h, inverse=True)[0].view(-1, 1, 2, 2))
    error = log_p.std().item() / math.sqrt(len(log_p))
    assert log_p.mean().item() == pytest.approx(model.flow.s.sum().item() - 8.0, abs=4 * error)


def test_bounds_come_from_the_density_at_the_drawn_noise() -> None:
    model, batch = build(likelihood_draws=6).float(), random_batch(5)
    noise = NoiseSource(3, batch.index)
    draws = [model.dequantised_log_prob(batch.images, noise.uniform(DIGITS.shape)).double() for _ in range(6)]
    found = model.log_likelihood(batch, NoiseSource(3, batch.index), "dequantised")
    assert found.kind == "lower_bound"
    assert torch.allclose(found.nats, torch.stack(draws).mean(0))
    y = (to_levels(batch.images, 17) + 0.25) / 17
    by_hand = model.log_density(y) - 64 * math.log(17)
    assert torch.allclose(model.dequantised_log_prob(batch.images, torch.full(y.shape, 0.25)), by_hand)


def test_the_first_batch_standardises_the_pixels() -> None:
    flow = NICE(NICEConfig(hidden=8, layers=1), DIGITS).double().flow
    x = 0.3 + torch.rand(200, 64, dtype=torch.float64) * torch.logspace(-2, 0, 64, dtype=torch.float64)
    flow.initialise(x)
    h, _ = flow(x)
    assert h.mean(0).abs().max().item() < 1e-9
    assert torch.allclose(h.std(0, correction=0), torch.ones(64, dtype=torch.float64), atol=2e-3)


@pytest.mark.parametrize("prior", ["logistic", "gaussian"])
def test_decoding_an_images_code_gives_the_image(prior: str) -> None:
    model, batch = build(prior=prior, noise=0.05).float(), random_batch(20)
    z = model.encode(batch)
    assert z.shape == (20, *model.latent_shape)
    assert torch.equal(model.decode(z), batch.images)


def request_of(model: NICE, index: Tensor, condition: Condition, temperature: float | None = None) -> Tensor:
    return model.sample(SampleRequest(NoiseSource(0, index), SamplerOptions(temperature=temperature), condition))


def test_temperature_scales_the_latents() -> None:
    model = build().float()
    z = NoiseSource(0, torch.arange(6)).normal((64,))
    assert torch.equal(request_of(model, torch.arange(6), Condition()), model.decode(z))
    assert torch.equal(request_of(model, torch.arange(6), Condition(), 0.5), model.decode(0.5 * z))
    with pytest.raises(UsageError, match="must not be negative, got -1"):
        request_of(model, torch.arange(6), Condition(), -1.0)


def test_inpainting_keeps_the_given_pixels_and_climbs_to_the_mode() -> None:
    """With the identity and a narrow prior about 0.7 the missing pixels go there, whatever they start from."""
    model = NICE(NICEConfig(hidden=8, layers=1, inpainting_steps=200), DIGITS)
    with torch.no_grad():
        model.flow.s.fill_(5.0)
        for coupling in [*model.flow.couplings][-2:]:
            coupling.out.bias.fill_(-0.7)
    batch = random_batch(6)
    mask = (torch.arange(64).view(1, 1, 8, 8) % 3 == 0).expand(6, 1, 8, 8)
    condition = Condition(source=batch.images, mask=mask)
    with torch.no_grad():
        images = request_of(model, batch.index, condition, 0.0)
        noisy = request_of(model, batch.index, condition)
        part = request_of(model, batch.index[4:], Condition(source=batch.images[4:], mask=mask[4:]))
    assert torch.equal(images[mask], batch.images[mask])
    assert torch.equal(noisy[mask], batch.images[mask])
    assert torch.equal(noisy[4:], part)
    filled = to_levels(images, 17)[~mask].double()
    assert (filled - 0.7 * 17 + 0.5).abs().max().item() <= 1.0
    assert to_levels(noisy, 17)[~mask].double().mean().item() == pytest.approx(11.4, abs=0.6)


class HighestNoise(NoiseSource):
    """Uniform noise at its largest value, where (k + u) / K rounds up to the next level."""

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        return torch.full((len(self), *shape), 1 - 2.0**-24)


def test_given_pixels_survive_rounding() -> None:
    model, batch = build(inpainting_steps=1).float(), random_batch(4)
    mask = torch.ones(4, 1, 8, 8, dtype=torch.bool)
    condition = Condition(source=batch.images, mask=mask)
    images = model.sample(SampleRequest(HighestNoise(0, batch.index), condition=condition))
    assert torch.equal(images, batch.images)


def test_a_mask_without_its_source_is_refused() -> None:
    model, batch = build().float(), random_batch(3)
    mask = torch.ones(3, 1, 8, 8, dtype=torch.bool)
    for source in (None, batch.images[:1], batch.images[:, :, :4]):
        with pytest.raises(UsageError, match="Inpainting 3 images"):
            request_of(model, batch.index, Condition(source=source, mask=mask))
    with pytest.raises(UsageError, match="Inpainting 3 images"):
        request_of(model, batch.index, Condition(source=batch.images, mask=mask[:, :, :4]))


def test_bad_settings_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="at least 2 values, got 1"):
        NICE(NICEConfig(), ImageSpec(1, 1, 1, 17))
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'exact'"):
        build().float().log_likelihood(random_batch(1), NoiseSource(0, torch.arange(1)), "exact")
