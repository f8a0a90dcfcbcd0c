"""Sentences, Markdown, JUnit XML and GitHub's commands; text of a record stays text in all of them."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from genbench.check import render
from genbench.check.benchmarks import METRIC
from genbench.check.finding import Finding, Verdicts

HOSTILE = "<script>|alert(1)\n::error::x\x1b[31m `a` **b** [c](d) &lt; ##[warning]%0A"


def verdicts(*findings, new=()):
    return Verdicts("digits", findings, new)


WORSE = Finding(
    "vae", "fid", "worse", "from both standard errors", "plug-in", "digits-cnn", 2.34, 2.61, 0.27, (0.1, 0.44), 0.0021
)
SAME = Finding("vae", "kid", "same", "from both intervals", "full", "digits-cnn", 0.1, 0.1, 0.0, (-0.1, 0.1), 1.0)
MISSING = Finding("ddpm", "", "missing", "the candidate has no such row")
UNLIKE = Finding("vae", "precision", "not comparable", "n: 297 against 100", "plug-in", "digits-cnn", 0.5, 0.4)
BETTER = Finding("vae", "bits_per_dim", "better", "x", "elbo", None, 2.1, 2.0, -0.1, (-0.2, -0.01), 0.0)
BY_NATURE = Finding("vae", "training_seconds", "not comparable", "it has no interval", baseline=1.0, by_nature=True)
ALL = verdicts(SAME, BETTER, BY_NATURE, UNLIKE, MISSING, WORSE, new=("mine",))


def test_sentences_say_what_changed_by_how_much_and_how_surely():
    assert render.sentence(WORSE) == (
        "vae: FID (digits-cnn) is worse: 2.34 -> 2.61, changed by +0.27 [0.1, 0.44]; "
        "from both standard errors; p = 0.0021"
    )
    assert render.sentence(MISSING) == "ddpm: whole row is missing: the candidate has no such row"
    assert "Bits/dim (elbo) is better: 2.100 -> 2.000" in render.sentence(BETTER)
    assert render.sentence(BETTER).endswith("certain")
    assert "is the same within noise" in render.sentence(SAME)
    benchmark = Finding("test_speed", METRIC, "worse", "x", "median", None, 0.002, 0.004)
    assert render.sentence(benchmark) == "test_speed: Median time is worse: 2.00 ms -> 4.00 ms; x"


def test_the_summary_counts():
    assert render.summary(ALL) == (
        "REGRESSION: 1 worse, 1 missing, 1 not comparable, 1 better, 1 the same within noise, "
        "1 without an interval or a direction, not judged"
    )
    assert render.summary(verdicts(MISSING)).startswith("MISSING: 1 missing")
    assert render.summary(verdicts(SAME)) == "no regression: 1 the same within noise"


def test_what_needs_a_reader_comes_first():
    assert render.sorted_findings(ALL.findings) == [WORSE, MISSING, UNLIKE, BETTER]
    assert set(render.sorted_findings(ALL.findings, every=True)) == set(ALL.findings)


def test_many_values_that_cannot_be_compared_for_one_reason_are_one_sentence():
    device = "device: 'AMD' against '<Intel>'"
    speeds = [
        Finding(row, metric, "not comparable", device, "windows", None, 2.0, 1.0)
        for row in ("vae", "gan")
        for metric in ("images_per_second", "latency_seconds")
    ]
    told = f"4 values of 2 rows are not comparable (Images/s, Latency; --all lists them): {device}"
    assert render.gathered([*speeds, WORSE, UNLIKE]) == ([WORSE, UNLIKE], [told])
    assert render.gathered([*speeds[:3], WORSE]) == ([WORSE, *speeds[:3]], [])
    assert render.gathered([*speeds, WORSE], every=True) == ([WORSE, *speeds], [])
    one_row = [replace(one, row="v") for one in speeds]
    assert render.gathered(one_row)[1][0].startswith("4 values of v are not comparable")
    lost = [replace(one, verdict="missing", reason=device) for one in speeds]
    assert render.gathered([*lost, *speeds])[0] == lost
    lines = render.markdown(verdicts(*speeds, WORSE)).splitlines()
    assert lines[-1].startswith("4 values of 2 rows are not comparable (Images/s, Latency; --all lists them): device")
    assert "'&lt;Intel>'" in lines[-1] and lines[-2] == "" and len(lines) == 7
    assert len(render.markdown(verdicts(*speeds)).splitlines()) == 3


def test_markdown_is_a_table_with_failures_in_bold():
    lines = render.markdown(ALL).splitlines()
    assert lines[0] == f"### genbench check, suite digits: {render.summary(ALL)}"
    assert lines[4].startswith("| **worse** | vae | FID (digits-cnn) | 2.34 | 2.61 | +0.27 \\[0.10, 0.44\\] |")
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines[2:8]} == {8}
    assert lines[-1] == "Not in the baseline: mine."
    assert "kid" not in render.markdown(ALL).lower()
    assert "KID" in render.markdown(ALL, every=True)
    assert "|" not in render.markdown(verdicts(SAME))


def test_junit_is_read_back():
    tree = ET.fromstring(render.junit(ALL))
    assert (tree.tag, tree.get("name")) == ("testsuite", "genbench check digits")
    assert [tree.get(key) for key in ("tests", "failures", "skipped", "errors")] == ["6", "2", "2", "0"]
    cases = {(case.get("classname"), case.get("name")): case for case in tree}
    failure = cases["vae", "fid plug-in digits-cnn"].find("failure")
    assert failure.get("message") == render.sentence(WORSE)
    assert cases["ddpm", "whole row"].find("failure").get("type") == "missing"
    assert cases["vae", "precision plug-in digits-cnn"].find("skipped").get("message") == "n: 297 against 100"
    assert len(cases["vae", "kid full digits-cnn"]) == 0


def test_github_gets_an_error_for_each_failure_and_one_warning():
    lines = render.workflow_commands(ALL)
    assert [line.split(" ")[0] for line in lines] == ["::error", "::error", "::warning"]
    assert lines[0].startswith("::error title=vae%3A FID (digits-cnn) is worse::vae: FID")
    assert "1 values cannot be compared" in lines[2]
    assert render.workflow_commands(verdicts(SAME, BY_NATURE)) == []


@pytest.fixture
def hostile():
    finding = Finding(HOSTILE, HOSTILE, "worse", HOSTILE, HOSTILE, HOSTILE, 1.0, 2.0)
    return Verdicts(HOSTILE, (finding,), (HOSTILE,))


def test_text_of_a_record_stays_text_in_sentences(hostile):
    text = render.sentence(hostile.findings[0])
    assert "\n" not in text and "\x1b" not in text and "##[" not in text
    assert "<script>|alert(1) ::error::x" in text


def test_text_of_a_record_stays_text_in_markdown(hostile):
    text = render.markdown(hostile)
    lines = text.splitlines()
    assert len(lines) == 7
    assert "<" not in text and "\x1b" not in text
    assert len(re.findall(r"(?<!\\)\|", lines[4])) == 8
    assert re.search(r"(?<!\\)[`\[\]]", text.replace("[95 %]", "")) is None
    assert "&amp;lt;" in text


def test_markdown_links_to_nothing_and_mentions_nobody():
    text = render.markdown(verdicts(Finding("https://a.example", "fid", "worse", "www.b.example by @team, ddpm@x")))
    assert "://" not in text and "www." not in text
    assert "@&#8203;team, ddpm@x" in text


def test_text_of_a_record_stays_text_in_junit(hostile):
    tree = ET.fromstring(render.junit(hostile))
    assert len(tree) == 1
    assert tree[0].get("classname").startswith("<script>|alert(1)")
    assert len(list(tree.iter())) == 3


def test_text_of_a_record_stays_text_in_github_commands(hostile):
    lines = render.workflow_commands(hostile)
    assert len(lines) == 1
    assert "\n" not in lines[0] and "%250A" in lines[0]
    title = lines[0].removeprefix("::error title=").split("::")[0]
    assert ":" not in title and "," not in title
    assert "##[" not in lines[0] and "\x1b" not in lines[0]


@pytest.mark.parametrize("mark", ["\x1b[31m", "\u202e", "\u2028", "\u2029", "\x85", "\x00", "\t", "##[error]"])
def test_a_name_brings_no_mark_into_any_part_of_a_command(mark):
    finding = Finding(f"vae{mark}x", f"fid{mark}", "worse", f"a{mark}b", "plug-in", f"cnn{mark}", 1.0, 2.0)
    unlike = Finding(f"vae{mark}x", f"fid{mark}", "not comparable", f"a{mark}b")
    for line in render.workflow_commands(verdicts(finding, unlike)):
        assert mark not in line and line.isprintable() and len(line.splitlines()) == 1


def test_a_change_has_the_unit_of_its_values():
    slower = Finding("vae", "latency_seconds", "worse", "", baseline=0.0191, candidate=0.0242, change=0.0051)
    assert render.shown_change(slower, 0.0051) == "+5.10 ms"
    assert render.shown_change(replace(slower, metric=METRIC), 0.0051) == "+5.10 ms"
    assert render.shown_change(replace(slower, metric=METRIC), -2.0) == "−2.00 s"
    assert render.shown_change(replace(slower, metric="peak_memory_bytes"), 3 * 2.0**20) == "+3.00 MiB"
