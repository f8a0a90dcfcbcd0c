"""What changed between two leaderboards, as text."""

from board_records import board_folder, fid, metric, row, shipped_copy

from genbench.files import hash_file
from genbench.leaderboard.diff import diff
from genbench.leaderboard.make import make_board
from genbench.leaderboard.marks import Mark, write_marks


def boards(tmp_path, old, new, **more):
    sides = [
        make_board(board_folder(tmp_path / name, *records, **more)) for name, records in (("old", old), ("new", new))
    ]
    return diff(*sides)


def test_a_copy_has_no_difference(tmp_path):
    shipped = shipped_copy(tmp_path)
    assert diff(make_board(shipped), make_board(shipped)) == []


def test_rows_come_and_go(tmp_path):
    assert boards(tmp_path, [row("a", fid(1.0))], [row("b", fid(1.0))]) == ["+ b (self-run)", "- a (self-run)"]


def test_values_and_ranks_change(tmp_path):
    old = [row("a", fid(1.0)), row("b", fid(3.0))]
    lines = boards(tmp_path, old, [row("a", fid(5.0, 0.2)), row("b", fid(3.0))])
    assert lines == [
        "  a: FID (digits-cnn): 1.00 [0.90, 1.10] (1) -> 5.00 [4.80, 5.20] (5)",
        "  a: FID (digits-cnn): rank 1 -> 2",
        "  b: FID (digits-cnn): rank 2 -> 1",
    ]


def test_changes_that_rounding_hides_are_shown(tmp_path):
    lines = boards(tmp_path, [row("a", fid(1.0))], [row("a", fid(1.0001))])
    assert lines == ["  a: FID (digits-cnn): 1.00 [0.90, 1.10] (1) -> 1.00 [0.90, 1.10] (1.0001)"]


def test_values_appear_and_vanish_with_their_reasons(tmp_path):
    gone = fid(1.0).model_copy(update={"value": None, "ci95": None, "status": "failed", "reason": "no weights"})
    lines = boards(tmp_path, [row("a", fid(1.0))], [row("a", gone, metric("psnr", 20.0, 1.0))])
    assert "  a: FID (digits-cnn): 1.00 [0.90, 1.10] (1) -> failed" in lines
    assert any(line.startswith("  a: PSNR (dB): – -> 20.0 [19.0, 21.0]") for line in lines)


def test_another_measurement_seeds_devices_and_tiers_are_told(tmp_path):
    new = row("a", fid(1.0, comparable={"n": 7}), environment={"device": "H100"})
    lines = boards(tmp_path, [row("a", fid(1.0))], [new])
    assert "  a: device: Example CPU -> H100" in lines
    assert "  a: FID (digits-cnn): measured in another way" in lines
    folder = board_folder(tmp_path / "seeds", row("a", fid(1.0)))
    before = make_board(folder)
    board_folder(tmp_path / "seeds", row("a", fid(1.0), seed=1))
    assert "  a: seeds: 0 -> 0, 1" in diff(before, make_board(folder))


def test_a_lost_mark_and_changed_rules_are_told(tmp_path):
    folder = board_folder(tmp_path, row("a", fid(1.0)))
    sha = hash_file(folder / "records" / "a-s0.json")
    rest = {"by": "x", "date": "", "how": "", "device": "", "genbench_version": "", "metrics": []}
    write_marks(folder, {"a-s0": Mark(record_sha256=sha, **rest)})
    before = make_board(folder)
    write_marks(folder, {})
    (folder / "rules.md").write_text("new")
    assert diff(before, make_board(folder)) == ["  a: tier: reproduced -> self-run", "  rules.md changed"]


def test_control_characters_of_a_record_do_not_reach_the_terminal(tmp_path):
    folder = board_folder(tmp_path)
    before = make_board(board_folder(tmp_path / "old", row("a", fid(1.0))))
    hostile = row("evil\x1b[2J", fid(1.0), family="x\x1b]0;title\x07")
    (folder / "records" / "x.json").write_text(hostile.model_dump_json())
    text = "\n".join(diff(before, make_board(folder)))
    assert "\x1b" not in text and "evil" in text
