"""A check's verdicts for people and for CI: sentences, Markdown, JUnit XML, annotations.

What a record says (names, reasons) is text that anybody may have written: it never becomes markup, a terminal's control
sequence or a command of GitHub Actions.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence

from genbench.check.benchmarks import METRIC as BENCHMARK
from genbench.check.finding import Finding, Verdict, Verdicts
from genbench.report.names import LIKELIHOODS, difference_text, display, format_seconds, format_value

ORDER: tuple[Verdict, ...] = ("worse", "missing", "not comparable", "better", "same")
WORDS: dict[Verdict, str] = {"same": "the same within noise"}
MANY = 4
"""So many values that cannot be compared for one reason are told in one sentence."""


def summary(found: Verdicts) -> str:
    """One line: what the check says, and how many findings of each verdict there are."""
    head = "REGRESSION" if found.count("worse") else "MISSING" if found.failed else "no regression"
    by_nature = sum(finding.by_nature for finding in found.findings)
    counts = {verdict: found.count(verdict) for verdict in ORDER}
    counts["not comparable"] -= by_nature
    told = [f"{count} {WORDS.get(verdict, verdict)}" for verdict, count in counts.items() if count]
    told += [f"{by_nature} without an interval or a direction, not judged"] if by_nature else []
    return f"{head}: {', '.join(told)}"


def label(finding: Finding) -> str:
    """The metric as shown, with the extractor, or of a likelihood the estimator, that the number depends on."""
    if not finding.metric:
        return "whole row"
    if finding.metric == BENCHMARK:
        return "Median time"
    depends_on = finding.estimator if finding.metric in LIKELIHOODS else finding.extractor
    return one_line(display(finding.metric, depends_on))


def one_line(text: str) -> str:
    """Text on one line, without control characters and without what GitHub Actions takes for a command."""
    shown = "".join(c if c.isprintable() or c.isspace() else "?" for c in text)
    return " ".join(shown.split()).replace("##[", "# #[")


def shown_value(finding: Finding, value: float | None) -> str:
    """A value as the report shows it; "" for None."""
    if value is None:
        return ""
    return format_seconds(value) if finding.metric == BENCHMARK else format_value(finding.metric, value)


def shown_change(finding: Finding, change: float) -> str:
    """A change with its interval, in the units of the values."""
    if finding.metric == BENCHMARK:
        return f"{'+' if change > 0 else ''}{format_seconds(change)}"
    return " ".join(difference_text(finding.metric, change, finding.ci95)).strip()


def values(finding: Finding) -> str:
    """``"2.34 -> 2.61"``, as far as they are known."""
    if finding.baseline is None:
        return ""
    return " -> ".join(shown_value(finding, value) or "?" for value in (finding.baseline, finding.candidate))


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
    return one_line(f"{finding.row}: {label(finding)} is {WORDS.get(finding.verdict, finding.verdict)}: {told}")


def sorted_findings(findings: Iterable[Finding], *, every: bool = False) -> list[Finding]:
    """What needs a reader first; ``every``: also what stayed the same and what cannot be judged by its nature."""
    kept = [finding for finding in findings if every or (finding.verdict != "same" and not finding.by_nature)]
    return sorted(kept, key=lambda finding: ORDER.index(finding.verdict))


def gathered(findings: Iterable[Finding], *, every: bool = False) -> tuple[list[Finding], list[str]]:
    """What is shown one by one, in order, and a sentence for each reason why many values cannot be compared.

    A run on another machine would else be a page of speeds. ``every``: all one by one.
    """
    shown = sorted_findings(findings, every=every)
    unlike: dict[str, list[Finding]] = {}
    for finding in shown:
        if finding.verdict == "not comparable" and not finding.fails and not every:
            unlike.setdefault(finding.reason, []).append(finding)
    many = {reason: alike for reason, alike in unlike.items() if len(alike) >= MANY}
    listed = [one for one in shown if one.verdict != "not comparable" or one.reason not in many]
    return listed, [_gathered(reason, alike) for reason, alike in many.items()]


def _gathered(reason: str, alike: Sequence[Finding]) -> str:
    rows, labels = ({part(one): None for one in alike} for part in (lambda one: one.row, label))
    of_rows = next(iter(rows)) if len(rows) == 1 else f"{len(rows)} rows"
    return one_line(
        f"{len(alike)} values of {of_rows} are not comparable ({', '.join(labels)}; --all lists them): {reason}"
    )


def markdown(found: Verdicts, *, every: bool = False) -> str:
    """A summary line and a table, for a pull request."""
    lines = [f"### genbench check, suite {_cell(found.suite)}: {summary(found)}", ""]
    shown, more = gathered(found.findings, every=every)
    if shown:
        lines += ["| Verdict | Row | Metric | Baseline | Now | Change [95 %] | Why |", "| --- " * 7 + "|"]
        lines += [_line(finding) for finding in shown]
    lines += [line for told in more for line in (*([""] if shown else []), f"{_cell(told)}.")]
    if found.new:
        lines += ["", f"Not in the baseline: {', '.join(map(_cell, found.new))}."]
    if found.aside:
        lines += ["", f"Not asked for: {', '.join(map(_cell, found.aside))}."]
    return "\n".join(lines) + "\n"


def _line(finding: Finding) -> str:
    before, after = (shown_value(finding, value) for value in (finding.baseline, finding.candidate))
    change = ""
    if finding.change is not None:
        change = shown_change(finding, finding.change)
    verdict = f"**{finding.verdict}**" if finding.fails else finding.verdict
    cells = (finding.row, label(finding), before, after, change, finding.reason)
    return "| " + " | ".join((verdict, *map(_cell, cells))) + " |"


def _cell(text: str) -> str:
    """Text as a cell of a Markdown table: no markup of its own, no link, nobody mentioned, one line."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    for mark in "\\|*_`[]~$":
        text = text.replace(mark, "\\" + mark)
    text = text.replace("://", ":&#47;&#47;").replace("www.", "www&#46;")
    return re.sub(r"(?<!\w)@", "@&#8203;", text)


def junit(found: Verdicts) -> str:
    """JUnit XML: a test case for each finding; what is worse or missing fails, what is not comparable is skipped."""
    skipped = found.count("not comparable")
    failures = sum(finding.fails for finding in found.findings)
    suite = ET.Element("testsuite", name=_xml(f"genbench check {found.suite}"), errors="0")
    for key, count in (("tests", len(found.findings)), ("failures", failures), ("skipped", skipped)):
        suite.set(key, str(count))
    for finding in found.findings:
        name = " ".join(text for text in (finding.metric or "whole row", finding.estimator, finding.extractor) if text)
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
        f"::error title={_escaped(one_line(f'{finding.row}: {label(finding)} is {finding.verdict}'), True)}::"
        f"{_escaped(sentence(finding))}"
        for finding in sorted_findings(found.findings)
        if finding.fails
    ]
    unlike = [finding for finding in found.findings if finding.verdict == "not comparable" and not finding.by_nature]
    if unlike:
        told = f"{len(unlike)} values cannot be compared with the baseline, the first: {sentence(unlike[0])}"
        lines.append(f"::warning title=genbench check::{_escaped(told)}")
    return lines


def _escaped(text: str, in_property: bool = False) -> str:
    """Text of a workflow command: its own marks are percent-encoded."""
    marks: Sequence[tuple[str, str]] = [("%", "%25"), ("\r", "%0D"), ("\n", "%0A")]
    for mark, code in (*marks, *([(":", "%3A"), (",", "%2C")] if in_property else [])):
        text = text.replace(mark, code)
    return text
