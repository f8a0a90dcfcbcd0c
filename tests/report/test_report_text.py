"""Reports as data and as LaTeX: raw numbers in CSV, tables that say what they are of, files that can be written."""

import csv
import io
import re

import pytest
from report_fixture import metric
from report_runs import bits, row, write_records

from genbench.cli.main import main
from genbench.errors import UsageError
from genbench.report.build import write_changes, write_report, write_series
from genbench.report.changes import changes_of
from genbench.report.latex import latex
from genbench.report.sheet import Data, Sheet, markdown, to_csv
from genbench.report.sources import read_sources


def lines(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def report(out, *given, baseline=None):
    return write_report(read_sources([str(one) for one in given]), out, baseline=baseline)


def changes(out, *given):
    return write_changes(*read_sources([str(one) for one in given]), out)


def verb(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(["report", *map(str, arguments)])
    return stop.value.code


@pytest.fixture
def two(tmp_path):
    """Two sides of a vae with two bounds and a gan, and a row that only one side has."""

    def side(name, fid, only, **more):
        bounds = [bits(2.0 + fid, kind="upper_bound", estimator=kind) for kind in ("iwae", "elbo")]
        score = metric("inception_score", 10000.0 * fid, 10.0, unit="points")
        made = row("vae", metrics=[metric("fid", fid, 0.1), *bounds, score], **more)
        return write_records(tmp_path / name, made, row("gan"), row(only))

    keys = {"samples": "cd" * 32, "timing": "ef" * 32}
    return side("before", 1.0, "=old"), side("after", 2.0, "new", keys=keys)


@pytest.mark.parametrize("name", ["label", "suite", "baseline", "seed", "fid_difference", "fid_verdict", "fid_reason"])
def test_a_metric_may_be_called_like_a_column_of_the_csv(tmp_path, name):
    named = [metric(name, 7.0, 0.5), metric("fid", 2.0, 0.1)]
    a = write_records(tmp_path / "a", row("vae", metrics=named), row("gan"))
    found = report(tmp_path / "x.csv", a, baseline="gan")
    (head,) = list(csv.reader(io.StringIO(found.read_text(encoding="utf-8"))))[:1]
    assert len(set(head)) == len(head)
    line = next(one for one in lines(found) if one["row"] == "vae")
    assert (line["label"], line["suite"], line["seed"], line["baseline"]) == ("vae", "digits", "0", "gan")
    assert line["fid_difference"] == "0.0"
    (kept,) = [head for head, value in line.items() if value == "7.0" and "difference" not in head.split("[")[-1]]
    assert kept == (f"{name}[plug-in]" if name == "seed" else f"{name}[metric]")
    assert (line[f"{kept}_ci95_low"], line[f"{kept}_ci95_high"]) == ("6.5", "7.5")


def test_the_csv_holds_the_differences_from_a_baseline_as_numbers(two, tmp_path):
    found = {line["label"]: line for line in lines(report(tmp_path / "x.csv", *two, baseline="before"))}
    line = found["vae · after"]
    assert (line["baseline"], line["fid_difference"], line["fid_verdict"]) == ("vae · before", "1.0", "worse")
    low, high = float(line["fid_difference_low"]), float(line["fid_difference_high"])
    assert (low, high) == pytest.approx((1 - 0.1 * 2**0.5, 1 + 0.1 * 2**0.5), rel=1e-6)
    assert line["bits_per_dim_difference"] == "1.0"
    assert line["bits_per_dim_difference_estimator"] == "iwae"
    assert line["inception_score_difference"] == "10000.0"
    bare = found["vae · before"]
    assert (bare["baseline"], bare["fid_difference"], bare["fid_verdict"]) == ("", "", "")
    assert "baseline" not in lines(report(tmp_path / "y.csv", *two))[0]


def test_the_csv_says_of_every_difference_how_it_was_had_or_why_there_is_none(tmp_path):
    clip = metric("fid", 5.0, 0.1, extractor="clip", comparable={"n": 1})
    base = row("vae", metrics=[metric("fid", 2.0, 0.2), bits(2.0), clip])
    other = row("gan", metrics=[metric("fid", 3.0, 0.2), clip.model_copy(update={"comparable": {"n": 2}})])
    failed = row("rbm", status="failed", reason="loss is nan", metrics=[])
    made = report(tmp_path / "x.csv", write_records(tmp_path / "a", base, other, failed), baseline="vae")
    found = {line["row"]: line for line in lines(made)}
    assert (found["gan"]["fid_verdict"], found["gan"]["fid_reason"]) == (
        "worse",
        "from both standard errors, one seed each",
    )
    assert (found["gan"]["bits_per_dim_verdict"], found["gan"]["bits_per_dim_reason"]) == (
        "not comparable",
        "this row does not have it",
    )
    assert (found["gan"]["fid[clip]_verdict"], found["gan"]["fid[clip]_reason"]) == ("not comparable", "n: 1 against 2")
    assert (found["rbm"]["fid_verdict"], found["rbm"]["fid_reason"]) == ("", "the row failed: loss is nan")
    assert (found["vae"]["fid_verdict"], found["vae"]["fid_reason"]) == ("", "it is the baseline")
    page = report(tmp_path / "x.html", tmp_path / "a", baseline="vae").read_text(encoding="utf-8")
    assert "<small>clip</small>" not in page.split('id="differences-table"')[1].split("</table>")[0]


def test_a_row_that_the_baseline_does_not_have_says_so_in_the_csv(two, tmp_path):
    found = {line["label"]: line for line in lines(report(tmp_path / "x.csv", *two, baseline="before"))}
    assert (found["new"]["baseline"], found["new"]["fid_reason"]) == ("", "nothing to hold it against")


def test_a_difference_of_a_second_extractor_is_named_like_its_value(tmp_path):
    metrics = [metric("fid", 2.0, 0.1), metric("fid", 5.0, 0.1, extractor="clip")]
    other = [metric("fid", 3.0, 0.1), metric("fid", 9.0, 0.1, extractor="clip")]
    a = write_records(tmp_path / "a", row("vae", metrics=metrics), row("gan", metrics=other))
    line = next(one for one in lines(report(tmp_path / "x.csv", a, baseline="vae")) if one["row"] == "gan")
    assert (line["fid[clip]"], line["fid[clip]_difference"], line["fid_difference"]) == ("9.0", "4.0", "1.0")


def test_the_csv_of_changes_holds_raw_numbers(two, tmp_path):
    found = lines(changes(tmp_path / "x.csv", *two))
    numbers = {(line["row"], line["name"], line["estimator"]): line for line in found if line["what"] == "number"}
    score = numbers["vae", "inception_score", "plug-in"]
    assert (score["from"], score["to"], score["unit"]) == ("before", "after", "points")
    assert (score["before_value"], score["before_ci95_low"], score["before_ci95_high"]) == (
        "10000.0",
        "9990.0",
        "10010.0",
    )
    assert (score["after_value"], score["difference"], score["verdict"]) == ("20000.0", "10000.0", "better")
    assert 0 < float(score["difference_low"]) < 10000 < float(score["difference_high"])
    assert {key[2] for key in numbers if key[:2] == ("vae", "bits_per_dim")} == {"iwae", "elbo"}
    fewer = changes(tmp_path / "y.csv", two[1], two[0])
    back = next(line for line in lines(fewer) if (line["row"], line["name"]) == ("vae", "fid"))
    assert (back["difference"], float(back["difference_low"]) < -1) == ("-1.0", True)


def test_the_csv_of_changes_guards_texts_of_records(tmp_path):
    a, b = (write_records(tmp_path / n, row("vae", config={"=k": f"=cmd {n}"})) for n in ("a", "b"))
    (setting,) = [line for line in lines(changes(tmp_path / "x.csv", a, b)) if line["what"] == "setting"]
    assert (setting["name"], setting["before"], setting["after"]) == ("'=k", "'=cmd a", "'=cmd b")


def test_a_number_that_is_not_there_has_its_reason_in_the_csv_of_changes(tmp_path):
    gone = metric("fid", 1.0).model_copy(update={"value": None, "status": "failed", "reason": "too few"})
    a = write_records(tmp_path / "a", row("vae"))
    b = write_records(tmp_path / "b", row("vae", metrics=[gone.model_copy(update={"ci95": None})]))
    found = {line["name"]: line for line in lines(changes(tmp_path / "x.csv", a, b))}
    assert (found["fid"]["before_value"], found["fid"]["after_value"]) == ("2.0", "")
    assert found["fid"]["after"] == "failed: too few"
    assert (found["parameters"]["before_value"], found["parameters"]["after"]) == ("1000.0", "")


@pytest.mark.parametrize("suffix", [".md", ".tex", ".csv"])
def test_every_text_tells_stages_rows_of_one_side_and_estimators(two, tmp_path, suffix):
    text = changes(tmp_path / f"x{suffix}", *two).read_text(encoding="utf-8")
    for told in ("samples", "timing", "=old", "new", "iwae", "elbo"):
        assert told in text, told
    if suffix == ".csv":
        found = [(line["row"], line["name"], line["before"], line["after"]) for line in lines(tmp_path / "x.csv")]
        assert ("vae", "samples", "ab" * 32, "cd" * 32) in found
        assert {("'=old", "", "'=old", ""), ("new", "", "", "new")} <= set(found)


def test_tables_in_latex_say_what_they_are_of(two, tmp_path):
    other = write_records(tmp_path / "other", row("vae", suite="mnist"))
    text = report(tmp_path / "x.tex", two[0], other).read_text(encoding="utf-8")
    assert {"% digits: Comparison", "% mnist: Comparison"} <= set(text.splitlines())
    assert not [line for line in text.splitlines() if line.strip() == "%"]
    text = changes(tmp_path / "d.tex", *two).read_text(encoding="utf-8")
    assert {"% before → after", "% gan: Numbers", "% vae: Numbers", "% Rows of one side"} <= set(text.splitlines())
    for columns, table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end", text, flags=re.S):
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in rows} == {len(columns)}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('a "b"', r"a {\char34}b{\char34}"),
        ("no --prompts", "no -{}-prompts"),
        ("---", "-{}-{}-"),
        ("1–2 and –", "1--2 and --"),
        ("-–", "-{}--"),
        ("''``,,", "'{}'`{}`,{},"),
    ],
)
def test_latex_shows_characters_as_they_are(text, shown):
    assert latex(text) == shown


