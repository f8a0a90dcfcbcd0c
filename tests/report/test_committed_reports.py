"""The committed reports are what their records give: made again they are equal but for dates; they are small."""

import re
import subprocess
from pathlib import Path

import pytest

from genbench.report.build import write_report
from genbench.report.sources import read_sources

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "reports"
SUITES = sorted(path.parent.name for path in (ROOT / "leaderboards").glob("*/records"))
DATE = re.compile(r"\d{4}-\d\d-\d\d(T[\d:.+]+| \d\d:\d\d UTC)?")
MAX_BYTES = 3_000_000


def test_every_leaderboard_with_records_has_a_report():
    assert SUITES
    assert sorted(path.parent.name for path in REPORTS.glob("*/index.html")) == SUITES


@pytest.mark.parametrize("suite", SUITES)
def test_a_report_made_again_is_equal_but_for_dates(suite, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    out = write_report(read_sources([f"leaderboard:{suite}"]), tmp_path / "index.html")
    made, kept = (DATE.sub("DATE", p.read_text(encoding="utf-8")) for p in (out, REPORTS / suite / "index.html"))
    assert made == kept, f"reports/{suite} is not what its records give: run `make reports`"
    assert len(kept) < MAX_BYTES


def test_the_recipe_of_make_reports_makes_them_all():
    told = subprocess.run(["make", "-n", "reports"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    (suites,) = re.findall(r"for suite in (.*?); do", told)
    assert sorted(suites.split()) == SUITES
    assert "genbench report leaderboard:$suite --out reports/$suite/index.html" in told
