import json
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats
from scipy.optimize import brentq

from genbench.cli.power_verb import command
from genbench.errors import DataError, UsageError
from genbench.evaluation.pilot import features_file, power_from_pilot
from genbench.evaluation.power import MIN_PART, Target, features_draw, required_samples, sample_size
from genbench.evaluation.uncertainty import HalfWidths, unpaired_difference
from genbench.features.base import Features
from genbench.metrics.base import Estimate, Metric, MetricInputs, Side
from genbench.metrics.frechet import FrechetInceptionDistance
from genbench.metrics.gaussian import fit_gaussian, frechet_distance, gaussian_from_moments
from genbench.metrics.moments import Moments
from genbench.metrics.statistics import Z95
from genbench.sources import write_statistics

WIDTH = 3
TWENTY_PERCENT = Target(0.2, True)


class Toy(Metric):
    """A metric whose value and standard error at n samples are prescribed."""

    name = "toy"
    needs = frozenset({"features"})

    def __init__(self, value, error, name="toy"):
        self.value, self.error, self.name = value, error, name

    def compute(self, inputs):
        n = inputs.samples.count
        error = self.error(n)
        return [Estimate(self.value(n), n, standard_error=error, ci95=(0.0, 1.0) if error else None)]


def answer(metric, pilot=1000, target=TWENTY_PERCENT, reference=None, **more):
    features = Features(np.zeros((pilot, 1)))
    side = Side("reference images", 0) if reference is None else reference
    return sample_size(metric, features_draw(features), pilot, side, target, **more)


@pytest.fixture(scope="module")
def reference():
    return Side.of("reference images", Features(np.random.default_rng(0).normal(size=(2000, WIDTH))))


class Model:
    """Samples of a Gaussian with mean ``shift`` and standard deviation 1.1 in each coordinate."""

    def __init__(self, shift):
        self.shift = shift

    def draw(self, rng, n):
        return rng.normal(self.shift, 1.1, (n, WIDTH))

    def true_fid(self, reference):
        own = gaussian_from_moments(np.full(WIDTH, self.shift), np.eye(WIDTH) * 1.1**2, 10**9)
        return frechet_distance(own, fit_gaussian(reference.features().features))

    @classmethod
    def with_fid(cls, fid, reference):
        return cls(brentq(lambda shift: cls(shift).true_fid(reference) - fid, 0.2, 2.0))


def test_two_models_are_told_apart_as_often_as_asked(reference):
    rng = np.random.default_rng(1)
    fid, pilot = FrechetInceptionDistance(), Model(0.5)
    truth = pilot.true_fid(reference)
    draw = features_draw(Features(pilot.draw(rng, 2000)))
    found = sample_size(fid, draw, 2000, reference, Target(0.4, True))
    assert found.value == pytest.approx(truth, rel=0.1)
    models = [Model.with_fid(truth * factor, reference) for factor in (0.8, 1.2)]
    seen = 0
    for _ in range(250):
        a, b = (
            fid.compute(MetricInputs(Side.of("samples", Features(model.draw(rng, found.n))), reference))[0]
            for model in models
        )
        around = [HalfWidths(Z95 * e.standard_error, Z95 * e.standard_error) for e in (a, b)]
        seen += unpaired_difference(a.value, b.value, *around).ci95[0] > 0
    assert 0.70 <= seen / 250 <= 0.90


def test_the_fit_foretells_errors_and_bias_at_other_sizes(reference):
    rng, fid, model = np.random.default_rng(2), FrechetInceptionDistance(), Model(0.5)
    fixed = fit_gaussian(reference.features().features)

    def values(n, count):
        return np.array([frechet_distance(fit_gaussian(model.draw(rng, n)), fixed) for _ in range(count)])

    found = sample_size(fid, features_draw(Features(model.draw(rng, 2000))), 2000, reference, TWENTY_PERCENT)
    for n in (60, 4000):
        assert found.fit.standard_error(n) == pytest.approx(values(n, 300).std(), rel=0.2)
    pilots = [features_draw(Features(model.draw(rng, 480))) for _ in range(20)]
    foretold = [sample_size(fid, draw, 480, reference, TWENTY_PERCENT).fit.bias(60) for draw in pilots]
    assert np.mean(foretold) == pytest.approx(values(60, 4000).mean() - model.true_fid(reference), rel=0.2)


@pytest.mark.parametrize(("a", "b"), [(4.0, 0.0), (0.0, 50.0), (2.0, 30.0)])
def test_errors_of_the_model_are_recovered(a, b):
    found = answer(Toy(lambda n: 1.0, lambda n: math.sqrt(a / n + b / n**2)))
    assert (found.fit.a, found.fit.b) == pytest.approx((a, b), abs=1e-6)


