"""From a folder to a board: what ranks, what does not, tiers, marks, ids, cards, pictures, and what is refused."""

import json
import math
import re

import pytest
from board_records import HOSTILE, SHIPPED, board_folder, edit, fid, metric, row, shipped_copy

from genbench.errors import DataError, UsageError
from genbench.files import hash_file
from genbench.leaderboard.add import add
from genbench.leaderboard.build import build
from genbench.leaderboard.ids import metric_key, published_id, row_id, slug
from genbench.leaderboard.make import make_board
from genbench.leaderboard.marks import Mark, write_marks
from genbench.leaderboard.page.payload import ROW_ID
from genbench.record import Timing, TimingWindow, write_record

LITERATURE = """
[[result]]
system = "Paper & Co"
model = "vae"
family = "latent"
source = "a paper"
confirmed = true
metrics = [
  { name = "fid", value = 0.10, extractor = "digits-cnn", protocol = "50 000 samples" },
  { name = "bits_per_dim", value = 2.90, kind = "upper_bound", estimator = "elbo", confirmed = false },
]
"""
FID = "fid.digits-cnn"


def board(tmp_path, *records, **more):
    return make_board(board_folder(tmp_path, *records, **more))


def by_id(made):
    return {one.id: one for one in made.rows}


def ranks(made, key=FID):
    return {one.id: one.cells[key].rank for one in made.rows if key in one.cells}


def test_models_rank_and_controls_and_published_results_do_not(tmp_path):
    made = board(
        tmp_path,
        row("a", fid(1.0)),
        row("b", fid(5.0)),
        row("memoriser", fid(0.01), control=True),
        literature=LITERATURE,
    )
    assert ranks(made) == {"a": (1, 1), "b": (2, 2), "memoriser": None, "reported-Paper-Co": None}
    assert [one.tier for one in made.rows] == ["self-run", "self-run", "self-run", "reported"]


def test_unlike_comparable_never_shares_a_ranking(tmp_path):
    other = {"comparable": {"version": 2}}
    records = [row("a", fid(1.0)), row("b", fid(2.0)), row("c", fid(0.1, **other)), row("d", fid(0.5, **other))]
    made = board(tmp_path, *records, row("e", fid(0.2, comparable={"version": 3})))
    assert ranks(made) == {"a": (1, 1), "b": (2, 2), "c": (1, 1), "d": (2, 2), "e": None}
    groups = [one.cells[FID].group for one in made.rows]
    assert groups[0] == groups[1] and groups[2] == groups[3] and len(set(groups)) == 3


def test_exact_likelihoods_do_not_rank_with_bounds(tmp_path):
    kinds = {"a": "exact", "b": "exact", "c": "upper_bound", "d": "upper_bound"}
    records = [
        row(name, metric("bits_per_dim", 2.0 + i, 0.01, kind=kind)) for i, (name, kind) in enumerate(kinds.items())
    ]
    made = board(tmp_path, *records)
    assert ranks(made, "bits_per_dim") == {"a": (1, 1), "b": (2, 2), "c": (1, 1), "d": (2, 2)}
    assert by_id(made)["c"].cells["bits_per_dim"].text.startswith("≤ ")


def test_what_has_no_interval_or_no_better_direction_does_not_rank(tmp_path):
    names = ("training_seconds", "memorised_share", "ssim_pairwise")
    stated = ({}, {"higher_is_better": False}, {})
    records = [
        row(one, *(metric(name, value, None if i == 0 else 0.01, **stated[i]) for i, name in enumerate(names)))
        for one, value in (("a", 1.0), ("b", 2.0))
    ]
    made = board(tmp_path, *records)
    assert [cell.rank for one in made.rows for cell in one.cells.values()] == [None] * 6


def test_missing_cells_stay_missing(tmp_path):
    gone = fid(1.0).model_copy(update={"value": None, "ci95": None, "status": "failed", "reason": "no <weights>"})
    made = board(tmp_path, row("a", fid(1.0), metric("psnr", 20.0, 1.0)), row("b", gone), row("c", fid(2.0)))
    cell = by_id(made)["b"].cells[FID]
    assert (cell.value, cell.rank, cell.status, cell.reason, cell.text) == (
        None,
        None,
        "failed",
        "no <weights>",
        "failed",
    )
    assert "psnr" not in by_id(made)["b"].cells
    assert ranks(made) == {"a": (1, 1), "b": None, "c": (2, 2)}


