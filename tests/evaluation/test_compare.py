import json
import math

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from genbench.cli.compare_verb import command
from genbench.errors import DataError, UsageError
from genbench.evaluation.compare import Measured, compare, first_difference, load_measured, of_record, of_result
from genbench.evaluation.result import EvalResult, SideInfo, with_scores, write_result
from genbench.evaluation.uncertainty import half_widths
from genbench.files import hash_file, write_npz
from genbench.metrics.statistics import Z95, wilson_interval
from genbench.record import DatasetInfo, MetricResult, PerImage, Record, write_record

EXTRACTOR = {"name": "inception-v3", "weights_sha256": "a" * 64, "preprocessing": "tf1"}


def metric(name="fid", value=10.0, half=1.0, **more):
    """A metric with a normal interval."""
    fields = {
        "name": name,
        "value": value,
        "ci95": None if half is None else (value - half, value + half),
        "n": 100,
        "higher_is_better": {"fid": False, "psnr": True, "parameters": None}.get(name),
        "estimator": "plug-in",
        "comparable": {"protocol": "tf1", "reference": "r" * 64, "n": 100, "extractor": EXTRACTOR},
        "provenance": {"interval": "jackknife over samples"},
    }
    return MetricResult(**(fields | more))


def scored(values, name="psnr", things="reference image", **more):
    """A metric that is the mean of per-image scores, and these."""
    finite = values[np.isfinite(values)]
    half = Z95 * finite.std(ddof=1) / math.sqrt(len(finite))
    provenance = {"interval": "normal over images", "paired_by": things}
    return metric(name, float(finite.mean()), half, n=len(values), provenance=provenance, **more)


def result(metrics, scores=None, reference="r" * 64, label="samples.zip", **sides):
    found = EvalResult(
        genbench_version="0",
        samples=SideInfo(name=label, kind="zip", count=100, skipped=sides.get("samples_skipped", [])),
        reference=SideInfo(
            name="ref", kind="zip", count=100, fingerprint=reference, skipped=sides.get("reference_skipped", [])
        ),
        protocol="tf1",
        metrics=metrics,
        created="2030-01-01T00:00:00+00:00",
    )
    return with_scores(found, scores or {})


def record(metrics, fingerprint="d" * 64, **more):
    dataset = DatasetInfo(
        name="digits", fingerprint=fingerprint, levels=17, shape=(1, 8, 8), train=10, validation=2, test=4
    )
    fields = {
        "genbench_version": "0",
        "suite": "digits",
        "dataset": dataset,
        "model": "vae",
        "family": "latent",
        "config": {},
        "seed": 0,
        "status": "ok",
        "metrics": metrics,
        "created": "2030-01-01T00:00:00+00:00",
    }
    return Record(**(fields | more))


def one(a, b, **options):
    """The only row of a comparison of two metrics."""
    (row,) = compare(Measured("A", [a]), Measured("B", [b]), **options).rows
    return row


def paired_sides(x, y, **more):
    key = "psnr.plug-in"
    return (of_result(result([scored(v, **more)], {key: v})) for v in (x, y))


def test_unpaired_difference_is_the_normal_one():
    row = one(metric(value=10.0, half=0.3), metric(value=10.9, half=0.4))
    assert row.difference.value == pytest.approx(0.9)
    assert row.difference.ci95 == pytest.approx((0.4, 1.4))
    assert row.difference.p == pytest.approx(2 * stats.norm.sf(0.9 / (0.5 / Z95)))
    assert row.verdict == "worse"
    assert row.difference.method == "from both standard errors"


def test_standard_error_comes_before_the_interval():
    provenance = {"interval": "another", "standard_error": 0.5}
    row = one(metric(half=9.0, provenance=provenance), metric(value=12.0, half=9.0, provenance=provenance))
    assert row.difference.ci95 == pytest.approx((2 - Z95 * math.sqrt(0.5), 2 + Z95 * math.sqrt(0.5)))


def test_interval_cut_at_a_bound_counts_by_its_whole_side():
    cut = metric(value=0.1, ci95=(0.0, 0.4))
    row = one(cut, metric(value=0.1, half=0.4))
    assert row.difference.ci95 == pytest.approx((-0.5, 0.5))
    assert half_widths(0.9, (0.7, 1.0), "jackknife over samples").above == pytest.approx(0.2)


def test_wilson_intervals_give_newcombes_interval():
    x, y = wilson_interval(56, 70), wilson_interval(48, 80)
    provenance = {"interval": "Wilson over samples"}
    a = metric("precision", 48 / 80, ci95=y, higher_is_better=True, provenance=provenance)
    b = metric("precision", 56 / 70, ci95=x, higher_is_better=True, provenance=provenance)
    row = one(a, b)
    assert row.difference.ci95 == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert row.verdict == "better"
    assert row.difference.method == "from both intervals"


