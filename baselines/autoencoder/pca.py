"""Principal component analysis, the linear baseline, with the density of probabilistic PCA.

Paper: Tipping and Bishop, "Probabilistic Principal Component Analysis", J. R. Statist. Soc. B 61(3), 1999.
Equations used, with y (D,) an image, z (q,) its latent, lambda_i the eigenvalues of the covariance S in falling order:

    z ~ N(0, I),  y | z ~ N(W z + mu, sigma^2 I)                                    (eq. 2)
    C = W W^T + sigma^2 I,  M = W^T W + sigma^2 I                                   (eqs. 4, 6)
    W = U_q (Lambda_q - sigma^2 I)^(1/2),  sigma^2 = mean of the D - q last lambda  (eqs. 7, 8: maximum likelihood)
    <z> = M^-1 W^T (y - mu)                                                         (eq. 9: posterior mean)
    W (W^T W)^-1 M <z> + mu                                                         (sec. 3.3: least-squares rebuilding)

With this W the q x q matrix M is Lambda_q, so that C^-1 and log |C| need no D x D matrix.

Inpainting draws from the exact conditional density of the other pixels, given pixels at the middle of their bins: a
draw (z, eps) of the joint density is moved by z + M_g^-1 W_g^T (y_g - W_g z - mu_g - sigma eps_g), with the index g
for the given values (for a Gaussian this is a draw given y_g).

Reference code: sklearn.decomposition.PCA (`score_samples`, `n_components`) has the same density of continuous data.

Deviations from the paper:
- Images are discrete, so the model is of the dequantised y = (k + u) / K, u uniform on [0, 1)^D. Noise is never drawn:
  in fitting it adds 1 / (12 K^2) to the diagonal of S (which also keeps always-black pixels well-defined), and in the
  likelihood bound log P(k) >= E_u log p((k + u) / K) - D log K the expectation of a quadratic is taken in closed form.
- ``latent_dim = "auto"`` takes the q with the largest likelihood of the validation split.
- Samples are rounded to levels, clipped to the range; the density does not know of the clipping.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from genbench.api import Batch, GenerativeModel, ImageSpec, LogLikelihood, ModelConfig, SampleRequest, TrainingData
from genbench.errors import UsageError, unknown
from genbench.images import dequantise, dequantised_log_offset, from_levels, quantise, to_levels
from genbench.noise import NoiseSource

CHUNK = 4096
ESTIMATOR = "dequantised"


class PCAConfig(ModelConfig):
    """Settings of PCA."""

    latent_dim: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """q, the number of components, below D; "auto" takes the best by validation likelihood."""


def covariance(images: Tensor, num_levels: int) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance S (D, D), divided by N, of the dequantised y = (k + u) / K; float64.

    Moments of the levels of (N, C, H, W) uint8 images are summed exactly; dequantisation then adds 1 / (2 K) to the
    mean and I / (12 K^2) to the covariance.
    """
    dims = images[0].numel()
    first, second = torch.zeros(dims, dtype=torch.float64), torch.zeros(dims, dims, dtype=torch.float64)
    for piece in torch.split(images, CHUNK):
        k = to_levels(piece, num_levels).flatten(1).double()  # (B, D)
        first += k.sum(0)
        second += k.T @ k
    mean = first / len(images)
    S = (second / len(images) - torch.outer(mean, mean)) / num_levels**2
    S.diagonal().add_(1.0 / (12 * num_levels**2))
    return (mean + 0.5) / num_levels, S