def test_a_cell_may_be_several_in_a_csv():
    sheet = Sheet("A", ["row", Data("value", "value", "unit")], [["-x", Data("−5.0", -5.0, "=s")], ["y", "−1"]], 1)
    assert to_csv([sheet]) == "row,value,unit\n'-x,-5.0,'=s\ny,−1\n"
    assert "| -x | −5.0 |" in markdown(sheet)
    assert to_csv([sheet, sheet]).split("\n\n")[1].startswith("A\nrow,value,unit\n")


def test_the_account_of_a_row_is_true_of_what_changed_in_all_rows(tmp_path):
    def side(name, cpu, vae="ab"):
        rows = [row("vae", environment={"cpu": cpu}, keys={"samples": vae * 32}), row("gan", environment={"cpu": cpu})]
        return write_records(tmp_path / name, *rows)

    def accounts(a, b):
        found = changes_of(*read_sources([str(a), str(b)]))
        return {line.label: found.account(line) for line in found.rows}

    a, same = side("a", "A"), side("same", "A")
    assert set(accounts(a, same).values()) == {"No setting of this row changed, and none of its stages was made anew."}
    alone = accounts(a, side("b", "A", "cd"))
    assert alone["vae"].endswith("its stages were made anew (samples): the code or the data changed.")
    shared = accounts(a, side("c", "B", "cd"))
    assert shared["gan"] == "No setting of this row alone changed, and none of its stages was made anew."
    assert shared["vae"].endswith("made anew (samples): a setting of all rows, the code or the data changed.")
    page = changes(tmp_path / "x.html", a, tmp_path / "c").read_text(encoding="utf-8")
    assert "Nothing that made this row changed" not in page
    assert shared["gan"] in page and shared["vae"] in page


