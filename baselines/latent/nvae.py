"""NVAE: a deep hierarchy of spatial latents in groups, inferred from the top down with residual normals.

Paper: Vahdat and Kautz, "NVAE: A Deep Hierarchical Variational Autoencoder", NeurIPS 2020 (arXiv:2007.03898): eq. 1
(the bound), sec. 3.1 and fig. 3 (residual cells), 3.2 (residual normals, eq. 2; spectral regularisation, eq. 3), app. A
(KL balancing). Reference code: NVlabs/NVAE (`model.py`, `neural_operations.py`, `utils.py`, `train.py`).

    p(x, z) = p(x | z) N(z_1; 0, I) prod_l p(z_l | z_<l), z_l a grid of latents; coarse groups first
    p(z_l | z_<l) = N(mu, sigma^2), q(z_l | z_<l, x) = N(mu + dmu, (sigma dsigma)^2)
    KL_l = 1/2 sum (dmu^2 / sigma^2 + dsigma^2 - log dsigma^2 - 1)                                              (eq. 2)
    loss = E_q [-log p(x | z)] + beta sum_l gamma_l KL_l + lambda (sum of spectral norms + sum of largest norm gains)

A bottom-up tower gives features at every scale; the top-down tower is shared by model and posterior, which sees at each
group its state and the features. beta grows in a line over `kl_warmup`; while it is below 1 gamma_l is proportional to
the batch's KL_l over a_l, a_l = 4^s / (groups at the scale), s = 0 at the coarsest, with mean 1 over groups; then 1.

Deviations from the paper:
- Group normalisation for batch normalisation, whose moments follow the batch: no re-adjustment of statistics is needed.
- Compact: few groups and channels (see the recipes), as many channels in both towers, no normalising flows in q, no
  weight normalisation of convolutions, plain strided and upsampled convolutions as the skips that change the size.
- The decoder's distributions are `baselines.nets.observation`'s; no mixture of discretised logistics for colours.
- Images are not padded to 32 x 32: sides must divide by the halvings.
- The soft clamp 5 tanh(x / 5) is on mu, log sigma, dmu and log dsigma each, so that eq. 2 holds to the letter.
- One power iteration a step and layer, kept from step to step; the code has four.
- Averaged weights, and weights of the best validation ELBO.

A temperature T multiplies the standard deviations of every p(z_l | z_<l), as in the paper; values are drawn from
p(x | z).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adamax, Optimizer

from baselines.nets.observation import OBSERVATIONS, Decoder, Observation, draw_images
from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainContext
from genbench.errors import UsageError
from genbench.images import from_float, levels_to_float, to_float, to_levels
from genbench.likelihood import importance
from genbench.noise import NoiseSource

Count = Annotated[int, Field(ge=1)]


class NVAEConfig(ModelConfig):
    """Settings of the NVAE."""

    decoder: Decoder = "discretised_logistic"
    channels: int = Field(32, ge=8, multiple_of=8)
    """At full resolution; doubled at each halving."""
    halvings: int = Field(1, ge=0)
    """Halvings before the finest latents."""
    groups: tuple[Count, ...] = Field((5, 10), min_length=1)
    """Groups of latents at each scale, coarsest first; each scale has half the side of the next."""
    latent_channels: int = Field(20, ge=1)
    cells: int = Field(1, ge=1)
    """Residual cells for each group and tower, and at each resolution outside the latents."""
    expansion: int = Field(6, ge=1)
    """Of the channels inside a cell of the top-down tower."""
    spectral: float = Field(1e-2, ge=0)
    """lambda."""
    learning_rate: float = Field(1e-2, gt=0)
    weight_decay: float = Field(3e-4, ge=0)
    kl_warmup: float = Field(0.3, ge=0, le=1)
    """Share of the budget over which the KL's weight grows from 0 to 1, with balancing."""
    importance_draws: tuple[Count, ...] = (50,)
    """Draws of the importance-weighted bounds that are reported beside the ELBO, the one to quote first."""


