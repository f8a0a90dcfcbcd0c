"""Training: schedules, averages, early stopping, data order, resume."""

import pytest
import torch
from toys import Histogram

from genbench.api import Batch, ImageSpec, ModelConfig, TrainingData
from genbench.errors import DataError, Interrupted
from genbench.images import to_levels
from genbench.recipe import TrainRecipe
from genbench.testing import random_splits
from genbench.train import Average, Trainer, TrainingError, build_model, rate_scale

CPU = torch.device("cpu")
SPLITS = random_splits(ImageSpec(1, 4, 4, 5))


def trainer(model=None, data=None, seed=0, **settings):
    options = {k: settings.pop(k) for k in ("state_dir", "should_stop", "report") if k in settings}
    recipe = TrainRecipe(**{"steps": 40, "batch_size": 10, "validate_every": 10, **settings})
    model = model or build_model(Histogram, ModelConfig(), SPLITS.spec, seed)
    return Trainer(model, data or SPLITS.training_data(), recipe, seed=seed, device=CPU, **options)


def test_rate_schedules():
    constant = TrainRecipe(warmup_steps=4)
    assert [rate_scale(constant, s, 10) for s in (0, 1, 3, 4, 9)] == [0.25, 0.5, 1.0, 1.0, 1.0]
    linear = TrainRecipe(schedule="linear")
    assert [rate_scale(linear, s, 10) for s in (0, 5)] == [1.0, 0.5]
    cosine = TrainRecipe(schedule="cosine", warmup_steps=2)
    assert rate_scale(cosine, 2, 10) == 1.0
    assert rate_scale(cosine, 6, 10) == pytest.approx(0.5)


def test_average_is_the_recursion():
    net = torch.nn.Linear(1, 1, bias=False)
    values, shadow = [1.0, 2.0, -3.0, 0.5], None
    for step, value in enumerate(values):
        with torch.no_grad():
            net.weight.fill_(value)
        if shadow is None:
            average, shadow = Average({"net": net}, 0.5), value
            continue
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        shadow = decay * shadow + (1 - decay) * value
    assert float(average.shadow["net.weight"]) == pytest.approx(shadow)
    with average.swapped_in():
        assert net.weight.item() == pytest.approx(shadow)
    assert net.weight.item() == values[-1]