def test_stages_are_told_beside_settings(tmp_path):
    a = write_records(tmp_path / "a", row("vae"))
    b = write_records(tmp_path / "b", row("vae", config={"n": 1}, keys={"samples": "cd" * 32}))
    found = changes_of(*read_sources([str(a), str(b)]))
    assert found.account(found.rows[0]) == "Stages made anew: samples."
    b = write_records(tmp_path / "c", row("vae", config={"n": 1}))
    found = changes_of(*read_sources([str(a), str(b)]))
    assert found.account(found.rows[0]) == ""


UNWRITABLE = pytest.mark.parametrize(
    ("out", "why"),
    [
        ("dir.html", "it is a folder"),
        ("file/x.html", "file is no folder"),
        ("file/deep/x.html", "file is no folder"),
        ("gone/x.html", "gone is no folder"),
        ("x" * 300 + ".html", "File name too long"),
    ],
)


@pytest.mark.parametrize("more", [[], ["--diff"], ["--series", "fid"]])
@UNWRITABLE
def test_a_file_that_cannot_be_written_is_refused_before_the_work(two, tmp_path, monkeypatch, capsys, out, why, more):
    def worked(*_, **__):
        raise AssertionError("it read records")

    for name in ("sources.read_sources", "series.read.read_series", "build.read_series"):
        monkeypatch.setattr(f"genbench.report.{name}", worked)
    (tmp_path / "dir.html").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert verb(*two, *more, "--out", tmp_path / out) == 2
    told = capsys.readouterr().err
    assert f"{out}: cannot be written (" in told and f"{why}). Name another file with --out." in told
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("kind", ["report", "changes", "series"])
@UNWRITABLE
def test_python_refuses_the_same_files_before_the_work(two, tmp_path, monkeypatch, out, why, kind):
    def worked(*_, **__):
        raise AssertionError("it worked")

    sources = read_sources([str(one) for one in two])
    for name in ("choose", "make_sections", "changes_of", "read_series"):
        monkeypatch.setattr(f"genbench.report.build.{name}", worked)
    (tmp_path / "dir.html").mkdir()
    (tmp_path / "file").write_text("kept")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    write = {
        "report": lambda path: write_report(sources, path),
        "changes": lambda path: write_changes(*sources, path),
        "series": lambda path: write_series(list(map(str, two)), "fid", path),
    }[kind]
    with pytest.raises(UsageError) as refused:
        write(tmp_path / out)
    assert f"{out}: cannot be written (" in str(refused.value) and f"{why}). Name another" in str(refused.value)


def test_a_folder_without_the_right_to_write_is_refused(two, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert verb(*two, "--out", tmp_path / "new" / "x.html") == 2
    assert f"(nothing may be written in {tmp_path})" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_folders_are_made_and_a_report_is_replaced(two, tmp_path):
    out = tmp_path / "new" / "deep" / "x.md"
    assert verb(two[0], "--out", out) == 0
    assert verb(two[1], "--out", out) == 0
    assert "new" in out.read_text(encoding="utf-8")
