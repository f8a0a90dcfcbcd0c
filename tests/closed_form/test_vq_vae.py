"""VQ-VAE: its gradients, its codebook, and its bound against the evidence summed over all grids of codes."""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from sklearn.cluster import KMeans
from torch import Tensor, nn

from baselines.latent import vq_vae
from baselines.latent.vq_vae import VQVAE, VQVAEConfig
from baselines.nets.two_stages import TwoStages
from baselines.nets.vector_quantiser import VectorQuantiser, perplexity
from genbench.api import Batch, ImageSpec, SampleRequest, SamplerOptions
from genbench.data.load import load_dataset
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

SPEC = ImageSpec(1, 2, 4, levels=2)
"""Two codes an image: 9 grids of 3 codes, 256 images."""
TINY = {"width": 6, "halvings": 1, "blocks": 1, "code_dim": 2, "prior_width": 8, "prior_layers": 1, "prior_heads": 2}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(decoder: str = "bernoulli", spec: ImageSpec = SPEC, **config: object) -> VQVAE:
    """A model whose decoder and prior are far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = VQVAE(VQVAEConfig(decoder=decoder, num_codes=3, **{**TINY, **config}), spec).eval()
        nn.init.normal_(model.prior.out.weight, std=1.0)
        for parameter in [*model.encoder.parameters(), *model.decoder.parameters()]:
            parameter.data *= 2.5
        with torch.no_grad():
            z = model.encoder(torch.randn(40, *spec.shape)).movedim(1, -1).flatten(0, 2)
        model.quantiser.codebook.copy_(z[[0, 20, 60]] if len(z) > 60 else z[:3])
    return model


def random_batch(spec: ImageSpec, count: int, seed: int = 0) -> Batch:
    levels = torch.randint(spec.levels, (count, *spec.shape), generator=seeded(seed))
    return Batch(from_levels(levels, spec.levels), torch.arange(count))


def all_images(spec: ImageSpec = SPEC) -> Tensor:
    return torch.tensor(list(product(range(spec.levels), repeat=spec.dims))).view(-1, *spec.shape)


class Context:
    """A training context that takes gradients and, where asked, plain gradient steps."""

    def __init__(self, model: nn.Module, progress: float, rate: float = 0.0) -> None:
        self.model, self.progress, self.rate = model, progress, rate
        self.step, self.rng, self.device = 0, seeded(7), torch.device("cpu")
        self.stepped: list[str] = []

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        self.stepped.append(name)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.data -= self.rate * parameter.grad


def test_gradient_is_the_decoders_at_z_q_plus_the_commitments() -> None:
    quantiser = VectorQuantiser(5, 3).double()
    quantiser.counts += 1.0
    z = torch.randn(40, 3, generator=seeded(), dtype=torch.float64, requires_grad=True)
    e = quantiser.lookup(quantiser.nearest(z)).clone().requires_grad_()

    def decoder_loss(v: Tensor) -> Tensor:
        return (v.sin() * v.roll(1, -1) ** 2).sum()

    found = quantiser(z, seeded())
    (decoder_loss(found.z_q) + 0.25 * found.distance.sum()).backward()
    (at_e,) = torch.autograd.grad(decoder_loss(e), e)
    torch.testing.assert_close(found.z_q.detach(), e.detach())
    torch.testing.assert_close(z.grad, at_e + 2 * 0.25 * (z - e).detach(), rtol=1e-12, atol=1e-12)


def test_update_sends_that_gradient_through_the_encoder() -> None:
    """Encoder gradients of one update against the chain rule by hand; the decoder's are those at z_q."""
    model = tiny(commitment=0.7)
    model.quantiser.counts += 1.0
    batch = random_batch(SPEC, 12)
    levels = to_levels(batch.images, 2)
    z = model.encoder(2.0 * levels - 1.0)  # (B, d, h, w)
    e = model.features(model.codes(batch.images)).clone().requires_grad_()
    distortion = -model.log_prob_given(e, levels).mean()
    at_e, *at_decoder = torch.autograd.grad(distortion, [e, *model.decoder.parameters()])
    total = (at_e + 0.7 * 2 * (z - e).detach() / 12) / SPEC.dims
    expected = torch.autograd.grad(z, list(model.encoder.parameters()), total)
    figures = model.update(batch, Context(model, progress=0.0))
    for parameter, gradient in zip(model.encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-7)
    for parameter, gradient in zip(model.decoder.parameters(), at_decoder, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / SPEC.dims, rtol=1e-4, atol=1e-7)
    assert float(figures["distortion"]) == pytest.approx(float(distortion.detach()), rel=1e-5)
    assert float(figures["commitment"]) == pytest.approx(float((z - e).detach().square().sum() / 12), rel=1e-5)


