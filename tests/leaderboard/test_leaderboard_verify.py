"""Rows measured again, from a run's samples and from weights; what changed since loses its mark."""

import json
import shutil

import numpy as np
import pytest
from board_records import edit, fid, metric, row

from genbench.check.collect import Entry, read_entries
from genbench.errors import DataError, UsageError
from genbench.files import hash_file, write_npz
from genbench.leaderboard.add import add
from genbench.leaderboard.folder import read_folder
from genbench.leaderboard.make import make_board
from genbench.leaderboard.marks import read_marks, write_marks
from genbench.leaderboard.rows import find_row, of_seed
from genbench.leaderboard.verify import (
    FROM_SAMPLES,
    FROM_WEIGHTS,
    Check,
    Verification,
    compared,
    is_float_noise,
    told,
    verify_samples,
    verify_weights,
)
from genbench.record import write_record
from genbench.run.run import RunOptions, run_suite


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one model that takes milliseconds to fit."""
    root = tmp_path_factory.mktemp("verify") / "run"
    assert run_suite(RunOptions("digits", out=root, models=("pca",), device="cpu")).ok
    return root


@pytest.fixture
def entry(run, tmp_path):
    """The run's row on a leaderboard."""
    add([run], tmp_path / "digits")
    return read_folder(tmp_path / "digits").entries["pca"][0]


def state(folder):
    return {str(path.relative_to(folder)): hash_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_samples_give_the_same_numbers_again_and_the_row_its_mark(run, entry):
    before = state(run)
    found = verify_samples(entry, run, device="cpu")
    assert found.ok and found.same_place
    checked = {check.metric.name for check in found.checks if check.verdict == "equal"}
    assert checked == {m.name for m in entry.record.metrics if m.status == "ok"} - {
        *("bits_per_dim", "ssim", "psnr", "parameters", "training_seconds", "images_per_second"),
        *("latency_seconds", "evaluations_per_image", "peak_memory_bytes"),
    }
    assert state(run) == before
    folder = entry.path.parents[1]
    write_marks(folder, {entry.path.stem: found.mark("a reader")})
    assert make_board(folder).rows[0].tier == "reproduced"
    mark = read_marks(folder)["pca-s0"]
    assert (mark.by, mark.how) == ("a reader", "scored again from the stored samples of a run")
    assert mark.record_sha256 == hash_file(entry.path) and "fid.plug-in" in mark.metrics
    edit(entry.path, created="2031-01-01T00:00:00+00:00")
    assert make_board(folder).rows[0].tier == "self-run"


def test_weights_give_the_same_numbers_again(run, entry):
    found = verify_weights(entry, run / "checkpoints" / "pca-s0", device="cpu")
    verdicts = {check.metric.name: check.verdict for check in found.checks}
    assert found.ok and verdicts["bits_per_dim"] == verdicts["ssim"] == verdicts["fid"] == "equal"
    assert verdicts["images_per_second"] == "not checked"
    assert found.how.startswith("sampled and scored again from weights ")


def test_an_edited_value_differs(run, entry):
    metrics = json.loads(entry.path.read_text())["metrics"]
    next(one for one in metrics if one["name"] == "fid")["value"] *= 0.99
    edit(entry.path, metrics=metrics)
    found = verify_samples(read_folder(entry.path.parents[1]).entries["pca"][0], run, device="cpu")
    wrong = [check for check in found.checks if check.verdict == "differs"]
    assert not found.ok and [check.metric.name for check in wrong] == ["fid"]
    assert wrong[0].reason == "not equal, on the same device"
    assert any("fid plug-in" in line and "differs" in line for line in told(found))


def test_other_samples_in_the_run_are_not_scored(run, entry, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    path = copy / "samples" / "pca-s0.npz"
    with np.load(path) as arrays:
        write_npz(path, arr_0=255 - arrays["arr_0"])
    with pytest.raises(
        DataError, match=r"cannot be measured again: rescore: .*samples of pca-s0 is missing or damaged"
    ):
        verify_samples(entry, copy, device="cpu")


def test_features_and_data_of_the_run_are_not_trusted(run, entry, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    for path in (copy / "data").rglob("*"):
        if path.is_file():
            path.write_bytes(b"not the data")
    assert verify_samples(entry, copy, device="cpu").ok


def test_a_run_without_the_row_and_what_is_no_run_are_refused(run, entry, tmp_path):
    other = Entry(entry.record.model_copy(update={"seed": 5}), {}, entry.path)
    with pytest.raises(UsageError, match="has no row pca with seed 5"):
        verify_samples(other, run)
    with pytest.raises(UsageError, match="not the folder of a run"):
        verify_samples(entry, tmp_path)


def test_other_data_is_refused(run, entry):
    dataset = entry.record.dataset.model_copy(update={"fingerprint": "0" * 64})
    other = Entry(entry.record.model_copy(update={"dataset": dataset}), {}, entry.path)
    with pytest.raises(DataError, match="the record's is 000000000000"):
        verify_samples(other, run, device="cpu")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": 3}, "seed: 3 against 0"),
        ({"model": "vae"}, "model: 'vae' against 'pca'"),
        ({"config": {"model": {"components": 1}}}, "config"),
        ({"model": "evil.py:Model"}, "is not a registered model: its code is not loaded"),
    ],
)
def test_weights_must_be_those_of_the_record(run, entry, changes, reason):
    other = Entry(entry.record.model_copy(update=changes), {}, entry.path)
    with pytest.raises(UsageError, match=reason):
        verify_weights(other, run / "checkpoints" / "pca-s0", device="cpu")


def outcome(stated, again, groups=FROM_WEIGHTS, device="cpu"):
    place = {"device": "cpu", "cpu": "x", "torch": "1", "threads": 1}
    before = Entry(row("m", stated, environment=place))
    after = row("m", *([again] if again else []), environment=place | {"device": device})
    return compared(before, after, groups, "again")


@pytest.mark.parametrize(
    ("value", "device", "verdict", "ok"),
    [
        (1.0, "cpu", "equal", True),
        (1.000009, "cpu", "equal", True),
        (1.05, "cpu", "differs", False),
        (1.05, "cuda", "within intervals", True),
        (1.2, "cuda", "differs", False),
    ],
)
def test_equal_on_the_same_device_and_within_intervals_elsewhere(value, device, verdict, ok):
    found = outcome(fid(1.0, 0.1), fid(value, 0.1), device=device)
    assert (found.checks[0].verdict, found.ok) == (verdict, ok)


def test_a_metric_that_has_no_value_now_differs():
    assert outcome(fid(1.0), None).checks[0].verdict == "differs"
    gone = fid(1.0).model_copy(update={"value": None, "ci95": None, "status": "failed", "reason": "no weights"})
    assert outcome(fid(1.0), gone).checks[0].reason == "measured again, it has no value: no weights"


def test_a_value_that_is_measured_in_another_way_differs():
    found = outcome(fid(1.0), fid(1.0, comparable={"version": 2}), device="cuda")
    assert found.checks[0].verdict == "differs" and "measured in another way now" in found.checks[0].reason


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "forged",
    [
        fid(1.0, 0.02),
        fid(1.0, 5.0),
        fid(3.0, 1e6),
        fid(1.0, None),
        fid(1.0, ci95=(0.9, 1.01)),
        fid(1.0, kind="exact"),
        fid(1.0, higher_is_better=True),
        fid(1.0, n=10**6),
    ],
)
def test_a_forged_statement_beside_a_true_value_differs(device, forged):
    found = outcome(forged, fid(1.0, 0.1), device=device)
    assert found.checks[0].verdict == "differs" and not found.ok
    assert outcome(fid(1.0, 0.1), fid(1.0, 0.1), device=device).ok


