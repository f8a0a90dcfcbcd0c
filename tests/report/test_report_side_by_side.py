"""Reports of several sources: sections, seeds, differences, changes; as HTML, Markdown, LaTeX and CSV."""

import csv
import io
import re

import pytest
from report_fixture import HOSTILE, metric
from report_runs import bits, row, write_records, write_run_folder

from genbench.check.collect import read_entries
from genbench.cli.main import main
from genbench.errors import UsageError
from genbench.record import Curve, Timing, TimingWindow
from genbench.report.build import make_sections, write_changes, write_report
from genbench.report.changes import changes_of
from genbench.report.differences import difference, differences
from genbench.report.sources import read_sources


def sections(*given, baseline=None):
    return make_sections(read_sources([str(one) for one in given]), baseline)


def body(text):
    return re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.S)


@pytest.fixture
def two(tmp_path):
    """Before: two models; after: one of them better in likelihood by a hair, the other worse in FID."""
    before = write_records(tmp_path / "before", row("vae"), row("gan"), scores=True)
    after = write_records(
        tmp_path / "after",
        row("vae", nll=1.99, config={"model": {"width": 96}, "train": {"steps": 2000}}),
        row("gan", fid=4.0),
        scores=True,
    )
    return before, after


def test_each_suite_is_a_section_with_ids_of_its_own(tmp_path):
    a = write_run_folder(tmp_path / "a", row("vae"), row("gan"))
    b = write_records(tmp_path / "b", row("vae", suite="mnist <b>"))
    out = write_report(read_sources([str(a), str(b)]), tmp_path / "out.html")
    text = body(out.read_text(encoding="utf-8"))
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert {"digits-comparison", "mnist-b-comparison", "digits-suite", "mnist-b-suite"} <= set(ids)
    assert "<b>" not in re.sub(r"<b( [^>]*)?>[^<]*</b>", "", text)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(ids)
    assert text.count("data:image/png;base64,") == 2


def test_a_cell_says_that_it_is_a_mean_and_every_seed_is_shown(tmp_path):
    folder = write_records(tmp_path / "a", row("vae", 0, fid=1.0), row("vae", 1, fid=3.0), row("gan"))
    (section,) = sections(folder)
    (cells,) = [line.cells for line in section.comparison.models if line.label == "vae"]
    assert "mean of 2 seeds" in cells[0].note
    assert [(line.label, line.seeds, line.cells[0]) for line in section.seeds] == [
        ("vae", [0, 1], "1.00, 3.00 (± 1.41)"),
    ]
    assert [made.label for made in section.making] == ["gan (seed 0)", "vae (seed 0)", "vae (seed 1)"]


def test_differences_pair_scores_of_the_same_images(two):
    (section,) = sections(*two, baseline="before")
    found = {line.label: line for line in section.differences.rows}
    assert set(found) == {"vae · after", "gan · after"}
    names = [column.name for column in section.differences.columns]
    cell = found["vae · after"].cells[names.index("bits_per_dim")]
    assert cell.verdict == "better"
    assert cell.text == "−0.010"
    assert "paired" in cell.reason
    fid = found["gan · after"].cells[names.index("fid")]
    assert (fid.verdict, fid.text) == ("worse", "+2.00")
    assert fid.ci95[0] == pytest.approx(2.0 - 0.2 * 2**0.5, rel=1e-6)