def test_every_seed_is_there_and_the_mean_counts_not_the_best(tmp_path):
    seeds = [row("lucky", fid(value, 0.01), seed=seed) for seed, value in enumerate((0.5, 3.0, 3.1))]
    made = board(tmp_path, *seeds, row("steady", fid(1.0)))
    lucky = by_id(made)["lucky"]
    assert lucky.seeds == [0, 1, 2] and lucky.cells[FID].seeds == [0.5, 3.0, 3.1]
    assert lucky.cells[FID].value == pytest.approx(2.2)
    assert "±" in lucky.cells[FID].text
    assert ranks(made) == {"lucky": (1, 2), "steady": (1, 2)}


def test_published_results_have_source_protocol_and_doubts(tmp_path):
    made = board(tmp_path, row("vae", fid(1.0)), literature=LITERATURE)
    paper = by_id(made)["reported-Paper-Co"]
    assert (paper.tier, paper.source, paper.confirmed, paper.family) == ("reported", "a paper", False, "latent")
    assert (paper.cells[FID].text, paper.cells[FID].reason) == ("0.10", "50 000 samples")
    assert (paper.cells["bits_per_dim"].text, paper.cells["bits_per_dim"].confirmed) == ("≤ 2.90 ?", False)
    assert paper.cells[FID].group != by_id(made)["vae"].cells[FID].group
    assert made.metric("bits_per_dim").higher_is_better is False
    assert paper.card.startswith("#") and paper.card == by_id(made)["vae"].card


def test_a_leaderboard_of_published_results_alone_is_one(tmp_path):
    assert [one.tier for one in board(tmp_path, literature=LITERATURE).rows] == ["reported"]


def test_a_mark_holds_for_the_record_that_was_verified(tmp_path):
    folder = board_folder(tmp_path, row("a", fid(1.0), seed=0), row("a", fid(1.1), seed=1), row("b", fid(2.0)))
    files = {path.stem: path for path in (folder / "records").glob("*.json")}
    rest = {"date": "2026-01-01", "how": "again", "device": "cpu", "genbench_version": "0.1.0", "metrics": ["fid"]}
    marks = {stem: Mark(by="me", record_sha256=hash_file(path), **rest) for stem, path in files.items()}
    write_marks(folder, marks)
    assert [one.tier for one in make_board(folder).rows] == ["reproduced", "reproduced"]
    edit(files["a-s1"], created="2027-01-01T00:00:00+00:00")
    assert [one.tier for one in make_board(folder).rows] == ["self-run", "reproduced"]
    (folder / "verified.json").write_text('{"a-s0": {"by": "me"}}')
    with pytest.raises(DataError, match=r"verified\.json: not readable"):
        make_board(folder)


def test_ids_are_unique_and_fit_for_an_address(tmp_path):
    published = (
        '[[result]]\nsystem = "A | B"\nsource = "x"\nconfirmed = true\nmetrics = [{ name = "fid", value = 1 }]\n'
    )
    records = [row("reported-A-B", fid(1.0)), row("vae", fid(1.0), variant="x"), row("a+b=c", fid(1.0))]
    made = board(tmp_path, *records, literature=published + published.replace("A | B", "A | B++"))
    ids = [one.id for one in made.rows]
    assert ids[0] == "a+b=c" and ids[2:] == ["vae@x", "reported-A-B", "reported-A-B++"]
    assert re.fullmatch(r"reported-A-B-[0-9a-f]{8}", ids[1])
    assert all(ROW_ID.fullmatch(one) for one in ids)
    assert slug(HOSTILE) == "script-alert-1-script" and slug("///") == "row"
    with pytest.raises(DataError, match=r"'A \| B' and 'A & B' would have one address on the page"):
        board(tmp_path, literature=published + published.replace("A | B", "A & B"))


