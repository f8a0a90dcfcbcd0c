"""README.md, table.csv, table.tex and index.html: harmless text, all or nothing, and equal to a rebuild."""

import csv
import io
import re

import pytest
from board_records import HOSTILE, SHIPPED, board_folder, fid, metric, row, shipped_copy

from genbench.errors import UsageError
from genbench.leaderboard import build as building
from genbench.leaderboard.build import build, leaderboards
from genbench.leaderboard.sheets import rank_text
from genbench.record import MetricResult
from genbench.report.latex import bracketed, latex
from genbench.report.markup import escape, plain

MADE = ("README.md", "index.html", "table.csv", "table.tex")
NASTY = r"""
[[result]]
system = "=HYPERLINK(\"x\")"
source = "a | b \\ <i>c</i> _d_ 50 % & $1 #2 {x} ~ ^"
confirmed = false
metrics = [{ name = "fid", value = 2.20, extractor = "digits-cnn", protocol = "@cmd [1](y)" }]
"""


def cells(folder):
    return list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))


def test_all_files_are_written(tmp_path):
    folder = board_folder(tmp_path, row("a", fid(1.0)), row("b", fid(3.0)), rules="# Rules")
    build(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*MADE, "records", "rules.md"])
    assert "| `a` | self-run | 1.00 \\[0.90, 1.10\\] (1) |" in (folder / "README.md").read_text()


def test_a_new_leaderboard_gets_rules_that_stay_as_they_are_changed(tmp_path):
    folder = board_folder(tmp_path, row("vae", fid(1.0)))
    assert not (folder / "rules.md").exists()
    build(folder)
    rules = (folder / "rules.md").read_text()
    assert rules.startswith(f"# Rules of {folder.name}")
    assert "test split is for reporting only" in (folder / "index.html").read_text()
    (folder / "rules.md").write_text("# Ours\n\nFive seeds.\n")
    build(folder)
    assert (folder / "rules.md").read_text() == "# Ours\n\nFive seeds.\n"
    assert "Five seeds." in (folder / "index.html").read_text()


def test_markdown_has_tiers_ranks_controls_and_the_best_first(tmp_path):
    controls = row("test_split", fid(0.2), control=True)
    folder = board_folder(
        tmp_path, row("a", fid(3.0)), row("b", fid(1.0)), row("c", fid(1.05)), controls, literature=NASTY
    )
    build(folder)
    lines = (folder / "README.md").read_text().splitlines()
    found = [line for line in lines if line.startswith(("| `", "| ="))]
    assert [line.split(" | ")[0] for line in found] == [
        "| `b`",
        "| `c`",
        "| `a`",
        "| `test_split`",
        '| =HYPERLINK("x")',
    ]
    assert "(1–2)" in found[0] and "(1–2)" in found[1] and "(3)" in found[2] and "(" not in found[3].split("|")[3]
    assert "| control |" in found[3] and "2.20 ?" in found[4]


def test_every_seed_is_in_the_readme(tmp_path):
    records = [row("a", fid(value), seed=seed) for seed, value in ((0, 1.0), (1, 2.0), (2, 6.0))]
    build(board_folder(tmp_path, *records))
    text = (tmp_path / "toy" / "README.md").read_text()
    assert "## Every seed" in text and "| a | 0, 1, 2 | 1.00, 2.00, 6.00 |" in text
    assert "3.0 ± 2.65" in text


def test_letters_tell_rankings_apart(tmp_path):
    other = {"comparable": {"version": 2}}
    records = [row("a", fid(1.0)), row("b", fid(2.0)), row("c", fid(0.1, **other)), row("d", fid(0.5, **other))]
    build(board_folder(tmp_path, *records))
    text = (tmp_path / "toy" / "README.md").read_text()
    assert [text.count(mark) for mark in ("(1 a)", "(2 a)", "(1 b)", "(2 b)", "Letters in parentheses")] == [1] * 5


def test_likelihoods_stand_apart_by_kind_with_their_reasons(tmp_path):
    failed = MetricResult(
        name="nats_per_image", value=None, status="failed", reason="did not converge: 2 chains", estimator="ais-reverse"
    )
    rbm = row("rbm", metric("nats_per_image", 86.0, 0.5, kind="estimate", estimator="ais-forward"), failed)
    vae = row("vae", metric("nats_per_image", 87.5, 0.5, kind="upper_bound", estimator="iwae-5000"))
    made = row("made", metric("nats_per_image", 88.2, 0.5, kind="exact", estimator="exact"))
    folder = board_folder(tmp_path, rbm, vae, made)
    build(folder)
    text = (folder / "README.md").read_text()
    head = "| System | Exact | Upper bounds: iwae-5000 | Estimates: ais-forward | Estimates: ais-reverse |"
    assert "## Nats/image, by kind" in text and head in text
    assert "no number: did not converge: 2 chains" in text and "≤ 87.50 \\[87.00, 88.00\\]" in text


def test_a_hostile_record_stays_text_everywhere(tmp_path):
    hostile = row(f"=1+{HOSTILE}", fid(1.0), family="@SUM(A1)|`x`", environment={"device": "cpu", "cpu": "-2+3\n| x |"})
    folder = board_folder(tmp_path, literature=NASTY)
    (folder / "records").mkdir(exist_ok=True)
    (folder / "records" / "x.json").write_text(hostile.model_dump_json())
    build(folder)
    for name in ("README.md", "index.html"):
        assert "<script>alert" not in (folder / name).read_text()
    readme = (folder / "README.md").read_text()
    assert "=1+&lt;script&gt;alert(1)&lt;/script&gt;" in readme
    assert r"a \| b \\ &lt;i&gt;c&lt;/i&gt; \_d\_ 50 % &amp; $1 \#2 {x} \~ ^" in readme
    first, second = cells(folder)
    assert (
        first["label"].startswith("'=1+") and first["family"].startswith("'@SUM") and first["device"].startswith("'-2")
    )
    assert second["label"] == '\'=HYPERLINK("x")'
    tex = (folder / "table.tex").read_text().replace(r"\allowbreak{}", "")
    assert r"=1+\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{}" in tex


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r"])
def test_formulas_are_kept_from_being_formulas(first):
    assert plain(f"{first}1") == f"'{first}1"
    assert plain(f"1{first}") == f"1{first}"