def timed_row(rates, paces, given=1.0):
    windows = [
        TimingWindow(images=8, seconds=8 / rate, pace=pace, given=given)
        for rate, pace in zip(rates, paces, strict=True)
    ]
    timing = Timing(
        batch_size=8,
        windows=windows,
        latency_seconds=[0.1],
        reference_load="linear-conv-1",
        evaluations_per_image=1,
        precision="fp32",
        device="cpu",
        threads=1,
    )
    speed = metric("images_per_second", sorted(rates)[len(rates) // 2], 1.0)
    return row("vae", metrics=[metric("fid", 2.0, 0.2), speed], timing=timing)


@pytest.mark.parametrize(
    ("factor", "given", "verdict", "reason"),
    [
        (0.8, 1.0, "same within noise", "at the machine's pace"),
        (0.64, 1.0, "worse", "at the machine's pace"),
        (0.8, 0.5, "not comparable", "this row was timed while others held the processor"),
    ],
)
def test_speeds_differ_at_the_machines_pace(tmp_path, factor, given, verdict, reason):
    """The second machine is slower by a fifth."""
    rates, paces = [100.0, 101.5, 99.0, 100.5, 100.2], [1000.0, 1008.0, 992.0, 1009.0, 1001.0]
    before = write_records(tmp_path / "before", timed_row(rates, paces))
    slow = timed_row([factor * rate for rate in rates], [0.8 * pace for pace in paces], given)
    after = write_records(tmp_path / "after", slow)
    (metric_id,) = {(m.name, m.estimator, m.extractor) for m in slow.metrics if m.name == "images_per_second"}
    found = difference(read_entries(before), read_entries(after), metric_id)
    assert found.verdict == verdict
    assert reason in found.reason


def test_a_baseline_of_several_rows_or_of_joined_seeds_is_told_from_an_unknown_one(two, tmp_path):
    with pytest.raises(UsageError, match=r"2 rows are called so. Name one of them: vae · before, vae · after"):
        sections(*two, baseline="vae")
    first = write_records(tmp_path / "first", row("made", seed=0))
    second = write_records(tmp_path / "second", row("made", seed=1))
    with pytest.raises(UsageError, match=r"its seeds were joined with another source's \(made\)"):
        sections(first, second, baseline="first")


def test_a_row_may_be_the_baseline_of_all_others(two):
    (section,) = sections(two[0], baseline="gan")
    assert [(line.label, line.against) for line in section.differences.rows] == [("vae", "gan")]
    assert section.differences.rows[0].cells[0].verdict == "same within noise"


def test_an_unknown_baseline_is_refused_and_the_nearest_is_named(two):
    with pytest.raises(UsageError, match=r"Unknown row or source of the report 'befor'. Did you mean 'before'"):
        sections(*two, baseline="befor")


def test_a_suite_without_the_baseline_says_so(tmp_path):
    a = write_records(tmp_path / "a", row("vae"), row("gan"))
    b = write_records(tmp_path / "b", row("made", suite="mnist"))
    first, second = sections(a, b, baseline="gan")
    assert first.differences is not None
    assert second.differences is None
    assert second.notes == ["There is no row or source 'gan' here."]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (bits(2.0, comparable={"n": 5}), "n"),
        (bits(2.0, kind="upper_bound", estimator="elbo"), "no value"),
        (bits(2.0, unit="nats"), "unit"),
    ],
)
def test_unlike_measurements_have_no_difference(tmp_path, other, reason):
    folder = write_records(tmp_path / "a", row("vae"), row("gan", metrics=[other]))
    entries = {one.label: one.entries for one in sections(folder)[0].rows}
    found = difference(entries["vae"], entries["gan"], ("bits_per_dim", "exact", None))
    assert (found.verdict, found.value) == ("not comparable", None)
    assert reason in found.reason


def test_failed_rows_have_no_differences(tmp_path):
    failed = row("gan", status="failed", reason="loss is nan", metrics=[])
    folder = write_records(tmp_path / "a", row("vae"), failed, row("made"))
    (section,) = sections(folder)
    assert [line.label for line in differences(section.rows, "vae").rows] == ["made"]
    assert differences(section.rows, "gan").without == ["made", "vae"]


def test_what_changed_is_told_once_where_every_row_has_it(tmp_path):
    def there(name, **environment):
        known = {"torch": "2.9", "cpu": "A", **environment}
        made = [row("vae", environment=known, config={"model": {"width": 64 if name == "a" else 96}})]
        return write_records(tmp_path / name, *made, row("gan", environment=known), row(f"only_{name}"))

    found = changes_of(*read_sources([str(there("a")), str(there("b", torch="3.0", commit="f" * 40))]))
    assert ("environment.torch", "2.9", "3.0") in found.shared
    assert ("environment.commit", "–", "f" * 40) in found.shared
    assert [(line.label, line.settings) for line in found.rows] == [
        ("gan", []),
        ("vae", [("model.width", "64", "96")]),
    ]
    assert (found.only_a, found.only_b) == (["only_a"], ["only_b"])