def test_an_id_stays_when_other_rows_come_and_go(tmp_path):
    names = ["a+b", "a-b", "a b", "a/b", "reported-a-b", "a-b-2", HOSTILE]
    ids = [row_id(name) for name in names]
    assert len(set(ids)) == len(names) and ids[:2] == ["a+b", "a-b"]
    assert len({metric_key("fid", "x:y"), metric_key("fid", "x-y"), metric_key("fid", "x/y")}) == 3
    assert metric_key("fid", "digits-cnn") == FID and published_id("PixelCNN++") == "reported-PixelCNN++"
    alone = by_id(board(tmp_path / "one", row("a-b", fid(1.0))))
    both = by_id(board(tmp_path / "two", row("a+b", fid(2.0)), row("a-b", fid(1.0))))
    assert alone["a-b"].label == both["a-b"].label == "a-b"


def test_a_record_does_not_turn_a_metric_round(tmp_path):
    """Names come first in the order of files; the first record's word on the direction must not count."""
    made = board(tmp_path, row("a", fid(9.0, higher_is_better=True)), row("b", fid(1.0)))
    assert ranks(made) == {"a": (2, 2), "b": (1, 1)} and made.metric(FID).higher_is_better is False


def test_what_was_not_measured_again_is_not_called_reproduced(tmp_path):
    bits = metric("bits_per_dim", 2.0, 0.1, kind="upper_bound", estimator="elbo")
    folder = board_folder(tmp_path, *(row("a", fid(1.0), bits, seed=seed) for seed in (0, 1)))
    files = {path.stem: path for path in (folder / "records").glob("*.json")}
    rest = {"by": "me", "date": "2026-01-02T00:00", "how": "again", "device": "cpu", "genbench_version": "0.1.0"}

    def cells(**metrics):
        write_marks(folder, {k: Mark(record_sha256=hash_file(files[k]), metrics=v, **rest) for k, v in metrics.items()})
        (made,) = make_board(folder).rows
        return made.tier, made.cells[FID].reproduced, made.cells["bits_per_dim"].reproduced, made.verified

    told = "again, by me on 2026-01-02 (cpu, genbench 0.1.0)"
    both = f"seed 0: {told}; seed 1: {told}"
    assert cells() == ("self-run", False, False, "")
    assert cells(**{"a-s0": ["fid.plug-in"]}) == ("self-run", False, False, f"seed 0: {told}")
    assert cells(**{"a-s0": ["fid.plug-in"], "a-s1": ["fid.plug-in"]}) == ("reproduced", True, False, both)
    everything = ["fid.plug-in", "bits_per_dim.elbo"]
    assert cells(**{"a-s0": everything, "a-s1": everything}) == ("reproduced", True, True, both)
    build(folder)
    text = (folder / "README.md").read_text()
    assert "1.000 ✓ \\[" in text and "≤ 2.000 ✓" in text and f"- `a`: {both}" in text


def test_a_weaker_verification_takes_nothing_from_a_stronger_one():
    rest = {"by": "me", "device": "cpu", "genbench_version": "0.1.0"}
    every = Mark(date="2026-01-01", how="from weights", record_sha256="x", metrics=["fid", "kid", "ssim"], **rest)
    some = Mark(date="2026-01-02", how="from samples", record_sha256="x", metrics=["fid", "kid"], **rest)
    other = Mark(date="2026-01-03", how="again", record_sha256="x", metrics=["is"], **rest)
    assert some.joined(None) is some and every.joined(some) is every and some.joined(every) is every
    assert some.joined(every.model_copy(update={"record_sha256": "y"})) is some
    both = other.joined(every)
    assert both.metrics == ["fid", "kid", "ssim", "is"]
    assert both.how == "again; the rest: from weights, by me on 2026-01-01 (cpu, genbench 0.1.0)"


def test_speeds_of_a_busy_machine_are_shown_with_a_note_and_not_ranked(tmp_path):
    def timed(name, rate, given):
        windows = [TimingWindow(images=64, seconds=64 / rate, given=given) for _ in range(3)]
        timing = Timing(
            batch_size=64,
            windows=windows,
            latency_seconds=[],
            evaluations_per_image=1,
            precision="fp32",
            device="cpu",
            threads=1,
        )
        return row(name, fid(rate / 100), metric("images_per_second", rate, 1.0), timing=timing)

    made = board(tmp_path, timed("a", 100.0, 0.1), timed("b", 200.0, 1.0), timed("c", 300.0, 1.0))
    assert ranks(made, "images_per_second") == {"a": None, "b": (2, 2), "c": (1, 1)}
    slow = next(one for one in made.rows if one.id == "a").cells["images_per_second"]
    assert slow.value == 100.0
    assert slow.reason == "timed while other processes held the processor 90% of the time: not ranked"
    assert [one.rows for one in made.pareto if one.cost == "images_per_second"] == [["b", "c"]]


