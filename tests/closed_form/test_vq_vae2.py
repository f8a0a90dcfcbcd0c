"""VQ-VAE-2: the hierarchy of its codes, and its bound against the evidence summed over all grids of both levels."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor, nn

from baselines.latent.vq_vae2 import VQVAE2, VQVAE2Config
from genbench.api import Batch, ImageSpec, SampleRequest
from genbench.data.load import load_dataset
from genbench.errors import UsageError
from genbench.images import from_levels, to_levels
from genbench.noise import NoiseSource

SPEC = ImageSpec(1, 4, 4, levels=2)
"""One code at the top and 2 x 2 at the bottom: 32 grids of 2 codes, 2^16 images."""
TINY = {"width": 6, "halvings": 1, "blocks": 1, "code_dim": 2, "prior_width": 8, "prior_layers": 1, "prior_heads": 2}
GRIDS = torch.tensor(list(product(range(2), repeat=5)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny() -> VQVAE2:
    """A model whose networks, codebooks and priors are far from trivial."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = VQVAE2(VQVAE2Config(decoder="bernoulli", num_codes=2, **TINY), SPEC).eval()
        for prior in (model.top_prior, model.bottom_prior):
            for parameter in prior.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.5)
        for name, parameter in model.named_parameters():
            if "prior" not in name:
                parameter.data *= 2.0
        x = torch.randn(40, *SPEC.shape)
        with torch.no_grad():
            h = model.bottom_encoder(x)
            top = model.top_encoder(h).movedim(1, -1).flatten(0, 2)
            model.top_quantiser.codebook.copy_(top[:2])
            e_top = model.top_quantiser.lookup(model.top_quantiser.nearest(model.top_encoder(h).movedim(1, -1)))
            mixed = torch.cat((h, model.top_decoder(e_top.movedim(-1, 1))), 1)
            model.quantiser.codebook.copy_(model.to_bottom(mixed).movedim(1, -1).flatten(0, 2)[[0, 7]])
    return model


def some_images(count: int = 500) -> Batch:
    levels = torch.randint(2, (count, *SPEC.shape), generator=seeded())
    return Batch(from_levels(levels, 2), torch.arange(count))


def prior_table(model: VQVAE2) -> tuple[Tensor, Tensor]:
    """log p(top) + log p(bottom | top) of all 32 grids by the caches of both priors; and log p(bottom | top)."""
    with torch.no_grad():
        log_p_top = model.top_prior.step(None, model.top_prior.start(32)).double().log_softmax(-1)
        cache = model.bottom_prior.start(32)
        model.bottom_prior.step(None, cache)
        given_top = torch.zeros(32, dtype=torch.float64)
        for position in range(1, 5):
            log_p = model.bottom_prior.step(GRIDS[:, position - 1], cache).double().log_softmax(-1)
            given_top += log_p.gather(1, GRIDS[:, position, None])[:, 0]
    return log_p_top.gather(1, GRIDS[:, :1])[:, 0] + given_top, given_top


def likelihood_table(model: VQVAE2, images: Tensor) -> Tensor:
    """log p(x | z), (B, 32), from the codebooks and the decoder by hand."""
    with torch.no_grad():
        top = model.top_quantiser.codebook[GRIDS[:, 0]][:, :, None, None]  # (32, d, 1, 1)
        bottom = model.quantiser.codebook[GRIDS[:, 1:]].transpose(1, 2).reshape(32, 2, 2, 2)
        p = torch.sigmoid(model.decoder(torch.cat((model.up(top), bottom), 1)).double()).flatten(1)
    x = to_levels(images, 2).flatten(1).double()
    return x @ p.log().T + (1 - x) @ (1 - p).log().T


def test_bound_is_one_term_of_the_evidence_summed_over_all_grids() -> None:
    model, batch = tiny(), some_images()
    log_p_z, given_top = prior_table(model)
    assert float(log_p_z.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    assert given_top.exp().view(2, 16).sum(1).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)
    log_p_x = likelihood_table(model, batch.images)
    codes = model.codes(batch.images)
    assert codes.unique(dim=0).shape[0] > 4
    assert codes[:, 0].unique().numel() == 2
    chosen = codes @ torch.tensor([16, 8, 4, 2, 1])
    expected = log_p_x.gather(1, chosen[:, None])[:, 0] + log_p_z[chosen]
    found = model.log_likelihood(batch, NoiseSource(0, batch.index), "elbo")
    assert found.kind == "lower_bound"
    torch.testing.assert_close(found.nats, expected, rtol=0, atol=1e-5)
    assert (found.nats < (log_p_x + log_p_z).logsumexp(1) + 1e-6).all()


def test_evidence_of_all_images_sums_to_one() -> None:
    model = tiny()
    levels = (torch.arange(2**16)[:, None] >> torch.arange(16)) & 1
    log_p_x = likelihood_table(model, from_levels(levels.view(-1, 1, 4, 4), 2))
    assert float((log_p_x + prior_table(model)[0]).exp().sum()) == pytest.approx(1.0, abs=1e-6)


