"""The contract suite: what every model must satisfy, for reference models and plug-ins alike.

    from genbench.testing import check_model

    def test_my_model():
        check_model(MyModel)

Each check is also a function of its own; `CHECKS` lists them in order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genbench.api import (
    Batch,
    Condition,
    Encodes,
    Fittable,
    GenerativeModel,
    HasLatent,
    HasLikelihood,
    HasNormaliser,
    ImageSpec,
    Reconstructs,
    Trainable,
)
from genbench.checkpoint import load_checkpoint, save_checkpoint
from genbench.data.base import ImageDataset, Splits
from genbench.errors import Interrupted, UsageError
from genbench.images import from_levels
from genbench.noise import NoiseSource
from genbench.recipe import TrainRecipe, build_config, load_recipe, sampler_options
from genbench.record import Training
from genbench.sample import check_images, default_condition, draw, draw_samples, inpainting_condition, sample_labels
from genbench.train import Trainer, build_model, seeded

DIFFERING_SHARE = 0.001
"""Share of pixels that may differ, by one level, between batch sizes (float rounding)."""


@dataclass(frozen=True)
class Subject:
    """A model under check: its class, config, and a small dataset that fits its recipe."""

    model_class: type[GenerativeModel]
    reference: str
    config: dict[str, Any]
    recipe: TrainRecipe
    sample: dict[str, Any]
    splits: Splits
    steps: int
    num_samples: int

    def build(self, seed: int = 0) -> GenerativeModel:
        """A model with initial weights."""
        config = build_config(self.model_class, self.config)
        return build_model(self.model_class, config, self.splits.spec, seed)

    def trained(self, state_dir: Path | None = None, stop_at: int | None = None) -> tuple[GenerativeModel, Training]:
        """A model after a few steps (or its fit); `Interrupted` after ``stop_at`` steps where given."""
        model = self.build()
        if not isinstance(model, Trainable):
            with seeded(0, torch.device("cpu")) as rng:
                if isinstance(model, Fittable):
                    model.fit(self.splits.training_data(), rng)
                else:
                    model.fit_splits(self.splits, rng)  # type: ignore[operator]
            return model.eval(), Training()
        trainer = Trainer(
            model,
            self.splits.training_data(),
            self.recipe,
            seed=0,
            device=torch.device("cpu"),
            steps=self.steps,
            state_dir=state_dir,
            should_stop=lambda: stop_at is not None and trainer.progress.step >= stop_at,
        )
        return model, trainer.run()

    def draw(self, model: GenerativeModel, batch_size: int, seed: int = 0) -> np.ndarray:
        """Samples with the recipe's sampler options."""
        return draw_samples(model, self.num_samples, seed, batch_size, sampler_options(self.model_class, self.sample))