def test_an_interval_cut_at_its_bound_may_move_with_its_value_elsewhere():
    stated, again = fid(0.01, ci95=(0.0, 0.06)), fid(0.03, ci95=(0.0, 0.08))
    assert outcome(stated, again, device="cuda").checks[0].verdict == "within intervals"


def test_a_record_that_changed_while_it_was_measured_gets_no_mark(tmp_path):
    path = write_record(tmp_path, row("a", fid(1.0)))
    found = Verification(read_entries(path)[0], "again", True, "cpu", [Check(fid(1.0), "equal", 1.0)])
    assert found.mark("me").record_sha256 == hash_file(path)
    edit(path, created="2031-01-01T00:00:00+00:00")
    with pytest.raises(DataError, match="changed while it was measured again"):
        found.mark("me")


def test_control_characters_of_a_record_do_not_reach_the_terminal_of_who_verifies():
    found = outcome(fid(1.0, estimator="x\x1b[2J"), fid(1.0, estimator="x\x1b[2J"))
    assert not any("\x1b" in line for line in told(found))


def test_a_record_of_which_nothing_was_measured_again_is_not_reproduced():
    found = outcome(metric("bits_per_dim", 2.0, 0.1), metric("bits_per_dim", 2.0, 0.1), FROM_SAMPLES)
    assert found.checks[0].verdict == "not checked" and not found.ok


def test_float_noise_is_a_part_of_the_interval_or_of_the_value():
    assert is_float_noise(fid(1.0, 1.0), fid(1.00009, 1.0)) and not is_float_noise(fid(1.0, 1.0), fid(1.0002, 1.0))
    assert not is_float_noise(fid(1.0, 1000.0), fid(1.05, 0.1))
    exact = fid(1e6, None), fid(1e6 + 0.9, None), fid(1e6 + 2, None)
    assert is_float_noise(exact[0], exact[1]) and not is_float_noise(exact[0], exact[2])
    with pytest.raises(ValueError, match="no value to compare"):
        is_float_noise(fid(1.0), fid(1.0).model_copy(update={"value": None}))


def test_a_verification_without_checks_is_none():
    assert not Verification(Entry(row("m", fid(1.0))), "again", True, "cpu", []).ok


def test_rows_are_found_in_the_leaderboards(entry, tmp_path, monkeypatch):
    folder = entry.path.parents[1]
    assert find_row("pca", folder)[1][0].record.row == "pca"
    with pytest.raises(UsageError, match="Did you mean 'pca'"):
        find_row("pcaa", folder)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path / "leaderboards" / "digits")
    assert find_row("pca")[0].name == "digits"
    with pytest.raises(UsageError, match=r"has no seed 7 on the leaderboard \(seeds: 0\)"):
        of_seed(read_entries(folder), 7)
