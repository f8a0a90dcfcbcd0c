"""Sampling of the autoregressive models at 28 x 28: what is cached against a full pass per value, in one run."""

import time

import pytest
import torch

from baselines.autoregressive.gated_pixelcnn import GatedPixelCNN, GatedPixelCNNConfig
from baselines.autoregressive.pixelcnn import PixelCNN, PixelCNNConfig
from baselines.autoregressive.transformer import PixelTransformer, PixelTransformerConfig
from genbench.api import ImageSpec, SampleRequest
from genbench.images import levels_to_float, to_levels
from genbench.noise import NoiseSource
from genbench.train import build_model

SPEC = ImageSpec(1, 28, 28, 2)
BATCH, TIMED = 8, 16
MODELS = {
    "gated_pixelcnn": (GatedPixelCNN, GatedPixelCNNConfig(channels=32, layers=8)),
    "pixelcnn": (PixelCNN, PixelCNNConfig(hidden=32, blocks=8)),
    "transformer": (PixelTransformer, PixelTransformerConfig(patch=1, width=64, layers=4)),
    "transformer, 2 x 2 patches": (PixelTransformer, PixelTransformerConfig(patch=2, width=128, layers=4)),
}


def build(name):
    """A model whose conditionals are far from uniform."""
    model_class, config = MODELS[name]
    model = build_model(model_class, config, SPEC, seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def drawn_by_full_passes(model, images, noise, places):
    """Seconds for ``places`` values or tokens, spread evenly, each by a full pass over what comes before it.

    Each draw must equal the one in ``images``, the samples for the same noise; the other places are only skipped, and
    pass their noise by.
    """
    levels = to_levels(images, SPEC.levels)
    tokens = model.tokens_of(levels) if isinstance(model, PixelTransformer) else levels.flatten(1)
    total, seconds = tokens.shape[1], 0.0
    timed = {round(i * (total - 1) / (places - 1)) for i in range(places)}
    for place in range(total):
        if place not in timed:
            noise.categorical(torch.ones(BATCH, 2))
            continue
        start = time.process_time()
        known = tokens.where(torch.arange(total) < place, 0)
        drawn = noise.categorical(conditional(model, known, place).softmax(-1))
        seconds += time.process_time() - start
        assert torch.equal(drawn, tokens[:, place]), place
    return seconds * total / len(timed), total


def conditional(model, known, place):
    """(B, K) logits of one place by a full pass."""
    if isinstance(model, PixelTransformer):
        return model.network(known)[:, place]
    logits = model.network(levels_to_float(known.view(-1, *SPEC.shape), SPEC.levels))  # (B, 1, K, H, W)
    return logits.flatten(3)[:, 0, :, place]


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_cached_sampling_against_a_full_pass_per_value(benchmark, name):
    """At least five times faster, with the same samples."""
    model = build(name)
    model.sample(SampleRequest(NoiseSource(0, torch.arange(1))))
    start = time.process_time()
    images = benchmark.pedantic(lambda: model.sample(SampleRequest(NoiseSource(0, torch.arange(BATCH)))), rounds=1)
    cached = time.process_time() - start
    assert images.unique().numel() == 2
    full, total = drawn_by_full_passes(model, images, NoiseSource(0, torch.arange(BATCH)), TIMED)
    benchmark.extra_info.update({"seconds": cached, "full_pass_seconds": full, "evaluations": total})
    print(f"\n{name}: {cached:.2f} s cached, {full:.2f} s by full passes, ratio {full / cached:.1f}")
    assert full / cached >= 5.0
