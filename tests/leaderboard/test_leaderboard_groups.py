"""Groups of a column in words and in letters: a reader sees what the rows that rank apart differ in."""

import re

import pytest
from board_records import HOSTILE, board_folder, fid, metric, row

from genbench.leaderboard.build import build
from genbench.leaderboard.groups import group_texts, legend, letters
from genbench.leaderboard.literature import PublishedValue
from genbench.leaderboard.make import make_board

CNN = {"name": "digits-cnn", "preprocessing": "x / 127.5 - 1", "weights_sha256": "2fe0bc4c" + "0" * 56}
INCEPTION = {"name": "inception-v3", "preprocessing": "resize 299", "weights_sha256": "ab" * 32}
BASE = {"dataset": "digits", "dataset_fingerprint": "79648fa0" + "0" * 56, "metric": "fid", "version": 1}
BASE |= {"n": 297, "options": {"k": 3}, "extractor": CNN, "reference": "train"}
TWO = [row(name, fid(1.0 + i)) for i, name in enumerate("ab")]


def texts(*comparables, name="fid", kinds=()):
    kinds = kinds or ["estimate"] * len(comparables)
    metrics = [metric(name, 1.0, 0.1, comparable=one, kind=kind) for one, kind in zip(comparables, kinds, strict=True)]
    found = group_texts({f"g{i}": one for i, one in enumerate(metrics)})
    assert list(found) == [f"g{i}" for i in range(len(metrics))]
    return list(found.values())


def test_groups_are_told_by_what_differs():
    other = {**BASE, "n": 5000, "extractor": INCEPTION, "reference": "test"}
    assert texts(BASE, other) == [
        "n = 297, digits-cnn, train split, preprocessing x / 127.5 - 1",
        "n = 5000, inception-v3, test split, preprocessing resize 299",
    ]
    assert texts(BASE, {**BASE, "n": 5000}) == ["n = 297", "n = 5000"]
    assert texts(BASE, {**BASE, "options": {"k": 5}}) == ["k = 3", "k = 5"]
    assert texts(BASE, {**BASE, "version": 2}) == ["version 1 of the metric", "version 2 of the metric"]
    assert texts(BASE, {**BASE, "extra": "x"}) == ["no extra", "extra = x"]


def test_the_only_group_is_told_by_how_it_was_measured():
    assert texts(BASE) == ["n = 297, digits-cnn, train split"]
    assert texts({"device": "NVIDIA H200", "threads": 1, "n": 3}) == ["n = 3, NVIDIA H200, threads = 1"]


def test_hashes_are_said_only_where_nothing_else_tells_groups_apart():
    weights = {**BASE, "extractor": {**CNN, "weights_sha256": "c0ffee11" + "0" * 56}}
    assert texts(BASE, weights) == ["weights 2fe0bc4c", "weights c0ffee11"]
    assert texts(BASE, {**weights, "n": 5}) == ["n = 297", "n = 5"]
    assert texts(BASE, weights, {**BASE, "n": 5}) == [
        "n = 297, weights 2fe0bc4c",
        "n = 297, weights c0ffee11",
        "n = 5, weights 2fe0bc4c",
    ]


def test_more_than_four_fields_are_said_where_four_do_not_tell_groups_apart():
    one = {"n": 1, "device": "cpu", "threads": 1, "precision": "fp32", "batch_size": 1}
    two = {"n": 2, "device": "gpu", "threads": 2, "precision": "bf16", "batch_size": 2}
    short = ["n = 1, cpu, threads = 1, fp32", "n = 2, gpu, threads = 2, bf16"]
    assert texts(one, two) == short
    assert texts(one, two, {**two, "batch_size": 3}) == [
        f"{short[0]}, batches of 1",
        f"{short[1]}, batches of 2",
        f"{short[1]}, batches of 3",
    ]


@pytest.mark.parametrize("end", ["a", "b" * 3])
def test_texts_that_shortening_makes_equal_stay_unlike(end):
    long = "x" * 60
    found = texts({"classes": f"{long}{end}{long}"}, {"classes": f"{long}{end.upper()}{long}"})
    assert len(set(found)) == 2 and all(len(text) < 80 for text in found)


def test_kinds_tell_likelihoods_apart_and_nothing_else():
    assert texts(BASE, BASE, name="bits_per_dim", kinds=["exact", "upper_bound"]) == ["exact", "upper bound"]
    assert texts(BASE, {**BASE, "n": 5}, kinds=["exact", "estimate"]) == ["n = 297", "n = 5"]