def test_negative_numbers_stay_numbers_in_the_csv(tmp_path):
    build(board_folder(tmp_path, row("a", metric("kid", -0.25, 0.5, extractor=None))))
    assert cells(tmp_path / "toy")[0]["kid"] == "-0.25"


def test_csv_has_intervals_ranks_and_reasons(tmp_path):
    gone = fid(1.0).model_copy(update={"value": None, "ci95": None, "status": "failed", "reason": "no weights"})
    build(board_folder(tmp_path, row("a", fid(1.0)), row("b", fid(1.01), seed=0), row("c", gone)))
    first, _, third = cells(tmp_path / "toy")
    key = "fid.digits-cnn"
    assert (first[key], first[f"{key}_low"], first[f"{key}_high"]) == ("1.0", "0.9", "1.1")
    assert (first[f"{key}_rank_best"], first[f"{key}_rank_worst"], first[f"{key}_seeds"]) == ("1", "2", "[1.0]")
    assert (third[key], third[f"{key}_rank_best"], third[f"{key}_status"]) == ("", "", "failed")
    assert (first[f"{key}_reason"], third[f"{key}_reason"]) == ("", "no weights")


def test_latex_escapes_every_special_character():
    assert latex(r"\a_b & 50 % #1 $x$ {y} ~ ^") == (
        r"\textbackslash{}a\_b \& 50 \% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{}"
    )
    assert latex("≤ 1–3 ± 2 µs\n↓") == r"$\leq$ 1--3 $\pm$ 2 $\mu$s $\downarrow$"


@pytest.mark.parametrize("cell", ["[a", "*a", " *a"])
def test_no_latex_cell_is_read_as_an_argument_or_a_star_of_the_line_before(cell):
    assert bracketed(cell) == cell.replace("[", "{[}").replace("*", "{*}")


def test_latex_rows_have_one_cell_a_column(tmp_path):
    build(board_folder(tmp_path, row("a&b", fid(1.0)), row("[c]", metric("recall", 0.5, 0.1)), literature=NASTY))
    tex = (tmp_path / "toy" / "table.tex").read_text()
    columns = len(re.search(r"tabular}{(lr+)}", tex).group(1))
    rows = [line for line in tex.splitlines() if line.endswith((r"\\", "[2pt]")) and "multicolumn" not in line]
    assert len(rows) == 7 and all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in rows)
    assert any(line.startswith("{[}c]") for line in rows)


def test_markdown_escapes_what_markdown_reads():
    assert escape("a|b *c* [d](e)\n# <f> & `g`") == r"a\|b \*c\* \[d\](e) \# &lt;f&gt; &amp; \`g\`"


def test_ranks_as_text():
    assert [rank_text(rank) for rank in (None, (2, 2), (1, 3))] == ["", "2", "1–3"]


@pytest.mark.parametrize("what", ["render", "to_latex"])
def test_an_interrupted_build_leaves_the_old_files(tmp_path, monkeypatch, what):
    folder = board_folder(tmp_path, row("a", fid(1.0)))
    build(folder)
    before = {name: (folder / name).read_text() for name in MADE}
    board_folder(tmp_path, row("b", fid(2.0)))

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(building, what, interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(folder)
    assert {name: (folder / name).read_text() for name in MADE} == before


def test_a_full_disk_leaves_the_old_files(tmp_path, monkeypatch):
    folder = board_folder(tmp_path, row("a", fid(1.0)))
    build(folder)
    before = {name: (folder / name).read_text() for name in MADE}
    board_folder(tmp_path, row("b", fid(2.0)))
    real = building.Path.write_text

    def full(path, text, **more):
        if path.suffix == ".html":
            raise OSError(28, "No space left on device")
        return real(path, text, **more)

    monkeypatch.setattr(building.Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        build(folder)
    assert {name: (folder / name).read_text() for name in MADE} == before
    assert sorted(path.name for path in folder.iterdir()) == sorted([*MADE, "records", "rules.md"])


def test_leaderboards_are_found_by_what_they_hold(tmp_path):
    board_folder(tmp_path, row("a", fid(1.0)))
    (tmp_path / "other").mkdir()
    assert leaderboards(tmp_path) == [tmp_path / "toy"]
    with pytest.raises(UsageError, match="No leaderboards in"):
        leaderboards(tmp_path / "other")


@pytest.mark.parametrize("suite", sorted(path.parent.name for path in SHIPPED.glob("*/rules.md")))
def test_shipped_files_equal_a_rebuild_but_for_dates(tmp_path, suite):
    folder = shipped_copy(tmp_path, suite)
    before = {name: (folder / name).read_text() for name in MADE if (folder / name).exists()}
    assert set(before) >= set(MADE) - {"index.html"}
    build(folder)
    for name, text in before.items():
        dates = re.compile(r"\d{4}-\d\d-\d\d" if name == "index.html" else r"(?!)")
        assert dates.sub("DATE", (folder / name).read_text()) == dates.sub("DATE", text), (
            f"{name} of {suite} is not what its records give: run `genbench leaderboard build`"
        )
