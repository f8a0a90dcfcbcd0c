"""Verbs that only read records start at once: they import neither torch nor scipy.stats."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BOARD = Path(__file__).parents[2] / "leaderboards" / "digits"
RECORDS = BOARD / "records"
PROGRAM = """
import sys
from genbench.cli.main import cli

status = cli.main(sys.argv[1:], standalone_mode=False)
print("heavy:", *sorted({"torch", "scipy.stats"} & set(sys.modules)))
sys.exit(status)
"""
VERBS = {
    "check": ["check", RECORDS, "--baseline", RECORDS],
    "baseline": ["baseline", "update", RECORDS, "gate", "--reason", "first", "--author", "Ada"],
    "report": ["report", RECORDS, "--out", "report.html"],
    "compare": ["compare", RECORDS / "vae-s0.json", RECORDS / "pca-s0.json"],
    "leaderboard build": ["leaderboard", "build", "digits"],
    "leaderboard diff": ["leaderboard", "diff", BOARD, "digits"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_that_reads_records_imports_nothing_heavy(tmp_path, verb):
    if verb.startswith("leaderboard"):
        shutil.copytree(BOARD, tmp_path / "digits")
    command = [sys.executable, "-P", "-c", PROGRAM, *map(str, VERBS[verb])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["heavy:"]