@pytest.mark.parametrize(
    ("higher", "value", "verdict"),
    [
        (False, 12.0, "worse"),
        (False, 8.0, "better"),
        (True, 12.0, "better"),
        (True, 8.0, "worse"),
        (None, 12.0, "different"),
        (False, 10.1, "same within noise"),
    ],
)
def test_verdicts(higher, value, verdict):
    row = one(metric(half=0.5, higher_is_better=higher), metric(value=value, half=0.5, higher_is_better=higher))
    assert row.verdict == verdict


def test_p_value_and_interval_agree():
    for value in np.linspace(9, 11, 41):
        row = one(metric(half=0.4), metric(value=float(value), half=0.3))
        assert (row.difference.p < 0.05) == (row.verdict != "same within noise")


def test_values_without_an_interval_get_no_verdict():
    row = one(metric(half=None), metric(value=11.0))
    assert row.verdict == "no interval"
    assert row.difference.value == 1.0
    assert row.difference.ci95 is None and row.difference.p is None


@pytest.mark.parametrize(("value", "verdict"), [(10.0, "equal"), (11.0, "different")])
def test_exact_values_need_no_interval(value, verdict):
    a, b = (metric("parameters", v, None, kind="exact") for v in (10.0, value))
    assert one(a, b).verdict == verdict


@pytest.mark.parametrize(("value", "verdict"), [(10.0, "equal"), (10.0 + 1e-12, "worse")])
def test_tolerance_free_counts_every_digit(value, verdict):
    assert one(metric(), metric(value=value), tolerance_free=True).verdict == verdict


def test_paired_difference_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    x = rng.normal(20, 3, 50)
    y = x + rng.normal(0.3, 0.5, 50)
    (row,) = compare(*paired_sides(x, y)).rows
    expected = stats.ttest_rel(y, x)
    interval = expected.confidence_interval(0.95)
    assert row.difference.p == pytest.approx(expected.pvalue)
    assert row.difference.ci95 == pytest.approx((interval.low, interval.high))
    assert row.difference.paired_n == 50
    assert row.difference.method == "paired over 50 reference images"
    assert row.verdict == "better"


def test_records_pair_by_their_data_set():
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    scores = {"bits.plug-in": x}
    sides = [of_record(record([scored(x, "bits", "test image")], f), scores) for f in ("d" * 64, "d" * 64, "e" * 64)]
    assert compare(sides[0], sides[1]).rows[0].difference.paired_n == 30
    assert compare(sides[0], sides[2]).rows[0].difference.paired_n is None


def test_prompts_pair_by_their_own_fingerprint():
    x = np.random.default_rng(0).normal(size=30)

    def side(prompts, reference):
        comparable = {} if prompts is None else {"prompts_fingerprint": prompts}
        return of_result(result([scored(x, "clip", "prompt", comparable=comparable)], {"clip.plug-in": x}, reference))

    assert compare(side("p", None), side("p", "other")).rows[0].difference.paired_n == 30
    assert compare(side(None, "r"), side(None, "r")).rows[0].difference.paired_n is None


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"reference": None}, "not known to be the same"),
        ({"reference": "q" * 64}, "not known to be the same"),
        ({"reference_skipped": ["bad.png"]}, "not known to be the same"),
        ({"samples_skipped": ["bad.png"]}, "unreadable images were left out"),
    ],
)
def test_scores_of_other_things_are_not_paired(change, note):
    x = np.random.default_rng(0).normal(size=30)
    a, b = (of_result(result([scored(x)], {"psnr.plug-in": x}, **more)) for more in ({}, change))
    (row,) = compare(a, b).rows
    assert row.difference.paired_n is None and row.difference.ci95 is not None
    assert note in row.notes[0]


def test_scores_whose_mean_is_not_the_value_are_not_paired():
    x = np.random.default_rng(0).normal(30, 2, 40)
    pooled = scored(x).model_copy(update={"value": float(x.mean()) - 1.0})
    a, b = (of_result(result([pooled], {"psnr.plug-in": x})) for _ in range(2))
    (row,) = compare(a, b).rows
    assert row.difference.paired_n is None
    assert "not the mean" in row.notes[0]


def test_no_pairing_where_nothing_ties_the_scores():
    x = np.random.default_rng(0).normal(size=30)
    sides = (of_result(result([scored(x, things=None)], {"psnr.plug-in": x})) for _ in range(2))
    (row,) = compare(*sides).rows
    assert row.difference.paired_n is None and row.notes == ()


