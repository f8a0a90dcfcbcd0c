"""What is accepted never keeps the leaderboard from being made, and pictures are those of a row's first seed."""

import shutil

import numpy as np
import pytest
from board_records import (
    as_seed,
    board_folder,
    change_scores,
    edit,
    fid,
    refusal,
    row,
    shipped_copy,
    state,
    taken_out,
)
from PIL import Image

from genbench.leaderboard import place
from genbench.leaderboard.add import add, merge
from genbench.leaderboard.build import build
from genbench.leaderboard.folder import read_folder
from genbench.leaderboard.ids import metric_key
from genbench.record import Training


def toy(model, value=1.0, **more):
    return row(model, fid(value), training=Training(steps=5, seconds=1.0), **more)


@pytest.fixture
def boards(tmp_path):
    """A toy leaderboard of one row, and the records of two others."""
    folder = board_folder(tmp_path, toy("a"))
    return folder, board_folder(tmp_path / "mine", toy("b"), toy("c"))


def breaking(monkeypatch, stem):
    """Make the board break where a record is on it."""

    def fake(folder):
        if (folder / "records" / f"{stem}.json").exists():
            raise KeyError("what no rule foresaw")
        return build(folder)

    monkeypatch.setattr(place, "build", fake)


def test_a_record_that_would_break_the_board_is_refused_with_the_error(boards, monkeypatch):
    folder, mine = boards
    breaking(monkeypatch, "b-s0")
    found = refusal(mine, folder)
    assert "b-s0.json:\n  - the leaderboard cannot be made with it: KeyError: 'what no rule foresaw'" in found
    assert "1 of 2 records" in found
    added, refused = merge(mine, folder)
    assert added == ["c-s0"] and [one.path.name for one in refused] == ["b-s0.json"]
    build(folder)


def test_records_that_break_the_board_only_beside_what_is_there_are_refused(boards, monkeypatch):
    folder, mine = boards

    def fake(trial):
        if len(list((trial / "records").glob("*.json"))) > 2:
            raise ValueError(f"too many in {trial}")

    monkeypatch.setattr(place, "build", fake)
    assert f"ValueError: too many in {folder}" in refusal(mine, folder)


def test_a_board_that_is_broken_can_be_mended_piece_by_piece(boards):
    folder, mine = boards
    add([mine], folder)
    for stem in ("a-s0", "b-s0"):
        (folder / "records" / f"{stem}.json").write_text("{")
    add([mine / "records" / "b-s0.json"], folder, replace=True)
    repaired = board_folder(folder.parent / "repaired", toy("a"))
    add([repaired], folder, replace=True)
    assert sorted(read_folder(folder).entries) == ["a", "b", "c"]


def test_what_breaks_the_board_is_refused_where_it_is_broken_already_too(boards, monkeypatch):
    folder, mine = boards
    (folder / "records" / "a-s0.json").write_text("{")
    breaking(monkeypatch, "b-s0")
    assert "what no rule foresaw" in refusal(mine / "records" / "b-s0.json", folder)


def test_what_an_interrupted_writing_left_is_no_row(boards):
    folder, mine = boards
    shutil.copyfile(mine / "records" / "b-s0.json", folder / "records" / ".b-s0-x1y2.json")
    edit(folder / "records" / ".b-s0-x1y2.json", dataset=toy("b").dataset.model_dump(mode="json") | {"test": 5})
    (folder / "records" / "a-s0.json").unlink()
    assert add([mine], folder) == ["b-s0", "c-s0"]


def test_merge_says_what_to_do_about_a_row_that_is_there_in_its_own_words(boards):
    folder, mine = boards
    add([mine], folder)
    edit(mine / "records" / "b-s0.json", created="2030-01-01T00:00:00+00:00")
    reason = merge(mine, folder)[1][0].reasons[0]
    assert reason.startswith("b with seed 0 is there already. merge leaves rows that are there as they are; ")
    assert f"`genbench leaderboard add --to {folder} --replace`" in reason


def test_a_source_with_a_picture_that_is_none_is_merged_without_that_row(tmp_path):
    source = shipped_copy(tmp_path / "theirs")
    (source / "grids" / "vae.png").write_text("<html>")
    folder = tmp_path / "digits"
    assert "grids/vae.png: " in refusal(source, folder) and not folder.exists()
    added, refused = merge(source, folder)
    assert [one.path.name for one in refused] == ["vae-s0.json"] and len(added) == 14
    assert "the leaderboard cannot be made with it: " in refused[0].reasons[0]
    assert "grids/vae.png: " in refused[0].reasons[0]
    assert not (folder / "records" / "vae-s0.json").exists() and (folder / "grids" / "pca.png").is_file()
    build(folder)


def test_no_record_is_copied_before_all_pictures_are_read(tmp_path, monkeypatch):
    source = shipped_copy(tmp_path / "theirs")
    folder = tmp_path / "digits"
    monkeypatch.setattr(place, "unbuildable", dict)

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(place, "write_pictures", broken)
    with pytest.raises(OSError, match="disk full"):
        place.copy(read_folder(source).records, folder)
    assert not folder.exists() or state(folder) == {}


def painted(home, stem, shade):
    """The folder of a leaderboard with one record of digits' vae, and one grey picture."""
    folder = home / "digits"
    (folder / "records").mkdir(parents=True)
    for suffix in ("json", "npz"):
        shutil.copyfile(stem.with_suffix(f".{suffix}"), folder / "records" / stem.with_suffix(f".{suffix}").name)
    (folder / "grids").mkdir()
    Image.fromarray(np.full((8, 8), shade, np.uint8)).save(folder / "grids" / "vae.png")
    return folder


@pytest.fixture
def seeds(tmp_path):
    """The vae of digits with seeds 0 and 1, each on a leaderboard with a picture of its own."""
    first = taken_out(shipped_copy(tmp_path / "boards"), "vae-s0", tmp_path / "mine")
    second = as_seed(first, 1)
    change_scores(second, lambda arrays: arrays.update({key: array[::-1] for key, array in arrays.items()}))
    return [painted(tmp_path / f"of-{seed}", stem, 40 * seed + 9) for seed, stem in enumerate((first, second))]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_picture_of_a_row_is_that_of_its_first_seed_whichever_came_first(seeds, tmp_path, order):
    folder = tmp_path / "new" / "digits"
    for seed in order:
        add([seeds[seed]], folder)
    with Image.open(folder / "grids" / "vae.png") as picture:
        assert np.asarray(picture.convert("L")).max() == 9


def test_replacing_the_first_seed_replaces_its_picture(seeds, tmp_path):
    folder = tmp_path / "new" / "digits"
    for one in seeds:
        add([one], folder)
    Image.fromarray(np.full((8, 8), 200, np.uint8)).save(seeds[0] / "grids" / "vae.png")
    add([seeds[0]], folder, replace=True)
    with Image.open(folder / "grids" / "vae.png") as picture:
        assert np.asarray(picture.convert("L")).max() == 200


@pytest.mark.parametrize(
    ("name", "extractor"), [("@row", None), ("@rank", "cnn"), ("@", None), ("fid.cnn", None), ("fid", "a b")]
)
def test_keys_of_columns_are_their_own(name, extractor):
    key = metric_key(name, extractor)
    assert not key.startswith("@") and key not in (name, f"{name}.{extractor}")


def test_plain_keys_stay_as_they_are():
    assert (metric_key("fid", "digits-cnn"), metric_key("ssim", None)) == ("fid.digits-cnn", "ssim")