def test_moving_averages_follow_their_closed_form_to_the_means() -> None:
    quantiser = VectorQuantiser(3, 2, decay=0.8).double()
    z = torch.randn(30, 2, generator=seeded(), dtype=torch.float64)
    codes = torch.arange(30) % 2  # nothing for the third code
    counts, sums = torch.tensor([3.0, 5.0, 4.0]).double(), torch.randn(3, 2, generator=seeded(1), dtype=torch.float64)
    quantiser.counts.copy_(counts)
    quantiser.sums.copy_(sums)
    number = torch.tensor([15.0, 15.0, 0.0]).double()
    total = torch.stack((z[0::2].sum(0), z[1::2].sum(0), torch.zeros(2).double()))
    for step in range(1, 200):
        quantiser.learn(z, codes)
        kept = 0.8**step
        if step in (1, 6):
            torch.testing.assert_close(quantiser.counts, kept * counts + (1 - kept) * number)
            torch.testing.assert_close(quantiser.sums, kept * sums + (1 - kept) * total)
    torch.testing.assert_close(quantiser.codebook[:2], torch.stack((z[0::2].mean(0), z[1::2].mean(0))))
    torch.testing.assert_close(quantiser.codebook[2], sums[2] / counts[2])


def test_a_fixed_encoder_gives_the_centres_of_k_means() -> None:
    centres = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]])
    labels = torch.arange(400) % 4
    z = centres[labels] + torch.randn(400, 2, generator=seeded())
    quantiser, rng = VectorQuantiser(4, 2, decay=0.9), seeded(3)
    for _ in range(300):
        quantiser(z, rng)
    means = torch.from_numpy(KMeans(4, init=centres.numpy(), n_init=1, tol=0).fit(z.numpy()).cluster_centers_)
    order = torch.cdist(means, quantiser.codebook).argmin(1)
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    torch.testing.assert_close(quantiser.codebook[order], means, rtol=0, atol=1e-4)


def test_nearest_is_the_nearest() -> None:
    quantiser = VectorQuantiser(17, 5)
    z = torch.randn(6, 7, 5, generator=seeded())
    assert torch.equal(quantiser.nearest(z), torch.cdist(z.flatten(0, 1), quantiser.codebook).argmin(1).view(6, 7))


def test_dead_codes_restart_on_vectors_of_the_batch_and_living_ones_stay() -> None:
    quantiser = VectorQuantiser(6, 2, dead_share=0.1)
    quantiser.counts.copy_(torch.tensor([9.0, 8.0, 0.05, 7.0, 0.0, 6.0]))
    quantiser.sums.copy_(quantiser.counts[:, None] * quantiser.codebook)
    before = quantiser.codebook.clone()
    z = torch.randn(50, 2, generator=seeded()) + 5.0
    assert float(quantiser.restart(z, seeded(1))) == pytest.approx(2 / 6)
    living = torch.tensor([True, True, False, True, False, True])
    assert torch.equal(quantiser.codebook[living], before[living])
    assert (torch.cdist(quantiser.codebook[~living], z) == 0).any(1).all()
    mean = 30.05 / 6
    torch.testing.assert_close(quantiser.counts, torch.tensor([9.0, 8.0, mean, 7.0, mean, 6.0]))
    torch.testing.assert_close(quantiser.sums[~living], mean * quantiser.codebook[~living])


def test_first_batch_fills_the_codebook_and_usage_recovers_from_a_collapse() -> None:
    quantiser, rng = VectorQuantiser(16, 2, decay=0.9, dead_share=0.03), seeded()
    z = torch.randn(400, 2, generator=seeded(1))
    first = quantiser(z, rng)
    assert float(first.dead) == 1.0
    assert float(perplexity(first.codes, 16)) > 8
    quantiser.codebook[1:] += 1e3  # all but one out of reach
    quantiser.sums.copy_(quantiser.counts[:, None] * quantiser.codebook)
    collapsed = perplexity(quantiser.nearest(z), 16)
    for _ in range(100):
        found = quantiser(z, rng)
    assert float(collapsed) == pytest.approx(1.0)
    assert float(perplexity(found.codes, 16)) > 12


