"""What `add` and `merge` accept, and that they say everything that is wrong, and how to mend it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from board_records import (
    as_seed,
    board_folder,
    change_metric,
    change_scores,
    edit,
    fid,
    metric,
    refusal,
    row,
    shipped_copy,
    state,
    taken_out,
)

from genbench.errors import DataError, UsageError
from genbench.files import hash_file, write_npz
from genbench.leaderboard import place
from genbench.leaderboard.add import add, merge
from genbench.leaderboard.folder import read_folder
from genbench.record import Training, read_record


@pytest.fixture
def board(tmp_path):
    """The shipped leaderboard of digits without its vae, and a folder with that record."""
    folder = shipped_copy(tmp_path / "boards")
    return folder, taken_out(folder, "vae-s0", tmp_path / "mine")


def test_a_record_comes_with_its_scores_as_they_are(board):
    folder, record = board
    assert add([record], folder) == ["vae-s0"]
    for suffix in ("json", "npz"):
        there = folder / "records" / f"vae-s0.{suffix}"
        assert there.read_bytes() == record.with_suffix(f".{suffix}").read_bytes()
    assert "vae" in read_folder(folder).entries


def test_the_shipped_records_are_fit_to_be_rows(tmp_path):
    folder = shipped_copy(tmp_path)
    assert len(add([folder / "records"], tmp_path / "new" / "digits")) == len(list((folder / "records").glob("*.json")))


def test_a_first_record_makes_the_folder(board, tmp_path):
    add([board[1]], tmp_path / "fresh" / "digits")
    assert (tmp_path / "fresh" / "digits" / "records" / "vae-s0.json").exists()


def test_a_duplicate_needs_replace(board):
    folder, record = board
    add([record], folder)
    edit(record, created="2030-01-01T00:00:00+00:00")
    assert "vae with seed 0 is there already. Use --replace" in refusal(record, folder)
    add([record], folder, replace=True)
    assert "2030-01-01" in (folder / "records" / "vae-s0.json").read_text()


def test_a_damaged_row_can_be_replaced(board):
    folder, record = board
    add([record], folder)
    (folder / "records" / "vae-s0.npz").write_bytes(b"")
    with pytest.raises(DataError):
        read_folder(folder)
    add([record], folder, replace=True)
    assert "vae" in read_folder(folder).entries
    assert (folder / "records" / "vae-s0.npz").read_bytes() == record.with_suffix(".npz").read_bytes()


def test_the_same_record_twice_is_one_too_many(board, tmp_path):
    folder, record = board
    again = tmp_path / "again"
    shutil.copytree(record.parent, again)
    with pytest.raises(UsageError, match="has the same row and seed"):
        add([record, again / "vae-s0.json"], folder)
    assert not (folder / "records" / "vae-s0.json").exists()


def test_truncated_and_old_records_are_refused_with_the_file(board):
    folder, record = board
    text = record.read_text()
    record.write_text(text[:200])
    assert re.search(r"vae-s0\.json:\n  - not a readable record", refusal(record, folder))
    record.write_text(text.replace('"schema_version": 1', '"schema_version": 7'))
    assert "schema" in refusal(record, folder)


@pytest.mark.parametrize("damage", ["missing", "other"])
def test_scores_must_be_those_of_the_record(board, damage):
    folder, record = board
    scores = record.with_suffix(".npz")
    scores.unlink() if damage == "missing" else write_npz(scores, x=np.zeros(3))
    told = refusal(record, folder)
    assert "not the per-image scores that the record was written with" in told and "Hand in the file" in told


def test_scores_must_hold_what_the_record_lists(board):
    folder, record = board
    arrays = dict(np.load(record.with_suffix(".npz")))
    arrays.pop("ssim.mean")
    write_npz(record.with_suffix(".npz"), **arrays)
    stored = json.loads(record.read_text())["per_image"]
    edit(record, per_image=stored | {"sha256": hash_file(record.with_suffix(".npz"))})
    assert "vae-s0.npz does not hold the arrays that the record lists (ssim.mean)" in refusal(record, folder)


def test_scores_are_not_taken_from_another_place(board):
    folder, record = board
    outside = record.parent.parent / "outside.npz"
    shutil.copyfile(record.with_suffix(".npz"), outside)
    stored = json.loads(record.read_text())["per_image"]
    edit(record, per_image=stored | {"file": "../outside.npz"})
    assert "its per-image scores are in '../outside.npz', expected vae-s0.npz" in refusal(record, folder)


def test_everything_that_is_wrong_is_said_at_once(board):
    folder, record = board
    edit(record, model="../evil", environment={})
    change_metric(record, "fid", estimator="")
    change_metric(record, "bits_per_dim", value=1.0, ci95=[0.9, 1.1])
    told = refusal(record, folder)
    for part in (
        "the row's name '../evil' cannot name a file",
        "does not state its environment",
        "fid does not state estimator. Score it again: `genbench rescore`",
        "bits_per_dim (iwae-500) is 1, but what lies beside it gives 2.05406",
    ):
        assert part in told
    assert not list(folder.parent.rglob("*evil*"))


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("fid", {"comparable": {"n": 5}}, "fid (plug-in) was measured in another way than the rows that are there: "),
        ("fid", {"n": None}, "fid (plug-in) does not state n."),
        ("fid", {"higher_is_better": True}, "of this version of genbench: higher_is_better: False against True"),
        ("images_per_second", {"unit": "images/h"}, "is not the images_per_second of this version of genbench: unit: "),
        ("bits_per_dim", {"kind": "exact"}, "is stated as exact, in the rows that are there as upper bound."),
        ("fid", {"comparable": {}}, "does not state comparable"),
        ("fid", {"provenance": {}}, "does not state how its interval was had"),
        ("fid", {"extractor": "my-net"}, "features of my-net; this suite's are of digits-clip or digits-cnn."),
        ("ssim", {"value": 0.99, "ci95": None}, "ssim (mean) is 0.99, but what lies beside it gives 0.869386"),
        ("images_per_second", {"value": 1e6, "ci95": None}, "images_per_second (median of windows) is 1e+06, but"),
        ("parameters", {"value": 10.0}, "parameters (count) is 10, but what lies beside it gives 440416"),
        ("training_seconds", {"value": 1.0}, "training_seconds (wall clock) is 1, but"),
        ("latency_seconds", {"value": 1e-9, "ci95": None}, "latency_seconds (median of single images) is 1e-09, but"),
    ],
)
def test_values_must_state_how_they_were_made_and_follow_from_it(board, name, changes, told):
    folder, record = board
    change_metric(record, name, **changes)
    assert told in refusal(record, folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"suite": "mnist"}, "it is a record of suite 'mnist', not 'digits'. Add it to leaderboards/mnist."),
        ({"status": "failed", "reason": "out of memory"}, "the row failed: out of memory"),
        ({"training": None}, "does not state its training"),
        ({"config": {}}, "does not state its config.model, config.train"),
        ({"timing": None}, "figures of speed without the timing windows"),
        ({"metrics": []}, "metrics of the suite are missing: inception_score, fid"),
    ],
)
def test_a_record_must_state_what_the_rules_ask(board, changes, told):
    folder, record = board
    edit(record, **changes)
    assert told in refusal(record, folder)


def test_other_data_is_refused(board):
    folder, record = board
    edit(record, dataset=json.loads(record.read_text())["dataset"] | {"test": 5})
    assert "it is of other data than the rows that are there: test: 297 against 5" in refusal(record, folder)


def test_speed_on_another_device_is_welcome(board):
    folder, record = board
    text = json.loads(record.read_text())
    edit(record, timing=text["timing"] | {"device": "another"})
    for name in ("images_per_second", "latency_seconds", "peak_memory_bytes", "training_seconds"):
        comparable = next(m for m in text["metrics"] if m["name"] == name)["comparable"]
        change_metric(record, name, comparable=comparable | {"device": "another"})
    add([record], folder)
    assert read_record(folder / "records" / "vae-s0.json").timing.device == "another"


def test_seeds_of_a_row_are_one_system(board):
    folder, record = board
    add([record], folder)
    config = json.loads(record.read_text())["config"]
    other = as_seed(record, 1, config=config | {"train": config["train"] | {"steps": 9}})
    change_scores(other, lambda arrays: arrays.update({key: array[::-1] for key, array in arrays.items()}))
    assert "seed 0 of this row is another system: config.train.steps: 2000 against 9" in refusal(other, folder)
    edit(other, config=config)
    add([other], folder)
    assert [entry.record.seed for entry in read_folder(folder).entries["vae"]] == [0, 1]


def test_records_are_judged_beside_those_of_the_same_call(tmp_path):
    trained = {"training": Training(steps=5, seconds=1.0)}
    other = row("b", fid(1.0, comparable={"version": 9}), **trained)
    mine = board_folder(tmp_path / "mine", row("a", fid(1.0), **trained), other)
    told = refusal_of_new(mine, tmp_path / "toy")
    assert "b-s0.json" in told and "a-s0.json" not in told


def test_a_record_may_be_measured_like_any_of_the_rows_that_are_there(tmp_path):
    trained = {"training": Training(steps=5, seconds=1.0)}
    folder = board_folder(tmp_path, row("a", fid(1.0)), row("b", fid(1.0, comparable={"version": 9})))
    mine = board_folder(tmp_path / "mine", row("c", fid(2.0, comparable={"version": 9}), **trained))
    assert add([mine], folder) == ["c-s0"]


def refusal_of_new(source, folder):
    with pytest.raises(UsageError) as error:
        add([source], folder)
    assert not (folder / "records").exists()
    return str(error.value)


def test_an_interrupted_copy_leaves_the_leaderboard_as_it_was(board, monkeypatch):
    folder, record = board
    before = state(folder)
    real = shutil.copyfile

    def interrupted(source, target, **options):
        if str(target).endswith(".npz") and Path(target).parent == folder / "records":
            raise KeyboardInterrupt
        return real(source, target, **options)

    monkeypatch.setattr(place.shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add([record], folder)
    assert state(folder) == before


def test_merge_takes_what_passes_and_names_the_rest(board, tmp_path):
    folder, record = board
    add([record], folder)
    source = tmp_path / "other" / "digits"
    (source / "records").mkdir(parents=True)
    for stem in ("vae-s0", "pca-s0"):
        for suffix in ("json", "npz"):
            shutil.copyfile(folder / "records" / f"{stem}.{suffix}", source / "records" / f"{stem}.{suffix}")
    assert merge(source, folder) == ([], [])
    for suffix in ("json", "npz"):
        (folder / "records" / f"pca-s0.{suffix}").unlink()
    theirs = source / "records" / "vae-s0.json"
    theirs.write_text(theirs.read_text() + "\n")
    added, refused = merge(source, folder)
    assert added == ["pca-s0"] and [one.path.name for one in refused] == ["vae-s0.json"]
    assert "is there already" in refused[0].reasons[0]


def test_no_records_are_a_mistake(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no records"):
        add([tmp_path / "empty"], tmp_path / "toy")
    with pytest.raises(UsageError, match="no such file or folder"):
        merge(tmp_path / "nowhere", tmp_path / "toy")


def test_a_row_without_a_value_of_quality_is_none(tmp_path):
    mine = board_folder(tmp_path / "mine", row("a", metric("parameters", 5.0)))
    assert "there is nothing to rank" in refusal_of_new(mine, tmp_path / "toy")