def test_a_row_is_of_all_its_devices_and_extractors(tmp_path):
    shot = metric("clip_score", 30.0, 1.0, extractor="digits-clip")
    kid = metric("kid", 0.1, 0.1, extractor="digits-cnn")
    cpus = [{"device": "cpu", "cpu": name} for name in ("A", "B")]
    made = board(tmp_path, *(row("a", fid(1.0), shot, kid, seed=s, environment=cpu) for s, cpu in enumerate(cpus)))
    assert made.rows[0].devices == ["A", "B"] and made.rows[0].device == "A, B"
    assert made.rows[0].extractors == ["digits-cnn", "digits-clip"]


def test_the_front_names_rows_that_nothing_surely_beats(tmp_path):
    values = {"a": (1.0, 10.0), "b": (3.0, 90.0), "c": (3.5, 20.0)}
    records = [
        row(name, fid(quality), metric("images_per_second", rate, 1.0), metric("parameters", 10 * rate, kind="exact"))
        for name, (quality, rate) in values.items()
    ]
    made = board(tmp_path, *records, row("noise", fid(0.1), metric("images_per_second", 1e6, 1.0), control=True))
    fronts = {(one.quality, one.cost): one.rows for one in made.pareto}
    assert fronts == {(FID, "images_per_second"): ["a", "b"], (FID, "parameters"): ["a"]}


def test_cells_of_unlike_devices_are_not_held_against_each_other(tmp_path):
    def one(name, quality, rate, device):
        return row(name, fid(quality), metric("images_per_second", rate, 1.0, comparable={"device": device}))

    made = board(tmp_path, one("a", 1.0, 100, "x"), one("b", 2.0, 50, "x"), one("c", 3.0, 10, "y"))
    assert [front.rows for front in made.pareto] == [["a"]]
    assert ranks(made, "images_per_second") == {"a": (1, 1), "b": (2, 2), "c": None}


def test_the_dictionary_is_json_without_gaps(tmp_path):
    made = make_board(SHIPPED / "digits").as_dict()
    json.dumps(made, allow_nan=False)
    for one in made["rows"]:
        assert set(one) >= {"id", "label", "tier", "control", "devices", "seeds", "card", "grid", "record", "cells"}
        for cell in one["cells"].values():
            assert cell["value"] is None or math.isfinite(cell["value"])
            assert (cell["value"] is None) == (cell["status"] != "ok")
    assert {metric["key"] for metric in made["metrics"]} == {key for one in made["rows"] for key in one["cells"]}
    ddpm = next(one for one in made["rows"] if one["id"] == "ddpm")
    assert ddpm["record"] == "records/ddpm-s0.json" and "DDPM" in ddpm["card"] and ddpm["extractors"][0] == "digits-cnn"
    assert list(ddpm["cells"][FID]["rank"]) == [1, 2]


def test_a_small_picture_is_shown_and_a_large_or_strange_one_refused(tmp_path):
    folder = board_folder(tmp_path, row("a", fid(1.0)), row("b", fid(1.0)))
    (folder / "grids").mkdir()
    picture = folder / "grids" / "a.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\nrest")
    assert [one.grid[:22] for one in make_board(folder).rows] == ["data:image/png;base64,", ""]
    picture.write_bytes(b"<svg onload=alert(1)>")
    with pytest.raises(DataError, match=r"a\.png.*expected a PNG"):
        make_board(folder)
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(300_000))
    with pytest.raises(DataError, match="at most 256 KiB"):
        make_board(folder)