class Conv2d(nn.Conv2d):
    """A convolution, padded to keep its size, that keeps an estimate of its weight's left singular vector."""

    u: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))

    def spectral_norm(self) -> Tensor:
        """u^T W v after one power iteration, W the weight as (outputs, rest)."""
        W = self.weight.flatten(1)
        with torch.no_grad():
            v = F.normalize(W.T @ self.u, dim=0)
            self.u.copy_(F.normalize(W @ v, dim=0))
        return self.u.clone() @ W @ v


def norm(channels: int) -> nn.GroupNorm:
    """Groups of eight channels."""
    return nn.GroupNorm(channels // 8, channels)


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate of their means (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 16, 4)
        self.gate = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x.mean((2, 3)))[:, :, None, None]


class Cell(nn.Module):
    """skip(x) + 0.1 body(x); body ends in squeeze and excitation, skip changes size and channels where asked."""

    def __init__(self, body: list[nn.Module], outputs: int, skip: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(*body, SqueezeExcite(outputs))
        self.skip = nn.Identity() if skip is None else skip

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + 0.1 * self.body(x)


def encoder_cell(inputs: int, outputs: int, stride: int) -> Cell:
    """Two 3 x 3 convolutions, each after normalisation and swish (fig. 3b)."""
    body = [norm(inputs), nn.SiLU(), Conv2d(inputs, outputs, 3, stride)]
    body += [norm(outputs), nn.SiLU(), Conv2d(outputs, outputs, 3)]
    return Cell(body, outputs, None if stride == 1 else Conv2d(inputs, outputs, 3, stride))


def decoder_cell(inputs: int, outputs: int, up: bool, expansion: int) -> Cell:
    """Expansion, a depthwise 5 x 5 convolution and contraction, normalised around each (fig. 3a)."""
    wide = inputs * expansion
    body = [norm(inputs), Conv2d(inputs, wide, 1), norm(wide), nn.SiLU(), Conv2d(wide, wide, 5, groups=wide)]
    body += [norm(wide), nn.SiLU(), Conv2d(wide, outputs, 1), norm(outputs)]
    if not up:
        return Cell(body, outputs)
    return Cell(
        [nn.Upsample(scale_factor=2), *body],
        outputs,
        nn.Sequential(nn.Upsample(scale_factor=2), Conv2d(inputs, outputs, 1)),
    )


class Encoder(nn.Module):
    """The bottom-up tower."""

    def __init__(self, config: NVAEConfig, channels: int) -> None:
        super().__init__()
        width, cells = config.channels, config.cells
        self.stem = Conv2d(channels, width, 3)
        pre: list[nn.Module] = []
        for _ in range(config.halvings):
            pre += [encoder_cell(width, width, 1) for _ in range(cells)]
            pre.append(encoder_cell(width, 2 * width, 2))
            width *= 2
        self.pre = nn.Sequential(*pre)
        self.steps, self.down = nn.ModuleList(), nn.ModuleList()
        self.downs = [sum(config.groups[-i:]) for i in range(1, len(config.groups))]
        for i, groups in enumerate(reversed(config.groups)):
            if i > 0:
                self.down.append(encoder_cell(width, 2 * width, 2))
                width *= 2
            for _ in range(groups):
                self.steps.append(nn.Sequential(*(encoder_cell(width, width, 1) for _ in range(cells))))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) in [-1, 1] to the features of each group, in the order of the latents."""
        h, features = self.pre(self.stem(x.contiguous(memory_format=torch.channels_last))), []
        for index, step in enumerate(self.steps):
            h = step(self.down[self.downs.index(index)](h) if index in self.downs else h)
            features.append(h)
        return features[::-1]


def soft_clamp(x: Tensor) -> Tensor:
    """5 tanh(x / 5), in float32."""
    return 5.0 * torch.tanh(x.float() / 5.0)


def residual_kl(dmu: Tensor, log_dsigma: Tensor, log_sigma: Tensor) -> Tensor:
    """KL(N(mu + dmu, (sigma dsigma)^2) || N(mu, sigma^2)) in nats, (N,), of grids (N, C, H, W) (eq. 2)."""
    each = (dmu * torch.exp(-log_sigma)) ** 2 + torch.exp(2 * log_dsigma) - 2 * log_dsigma - 1.0
    return 0.5 * each.flatten(1).sum(1)


class Group(nn.Module):
    """One group of latents: its prior from the state, its posterior from state and features, and the next state."""

    def __init__(self, config: NVAEConfig, width: int, first: bool) -> None:
        super().__init__()
        latents = config.latent_channels
        cells = [decoder_cell(width, width, False, config.expansion) for _ in range(config.cells)]
        self.cells = nn.Sequential(*([] if first else cells))
        self.prior = None if first else nn.Sequential(nn.ELU(), Conv2d(width, 2 * latents, 1))
        self.from_state = None if first else Conv2d(width, width, 1)
        self.posterior = nn.Sequential(nn.ELU(), Conv2d(width, 2 * latents, 3))
        self.combine = Conv2d(width + latents, width, 1)

    def forward(
        self, state: Tensor, eps: Tensor, features: Tensor | None, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next state, KL and log p(z) - log q(z | x), (N,) nats each; z from q where there are features."""
        state = self.cells(state)
        mu, log_sigma = torch.zeros_like(eps), torch.zeros_like(eps)
        if self.prior is not None:
            mu, log_sigma = soft_clamp(self.prior(state)).chunk(2, dim=1)
        if features is None:
            z, kl = mu + temperature * torch.exp(log_sigma) * eps, eps.new_zeros(len(eps))
            return self.combine(torch.cat((state, z), dim=1)), kl, kl
        if self.from_state is not None:
            features = features + self.from_state(state)
        dmu, log_dsigma = soft_clamp(self.posterior(features)).chunk(2, dim=1)
        moved = dmu * torch.exp(-log_sigma) + torch.exp(log_dsigma) * eps
        log_ratio = (0.5 * (eps**2 - moved**2) + log_dsigma).flatten(1).sum(1)
        z = mu + torch.exp(log_sigma) * moved
        return self.combine(torch.cat((state, z), dim=1)), residual_kl(dmu, log_dsigma, log_sigma), log_ratio


