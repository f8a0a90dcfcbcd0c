"""Glow: every layer and the whole flow invert with autograd's log-determinant, densities integrate to one."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from baselines.flow.glow import (
    ActNorm,
    Coupling,
    Flow,
    Glow,
    GlowConfig,
    InvertibleConv,
    NormedConv2d,
    Prior,
    ZeroConv2d,
)
from genbench.api import Batch, Condition, ImageSpec, SampleRequest, SamplerOptions
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

DIGITS = ImageSpec(1, 8, 8, 17, tuple("0123456789"))
TINY = ImageSpec(1, 2, 2, 2)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    """The same random inputs at every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def perturb(module: nn.Module, noise: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(noise * torch.randn_like(parameter))


def build(spec: ImageSpec = DIGITS, noise: float = 0.1, **settings: object) -> Glow:
    """A float64 model in evaluation mode with every parameter moved off its start."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Glow(GlowConfig(**{"scales": 2, "steps": 2, "hidden": 6, **settings}), spec).double().eval()
        perturb(model, noise)
    return model


def log_det_by_autograd(function: object, x: Tensor) -> float:
    """log |det| of the Jacobian of a map of one image (1, C, H, W)."""
    jacobian = torch.autograd.functional.jacobian(function, x)
    return torch.linalg.slogdet(jacobian.reshape(x.numel(), x.numel())).logabsdet.item()


def log_normal(z: Tensor) -> Tensor:
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def batch_of(levels: Tensor, spec: ImageSpec, labels: Tensor | None = None) -> Batch:
    return Batch(images=from_levels(levels, spec.levels), index=torch.arange(len(levels)), labels=labels)


def random_batch(n: int, spec: ImageSpec = DIGITS) -> Batch:
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(spec.levels, (n, *spec.shape), generator=generator)
    return batch_of(levels, spec, torch.arange(n) % max(1, spec.num_classes))


def layer_of(kind: str, channels: int) -> nn.Module:
    layer = {"actnorm": ActNorm, "conv": InvertibleConv, "coupling": lambda c: Coupling(c, 6)}[kind](channels).double()
    perturb(layer, 0.3)
    return layer


@pytest.mark.parametrize("kind", ["actnorm", "conv", "coupling"])
@pytest.mark.parametrize(("channels", "height", "width"), [(2, 3, 2), (4, 2, 2), (12, 1, 2)])
def test_every_layer_inverts_and_its_log_det_is_autograds(kind: str, channels: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    layer, x = layer_of(kind, channels), torch.randn(2, channels, height, width, dtype=torch.float64)
    y, log_det = layer(x)
    assert not torch.equal(x, y)
    assert torch.allclose(layer.inverse(y), x, atol=1e-9, rtol=0)
    for i in range(2):
        expected = log_det_by_autograd(lambda v: layer(v)[0], x[i : i + 1])
        assert log_det[i].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("spec", "scales"), [(DIGITS, 1), (DIGITS, 3), (ImageSpec(3, 4, 8, 256), 2), (ImageSpec(1, 4, 4, 2), 2)]
)
def test_whole_flow_inverts_and_its_log_det_is_autograds(spec: ImageSpec, scales: int) -> None:
    flow = build(spec, scales=scales).flow
    x = torch.randn(2, *spec.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z, log_det = flow(x)
    assert z.shape == (2, spec.dims)
    assert torch.allclose(flow(z, inverse=True)[0], x, atol=1e-8, rtol=0)
    for i in range(2):
        expected = log_det_by_autograd(lambda v: flow(v)[0], x[i : i + 1])
        assert log_det[i].item() == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("side", "scales"), [(8, 3), (28, 2), (32, 3)])
def test_images_of_the_usual_sizes_have_codes(side: int, scales: int) -> None:
    spec = ImageSpec(1, side, side, 256)
    model = build(spec, noise=0.01, scales=scales, alpha=0.01)
    with torch.no_grad():
        y = torch.rand(2, *spec.shape, dtype=torch.float64)
        z, _ = model.flow(model.to_flow(y)[0])
        assert torch.allclose(model.flow(z, inverse=True)[0], model.to_flow(y)[0], atol=1e-8, rtol=0)


def test_a_step_of_flow_on_two_dimensions_integrates_to_one() -> None:
    torch.manual_seed(0)
    layers = [layer_of(kind, 2) for _ in range(3) for kind in ("actnorm", "conv", "coupling")]
    prior = Prior(2).double()
    perturb(prior, 0.2)
    side = torch.linspace(-25, 25, 401, dtype=torch.float64)
    with torch.no_grad():
        x = torch.cartesian_prod(side, side).view(-1, 2, 1, 1)
        log_det = torch.zeros(len(x), dtype=torch.float64)
        for layer in layers:
            x, change = layer(x)
            log_det = log_det + change
        z, change = prior(x, torch.zeros_like(x))
        log_p = log_normal(z) + log_det + change
    assert log_p.exp().sum().item() * (side[1] - side[0]).item() ** 2 == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("settings", [{}, {"class_conditional": True}])
def test_the_model_on_four_dimensions_integrates_to_one(settings: dict) -> None:
    """By importance sampling from a wide normal distribution."""
    spec = ImageSpec(1, 2, 2, 17, ("a", "b", "c"))
    model = build(spec, noise=0.15, scales=1, **settings)
    x = 0.5 + 4 * torch.randn(40000, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        log_ratio = model.log_density(x) - (log_normal((x - 0.5) / 4) - 4 * math.log(4))
    ratio = log_ratio.exp()
    error = ratio.std().item() / math.sqrt(len(x))
    assert error < 0.04
    assert ratio.mean().item() == pytest.approx(1.0, abs=4 * error)


def test_actnorms_start_with_zero_mean_and_unit_variance() -> None:
    """Every actnorm of the flow and of the networks inside the couplings, on the batch that starts them."""
    torch.manual_seed(0)
    flow = Flow(GlowConfig(scales=2, steps=2, hidden=8), DIGITS).double()
    x = 3 + 5 * torch.randn(50, 1, 8, 8, dtype=torch.float64)
    flow.initialise(x)
    seen = []

    def check(_: nn.Module, __: object, output: Tensor | tuple[Tensor, Tensor]) -> None:
        y = output[0] if isinstance(output, tuple) else output
        seen.append((y.mean((0, 2, 3)).abs().max().item(), (y.std((0, 2, 3), correction=0) - 1).abs().max().item()))

    for module in flow.modules():
        if isinstance(module, NormedConv2d | ActNorm):
            module.register_forward_hook(check)
    z, _ = flow(x)
    assert len(seen) == 2 * 2 * 3
    assert max(mean for mean, _ in seen) < 1e-6
    assert max(spread for _, spread in seen) < 1e-4
    assert z.std().item() == pytest.approx(1.0, abs=0.15)


class Context:
    """The part of a training context that `update` uses."""

    step, progress, device = 0, 0.0, torch.device("cpu")

    def __init__(self) -> None:
        self.rng = torch.Generator().manual_seed(0)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        assert name == "flow"


def test_the_data_dependent_start_happens_once_and_is_saved() -> None:
    model = Glow(GlowConfig(scales=1, steps=1, hidden=4), DIGITS)
    first = model.flow.scales[0][0]
    model.update(random_batch(20), Context())
    started = first.mean.clone()
    assert started.abs().min().item() > 0
    again = Glow(GlowConfig(scales=1, steps=1, hidden=4), DIGITS)
    assert not again.flow.initialised
    again.load_state_dict(model.state_dict())
    assert again.flow.initialised
    other = batch_of(torch.zeros(20, *DIGITS.shape, dtype=torch.int64), DIGITS)
    for trained in (model, again):
        trained.update(other, Context())
        assert torch.equal(trained.flow.scales[0][0].mean, started)


def test_the_convolution_is_the_lu_form_of_a_rotation() -> None:
    torch.manual_seed(0)
    conv = InvertibleConv(6).double()
    lower, upper = conv.factors()
    weight = lower @ upper
    assert torch.allclose(weight @ weight.T, torch.eye(6, dtype=torch.float64), atol=1e-6)
    assert conv.log_s.sum().item() == pytest.approx(0.0, abs=1e-6)
    perturb(conv, 0.5)
    lower, upper = conv.factors()
    assert torch.equal(upper, upper.triu())
    unit = conv.permutation.T @ lower
    assert torch.equal(unit, unit.tril())
    assert torch.equal(unit.diagonal(), torch.ones(6, dtype=torch.float64))
    found = torch.linalg.slogdet(lower @ upper)
    assert found.logabsdet.item() == pytest.approx(conv.log_s.sum().item(), abs=1e-9)
    assert found.sign.item() == torch.linalg.det(weight).sign().item()
    x = torch.randn(1, 6, 2, 3, dtype=torch.float64)
    assert torch.allclose(conv(x)[0], torch.einsum("oc,bchw->bohw", lower @ upper, x))


def test_the_start_is_a_contraction_by_sigmoid_two() -> None:
    torch.manual_seed(0)
    coupling, x = Coupling(4, 8), torch.randn(2, 4, 3, 3)
    y, log_det = coupling(x)
    assert torch.equal(y[:, :2], x[:, :2])
    assert torch.allclose(y[:, 2:], x[:, 2:] * 0.8807971)
    assert torch.allclose(log_det, torch.full((2,), 18 * math.log(0.8807971)))


def test_the_scale_of_a_zero_convolution_counts_three_times() -> None:
    conv = ZeroConv2d(2, 3)
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(conv(x), torch.zeros(1, 3, 4, 4))
    perturb(conv, 1.0)
    plain = nn.functional.conv2d(x, conv.weight, conv.bias, padding=1)
    assert torch.allclose(conv(x), plain * torch.exp(3 * conv.log_scale), atol=1e-5)


def test_factored_out_latents_are_standardised_by_their_priors() -> None:
    """The log-density is that of the layers with learned normal distributions, written out."""
    model = build()
    y = torch.rand(3, *DIGITS.shape, dtype=torch.float64)
    x, expected = y - 0.5, torch.zeros(3, dtype=torch.float64)
    for i, (layers, prior) in enumerate(zip(model.flow.scales, model.flow.priors, strict=True)):
        x = nn.functional.pixel_unshuffle(x, 2)
        for layer in layers:
            x, change = layer(x)
            expected = expected + change
        kept, h = x.chunk(2, dim=1) if i == 0 else (torch.zeros_like(x), x)
        mu, log_sigma = prior.conv(kept).chunk(2, dim=1)
        assert mu.abs().max().item() > 0.01
        expected = expected + torch.distributions.Normal(mu, log_sigma.exp()).log_prob(h).flatten(1).sum(1)
        x = kept
    assert torch.allclose(model.log_density(y), expected, atol=1e-9, rtol=0)


def test_log_p_of_own_samples_is_by_change_of_variables() -> None:
    """log p(x) = log N(z) - log |det dx/dz| with the sampler's own Jacobian."""
    model = build(ImageSpec(1, 4, 4, 17), alpha=0.05)
    z = torch.randn(4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for code in z:
        x = model.flow(code[None], inverse=True)[0]
        y = (torch.sigmoid(x) - 0.05) / 0.9
        expected = log_normal(code[None]).item() - log_det_by_autograd(
            lambda v: (torch.sigmoid(model.flow(v, inverse=True)[0]) - 0.05) / 0.9, code[None]
        )
        assert model.log_density(y).item() == pytest.approx(expected, abs=1e-7)


def all_tiny_images() -> Tensor:
    return torch.cartesian_prod(*[torch.arange(2)] * 4).view(-1, 1, 2, 2)


def test_sampling_frequencies_match_the_probabilities() -> None:
    """All sixteen binary 2 x 2 images; P(k) is the mean of the density over the bin, here on 4000 points of it."""
    model = build(TINY, noise=0.15, scales=1, alpha=1e-4).float()
    levels, draws, n = all_tiny_images(), 4000, 4000
    noise = torch.rand(16 * draws, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        p = model.dequantised_log_prob(batch_of(levels.repeat_interleave(draws, 0), TINY), noise).exp()
    p = p.double().view(16, draws).mean(1)
    assert p.sum().item() == pytest.approx(1.0, abs=0.02)
    drawn = to_levels(model.sample(SampleRequest(NoiseSource(0, torch.arange(n)))), 2).flatten(1)
    counts = torch.bincount((drawn * torch.tensor([8, 4, 2, 1])).sum(1), minlength=16)
    assert chisquare(counts.double().numpy(), (p / p.sum() * n).numpy()).pvalue > 1e-3


def test_both_dequantisers_find_the_same_probabilities() -> None:
    """One density; the importance-weighted bounds meet, the variational one from another mean."""
    draws = 150
    settings = {"scales": 1, "steps": 1, "alpha": 1e-2, "likelihood_draws": draws}
    uniform = build(TINY, **settings).float()
    variational = build(TINY, dequantisation="variational", **settings).float()
    variational.flow.load_state_dict(uniform.flow.state_dict())
    batch = batch_of(all_tiny_images(), TINY)
    found = []
    for model in (uniform, variational):
        mean, weighted = model.likelihood_estimators()
        bounds = [model.log_likelihood(batch, NoiseSource(0, batch.index), name) for name in (mean, weighted)]
        assert (bounds[0].nats < bounds[1].nats).all()
        found.append(bounds)
    (_, a), (_, b) = found
    assert ((a.nats - b.nats).abs() < 4 * torch.hypot(a.standard_error, b.standard_error)).all()
    assert (found[0][0].nats - found[1][0].nats).abs().max().item() > 0.05


def test_the_variational_bound_counts_the_dequantisers_density() -> None:
    model = build(dequantisation="variational", likelihood_draws=2).float()
    assert model.likelihood_estimators() == ("dequantised-variational", "dequantised-variational-iw-2")
    batch = random_batch(4)
    noise = NoiseSource(0, batch.index).uniform(DIGITS.shape)
    u, log_q = model.dequantiser(to_levels(batch.images, 17), noise)
    by_hand = model.log_density((to_levels(batch.images, 17) + u) / 17) - log_q - 64 * math.log(17)
    assert log_q.abs().min().item() > 0.1
    assert torch.allclose(model.dequantised_log_prob(batch, noise), by_hand, atol=1e-3)
    loss = -model.dequantised_log_prob(batch, noise).mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.dequantiser.parameters())


def test_class_conditional_densities_mix_to_the_unconditional_one() -> None:
    model = build(noise=0.2, class_conditional=True)
    assert model.conditions == {"labels"}
    y = torch.rand(3, *DIGITS.shape, dtype=torch.float64)
    of_classes = torch.stack([model.log_density(y, torch.full((3,), c)) for c in range(10)])
    assert of_classes.std(0).min().item() > 0.1
    assert torch.allclose(model.log_density(y), of_classes.logsumexp(0) - math.log(10), atol=1e-9)
    (mu, log_sigma), z = model.flow.class_moments(), model.flow(y - 0.5)[0]
    dims = mu.shape[1]
    by_hand = torch.distributions.Normal(mu[4], log_sigma[4].exp()).log_prob(z[:, -dims:]).sum(1)
    expected = log_normal(z[:, :-dims]) + by_hand + model.flow(y - 0.5)[1]
    assert torch.allclose(of_classes[4], expected, atol=1e-9)


def test_samples_are_of_the_class_asked_for() -> None:
    """Codes of samples of a class lie about its mean, and the labels' order does not matter."""
    model = build(noise=0.05, class_conditional=True, alpha=0.05).float()
    with torch.no_grad():
        model.flow.class_table[:, 0] = torch.arange(10.0)[:, None] - 4.5
        model.flow.class_table[:, 1] = -3.0
    labels = torch.tensor([0, 9, 3, 3])
    noise = NoiseSource(0, torch.arange(4))
    images = model.sample(SampleRequest(noise, SamplerOptions(), Condition(labels=labels)))
    z = NoiseSource(0, torch.arange(4)).normal((64,))
    dims = math.prod(model.flow.latent_shapes[-1])
    z[:, -dims:] = labels[:, None] - 4.5 + math.exp(-3.0) * z[:, -dims:]
    assert torch.equal(images, model.decode(z))
    assert model.sample(SampleRequest(NoiseSource(0, torch.arange(4)))).shape == (4, 1, 8, 8)


@pytest.mark.parametrize(("scales", "alpha"), [(1, None), (2, 0.05), (3, 0.01)])
def test_decoding_an_images_code_gives_the_image(scales: int, alpha: float | None) -> None:
    model, batch = build(noise=0.02, scales=scales, alpha=alpha).float(), random_batch(20)
    z = model.encode(batch)
    assert z.shape == (20, *model.latent_shape)
    assert torch.equal(model.decode(z), batch.images)


def test_temperature_scales_the_latents() -> None:
    model = build(alpha=0.05).float()
    z = NoiseSource(0, torch.arange(6)).normal((64,))

    def sample(temperature: float | None) -> Tensor:
        noise = NoiseSource(0, torch.arange(6))
        return model.sample(SampleRequest(noise, SamplerOptions(temperature=temperature), Condition()))

    assert torch.equal(sample(None), model.decode(z))
    assert torch.equal(sample(0.7), model.decode(0.7 * z))
    with pytest.raises(UsageError, match="must not be negative, got -1"):
        sample(-1.0)


def test_bad_settings_say_what_to_do() -> None:
    with pytest.raises(UsageError, match="28 x 28 pixels cannot be halved 3 times; set scales"):
        Glow(GlowConfig(scales=3), ImageSpec(1, 28, 28, 256))
    with pytest.raises(UsageError, match="class_conditional needs images with classes"):
        Glow(GlowConfig(scales=1, class_conditional=True), ImageSpec(1, 8, 8, 17))
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'dequantised-iw-5'"):
        build(likelihood_draws=4).float().log_likelihood(
            random_batch(1), NoiseSource(0, torch.arange(1)), "dequantised-iw-5"
        )
