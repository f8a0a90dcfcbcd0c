"""DCGAN: A. Radford, L. Metz and S. Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016.

The generator turns a latent z into an image by 4 x 4 transposed convolutions of stride 2, batch normalisation and ReLU,
with tanh at the end; the discriminator mirrors it with strided convolutions and leaky ReLU. No batch normalisation at
the generator's output and the discriminator's input; weights start from N(0, 0.02); Adam with learning rate 2e-4 and
beta1 0.5; the discriminator sees real and generated images in separate batches. With D the discriminator's logit and
sp(t) = log(1 + e^t), both players minimise

    loss             discriminator                             generator
    minimax          E sp(-D(x)) + E sp(D(G(z)))               -E sp(D(G(z)))
    non_saturating   the same                                  E sp(-D(G(z)))
    least_squares    1/2 E (D(x) - 1)^2 + 1/2 E D(G(z))^2      1/2 E (D(G(z)) - 1)^2
    hinge            E relu(1 - D(x)) + E relu(1 + D(G(z)))    -E D(G(z))

minimax and non_saturating: Goodfellow et al., "Generative Adversarial Nets", NIPS 2014, equation 1 and section 3 (the
paper of DCGAN uses non_saturating); least_squares: Mao et al., ICCV 2017, equation 9; hinge: Lim and Ye, "Geometric
GAN", 2017. Reference code: https://github.com/pytorch/examples/tree/main/dcgan.

Deviations:
- The latent is standard normal instead of uniform, so that it can be decoded and interpolated as other models' are.
- The generator's weights are averaged over steps, and the average samples. The running statistics of batch
  normalisation belong to the last weights, not to their average: `calibrate` computes them anew, from a fixed set of
  latents, before each validation. The harness validates at the last step, so final weights and statistics belong
  together. In evaluation mode a sample does not depend on its batch.
- The number of resolutions and the widths are settings, for images smaller than the paper's 64 x 64.
- Real images are dequantised (uniform noise within a level), or else the discriminator could tell real images by their
  few grey values; samples are quantised to the level whose bin holds them.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam, Optimizer

from baselines.nets.energy_distance import energy_distance
from genbench import images
from genbench.api import Batch, GenerativeModel, ImageSpec, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.noise import NoiseSource

Loss = Literal["minimax", "non_saturating", "least_squares", "hinge"]
CALIBRATION_BATCH = 512


class DCGANConfig(ModelConfig):
    """Settings of `DCGAN`."""

    loss: Loss = "non_saturating"
    latent_dim: int = Field(100, ge=1)
    resolutions: int = Field(2, ge=1)
    """How many times the generator doubles its first map of features, of height H / 2^resolutions."""
    generator_width: int = Field(64, ge=1)
    """Channels of the generator's last hidden map; each earlier one has twice as many."""
    discriminator_width: int = Field(64, ge=1)
    """Channels of the discriminator's first map; each later one has twice as many."""
    calibration_size: int = Field(1024, ge=2)
    """Latents from which the statistics of batch normalisation are computed for evaluation."""
    learning_rate: float = Field(2e-4, gt=0)
    betas: tuple[float, float] = (0.5, 0.999)


class Generator(nn.Sequential):
    """(B, latent_dim) to (B, C, H, W) in (-1, 1)."""

    def __init__(self, config: DCGANConfig, spec: ImageSpec) -> None:
        n, width = config.resolutions, config.generator_width
        first = (spec.height >> n, spec.width >> n)
        channels = [width * 2**k for k in range(n - 1, -1, -1)]
        layers: list[nn.Module] = [
            nn.Unflatten(1, (config.latent_dim, 1, 1)),
            nn.ConvTranspose2d(config.latent_dim, channels[0], first, bias=False),
        ]
        for inputs, outputs in itertools.pairwise(channels):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, spec.channels, 4, 2, 1), nn.Tanh()]
        super().__init__(*layers)


class Discriminator(nn.Sequential):
    """(B, C, H, W) in [-1, 1] to logits (B,)."""

    def __init__(self, config: DCGANConfig, spec: ImageSpec) -> None:
        n, width = config.resolutions, config.discriminator_width
        channels = [width * 2**k for k in range(n)]
        layers: list[nn.Module] = [nn.Conv2d(spec.channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for inputs, outputs in itertools.pairwise(channels):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)]
        last = (spec.height >> n, spec.width >> n)
        super().__init__(*layers, nn.Conv2d(channels[-1], 1, last), nn.Flatten(0))


