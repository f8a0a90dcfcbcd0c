"""`genbench leaderboard` on the command line: what it says and how it exits."""

import shutil

import pytest
from board_records import SHIPPED, board_folder, edit, fid, row, shipped_copy
from click.testing import CliRunner

from genbench.cli.leaderboard_verb import command
from genbench.errors import GenbenchError
from genbench.leaderboard.marks import read_marks
from genbench.leaderboard.verify import Check, Verification


def call(*arguments):
    """Exit status and output; errors that `main` would print are part of it."""
    try:
        result = CliRunner().invoke(
            command, [str(one) for one in arguments], standalone_mode=False, catch_exceptions=False
        )
    except GenbenchError as error:
        return 2, str(error)
    return result.return_value, result.output


def test_build_says_what_it_made(tmp_path, monkeypatch):
    folder = shipped_copy(tmp_path / "leaderboards")
    assert call("build", folder) == (0, f"{folder}/index.html: 9 self-run\n")
    monkeypatch.chdir(tmp_path)
    (folder / "README.md").unlink()
    assert call("build") == (0, "leaderboards/digits/index.html: 9 self-run\n")
    assert (folder / "README.md").exists()


def test_build_of_nothing_is_a_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("build")[0] == 2 and call("build", tmp_path)[0] == 2


def test_add_goes_to_the_suites_own_leaderboard(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, output = call("add", SHIPPED / "digits" / "records" / "vae-s0.json")
    assert (status, output) == (
        0,
        "Added to leaderboards/digits: vae-s0. Now: genbench leaderboard build leaderboards/digits\n",
    )
    status, output = call("add", SHIPPED / "digits" / "records" / "vae-s0.json")
    assert status == 2 and "there already" in output
    assert call("add", SHIPPED / "digits" / "records" / "vae-s0.json", "--replace")[0] == 0


def test_merge_exits_with_1_where_it_left_something_out(tmp_path):
    mine = shipped_copy(tmp_path / "mine")
    there = tmp_path / "there" / "digits"
    assert call("merge", mine, "--to", there)[0] == 0
    assert call("merge", mine, "--to", there)[0] == 0
    changed = mine / "records" / "vae-s0.json"
    changed.write_text(changed.read_text() + "\n")
    status, output = call("merge", mine, "--to", there)
    assert status == 1 and "nothing" in output


def test_diff_is_text(tmp_path):
    old = board_folder(tmp_path / "old", row("a", fid(1.0)))
    new = board_folder(tmp_path / "new", row("a", fid(1.0)), row("b", fid(1.0)))
    assert call("diff", old, old) == (0, "No difference.\n")
    status, output = call("diff", old, new)
    assert status == 0 and output.startswith("+ b (self-run)\n")


def test_verify_needs_one_thing_to_measure_from(tmp_path):
    folder = board_folder(tmp_path, row("a", fid(1.0)))
    for arguments in ((), ("--run", "x", "--weights", "y")):
        status, output = call("verify", "a", "--in", folder, *arguments)
        assert status == 2 and "Give one of --run DIR" in output


@pytest.mark.parametrize(("verdict", "status"), [("equal", 0), ("differs", 1)])
def test_verify_marks_what_came_out_the_same(tmp_path, monkeypatch, verdict, status):
    folder = board_folder(tmp_path, row("a", fid(1.0), seed=0), row("a", fid(1.0), seed=1), row("b", fid(1.0)))

    def again(entry, *_, **__):
        return Verification(entry, "again", True, "cpu", [Check(entry.record.metrics[0], verdict, 1.0)])

    monkeypatch.setattr("genbench.leaderboard.verify.verify_samples", again)
    found, output = call("verify", "a", "--in", folder, "--run", tmp_path, "--by", "me")
    assert found == status and f"fid plug-in: 1, now 1: {verdict}" in output
    assert set(read_marks(folder)) == ({"a-s0", "a-s1"} if status == 0 else set())
    assert call("verify", "b", "--in", folder, "--run", tmp_path, "--seed", "4")[0] == 2


def test_a_failed_verification_says_that_an_earlier_mark_stands(tmp_path, monkeypatch):
    folder = board_folder(tmp_path, row("a", fid(1.0)))
    verdicts = iter(["equal", "differs"])

    def again(entry, *_, **__):
        return Verification(entry, "again", True, "cpu", [Check(entry.record.metrics[0], next(verdicts), 1.0)])

    monkeypatch.setattr("genbench.leaderboard.verify.verify_samples", again)
    arguments = ("verify", "a", "--in", folder, "--run", tmp_path, "--by", "me")
    assert call(*arguments)[0] == 0
    status, output = call(*arguments)
    assert status == 1 and "Not marked as reproduced now: a-s0." in output
    assert f"earlier marks of a-s0 stand in {folder / 'verified.json'}" in output
    assert set(read_marks(folder)) == {"a-s0"}


def test_one_seed_alone_can_be_verified(tmp_path, monkeypatch):
    folder = board_folder(tmp_path, row("a", fid(1.0), seed=0), row("a", fid(1.0), seed=1))

    def again(entry, *_, **__):
        return Verification(entry, "again", True, "cpu", [Check(entry.record.metrics[0], "equal", 1.0)])

    monkeypatch.setattr("genbench.leaderboard.verify.verify_samples", again)
    assert call("verify", "a", "--in", folder, "--run", tmp_path, "--seed", "1", "--by", "me")[0] == 0
    assert set(read_marks(folder)) == {"a-s1"}


def test_a_damaged_leaderboard_is_named(tmp_path):
    folder = shipped_copy(tmp_path)
    edit(folder / "records" / "vae-s0.json", status="nonsense")
    status, output = call("build", folder)
    assert status == 2 and "vae-s0.json: not a valid record: status" in output
    shutil.rmtree(folder / "records")
    assert call("build", folder)[0] == 2