def test_codes_are_drawn_from_the_priors_and_the_bottoms_depend_on_the_tops() -> None:
    model, count = tiny(), 6000
    log_p_z, given_top = prior_table(model)
    first, second = given_top.view(2, 16).exp()
    assert float((first - second).abs().sum()) > 0.2
    drawn = model.draw_codes(NoiseSource(4, torch.arange(count)))
    observed = torch.bincount(drawn @ torch.tensor([16, 8, 4, 2, 1]), minlength=32).double()
    expected = log_p_z.exp() * count
    keep = expected >= 5
    observed = torch.cat((observed[keep], observed[~keep].sum()[None]))
    expected = torch.cat((expected[keep], expected[~keep].sum()[None]))
    assert chisquare(observed.numpy(), (expected * count / expected.sum()).numpy()).pvalue > 1e-3


def test_samples_have_the_mean_of_the_evidence() -> None:
    model, count = tiny(), 6000
    with torch.no_grad():
        p = torch.sigmoid(model.decode_parameters(model.features(GRIDS))[..., 0]).double().flatten(1)
    mean = prior_table(model)[0].exp() @ p
    drawn = to_levels(model.sample(SampleRequest(NoiseSource(6, torch.arange(count)))), 2).double().flatten(1)
    assert ((drawn.mean(0) - mean).abs() < 4.5 * (mean * (1 - mean) / count).sqrt()).all()


def test_bottom_codes_are_chosen_given_the_quantised_top() -> None:
    """The same features on another top code give other bottom vectors, in training and in coding alike."""
    model, batch = tiny(), some_images(64)
    codes = model.codes(batch.images)
    found = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for quantiser in (model.quantiser, model.top_quantiser):
        quantiser.counts += 1.0
        quantiser.sums.copy_(quantiser.codebook)
    x = to_levels(batch.images, 2).float() * 2 - 1
    encoded = model.encode_learning(x, seeded())
    assert torch.equal(encoded.codes, codes)
    model.load_state_dict(found, strict=False)
    torch.testing.assert_close(encoded.features.detach(), model.features(codes).detach())
    model.top_quantiser.codebook.copy_(model.top_quantiser.codebook.flip(0))
    swapped = model.codes(batch.images)
    assert torch.equal(swapped[:, 0], 1 - codes[:, 0])
    model.top_quantiser.codebook += 3.0
    assert not torch.equal(model.codes(batch.images)[:, 1:], codes[:, 1:])


def test_commitment_is_of_both_levels_and_all_networks_learn() -> None:
    model, batch = tiny(), some_images(16)
    for quantiser in (model.quantiser, model.top_quantiser):
        quantiser.counts += 1.0
        quantiser.sums.copy_(quantiser.codebook)
    x = to_levels(batch.images, 2).float() * 2 - 1
    with torch.no_grad():
        h = model.bottom_encoder(x)
        z_top = model.top_encoder(h).movedim(1, -1)
        e_top = model.top_quantiser.lookup(model.top_quantiser.nearest(z_top))
        z_bottom = model.to_bottom(torch.cat((h, model.top_decoder(e_top.movedim(-1, 1))), 1)).movedim(1, -1)
        e_bottom = model.quantiser.lookup(model.quantiser.nearest(z_bottom))
        expected = (z_top - e_top).square().sum((1, 2, 3)) + (z_bottom - e_bottom).square().sum((1, 2, 3))
    encoded = model.encode_learning(x, seeded())
    torch.testing.assert_close(encoded.commitment.detach(), expected)
    model.log_prob_given(encoded.features, to_levels(batch.images, 2)).sum().backward()
    for name, parameter in model.named_parameters():
        assert ("prior" in name) == (parameter.grad is None), name
    first, second = (o.param_groups[0]["params"] for o in model.optimizers().values())
    assert len(first) + len(second) == len(list(model.parameters()))
    assert {id(p) for p in second} == {id(p) for n, p in model.named_parameters() if "prior" in n}


def test_a_short_training_halves_the_reconstruction_error_of_a_constant_image() -> None:
    splits = load_dataset("digits")
    config = VQVAE2Config(
        decoder="categorical", num_codes=32, **{**TINY, "width": 20, "code_dim": 8}, codebook_decay=0.9
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VQVAE2(config, splits.spec)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    context = SimpleNamespace(
        progress=0.0, rng=seeded(), device=torch.device("cpu"), backward=lambda loss: loss.backward()
    )
    context.step_optimizer = lambda name: (optimizer.step(), optimizer.zero_grad())
    for step in range(120):
        model.update(splits.train.batch(np.arange(step * 64, step * 64 + 64) % len(splits.train)), context)
    test = splits.test.batch(np.arange(len(splits.test)))
    rebuilt = model.eval().reconstruct(test, NoiseSource(0, test.index))
    x = test.images.double()
    constant = torch.from_numpy(splits.train.images).double().mean(0)
    assert ((rebuilt.double() - x) ** 2).mean() < 0.5 * ((constant - x) ** 2).mean()


def test_a_top_grid_needs_one_more_halving() -> None:
    with pytest.raises(UsageError, match="VQVAE2: 3 halvings need sides divisible by 8, images are 28 x 28"):
        VQVAE2(VQVAE2Config(halvings=2), ImageSpec(1, 28, 28, 2))
    model = VQVAE2(VQVAE2Config(decoder="categorical", **TINY), ImageSpec(3, 8, 16, 5))
    assert (model.top_grid, model.grid) == ((2, 4), (4, 8))
