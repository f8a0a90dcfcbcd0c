"""Real NVP: invertible, with the log-determinant that autograd finds, and a density that integrates to one."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare

from baselines.flow.realnvp import (
    ActNorm,
    Coupling,
    Flow,
    RealNVP,
    RealNVPConfig,
    inverse_logit_transform,
    logit_transform,
    squeeze,
    unsqueeze,
)
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

DIGITS = ImageSpec(1, 8, 8, 17)
METHODS = ("uniform", "variational")
SIZES = [("mlp", 1, 1, 4), ("mlp", 2, 1, 4), ("resnet", 1, 1, 4), ("resnet", 3, 1, 8), ("resnet", 2, 3, 4)]

SHORT = {"checkerboard_couplings": 2, "channel_couplings": 2, "final_couplings": 2}
SAMPLED = [({"coupling": "resnet", "scales": 1}, 2, 2), ({"coupling": "mlp", "scales": 2, **SHORT}, 2, 4)]


class Context:
    """A training context that differentiates and does not step."""

    rng = None

    def __init__(self, step: int) -> None:
        self.step = step

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        pass


def build(coupling: str, scales: int, spec: ImageSpec = DIGITS, noise: float = 0.15, **settings: object) -> RealNVP:
    """A float64 model in evaluation mode with every parameter moved off its start, so that no term is trivial."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = RealNVPConfig(coupling=coupling, scales=scales, hidden=8, blocks=2, **settings)
        model = RealNVP(config, spec).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
    return model


def log_det_by_autograd(function: object, x: torch.Tensor) -> torch.Tensor:
    """log |det| of the Jacobian of a map of one image (1, C, H, W)."""
    jacobian = torch.autograd.functional.jacobian(function, x)
    return torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet


def batch_of(levels: torch.Tensor, spec: ImageSpec) -> Batch:
    return Batch(images=from_levels(levels, spec.levels), index=torch.arange(len(levels)))


def random_batch(n: int, spec: ImageSpec = DIGITS) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return batch_of(torch.randint(spec.levels, (n, *spec.shape), generator=generator), spec)