def test_the_limit_of_a_biased_metric_is_recovered():
    found = answer(Toy(lambda n: 3.0 + 40.0 / n + 500.0 / n**2, lambda n: 1 / math.sqrt(n), "fid"))
    assert (found.value, found.fit.c, found.fit.e) == pytest.approx((3.0, 40.0, 500.0))
    assert found.difference == pytest.approx(0.6)
    at_answer = next(size for size in found.sizes if size.n == found.n)
    assert at_answer.value == pytest.approx(3.0 + found.fit.bias(found.n))


@pytest.mark.parametrize(("pilot", "rough"), [(800, False), (400, True)])
def test_the_limit_is_found_where_parts_are_fewer_than_features(pilot, rough):
    rng, width = np.random.default_rng(5), 200
    spread = np.exp(-np.arange(width) / 60.0)
    reference = Side.of("reference images", Features(rng.normal(size=(2000, width)) * spread))
    truth = frechet_distance(
        gaussian_from_moments(0.2 * spread, np.diag(spread**2), 10**9), fit_gaussian(reference.features().features)
    )
    draw = features_draw(Features((rng.normal(size=(pilot, width)) + 0.2) * spread))
    found = sample_size(FrechetInceptionDistance(), draw, pilot, reference, TWENTY_PERCENT)
    assert any("rough" in note for note in found.notes) == rough
    assert found.value == pytest.approx(truth, rel=0.3 if rough else 0.1)


def test_the_value_of_other_metrics_is_the_pilots():
    found = answer(Toy(lambda n: 3.0 + 40.0 / n, lambda n: 1 / math.sqrt(n)))
    assert found.value == 3.04 and found.fit.c == 0.0
    assert any("not extrapolated" in note for note in found.notes)


@pytest.mark.parametrize(("power", "alpha"), [(0.8, 0.05), (0.95, 0.01)])
@pytest.mark.parametrize(("a", "b"), [(4.0, 0.0), (0.0, 50.0), (2.0, 30.0)])
def test_required_samples_solve_their_equation(a, b, power, alpha):
    n = required_samples(a, b, 0.1, power, alpha)
    z = stats.norm.isf(alpha / 2) + stats.norm.ppf(power)
    seen = [z * math.sqrt(2 * (a / m + b / m**2)) for m in (n - 1, n)]
    assert seen[1] <= 0.1 < seen[0]


def test_the_table_says_what_each_size_shows():
    found = answer(Toy(lambda n: 1.0, lambda n: 1 / math.sqrt(n)))
    by_size = {size.n: size for size in found.sizes}
    assert by_size[1000].seen == pytest.approx(2.8016 * math.sqrt(2 / 1000), rel=1e-4)
    assert by_size[found.n].seen <= found.difference < 1.01 * by_size[found.n].seen
    assert [(size.n, size.parts) for size in found.sizes if size.parts] == [(125, 8), (250, 4), (500, 2), (1000, 1)]


def test_required_samples_of_two_means():
    assert required_samples(1.0, 0.0, 0.5) == 63


def test_twice_the_difference_takes_a_quarter_of_the_samples():
    assert required_samples(400.0, 0.0, 0.2) == pytest.approx(4 * required_samples(400.0, 0.0, 0.4), abs=4)


def test_errors_that_do_not_fall_are_not_fitted():
    found = answer(Toy(lambda n: 1.0, lambda n: 0.001 * math.sqrt(n)))
    assert found.fit.b == 0.0
    assert found.fit.standard_error(1000) == pytest.approx(0.001 * math.sqrt(1000))
    assert found.fit.standard_error(4000) == pytest.approx(0.0005 * math.sqrt(1000))
    assert any("does not follow" in note for note in found.notes)


def test_an_answer_far_beyond_the_pilot_says_so():
    toy = Toy(lambda n: 1.0, lambda n: 1 / math.sqrt(n))
    near, far = answer(toy, target=Target(0.05, False)), answer(toy, target=Target(0.03, False))
    assert near.n <= 10_000 < far.n
    assert not any("extrapolated" in note for note in near.notes if "times" in note)
    assert any(f"{far.n:,} is more than 10 times the pilot of 1,000" in note for note in far.notes)


def test_the_shared_reference_is_mentioned(reference):
    rng = np.random.default_rng(0)
    draw = features_draw(Features(rng.normal(0.5, 1, (200, WIDTH))))
    found = sample_size(FrechetInceptionDistance(), draw, 200, reference, TWENTY_PERCENT)
    assert any("this one reference" in note and "cancels" in note for note in found.notes)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(DataError, match="own unit"):
        answer(Toy(lambda n: 0.01, lambda n: 1 / math.sqrt(n)))
    assert answer(Toy(lambda n: 0.01, lambda n: 1 / math.sqrt(n)), target=Target(0.1, False)).n == 1570


def test_a_metric_without_errors_is_refused():
    with pytest.raises(UsageError, match="no interval"):
        answer(Toy(lambda n: 1.0, lambda n: None))


