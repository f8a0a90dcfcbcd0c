"""Records that were edited, copied or stripped: none of them becomes a row, each is told what gives it away."""

import json

import numpy as np
import pytest
from board_records import as_seed, change_metric, change_scores, edit, refusal, row, shipped_copy, taken_out

from genbench.check.collect import Entry
from genbench.leaderboard.add import add
from genbench.leaderboard.likeness import _weights, unlike_rows
from genbench.leaderboard.scores import faults_of_scores
from genbench.record import MetricResult, PerImage, read_record
from genbench.weights import entry


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The shipped leaderboard of digits without its vae and its memoriser; refusals leave it as it is."""
    home = tmp_path_factory.mktemp("edited")
    folder = shipped_copy(home)
    for stem in ("vae-s0", "memoriser-s0"):
        taken_out(folder, stem, home / "out")
    return home


@pytest.fixture
def record(home, tmp_path):
    return copied(home, "vae-s0", tmp_path)


def copied(home, stem, target):
    for suffix in ("json", "npz"):
        (target / f"{stem}.{suffix}").write_bytes((home / "out" / f"{stem}.{suffix}").read_bytes())
    return target / f"{stem}.json"


def told(record, home):
    return refusal(record, home / "digits")


def told_when_first(record, tmp_path):
    return refusal(record, tmp_path / "fresh" / "digits")


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("fid", {"value": 0.01}, "fid (plug-in) is 0.01, outside its own interval [2.03492, 2.66936]"),
        ("fid", {"ci95": [5, 1]}, "the interval of fid (plug-in), [5, 1], ends before it begins"),
        ("fid", {"value": -3, "ci95": [-4, -2]}, "fid (plug-in) is -3, expected at least 0"),
        ("recall", {"value": 7, "ci95": [6.9, 7.1]}, "recall (plug-in) is 7, expected from 0 to 1"),
        ("fid", {"ci95": None}, "fid (plug-in) has no 95 % interval, and no note says why"),
        ("fid", {"n": 50000}, "fid (plug-in) is of n = 50000, but its comparable says n = 297"),
        (
            "precision",
            {"ci95": [0.2424, 0.2425]},
            "precision (plug-in) has the interval [0.2424, 0.2425], but what lies",
        ),
        ("ssim", {"ci95": [0.869, 0.87]}, "ssim (mean) has the interval [0.869, 0.87], but what lies beside it gives"),
        ("images_per_second", {"ci95": [2e4, 2.4e4]}, "has the interval [20000, 24000], but what lies beside it gives"),
        ("images_per_second", {"n": 9}, "images_per_second (median of windows) is of n = 9, but what lies beside it"),
        ("peak_memory_bytes", {"value": 5.0}, "peak_memory_bytes (peak while sampling) is 5, but what lies beside it"),
        ("training_images_per_second", {"value": 9e9}, "is 9e+09, but what lies beside it gives 10079.7"),
    ],
)
def test_values_that_contradict_themselves_are_refused(record, home, name, changes, reason):
    change_metric(record, name, **changes)
    assert reason in told(record, home)


def test_windows_and_rate_edited_together_betray_themselves_by_the_interval(record, home):
    text = json.loads(record.read_text())
    windows = [window | {"seconds": window["seconds"] / 100} for window in text["timing"]["windows"]]
    edit(record, timing=text["timing"] | {"windows": windows})
    rate = next(one for one in text["metrics"] if one["name"] == "images_per_second")
    change_metric(record, "images_per_second", value=100 * rate["value"], ci95=[rate["ci95"][0], 1e9])
    assert "images_per_second (median of windows) has the interval [20622.3, 1e+09], but" in told(record, home)


@pytest.mark.parametrize(
    "change", [{"device": "NVIDIA H200"}, {"threads": 16}, {"batch_size": 9999}, {"precision": "x"}]
)
def test_conditions_of_speed_are_those_of_the_timing(record, home, change):
    edit(record, timing=json.loads(record.read_text())["timing"] | change)
    name = next(iter(change))
    assert f"the comparable of images_per_second (median of windows) is not what its timing says: {name}: " in told(
        record, home
    )


@pytest.mark.parametrize(
    "change", [{"windows": []}, {"latency_seconds": []}, {"windows": [{"images": 64, "seconds": 0.0}]}]
)
def test_a_timing_without_time_is_refused(record, home, change):
    edit(record, timing=json.loads(record.read_text())["timing"] | change)
    assert "its timing has no windows or single images, or some that took no time" in told(record, home)


@pytest.mark.parametrize(
    ("field", "text"), [("name", ""), ("name", " "), ("name", "a\nb"), ("estimator", "a\tb"), ("extractor", "")]
)
def test_names_that_cannot_be_shown_are_refused(record, home, field, text):
    change_metric(record, "kid", **{field: text})
    assert f"a metric has the {field} {text!r}; expected printable text" in told(record, home)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda a: a.update(extra=np.array(["2020-01-01"], "M8[D]")), "'extra' belong to no metric that has a value"),
        (lambda a: a.update({"ssim.mean": np.array(["a"] * 297)}), "'ssim.mean' are <U1, expected numbers"),
        (lambda a: a.update({"ssim.mean": np.array([b"a"] * 297)}), "'ssim.mean' are |S1, expected numbers"),
        (lambda a: a.update({"ssim.mean": a["ssim.mean"] * 1j}), "'ssim.mean' are complex128, expected numbers"),
        (lambda a: a.update({"ssim.mean": np.ones(1)}), "'ssim.mean' are of shape (1,), expected (297,): one for each"),
        (lambda a: a.update({"ssim.mean": np.ones((297, 2))}), "'ssim.mean' are of shape (297, 2), expected (297,)"),
        (lambda a: a.update({"ssim.mean": np.full(297, np.nan)}), "'ssim.mean' are not finite for 297 of 297 images"),
        (lambda a: np.put(a["ssim.mean"], range(200), np.nan), "'ssim.mean' are not finite for 200 of 297 images"),
        (lambda a: np.put(a["psnr.mean"], range(9), -np.inf), "'psnr.mean' are not finite for 9 of 297 images"),
        (lambda a: a.pop("precision.plug-in"), "the per-image scores of precision.plug-in are missing"),
    ],
)
def test_scores_are_whole_and_all_there(record, home, change, reason):
    change_scores(record, change)
    assert reason in told(record, home)


def test_a_record_without_scores_is_refused_and_so_is_the_first_one(record, home, tmp_path):
    edit(record, per_image=None)
    missing = "the per-image scores of precision.plug-in, density.plug-in, ssim.mean, psnr.mean, bits_per_dim.iwae-500"
    assert missing in told(record, home) and missing in told_when_first(record, tmp_path)


def test_an_exact_likelihood_has_scores_of_its_own(record, home):
    change_metric(record, "bits_per_dim", estimator="exact", kind="exact")
    found = told(record, home)
    assert "per-image scores 'bits_per_dim.iwae-500' belong to no metric" in found
    assert "the per-image scores of bits_per_dim.exact are missing" in found


def test_what_the_rows_there_have_scores_of_a_record_has_too():
    metrics = {"name": "share", "estimator": "mean", "value": 1.0, "n": 2}
    others = [Entry(row("a", per_image=PerImage(file="a-s0.npz", sha256="0" * 64, arrays=["share.mean"])))]
    mine = Entry(row("b", MetricResult(**metrics)))
    assert faults_of_scores(mine, []) == []
    assert "the per-image scores of share.mean are missing" in faults_of_scores(mine, others)[0]


def test_identical_images_may_be_infinite_in_psnr(record):
    arrays = dict(np.load(record.with_suffix(".npz")))
    arrays["psnr.mean"][arrays["psnr.mean"] < arrays["psnr.mean"].mean()] = np.inf
    found = faults_of_scores(Entry(read_record(record), arrays, record), [])
    assert [reason for reason in found if "not finite" in reason] == []


def test_a_result_counts_once(record, home, tmp_path):
    folder = shipped_copy(tmp_path / "boards")
    keys = json.loads(record.read_text())["keys"]
    same = as_seed(record, 1, keys=keys)
    assert "its samples are, by their key, those of vae with seed 0: a result counts once" in refusal(same, folder)
    same = as_seed(record, 0, keys=keys, model="supervae")
    assert "its samples are, by their key, those of vae with seed 0" in refusal(same, folder)
    other = as_seed(record, 1)
    assert "its per-image scores are, to the bit, those of vae with seed 0" in refusal(other, folder)
    change_scores(other, lambda arrays: arrays.update({key: array[::-1] for key, array in arrays.items()}))
    assert add([other], folder) == ["vae-s1"]


def test_a_result_counts_once_in_one_call(record, tmp_path):
    again = as_seed(record, 7, keys=json.loads(record.read_text())["keys"])
    found = refusal(record.parent, tmp_path / "fresh" / "digits")
    assert "1 of 2 records" in found and f"{again.name}" in found


def test_a_replaced_record_may_have_the_samples_it_had(record, tmp_path):
    folder = shipped_copy(tmp_path / "boards")
    edit(record, created="2030-01-01T00:00:00+00:00")
    assert add([record], folder, replace=True) == ["vae-s0"]


def test_a_record_names_its_samples(record, home):
    edit(record, keys={})
    assert "does not state its keys.samples" in told(record, home)


def test_controls_are_those_that_are_registered(home, tmp_path):
    folder = shipped_copy(tmp_path / "boards")
    record = copied(home, "memoriser-s0", tmp_path)
    text = json.loads(record.read_text())
    as_model = as_seed(record, 0, keys=text["keys"], model="supergan", control=False, family="gan")
    assert "its samples are, by their key, those of memoriser with seed 0, which is a control" in refusal(
        as_model, folder
    )
    edit(as_model, control=True)
    assert "it states control: true, but 'supergan' is none of the controls (gaussian, " in refusal(as_model, folder)
    edit(record, control=False)
    assert "it states control: false, but 'memoriser' is a control of genbench" in refusal(record, folder, replace=True)
    edit(as_model, control=False, family="control")
    assert "its family is 'control', expected a family of models" in refusal(as_model, folder)


def test_seeds_of_a_control_may_score_alike():
    """A memoriser's distances are 0 for every seed."""
    stored = PerImage(file="x.npz", sha256="0" * 64, arrays=["nearest_train_distance.mean"])
    seeds = [row("memoriser", control=True, family="control", seed=seed, per_image=stored) for seed in (0, 1)]
    alike = {"nearest_train_distance.mean": np.zeros(5)}
    unlike = {"nearest_train_distance.mean": np.arange(5.0)}
    there = [Entry(seeds[0])]
    assert unlike_rows(Entry(seeds[1], alike), None, there) == []
    assert "to the bit" in unlike_rows(Entry(seeds[1], unlike), None, there)[0]


