"""Measured rates of the check on the accepted records of `digits`: how often it fires for nothing, and what it catches.

Catches are judged among all rows of the leaderboard, so that they stand the correction for some two hundred tests.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from check_fixture import LEADERBOARD
from check_simulation import another_run, residuals, slowed
from PIL import Image

from baselines.diffusion.ddpm import DDPM
from genbench.check.collect import Entry, read_entries
from genbench.check.finding import Options
from genbench.check.judge import judge
from genbench.checkpoint import load_checkpoint
from genbench.data import load_dataset
from genbench.features import load_extractor
from genbench.metrics import score
from genbench.metrics.base import MetricInputs, Side
from genbench.published import find_checkpoint
from genbench.recipe import sampler_options
from genbench.run.run import RunOptions, run_suite
from genbench.sample import draw_samples
from genbench.suite import load_suite

PAIRS = 100
SAMPLE_METRICS = [
    "inception_score",
    "fid",
    "kid",
    "precision",
    "recall",
    "density",
    "coverage",
    "ssim_pairwise",
    "nearest_train_distance",
    "memorised_share",
]


@pytest.fixture(scope="module")
def accepted():
    return read_entries(LEADERBOARD)


def with_row(entries, new):
    """All entries, ``new`` in the place of its row."""
    return [new if one.record.row == new.record.row else one for one in entries]


def worse(verdicts, row):
    """Metrics of a row that are worse, in order of their p-values; no other row may fail."""
    assert {one.row for one in verdicts.findings if one.fails} <= {row}
    found = [one for one in verdicts.findings if one.verdict == "worse"]
    return [one.metric for one in sorted(found, key=lambda one: one.p)]


@pytest.mark.slow
def test_false_alarms_of_runs_that_differ_only_in_seed(accepted):
    rng = np.random.default_rng(0)
    fired, outside, scatter = 0, [], residuals(accepted)
    for pair in range(PAIRS):
        how = {"fresh_images": pair % 2 == 1, "scatter": scatter}
        seeds = (0, pair // 2 % 2)
        before, after = ([another_run(one, rng, seed=seed, **how) for one in accepted] for seed in seeds)
        found = judge(after, before)
        fired += found.failed
        intervals = [one.ci95 for one in found.findings if one.ci95 is not None and one.ci95[0] < one.ci95[1]]
        outside += [low > 0 or high < 0 for low, high in intervals]
    print(f"false alarms: {fired} of {PAIRS} pairs of runs, {len(accepted)} rows each")
    print(f"95 % intervals of differences without 0: {np.mean(outside):.1%} of {len(outside)}")
    assert fired <= 5
    assert 0.02 < np.mean(outside) < 0.08


def models(entries):
    return [one for one in entries if not one.record.control]


def test_a_speed_loss_of_a_tenth_is_caught_but_where_the_check_says_that_scatter_hides_it(accepted):
    missed = set()
    for one in models(accepted):
        row = one.record.row
        judged = judge(with_row(accepted, slowed(one, 0.1)), accepted)
        if worse(judged, row) == ["images_per_second"]:
            continue
        missed.add(row)
        reason = next(f.reason for f in judged.findings if (f.row, f.metric) == (row, "images_per_second"))
        hidden = float(reason.split("its scatter hides losses up to ")[1].split("%")[0]) / 100
        assert worse(judge(with_row(accepted, slowed(one, hidden + 0.02)), accepted), row) == ["images_per_second"]
    print(f"10 % slower: all of {len(models(accepted))} models caught but {missed}")
    assert len(missed) <= 1
    for one in models(accepted):
        assert not judge(with_row(accepted, slowed(one, 0.03)), accepted).failed


@pytest.mark.slow
def test_a_speed_loss_of_a_tenth_is_caught_in_windows_measured_again(accepted):
    rng = np.random.default_rng(1)
    fast = Options(metrics=["images_per_second", "latency_seconds"])
    caught, how = 0, {"fresh_images": False, "scatter": residuals(accepted)}
    for _ in range(10):
        before, after = ([another_run(one, rng, seed=0, **how) for one in accepted] for _ in range(2))
        for one in models(after):
            caught += judge(with_row(after, slowed(one, 0.1)), before, fast).failed
    share = caught / (10 * len(models(accepted)))
    print(f"10 % slower, windows measured again: {share:.0%} caught")
    assert share >= 0.75, "at the scatter of a shared host, see docs/regression-checks.md"


def test_a_model_trained_on_half_of_its_budget_is_caught(accepted, tmp_path):
    suite = load_suite("digits")
    text = f'name = "digits"\ndataset = "{suite.dataset}"\nmodels = ["realnvp"]\nmetrics = ["bits_per_dim"]\n'
    (tmp_path / "half.toml").write_text(f"{text}num_samples = {suite.num_samples}\n")
    run_suite(RunOptions(str(tmp_path / "half.toml"), tmp_path / "run", budget_scale=0.5))
    half = read_entries(tmp_path / "run")[0]
    others = [one for one in accepted if one.record.row != "realnvp"]
    full = next(one for one in accepted if one.record.row == "realnvp")
    metrics = [
        half.record.find(one.name, one.estimator) if one.name == "bits_per_dim" else one for one in full.record.metrics
    ]
    half = replace(half, record=half.record.model_copy(update={"metrics": metrics, "timing": full.record.timing}))
    half = replace(half, scores={**full.scores, **half.scores})
    found = judge([*others, half], [*others, full])
    assert "bits_per_dim" in worse(found, "realnvp")


class Scorer:
    """Scores images as the suite `digits` scores samples."""

    def __init__(self):
        self.suite, self.splits = load_suite("digits"), load_dataset("digits")
        self.extractor = load_extractor("digits-cnn")
        self.reference = self.side("reference images", self.splits.train.images)

    def side(self, who, images):
        return Side(who, len(images), images, None, (), lambda: self.extractor.extract(images))

    def entry(self, accepted, images) -> Entry:
        """The accepted row with the metrics of these samples (N, C, H, W) in place of its own."""
        inputs = MetricInputs(
            samples=self.side("samples", images),
            reference=self.reference,
            test=self.splits.test,
            extractor=self.extractor,
            seed=0,
        )
        where = {"dataset": self.splits.name, "dataset_fingerprint": self.splits.fingerprint, "reference": "train"}
        options = {name: values for name, values in self.suite.options.items() if name in SAMPLE_METRICS}
        made, scores = score(inputs, SAMPLE_METRICS, options, where)
        kept = [one for one in accepted.record.metrics if one.name not in SAMPLE_METRICS]
        record = accepted.record.model_copy(update={"metrics": [*made, *kept]})
        return replace(accepted, record=record, scores={**accepted.scores, **scores})


@pytest.fixture(scope="module")
def scorer():
    return Scorer()


@pytest.fixture(scope="module")
def ddim(accepted):
    return next(one for one in accepted if one.record.row == "ddpm@ddim20")


def samples_of_ddim(seed=0):
    """(297, 1, 8, 8) samples of the published `ddpm@ddim20`."""
    model, manifest = load_checkpoint(find_checkpoint("ddpm", "digits"), torch.device("cpu"))
    options = sampler_options(type(model), dict(manifest.sample) | manifest.variants["ddim20"])
    return np.asarray(draw_samples(model, 297, seed, 297, options))


@pytest.fixture(scope="module")
def samples():
    return samples_of_ddim()


def test_the_same_weights_sampled_again_are_the_same(accepted, ddim, scorer, samples):
    assert not judge(with_row(accepted, scorer.entry(ddim, samples)), accepted).failed
    other = scorer.entry(ddim, samples_of_ddim(seed=1))
    other = replace(other, record=other.record.model_copy(update={"seed": 1}))
    assert not judge(with_row(accepted, other), accepted).failed


def test_a_sampler_without_its_last_step_is_caught(accepted, ddim, scorer, monkeypatch):
    whole = DDPM.ddim

    def dropped(self, x, chain):
        last = chain.times[1]

        def denoise(xt, t):
            x0, eps = type(self).denoise(self, xt, t)
            return (xt, torch.zeros_like(eps)) if t == last else (x0, eps)

        return _with_denoise(self, denoise, lambda: whole(self, x, chain))

    monkeypatch.setattr(DDPM, "ddim", dropped)
    found = judge(with_row(accepted, scorer.entry(ddim, samples_of_ddim())), accepted)
    assert {"density", "nearest_train_distance"} <= set(worse(found, "ddpm@ddim20"))


def _with_denoise(model, denoise, do):
    model.denoise = denoise
    try:
        return do()
    finally:
        del model.denoise


def reduced(images, how):
    """Images (N, 1, 8, 8) drawn in black and white at 32 x 32, as these digits were scanned, and reduced to 8 x 8."""
    rng = np.random.default_rng(0)
    made = []
    for image in images[:, 0]:
        large = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR)) / 255
        drawn = Image.fromarray(((rng.uniform(size=large.shape) < large) * 255).astype(np.uint8))
        made.append(np.asarray(drawn.resize((8, 8), how)))
    levels = np.round(np.stack(made)[:, None] / 255 * 16)
    return np.round(levels * 255 / 16).astype(np.uint8)


def test_a_resize_by_nearest_neighbour_is_caught(accepted, ddim, scorer, samples):
    bilinear, nearest = (
        scorer.entry(ddim, reduced(samples, how)) for how in (Image.Resampling.BILINEAR, Image.Resampling.NEAREST)
    )
    found = judge(with_row(accepted, nearest), with_row(accepted, bilinear))
    assert {"fid", "kid", "precision", "inception_score"} <= set(worse(found, "ddpm@ddim20"))