def test_small_pilots_are_refused():
    with pytest.raises(DataError, match=f"at least {MIN_PART}"):
        answer(Toy(lambda n: 1.0, lambda n: 1.0), pilot=MIN_PART - 1)


@pytest.mark.parametrize("bad", [{"power": 1.0}, {"power": 0.0}, {"alpha": 0.0}, {"alpha": 1.5}])
def test_chances_must_be_chances(bad):
    with pytest.raises(UsageError, match="between 0 and 1"):
        answer(Toy(lambda n: 1.0, lambda n: 1.0), **bad)


@pytest.mark.parametrize(
    ("text", "expected"), [("2%", Target(0.02, True)), (" 2.5 % ", Target(0.025, True)), ("0.3", Target(0.3, False))]
)
def test_differences_are_read(text, expected):
    assert Target.parse(text) == expected


@pytest.mark.parametrize("text", ["", "%", "two", "0", "-1%", "nan", "inf", "2%%"])
def test_other_differences_are_refused(text):
    with pytest.raises(UsageError, match="expected a positive number"):
        Target.parse(text)


@pytest.fixture
def stored(tmp_path):
    """Features of a pilot and a reference, on disk."""
    rng = np.random.default_rng(3)
    pilot, logits = rng.normal(0.4, 1.1, (400, WIDTH)).astype(np.float32), rng.normal(0, 2, (400, 5))
    other = rng.normal(size=(500, WIDTH)).astype(np.float32)
    np.savez(tmp_path / "pilot.npz", features=pilot, logits=logits)
    np.savez(tmp_path / "reference.npz", features=other)
    moments = Moments.of(other)
    write_statistics(tmp_path / "statistics.npz", moments.mean, moments.covariance(), 500)
    return tmp_path


@pytest.mark.parametrize("metric", ["fid", "kid", "precision", "recall", "density", "coverage", "inception_score"])
def test_features_at_hand_need_no_network(stored, metric):
    found = power_from_pilot(stored / "pilot.npz", stored / "reference.npz", metric, "20%")
    assert found.n > 1 and found.pilot == 400
    assert [size.n for size in found.sizes if size.parts] == [50, 100, 200, 400]


def test_statistics_serve_as_reference(stored):
    by_features = power_from_pilot(stored / "pilot.npz", stored / "reference.npz", "fid", "10%")
    by_statistics = power_from_pilot(stored / "pilot.npz", stored / "statistics.npz", "fid", "10%")
    assert by_statistics.n == by_features.n


def test_inception_score_needs_no_reference(stored):
    found = power_from_pilot(stored / "pilot.npz", None, "is", "5%")
    assert not any("reference" in note for note in found.notes)


@pytest.mark.parametrize(
    ("pilot", "reference", "metric", "message"),
    [
        ("pilot.npz", None, "fid", "give REFERENCE"),
        ("reference.npz", "reference.npz", "is", "class probabilities"),
        ("statistics.npz", "reference.npz", "fid", "do not tell how features scatter"),
        ("pilot.npz", "statistics.npz", "kid", "only mean and covariance"),
        ("pilot.npz", "reference.npz", "psnr", "pairs"),
        ("pilot.npz", "reference.npz", "fidd", "Did you mean"),
    ],
)
def test_what_cannot_be_answered_is_refused(stored, pilot, reference, metric, message):
    with pytest.raises(UsageError, match=message):
        power_from_pilot(stored / pilot, reference and stored / reference, metric, "2%", extractor="digits-cnn")


def test_damaged_features_are_refused(tmp_path):
    np.savez(tmp_path / "nan.npz", features=np.full((50, 2), np.nan))
    with pytest.raises(DataError, match="NaN"):
        power_from_pilot(tmp_path / "nan.npz", tmp_path / "nan.npz", "fid", "2%")
    np.savez(tmp_path / "odd.npz", features=np.zeros((50, 2)), logits=np.zeros((49, 3)))
    with pytest.raises(DataError, match="50 features and 49 logits"):
        features_file(tmp_path / "odd.npz")


def test_verb_on_images(tmp_path):
    rng = np.random.default_rng(4)
    np.savez(tmp_path / "pilot.npz", arr_0=rng.integers(0, 256, (80, 8, 8, 1)).astype(np.uint8))
    out = tmp_path / "out.json"
    arguments = [str(tmp_path / "pilot.npz"), "digits:test", "--metric", "fid", "--difference", "2%"]
    found = CliRunner().invoke(command, [*arguments, "--extractor", "digits-cnn", "--json", str(out)])
    assert found.exit_code == 0, found.output
    written = json.loads(out.read_text())
    assert re.search(rf"FID: {written['n']:,} samples of each model", found.output)
    assert written["difference"] == pytest.approx(0.02 * written["fit"]["value"])
    assert "the answer" in found.output