def test_every_image_is_seen_once_an_epoch():
    seen = []

    class Watches(Histogram):
        def update(self, batch, ctx):
            seen.append(batch.index)
            return super().update(batch, ctx)

    trainer(build_model(Watches, ModelConfig(), SPLITS.spec, 0), batch_size=16, steps=8).run()
    first, second = torch.cat(seen[:4]), torch.cat(seen[4:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(64))
    assert not torch.equal(first, second)


def test_flip_mirrors_about_half():
    images = torch.zeros(64, 1, 4, 4, dtype=torch.uint8)
    images[..., 0] = 255
    mirrored = []

    class Watches(Histogram):
        def update(self, batch, ctx):
            mirrored.extend((batch.images[..., -1] == 255).all(dim=(1, 2)).tolist())
            return super().update(batch, ctx)

    batch = Batch(images, torch.arange(64))
    data = TrainingData(batch, batch, SPLITS.spec)
    trainer(build_model(Watches, ModelConfig(), SPLITS.spec, 0), data, horizontal_flip=True, steps=60).run()
    assert 0.4 < sum(mirrored) / len(mirrored) < 0.6


def test_early_stopping_keeps_the_best_weights():
    figures = iter([3.0, 1.0, 2.0, 2.0, 2.0])
    weights = []

    class Scripted(Histogram):
        def validate(self, batch, noise):
            weights.append(self.net.logits.detach().clone())
            return torch.full((len(batch),), next(figures))

    run = trainer(build_model(Scripted, ModelConfig(), SPLITS.spec, 0), patience=2, steps=1000)
    summary = run.run()
    assert (summary.steps, summary.best_step, summary.stopped_early) == (40, 20, True)
    assert torch.equal(run.model.net.logits, weights[1])


def test_learns_the_histogram():
    run = trainer(steps=400, batch_size=64)
    run.run()
    levels = to_levels(torch.from_numpy(SPLITS.train.images), 5)
    frequencies = torch.bincount(levels.flatten(), minlength=5) / levels.numel()
    assert torch.allclose(torch.softmax(run.model.net.logits.detach(), 0), frequencies, atol=0.02)


@pytest.mark.parametrize("stop_at", [1, 17, 20, 39])
def test_resumed_equals_uninterrupted(tmp_path, stop_at):
    settings = {"ema_decay": 0.99, "checkpoint_every": 7, "schedule": "cosine", "grad_clip": 1.0}
    whole = trainer(**settings)
    summary = whole.run()
    first = trainer(**settings, state_dir=tmp_path, should_stop=lambda: first.progress.step >= stop_at)
    with pytest.raises(Interrupted):
        first.run()
    second = trainer(**settings, state_dir=tmp_path)
    again = second.run()
    assert second.progress.step == 40
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert summary.curves == again.curves


def test_nan_is_reported_with_its_step():
    class Diverges(Histogram):
        def update(self, batch, ctx):
            figures = super().update(batch, ctx)
            return {"loss": figures["loss"] * (float("nan") if ctx.step >= 5 else 1.0)}

    with pytest.raises(TrainingError, match="'loss' is nan at step 6"):
        trainer(build_model(Diverges, ModelConfig(), SPLITS.spec, 0)).run()


def test_validate_of_wrong_shape():
    class Wrong(Histogram):
        def validate(self, batch, noise):
            return super().validate(batch, noise).mean()

    with pytest.raises(TrainingError, match=r"validate\(\) returned shape \(\), expected \(24,\)"):
        trainer(build_model(Wrong, ModelConfig(), SPLITS.spec, 0)).run()


def test_damaged_state_is_named(tmp_path):
    with pytest.raises(Interrupted):
        trainer(state_dir=tmp_path, should_stop=lambda: True).run()
    state = tmp_path / "training.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(DataError, match=r"training\.safetensors"):
        trainer(state_dir=tmp_path).run()


def test_interrupted_validation_is_made_up_for(tmp_path):
    """A stop asked for during validation saves the state before it; the resumed training validates first."""
    settings = {"ema_decay": 0.9, "validate_every": 10}
    whole = trainer(**settings).run()
    asked = []

    def stop_in_second_validation():
        asked.append(first.progress.step)
        return asked.count(20) == 2  # once after step 20 is too late: validation asks first

    first = trainer(**settings, state_dir=tmp_path, should_stop=stop_in_second_validation)
    with pytest.raises(Interrupted):
        first.run()
    assert trainer(**settings, state_dir=tmp_path).run().curves == whole.curves


def test_autocast_does_not_keep_weights_of_before_a_step():
    """Two players under autocast: the second sees the first as it is after its step."""

    class TwoPlayers(Histogram):
        def __init__(self, config, spec):
            super().__init__(config, spec)
            self.layer = torch.nn.Linear(2, 1, bias=False)
            self.outputs = []

        def optimizers(self):
            return {"main": torch.optim.SGD(self.layer.parameters(), lr=1.0)}

        def update(self, batch, ctx):
            x = torch.ones(1, 2)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                before = self.layer(x).sum()
                ctx.backward(before)
                ctx.step_optimizer("main")
                after = self.layer(x).sum()
            self.outputs.append((float(before.detach()), float(after.detach())))
            return {"loss": before.detach()}

    model = build_model(TwoPlayers, ModelConfig(), SPLITS.spec, 0)
    trainer(model, steps=1).run()
    before, after = model.outputs[0]
    assert after == pytest.approx(before - 2.0, abs=0.05)


class Breaks(Histogram):
    """Trains well until step 25, where its loss and its weights become NaN."""

    def update(self, batch, ctx):
        figures = super().update(batch, ctx)
        if ctx.step < 25:
            return figures
        with torch.no_grad():
            self.net.logits.fill_(float("nan"))
        return {"loss": figures["loss"] * float("nan")}


@pytest.mark.parametrize("keep_best", [True, False])
def test_a_diverging_training_stops_with_its_last_good_weights(keep_best):
    model = build_model(Breaks, ModelConfig(), SPLITS.spec, 0)
    found = trainer(model, steps=40, validate_every=10, keep_best=keep_best).run()
    assert found.steps == 26 and not found.stopped_early
    assert found.diverged.startswith("'loss' is nan at step 26; the weights are those of step 20")
    assert torch.isfinite(model.net.logits).all()
    good = build_model(Histogram, ModelConfig(), SPLITS.spec, 0)
    trainer(good, steps=20, validate_every=10, keep_best=keep_best).run()
    assert torch.equal(model.net.logits, good.net.logits)


def test_a_validation_that_is_not_finite_stops_a_training_too():
    class Fails(Histogram):
        def validate(self, batch, noise):
            return super().validate(batch, noise) * (float("nan") if self.seen > 250 else 1.0)

    found = trainer(build_model(Fails, ModelConfig(), SPLITS.spec, 0), steps=40, validate_every=10).run()
    assert found.diverged.startswith("validation is nan at step 30; the weights are those of step 20")


def test_a_figure_of_some_steps_is_averaged_over_those_alone():
    class Sometimes(Histogram):
        def update(self, batch, ctx):
            figures = super().update(batch, ctx)
            return {**figures, "late": torch.tensor(7.0)} if ctx.step % 3 == 2 else figures

    found = trainer(build_model(Sometimes, ModelConfig(), SPLITS.spec, 0), steps=600).run()
    assert set(found.curves["late"].value) == {7.0}