@pytest.mark.parametrize(("coupling", "scales", "channels", "side"), SIZES)
def test_every_layer_inverts_and_its_log_det_is_autograds(coupling: str, scales: int, channels: int, side: int) -> None:
    model = build(coupling, scales, ImageSpec(channels, side, side, 17))
    groups = [*model.flow.checkerboard, *model.flow.channelwise]
    shapes = [(channels * 2**i, side // 2**i, side // 2**i) for i in range(scales)]
    shapes += [(channels * 2 ** (i + 2), side // 2 ** (i + 1), side // 2 ** (i + 1)) for i in range(scales - 1)]
    for group, shape in zip(groups, shapes, strict=True):
        for layer in group:
            x = torch.randn(1, *shape, dtype=torch.float64)
            y, log_det = layer(x)
            assert not torch.equal(x, y)
            assert torch.allclose(layer.inverse(y), x, atol=1e-9, rtol=0)
            assert log_det.item() == pytest.approx(log_det_by_autograd(lambda v, f=layer: f(v)[0], x).item(), abs=1e-9)


@pytest.mark.parametrize(("coupling", "scales", "channels", "side"), SIZES)
def test_whole_flow_inverts_and_its_log_det_is_autograds(coupling: str, scales: int, channels: int, side: int) -> None:
    model = build(coupling, scales, ImageSpec(channels, side, side, 17))
    x = 2 * torch.randn(3, channels, side, side, dtype=torch.float64)
    z, log_det = model.flow(x)
    assert z.shape == (3, channels * side**2)
    assert torch.allclose(model.flow(z, inverse=True)[0], x, atol=1e-9, rtol=0)
    expected = torch.stack([log_det_by_autograd(lambda v: model.flow(v)[0], image[None]) for image in x])
    assert torch.allclose(log_det, expected, atol=1e-9, rtol=0)


def test_couplings_leave_what_they_condition_on_and_together_change_all() -> None:
    model = build("resnet", 2)
    for group, shape in ((model.flow.checkerboard[0], (1, 8, 8)), (model.flow.channelwise[0], (4, 4, 4))):
        couplings = [layer for layer in group if isinstance(layer, Coupling)]
        x = torch.randn(1, *shape, dtype=torch.float64)
        moved = [layer(x)[0] != x for layer in couplings[:2]]
        assert torch.equal(moved[0], ~moved[1])
        assert moved[0].sum() == moved[1].sum()


def test_squeeze_moves_blocks_to_channels_and_back() -> None:
    x = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6).float()
    y = squeeze(x)
    assert y.shape == (2, 12, 2, 3)
    assert torch.equal(y[0, :4, 0, 0], x[0, 0, :2, :2].flatten())
    assert torch.equal(unsqueeze(y), x)


@pytest.mark.parametrize("alpha", [0.05, 1e-6])
def test_logit_transform_inverts_and_counts_its_jacobian(alpha: float) -> None:
    y = torch.rand(1, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, log_det = logit_transform(y, alpha)
    assert torch.allclose(inverse_logit_transform(x, alpha), y, atol=1e-9, rtol=0)
    expected = log_det_by_autograd(lambda v: logit_transform(v, alpha)[0], y)
    assert log_det.item() == pytest.approx(expected.item(), abs=1e-9)
    assert logit_transform(torch.tensor([[0.0]]), 0.05)[0].item() == pytest.approx(math.log(0.05 / 0.95), rel=1e-5)


def test_density_of_a_flow_on_two_pixels_integrates_to_one() -> None:
    model = build("mlp", 1, ImageSpec(1, 1, 2, 17), noise=0.3, final_couplings=4)
    side = torch.linspace(-14, 14, 561, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side).view(-1, 1, 1, 2)
    with torch.no_grad():
        z, log_det = model.flow(grid)
    log_p = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1) + log_det
    mass = log_p.exp().sum().item() * (side[1] - side[0]).item() ** 2
    assert mass == pytest.approx(1.0, abs=2e-3)


def test_image_density_and_bound_agree_with_cell_by_cell_integration() -> None:
    """P(k) is the integral of p(y) over the bin of k: the bins hold the share of samples in range; bounds lie below."""
    spec = ImageSpec(1, 1, 2, 4)
    model = build("mlp", 1, spec, noise=0.3, final_couplings=4, likelihood_draws=200)
    cells = 30
    middle = (torch.arange(4 * cells, dtype=torch.float64) + 0.5) / (4 * cells)
    with torch.no_grad():
        density = model.log_density(torch.cartesian_prod(middle, middle).view(-1, 1, 1, 2)).exp()
    log_p = (density.view(4, cells, 4, cells).sum((1, 3)) / (4 * cells) ** 2).log().flatten()
    z = torch.randn(20000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        drawn = inverse_logit_transform(model.flow(z, inverse=True)[0], model.settings.alpha).flatten(1)
    inside = ((drawn >= 0) & (drawn < 1)).all(1).double().mean()
    assert log_p.exp().sum().item() == pytest.approx(inside.item(), abs=0.01)

    levels = torch.cartesian_prod(torch.arange(4), torch.arange(4)).view(-1, 1, 1, 2)
    batch = batch_of(levels, spec)
    bound = model.log_likelihood(batch, NoiseSource(0, batch.index), "dequantised")
    tight = model.log_likelihood(batch, NoiseSource(0, batch.index), "dequantised-iw-200")
    assert bound.kind == tight.kind == "lower_bound"
    assert (bound.nats < tight.nats).all()
    assert (bound.nats < log_p + 3 * bound.standard_error).all()
    assert ((tight.nats - log_p).abs() < 4 * tight.standard_error + 2e-3).all()


def test_identity_flow_has_the_bits_of_its_known_base() -> None:
    """With the identity, p(y) = prod N(x(y)) |dx/dy|; at alpha near 1/2 that is a constant times uniform."""
    alpha = 0.499999
    spec = ImageSpec(1, 2, 2, 17)
    config = RealNVPConfig(coupling="mlp", scales=1, hidden=4, alpha=alpha)
    model = RealNVP(config, spec).double().eval()
    batch = random_batch(5, spec)
    nats = model.log_likelihood(batch, NoiseSource(0, batch.index), "dequantised").nats
    slope = 4 * (1 - 2 * alpha)
    per_dim = -0.5 * math.log(2 * math.pi) + math.log(slope) - math.log(17)
    assert torch.allclose(nats, torch.full((5,), 4 * per_dim, dtype=torch.float64), atol=1e-4, rtol=0)


def test_standard_error_is_the_spread_of_the_estimate() -> None:
    model = build("mlp", 1, likelihood_draws=8, final_couplings=2)
    batch = random_batch(20)
    runs = [model.log_likelihood(batch, NoiseSource(s, batch.index), "dequantised") for s in range(40)]
    spread = torch.stack([r.nats for r in runs]).std(0).mean()
    claimed = torch.stack([r.standard_error for r in runs]).square().mean().sqrt()
    assert (spread / claimed).item() == pytest.approx(1.0, abs=0.15)


def test_bounds_are_the_mean_and_the_log_mean_of_the_draws() -> None:
    model, batch = build("mlp", 1, likelihood_draws=5).float(), random_batch(6)
    noise = NoiseSource(7, batch.index)
    with torch.no_grad():
        draws = [model.dequantised_log_prob(batch.images, noise.uniform(DIGITS.shape)).double() for _ in range(5)]
        middle = model.dequantised_log_prob(batch.images, torch.full(batch.images.shape, 0.5))
        y = (to_levels(batch.images, 17) + 0.5) / 17
        assert torch.allclose(middle, model.log_density(y) - 64 * math.log(17), atol=1e-4)
    log_w = torch.stack(draws)
    for estimator, expected in (("dequantised", log_w.mean(0)), ("dequantised-iw-5", log_w.exp().mean(0).log())):
        found = model.log_likelihood(batch, NoiseSource(7, batch.index), estimator)
        assert torch.allclose(found.nats, expected, atol=1e-9, rtol=0)
        assert found.estimator == estimator


def test_a_learned_dequantiser_starts_as_the_uniform_one_and_counts_its_density() -> None:
    batch, spec = random_batch(6), DIGITS
    uniform, learned = (RealNVP(RealNVPConfig(coupling="mlp", hidden=8, dequantisation=d), spec) for d in METHODS)
    learned.flow.load_state_dict(uniform.flow.state_dict())
    noise = NoiseSource(0, batch.index).uniform(spec.shape)
    with torch.no_grad():
        same = uniform.dequantised_log_prob(batch.images, noise), learned.dequantised_log_prob(batch.images, noise)
        assert torch.allclose(*same, atol=5e-3)
        for parameter in learned.dequantiser.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        u, log_q = learned.dequantiser(to_levels(batch.images, 17), noise)
        expected = uniform.dequantised_log_prob(batch.images, u) - log_q
        assert torch.allclose(learned.dequantised_log_prob(batch.images, noise), expected, atol=5e-3)
        assert log_q.abs().min() > 0.1
    assert learned.likelihood_estimators() == ("dequantised-variational", "dequantised-variational-iw-16")


def test_actnorm_start_gives_unit_variance_and_keeps_the_inverse() -> None:
    for coupling in ("mlp", "resnet"):
        flow = Flow(RealNVPConfig(coupling=coupling, scales=2, hidden=8), (1, 8, 8)).double()
        x = 3 + 5 * torch.randn(100, 1, 8, 8, dtype=torch.float64)
        flow.normalise(x, initialise=True)
        z, _ = flow(x)
        assert z.mean().abs().item() < 0.02
        assert z.std().item() == pytest.approx(1.0, abs=0.02)
        assert torch.allclose(flow(z, inverse=True)[0], x, atol=1e-9, rtol=0)


def test_actnorm_starts_with_unit_population_variance_where_a_dimension_varies() -> None:
    norm = ActNorm((1, 2, 2)).double()
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x[:, 0, 0, 0] = 7.0
    norm.initialise(x)
    std = norm(x)[0].std(0, correction=0).flatten()
    assert torch.allclose(std, torch.tensor([0.0, 1.0, 1.0, 1.0], dtype=torch.float64), atol=1e-4)
    assert norm.log_scale.flatten()[0].item() == 0.0


@pytest.mark.parametrize("coupling", ["mlp", "resnet"])
def test_training_can_start_from_one_image(coupling: str) -> None:
    model = RealNVP(RealNVPConfig(coupling=coupling, scales=2, hidden=8), DIGITS)
    for step in range(3):
        loss = model.update(random_batch(step + 1), Context(step))["bits_per_dim"]
        assert loss.isfinite().item()
    assert all(parameter.isfinite().all() and parameter.grad.isfinite().all() for parameter in model.parameters())
    scales = [layer.log_scale for layer in model.modules() if isinstance(layer, ActNorm)]
    assert max(scale.abs().max().item() for scale in scales) < 10


@pytest.mark.parametrize(("settings", "height", "width"), SAMPLED)
def test_sampling_frequencies_match_the_probabilities(settings: dict[str, object], height: int, width: int) -> None:
    """All binary images of a size; P(k) is the mean of the density over the bin, here on 512 points of it."""
    spec, dims, n = ImageSpec(1, height, width, 2), height * width, 20_000
    model = build(spec=spec, noise=0.1, alpha=1e-4, **settings)
    levels = torch.cartesian_prod(*[torch.arange(2)] * dims).view(-1, 1, *spec.shape)
    u = torch.quasirandom.SobolEngine(dims, scramble=True, seed=0).draw(512, dtype=torch.float64)
    with torch.no_grad():
        density = model.log_density((levels + u.view(-1, *spec.shape)).flatten(0, 1) / 2).exp()
    p = density.view(-1, 512).mean(1) / 2**dims
    assert p.sum().item() == pytest.approx(1.0, abs=0.02)
    drawn = to_levels(model.float().sample(SampleRequest(NoiseSource(0, torch.arange(n)))), 2).flatten(1)
    counts = torch.bincount((drawn * 2 ** torch.arange(dims).flip(0)).sum(1), minlength=2**dims)
    assert p.min().item() * n > 5
    assert chisquare(counts.double().numpy(), (p / p.sum() * n).numpy()).pvalue > 1e-3


def test_decoding_an_images_code_gives_the_image() -> None:
    for coupling, scales in (("mlp", 1), ("resnet", 3)):
        model = build(coupling, scales, noise=0.05).float()
        batch = random_batch(20)
        z = model.encode(batch)
        assert z.shape == (20, *model.latent_shape)
        assert torch.equal(model.decode(z), batch.images)


def test_temperature_scales_the_latents() -> None:
    model = build("mlp", 1).float()

    def sample(temperature: float | None) -> torch.Tensor:
        noise = NoiseSource(0, torch.arange(6))
        return model.sample(SampleRequest(noise, SamplerOptions(temperature=temperature), Condition()))

    z = NoiseSource(0, torch.arange(6)).normal((64,))
    assert torch.equal(sample(None), model.decode(z))
    assert torch.equal(sample(0.5), model.decode(0.5 * z))
    assert to_levels(sample(None), 17).unique().numel() > 5
    assert torch.equal(sample(0.0), model.decode(torch.zeros(6, 64)))
    with pytest.raises(UsageError, match="must not be negative, got -1"):
        sample(-1.0)


def test_bad_settings_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="8 x 8 pixels cannot be halved 3 times"):
        RealNVP(RealNVPConfig(scales=4), DIGITS)
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'dequantized'"):
        build("mlp", 1).log_likelihood(random_batch(1), NoiseSource(0, torch.arange(1)), "dequantized")
    with pytest.raises(UsageError, match="28 x 28 pixels cannot be halved 3 times"):
        RealNVP(RealNVPConfig(scales=4), ImageSpec(1, 28, 28))
