"""Tables for LaTeX: what is cut and stacked, and that LaTeX itself sets them on a page of a conference."""

import csv
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from report_runs import row, write_records
from series_records import jump, sha, values

from genbench.check.collect import read_entries
from genbench.leaderboard.make import make_board
from genbench.leaderboard.sheets import to_latex
from genbench.report.build import write_changes, write_report, write_series
from genbench.report.latex import MOST_LINES, TEXT_WIDTH, latex, needs, tabulars
from genbench.report.markup import Bold
from genbench.report.sources import read_sources

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
PAGE = r"""\documentclass{article}
\usepackage[textwidth=397pt,textheight=620pt]{geometry}
\usepackage{%s}
\begin{document}
%s
\end{document}
"""
VALUE = "0.684 [0.629, 0.734]"


def rows_of(table):
    return [line for line in table.splitlines() if re.search(r"\\\\(\[2pt\])?$", line)]


def test_a_number_stands_above_its_interval_and_what_follows_it():
    text = tabulars(["row", "FID (digits-cnn) ↓"], [("", [["a", "≤ 1.2 [1.1, 1.3] bound · elbo"]])], 1)
    assert rows_of(text) == [
        r"row & FID $\downarrow$ \\",
        r" & {\scriptsize (digits-cnn)} \\",
        r"a & $\leq$ 1.2 \\",
        r" & {\scriptsize [1.1, 1.3]} \\",
        r" & {\scriptsize bound · elbo} \\[2pt]",
    ]