def test_infinite_scores_are_left_out_of_both():
    rng = np.random.default_rng(0)
    x = rng.normal(30, 2, 40)
    y = x - 1.0 + rng.normal(0, 0.1, 40)
    finite = compare(*paired_sides(x[3:], y[3:])).rows[0].difference
    x[:2], y[1:3] = np.inf, np.inf
    (row,) = compare(*paired_sides(x, y)).rows
    assert row.difference.value == pytest.approx(finite.value)
    assert row.difference.ci95 == pytest.approx(finite.ci95)
    assert row.difference.paired_n == 37
    assert row.notes == ("difference over 37 of 40 reference images: not finite in A 2, in B 2",)
    assert row.verdict == "worse"


def test_identical_scores_are_the_same():
    x = np.random.default_rng(0).normal(size=30)
    (row,) = compare(*paired_sides(x, x.copy())).rows
    assert row.verdict == "same within noise" and row.difference.p == 1.0
    (row,) = compare(*paired_sides(x, x + 1.0)).rows
    assert row.verdict == "better" and row.difference.p == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_false_positives_of_the_paired_test(correlation):
    rng = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        hard = rng.normal(20, 3, 60) * math.sqrt(correlation)
        x, y = (hard + rng.normal(0, 3 * math.sqrt(1 - correlation), 60) for _ in range(2))
        found += compare(*paired_sides(x, y)).rows[0].verdict != "same within noise"
    assert 0.01 <= found / 200 <= 0.10


@pytest.mark.parametrize("errors", [(1.0, 1.0), (0.2, 2.0)])
def test_false_positives_of_the_unpaired_test(errors):
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(200):
        values = rng.normal(1.0, errors)
        a, b = (
            metric(value=float(v), ci95=(max(float(v) - Z95 * e, min(0.0, float(v))), float(v) + Z95 * e))
            for v, e in zip(values, errors)
        )
        found += one(a, b).verdict != "same within noise"
    assert 0.01 <= found / 200 <= 0.10


def test_false_positives_for_shares():
    rng = np.random.default_rng(3)
    found = 0
    provenance = {"interval": "Wilson over samples"}
    for _ in range(200):
        a, b = (
            metric("precision", k / 100, ci95=wilson_interval(k, 100), provenance=provenance)
            for k in rng.binomial(100, 0.93, 2).tolist()
        )
        found += one(a, b).verdict != "same within noise"
    assert 0.01 <= found / 200 <= 0.10


def test_pairing_sees_what_two_standard_errors_do_not():
    rng = np.random.default_rng(4)
    paired, unpaired = 0, 0
    for _ in range(100):
        x = rng.normal(20, 3, 60)
        y = x + rng.normal(0.2, 0.5, 60)
        paired += compare(*paired_sides(x, y)).rows[0].verdict == "better"
        unpaired += one(scored(x), scored(y)).verdict == "better"
    expected = stats.nct.sf(stats.t.ppf(0.975, 59), 59, 0.2 / 0.5 * math.sqrt(60))
    assert paired / 100 == pytest.approx(expected, abs=0.1)
    assert unpaired <= 10


def test_power_of_the_unpaired_test():
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(200):
        a, b = (metric(value=float(v), half=Z95) for v in rng.normal((10.0, 10.0 + 2.8016 * math.sqrt(2)), 1.0))
        found += one(a, b).verdict == "worse"
    assert found / 200 == pytest.approx(0.80, abs=0.08)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"protocol": "clean"}, "protocol: 'tf1' against 'clean'"),
        ({"n": 200}, "n: 100 against 200"),
        ({"protocol": "clean", "n": 200}, "protocol: 'tf1' against 'clean'"),
        ({"extractor": {**EXTRACTOR, "preprocessing": "clean"}}, "extractor.preprocessing: 'tf1' against 'clean'"),
        ({"extractor": {"name": "inception-v3"}}, "extractor.weights_sha256: "),
        ({"options": {"k": 5}}, "options: nothing against {'k': 5}"),
    ],
)
def test_the_first_difference_is_spelled_out(change, expected):
    a = metric()
    b = metric(value=12.0, comparable=a.comparable | change)
    with pytest.raises(UsageError) as error:
        compare(Measured("A", [a]), Measured("B", [b]))
    assert expected in str(error.value)


def test_long_hashes_stay_apart_when_shortened():
    a, b = ({"extractor": {"weights_sha256": "a" * 63 + end}} for end in "12")
    found = first_difference(a, b)
    left, right = found.removeprefix("extractor.weights_sha256: ").split(" against ")
    assert left != right and len(found) < 140
    assert first_difference(a, dict(a)) is None
    assert first_difference({"sizes": [1, 2]}, {"sizes": [1, 3]}) == "sizes: [1, 2] against [1, 3]"


