"""The beta-VAE's two objectives, their known optimum, and its evaluation as a plain VAE."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from baselines.latent.beta_vae import BetaVAE, BetaVAEConfig
from baselines.latent.vae import VAE, VAEConfig
from genbench.api import Batch, ImageSpec
from genbench.errors import UsageError
from genbench.images import from_levels, levels_to_float, to_levels
from genbench.noise import NoiseSource
from genbench.recipe import build_config

SPEC = ImageSpec(1, 2, 2, levels=17)
SIGMA2 = 0.3
W = torch.tensor([[0.9], [0.7], [0.4], [-0.5]])


class Gaussian:
    """A density of x in [-1, 1], so that the best q is known."""

    parameters = 1

    def image_log_prob(self, output: Tensor, levels: Tensor) -> Tensor:
        x = levels_to_float(levels, SPEC.levels)
        return -0.5 * ((x - output[..., 0]) ** 2 / SIGMA2 + math.log(2 * math.pi * SIGMA2)).flatten(-3).sum(-1)


class FreePosterior(nn.Module):
    """The same mean and log-variance for every image, as parameters."""

    def __init__(self, mu: float, logvar: float) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.tensor([[mu, logvar]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.both.expand(len(x), -1)


def build(model: type[VAE] = BetaVAE, **settings: object) -> VAE:
    torch.manual_seed(0)
    config = {"architecture": "mlp", "decoder": "categorical", "latent_dim": 2, "widths": (8,), **settings}
    return model(model.Config(**config), SPEC).eval()


def images(count: int = 5) -> Batch:
    levels = torch.randint(17, (count, *SPEC.shape), generator=torch.Generator().manual_seed(0))
    return Batch(from_levels(levels, 17), torch.arange(count))


@pytest.mark.parametrize("beta", [0.5, 1.0, 4.0])
def test_the_best_posterior_tempers_the_likelihood_by_beta(beta: float) -> None:
    """argmin_q E_q[-log p(x | z)] + beta KL(q || p) is proportional to p(z) p(x | z)^(1 / beta).

    Two draws, eps = -1 and 1, average a quadratic as a standard normal does, so the gradient is zero to rounding.
    """
    x = images(1)
    precision = 1 + float((W**2).sum()) / (SIGMA2 * beta)
    inner = float((levels_to_float(to_levels(x.images, 17), 17).flatten() @ W).sum())
    mu, logvar = inner / (SIGMA2 * beta) / precision, -math.log(precision)
    model = build(latent_dim=1, beta=beta)
    model.observation, model.encoder = Gaussian(), FreePosterior(mu, logvar)
    model.decoder = nn.Linear(1, 4, bias=False)
    model.decoder.weight.data = W.clone()
    both = Batch(x.images.expand(2, -1, -1, -1), torch.arange(2))

    def gradient() -> Tensor:
        distortion, kl = model.distortion_and_kl(both.images, torch.tensor([[-1.0], [1.0]]))
        (slope,) = torch.autograd.grad(model.loss(distortion, kl, 1.0).mean(), model.encoder.both)
        return slope

    assert gradient().abs().max() < 1e-5
    model.encoder.both.data += 0.05
    assert gradient().abs().max() > 1e-2


def test_beta_of_one_is_the_vae() -> None:
    distortion, kl = torch.tensor([70.0, 90.0]), torch.tensor([9.0, 3.0])
    assert torch.equal(build(beta=1.0).loss(distortion, kl, 0.0), distortion + kl)
    assert torch.equal(build(beta=4.0).loss(distortion, kl, 0.0), distortion + 4 * kl)
    warmed = build(beta=4.0, kl_warmup=0.5)
    assert torch.equal(warmed.loss(distortion, kl, 0.25), distortion + 2 * kl)
    assert torch.equal(warmed.loss(distortion, kl, 0.75), distortion + 4 * kl)


def test_capacity_grows_in_a_line_and_is_held_from_both_sides() -> None:
    model = build(objective="capacity", gamma=10.0, max_capacity=8.0, capacity_share=0.5)
    distortion, kl = torch.tensor([70.0, 90.0, 50.0]), torch.tensor([9.0, 3.0, 8.0])
    for progress, capacity in ((0.0, 0.0), (0.25, 4.0), (0.5, 8.0), (1.0, 8.0)):
        expected = distortion + 10 * torch.tensor([abs(9.0 - capacity), abs(3.0 - capacity), abs(8.0 - capacity)])
        torch.testing.assert_close(model.loss(distortion, kl, progress), expected)


@pytest.mark.parametrize("settings", [{"beta": 6.0}, {"objective": "capacity", "max_capacity": 3.0}])
def test_evaluated_as_the_vae_with_the_same_weights(settings: dict) -> None:
    model, plain = build(**settings), build(VAE)
    assert isinstance(plain.config, VAEConfig)
    batch = images()
    assert model.likelihood_estimators() == ("iwae-500", "elbo")
    for estimator in ("elbo", "iwae-20"):
        found, expected = (
            m.log_likelihood(batch, NoiseSource(0, batch.index, "likelihood"), estimator) for m in (model, plain)
        )
        assert torch.equal(found.nats, expected.nats)
        assert found.kind == "lower_bound"


def test_validation_is_the_final_objective() -> None:
    batch = images()
    model = build(beta=3.0, kl_warmup=0.9)
    eps = NoiseSource(0, batch.index).normal((2,))
    with torch.no_grad():
        distortion, kl = model.distortion_and_kl(batch.images, eps)
    assert kl.min() > 0.01
    torch.testing.assert_close(model.validate(batch, NoiseSource(0, batch.index)), distortion + 3 * kl)


def test_unknown_objective_is_refused() -> None:
    with pytest.raises(UsageError, match="objective"):
        build_config(BetaVAE, {"objective": "gamma"})
    with pytest.raises(UsageError, match="Did you mean 'max_capacity'"):
        build_config(BetaVAE, {"max_capacit": 3.0})
    assert BetaVAEConfig().kl_warmup == 0.0