def initialise(module: nn.Module) -> None:
    """Weights of convolutions from N(0, 0.02), scales of batch normalisation from N(1, 0.02), biases zero."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, _BatchNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | _BatchNorm) and module.bias is not None:
        nn.init.zeros_(module.bias)


def discriminator_loss(loss: Loss, real: Tensor, generated: Tensor) -> Tensor:
    """What the discriminator minimises, from its logits on real and generated images; the table above."""
    if loss == "least_squares":
        return 0.5 * (real - 1.0).square().mean() + 0.5 * generated.square().mean()
    if loss == "hinge":
        return F.relu(1.0 - real).mean() + F.relu(1.0 + generated).mean()
    return F.softplus(-real).mean() + F.softplus(generated).mean()


def generator_loss(loss: Loss, generated: Tensor) -> Tensor:
    """What the generator minimises, from the discriminator's logits on its images; the table above."""
    if loss == "minimax":
        return -F.softplus(generated).mean()
    if loss == "non_saturating":
        return F.softplus(-generated).mean()
    if loss == "least_squares":
        return 0.5 * (generated - 1.0).square().mean()
    return -generated.mean()


@torch.no_grad()
def calibrate(network: nn.Module, inputs: Tensor) -> None:
    """Set the running statistics of batch normalisation to those of ``inputs``, averaged over equal batches.

    The mode of the network and the momentum of its layers are as before at the end.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    kept, training = [m.momentum for m in layers], network.training
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    network.train()
    for piece in inputs.chunk(-(-len(inputs) // CALIBRATION_BATCH)):
        network(piece)
    network.train(training)
    for layer, momentum in zip(layers, kept, strict=True):
        layer.momentum = momentum


class DCGAN(GenerativeModel):
    """A generator and a discriminator, trained in turn on each batch. It has no likelihood."""

    Config = DCGANConfig
    networks = ("generator", "discriminator")
    averaged = ("generator",)
    config: DCGANConfig
    calibration_z: Tensor

    def __init__(self, config: DCGANConfig, spec: ImageSpec) -> None:
        """Build both networks.

        Raises:
            UsageError: the images' sides cannot be halved ``resolutions`` times.
        """
        super().__init__(config, spec)
        factor = 2**config.resolutions
        if spec.height % factor or spec.width % factor:
            raise UsageError(
                f"DCGAN: {spec.height} x {spec.width} images cannot be halved resolutions = {config.resolutions} "
                f"times. Choose fewer resolutions, or images whose sides are multiples of {factor}."
            )
        self.generator = Generator(config, spec).apply(initialise)
        self.discriminator = Discriminator(config, spec).apply(initialise)
        self.register_buffer("calibration_z", torch.randn(config.calibration_size, config.latent_dim))

    def optimizers(self) -> dict[str, Optimizer]:
        rate, betas = self.config.learning_rate, self.config.betas
        return {
            "discriminator": Adam(self.discriminator.parameters(), lr=rate, betas=betas),
            "generator": Adam(self.generator.parameters(), lr=rate, betas=betas),
        }

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """A step of the discriminator, then one of the generator on the same generated images."""
        levels = images.to_levels(batch.images, self.spec.levels)
        uniform = torch.rand(levels.shape, generator=ctx.rng, device=ctx.device)
        real = 2.0 * images.dequantise(levels, uniform, self.spec.levels) - 1.0
        z = torch.randn(len(batch), self.config.latent_dim, generator=ctx.rng, device=ctx.device)
        generated = self.generator(z)

        logits_real, logits_generated = self.discriminator(real), self.discriminator(generated.detach())
        loss_d = discriminator_loss(self.config.loss, logits_real.float(), logits_generated.float())
        ctx.backward(loss_d)
        ctx.step_optimizer("discriminator")

        self.discriminator.requires_grad_(False)
        loss_g = generator_loss(self.config.loss, self.discriminator(generated).float())
        ctx.backward(loss_g)
        ctx.step_optimizer("generator")
        self.discriminator.requires_grad_(True)
        return {"discriminator_loss": loss_d.detach(), "generator_loss": loss_g.detach()}

    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) terms of the energy distance between the batch and as many samples; calibrates the generator first.

        Neither player's loss says how good the images are.
        """
        calibrate(self.generator, self.calibration_z)
        generated = self.sample(SampleRequest(noise))
        return energy_distance(*(images.to_float(x, self.spec.levels) for x in (batch.images, generated)))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (self.config.latent_dim,)

    def decode(self, z: Tensor) -> Tensor:
        y = 0.5 * self.generator(z).float() + 0.5
        return images.from_levels(images.quantise(y, self.spec.levels), self.spec.levels)

    def sample(self, request: SampleRequest) -> Tensor:
        return self.decode(request.noise.normal(self.latent_shape))
