"""Sources of a report: their names, what is refused, and how their records become rows."""

import pytest
from report_runs import row, write_records, write_run_folder

from genbench.errors import DataError, UsageError
from genbench.report.rows import join_rows
from genbench.report.sources import read_sources


def rows_of(*given):
    return join_rows(read_sources([str(one) for one in given]))


def labels(*given):
    return [row.label for row in rows_of(*given)[0]]


def test_sources_are_called_by_what_tells_their_paths_apart(tmp_path):
    paths = [write_records(tmp_path / name / "digits", row("vae")) for name in ("a", "b")]
    assert [source.name for source in read_sources([str(path) for path in paths])] == ["a/digits", "b/digits"]
    assert [source.name for source in read_sources([f"old={paths[0]}", str(paths[1])])] == ["old", "digits"]
    assert read_sources([str(paths[0] / "records")])[0].name == "digits"


def test_a_path_with_an_equals_sign_is_a_path(tmp_path):
    assert read_sources([str(write_records(tmp_path / "steps=5", row("vae")))])[0].name == "steps=5"


def test_two_sources_of_one_name_are_refused(tmp_path):
    path = write_records(tmp_path / "a", row("vae"))
    with pytest.raises(UsageError, match=r"Two sources are called 'x'. Name them apart"):
        read_sources([f"x={path}", f"x={path}"])


@pytest.mark.parametrize("given", [[], ["nowhere"], ["empty"]])
def test_nothing_to_read_is_refused(tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"Give at least one|no such file or folder|no records"):
        read_sources(given)


def test_a_truncated_record_of_a_folder_is_named(tmp_path):
    folder = write_records(tmp_path / "a", row("vae"), row("gan"))
    (folder / "records" / "gan-s0.json").write_text('{"schema_version": 1,')
    with pytest.raises(DataError, match=r"gan-s0.json: not a readable record"):
        read_sources([str(folder)])


def test_a_run_without_any_readable_record_is_refused_with_the_reason(tmp_path):
    folder = write_run_folder(tmp_path / "run", row("vae"))
    (folder / "records" / "vae-s0.json").write_text("{")
    with pytest.raises(DataError, match=r"no record of it can be read. not a readable record"):
        read_sources([str(folder)])


def test_changed_scores_are_refused_in_a_folder_and_noted_in_a_run(tmp_path):
    folder = write_records(tmp_path / "a", row("vae"), scores=True)
    (folder / "records" / "vae-s0.npz").write_bytes(b"PK other")
    with pytest.raises(DataError, match=r"vae-s0.npz"):
        read_sources([str(folder)])
    (folder / "run.json").write_text('{"rows": ["vae-s0"]}')
    source = read_sources([str(folder)])[0]
    assert source.entries[0].scores == {}
    assert any("vae-s0.npz" in note for note in source.notes)


def test_seeds_of_several_sources_are_one_row_with_their_mean(tmp_path):
    a = write_records(tmp_path / "a", row("vae", 0, fid=1.0), row("vae", 2, fid=5.0))
    b = write_records(tmp_path / "b", row("vae", 1, fid=3.0))
    (joined,), notes = rows_of(a, b)
    fid = joined.record.find("fid")
    assert (joined.label, joined.seeds, notes) == ("vae", [0, 1, 2], [])
    assert fid.value == 3.0
    assert fid.provenance["seeds"] == {"0": 1.0, "1": 3.0, "2": 5.0}
    assert fid.ci95[0] == pytest.approx(3.0 - 4.302653 * 2.0 / 3**0.5)


def test_one_seed_twice_is_two_rows_labelled_by_their_sources(tmp_path):
    a = write_records(tmp_path / "a", row("vae", 0, fid=1.0), row("vae", 1), row("gan"))
    b = write_records(tmp_path / "b", row("vae", 0, fid=2.0))
    rows, _ = rows_of(a, b)
    assert [(one.label, one.seeds) for one in rows] == [("gan", [0]), ("vae · a", [0, 1]), ("vae · b", [0])]


@pytest.mark.parametrize(
    "change",
    [{"config": {"model": {"width": 32}}}, {"training": None}],
)
def test_another_setup_is_another_row(tmp_path, change):
    published = row("vae", 1)
    published = published.model_copy(update={"training": published.training.model_copy(update={"source": "published"})})
    other = published if change == {"training": None} else row("vae", 1, **change)
    a, b = write_records(tmp_path / "a", row("vae", 0)), write_records(tmp_path / "b", other)
    assert labels(a, b) == ["vae · a", "vae · b"]


def test_a_record_that_is_in_two_sources_is_shown_once_and_a_note_says_so(tmp_path):
    a, b = (write_records(tmp_path / name, row("vae")) for name in ("a", "b"))
    rows, notes = rows_of(a, b)
    assert [one.label for one in rows] == ["vae"]
    assert notes == ["vae-s0 is the same in a and b: it is shown once."]


def test_a_control_that_came_out_the_same_is_shown_once_whatever_it_cost(tmp_path):
    slow = row("noise", control=True)
    fast = slow.model_copy(update={"created": "2027-01-01T00:00:00+00:00"})
    other = row("noise", control=True, fid=9.0)
    a, b = write_records(tmp_path / "a", slow), write_records(tmp_path / "b", fast)
    c = write_records(tmp_path / "c", other)
    assert labels(a, b) == ["noise"]
    assert rows_of(a, b)[1] == [
        "noise-s0 is the same in a and b, but for its costs; those of a stand: it is shown once."
    ]
    assert labels(a, c) == ["noise · a", "noise · c"]


def test_a_seed_that_failed_or_lacks_a_metric_is_not_in_the_mean_and_a_note_says_why(tmp_path):
    failed = row("vae", 1, status="failed", reason="loss is nan", metrics=[])
    folder = write_records(tmp_path / "a", row("vae", 0, fid=1.0), failed, row("vae", 2, fid=3.0))
    (joined,), _ = rows_of(folder)
    fid = joined.record.find("fid")
    assert (joined.record.status, fid.value) == ("ok", 2.0)
    assert fid.provenance["seeds"] == {"0": 1.0, "1": None, "2": 3.0}
    assert fid.provenance["notes"] == ["seed 1 is not in it: it failed: loss is nan"]
