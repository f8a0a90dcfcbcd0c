"""DCGAN: the four losses against their formulas, the optimal discriminator, shapes and evaluation mode."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import nn

from baselines.gan.dcgan import DCGAN, DCGANConfig, Loss, calibrate, discriminator_loss, generator_loss
from genbench.api import Batch, ImageSpec, SampleRequest
from genbench.errors import UsageError
from genbench.noise import NoiseSource

LOSSES = get_args(Loss)


def sp(t: float) -> float:
    return math.log1p(math.exp(t))


def small(side: int = 8, channels: int = 1, resolutions: int = 2) -> DCGAN:
    torch.manual_seed(0)
    config = DCGANConfig(
        latent_dim=6, resolutions=resolutions, generator_width=4, discriminator_width=4, calibration_size=64
    )
    return DCGAN(config, ImageSpec(channels, side, side, 17))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("minimax", (sp(0.5) + sp(-2.0)) / 2 + (sp(0.3) + sp(-1.5)) / 2),
        ("non_saturating", (sp(0.5) + sp(-2.0)) / 2 + (sp(0.3) + sp(-1.5)) / 2),
        ("least_squares", (1.5**2 + 1.0**2) / 4 + (0.3**2 + 1.5**2) / 4),
        ("hinge", (1.5 + 0.0) / 2 + (1.3 + 0.0) / 2),
    ],
)
def test_discriminator_losses(loss: Loss, expected: float) -> None:
    value = discriminator_loss(loss, torch.tensor([-0.5, 2.0]), torch.tensor([0.3, -1.5]))
    assert float(value) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("minimax", -(sp(0.3) + sp(-1.5)) / 2),
        ("non_saturating", (sp(-0.3) + sp(1.5)) / 2),
        ("least_squares", (0.7**2 + 2.5**2) / 4),
        ("hinge", 0.6),
    ],
)
def test_generator_losses(loss: Loss, expected: float) -> None:
    assert float(generator_loss(loss, torch.tensor([0.3, -1.5]))) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "logit", "slope"),
    [
        ("minimax", 0.0, -0.5),
        ("non_saturating", 0.0, -0.5),
        ("least_squares", 0.0, -1.0),
        ("hinge", 0.0, -1.0),
        ("minimax", -8.0, -1 / (1 + math.exp(8.0))),
        ("non_saturating", -8.0, -1 / (1 + math.exp(-8.0))),
        ("hinge", -8.0, -1.0),
    ],
)
def test_generator_gradient_per_logit(loss: Loss, logit: float, slope: float) -> None:
    """All push the logit up; a confident discriminator leaves minimax almost no gradient (saturation)."""
    logits = torch.full((4,), logit, requires_grad=True)
    (gradient,) = torch.autograd.grad(generator_loss(loss, logits), logits)
    assert (4 * gradient).tolist() == pytest.approx([slope] * 4, rel=1e-4)


P, Q = torch.tensor([0.5, 0.3, 0.15, 0.05]), torch.tensor([0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("loss", "optimum"),
    [
        ("minimax", torch.log(P / Q)),
        ("non_saturating", torch.log(P / Q)),
        ("least_squares", P / (P + Q)),
        ("hinge", torch.sign(P - Q)),
    ],
)
def test_optimal_discriminator_on_a_discrete_space(loss: Loss, optimum: torch.Tensor) -> None:
    """Counts of a thousand draws stand for the expectations under p and q; the losses are convex in the logits."""
    logits = torch.zeros(4, requires_grad=True)
    counts_p, counts_q = (1000 * P).round().long(), (1000 * Q).round().long()
    for _ in range(3000):
        loss_value = discriminator_loss(loss, logits.repeat_interleave(counts_p), logits.repeat_interleave(counts_q))
        (gradient,) = torch.autograd.grad(loss_value, logits)
        logits.data -= (0.01 if loss == "hinge" else 1.0) * gradient
    assert torch.allclose(logits, optimum, atol=0.02)


def test_minimax_value_at_the_optimum_is_the_jensen_shannon_divergence() -> None:
    logits = torch.log(P / Q)
    counts_p, counts_q = (1000 * P).round().long(), (1000 * Q).round().long()
    value = discriminator_loss("minimax", logits.repeat_interleave(counts_p), logits.repeat_interleave(counts_q))
    m = (P + Q) / 2
    jensen_shannon = 0.5 * (P * torch.log(P / m)).sum() + 0.5 * (Q * torch.log(Q / m)).sum()
    assert float(value) == pytest.approx(float(2 * math.log(2) - 2 * jensen_shannon), abs=1e-5)


@pytest.mark.parametrize(
    ("side", "channels", "resolutions", "maps"),
    [(8, 1, 2, [2, 4, 8]), (28, 1, 2, [7, 14, 28]), (32, 3, 3, [4, 8, 16, 32])],
)
def test_resolutions_double_up_to_the_image(side: int, channels: int, resolutions: int, maps: list[int]) -> None:
    model = small(side, channels, resolutions)
    seen: list[int] = []
    for layer in model.generator:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda _layer, _inputs, out: seen.append(out.shape[-1]))
    images = model.generator(torch.randn(5, 6))
    assert images.shape == (5, channels, side, side)
    assert seen == maps
    assert model.discriminator(images).shape == (5,)


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(UsageError, match="resolutions = 3"):
        small(28, 1, 3)


def test_calibration_gives_the_statistics_of_the_given_latents() -> None:
    """After calibration, evaluation mode on the calibration batch equals training mode on it, but for n / (n - 1)."""
    model = small()
    z = model.calibration_z
    model.eval()
    calibrate(model.generator, z)
    assert not model.generator.training
    first = next(m for m in model.generator if isinstance(m, nn.BatchNorm2d))
    hidden = model.generator[1](model.generator[0](z))
    assert first.running_mean is not None
    assert first.running_var is not None
    assert torch.allclose(first.running_mean, hidden.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(first.running_var, hidden.var((0, 2, 3)), rtol=1e-5)
    assert first.momentum == 0.1


def test_calibration_follows_the_weights() -> None:
    """Scaling the weights before a batch normalisation changes nothing once its statistics are those of the weights."""
    model, z = small().eval(), torch.randn(9, 6)
    scale_weights(model, 100.0)
    calibrate(model.generator, model.calibration_z)
    before = model.generator(z)
    scale_weights(model, 3.0)
    assert not torch.allclose(model.generator(z), before, atol=1e-2)
    calibrate(model.generator, model.calibration_z)
    assert torch.allclose(model.generator(z), before, atol=1e-4)


@torch.no_grad()
def scale_weights(model: DCGAN, factor: float) -> None:
    """Scale the weights of the transposed convolutions that batch normalisation follows."""
    for layer, following in itertools.pairwise(model.generator):
        if isinstance(following, nn.BatchNorm2d):
            layer.weight.mul_(factor)


def test_evaluation_does_not_depend_on_the_batch() -> None:
    model = small().eval()
    calibrate(model.generator, model.calibration_z)
    whole = model.sample(SampleRequest(NoiseSource(5, torch.arange(64))))
    pieces = [model.sample(SampleRequest(NoiseSource(5, torch.arange(64)[s : s + 7]))) for s in range(0, 64, 7)]
    assert torch.equal(whole, torch.cat(pieces))
    assert len(whole.unique()) > 2


def test_initial_weights() -> None:
    model = DCGAN(DCGANConfig(), ImageSpec(3, 32, 32))
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(weights) == 6
    assert float(torch.cat([w.detach().flatten() for w in weights]).std()) == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_generator_step_leaves_the_discriminator_alone(loss: Loss) -> None:
    """The generator's loss must not leave gradients that the discriminator's next step would add to its own."""
    torch.manual_seed(0)
    config = DCGANConfig(loss=loss, latent_dim=6, generator_width=4, discriminator_width=4, calibration_size=8)
    model = DCGAN(config, ImageSpec(1, 8, 8, 17))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.update(_batch(16), _Context(model))
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"generator", "discriminator"}


def _batch(size: int) -> Batch:
    images = torch.randint(0, 256, (size, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return Batch(images=images, index=torch.arange(size))


class _Context:
    """A minimal `TrainContext`: no schedule, no clipping."""

    def __init__(self, model: DCGAN) -> None:
        self.step, self.progress, self.device = 0, 0.0, torch.device("cpu")
        self.rng = torch.Generator().manual_seed(0)
        self.optimizers = model.optimizers()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        self.optimizers[name].step()
        self.optimizers[name].zero_grad(set_to_none=True)