def test_perplexity_counts_the_codes_in_use() -> None:
    assert float(perplexity(torch.arange(40) % 8, 20)) == pytest.approx(8.0, rel=1e-5)
    assert float(perplexity(torch.zeros(9, dtype=torch.int64), 4)) == pytest.approx(1.0)


def tables(model: VQVAE) -> tuple[Tensor, Tensor, Tensor]:
    """All grids of codes (9, 2), log p(z) (9,) from the prior's conditionals, log p(x | z) (256, 9) by hand."""
    grids = torch.tensor(list(product(range(3), repeat=2)))
    with torch.no_grad():
        cache = model.prior.start(9)
        first = model.prior.step(None, cache).double().log_softmax(-1)
        second = model.prior.step(grids[:, 0], cache).double().log_softmax(-1)
        log_p_z = first.gather(1, grids[:, :1])[:, 0] + second.gather(1, grids[:, 1:])[:, 0]
        vectors = model.quantiser.codebook[grids]  # (9, 2, d)
        p = torch.sigmoid(model.decoder(vectors.transpose(1, 2)[:, :, None]).double()).flatten(1)  # (9, 8)
    x = all_images().flatten(1).double()
    return grids, log_p_z, x @ p.log().T + (1 - x) @ (1 - p).log().T


def test_bound_is_one_term_of_the_evidence_summed_over_all_grids() -> None:
    model = tiny()
    grids, log_p_z, log_p_x = tables(model)
    log_p = (log_p_x + log_p_z).logsumexp(1)
    assert float(log_p.exp().sum()) == pytest.approx(1.0, abs=1e-9)
    assert float(log_p_z.exp().max()) > 0.3  # the prior is far from uniform
    batch = Batch(from_levels(all_images(), 2), torch.arange(256))
    found = model.log_likelihood(batch, NoiseSource(0, batch.index), "elbo")
    assert (found.kind, found.estimator, found.standard_error) == ("lower_bound", "elbo", None)
    assert found.nats.dtype == torch.float64
    codes = model.codes(batch.images)
    assert codes.unique(dim=0).shape[0] > 2
    chosen = (codes @ torch.tensor([3, 1]))[:, None]
    assert torch.equal(grids[chosen[:, 0]], codes)
    expected = log_p_x.gather(1, chosen)[:, 0] + log_p_z[chosen[:, 0]]
    torch.testing.assert_close(found.nats, expected, rtol=0, atol=1e-5)
    assert (found.nats < log_p + 1e-6).all()
    torch.testing.assert_close(model.validate(batch, NoiseSource(0, batch.index)), -expected, rtol=0, atol=1e-5)


def test_samples_follow_the_evidence() -> None:
    model, count = tiny(), 6000
    _, log_p_z, log_p_x = tables(model)
    p = (log_p_x + log_p_z).logsumexp(1).exp()
    drawn = to_levels(model.sample(SampleRequest(NoiseSource(5, torch.arange(count)))), 2).flatten(1)
    seen = torch.bincount(drawn @ (2 ** torch.arange(7, -1, -1)), minlength=256)
    keep = p * count >= 5
    observed = torch.cat((seen[keep], seen[~keep].sum()[None])).double().numpy()
    expected = (torch.cat((p[keep], p[~keep].sum()[None])) * count).numpy()
    assert len(observed) > 20
    assert chisquare(observed, expected).pvalue > 1e-3
    assert chisquare(observed).pvalue < 1e-6


def test_codes_are_in_raster_order_and_say_which_vectors_the_decoder_has() -> None:
    spec = ImageSpec(1, 4, 12, levels=5)
    model, batch = tiny("categorical", spec), random_batch(spec, 3)
    codes = model.codes(batch.images)
    assert model.grid == (2, 6)
    assert codes.unique().numel() == 3
    with torch.no_grad():
        z = model.encoder(to_levels(batch.images, 5) * 0.5 - 1.0)
    features = model.features(codes)
    for i, row, column in product(range(3), range(2), range(6)):
        k = int(codes[i, row * 6 + column])
        assert torch.equal(features[i, :, row, column], model.quantiser.codebook[k])
        distances = (model.quantiser.codebook - z[i, :, row, column]).square().sum(1)
        assert float(distances[k]) == pytest.approx(float(distances.min()))