def test_a_wide_table_is_cut_evenly_into_as_few_as_fit():
    names = [f"metric {k}" for k in range(8)]
    parts = tabulars(["row", *names], [("", [["a", *[VALUE] * 8]])], 1).split("\n\n")
    assert [rows_of(part)[0].count("&") for part in parts] == [4, 4]
    assert [f"metric {k}" in parts[k // 4] for k in range(8)] == [True] * 8
    assert all(rows_of(part)[1].startswith("a & 0.684") for part in parts)
    assert len(tabulars(["row", *names[:6]], [("", [["a", *[VALUE] * 6]])], 1).split("\n\n")) == 1


def test_a_long_table_breaks_across_pages():
    def table(rows):
        return tabulars(["row", "n"], [("", [["a", "1"]] * rows)], 1)

    assert r"\begin{tabular}" in table(MOST_LINES - 1) and r"\begin{longtable}" in table(MOST_LINES)
    assert needs(table(MOST_LINES)) == r"% Needs \usepackage{array,booktabs,longtable}."


def test_texts_that_are_set_in_lines_make_a_table_longer():
    def table(words):
        return tabulars(["metric", "rows"], [("", [["fid", "autoencoder " * words]] * 10)], 2)

    assert r"\begin{tabular}" in table(6) and r"\begin{longtable}" in table(60)


def test_a_reason_in_place_of_a_number_is_told_once_under_the_table():
    reason = "failed: " + "the training diverged and was stopped " * 4
    text = tabulars(["row", "FID", "IS"], [("", [["gan", reason, reason], ["vae", "1.0", "2.0"]])], 1)
    assert r"gan & failed & failed \\" in text
    assert text.count("diverged") == 4 and text.rindex("diverged") > text.index(r"\bottomrule")


def test_bold_and_estimates():
    text = tabulars(["row", "nats"], [("", [["a", Bold("~ 84.98 [84, 85]")], [Bold("b"), "~ 1"]])], 1)
    assert r"a & \textbf{$\sim$ 84.98} \\" in text and r"\textbf{b} & $\sim$ 1 \\" in text
    assert r"{\scriptsize [84, 85]}" in text


def test_sections_without_rows_have_no_heading():
    text = tabulars(
        ["row", "n"], [("Measured", [["a", "1"]]), ("Controls", []), ("Reported", [["b", "2"]])], 1, ["x_1"]
    )
    assert re.findall(r"textit\{(\w+)\}", text) == ["Measured", "Reported"] and text.count(r"\midrule") == 2
    assert r"{\scriptsize x\_1}" in text


@pytest.mark.parametrize(("text", "shown"), [("模a", "{[}U+6A21]a"), ("é «", "é {[}U+00AB]"), ("a\x07", "a{[}U+0007]")])
def test_characters_at_which_latex_would_stop_are_written_as_codes(text, shown):
    assert latex(text) == shown


# LaTeX itself, where it is installed.


@pytest.fixture
def typeset(tmp_path):
    """Set tables on a page; the lines of the log that tell of errors and of what is too wide."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")

    def run(*tables):
        packages = re.search(r"usepackage\{(.*?)\}", needs("\n".join(tables)))[1]
        (tmp_path / "page.tex").write_text(PAGE % (packages, "\n\n".join(tables)), encoding="utf-8")
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
        for _ in range(2):
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120)
        log = done.stdout.decode("latin-1")
        assert ("Output written" in log) == (done.returncode == 0)
        return re.findall(r"^(?:!|Overfull).*", log, flags=re.M)

    return run


def test_the_page_finds_what_is_too_wide_and_what_is_no_latex(typeset):
    line = f"a{' & 1'.join([''] * 80)}"
    assert typeset(rf"\begin{{tabular}}{{{'r' * 80}}}{line}\end{{tabular}}")[0].startswith("Overfull")
    assert typeset(r"\begin{tabular}{l}\undefined\end{tabular}")[0].startswith("!")


@pytest.mark.parametrize("suite", sorted(path.parent.name for path in LEADERBOARDS.glob("*/table.tex")))
def test_tables_of_leaderboards_fit_a_page(typeset, suite):
    assert typeset(to_latex(make_board(LEADERBOARDS / suite))) == []


@pytest.mark.parametrize("suite", sorted(path.parent.name for path in LEADERBOARDS.glob("*/records")))
def test_reports_fit_a_page(typeset, tmp_path, suite):
    sources = read_sources([f"leaderboard:{suite}"])
    baseline = read_entries(f"leaderboard:{suite}")[0].record.row
    out = write_report(sources, tmp_path / "x.tex", baseline=baseline)
    assert typeset(out.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("model", ["vae", "conditional_realnvp", "a_model_with_a_very_long_name"])
def test_series_fit_a_page(typeset, tmp_path, model):
    """Commits of forty digits, of two suites, with a step."""
    for suite in ("digits", "cifar10-cond"):
        values(tmp_path, model, jump(), suite=suite)
    text = write_series([str(tmp_path)], "fid", tmp_path / "x.tex").read_text(encoding="utf-8")
    assert "2026-11-02 00:00" in text and sha(2)[:7] in text and sha(2) not in text
    assert typeset(text) == []
    table = list(csv.DictReader((write_series([str(tmp_path)], "fid", tmp_path / "x.csv")).open(encoding="utf-8")))
    assert (table[1]["commit"], table[1]["created"]) == (sha(2), "2026-11-02T00:00:00+00:00")


def test_texts_too_wide_for_a_page_are_set_in_lines(typeset):
    row = ["digits", "conditional_vae", "0123456", "an autoencoder", "2026-11-02 00:00", *["1.23"] * 3, "[1.22, 1.24]"]
    heads = [f"head {k}" for k in range(len(row))]
    assert "raggedright" not in tabulars(heads[:4], [("", [row[:4]])], 4)
    text = tabulars(heads, [("", [row])], len(row))
    assert "raggedright" in text and typeset(text) == []


def test_changes_and_hostile_texts_fit_a_page(typeset, tmp_path):
    hostile = "\\input{x}%&#^_~$ \"--'' 模型 «ą» " + "x" * 70
    config = {"model": {"width": 96, "note": hostile}, "train": {"steps": 2000}}
    before = write_records(tmp_path / "before", row("vae"), row("gan"))
    after = write_records(tmp_path / "after", row("vae", nll=1.99, config=config), row("gan", fid=4.0))
    sources = read_sources([f"{hostile}={before}", str(after)])
    write_changes(*sources, tmp_path / "x.tex")
    write_report(sources, tmp_path / "y.tex")
    assert typeset(*((tmp_path / name).read_text(encoding="utf-8") for name in ("x.tex", "y.tex"))) == []


def test_tables_take_most_of_the_width(typeset):
    """The estimate of widths is close: at 1.25 times of it a table does not fit."""
    names = [f"metric {k}" for k in range(40)]
    text = tabulars(["row", *names], [("", [["a", *[VALUE] * 40]])], 1).split("\n\n")[0]
    assert typeset(text) == []
    wider = text.replace("tabcolsep}{3pt}", f"tabcolsep}}{{{3 + 0.25 * TEXT_WIDTH / 14:.1f}pt}}")
    assert typeset(wider)[0].startswith("Overfull")
