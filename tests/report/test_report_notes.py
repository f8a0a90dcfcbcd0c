"""Notes and heads of reports: every format for people says the same, and a CSV is data alone."""

import csv
import html
import io
import re
from pathlib import Path

import pytest
from report_fixture import metric
from report_runs import bits, row, write_records, write_run_folder
from series_records import jump, put, values

from genbench.report.build import write_changes, write_report, write_series
from genbench.report.changes import changes_of
from genbench.report.latex import latex, needs
from genbench.report.markup import escape
from genbench.report.series.text import POINT_HEADS
from genbench.report.sheet import Data, Given, Sheet, markdown, shown_head, to_csv, to_latex
from genbench.report.sources import read_sources
from genbench.report.text import CHANGE_HEADS

GUIDE = Path(__file__).parents[2] / "docs" / "reports.md"
FORMS = {".html": html.escape, ".md": escape, ".tex": latex}


def flat(text):
    """On one line, without what LaTeX may break long words at."""
    return " ".join(text.replace(r"\allowbreak{}", "").split())


@pytest.fixture
def two(tmp_path):
    """A run with a seed that was measured otherwise, a broken record and controls, and another that has more rows."""
    seeds = [
        row("vae", 0, metrics=[metric("fid", 1.0, 0.1), bits(2.0)]),
        row("vae", 1, metrics=[metric("fid", 9.0, 0.1, comparable={"n": 5})]),
    ]
    controls = [
        row("test_split", control=True, metrics=[metric("fid", 1.0, 0.5)]),
        row("noise", control=True, metrics=[metric("fid", 1.1, 0.5)]),
    ]
    a = write_run_folder(tmp_path / "a", *seeds, row("<b>_gan", metrics=[metric("fid", 3.0)]), row("pca"), *controls)
    (a / "records" / "pca-s0.json").write_text('{"schema_version": 1, "<i>')
    return a, write_records(tmp_path / "b", row("vae", 0, fid=4.0), row("<i>_new"))


@pytest.mark.parametrize("suffix", [*FORMS, ".csv"])
@pytest.mark.parametrize(
    "note",
    [
        "seed 1 is not in it: version: 1 against nothing",
        "records/pca-s0.json is broken and left out: not a readable record",
        "Nothing to hold against: <b>_gan, ",
        "No likelihood of images: <b>_gan.",
        "Expected catches that were missed",
        "FID (digits-cnn) did not catch noise",
        "Caught no control at all",
    ],
)
def test_every_format_but_csv_tells_what_is_left_out(two, tmp_path, suffix, note):
    sources = read_sources([str(one) for one in two])
    text = write_report(sources, tmp_path / f"x{suffix}", baseline="b").read_text(encoding="utf-8")
    assert (FORMS.get(suffix, str)(note) in flat(text)) == (suffix != ".csv")


@pytest.mark.parametrize("suffix", [*FORMS, ".csv"])
@pytest.mark.parametrize(
    "note",
    [
        "a: records/pca-s0.json is broken and left out: not a readable record",
        "b: vae-s0 is the same in b: it is shown once.",
        "a, FID (digits-cnn) ↓ (plug-in): seed 1 is not in it: version: 1 against nothing.",
    ],
)
def test_changes_tell_what_is_left_out(two, tmp_path, suffix, note):
    a, b = read_sources([str(one) for one in two])
    b.entries.append(next(entry for entry in b.entries if entry.record.row == "vae"))
    text = write_changes(a, b, tmp_path / f"x{suffix}").read_text(encoding="utf-8")
    assert (FORMS.get(suffix, str)(note) in flat(text)) == (suffix != ".csv")


def test_seeds_that_are_all_in_a_mean_are_no_news(tmp_path):
    a = write_records(tmp_path / "a", row("vae", 0), row("vae", 1))
    b = write_records(tmp_path / "b", row("vae", 0))
    found = changes_of(*read_sources([str(a), str(b)]))
    assert found.notes == [] and found.rows[0].left_out == []


@pytest.mark.parametrize("suffix", [*FORMS, ".csv"])
def test_every_format_says_why_a_difference_is_none(two, tmp_path, suffix):
    sources = read_sources([str(one) for one in two])
    text = flat(write_report(sources, tmp_path / f"x{suffix}", baseline="b").read_text(encoding="utf-8"))
    assert "version: 1 against nothing" in text
    if suffix in (".md", ".tex"):
        assert FORMS[suffix]("FID (digits-cnn) of vae · a: version: 1 against nothing.") in text


@pytest.mark.parametrize("suffix", [*FORMS, ".csv"])
def test_notes_of_a_series_say_of_which_row_they_are(tmp_path, suffix):
    values(tmp_path / "h", "vae", jump())
    put(tmp_path / "h", 7, "vae", [metric("fid", 2.0, 0.1, comparable={"n": 5})], seed=1)
    (tmp_path / "h" / "records").mkdir()
    (tmp_path / "h" / "records" / "vae-s9.json").write_text("{")
    text = flat(write_series([str(tmp_path / "h")], "fid", tmp_path / f"x{suffix}").read_text(encoding="utf-8"))
    assert ("seed 1 is not in it" in text) == ("Left out: " in text) == (suffix != ".csv")
    if suffix == ".md":
        assert re.search(r"\| digits \| vae \| FID \(digits-cnn\) \| \w+: seed 1 is not in it", text)
        assert "| | | | Left out: " in text