def test_stages_made_anew_without_another_setting_point_at_the_code(tmp_path):
    a = write_records(tmp_path / "a", row("vae"))
    b = write_records(tmp_path / "b", row("vae", keys={"samples": "cd" * 32}))
    (line,) = changes_of(*read_sources([str(a), str(b)])).rows
    assert line.unexplained
    assert line.stages == ["samples"]
    out = write_changes(*read_sources([str(a), str(b)]), tmp_path / "x.html")
    assert "made anew (samples)" in out.read_text(encoding="utf-8")


def test_numbers_before_and_after_with_verdicts(two):
    found = changes_of(*read_sources([str(one) for one in two]))
    numbers = {(line.label, n.title): n for line in found.rows for n in line.numbers}
    assert numbers["vae", "Bits/dim ↓"].verdict == "better"
    assert numbers["gan", "FID (digits-cnn) ↓"].verdict == "worse"
    assert numbers["vae", "Parameters"].verdict in ("equal", "no interval")
    assert found.sentence.startswith("2 rows of both: 1 worse, 1 better")
    assert [line.chart.title for line in found.rows] == ["gan: validation", "vae: validation"]


def test_curves_without_a_common_name_make_no_chart(tmp_path):
    other = row("vae")
    bare = other.training.model_copy(update={"curves": {"energy": Curve(step=[0, 1], value=[1.0, 2.0])}})
    a = write_records(tmp_path / "a", row("vae"))
    b = write_records(tmp_path / "b", other.model_copy(update={"training": bare, "genbench_version": "9"}))
    assert changes_of(*read_sources([str(a), str(b)])).rows[0].chart is None


def test_two_variants_of_one_model_can_be_compared(tmp_path):
    a = write_records(tmp_path / "a", row("ddpm"))
    b = write_records(tmp_path / "b", row("ddpm", variant="ddim20"))
    assert [line.label for line in changes_of(*read_sources([str(a), str(b)])).rows] == ["ddpm → ddpm@ddim20"]


def test_runs_of_unlike_suites_have_nothing_in_common(tmp_path):
    a = write_records(tmp_path / "a", row("vae"))
    b = write_records(tmp_path / "b", row("vae", suite="mnist"))
    with pytest.raises(
        UsageError, match=r"No row is in both: a \(suite digits\) has vae, and b \(suite mnist\) has vae"
    ):
        changes_of(*read_sources([str(a), str(b)]))


def hostile(tmp_path):
    """A record whose texts are code wherever they are shown."""
    folder = tmp_path / "evil"
    names = metric("=cmd|' /C calc'!A0", 1.0, extractor="=1+1")
    made = row(HOSTILE, metrics=[metric("fid", 2.0, 0.1), names], family="=2+5", environment={"cpu": "\\input{x}|`"})
    write_records(folder, row("vae"))
    (folder / "records" / "evil-s0.json").write_text(made.model_dump_json())
    return folder


def test_texts_of_records_stay_text_in_every_format(tmp_path):
    sources = read_sources([f"a\\b|c_{{}}={hostile(tmp_path)}"])
    page = write_report(sources, tmp_path / "x.html").read_text(encoding="utf-8")
    assert HOSTILE not in body(page)
    text = write_report(sources, tmp_path / "x.md").read_text(encoding="utf-8")
    assert "<script>" not in text
    tex = write_report(sources, tmp_path / "x.tex").read_text(encoding="utf-8")
    assert r"\textless{}script\textgreater{}" in tex
    table = list(csv.reader(io.StringIO(write_report(sources, tmp_path / "x.csv").read_text(encoding="utf-8"))))
    assert any(cell.startswith("'=") for line in table for cell in line)
    assert not any(cell.startswith(("=", "@", "+")) for line in table for cell in line)