def comparable(record, name):
    return next(one for one in json.loads(record.read_text())["metrics"] if one["name"] == name)["comparable"]


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("fid", {"version": 99}, "version: 1 against 99"),
        ("fid", {"dataset": "mnist"}, "dataset: 'digits' against 'mnist'"),
        ("fid", {"dataset_fingerprint": "f" * 64}, "dataset_fingerprint: '79648fa0ab"),
        ("fid", {"n": 5000}, "n: 297 against 5000"),
        ("bits_per_dim", {"n": 100}, "n: 297 against 100"),
        ("ssim", {"n": 100}, "n: 297 against 100"),
        ("ssim", {"options": {"window": 3}}, "options.window: 7 against 3"),
        ("kid", {"metric": "mmd"}, "metric: 'kid' against 'mmd'"),
        ("fid", {"extractor": {"name": "digits-cnn", "weights_sha256": "0" * 64}}, "extractor.weights_sha256: '2fe0"),
        ("fid", {"extractor": {"name": "x", "weights_sha256": "0" * 64}}, "extractor.name: 'digits-cnn' against 'x'"),
        ("fid", {"extractor": None}, "extractor.name: 'digits-cnn' against nothing"),
    ],
)
def test_the_first_record_is_measured_as_the_suite_says(record, tmp_path, name, changes, reason):
    change_metric(record, name, comparable=comparable(record, name) | changes, n=changes.get("n", 297))
    assert f"was measured in another way than suite 'digits' says: {reason}" in told_when_first(record, tmp_path)


def test_the_first_record_is_of_the_suites_dataset(record, tmp_path):
    edit(record, dataset=json.loads(record.read_text())["dataset"] | {"name": "mnist"})
    assert "of other data than the suite's: name: 'digits' against 'mnist'" in told_when_first(record, tmp_path)


def test_weights_of_a_downloaded_network_are_held_against_the_catalogue():
    assert _weights("inception-v3") == entry("inception-2015-12-05").sha256
    assert _weights("digits-clip") and _weights("no-such") is None
