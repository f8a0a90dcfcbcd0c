"""From names to results: passports, failures that stop nothing, options, bad samples."""

import json
import math
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from metric_inputs import image_inputs, random_images

from genbench import registry
from genbench.errors import DataError, UsageError
from genbench.metrics import Estimate, ImageLikelihoods, Metric, score
from genbench.metrics.statistics import jackknife_error, wilson_interval
from genbench.record import MetricResult

COMPARABLE = {"dataset_fingerprint": "abc", "reference": "train"}


def one(results):
    (result,) = results
    return result


@pytest.fixture
def inputs(rng):
    images = random_images(rng, 90)
    return image_inputs(
        images[:30],
        images[30:],
        images[:40],
        likelihoods=[ImageLikelihoods(np.linspace(-90, -80, 40), "lower_bound", name) for name in ("elbo", "iwae-50")],
    )


def test_passport(inputs):
    found = one(score(inputs, ["fid"], {}, COMPARABLE)[0])
    assert found.status == "ok" and found.extractor == "fake" and found.n == 30
    assert found.comparable == {
        **COMPARABLE,
        "metric": "fid",
        "version": 1,
        "options": {},
        "n": 30,
        "extractor": {"name": "fake", "weights_sha256": "0" * 64},
    }
    assert found.provenance["interval"].startswith("jackknife over samples")
    assert "30 samples for 64 features" in found.provenance["notes"][0]
    json.dumps(found.model_dump(mode="json"), allow_nan=False)


def test_every_registered_metric_gives_a_result(inputs):
    """Whatever the inputs lack, each name has at least one valid result and none fails."""
    results, _ = score(inputs, registry.names("metrics"), {}, COMPARABLE)
    assert {r.name for r in results} == set(registry.names("metrics"))
    assert [r.name for r in results if r.status == "failed"] == []
    for name in registry.names("metrics"):
        assert registry.load("metrics", name).name == name and registry.load("metrics", name).summary


def test_per_image_scores_and_estimators(inputs):
    results, per_image = score(inputs, ["bits_per_dim", "precision", "fid"], {}, COMPARABLE)
    assert [(r.name, r.estimator, r.kind) for r in results[:2]] == [
        ("bits_per_dim", "elbo", "upper_bound"),
        ("bits_per_dim", "iwae-50", "upper_bound"),
    ]
    assert {k: v.shape for k, v in per_image.items()} == {
        "bits_per_dim.elbo": (40,),
        "bits_per_dim.iwae-50": (40,),
        "precision.plug-in": (30,),
    }


def test_options_reach_the_metric_and_the_passport(inputs):
    found = one(score(inputs, ["ssim_pairwise"], {"ssim_pairwise": {"window": 7, "partners": 2}}, COMPARABLE)[0])
    assert found.comparable["options"] == {"window": 7, "images": 1000, "partners": 2}
    assert found.comparable["protocol"] == "gaussian-7"


@pytest.mark.parametrize(
    "names, options, message",
    [
        (["fdi"], {}, "Did you mean 'fid'"),
        (["kid"], {"kid": {"subset_sise": 3}}, "Did you mean 'subset_size'"),
        (["fid"], {"fid": {"k": 3}}, "Unknown option of metric 'fid' 'k'.*Known: none"),
        (["fid"], {"kid": {"subsets": 3}}, "not among: fid"),
    ],
)
def test_unknown_names_are_refused_before_anything_runs(inputs, names, options, message):
    with pytest.raises(UsageError, match=message):
        score(inputs, names, options, COMPARABLE)
    assert inputs.cache == {}


@dataclass(frozen=True)
class Broken(Metric):
    how: str = "raise"

    name = "broken"

    def compute(self, inputs):
        if self.how == "raise":
            raise ZeroDivisionError("by nothing")
        return [Estimate(math.nan if self.how == "nan" else 1.0, 3, ci95=(0.0, math.inf))]


@pytest.fixture
def broken(monkeypatch):
    known = {
        **registry.entries("metrics"),
        "broken": EntryPoint("broken", "test_metric_scoring:Broken", "genbench.metrics"),
    }
    monkeypatch.setattr(registry, "entries", lambda _group: known)


@pytest.mark.parametrize("how, reason", [("raise", "ZeroDivisionError: by nothing"), ("nan", "the value is nan")])
@pytest.mark.usefixtures("broken")
def test_a_metric_that_fails_stops_no_other(inputs, how, reason):
    results, _ = score(inputs, ["broken", "fid"], {"broken": {"how": how}}, COMPARABLE)
    assert (results[0].status, results[0].reason, results[0].value) == ("failed", reason, None)
    assert results[1].status == "ok"


@pytest.mark.usefixtures("broken")
def test_an_infinite_interval_is_left_out(inputs):
    found = one(score(inputs, ["broken"], {"broken": {"how": "infinite interval"}}, COMPARABLE)[0])
    assert found.value == 1.0 and found.ci95 is None


def test_what_was_not_measured_is_not_applicable(inputs):
    inputs.cost["parameters"] = Estimate(12.0, 1)
    results, _ = score(inputs, ["parameters", "latency_seconds", "ssim"], {}, COMPARABLE)
    assert [r.status for r in results] == ["ok", "not_applicable", "not_applicable"]
    assert results[0].value == 12.0 and "not measured" in results[1].reason
    assert all(isinstance(r, MetricResult) for r in results)


def test_without_extractor(inputs):
    inputs.extractor = inputs.samples.extract = inputs.reference.extract = None
    results, _ = score(inputs, ["fid", "nearest_train_distance"], {}, COMPARABLE)
    assert [r.status for r in results] == ["not_applicable", "ok"] and "genbench doctor" in results[0].reason


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s[:1], "at least 2"),
        (lambda s: s[..., :5], "(1, 8, 8)"),
        (lambda s: s[:, 0], "expected uint8"),
        (lambda s: s / 255.0, "float64"),
    ],
)
def test_refuses_bad_samples(inputs, change, message):
    inputs.samples.images = change(inputs.samples.images)
    with pytest.raises(DataError, match=message.replace("(", r"\(").replace(")", r"\)")):
        score(inputs, ["fid"], {}, COMPARABLE)


def test_wilson_interval():
    """The classical example of 81 in 263 (Newcombe 1998, table I), and the ends."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(0, 20)[0] == 0.0 and wilson_interval(20, 20)[1] == pytest.approx(1.0)
    assert wilson_interval(0, 20)[1] == pytest.approx(0.1611, abs=1e-4)


def test_jackknife_of_a_mean_is_its_standard_error(rng):
    x = rng.normal(size=30)
    left_out = (x.sum() - x) / 29
    assert jackknife_error(left_out) == pytest.approx(x.std(ddof=1) / math.sqrt(30))


def test_figures_of_the_reference_are_kept_on_disk(rng, tmp_path):
    images = random_images(rng, 90)

    def compute():
        inputs = image_inputs(images[:30], images[30:], reference_cache=tmp_path)
        return score(inputs, ["kid", "precision", "coverage"], {}, COMPARABLE)[0]

    first = compute()
    kept = sorted(tmp_path.glob("*.npz"))
    assert [path.stem for path in kept] == ["kid-v1-kernel-mean", "neighbours-v2-8"]
    assert compute() == first
    kept[0].write_bytes(b"damaged")
    assert compute() == first
    np.savez(kept[0], value=np.array(0.0))
    assert compute()[0].value < first[0].value
    assert compute()[1:] == first[1:]