def log_densities_by_rank(eigenvalues: Tensor, moments: Tensor) -> Tensor:
    """Mean log p(y) of held-out data under the maximum-likelihood model of every rank q = 1..D-1, shape (D - 1,).

    eigenvalues: (D,) of the training covariance, falling. moments: (D,) second moments about the training mean of
    the held-out data along the same eigenvectors.
    """
    dims = len(eigenvalues)
    tail = torch.arange(dims - 1, 0, -1, dtype=eigenvalues.dtype)
    noise_variance = (eigenvalues.sum() - eigenvalues.cumsum(0))[:-1] / tail
    log_det = eigenvalues.log().cumsum(0)[:-1] + tail * noise_variance.log()
    quadratic = (moments / eigenvalues).cumsum(0)[:-1]
    quadratic += (moments.sum() - moments.cumsum(0))[:-1] / noise_variance
    return -0.5 * (dims * math.log(2 * math.pi) + log_det + quadratic)


class PCA(GenerativeModel):
    """Probabilistic PCA of dequantised images; parameters are set by `fit`, not by gradients."""

    Config = PCAConfig
    config: PCAConfig
    conditions = frozenset({"mask"})

    def __init__(self, config: PCAConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        latent_dim = 1 if config.latent_dim == "auto" else config.latent_dim
        if latent_dim >= spec.dims:
            raise UsageError(f"latent_dim = {latent_dim}: images of {spec.dims} values allow 1 to {spec.dims - 1}.")
        self._set(torch.full((spec.dims,), 0.5), torch.eye(spec.dims)[:, :latent_dim], torch.ones(latent_dim), 1.0)

    def _set(self, mu: Tensor, U: Tensor, eigenvalues: Tensor, noise_variance: float) -> None:
        """Store mu (D,), the orthonormal U_q (D, q), Lambda_q (q,) and sigma^2 as float32."""
        device = self.device

        def parameter(value: Tensor) -> nn.Parameter:
            return nn.Parameter(value.to(device, torch.float32).contiguous(), requires_grad=False)

        self.mu, self.U, self.eigenvalues = parameter(mu), parameter(U), parameter(eigenvalues)
        self.noise_variance = parameter(torch.tensor(noise_variance, dtype=torch.float64))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Take the number of components from the state, where the config leaves it open."""
        U = state_dict.get(prefix + "U")
        if self.config.latent_dim == "auto" and U is not None and U.dim() == 2:
            self._set(self.mu.data, self.U.new_zeros(self.spec.dims, U.shape[1]), self.mu.new_ones(U.shape[1]), 1.0)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def fit(self, data: TrainingData, rng: torch.Generator) -> dict[str, float]:
        """Maximum likelihood on the training split; the validation split chooses q where the config says "auto"."""
        del rng
        K = self.spec.levels
        mu, S = covariance(data.train.images, K)
        ascending, vectors = torch.linalg.eigh(S)
        eigenvalues, U = ascending.flip(0).clamp(min=1.0 / (12 * K**2)), vectors.flip(1)
        moments = torch.zeros_like(eigenvalues)
        for piece in torch.split(data.validation.images, CHUNK):
            y = (to_levels(piece, K).flatten(1).double() + 0.5) / K  # (B, D)
            moments += (((y - mu) @ U) ** 2).sum(0)
        log_p = log_densities_by_rank(eigenvalues, moments / len(data.validation) + 1.0 / (12 * K**2))
        q = int(log_p.argmax()) + 1 if self.config.latent_dim == "auto" else self.config.latent_dim
        noise_variance = float(eigenvalues[q:].mean())
        self._set(mu, U[:, :q], eigenvalues[:q], noise_variance)
        nats = float(log_p[q - 1]) + dequantised_log_offset(self.spec.dims, K)
        return {"latent_dim": float(q), "noise_variance": noise_variance, "validation_nats_per_image": -nats}

    @property
    def W(self) -> Tensor:  # noqa: N802
        """(D, q) loadings U_q (Lambda_q - sigma^2 I)^(1/2)."""
        return self.U * (self.eigenvalues - self.noise_variance).clamp(min=0).sqrt()

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(q,)."""
        return (self.U.shape[1],)

    def _dequantised_centres(self, images: Tensor) -> Tensor:
        """(B, D) float32: y in the middle of its bin, u = 1/2."""
        k = to_levels(images, self.spec.levels).flatten(1)
        return dequantise(k, torch.full_like(k, 0.5, dtype=torch.float32), self.spec.levels)

    def _to_images(self, y: Tensor) -> Tensor:
        """(B, D) dequantised values to (B, C, H, W) uint8."""
        K = self.spec.levels
        return from_levels(quantise(y, K), K).view(-1, *self.spec.shape)

    def sample(self, request: SampleRequest) -> Tensor:
        """Draw from eq. 2, given the pixels under a mask where there is one; rounded to levels."""
        z = request.noise.normal(self.latent_shape)  # (B, q)
        noise = self.noise_variance.sqrt() * request.noise.normal((self.spec.dims,))  # (B, D)
        given = request.given(self.spec)
        if given is None:
            return self._to_images(self.mu + z @ self.W.T + noise)
        source, mask = from_levels(given.levels, self.spec.levels), given.mask.flatten(1)  # (B, D)
        missing = self._dequantised_centres(source) - (self.mu + z @ self.W.T + noise)
        W_given = mask[..., None] * self.W  # (B, D, q)
        M = W_given.mT @ W_given + self.noise_variance * torch.eye(z.shape[1], device=z.device)
        z = z + torch.linalg.solve(M, (missing * mask) @ self.W)
        return torch.where(given.mask, source, self._to_images(self.mu + z @ self.W.T + noise))

    def encode(self, batch: Batch) -> Tensor:
        """Posterior mean (eq. 9), (B, q): principal coordinates, whitened and shrunk by the noise."""
        return (self._dequantised_centres(batch.images) - self.mu) @ (self.W / self.eigenvalues)

    def decode(self, z: Tensor) -> Tensor:
        """The mean image W z + mu, rounded to levels."""
        return self._to_images(self.mu + z @ self.W.T)

    def reconstruct(self, batch: Batch, noise: NoiseSource) -> Tensor:
        """The orthogonal projection on the components, the least-squares rebuilding of sec. 3.3."""
        del noise
        return self._to_images(self.mu + (self._dequantised_centres(batch.images) - self.mu) @ self.U @ self.U.T)

    def _spectrum(self) -> Tensor:
        """(D,) eigenvalues of C: Lambda_q, then sigma^2; float64 on the CPU."""
        noise = self.noise_variance.expand(self.spec.dims - self.U.shape[1])
        return torch.cat((self.eigenvalues, noise)).detach().cpu().double()

    def log_density(self, y: Tensor) -> Tensor:
        """log N(y; mu, C) of (B, D) dequantised values, (B,) float64 on the CPU."""
        mu, U, eigenvalues, noise_variance = (
            p.detach().cpu().double() for p in (self.mu, self.U, self.eigenvalues, self.noise_variance)
        )
        centred = y.cpu().double() - mu
        projected = centred @ U  # (B, q)
        residual = centred - projected @ U.T
        quadratic = (projected**2 / eigenvalues).sum(1) + (residual**2).sum(1) / noise_variance
        return -0.5 * (self.spec.dims * math.log(2 * math.pi) + self._spectrum().log().sum() + quadratic)

    def likelihood_estimators(self) -> tuple[str, ...]:
        """One: the dequantisation bound, its expectation over the noise in closed form."""
        return (ESTIMATOR,)

    def log_likelihood(self, batch: Batch, noise: NoiseSource, estimator: str) -> LogLikelihood:
        """E_u log p((k + u) / K) - D log K: the density at the bins' middles, less tr(C^-1) / (24 K^2).

        Raises:
            UsageError: unknown estimator.
        """
        del noise
        if estimator != ESTIMATOR:
            raise unknown("estimator of pca", estimator, self.likelihood_estimators())
        K = self.spec.levels
        inside_bins = (1.0 / self._spectrum()).sum() / (24 * K**2)
        nats = self.log_density(self._dequantised_centres(batch.images)) - inside_bins
        return LogLikelihood(nats + dequantised_log_offset(self.spec.dims, K), "lower_bound", ESTIMATOR)
