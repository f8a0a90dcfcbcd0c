"""Small models for tests of the harness, used as plug-ins from this file (``toys.py:Class``)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import nn

from genbench.api import GenerativeModel, LogLikelihood, ModelConfig
from genbench.images import from_levels, to_float


class Histogram(GenerativeModel):
    """One learned categorical distribution for all pixels: trains in milliseconds, with every kind of state."""

    networks = ("net",)
    averaged = ("net",)

    class Net(nn.Module):
        def __init__(self, levels):
            super().__init__()
            self.logits = nn.Parameter(0.01 * torch.randn(levels))

        def forward(self):
            return self.logits

    def __init__(self, config: ModelConfig, spec) -> None:
        super().__init__(config, spec)
        self.net = self.Net(spec.levels)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def optimizers(self):
        return {"main": torch.optim.Adam(self.parameters(), lr=0.05)}

    def _nats(self, images):
        from genbench.images import to_levels

        return torch.log_softmax(self.net(), 0)[to_levels(images, self.spec.levels)].flatten(1).sum(1)

    def update(self, batch, ctx):
        loss = -self._nats(batch.images).mean() + 0.01 * torch.randn((), generator=ctx.rng)
        ctx.backward(loss)
        ctx.step_optimizer("main")
        self.seen += len(batch)
        return {"loss": loss.detach()}

    def validate(self, batch, noise):
        return -self._nats(batch.images)

    def sample(self, request):
        p = torch.softmax(self.net(), 0).expand(len(request), *self.spec.shape, -1)
        return from_levels(request.noise.categorical(p), self.spec.levels)

    def likelihood_estimators(self):
        return ("exact",)

    def log_likelihood(self, batch, noise, estimator):
        return LogLikelihood(self._nats(batch.images).double(), "exact", "exact")


class Shade(Histogram):
    """Class-conditional: a sample's top half is as bright as its class is late."""

    conditions = frozenset({"labels"})

    def sample(self, request):
        images = super().sample(request)
        labels = request.condition.labels[:, None, None, None]
        top = from_levels(labels * (self.spec.levels - 1) // max(1, self.spec.num_classes - 1), self.spec.levels)
        return torch.cat(
            (top.expand_as(images[:, :, : self.spec.height // 2]), images[:, :, self.spec.height // 2 :]), 2
        )


class Slow(Histogram):
    """Takes its time in training, so that a test can interrupt it."""

    def update(self, batch, ctx):
        time.sleep(0.02)
        return super().update(batch, ctx)


class Raises(Histogram):
    """Raises in training."""

    def update(self, batch, ctx):
        raise RuntimeError("no luck today")


class Diverges(Histogram):
    """Its loss becomes NaN."""

    def update(self, batch, ctx):
        return {"loss": super().update(batch, ctx)["loss"] * float("nan")}


class WrongShape(Histogram):
    """Returns samples without the channel axis."""

    def sample(self, request):
        return super().sample(request)[:, 0]


class WrongType(Histogram):
    """Returns floats, some NaN."""

    def sample(self, request):
        return to_float(super().sample(request), self.spec.levels) * float("nan")


class OffLevels(Histogram):
    """Returns values that are no level."""

    def sample(self, request):
        return super().sample(request) // 2 + 1


class BadLikelihood(Histogram):
    """Its likelihood is infinite."""

    def log_likelihood(self, batch, noise, estimator):
        return LogLikelihood(torch.full((len(batch),), -torch.inf, dtype=torch.float64), "exact", "exact")


class Dies(Histogram):
    """Takes its process down."""

    def sample(self, request):
        os._exit(7)


class CannotSample(Histogram):
    """Raises in sampling."""

    def sample(self, request):
        raise RuntimeError("no luck today")


class FailsWhenTimed(Histogram):
    """Its sampler fails at the batch size of the timing."""

    def sample(self, request):
        if len(request) == 4:  # the batch size of the timing in the tests
            raise MemoryError("no memory for four")
        return super().sample(request)


class UsesGlobalNoise(Histogram):
    """Samples from torch's global generator, against the contract."""

    def sample(self, request):
        return from_levels(torch.randint(0, self.spec.levels, (len(request), *self.spec.shape)), self.spec.levels)


class ForgetsState(Histogram):
    """Keeps state outside parameters and buffers, so that a resumed training differs."""

    def __init__(self, config, spec):
        super().__init__(config, spec)
        self.updates = 0

    def update(self, batch, ctx):
        self.updates += 1
        self.net.logits.data[0] += 0.1 * self.updates
        return super().update(batch, ctx)


FILE = Path(__file__)