def test_remarks_of_a_table_are_escaped_and_no_data():
    sheet = Sheet("A", ["row"], [["x"]], 1, "Ours: [a].", ["<b>_1|\nb", "50 %"])
    assert markdown(sheet).endswith("Ours: [a].\n\n&lt;b&gt;\\_1\\| b\n\n50 %")
    assert r"{\scriptsize \textless{}b\textgreater{}\_1\textbar{} b} \\" in to_latex(sheet)
    assert to_csv([sheet]) == "row\nx\n"
    empty = Sheet("A", ["row"], [], 1, "", ["<b>\n\\input{x}"])
    assert to_latex(empty) == "% A\n% Nothing.\n% <b> \\input{x}"


@pytest.mark.parametrize(
    ("head", "shown"),
    [
        ("row", "Row"),
        ("only in", "Only in"),
        ("95 % interval", "95 % interval"),
        ("±", "±"),
        ("p", "p"),
        ("", ""),
        ("FID ↓", "FID ↓"),
        (Data("segment mean", "segment_mean"), "Segment mean"),
        (Given("before"), "before"),
    ],
)
def test_heads_of_ours_begin_with_a_capital(head, shown):
    assert shown_head(head) == shown
    sheet = Sheet("", [head, "ab"], [["x", "y"]], 1)
    assert markdown(sheet).startswith(f"| {shown} | Ab |")
    assert rf"{latex(shown)} & Ab \\" in to_latex(sheet)


def test_heads_of_a_series_are_capitals_for_people_and_names_for_machines(tmp_path):
    values(tmp_path / "h", "vae", jump())

    def text(suffix):
        return write_series([str(tmp_path / "h")], "fid", tmp_path / f"x{suffix}").read_text(encoding="utf-8")

    assert "| Suite | Row | Metric | At | After | Change | 95 % interval | p | Verdict | Note |" in text(".md")
    points = ["Suite", "Row", "Metric", "Point", "Created", "Value", "95 % interval", "Seeds", "Segment mean"]
    assert " & ".join(map(latex, points)) in flat(text(".tex"))
    assert " | ".join(points) in text(".md")
    heads = re.findall(r'<th scope="col">([^<]*)</th>', text(".html"))
    assert {"Suite", "Row", "Segment mean", "p", "Note"} <= set(heads)
    assert not [head for head in heads if head[0].islower() and len(head) > 1]
    assert text(".csv").startswith("suite,row,metric,point,commit,created,value,unit,")


@pytest.mark.parametrize("suffix", [".md", ".tex"])
def test_heads_of_reports_are_capitals_and_names_of_sources_stay(two, tmp_path, suffix):
    sources = read_sources([f"before={two[0]}", f"after={two[1]}"])
    text = write_changes(*sources, tmp_path / f"d{suffix}").read_text(encoding="utf-8")
    between = " | " if suffix == ".md" else " & "
    assert between.join(["Setting", "before", "after"]) in text
    assert between.join(["Metric", "Estimator", "before", "after", "Difference", "Verdict"]) in text
    text = write_report(sources, tmp_path / f"x{suffix}", baseline="after").read_text(encoding="utf-8")
    assert between.join(["Row", "Against", "Bits/dim"]) in text and between.join(["Metric", "Remark", "Rows"]) in text
    assert not re.search(r"^(\| )?(row|note|metric)\b( [|&]| \\\\)", text, flags=re.M)


def columns_told(heading):
    """Names of columns in the table of the guide under a bold heading."""
    table = GUIDE.read_text(encoding="utf-8").split(f"**{heading}**")[1].split("\n\n")[1]
    rows = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    return [name for line in rows for name in re.findall(r"`([^`]+)`", line)]


def test_the_guide_names_every_column_of_a_csv(two, tmp_path):
    assert sorted(columns_told("`--diff`")) == sorted(CHANGE_HEADS)
    points = [name for head in POINT_HEADS for name in (head.cells if isinstance(head, Data) else [head])]
    assert sorted(columns_told("`--series`")) == sorted(points)
    write_records(two[1], row("fast", metrics=[metric("fid", 1.0, 0.1), metric("images_per_second", 2.0)]))
    sources = read_sources([str(one) for one in two])
    written = {
        baseline: next(
            csv.reader(io.StringIO(write_report(sources, tmp_path / "x.csv", baseline=baseline).read_text()))
        )
        for baseline in (None, "b")
    }
    for heading, heads in (
        ("Side by side", written[None]),
        ("With `--baseline`", [head for head in written["b"] if head not in written[None]]),
    ):
        metrics = r"^(fid|bits_per_dim|parameters|images_per_second)(\[.*\])?(?=_|$)"
        general = {re.sub(metrics, "NAME", head) for head in heads}
        assert set(columns_told(heading)) == general


def test_the_guide_names_the_packages_and_the_width_of_latex():
    guide = GUIDE.read_text(encoding="utf-8")
    packages = re.search(r"\{(.*?)\}", needs(r"\begin{longtable}"))[1].split(",")
    told = [name for names in re.findall(r"usepackage\{(.*?)\}", guide) for name in names.split(",")]
    assert told == packages
    assert "397 pt wide" in guide