@dataclass(frozen=True)
class Descent:
    """One way down. output: (N, C P, H, W). kl: (N, L) in nats. log_ratio: (N,) log p(z) - log q(z | x)."""

    output: Tensor
    kl: Tensor
    log_ratio: Tensor


class TopDown(nn.Module):
    """The generative model, and with features its posterior."""

    def __init__(self, config: NVAEConfig, spec: ImageSpec, outputs: int) -> None:
        super().__init__()
        halvings = config.halvings + len(config.groups) - 1
        width, height, side = config.channels * 2**halvings, spec.height // 2**halvings, spec.width // 2**halvings
        self.start = nn.Parameter(torch.rand(1, width, height, side))
        self.groups, self.up = nn.ModuleList(), nn.ModuleList()
        self.shapes: list[tuple[int, int, int]] = []
        self.ups = [sum(config.groups[:i]) for i in range(1, len(config.groups))]
        for i, groups in enumerate(config.groups):
            if i > 0:
                self.up.append(decoder_cell(width, width // 2, True, config.expansion))
                width, height, side = width // 2, height * 2, side * 2
            self.shapes += [(config.latent_channels, height, side)] * groups
            self.groups.extend(Group(config, width, i == j == 0) for j in range(groups))
        post: list[nn.Module] = []
        for _ in range(config.halvings):
            post.append(decoder_cell(width, width // 2, True, config.expansion))
            width //= 2
            post += [decoder_cell(width, width, False, config.expansion) for _ in range(config.cells)]
        self.post = nn.Sequential(*post, nn.ELU(), Conv2d(width, outputs, 3))

    def forward(self, eps: list[Tensor], features: list[Tensor] | None = None, temperature: float = 1.0) -> Descent:
        """Standard normal eps_l (N, *shapes[l]) to a path from q, or without features from p."""
        state = self.start.expand(len(eps[0]), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        kls, log_ratio = [], eps[0].new_zeros(len(eps[0]))
        for index, group in enumerate(self.groups):
            state = self.up[self.ups.index(index)](state) if index in self.ups else state
            state, kl, ratio = group(state, eps[index], None if features is None else features[index], temperature)
            kls.append(kl)
            log_ratio = log_ratio + ratio
        return Descent(self.post(state).float(), torch.stack(kls, dim=1), log_ratio)


def balancing(kl: Tensor, groups: tuple[int, ...]) -> Tensor:
    """gamma (L,) for the KLs (N, L) of the groups, coarsest scale first; mean 1, no gradient (app. A)."""
    sizes = torch.tensor(list(chain.from_iterable([4**s / n] * n for s, n in enumerate(groups))), device=kl.device)
    share = (kl.detach().abs().mean(0) + 0.01) / sizes
    return share / share.mean()


class NVAE(GenerativeModel):
    """A compact NVAE; see the module's docstring."""

    Config = NVAEConfig
    config: NVAEConfig
    networks = ("encoder", "top_down")
    averaged = ("encoder", "top_down")
    sampler_options = frozenset({"temperature"})

    def __init__(self, config: NVAEConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        factor = 2 ** (config.halvings + len(config.groups) - 1)
        if spec.height % factor or spec.width % factor:
            raise UsageError(
                f"nvae: {config.halvings} halvings and {len(config.groups)} scales of latents need sides divisible by "
                f"{factor}, the images are {spec.height} x {spec.width}. Give fewer halvings or groups."
            )
        self.observation: Observation = OBSERVATIONS[config.decoder](spec.levels)
        self.encoder = Encoder(config, spec.channels)
        self.top_down = TopDown(config, spec, spec.channels * self.observation.parameters)
        self.sizes = [c * h * w for c, h, w in self.top_down.shapes]

    def _split(self, eps: Tensor) -> list[Tensor]:
        """(..., sum of sizes) to the groups' (N, C, H, W), the axes before the last one flattened."""
        pieces = torch.split(eps.flatten(0, -2), self.sizes, dim=-1)
        return [piece.view(-1, *shape) for piece, shape in zip(pieces, self.top_down.shapes)]

    def _output(self, descent: Descent) -> Tensor:
        """(N, C, H, W, P)."""
        channels, height, width = self.spec.shape
        output = descent.output.reshape(-1, channels, self.observation.parameters, height, width)
        return output.movedim(2, -1)

    def _descend(self, features: list[Tensor], eps: Tensor, levels: Tensor) -> tuple[Tensor, Descent]:
        """c draws eps (c, B, sum of sizes) of each image's path: log p(x | z) of levels (B, C, H, W), (c, B) nats."""
        descent = self.top_down(self._split(eps), [f.repeat(len(eps), 1, 1, 1) for f in features])
        output = self._output(descent)
        output = output.reshape(*eps.shape[:2], *output.shape[1:])  # (c, B, C, H, W, P)
        return self.observation.image_log_prob(output, levels), descent

    def _negative_elbo(self, images: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """-log p(x | z), (B,), and the KL of each group, (B, L), nats, for eps (B, sum of sizes)."""
        levels = to_levels(images, self.spec.levels)
        log_p, descent = self._descend(self.encoder(levels_to_float(levels, self.spec.levels)), eps[None], levels)
        return -log_p[0], descent.kl

    def regularisation(self) -> Tensor:
        """Sum of the convolutions' spectral norms and of the normalisations' largest gains (eq. 3)."""
        terms = [layer.spectral_norm() for layer in self.modules() if isinstance(layer, Conv2d)]
        terms += [layer.weight.abs().max() for layer in self.modules() if isinstance(layer, nn.GroupNorm)]
        return torch.stack(terms).sum()

    def optimizers(self) -> dict[str, Optimizer]:
        """One Adamax for both towers."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return {"nvae": Adamax(self.parameters(), lr=rate, weight_decay=decay, eps=1e-3, foreach=True)}

    def update(self, batch: Batch, ctx: TrainContext) -> dict[str, Tensor]:
        """One step on the regularised negative ELBO with the KL warmed up and balanced."""
        eps = torch.randn((len(batch), sum(self.sizes)), generator=ctx.rng, device=batch.images.device)
        distortion, kl = self._negative_elbo(batch.images, eps)
        beta = min(1.0, ctx.progress / self.config.kl_warmup) if self.config.kl_warmup > 0 else 1.0
        weighted = beta * kl * balancing(kl, self.config.groups) if beta < 1 else kl
        loss = distortion.mean() + weighted.sum(1).mean()
        if self.config.spectral > 0:
            loss = loss + self.config.spectral * self.regularisation()
        ctx.backward(loss)
        ctx.step_optimizer("nvae")
        total = kl.sum(1)
        active = (kl.mean(0) > 0.1).sum().float()
        return {
            "negative_elbo": (distortion + total).mean().detach(),
            "kl": total.mean().detach(),
            "active_groups": active,
        }

    @torch.no_grad()
    def validate(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """(B,) negative ELBO in nats, KL weight 1, one path."""
        distortion, kl = self._negative_elbo(batch.images, noise.normal((sum(self.sizes),)))
        return distortion + kl.sum(1)

    def likelihood_estimators(self) -> tuple[str, ...]:
        """Importance-weighted bounds, then the ELBO; any "iwae-K" is understood."""
        return importance.estimators(self.config.importance_draws)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        """Lower bound on log P(x) per image, through all groups.

        Raises:
            UsageError: an estimator that is neither "elbo" nor "iwae-K" with K >= 1.
        """
        levels = to_levels(batch.images, self.spec.levels)
        features = self.encoder(levels_to_float(levels, self.spec.levels))

        def descend(count: int) -> tuple[Tensor, Descent]:
            eps = torch.stack([noise.normal((sum(self.sizes),)) for _ in range(count)])
            return self._descend(features, eps, levels)

        def elbo(count: int) -> Tensor:
            log_p, descent = descend(count)
            return log_p - descent.kl.sum(1).view(count, -1)

        def log_weights(count: int) -> Tensor:
            log_p, descent = descend(count)
            return log_p + descent.log_ratio.view(count, -1)

        widest = len(levels) * self.config.channels * self.config.expansion * self.spec.height * self.spec.width
        return importance.variational_bound(estimator, elbo, log_weights, importance.chunk_size(widest), "nvae")

    @torch.no_grad()
    def sample(self, request: SampleRequest) -> Tensor:
        """z_l ~ p(z_l | z_<l), x ~ p(x | z), in one pass."""
        temperature = 1.0 if request.options.temperature is None else request.options.temperature
        eps = self._split(request.noise.normal((sum(self.sizes),)))
        output = self._output(self.top_down(eps, temperature=temperature))
        return draw_images(self.observation, output, request.noise, self.spec.levels, None)

    @torch.no_grad()
    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """The central image of the posteriors' means, group by group."""
        del noise
        features = self.encoder(to_float(batch.images, self.spec.levels))
        still = [features[0].new_zeros(len(batch), *shape) for shape in self.top_down.shapes]
        return from_float(self.observation.centre(self._output(self.top_down(still, features))), self.spec.levels)
