"""Series of a metric over commits: what a point is, what is held against what, gaps and notes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from report_fixture import absent, metric, record
from series_records import NOISE, jump, made, only, put, sha, values

from genbench.errors import UsageError
from genbench.record import write_record
from genbench.report.series.read import read_series
from genbench.report.series.text import step_table


def test_a_step_has_its_place_size_verdict_and_text(tmp_path):
    values(tmp_path, "vae", jump())
    one = only(read_series([tmp_path], "fid"))
    assert (one.suite, one.row, one.title, one.family, one.control) == (
        "digits",
        "vae",
        "FID (digits-cnn)",
        "latent",
        False,
    )
    assert [p.label for p in one.points] == [sha(day)[:7] for day in range(1, 13)]
    assert [p.value for p in one.points] == pytest.approx(jump())
    assert one.points[3].ci95 == pytest.approx((jump()[3] - 0.1, jump()[3] + 0.1))
    assert one.points[3].commit == sha(4)
    assert one.points[3].created == made(4)
    (step,) = one.steps
    assert (step.index, step.label, step.before, step.verdict) == (8, sha(9)[:7], sha(8)[:7], "worse")
    assert step.change == pytest.approx(np.mean(jump()[8:]) - np.mean(jump()[:8]))
    assert step.ci95[0] < step.change < step.ci95[1]
    assert step.p < 0.01
    assert step.text.startswith("FID of vae: +0.9")
    assert step.text.endswith(f"at {sha(9)[:7]}, after {sha(8)[:7]} (worse).")
    assert [(s.first, s.last) for s in one.segments] == [(0, 7), (8, 11)]
    assert one.notes == ()


def test_the_last_point_alone_can_be_a_step(tmp_path):
    values(tmp_path, "vae", jump(10, 9, -1.0))
    (step,) = only(read_series([tmp_path], "fid")).steps
    assert (step.index, step.verdict) == (9, "better")


@pytest.mark.parametrize(
    ("name", "size", "verdict"), [("recall", 1, "better"), ("recall", -1, "worse"), ("ssim_pairwise", 1, "changed")]
)
def test_verdicts_follow_the_direction_of_the_metric(tmp_path, name, size, verdict):
    values(tmp_path, "vae", [0.5 + 0.1 * v for v in jump(size=size, base=0)], name, 0.01)
    assert [s.verdict for s in only(read_series([tmp_path], name)).steps] == [verdict]


def test_alpha_is_passed_on(tmp_path):
    values(tmp_path, "vae", jump(size=0.06), half=None)
    assert only(read_series([tmp_path], "fid")).steps == ()
    assert len(only(read_series([tmp_path], "fid", alpha=0.5)).steps) == 1


def test_points_are_commits_wherever_their_records_lie(tmp_path):
    for seed, folder in enumerate(("a/b/c", "d", "d/e")):
        put(tmp_path, 3, "vae", [metric("fid", 2.0 + seed, 0.1)], folder=folder, seed=seed)
    put(tmp_path, 1, "vae", [metric("fid", 5.0, 0.1)], folder="d/f")
    one = only(read_series([tmp_path], "fid"))
    assert [(p.commit, p.value, p.seeds) for p in one.points] == [(sha(1), 5.0, (0,)), (sha(3), 3.0, (0, 1, 2))]


def test_a_dirty_tree_is_a_point_of_its_own(tmp_path):
    put(tmp_path, 1, "vae", [metric("fid", 2.0, 0.1)], environment={"commit": sha(1), "commit_dirty": False})
    put(tmp_path, 2, "vae", [metric("fid", 3.0, 0.1)], environment={"commit": sha(1), "commit_dirty": True})
    assert [p.label for p in only(read_series([tmp_path], "fid")).points] == [sha(1)[:7], f"{sha(1)[:7]}-dirty"]


def test_labels_are_as_long_as_it_takes(tmp_path):
    for day, commit in enumerate(("a" * 40, "a" * 10 + "b" * 30, "v1.2", "v1.2 "), start=1):
        put(tmp_path, day, "vae", [metric("fid", 2.0, 0.1)], commit=False, environment={"commit": commit})
    put(tmp_path, 5, "vae", [metric("fid", 2.0, 0.1)], commit=False, folder="v1.2")
    history = read_series([tmp_path], "fid")
    assert [p.label for p in only(history).points] == ["a" * 12, "a" * 10 + "bb", "v1.2", "v1.2 (2)"]
    assert "more than once" in history.notes[0]


@pytest.mark.parametrize("commit", [None, "", "  ", 7, ["x"]])
def test_without_a_commit_the_folder_is_the_point(tmp_path, commit):
    for day, folder in ((2, "zulu/deep"), (3, "alpha"), (1, "mike")):
        for seed in (0, 1):
            put(
                tmp_path,
                day,
                "vae",
                [metric("fid", day + seed, 0.1)],
                commit=False,
                folder=folder,
                seed=seed,
                hour=1 - seed,
                environment={"commit": commit},
            )
    one = only(read_series([tmp_path], "fid"))
    assert [(p.label, p.value, p.commit) for p in one.points] == [
        ("mike", 1.5, None),
        ("zulu", 2.5, None),
        ("alpha", 3.5, None),
    ]
    assert one.points[0].created == made(1)


def test_runs_given_one_by_one_are_points_too(tmp_path):
    for day in (1, 2):
        put(tmp_path, day, "vae", [metric("fid", day, 0.1)], commit=False)
        put(tmp_path, day, "pca", [metric("fid", day, 0.1)], commit=False, hour=1)
    runs = [tmp_path / "2026-11-01", str(tmp_path / "2026-11-02/records"), tmp_path / "2026-11-01"]
    history = read_series(runs, "fid", rows=["vae"])
    assert [p.label for p in only(history).points] == ["2026-11-01", "2026-11-02"]
    assert (history.points, history.notes) == (2, ())


def test_records_that_lie_loose_are_points_by_their_time(tmp_path):
    for day in (2, 1):
        path = put(tmp_path, day, "vae", [metric("fid", day, 0.1)], commit=False)
        shutil.move(path, tmp_path / f"{9 - day}.json")
    put(tmp_path, 3, "pca", [metric("fid", 2, 0.1)], commit=False, folder="x")
    shutil.move(tmp_path / "x/records/pca-s0.json", tmp_path / "pca.json")
    history = read_series([tmp_path], "fid")
    assert {one.row: [(p.label, p.value) for p in one.points] for one in history.series} == {
        "vae": [("2026-11-01T00:00:00", 1.0), ("2026-11-02T00:00:00", 2.0)],
        "pca": [("2026-11-03T00:00:00", 2.0)],
    }


def test_times_with_other_zones_are_in_order(tmp_path):
    for name, created in (("late", "2026-11-01T01:00:00-05:00"), ("early", "2026-11-01T05:30:00+00:00")):
        write_record(tmp_path / name, record("vae", [metric("fid", 1.0, 0.1)], created=created))
    write_record(tmp_path / "naive", record("vae", [metric("fid", 1.0, 0.1)], created="2026-11-01T05:45:00"))
    assert [p.label for p in only(read_series([tmp_path], "fid")).points] == ["early", "naive", "late"]


def test_linked_records_are_read_where_they_are_linked(tmp_path):
    for day in (1, 2):
        put(tmp_path / "store", day, "vae", [metric("fid", day, 0.1)], commit=False)
        link = tmp_path / "history" / f"r{day}"
        link.mkdir(parents=True)
        (link / "vae.json").symlink_to(tmp_path / f"store/2026-11-0{day}/records/vae-s0.json")
    assert [p.label for p in only(read_series([tmp_path / "history"], "fid")).points] == ["r1", "r2"]


def test_seeds_are_pooled_with_the_spread_of_all_points(tmp_path):
    """A point whose two seeds happen to agree is no surer than the others."""
    spread = [0.5, 0.4, 0.6, 0.5, 0.45, 0.55, 0.5, 0.0]
    for day, gap in enumerate(spread, start=1):
        for seed, side in ((0, -1), (1, 1)):
            put(tmp_path, day, "vae", [metric("fid", 3.0 + 0.3 * (day == 8) + side * gap, None)], seed=seed)
    one = only(read_series([tmp_path], "fid"))
    assert [p.value for p in one.points] == pytest.approx([3.0] * 7 + [3.3])
    assert one.points[0].seeds == (0, 1)
    assert one.points[0].ci95 == pytest.approx((3.0 - 12.706 * 0.5, 3.0 + 12.706 * 0.5), rel=1e-3)
    assert one.steps == ()
    shutil.rmtree(tmp_path / "2026-11-08")
    for seed in (0, 1):
        put(tmp_path, 8, "vae", [metric("fid", 9.0, None)], seed=seed)
    assert [s.index for s in only(read_series([tmp_path], "fid")).steps] == [7]


def test_own_standard_errors_shrink_with_seeds(tmp_path):
    for day in range(1, 11):
        for seed in range(4):
            put(tmp_path / "four", day, "vae", [metric("fid", 2.0 + 0.25 * (day > 8), 0.196)], seed=seed)
    assert [s.index for s in only(read_series([tmp_path / "four"], "fid")).steps] == [8]
    values(tmp_path / "one", "vae", [2.0] * 8 + [2.25] * 2, half=0.196)
    assert only(read_series([tmp_path / "one"], "fid")).steps == ()


def test_points_measured_otherwise_are_no_step(tmp_path):
    for day in range(1, 13):
        old = day <= 5
        how = {"version": 1, "n": 100 if old else 297}
        put(tmp_path, day, "vae", [metric("fid", (5.0 if old else 2.0) + NOISE[day - 1], 0.1, comparable=how)])
    one = only(read_series([tmp_path], "fid"))
    assert one.steps == ()
    assert [p.measured for p in one.points] == [1] * 5 + [0] * 7
    assert [(s.first, s.last) for s in one.segments] == [(0, 4), (5, 11)]
    (note,) = one.notes
    assert note.startswith(f"{sha(1)[:7]} to {sha(5)[:7]}: measured unlike the last point (n: 100 against 297)")
    assert "no step" in note


def test_steps_are_looked_for_in_each_way_of_measuring(tmp_path):
    """Two runners by turns: each is held against itself, and the step is found in both."""
    for day in range(1, 25):
        fast, late = day % 2, day > 16
        how = {"version": 1, "device": "fast" if fast else "slow"}
        rate = (900.0 if fast else 300.0) * (0.5 if late else 1.0) * (1 + 0.2 * NOISE[day % 12])
        put(tmp_path, day, "vae", [metric("images_per_second", rate, 0.01 * rate, comparable=how)])
    one = only(read_series([tmp_path], "images_per_second"))
    assert [(s.index, s.verdict) for s in one.steps] == [(16, "worse"), (17, "worse")]
    assert [s.before for s in one.steps] == [sha(15)[:7], sha(16)[:7]]
    assert "(device: 'fast' against 'slow')" in one.notes[0]


def test_speed_is_held_against_that_of_one_device_only(tmp_path):
    for day in range(1, 13):
        device = "old" if day <= 6 else "new"
        found = [metric("training_seconds", 9.0 if day <= 6 else 3.0, None), metric("parameters", 10.0, kind="exact")]
        put(tmp_path, day, "vae", found, environment={"device": device})
    one = only(read_series([tmp_path], "training_seconds"))
    assert (one.steps, [p.measured for p in one.points]) == ((), [1] * 6 + [0] * 6)
    assert "device: 'old' against 'new'" in one.notes[0]
    assert {p.measured for p in only(read_series([tmp_path], "parameters")).points} == {0}


def test_likelihoods_of_other_kinds_are_no_step(tmp_path):
    for day in range(1, 13):
        kind = "upper_bound" if day <= 6 else "exact"
        put(tmp_path, day, "vae", [metric("bits_per_dim", 2.0 + (day <= 6), 0.01, kind=kind)])
    one = only(read_series([tmp_path], "bits_per_dim"))
    assert one.steps == ()
    assert "kind: 'upper_bound' against 'exact'" in one.notes[0]


def test_any_change_of_an_exact_count_is_a_step(tmp_path):
    for day, count in enumerate([100.0, 100.0, 101.0], start=1):
        put(tmp_path, day, "vae", [metric("parameters", count, kind="exact")])
    (step,) = only(read_series([tmp_path], "parameters")).steps
    assert (step.index, step.change, step.verdict) == (2, 1.0, "changed")
    assert step_table(read_series([tmp_path], "parameters").series)[1][0][5:7] == ["+1", ""]


def test_an_exact_likelihood_has_noise(tmp_path):
    values(tmp_path, "nice", [2 + e for e in NOISE], "bits_per_dim", None)
    for path in tmp_path.rglob("*.json"):
        found = json.loads(path.read_text())
        found["metrics"][0]["kind"] = "exact"
        path.write_text(json.dumps(found))
    assert only(read_series([tmp_path], "bits_per_dim")).steps == ()


def test_gaps_have_reasons(tmp_path):
    values(tmp_path, "vae", jump(6, 9), start=2)
    put(tmp_path, 1, "pca", [metric("fid", 1.0, 0.1)])
    put(tmp_path, 8, "vae", [absent("fid", "the weights are lost", "failed")])
    put(tmp_path, 9, "vae", [], status="failed", reason="it diverged")
    put(tmp_path, 10, "pca", [metric("fid", 1.0, 0.1)])
    put(tmp_path, 11, "vae", [metric("kid", 1.0, 0.1)])
    values(tmp_path, "vae", jump(3, 9), start=12)
    one = read_series([tmp_path], "fid", rows=["vae"]).series[0]
    assert [p.value is None for p in one.points] == [False] * 6 + [True] * 4 + [False] * 3
    assert [p.reason for p in one.points[6:10]] == [
        "the weights are lost",
        "the row failed: it diverged",
        "no record of this row",
        "its records do not have fid of this kind",
    ]
    assert (one.points[0].label, one.steps) == (sha(2)[:7], ())
    assert [(s.first, s.last) for s in one.segments] == [(0, 12)]


def test_a_step_across_a_gap_keeps_its_places(tmp_path):
    numbers = jump()
    for day, number in enumerate(numbers, start=1):
        put(tmp_path, day, "vae", [absent("fid", "n/a") if day in (3, 9) else metric("fid", number, 0.1)])
    (step,) = only(read_series([tmp_path], "fid")).steps
    assert (step.index, step.label, step.before) == (9, sha(10)[:7], sha(8)[:7])


def test_a_row_without_any_value_is_named(tmp_path):
    values(tmp_path, "vae", [1.0, 2.0])
    for day in (1, 2):
        put(tmp_path, day, "gan", [], status="failed", reason="it diverged")
    history = read_series([tmp_path], "fid")
    assert [one.row for one in history.series] == ["vae"]
    assert history.notes == ("gan of suite 'digits' has no value of fid at any point.",)


def test_a_seed_that_failed_is_noted(tmp_path):
    values(tmp_path, "vae", [1.0, 2.0])
    put(tmp_path, 2, "vae", [], seed=1, status="failed", reason="it diverged")
    one = only(read_series([tmp_path], "fid"))
    assert one.points[1].seeds == (0,)
    assert one.notes == (f"{sha(2)[:7]}: seed 1 is not in it: it failed: it diverged.",)


def test_a_point_apart_is_noted(tmp_path):
    values(tmp_path, "vae", [300.0 if i == 5 else v for i, v in enumerate(jump(12, 20))])
    one = only(read_series([tmp_path], "fid"))
    assert one.steps == ()
    assert one.notes == (
        f"{sha(6)[:7]} stands apart from both of its sides (300): no lasting change, and left out of the means.",
    )


def test_the_later_of_two_records_counts(tmp_path):
    values(tmp_path, "vae", [1.0, 2.0])
    put(tmp_path, 2, "vae", [metric("fid", 7.0, 0.1)], folder="again", hour=5)
    put(tmp_path, 2, "vae", [metric("fid", 8.0, 0.1)], folder="before", hour=3)
    history = read_series([tmp_path], "fid")
    assert [p.value for p in only(history).points] == [1.0, 7.0]
    assert len(history.notes) == 2
    assert history.notes[1] == (
        f"{sha(2)[:7]} has vae with seed 0 of suite 'digits' more than once: that of {made(2, 5)} counts, not that of "
        f"{made(2, 3)}."
    )


def test_suites_rows_and_extractors_are_series_of_their_own(tmp_path):
    for day in (1, 2):
        found = [metric("fid", day, 0.1), metric("fid", 10 * day, 0.1, extractor="inception")]
        put(tmp_path, day, "vae", found)
        put(tmp_path, day, "vae", [metric("fid", 5.0, 0.1)], folder=f"other-{day}", suite="mnist")
    put(tmp_path, 3, "vae", [metric("fid", 5.0, 0.1)], suite="mnist", variant="fast")
    found = {(s.suite, s.row, s.title): [p.value for p in s.points] for s in read_series([tmp_path], "fid").series}
    assert found == {
        ("digits", "vae", "FID (digits-cnn)"): [1.0, 2.0],
        ("digits", "vae", "FID (inception)"): [10.0, 20.0],
        ("mnist", "vae", "FID (digits-cnn)"): [5.0, 5.0, None],
        ("mnist", "vae@fast", "FID (digits-cnn)"): [5.0],
    }


def test_an_estimator_can_be_chosen(tmp_path):
    for day in (1, 2):
        found = [metric("bits_per_dim", day + i, 0.1, estimator=e) for i, e in enumerate(("elbo", "iwae-500"))]
        put(tmp_path, day, "vae", found)
    both = [(s.title, s.points[0].value) for s in read_series([tmp_path], "bits_per_dim").series]
    assert both == [("Bits/dim, elbo", 1.0), ("Bits/dim, iwae-500", 2.0)]
    assert [p.value for p in only(read_series([tmp_path], "bits_per_dim.iwae-500")).points] == [2.0, 3.0]


@pytest.mark.parametrize(
    ("name", "told"),
    [("fdi", "Did you mean 'fid'"), ("fid.plugin", "Did you mean 'fid.plug-in'"), ("", "Known: fid")],
)
def test_unknown_metrics_name_the_nearest(tmp_path, name, told):
    values(tmp_path, "vae", [1.0, 2.0])
    with pytest.raises(UsageError, match=told):
        read_series([tmp_path], name)


def test_unknown_rows_name_the_nearest(tmp_path):
    values(tmp_path, "vae", [1.0, 2.0])
    with pytest.raises(UsageError, match="Did you mean 'vae'"):
        read_series([tmp_path], "fid", rows=["vea"])


def test_the_later_record_counts_whatever_its_zone(tmp_path):
    values(tmp_path, "vae", [1.0, 2.0])
    for folder, created, value in (("x", "2026-11-02T06:00:00+09:00", 7.0), ("y", "2026-11-01T23:00:00", 8.0)):
        one = record("vae", [metric("fid", value, 0.1)], environment={"commit": sha(3)}, created=created)
        write_record(tmp_path / folder, one)
    assert [p.value for p in only(read_series([tmp_path], "fid")).points] == [1.0, 8.0, 2.0]


def test_what_is_no_history_is_told(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        read_series([tmp_path / "none"], "fid")
    with pytest.raises(UsageError, match="no records there"):
        read_series([tmp_path], "fid")
    with pytest.raises(UsageError, match="no folder given"):
        read_series([], "fid")
    values(tmp_path, "vae", [1.0])
    with pytest.raises(UsageError, match=r"one point \(0101010\).*FOLDER/2026-11-01/records"):
        read_series([tmp_path], "fid")
    put(tmp_path, 2, "vae", [absent("fid", "n/a")])
    assert [p.reason for p in only(read_series([tmp_path], "fid")).points] == [None, "n/a"]
    put(tmp_path, 1, "vae", [absent("fid", "n/a")])
    with pytest.raises(UsageError, match="no row has a value of 'fid'"):
        read_series([tmp_path], "fid")


def test_damaged_records_are_left_out_with_a_note(tmp_path):
    values(tmp_path, "vae", [1.0, 2.0])
    whole = next((tmp_path / "2026-11-01").rglob("*.json")).read_text()
    (tmp_path / "2026-11-03" / "records").mkdir(parents=True)
    (tmp_path / "2026-11-03" / "records" / "cut.json").write_text(whole[:300])
    (tmp_path / "newer.json").write_text(whole.replace('"schema_version": 1', '"schema_version": 99'))
    (tmp_path / "when.json").write_text(whole.replace(made(1), "last Tuesday"))
    (tmp_path / "year.json").write_text(whole.replace(made(1), "0001-01-01T00:00:00+14:00"))
    (tmp_path / "summary.json").write_text('{"rows": 3}')
    (tmp_path / "2026-11-01" / "run.json").write_text("{}")
    (tmp_path / "2026-11-01" / "stages").mkdir()
    (tmp_path / "2026-11-01" / "stages" / "cut.json").write_text(whole[:300])
    history = read_series([tmp_path], "fid")
    assert [p.value for p in only(history).points] == [1.0, 2.0]
    assert sorted(note.split(":")[1].strip() for note in history.notes) == [
        "2026-11-03/records/cut.json",
        "newer.json",
        "when.json",
        "year.json",
    ]
    assert not any(str(tmp_path) in note for note in history.notes)