def test_a_picture_is_not_looked_for_outside_the_folder(tmp_path):
    folder = board_folder(tmp_path, row("a", fid(1.0)))
    (tmp_path / "secret.png").write_bytes(b"\x89PNG\r\n\x1a\nsecret")
    hostile = row("../../secret", fid(1.0)).model_dump(mode="json")
    (folder / "records" / "x.json").write_text(json.dumps(hostile))
    (folder / "grids").mkdir()
    assert [one.grid for one in make_board(folder).rows] == ["", ""]


def test_what_is_no_leaderboard_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not the folder of a leaderboard"):
        make_board(tmp_path)


def test_damaged_foreign_and_doubled_records_are_named(tmp_path):
    folder = board_folder(tmp_path, row("a", fid(1.0)))
    path = folder / "records" / "a-s0.json"
    text = path.read_text()
    path.write_text(text[:100])
    with pytest.raises(DataError, match=r"a-s0\.json: not a readable record"):
        make_board(folder)
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 0'))
    with pytest.raises(DataError, match="schema"):
        make_board(folder)
    path.write_text(text)
    (folder / "records" / "copy.json").write_text(text)
    with pytest.raises(DataError, match="both hold a with seed 0"):
        make_board(folder)
    (folder / "records" / "copy.json").unlink()
    write_record(folder / "records", row("b", fid(1.0), suite="digits"))
    with pytest.raises(DataError, match="is a record of suite 'digits', this is the leaderboard of 'toy'"):
        make_board(folder)


def test_scores_of_another_hash_are_refused(tmp_path):
    folder = shipped_copy(tmp_path)
    (folder / "records" / "vae-s0.npz").write_bytes(b"other")
    with pytest.raises(DataError, match=r"vae-s0\.npz: missing, or not the per-image scores"):
        make_board(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('source = "a paper"', r"result\.0\.source"),
        ('system = "Paper & Co"', r"result\.0\.system"),
        ("value = 0.10", r"result\.0\.metrics\.0\.value"),
        ("confirmed = true", r"result\.0\.confirmed"),
    ],
)
def test_published_results_without_a_needed_field_are_refused(tmp_path, change, told):
    with pytest.raises(DataError, match=rf"literature\.toml: .*{told}"):
        board(tmp_path, literature=LITERATURE.replace(change, "" if "value" not in change else "protocl = 1"))


@pytest.mark.parametrize(("change", "told"), [("NaN", "not JSON compliant"), ('"\\ud800"', "surrogates not allowed")])
@pytest.mark.parametrize(("there", "field"), [('"version":1', "comparable"), ('"device":"cpu"', "environment")])
def test_what_cannot_be_written_down_is_refused_with_the_file(tmp_path, change, told, there, field):
    folder = board_folder(tmp_path, row("a", fid(1.0)))
    text = row("b", fid(1.0), environment={"device": "cpu"}).model_dump_json()
    assert text.count(there) == 1
    (folder / "records" / "b-s0.json").write_text(text.replace(there, f"{there.partition(':')[0]}:{change}"))
    with pytest.raises(
        DataError, match=r"b-s0\.json: not a readable record: .*(no JSON number|surrogates not allowed)"
    ):
        make_board(folder)
    with pytest.raises(UsageError, match="not a readable record"):
        add([folder / "records" / "b-s0.json"], tmp_path / "other" / "toy")


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", '"1 < 2"'])
def test_published_values_are_finite_numbers(tmp_path, value):
    with pytest.raises(DataError, match=r"literature\.toml"):
        board(tmp_path, literature=LITERATURE.replace("0.10", value))


def test_a_published_metric_stands_once_in_a_result(tmp_path):
    with pytest.raises(DataError, match="metric fid is there twice"):
        board(tmp_path, literature=LITERATURE.replace('"bits_per_dim"', '"fid", extractor = "digits-cnn"'))


def test_nats_lead_where_they_are_measured(tmp_path):
    likely = metric("nats_per_image", 80.0, 0.5, kind="exact", extractor=None)
    both = make_board(board_folder(tmp_path / "both", row("a", fid(1.0), likely)))
    assert [one.name for one in both.metrics] == ["nats_per_image", "fid"]
    alone = make_board(board_folder(tmp_path / "alone", row("a", fid(1.0), metric("psnr", 1.0, 0.1))))
    assert alone.metrics[0].name == "fid"
