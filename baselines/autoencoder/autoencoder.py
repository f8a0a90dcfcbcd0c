"""Deep autoencoder, with a density of its codes found beside the training so that it can be sampled.

Papers: Hinton and Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks", Science 313, 2006 (the
autoencoder); Ghosh, Sajjadi, Vergari, Black and Schoelkopf, "From Variational to Deterministic Autoencoders", ICLR
2020 (RAE-L2: the penalty on the codes, the decay of weights, the ex-post density).

    loss = ||x - g(f(x))||^2 + beta / 2 ||f(x)||^2

An autoencoder is no generative model: nothing in it says which codes occur. `sample` draws codes from a mixture of
`components` Gaussians fitted to the training codes z = f(x) and decodes them, and the samples are as good as that fit.
There is no likelihood: g(z) is an image, not a distribution of images.

Latents for `encode` and `decode` are whitened codes, L^-1 (z - m) with m and L L^T the mean and covariance of the
training codes: a standard normal latent is a draw from the single Gaussian of these moments, which is the mixture for
`components = 1`.

The fit goes along with the training, in buffers, by stepwise expectation maximisation (Cappe and Moulines, "On-line
expectation-maximization algorithm for latent data models", J. R. Statist. Soc. B 71, 2009): with r the
responsibilities of the mixture so far for the codes of a batch, sums of r, r z and r z z^T move towards the batch's by
a share eta. It so follows the encoder, and every checkpoint holds a density of its own. The mean and covariance of all
codes do not depend on r, so the whitening is that of running moments whatever the mixture.

Reference code: https://github.com/ParthaEth/Regularized_autoencoders-RAE- (penalty, decay, ten full-covariance
Gaussians).

Deviations:
- No greedy pretraining by RBMs; ReLU or SiLU units; squared error for all images, and linear outputs, clipped.
- RAE-L2 has an L2 term on the decoder's weights alone; `weight_decay` is AdamW's, of both networks.
- Stepwise instead of batch EM on the final codes; no averaged weights, whose codes the fit would not have seen.
- Convolutions: strided 4 x 4 halvings as in Ghosh et al., but group normalisation instead of batch normalisation, and
  doubling by nearest neighbours and a convolution instead of a transposed convolution.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from genbench.api import Batch, GenerativeModel, ImageSpec, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.images import from_float, to_float
from genbench.noise import NoiseSource

GROUPS = 8
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "linear": nn.Identity}


class AutoencoderConfig(ModelConfig):
    """Settings of the autoencoder; the defaults are for 32 x 32 images."""

    architecture: Literal["mlp", "conv"] = "conv"
    widths: tuple[int, ...] = Field((64, 128, 256), min_length=1)
    """mlp: hidden layers of the encoder, mirrored in the decoder; conv: channels after each halving."""
    code_dim: int = Field(128, ge=1)
    activation: Literal["relu", "silu", "linear"] = "silu"
    code_penalty: float = Field(1e-4, ge=0)
    """beta, for a squared error summed over the values of an image in [-1, 1]."""
    components: int = Field(10, ge=1)
    """Gaussians in the density of the codes."""
    density_rate: float = Field(0.02, gt=0, le=1)
    """eta: share by which a batch moves the density of the codes."""
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)


def mlp(widths: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    """Linear layers of the given widths with activations between."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def conv_networks(config: AutoencoderConfig, spec: ImageSpec) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder (B, C, H, W) to (B, Z), and decoder back.

    Raises:
        UsageError: sides that the stages do not divide, or widths that the groups of the normalisation do not.
    """
    factor, activation = 2 ** len(config.widths), ACTIVATIONS[config.activation]
    if spec.height % factor or spec.width % factor or any(width % GROUPS for width in config.widths):
        raise UsageError(
            f"widths = {list(config.widths)}: {len(config.widths)} halvings need sides divisible by {factor} (images "
            f"are {spec.height} x {spec.width}) and widths divisible by {GROUPS}. Give other widths, or "
            "architecture = 'mlp'."
        )
    shape = (config.widths[-1], spec.height // factor, spec.width // factor)
    down: list[nn.Module] = []
    up: list[nn.Module] = [nn.Linear(config.code_dim, math.prod(shape)), nn.Unflatten(1, shape)]
    for inputs, outputs in pairwise((spec.channels, *config.widths)):
        down += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.GroupNorm(GROUPS, outputs), activation()]
    for inputs, outputs in pairwise((*reversed(config.widths), config.widths[0])):
        up += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, padding=1)]
        up += [nn.GroupNorm(GROUPS, outputs), activation()]
    down += [nn.Flatten(), nn.Linear(math.prod(shape), config.code_dim)]
    up.append(nn.Conv2d(config.widths[0], spec.channels, 3, padding=1))
    return nn.Sequential(*down), nn.Sequential(*up)


class CodeDensity(nn.Module):
    """A mixture of Gaussians with full covariances, fitted to a stream of codes by stepwise EM; float64 buffers.

    Buffers: total (M,), first (M, Z) and second (M, Z, Z) are running means of r, r z and r z z^T.
    """

    ridge = 1e-6
    """Share of the mean variance of all codes that is added to each covariance's diagonal."""

    total: Tensor
    first: Tensor
    second: Tensor

    def __init__(self, components: int, dim: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.register_buffer("total", torch.zeros(components, dtype=torch.float64))
        self.register_buffer("first", torch.zeros(components, dim, dtype=torch.float64))
        self.register_buffer("second", torch.zeros(components, dim, dim, dtype=torch.float64))

    @property
    def empty(self) -> bool:
        """Whether no codes have been seen."""
        return not bool(self.total.sum() > 0)

    def update(self, z: Tensor, rng: torch.Generator) -> None:
        """Move towards the codes z (B, Z): the first batch sets the sums, its responsibilities drawn from ``rng``."""
        z = z.detach().double()
        if self.empty:
            chosen = torch.randint(len(self.total), (len(z),), generator=rng, device=z.device)
            r = nn.functional.one_hot(chosen, len(self.total)).double()
            share = 1.0
        else:
            r, share = self.responsibilities(z), self.rate
        self.total.lerp_(r.mean(0), share)
        self.first.lerp_(r.T @ z / len(z), share)
        self.second.lerp_(torch.einsum("bm,bp,bq->mpq", r, z, z) / len(z), share)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (Z,) of all codes and the Cholesky factor (Z, Z) of their covariance."""
        mean = self.first.sum(0) / self.total.sum()
        covariance = self.second.sum(0) / self.total.sum() - torch.outer(mean, mean)
        return mean, self._factor(covariance)

    def gaussians(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (M,), means (M, Z) and Cholesky factors (M, Z, Z) of the mixture."""
        total = self.total.clamp(min=1e-12)[:, None]
        means = self.first / total
        covariances = self.second / total[..., None] - means[:, :, None] * means[:, None, :]
        return self.total / self.total.sum(), means, self._factor(covariances)

    def _factor(self, covariance: Tensor) -> Tensor:
        overall = self.second.sum(0).diagonal().mean() / self.total.sum()
        identity = torch.eye(covariance.shape[-1], dtype=torch.float64, device=covariance.device)
        return torch.linalg.cholesky(covariance + (self.ridge * overall + 1e-12) * identity)

    def responsibilities(self, z: Tensor) -> Tensor:
        """(B, M) posterior probabilities of the components for codes (B, Z)."""
        weights, means, factors = self.gaussians()
        centred = (z.double()[None] - means[:, None]).mT  # (M, Z, B)
        scaled = torch.linalg.solve_triangular(factors, centred, upper=False)
        log_det = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # (M,)
        log_p = weights.clamp(min=1e-300).log() - log_det - 0.5 * scaled.square().sum(1).T
        return log_p.softmax(-1)

    def whiten(self, z: Tensor) -> Tensor:
        """Codes (B, Z) to latents of zero mean and unit covariance over the codes seen."""
        mean, factor = self.moments()
        return torch.linalg.solve_triangular(factor, (z.double() - mean).T, upper=False).T.float()

    def colour(self, latents: Tensor) -> Tensor:
        """The inverse of `whiten`."""
        mean, factor = self.moments()
        return (mean + latents.double() @ factor.T).float()

    def sample(self, noise: NoiseSource) -> Tensor:
        """(B, Z) codes from the mixture."""
        weights, means, factors = self.gaussians()
        component = noise.categorical(weights.expand(len(noise), -1))
        eps = noise.normal((means.shape[1],)).double()
        return (means[component] + (factors[component] @ eps[..., None])[..., 0]).float()


class Autoencoder(GenerativeModel):
    """A deep autoencoder; see the module's docstring."""

    Config = AutoencoderConfig
    config: AutoencoderConfig
    networks = ("encoder", "decoder")

    def __init__(self, config: AutoencoderConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        self.encoder: nn.Module
        self.decoder: nn.Module
        if config.architecture == "conv":
            self.encoder, self.decoder = conv_networks(config, spec)
        else:
            widths, activation = (spec.dims, *config.widths, config.code_dim), ACTIVATIONS[config.activation]
            self.encoder = nn.Sequential(nn.Flatten(), mlp(widths, activation))
            self.decoder = nn.Sequential(mlp(widths[::-1], activation), nn.Unflatten(1, spec.shape))
        self.density = CodeDensity(config.components, config.code_dim, config.density_rate)

    def optimizers(self) -> dict[str, Optimizer]:
        """AdamW."""
        c = self.config
        return {"autoencoder": AdamW(self.parameters(), lr=c.learning_rate, weight_decay=c.weight_decay)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on the squared error and the code penalty; the density of the codes follows."""
        x = to_float(batch.images, self.spec.levels)
        z = self.encoder(x).float()
        self.density.update(z, ctx.rng)
        error = (self.decoder(z).float() - x).square().flatten(1).sum(1).mean()
        penalty = 0.5 * z.square().sum(1).mean()
        ctx.backward((error + self.config.code_penalty * penalty) / self.spec.dims)
        ctx.step_optimizer("autoencoder")
        return {"squared_error": (error / self.spec.dims).detach(), "code_norm": (2 * penalty).sqrt().detach()}

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) squared error per value, in [-1, 1]."""
        del noise
        x = to_float(batch.images, self.spec.levels)
        return (self.decoder(self.encoder(x)).float() - x).square().flatten(1).mean(1)

    def _images(self, z: Tensor) -> Tensor:
        return from_float(self.decoder(z), self.spec.levels)

    def _fitted_density(self) -> CodeDensity:
        if self.density.empty:
            raise UsageError("This autoencoder has seen no images: its codes have no density. Train it.")
        return self.density

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """Decode codes drawn from the mixture.

        Raises:
            UsageError: the model has not been trained.
        """
        return self._images(self._fitted_density().sample(request.noise))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(Z,)."""
        return (self.config.code_dim,)

    @torch.no_grad()
    def encode(self, batch: Batch) -> Tensor:
        """Whitened codes, (B, Z).

        Raises:
            UsageError: the model has not been trained.
        """
        return self._fitted_density().whiten(self.encoder(to_float(batch.images, self.spec.levels)))

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """(B, C, H, W) uint8 for whitened codes.

        Raises:
            UsageError: the model has not been trained.
        """
        return self._images(self._fitted_density().colour(z))

    @torch.no_grad()
    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """g(f(x)), rounded to levels."""
        del noise
        return self._images(self.encoder(to_float(batch.images, self.spec.levels)))
