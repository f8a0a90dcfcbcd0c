"""What the harness costs on top of a model: sampling through it against a bare loop, in one run."""

import statistics
import time

import torch

from genbench import registry
from genbench.api import SampleRequest
from genbench.noise import NoiseSource
from genbench.recipe import sampler_options
from genbench.sample import draw_samples
from genbench.testing import subject_for

NAMES = ("ddpm", "ebm", "pixelcnn")
SAMPLES, BATCH, REPEATS = 128, 64, 7


class TorchNoise:
    """The cheapest noise there is: one torch generator for the whole batch, as a bare loop would use."""

    def __init__(self, count):
        self.index = torch.arange(count)
        self.device = self.index.device
        self._generator = torch.Generator().manual_seed(0)

    def __len__(self):
        return len(self.index)

    def normal(self, shape):
        return torch.randn((len(self), *shape), generator=self._generator)

    def uniform(self, shape):
        return torch.rand((len(self), *shape), generator=self._generator)

    def rademacher(self, shape):
        return torch.randint(0, 2, (len(self), *shape), generator=self._generator).float() * 2 - 1

    def categorical(self, probabilities):
        flat = torch.multinomial(probabilities.flatten(0, -2), 1, generator=self._generator)
        return flat.reshape(probabilities.shape[:-1])


def ratios(noise):
    """Time of a bare loop over time through the harness by model: the median over alternated repetitions."""
    return {name: ratio(name, noise) for name in NAMES}


def ratio(name, noise):
    subject = subject_for(registry.load_model(name))
    model, _ = subject.trained()
    options = sampler_options(subject.model_class, subject.sample)

    @torch.no_grad()
    def bare():
        for start in range(0, SAMPLES, BATCH):
            model.sample(SampleRequest(noise(torch.arange(start, start + BATCH)), options))

    def through_harness():
        draw_samples(model, SAMPLES, 0, BATCH, options)

    def seconds(work):
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    seconds(bare), seconds(through_harness)
    return statistics.median(seconds(bare) / seconds(through_harness) for _ in range(REPEATS))


def report(benchmark, figures):
    benchmark.extra_info.update(figures)
    benchmark.pedantic(lambda: None, rounds=1)
    print("\nbare loop / harness:", {name: round(value, 3) for name, value in figures.items()})


def test_sampling_through_the_harness(benchmark):
    """The harness (requests, checks, copies) leaves a sampler at least 95 % of the speed of a bare loop."""
    figures = ratios(lambda index: NoiseSource(0, index))
    report(benchmark, figures)
    assert min(figures.values()) >= 0.95, figures


def test_reproducible_noise_against_one_generator(benchmark):
    """Noise that does not depend on the batch costs a network's sampler at most 5 %.

    The chain on the 8 x 8 energy, whose network costs as little as noise itself, is shown but not held to that.
    """
    figures = ratios(lambda index: TorchNoise(len(index)))
    report(benchmark, figures)
    assert min(figures["ddpm"], figures["pixelcnn"]) >= 0.95, figures