def test_stages_share_the_budget_and_each_rate_falls_to_zero() -> None:
    stages = TwoStages(0.25)
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = stages.anneal(torch.optim.SGD([parameter], lr=1.0))
    moved = []
    for progress in (0.0, 0.375, 0.7499, 0.75, 0.875, 0.9999):
        optimizer.param_groups[0]["lr"] = 1.0
        stage, before = stages.enter(progress), parameter.item()
        parameter.grad = torch.ones(1)
        optimizer.step()
        moved.append((stage, round(before - parameter.item(), 3)))
    assert moved == [(0, 1.0), (0, 0.5), (0, 0.0), (1, 1.0), (1, 0.5), (1, 0.0)]


def test_each_stage_learns_its_own_half_of_the_model() -> None:
    model = tiny(prior_share=0.4)
    nn.init.zeros_(model.prior.out.weight)
    batch = random_batch(SPEC, 16)
    validation = model.validate(batch, NoiseSource(0, batch.index))
    levels = to_levels(batch.images, 2)
    distortion = -model.log_prob_given(model.features(model.codes(batch.images)), levels)
    torch.testing.assert_close(validation.float(), distortion.detach() + 2 * math.log(3), rtol=1e-5, atol=1e-5)
    for progress, name, moving in ((0.59, "autoencoder", False), (0.6, "prior", True)):
        before = {k: v.clone() for k, v in model.state_dict().items()}
        model.zero_grad()
        context = Context(model, progress, rate=0.1)
        model.train().update(batch, context)
        assert context.stepped == [name]
        changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
        assert changed and all(k.startswith("prior.") == moving for k in changed)
        assert moving or {"quantiser.codebook", "encoder.1.weight", "decoder.0.weight"} <= changed
    optimizers = model.optimizers()
    owned = [id(p) for o in optimizers.values() for g in o.param_groups for p in g["params"]]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())
    assert len(optimizers["prior"].param_groups[0]["params"]) == len(list(model.prior.parameters()))


def test_zero_temperature_is_the_decoded_codes() -> None:
    model = tiny("categorical", ImageSpec(1, 4, 4, levels=17))

    def sample(temperature: float | None) -> Tensor:
        return model.sample(SampleRequest(NoiseSource(0, torch.arange(9)), SamplerOptions(temperature=temperature)))

    codes = model.prior.sample(NoiseSource(0, torch.arange(9)))
    assert torch.equal(sample(0.0), model.decode_codes(codes))
    assert torch.equal(sample(1.0), sample(None))
    assert not torch.equal(sample(0.0), sample(1.0))


def test_a_short_training_halves_the_reconstruction_error_of_a_constant_image() -> None:
    splits = load_dataset("digits")
    config = VQVAEConfig(
        decoder="categorical", num_codes=32, **{**TINY, "width": 24, "code_dim": 8}, codebook_decay=0.9
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VQVAE(config, splits.spec)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    context = SimpleNamespace(
        progress=0.0, rng=seeded(), device=torch.device("cpu"), backward=lambda loss: loss.backward()
    )
    context.step_optimizer = lambda name: (optimizer.step(), optimizer.zero_grad())
    for step in range(110):
        model.update(splits.train.batch(np.arange(step * 64, step * 64 + 64) % len(splits.train)), context)
    test = splits.test.batch(np.arange(len(splits.test)))
    rebuilt = model.eval().reconstruct(test, NoiseSource(0, test.index))
    x = test.images.double()
    constant = torch.from_numpy(splits.train.images).double().mean(0)
    assert ((rebuilt.double() - x) ** 2).mean() < 0.5 * ((constant - x) ** 2).mean()
    assert float(perplexity(model.codes(test.images), 32)) > 8


def test_misfits_are_refused() -> None:
    with pytest.raises(UsageError, match="VQVAE: 3 halvings need sides divisible by 8, images are 28 x 28"):
        VQVAE(VQVAEConfig(halvings=3), ImageSpec(1, 28, 28, 2))
    with pytest.raises(UsageError, match="2 levels, these have 17"):
        VQVAE(VQVAEConfig(decoder="bernoulli"), ImageSpec(1, 8, 8, 17))
    with pytest.raises(UsageError, match="multiple of its heads, got 8 and 3 heads"):
        tiny(prior_heads=3)
    batch = random_batch(SPEC, 2)
    with pytest.raises(UsageError, match="Unknown likelihood estimator 'iwae-5'"):
        tiny().log_likelihood(batch, NoiseSource(0, batch.index), "iwae-5")
    assert vq_vae.code_grid("VQVAE", ImageSpec(3, 32, 16), 2) == (8, 4)
