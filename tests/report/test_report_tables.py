"""The summary as frame, CSV, Markdown and terminal table."""

import io

import pandas as pd
import pytest
from report_fixture import HOSTILE, absent, metric, models, quality, record, write_run
from rich.console import Console

from genbench.errors import UsageError
from genbench.report.tables import compare, summary_frame, summary_markdown, terminal_table, write_summary


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


def printed(records):
    console = Console(width=200, file=io.StringIO(), force_terminal=False)
    console.print(terminal_table(records))
    return console.file.getvalue()


def test_summary_csv_holds_every_value(run):
    csv, _ = write_summary(run)
    frame = pd.read_csv(csv).set_index("row")
    assert list(frame.index)[:2] == [HOSTILE, "vae"]
    assert frame.loc["vae", "fid"] == 24.0
    assert frame.loc["vae", ["fid_ci95_low", "fid_ci95_high"]].tolist() == pytest.approx([21.12, 26.88])
    assert frame.loc["vae", ["bits_per_dim", "bits_per_dim_kind", "bits_per_dim_estimator"]].tolist() == [
        2.116,
        "upper_bound",
        "iwae-500",
    ]
    assert frame.loc["vae", "bits_per_dim[elbo]"] == 2.141
    assert pd.isna(frame.loc["dcgan", "bits_per_dim"])
    assert frame.loc["ebm", "status"] == "failed"
    assert frame.loc["ebm", "reason"].startswith("TrainingError: loss is nan")
    assert frame["control"].sum() == 5


def test_frame_tells_extractors_apart():
    other = metric("fid", 3.0, extractor="inception-v3")
    frame = summary_frame([record("vae", [metric("fid", 24.0), other]), record("gan", [other])])
    assert frame["fid"].tolist()[0] == 24.0
    assert frame["fid[inception-v3]"].tolist() == [3.0, 3.0]


def test_markdown_marks_best_ties_bounds_and_failures(run):
    _, markdown = write_summary(run)
    lines = markdown.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("| Row | FID (digits-cnn) ↓ |")
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines}
    assert "**12.9 " in rows["ddpm"]
    assert "14.1 ≈" in rows["pixelcnn"]
    assert "≤ 2.116" in rows["vae"]
    assert "iwae-500" in rows["vae"]
    assert "failed: TrainingError: loss is nan at step 312 lower the rate" in rows["ebm"]
    assert "noise (control)" in rows
    assert rows["&lt;script&gt;alert(1)&lt;/script&gt;"]
    columns = lines[0].count(" | ")
    assert all(line.count(" | ") == columns for line in lines[:13] if not line.startswith("| ---"))


def test_markdown_text_cannot_break_the_table():
    text = summary_markdown([record("a|b\n*c*", [metric("fid", 1.0)])])
    assert "| a\\|b \\*c\\* |" in text


def test_terminal_table_shows_every_row():
    text = printed(list(models().values()))
    assert HOSTILE in text
    assert "ebm failed: TrainingError: loss is nan at step 312" in text
    assert "≤2.116" in text
    assert "14.1≈" in text


def test_a_narrow_terminal_gets_fewer_columns_but_whole_ones():
    rows = list(models().values())
    wide, narrow = terminal_table(rows, width=200), terminal_table(rows, width=80)
    assert len(narrow.columns) < len(wide.columns) == 12
    assert Console(width=1000).measure(narrow).maximum <= 80
    heads = [str(column.header) for column in narrow.columns]
    assert heads[:2] == ["row", "FID ↓"]
    assert "Bits/dim ↓" in heads
    assert "Further columns" in str(narrow.caption)
    assert "Further columns" not in str(wide.caption)


def test_terminal_table_without_records_or_metrics():
    assert printed([]) is not None
    assert "vae failed: out of memory" in printed([record("vae", [], status="failed", reason="out of memory")])


def test_rows_of_several_seeds_are_named_by_seed():
    rows = [record("vae", quality(1, 1, 1, 1, 1, 0), seed=seed) for seed in (0, 1)]
    assert [row.label for row in compare(rows).models] == ["vae (seed 0)", "vae (seed 1)"]


def test_the_first_estimator_with_a_value_is_shown():
    rows = [
        record("vae", [absent("bits_per_dim", "diverged", "failed"), metric("bits_per_dim", 2.2, estimator="elbo")])
    ]
    assert compare(rows).models[0].cells[0].text == "~ 2.200"


def test_summary_of_something_else_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not the folder of a run"):
        write_summary(tmp_path)
