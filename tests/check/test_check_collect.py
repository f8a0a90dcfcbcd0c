"""Which records a check reads, and what it says of damaged ones."""

import json
import shutil

import numpy as np
import pytest
from check_fixture import LEADERBOARD, entry, metric, scored, write

from genbench.check.collect import by_row, one_suite, read_entries, record_files
from genbench.errors import DataError, UsageError
from genbench.files import hash_file


@pytest.fixture
def run(tmp_path):
    found, scores = scored("bits_per_dim", np.linspace(1, 2, 30))
    folder = write(tmp_path / "run", entry("vae", [found], scores=scores), entry("vae", [metric("fid", 2.0)], seed=1))
    (folder / "run.json").write_text('{"rows": ["vae-s0", "vae-s1"]}')
    return folder


def test_a_run_its_records_and_one_file_are_read(run):
    for source in (run, run / "records", str(run)):
        entries = read_entries(source)
        assert [one.record.file_stem for one in entries] == ["vae-s0", "vae-s1"]
        assert entries[0].scores["bits_per_dim.mean"].shape == (30,)
        assert entries[1].scores == {}
    assert [one.record.seed for one in read_entries(run / "records" / "vae-s1.json")] == [1]


def test_records_of_rows_that_the_last_run_was_not_asked_for_are_old(run):
    (run / "run.json").write_text('{"rows": ["vae-s1", "gone-s0"]}')
    assert [one.record.file_stem for one in read_entries(run)] == ["vae-s1"]
    assert len(read_entries(run / "records")) == 2
    (run / "run.json").write_text('{"rows": ["gone-s0"]}')
    with pytest.raises(UsageError, match="no records"):
        read_entries(run)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"rows": "vae-s0"}'])
def test_a_run_that_does_not_say_its_rows_is_refused(run, text):
    (run / "run.json").write_text(text)
    with pytest.raises(DataError, match=r"run\.json: which rows the run was asked for cannot be read"):
        read_entries(run)


def test_scores_that_are_no_numbers_are_refused(run):
    path = run / "records" / "vae-s0.npz"
    np.savez(path, **{"bits_per_dim.mean": np.array(["a"] * 30)})
    record = run / "records" / "vae-s0.json"
    value = json.loads(record.read_text())
    value["per_image"]["sha256"] = hash_file(path)
    record.write_text(json.dumps(value))
    with pytest.raises(DataError, match=r"vae-s0\.json: per-image scores 'bits_per_dim\.mean' are <U1"):
        read_entries(run)


def test_what_an_interrupted_writing_left_behind_is_no_record(run):
    shutil.copy(run / "records" / "vae-s0.json", run / "records" / ".vae-s0-5j_ysw7w.json")
    (run / "records" / ".vae-s1-9vkq_68w.json").touch()
    assert [one.record.file_stem for one in read_entries(run)] == ["vae-s0", "vae-s1"]


def test_a_folder_of_plain_records_skips_the_files_that_are_none(run, tmp_path):
    flat = tmp_path / "flat"
    shutil.copytree(run / "records", flat)
    (flat / "run.json").write_text("{}")
    (flat / "baseline.json").write_text("{}")
    assert [path.name for path in record_files(flat)] == ["vae-s0.json", "vae-s1.json"]


def test_a_leaderboard_is_found_by_its_suite(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    rows = by_row(read_entries("leaderboard:digits"))
    assert {"vae", "ddpm@ddim20", "noise"} <= set(rows)
    assert len(rows) == len(list((LEADERBOARD / "records").glob("*.json")))
    with pytest.raises(UsageError, match=r"No leaderboard of suite 'nowhere'.*digits"):
        read_entries("leaderboard:nowhere")


def test_a_leaderboard_of_the_working_folder_comes_first(monkeypatch, tmp_path):
    write(tmp_path / "leaderboards" / "digits", entry("mine", [metric("fid", 1.0)]))
    monkeypatch.chdir(tmp_path)
    assert list(by_row(read_entries("leaderboard:digits"))) == ["mine"]


def test_what_holds_no_records_is_named(tmp_path):
    with pytest.raises(UsageError, match="nothing-here: no such file or folder"):
        read_entries(tmp_path / "nothing-here")
    with pytest.raises(UsageError, match="no records"):
        read_entries(tmp_path)


def test_two_records_of_one_row_and_seed_are_refused(run):
    shutil.copyfile(run / "records" / "vae-s1.json", run / "records" / "again.json")
    with pytest.raises(DataError, match=r"again\.json and .*vae-s1\.json both hold vae with seed 1"):
        read_entries(run / "records")


def test_a_truncated_record_is_named(run):
    path = run / "records" / "vae-s1.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(DataError, match=r"vae-s1\.json: not a readable record"):
        read_entries(run)


@pytest.mark.parametrize(("version", "mend"), [(0, "make it again"), (2, "update genbench"), ("1", "make it again")])
def test_a_record_of_another_schema_says_what_to_do(run, version, mend):
    path = run / "records" / "vae-s1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": version}))
    with pytest.raises(DataError, match=rf"vae-s1\.json: record schema version {version!r}.* reads version 1.*{mend}"):
        read_entries(run)


def test_a_record_that_is_nested_too_deeply_is_named(run):
    (run / "records" / "vae-s1.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"vae-s1\.json: not a readable record"):
        read_entries(run)


def test_a_record_that_is_no_object_is_named(run):
    path = run / "records" / "vae-s1.json"
    path.write_text("[1]")
    with pytest.raises(DataError, match=r"vae-s1\.json"):
        read_entries(run)


def test_scores_of_another_hash_and_missing_ones_are_refused(run):
    path = run / "records" / "vae-s0.npz"
    np.savez(path, **{"bits_per_dim.mean": np.zeros(30)})
    with pytest.raises(DataError, match=r"vae-s0\.npz: missing, or not the per-image scores"):
        read_entries(run)
    path.unlink()
    with pytest.raises(DataError, match=r"vae-s0\.npz"):
        read_entries(run)


def test_seeds_of_a_row_come_in_order():
    entries = [entry("b", [], 3), entry("a@x", [], 0), entry("b", [], 1)]
    rows = by_row(entries)
    assert list(rows) == ["b", "a@x"]
    assert [one.record.seed for one in rows["b"]] == [1, 3]


def test_a_check_is_about_one_suite():
    digits, other = entry("a", []), entry("a", [], suite="mnist")
    assert one_suite([digits], [digits]) == "digits"
    for candidate, baseline in (([other], [digits]), ([digits, other], [digits]), ([digits, other], [digits, other])):
        with pytest.raises(UsageError, match=r"one suite.*'mnist'"):
            one_suite(candidate, baseline)
