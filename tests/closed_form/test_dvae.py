"""Discrete VAE: its bounds against the evidence summed over all codes, its relaxation, its annealing."""

from __future__ import annotations

import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from baselines.latent import dvae
from baselines.latent.dvae import DVAE, DVAEConfig, half_cosine
from genbench.api import Batch, ImageSpec, LogLikelihood, SampleRequest, SamplerOptions
from genbench.data.load import load_dataset
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.likelihood import importance
from genbench.noise import NoiseSource

SPEC = ImageSpec(1, 2, 4, levels=2)
"""Two codes an image: 9 grids of 3 codes, 256 images."""
TINY = {"width": 4, "halvings": 1, "blocks": 1, "code_dim": 4, "prior_width": 8, "prior_layers": 1, "prior_heads": 2}
GRIDS = torch.tensor(list(product(range(3), repeat=2)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(decoder: str = "bernoulli", spec: ImageSpec = SPEC, **config: object) -> DVAE:
    """A model whose posterior, decoder and prior are far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = DVAE(DVAEConfig(decoder=decoder, num_codes=3, **{**TINY, **config}), spec).eval()
        nn.init.normal_(model.prior.out.weight, std=1.0)
        for parameter in model.encoder.parameters():
            parameter.data *= 2.0
    return model


def batch_of(levels: Tensor) -> Batch:
    return Batch(from_levels(levels, 2), torch.arange(len(levels)))


def all_images() -> Tensor:
    return torch.tensor(list(product(range(2), repeat=8))).view(-1, *SPEC.shape)


def tables(model: DVAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """By hand, for all 9 grids of codes: log p(x, z) and log q(z | x), both (B, 9) float64."""
    with torch.no_grad():
        cache = model.prior.start(9)
        first = model.prior.step(None, cache).double().log_softmax(-1)
        second = model.prior.step(GRIDS[:, 0], cache).double().log_softmax(-1)
        log_p_z = first.gather(1, GRIDS[:, :1])[:, 0] + second.gather(1, GRIDS[:, 1:])[:, 0]
        one_hot = torch.zeros(9, 3, 1, 2).scatter_(1, GRIDS[:, None, None], 1.0)
        p = torch.sigmoid(model.decoder(one_hot).double()).flatten(1)
        x = to_levels(images, 2).double()
        log_q = model.encoder((2 * x - 1).float()).double().log_softmax(1)[:, :, 0]  # (B, 3, 2)
    x = x.flatten(1)
    joint = x @ p.log().T + (1 - x) @ (1 - p).log().T + log_p_z
    return joint, log_q[:, GRIDS[:, 0], 0] + log_q[:, GRIDS[:, 1], 1]


def repeated(image: Tensor, count: int) -> Batch:
    return batch_of(image.expand(count, -1, -1, -1))


def bound(model: DVAE, batch: Batch, estimator: str) -> LogLikelihood:
    return model.log_likelihood(batch, NoiseSource(0, batch.index, "likelihood"), estimator)


def test_evidence_of_all_images_sums_to_one() -> None:
    joint, log_q = tables(tiny(), from_levels(all_images(), 2))
    assert float(joint.exp().sum()) == pytest.approx(1.0, abs=1e-9)
    torch.testing.assert_close(log_q.exp().sum(1), torch.ones(256, dtype=torch.float64))
    assert float(log_q.exp().amax(1).std()) > 0.05  # the posterior depends on the image


def test_elbo_is_the_evidence_less_the_divergence_to_the_true_posterior() -> None:
    model = tiny()
    images = all_images()[[0, 37, 255]]
    joint, log_q = tables(model, from_levels(images, 2))
    log_p = joint.logsumexp(1)
    exact = (log_q.exp() * (joint - log_q)).sum(1)
    gap = (log_q.exp() * (log_q - (joint - log_p[:, None]))).sum(1)
    torch.testing.assert_close(exact, log_p - gap)
    assert (gap > 0.05).all()
    for image, value in zip(images, exact, strict=True):
        batch = repeated(image, 1500)
        found = bound(model, batch, "elbo")
        assert (found.kind, found.estimator) == ("lower_bound", "elbo")
        error = float(found.nats.std()) / math.sqrt(1500)
        assert float(found.nats.mean()) == pytest.approx(float(value), abs=4.5 * error)
        reported = float(found.standard_error.square().mean().sqrt())
        assert reported == pytest.approx(float(found.nats.std()), rel=0.1)
        single = -model.validate(batch, NoiseSource(9, batch.index))
        assert float(single.mean()) == pytest.approx(float(value), abs=4.5 * float(single.std()) / math.sqrt(1500))


def test_expected_iwae_rises_with_k_to_the_evidence_and_its_weights_are_unbiased() -> None:
    model, image = tiny(), all_images()[37]
    joint, log_q = tables(model, from_levels(image[None], 2))
    log_p, elbo = float(joint.logsumexp(1)), float((log_q.exp() * (joint - log_q)).sum())
    batch = repeated(image, 3000)
    draws = {k: bound(model, batch, f"iwae-{k}").nats for k in (1, 3, 12, 100)}
    means = [float(v.mean()) for v in draws.values()]
    errors = [float(v.std()) / math.sqrt(3000) for v in draws.values()]
    assert means[0] == pytest.approx(elbo, abs=4.5 * errors[0])
    assert all(a + 2 * e < b for a, b, e in zip(means[:2], means[1:3], errors[:2], strict=True))
    assert means == sorted(means)
    variance = float((2 * joint - log_q).logsumexp(1).exp()) / math.exp(2 * log_p) - 1  # of w / P(x)
    assert means[-1] == pytest.approx(log_p - variance / 200, abs=4.5 * errors[-1] + 0.01)
    w = (draws[1] - log_p).exp()
    assert float(w.mean()) == pytest.approx(1.0, abs=4.5 * float(w.std()) / math.sqrt(3000))


def test_chunks_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = tiny(), batch_of(all_images()[:7])
    whole = bound(model, batch, "iwae-40")
    alone = Batch(batch.images[3:4], batch.index[3:4])
    torch.testing.assert_close(bound(model, alone, "iwae-40").nats, whole.nats[3:4], rtol=0, atol=1e-5)
    monkeypatch.setattr(importance, "CHUNK_VALUES", 7 * 32 * 3)
    torch.testing.assert_close(bound(model, batch, "iwae-40").nats, whole.nats, rtol=0, atol=1e-5)


def test_samples_follow_the_evidence() -> None:
    model, count = tiny(), 6000
    p = tables(model, from_levels(all_images(), 2))[0].logsumexp(1).exp()
    drawn = to_levels(model.sample(SampleRequest(NoiseSource(5, torch.arange(count)))), 2).flatten(1)
    seen = torch.bincount(drawn @ (2 ** torch.arange(7, -1, -1)), minlength=256)
    keep = p * count >= 5
    observed = torch.cat((seen[keep], seen[~keep].sum()[None])).double().numpy()
    expected = (torch.cat((p[keep], p[~keep].sum()[None])) * count).numpy()
    assert len(observed) > 20
    assert chisquare(observed, expected).pvalue > 1e-3
    assert chisquare(observed).pvalue < 1e-6


def test_gumbel_softmax_draws_the_categorical_and_hardens_as_tau_falls() -> None:
    p = np.array([0.5, 0.3, 0.15, 0.05])
    logits = torch.from_numpy(p).log() + dvae.gumbel(torch.Size((20_000, 4)), seeded(), torch.device("cpu"))
    counts = torch.bincount(logits.argmax(1), minlength=4).numpy()
    assert chisquare(counts, 20_000 * p).pvalue > 1e-3
    hardness = [float((logits / tau).softmax(-1).amax(1).mean()) for tau in (1.0, 0.25, 1e-3)]
    assert hardness == sorted(hardness)
    assert hardness[-1] > 0.998
    noise = dvae.gumbel(torch.Size((20_000,)), seeded(1), torch.device("cpu")).double()
    assert float(noise.mean()) == pytest.approx(0.5772, abs=4.5 * math.pi / math.sqrt(6 * 20_000))
    assert float(noise.std()) == pytest.approx(math.pi / math.sqrt(6), rel=0.03)


class Context:
    """A training context that takes gradients and, where asked, plain gradient steps."""

    def __init__(self, model: nn.Module, progress: float, rate: float = 0.0) -> None:
        self.model, self.progress, self.rate = model, progress, rate
        self.step, self.rng, self.device = 0, seeded(7), torch.device("cpu")
        self.stepped: list[str] = []
        self.losses: list[float] = []

    def backward(self, loss: Tensor) -> None:
        self.losses.append(float(loss.detach()))
        loss.backward()

    def step_optimizer(self, name: str) -> None:
        self.stepped.append(name)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.data -= self.rate * parameter.grad


@pytest.mark.parametrize(("progress", "tau", "beta"), [(0.0, 1.0, 0.0), (0.1, 0.53125, 1.5), (0.4, 0.0625, 3.0)])
def test_first_stage_minimises_the_relaxed_bound(progress: float, tau: float, beta: float) -> None:
    """The loss by hand: tau has fallen halfway to 1/16 and beta risen halfway to 3 at a fifth of a stage of 0.5."""
    model = tiny(kl_weight=3.0, kl_warmup=0.4, temperature_share=0.4, prior_share=0.5)
    batch = batch_of(all_images()[::9])
    log_q = model.posterior(batch.images).detach()
    relaxed = ((log_q + dvae.gumbel(log_q.shape, seeded(7), torch.device("cpu"))) / tau).softmax(-1)
    logits = model.decoder(relaxed.transpose(1, 2)[:, :, None])[:, 0]
    x = to_levels(batch.images, 2)[:, 0].float()
    distortion = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2)).mean()
    kl = (log_q.exp() * (log_q - math.log(1 / 3))).sum((1, 2)).mean()
    context = Context(model, progress)
    figures = model.update(batch, context)
    assert context.losses[0] == pytest.approx(float((distortion + beta * kl).detach()) / 8, rel=1e-5)
    assert float(figures["kl_to_uniform"]) == pytest.approx(float(kl), rel=1e-5)


def test_each_stage_learns_its_own_part_of_the_model() -> None:
    model = tiny(prior_share=0.4)
    for progress, name in ((0.59, "autoencoder"), (0.6, "prior")):
        before = {k: v.clone() for k, v in model.state_dict().items()}
        model.zero_grad()
        context = Context(model, progress, rate=0.1)
        model.train().update(batch_of(all_images()[::5]), context)
        assert context.stepped == [name]
        changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
        assert changed and all(k.startswith("prior.") == (name == "prior") for k in changed)
        assert name == "prior" or {k.split(".")[0] for k in changed} == {"encoder", "decoder"}
    owned = [id(p) for o in model.optimizers().values() for g in o.param_groups for p in g["params"]]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())


def test_second_stage_approaches_the_aggregate_posterior() -> None:
    """The best prior is the mean of q over the data, sum_x q(z | x) / N, and it tightens the bound."""
    model = tiny(prior_dropout=0.0)
    nn.init.zeros_(model.prior.out.weight)
    batch = batch_of(all_images()[::3])
    before = -model.validate(batch, NoiseSource(0, batch.index)).mean()
    optimizer = torch.optim.Adam(model.prior.parameters(), lr=2e-2)
    context = Context(model, 0.9)
    context.step_optimizer = lambda name: (optimizer.step(), optimizer.zero_grad())
    for _ in range(150):
        model.update(batch, context)
    joint, log_q = tables(model, batch.images)
    aggregate = log_q.exp().mean(0)
    with torch.no_grad():
        prior = model.prior.log_prob(GRIDS).exp()
    assert float((prior - aggregate).abs().sum()) < 0.1
    assert float((aggregate - 1 / 9).abs().sum()) > 0.3
    assert float(-model.validate(batch, NoiseSource(0, batch.index)).mean()) > float(before)
    assert float((log_q.exp() * (joint - log_q)).sum(1).mean()) > float(before)


def test_no_code_is_less_likely_than_its_floor() -> None:
    model = tiny()
    for parameter in model.encoder.parameters():
        parameter.data *= 30
    log_q = model.posterior(batch_of(all_images()).images).detach()
    floor = dvae.MIN_LOGIT - math.log(3)
    assert float(log_q.min()) >= floor - 1e-4
    assert float(log_q.min()) < dvae.MIN_LOGIT + 0.01
    torch.testing.assert_close(log_q.exp().sum(-1), torch.ones(256, 2))


def test_schedules_meet_their_ends() -> None:
    assert half_cosine(1.0, 1 / 16, 0.0, 0.5) == 1.0
    assert half_cosine(1.0, 1 / 16, 0.25, 0.5) == pytest.approx(0.5 * (1 + 1 / 16))
    assert half_cosine(1.0, 1 / 16, 0.9, 0.5) == 1 / 16
    assert half_cosine(0.0, 6.6, 0.0, 0.0) == 6.6


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
    annealing = {"kl_weight": 0.1, "temperature": 0.25, "temperature_share": 0.3}
    config = DVAEConfig(decoder="categorical", num_codes=32, **{**TINY, "width": 12, "code_dim": 32}, **annealing)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = DVAE(config, splits.spec)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    context = SimpleNamespace(rng=seeded(), device=torch.device("cpu"), backward=lambda loss: loss.backward())
    context.step_optimizer = lambda name: (optimizer.step(), optimizer.zero_grad())
    for step in range(150):
        context.progress = step / 300
        model.update(splits.train.batch(np.arange(step * 64, step * 64 + 64) % len(splits.train)), context)
    test = splits.test.batch(np.arange(len(splits.test)))
    rebuilt = model.eval().reconstruct(test, NoiseSource(0, test.index))
    x = test.images.double()
    constant = torch.from_numpy(splits.train.images).double().mean(0)
    assert ((rebuilt.double() - x) ** 2).mean() < 0.5 * ((constant - x) ** 2).mean()


def test_misfits_are_refused() -> None:
    with pytest.raises(UsageError, match="DVAE: 3 halvings need sides divisible by 8, images are 28 x 28"):
        DVAE(DVAEConfig(halvings=3), ImageSpec(1, 28, 28, 2))
    with pytest.raises(UsageError, match="2 levels, these have 17"):
        DVAE(DVAEConfig(decoder="bernoulli"), ImageSpec(1, 8, 8, 17))
    with pytest.raises(ValueError, match="multiple of 4"):
        DVAEConfig(width=6)
    with pytest.raises(UsageError, match="iwae-K"):
        bound(tiny(), batch_of(all_images()[:2]), "iwae-0")
    assert tiny(importance_draws=(7, 3)).likelihood_estimators() == ("iwae-7", "iwae-3", "elbo")