def random_splits(spec: ImageSpec, sizes: tuple[int, int, int] = (64, 24, 24), seed: int = 0) -> Splits:
    """Random images with structure (a bright square on a noisy ground), on the levels of ``spec``, with labels."""
    rng = np.random.default_rng(seed)

    def split(name: Any, count: int) -> ImageDataset:
        levels = rng.integers(0, max(2, spec.levels // 4), (count, *spec.shape))
        top, left = rng.integers(0, spec.height // 2, count), rng.integers(0, spec.width // 2, count)
        for i in range(count):
            levels[i, :, top[i] : top[i] + spec.height // 2, left[i] : left[i] + spec.width // 2] = spec.levels - 1
        images = from_levels(torch.from_numpy(levels), spec.levels).numpy()
        labels = rng.integers(0, max(1, spec.num_classes), count)
        return ImageDataset("random", name, images, labels, spec)

    return Splits("random", split("train", sizes[0]), split("validation", sizes[1]), split("test", sizes[2]))


def subject_for(
    model_class: type[GenerativeModel],
    *,
    reference: str = "",
    suite: str = "digits",
    config: Mapping[str, Any] | None = None,
    splits: Splits | None = None,
    steps: int = 6,
    num_samples: int = 14,
) -> Subject:
    """A subject from a model's own recipe for ``suite``, on small random data of 8 x 8, 17 levels by default.

    config: settings over those of the recipe, such as shorter chains.
    """
    recipe = load_recipe(model_class, suite)
    spec = ImageSpec(1, 8, 8, 17, tuple(str(k) for k in range(10)))
    train = recipe.train.model_copy(
        update={"batch_size": min(16, recipe.train.batch_size), "validate_every": 2, "checkpoint_every": 1_000_000}
    )
    settings = {**recipe.config, **(config or {})}
    splits = splits or random_splits(spec)
    return Subject(model_class, reference, settings, train, recipe.sample, splits, steps, num_samples)


def check_model(model_class: type[GenerativeModel], **settings: Any) -> None:
    """Run every check of the contract on a model class; settings as in `subject_for`.

    Raises:
        AssertionError: a check failed; the message says which and how.
    """
    subject = subject_for(model_class, **settings)
    for check in CHECKS:
        check(subject)


def check_capabilities(subject: Subject) -> None:
    """It can learn, and its declared networks are submodules."""
    model = subject.build()
    learns = isinstance(model, Trainable | Fittable) or hasattr(model, "fit_splits")
    assert learns, f"{subject.model_class.__name__} implements neither update() nor fit()"
    assert set(model.averaged) <= set(model.networks), "averaged names must be among networks"
    for name in model.networks:
        model.get_submodule(name)


def check_sampling(subject: Subject) -> None:
    """Samples have the right type and shape, depend on (seed, i) alone, and differ between seeds."""
    model, _ = subject.trained()
    seven, all_at_once = subject.draw(model, 7), subject.draw(model, subject.num_samples)
    _assert_equal_images(seven, all_at_once, subject.splits.spec.levels, "batch sizes 7 and all at once")
    assert np.array_equal(seven, subject.draw(model, 7)), "the same request gave other samples"
    if not getattr(model, "control", False):  # a control may replay stored images in one order
        assert not np.array_equal(seven, subject.draw(model, 7, seed=1)), "another seed gave the same samples"


def check_labels(subject: Subject) -> None:
    """A class-conditional model heeds the labels that it is asked for; labels that a model knows are classes."""
    model, _ = subject.trained()
    spec, count = subject.splits.spec, subject.num_samples
    known = sample_labels(model, count, 0, sampler_options(subject.model_class, subject.sample))
    if "labels" in model.conditions:
        assert known is not None, "a class-conditional model was asked for no class"
        index = torch.arange(count)
        other = Condition(labels=(torch.from_numpy(known) + 1) % spec.num_classes)
        options = sampler_options(subject.model_class, subject.sample)
        changed = draw(model, index, 0, options, other).cpu().numpy()
        assert not np.array_equal(changed, subject.draw(model, 7)), "other labels gave the same samples"


def check_global_generators(subject: Subject) -> None:
    """Building, training and sampling leave torch's and numpy's global generators as they were."""
    torch_state, numpy_state = torch.get_rng_state(), _numpy_state()
    model, _ = subject.trained()
    subject.draw(model, 7)
    assert torch.equal(torch_state, torch.get_rng_state()), "torch's global generator was used"
    assert numpy_state == _numpy_state(), "numpy's global generator was used"


def check_resume(subject: Subject) -> None:
    """A training stopped halfway and resumed ends with the weights of an uninterrupted one."""
    if not isinstance(subject.build(), Trainable):
        return
    whole, summary = subject.trained()
    with tempfile.TemporaryDirectory() as folder:
        try:
            subject.trained(Path(folder), stop_at=subject.steps // 2)
        except Interrupted:
            pass
        else:
            raise AssertionError("the training did not stop when asked")
        resumed, again = subject.trained(Path(folder))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), f"'{name}' differs after a resumed training"
    assert summary.curves == again.curves, "training curves differ after a resumed training"


def check_checkpoint(subject: Subject) -> None:
    """A saved and loaded model gives the same samples."""
    model, _ = subject.trained()
    with tempfile.TemporaryDirectory() as folder:
        manifest = {"model": subject.reference, "suite": "", "seed": 0, "key": "", "genbench_version": ""}
        spec = subject.splits.spec
        save_checkpoint(Path(folder), model, {**manifest, "config": subject.config, "spec": vars(spec)})
        loaded, _ = load_checkpoint(Path(folder), model_class=subject.model_class)
    assert np.array_equal(subject.draw(model, 7), subject.draw(loaded, 7)), "a loaded checkpoint samples differently"


def check_likelihood(subject: Subject) -> None:
    """Likelihoods are finite, below zero nats, independent of the batch, and named."""
    model, _ = subject.trained()
    if not isinstance(model, HasLikelihood):
        return
    batch = _test_batch(subject, 10)
    for estimator in model.likelihood_estimators():
        whole = _nats(model, batch, estimator)
        assert whole.shape == (len(batch),), f"{estimator}: nats have shape {tuple(whole.shape)}"
        assert torch.isfinite(whole).all(), f"{estimator}: not finite"
        assert (whole < 1e-6).all(), f"{estimator}: a discrete image has log P above zero"
        parts = torch.cat([_nats(model, _slice(batch, s), estimator) for s in (slice(0, 3), slice(3, 10))])
        assert torch.allclose(whole, parts, rtol=1e-4, atol=1e-3), f"{estimator}: depends on the batch"


def check_reconstruction(subject: Subject) -> None:
    """Reconstructions are images, independent of the batch."""
    model, _ = subject.trained()
    if not isinstance(model, Reconstructs):
        return
    batch = _test_batch(subject, 10)

    def rebuild(piece: Batch) -> Tensor:
        with torch.no_grad():
            images = model.reconstruct(piece, NoiseSource(0, piece.index, "reconstruct"))
        return check_images(images, len(piece), subject.splits.spec, "reconstruct()")

    parts = torch.cat([rebuild(_slice(batch, s)) for s in (slice(0, 3), slice(3, 10))])
    _assert_equal_images(rebuild(batch).numpy(), parts.numpy(), subject.splits.spec.levels, "reconstruction batches")


def check_latents(subject: Subject) -> None:
    """Latents have the declared shape and decode to images."""
    model, _ = subject.trained()
    if not isinstance(model, HasLatent):
        return
    spec = subject.splits.spec
    shape = tuple(model.latent_shape)
    with torch.no_grad():
        z = NoiseSource(0, torch.arange(5)).normal(shape)
        check_images(model.decode(z), 5, spec, "decode()")
        if isinstance(model, Encodes):
            z = model.encode(_test_batch(subject, 5))
            assert tuple(z.shape) == (5, *shape), f"encode() gave {tuple(z.shape)}, latent_shape is {shape}"
            check_images(model.decode(z), 5, spec, "decode()")


def check_inpainting(subject: Subject) -> None:
    """A model that inpaints keeps the given pixels and fills in the others, whatever the batch; a mask without a source
    for each sample is refused."""
    model, _ = subject.trained()
    if "mask" not in model.conditions:
        return
    count, spec = 10, subject.splits.spec
    source = _test_batch(subject, count).images
    mask = torch.zeros(count, 1, spec.height, spec.width, dtype=torch.bool)
    mask[:, :, : spec.height // 2] = True
    options = sampler_options(subject.model_class, subject.sample)

    def fill(start: int, stop: int) -> Tensor:
        index, piece = torch.arange(start, stop), slice(start, stop)
        condition = inpainting_condition(model, index, source[piece], mask[piece])
        return draw(model, index, 0, options, condition).cpu()

    whole = fill(0, count)
    given = mask.expand_as(source)
    assert torch.equal(whole[given], source[given]), "given pixels were changed"
    assert not torch.equal(whole, fill_with(source, mask)), "nothing was filled in"
    parts = torch.cat([fill(0, 3), fill(3, count)])
    _assert_equal_images(whole.numpy(), parts.numpy(), spec.levels, "inpainting in batches of 3 and 7, and all at once")
    for images in (None, source[:1]):
        condition = replace(default_condition(model, torch.arange(count)), source=images, mask=mask)
        try:
            draw(model, torch.arange(count), 0, options, condition)
        except UsageError:
            continue
        raise AssertionError(f"a mask was accepted with {'no' if images is None else 'one'} source for {count} samples")


def fill_with(source: Tensor, mask: Tensor, value: int = 0) -> Tensor:
    """``source`` (B, C, H, W) with the pixels outside of ``mask`` (B, 1, H, W) set to ``value``."""
    return torch.where(mask, source, torch.full_like(source, value))


def check_unnormalised(subject: Subject) -> None:
    """log p~ of a model with a normaliser is finite, float64, and independent of the batch."""
    model, _ = subject.trained()
    if not isinstance(model, HasNormaliser):
        return
    batch = _test_batch(subject, 10)

    def nats(piece: Batch) -> Tensor:
        with torch.no_grad():
            return model.log_unnormalised(piece, NoiseSource(0, piece.index, "likelihood"))

    whole = nats(batch)
    assert whole.shape == (len(batch),) and whole.dtype == torch.float64, f"log p~ is {whole.dtype} {whole.shape}"
    assert torch.isfinite(whole).all(), "log p~ is not finite"
    parts = torch.cat([nats(_slice(batch, s)) for s in (slice(0, 3), slice(3, 10))])
    assert torch.allclose(whole, parts, rtol=1e-4, atol=1e-3), "log p~ depends on the batch"


CHECKS: tuple[Callable[[Subject], None], ...] = (
    check_capabilities,
    check_sampling,
    check_labels,
    check_global_generators,
    check_resume,
    check_checkpoint,
    check_likelihood,
    check_reconstruction,
    check_latents,
    check_inpainting,
    check_unnormalised,
)


def _numpy_state() -> tuple[bytes, int]:
    state = np.random.get_state(legacy=False)["state"]
    return state["key"].tobytes(), int(state["pos"])


def _test_batch(subject: Subject, count: int) -> Batch:
    return subject.splits.test.batch(np.arange(count))


def _slice(batch: Batch, piece: slice) -> Batch:
    labels = None if batch.labels is None else batch.labels[piece]
    return Batch(images=batch.images[piece], index=batch.index[piece], labels=labels)


@torch.no_grad()
def _nats(model: Any, batch: Batch, estimator: str) -> Tensor:
    nats: Tensor = model.log_likelihood(batch, NoiseSource(0, batch.index, "likelihood"), estimator).nats
    return nats


def _assert_equal_images(a: np.ndarray, b: np.ndarray, levels: int, what: str) -> None:
    difference = np.abs(a.astype(int) - b.astype(int))
    step = -(-255 // (levels - 1))
    share = float((difference > 0).mean())
    assert share <= DIFFERING_SHARE and difference.max() <= step, (
        f"{what}: {share:.2%} of pixels differ, by up to {difference.max()} (allowed: {DIFFERING_SHARE:.1%}, one level)"
    )