def test_published_results_are_told_by_their_protocol():
    values = [
        PublishedValue(name="fid", value=1, protocol="50 000 samples"),
        PublishedValue(name="fid", value=1),
        PublishedValue(name="bits_per_dim", value=1, kind="upper_bound", protocol="dequantised"),
        PublishedValue(name="bits_per_dim", value=1),
    ]
    found = group_texts({str(i): value.as_metric() for i, value in enumerate(values)} | {"own": fid(1.0)})
    assert list(found.values()) == [
        "published: 50 000 samples",
        "published: protocol not known",
        "published: dequantised, upper bound",
        "published: protocol not known, estimate",
        "n = 297",
    ]


def test_a_board_says_of_each_cell_how_it_was_measured(tmp_path):
    speed = [metric("images_per_second", 1.0, 0.1, comparable={"device": device}) for device in ("cpu", "H200")]
    made = make_board(
        board_folder(tmp_path, *TWO, row("c", fid(1.0, comparable={"n": 9}), *speed[:1]), row("d", speed[1]))
    )
    for one in made.rows:
        for key, cell in one.cells.items():
            assert made.metric(key).groups[cell.group]
    assert sorted(made.metric("images_per_second").groups.values()) == ["H200", "cpu"]


def test_letters_belong_to_a_metric_and_do_not_end_at_z(tmp_path):
    """One comparable in two metrics, and more groups than letters."""
    ways = [{"way": f"{i:02d}"} for i in range(28)]
    records = [row(f"m{i:02d}", fid(1.0, comparable=way)) for i, way in enumerate(ways)]
    records += [row(f"k{i}", metric("psnr", 1.0, 0.1, comparable=ways[i])) for i in (1, 2)]
    made = make_board(board_folder(tmp_path, *records))
    found = letters(made, made.rows)
    of = {key: [letter for (metric, _), letter in found.items() if metric == key] for key in ("fid.digits-cnn", "psnr")}
    assert of["psnr"] == ["a", "b"] and of["fid.digits-cnn"][:2] == ["a", "b"]
    assert of["fid.digits-cnn"][25:] == ["z", "aa", "ab"] and len(set(of["fid.digits-cnn"])) == 28
    assert legend(made, found, ["psnr"]) == [("PSNR (dB)", "a: way = 01; b: way = 02")]


def test_the_readme_and_the_latex_table_say_what_letters_mean(tmp_path):
    other = {"comparable": {"version": 1, "dataset": "x", "n": 5000}}
    records = [row("c", fid(0.1, **other)), row("d", fid(0.5, **other)), row("e", fid(0.05, comparable={"n": HOSTILE}))]
    folder = board_folder(tmp_path, *TWO, row("f", fid(3.0)), *records, row("test_split", fid(0.01), control=True))
    build(folder)
    text, tex = ((folder / name).read_text().replace(r"\allowbreak{}", "") for name in ("README.md", "table.tex"))
    assert "- FID (digits-cnn): a: n = 297" in text and "; b: n = 5000, " in text
    assert "n = &lt;script&gt;" in text and "<script>" not in text
    assert "FID (digits-cnn): a: n = 297" in tex and r"n = \textless{}script" in tex
    marks = ["(1 a)", "(2 a)", "(3 a)", "(1 b)", "(2 b)", "(c)", "(a)"]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [mark for line, mark in zip(rows, marks, strict=True) if mark not in line] == []
    rows = [line for line in tex.splitlines() if re.match(r"(test\\_split|\w) & [\d.]+ \(", line)]
    assert [mark for line, mark in zip(rows, marks, strict=True) if mark not in line] == []


def test_fronts_of_unlike_groups_are_told_apart_in_the_readme(tmp_path):
    def one(name, quality, **more):
        return row(name, fid(quality, **more), metric("images_per_second", 10 * quality, 0.1))

    other = {"comparable": {"n": 5000}}
    folder = board_folder(
        tmp_path, one("a", 1.0), one("b", 2.0), one("c", 3.0), one("d", 1.0, **other), one("e", 2.0, **other)
    )
    build(folder)
    text = (folder / "README.md").read_text()
    assert "| FID (digits-cnn) (a) | Images/s | a, b, c |" in text
    assert "| FID (digits-cnn) (b) | Images/s | d, e |" in text


def test_one_group_needs_no_letter(tmp_path):
    folder = board_folder(tmp_path, *TWO)
    build(folder)
    assert "Letters" not in (folder / "README.md").read_text()
    assert "n = 297" not in (folder / "table.tex").read_text()