def test_markdown_and_latex_hold_the_same_tables(two, tmp_path):
    sources = read_sources([str(one) for one in two])
    text = write_report(sources, tmp_path / "x.md", baseline="before").read_text(encoding="utf-8")
    assert "## Differences from before" in text
    assert "**+2.00 \\[1.72, 2.28\\] worse**" in text
    tex = write_report(sources, tmp_path / "x.tex", baseline="before").read_text(encoding="utf-8")
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 3
    for table in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end", tex, flags=re.S):
        lines = [line for line in table[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(table[0])}


def test_csv_has_a_line_a_row_with_its_seeds(tmp_path):
    folder = write_records(tmp_path / "a", row("vae", 0, fid=1.0), row("vae", 1, fid=3.0), row("gan"))
    text = write_report(read_sources([str(folder)]), tmp_path / "x.csv").read_text(encoding="utf-8")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(line["label"], line["seed"], line["fid"]) for line in lines] == [
        ("gan", "0", "2.0"),
        ("vae", "0 1", "2.0"),
    ]


def verb(*arguments):
    """The exit status of ``genbench report``."""
    with pytest.raises(SystemExit) as stopped:
        main(["report", *arguments])
    return stopped.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{a}", "{b}"], "Say where to write the report: --out"),
        (["{a}", "--out", "x.pdf"], "a report is written as .html, .md, .tex, .csv, not as '.pdf'"),
        (["{a}", "--diff", "--out", "x.html"], "--diff is between two sources, got 1"),
        (["{a}", "{b}", "--diff", "--baseline", "vae", "--out", "x.html"], "Give one of --baseline, --diff"),
        (["{a}", "--models", "vea", "--out", "x.html"], "Unknown model of the report 'vea'. Did you mean 'vae'"),
        (["{a}"], "run.json"),
        (["{a}", "--series", "fit", "--out", "x.html"], "a series needs two"),
    ],
)
def test_bad_usage_says_what_to_do(two, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    given = [text.format(a=two[0], b=two[1]) for text in arguments]
    assert verb(*given) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))


def test_the_verb_writes_side_by_side_and_changes(two, tmp_path, capsys):
    a, b = (str(one) for one in two)
    out = tmp_path / "new" / "x.html"
    assert verb(f"old={a}", f"new={b}", "--models", "vae", "--out", str(out)) == 0
    text = body(out.read_text(encoding="utf-8"))
    assert "vae · old" in text and "gan" not in text
    assert verb(a, b, "--diff", "--out", str(tmp_path / "d.md")) == 0
    assert "### Numbers" in (tmp_path / "d.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.count("Report: ") == 2


def test_the_verb_writes_a_metric_over_commits(tmp_path):
    for day, fid in enumerate((2.0, 2.1, 1.9, 2.0, 9.0), start=1):
        made = row("vae", fid=fid, created=f"2026-11-0{day}T03:00:00+00:00", environment={"commit": f"{day}" * 40})
        write_records(tmp_path / "history" / str(day), made)
    out = tmp_path / "x"
    for suffix in (".html", ".md", ".tex", ".csv"):
        path = out.with_suffix(suffix)
        assert verb(str(tmp_path / "history"), "--series", "fid", "--out", str(path)) == 0
        assert "5555555" in path.read_text(encoding="utf-8")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text(encoding="utf-8"))))
    assert [line["value"] for line in lines] == ["2.0", "2.1", "1.9", "2.0", "9.0"]
    assert "1 step of models" in (tmp_path / "x.md").read_text(encoding="utf-8")


def test_an_interrupted_write_leaves_the_old_report(two, tmp_path, monkeypatch):
    out = tmp_path / "x.md"
    out.write_text("old")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("genbench.files.os.fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_report(read_sources([str(two[0])]), out)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.glob("*x*")] == ["x.md"]