def test_one_refused_metric_leaves_the_others():
    kid = metric("kid", estimator="full"), metric("kid", estimator="subset-100x1000")
    found = compare(Measured("A", [metric(), kid[0], metric("density")]), Measured("B", [metric(), kid[1]]))
    assert [row.refused for row in found.rows] == [
        None,
        "estimator: 'full' against 'subset-100x1000'",
        "B does not have it",
    ]
    assert [row.verdict for row in found.rows][1:] == ["not comparable"] * 2


def test_extractors_match_before_names_do():
    a = [metric(extractor="x"), metric(extractor="y", value=20.0)]
    found = compare(Measured("A", a), Measured("B", a[::-1]))
    assert [row.difference.value for row in found.rows] == [0.0, 0.0]


def test_estimators_match_before_extractors_do():
    a = [metric("bits", estimator="elbo"), metric("bits", estimator="iwae-500", value=9.0)]
    found = compare(Measured("A", a), Measured("B", a[::-1]))
    assert [row.difference.value for row in found.rows] == [0.0, 0.0]


def test_a_failed_metric_is_refused_with_its_reason():
    failed = metric(value=None, half=None, status="failed", reason="out of memory")
    found = compare(Measured("A", [metric("kid"), metric()]), Measured("B", [metric("kid"), failed]))
    assert found.rows[1].refused == "B: failed: out of memory"


def test_bounds_are_named():
    row = one(metric(kind="upper_bound"), metric(kind="upper_bound"))
    assert row.notes == ("both values are upper bounds",)
    with pytest.raises(UsageError, match="kind: 'exact' against 'upper_bound'"):
        one(metric(kind="exact"), metric(kind="upper_bound"))


def test_only_the_named_metrics():
    sides = Measured("A", [metric(), metric("kid")]), Measured("B", [metric(), metric("kid")])
    assert [row.name for row in compare(*sides, ["kid"]).rows] == ["kid"]
    with pytest.raises(UsageError, match="Did you mean 'kid'"):
        compare(*sides, ["kidd"])


@pytest.fixture
def files(tmp_path):
    """A result with paired scores, one that differs, and a run's record."""
    rng = np.random.default_rng(0)
    x = rng.normal(30, 2, 40)
    y = x + 0.5 + rng.normal(0, 0.2, 40)
    y[0] = np.inf
    for name, values, fid in (("a", x, 10.0), ("b", y, 12.0)):
        found = result([metric(value=fid), scored(values)], {"psnr.plug-in": values}, label=f"{name}.zip")
        write_result(tmp_path / f"{name}.json", found)
    write_npz(tmp_path / "scores.npz", **{"psnr.plug-in": x})
    stored = PerImage(file="scores.npz", sha256=hash_file(tmp_path / "scores.npz"), arrays=["psnr.plug-in"])
    write_record(tmp_path, record([metric(), scored(x)], per_image=stored))
    return tmp_path


def test_verb_prints_and_writes_all_numbers(files):
    arguments = [str(files / "a.json"), str(files / "b.json"), "--json", str(files / "out.json")]
    found = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert found.exception is None and found.return_value == 0
    assert "paired over 39 reference images" in found.output and "worse" in found.output

    def refuse(name):
        raise AssertionError(f"{name} in JSON")

    written = json.loads((files / "out.json").read_text(), parse_constant=refuse)
    fid, psnr = written["rows"]
    assert fid["verdict"] == "worse" and fid["difference"] == 2.0 and fid["paired_n"] is None
    assert psnr["verdict"] == "better" and psnr["paired_n"] == 39 and psnr["b"]["n"] == 40


def test_verb_compares_records_with_results(files):
    found = CliRunner().invoke(command, [str(files / "vae-s0.json"), str(files / "a.json")], standalone_mode=False)
    assert found.exception is None
    assert "vae (seed 0)" in found.output and "not known to be the same" in " ".join(found.output.split())


def test_tolerance_free_verb_exits_with_one_where_a_value_differs(files):
    paths = [str(files / "a.json"), str(files / "b.json")]
    for second, status in ((paths[0], 0), (paths[1], 1)):
        found = CliRunner().invoke(command, [paths[0], second, "--tolerance-free"], standalone_mode=False)
        assert found.return_value == status


def test_metrics_may_be_written_shorter(files):
    found = CliRunner().invoke(command, [str(files / "a.json")] * 2 + ["--metrics", "is"], standalone_mode=False)
    assert isinstance(found.exception, UsageError) and "inception_score" in str(found.exception)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 1}', '{"metrics": [], "suite": 1}'])
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"x\.json"):
        load_measured(path)


def test_the_record_of_a_failed_row_is_refused(tmp_path):
    write_record(tmp_path, record([], status="failed", reason="diverged"))
    with pytest.raises(DataError, match=r"failed \(diverged\)"):
        load_measured(tmp_path / "vae-s0.json")
