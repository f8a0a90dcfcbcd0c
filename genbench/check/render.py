"""A check's verdicts for people and for CI: sentences, Markdown, JUnit XML, annotations."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from genbench.check.judge import Finding, Verdict, Verdicts
from genbench.report.names import display, format_value

ORDER: tuple[Verdict, ...] = ("worse", "missing", "not comparable", "better", "same")
WORDS: dict[Verdict, str] = {"same": "the same within noise"}


def summary(found: Verdicts) -> str:
    """One line: what the check says, and how many findings of each verdict there are."""
    head = "REGRESSION" if found.count("worse") else "MISSING" if found.failed else "no regression"
    counts = ", ".join(
        f"{found.count(verdict)} {WORDS.get(verdict, verdict)}" for verdict in ORDER if found.count(verdict)
    )
    return f"{head}: {counts or 'nothing was judged'}"


def label(finding: Finding) -> str:
    """The metric as shown, with its estimator where it tells more."""
    if not finding.metric:
        return "whole row"
    name = display(finding.metric, None)
    return f"{name} ({finding.estimator})" if finding.metric in ("bits_per_dim", "nats_per_image") else name


def values(finding: Finding) -> str:
    """``"2.34 -> 2.61"``, as far as they are known."""
    shown = [None if v is None else format_value(finding.metric, v) for v in (finding.baseline, finding.candidate)]
    return " -> ".join(text or "?" for text in shown) if finding.baseline is not None else ""


def sentence(finding: Finding) -> str:
    """Why a finding has its verdict, readable without its table."""
    change = ""
    if finding.change is not None and finding.ci95 is not None:
        low, high = finding.ci95
        change = f", changed by {finding.change:+.4g} [{low:.4g}, {high:.4g}]"
    parts = [f"{values(finding)}{change}", finding.reason]
    if finding.p is not None and finding.verdict in ("worse", "better"):
        parts.append(f"p = {finding.p:.2g}" if finding.p else "certain")
    told = "; ".join(part for part in parts if part)
    return f"{finding.row}: {label(finding)} is {WORDS.get(finding.verdict, finding.verdict)}: {told}"


def sorted_findings(findings: Iterable[Finding], *, every: bool = False) -> list[Finding]:
    """What needs a reader first; ``every``: also what stayed the same."""
    kept = [finding for finding in findings if every or finding.verdict != "same"]
    return sorted(kept, key=lambda finding: ORDER.index(finding.verdict))


def markdown(found: Verdicts, *, every: bool = False) -> str:
    """A summary line and a table, for a pull request."""
    lines = [f"### genbench check, suite {_cell(found.suite)}: {summary(found)}", ""]
    shown = sorted_findings(found.findings, every=every)
    if shown:
        lines += ["| Verdict | Row | Metric | Baseline | Now | Change [95 %] | Why |", "| --- " * 7 + "|"]
        lines += [_line(finding) for finding in shown]
    if found.new:
        lines += ["", f"Not in the baseline: {', '.join(map(_cell, found.new))}."]
    return "\n".join(lines) + "\n"


def _line(finding: Finding) -> str:
    before, after = (
        "" if value is None else format_value(finding.metric, value) for value in (finding.baseline, finding.candidate)
    )
    change = ""
    if finding.change is not None:
        change = f"{finding.change:+.4g}"
        change += "" if finding.ci95 is None else f" [{finding.ci95[0]:.4g}, {finding.ci95[1]:.4g}]"
    verdict = f"**{finding.verdict}**" if finding.fails else finding.verdict
    cells = (verdict, finding.row, label(finding), before, after, change, finding.reason)
    return "| " + " | ".join(_cell(cell) if cell != verdict else cell for cell in cells) + " |"


def _cell(text: str) -> str:
    """Text as a cell of a Markdown table: no markup of its own, one line."""
    for mark in "\\|*_`[]":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.replace("<", "&lt;").split())


def junit(found: Verdicts) -> str:
    """JUnit XML: a test case for each finding; what is worse or missing fails, what is not comparable is skipped."""
    skipped = found.count("not comparable")
    failures = sum(finding.fails for finding in found.findings)
    suite = ET.Element("testsuite", name=_xml(f"genbench check {found.suite}"), errors="0")
    for key, count in (("tests", len(found.findings)), ("failures", failures), ("skipped", skipped)):
        suite.set(key, str(count))
    for finding in found.findings:
        name = " ".join(filter(None, (finding.metric or "whole row", finding.estimator, finding.extractor)))
        case = ET.SubElement(suite, "testcase", classname=_xml(finding.row), name=_xml(name))
        if finding.fails:
            ET.SubElement(case, "failure", message=_xml(sentence(finding)), type=finding.verdict)
        elif finding.verdict == "not comparable":
            ET.SubElement(case, "skipped", message=_xml(finding.reason))
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    """Text without the control characters that XML cannot hold."""
    return "".join(c if c.isprintable() or c in "\t\n" else "?" for c in text)


def workflow_commands(found: Verdicts) -> list[str]:
    """Workflow commands of GitHub Actions: an error for each failure, one warning for what cannot be compared."""
    lines = [
        f"::error title={_escaped(f'{finding.row}: {label(finding)} is {finding.verdict}', True)}::"
        f"{_escaped(sentence(finding))}"
        for finding in sorted_findings(found.findings)
        if finding.fails
    ]
    unlike = [finding for finding in found.findings if finding.verdict == "not comparable"]
    if unlike:
        told = f"{len(unlike)} metrics cannot be compared with the baseline, the first: {sentence(unlike[0])}"
        lines.append(f"::warning title=genbench check::{_escaped(told)}")
    return lines


def _escaped(text: str, in_property: bool = False) -> str:
    """Text of a workflow command: its own marks are percent-encoded."""
    marks: Sequence[tuple[str, str]] = [("%", "%25"), ("\r", "%0D"), ("\n", "%0A")]
    for mark, code in (*marks, *([(":", "%3A"), (",", "%2C")] if in_property else [])):
        text = text.replace(mark, code)
    return text
