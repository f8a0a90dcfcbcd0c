"""The audit of the metrics: which control row each metric caught.

The controls are known cheats, so a metric is tested by them. It catches a control when the control's value is worse
than the test split's own beyond both intervals (`ranking.is_worse`); the test split is as good as samples can be.
`memorised_share` is held against the share that the test split's distances lead one to expect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from genbench.record import MetricResult, Record
from genbench.report.names import DASH
from genbench.report.ranking import exceeds_expected, is_worse
from genbench.report.tables import CEILING, Column, columns, value_text

Verdict = Literal["caught", "missed", "blind", "unknown"]

DESCRIPTIONS = {
    "memoriser": "replays training images",
    "gaussian": "samples one Gaussian over all pixels",
    "mode_dropper": "leaves out half of the classes",
    "noise": "draws uniform noise",
    "independent_pixels": "draws every pixel on its own",
}
EXPECTED = {
    "memoriser": {"memorised_share", "nearest_train_distance"},
    "gaussian": {"fid", "kid"},
    "mode_dropper": {"fid", "kid", "recall", "coverage"},
    "noise": {"fid", "kid", "precision", "density", "clip_score"},
    "independent_pixels": {"fid", "kid", "precision", "density", "clip_score"},
}
"""What a metric has to catch to be believed; anything else that it catches is a gift."""


@dataclass(frozen=True)
class Finding:
    """One control under one metric. missed: not caught though it had to be; blind: not caught, nor bound to be."""

    verdict: Verdict
    text: str
    title: str


@dataclass(frozen=True)
class ControlAudit:
    """A control with its findings, in order of the audit's columns, and a sentence on them."""

    name: str
    description: str
    findings: list[Finding]
    sentence: str


@dataclass(frozen=True)
class Audit:
    """The matrix controls x metrics. ceiling: the test split's values as text. missed: expected catches not made."""

    columns: list[Column]
    ceiling: list[str]
    controls: list[ControlAudit]
    missed: list[str]
    made: int
    """Number of expected catches that were made."""
    untested: list[str]
    """Metrics that had to catch some control but have no value to do so."""
    toothless: list[str]
    """Metrics that caught no control at all."""

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """(what speaks against metrics, which), those that there are."""
        found = [
            ("Expected catches that were missed", "; ".join(self.missed)),
            ("Not fully tested, for want of values", ", ".join(self.untested)),
            ("Caught no control at all", ", ".join(self.toothless)),
        ]
        return [(told, what) for told, what in found if what]


def catches(control: MetricResult, ceiling: MetricResult | None) -> bool | None:
    """Whether the metric tells the control from honest samples; None where it has nothing to say."""
    if control.value is None:
        return None
    exceeds = exceeds_expected(control) if control.name == "memorised_share" else None
    if exceeds is not None:
        return exceeds
    if ceiling is None or ceiling.value is None or ceiling.comparable != control.comparable:
        return None
    return is_worse(control, ceiling)


def audit(records: Sequence[Record], names: Sequence[str]) -> Audit | None:
    """The audit over the controls of ``records``, or None where there is no control besides the test split."""
    labelled = {id(record): name for record, name in zip(records, names, strict=True)}
    ok = [record for record in records if record.control and record.status == "ok"]
    ceiling = next((record for record in ok if record.model == CEILING), None)
    controls = [record for record in ok if record.model != CEILING]
    shown = [
        column
        for column in columns(controls)
        if column.group == "quality" and any(_verdict(c, column, ceiling) != "unknown" for c in controls)
    ]
    if not controls or not shown:
        return None
    audited = [_audit_control(control, labelled[id(control)], shown, ceiling) for control in controls]
    missed = [
        f"{column.title} did not catch {control.name}"
        for control in audited
        for column, finding in zip(shown, control.findings)
        if finding.verdict == "missed"
    ]
    toothless = [
        column.title
        for i, column in enumerate(shown)
        if not any(control.findings[i].verdict == "caught" for control in audited)
    ]
    expected = [
        (c, column) for c in controls for column in columns(controls) if column.name in EXPECTED.get(c.model, ())
    ]
    verdicts = [(column, _verdict(c, column, ceiling)) for c, column in expected]
    made = sum(verdict == "caught" for _, verdict in verdicts)
    untested = list(dict.fromkeys(column.title for column, verdict in verdicts if verdict == "unknown"))
    return Audit(shown, [_value(ceiling, c) for c in shown], audited, missed, made, untested, toothless)


def _verdict(control: Record, column: Column, ceiling: Record | None) -> Verdict:
    metric = column.of(control)
    caught = None if metric is None else catches(metric, None if ceiling is None else column.of(ceiling))
    if caught is None:
        return "unknown"
    if caught:
        return "caught"
    return "missed" if column.name in EXPECTED.get(control.model, set()) else "blind"


def _audit_control(control: Record, name: str, shown: Sequence[Column], ceiling: Record | None) -> ControlAudit:
    findings = []
    for column in shown:
        verdict = _verdict(control, column, ceiling)
        text = _value(control, column)
        findings.append(Finding(verdict, text, f"{name}: {column.title} {text}, {WORDS[verdict]}"))
    description = DESCRIPTIONS.get(control.model, "")
    return ControlAudit(name, description, findings, _sentence(shown, findings))


WORDS: dict[Verdict, str] = {
    "caught": "caught",
    "missed": "missed",
    "blind": "not caught",
    "unknown": "not measured",
}


def _value(record: Record | None, column: Column) -> str:
    metric = None if record is None else column.of(record)
    return DASH if metric is None or metric.value is None else value_text(metric)


def _sentence(shown: Sequence[Column], findings: Sequence[Finding]) -> str:
    caught = [column.label for column, f in zip(shown, findings) if f.verdict == "caught"]
    fooled = [column.label for column, f in zip(shown, findings) if f.verdict in ("missed", "blind")]
    if not caught:
        return f"No metric caught it: {listing(fooled)} cannot tell it from the test split."
    if not fooled:
        return f"Every metric caught it: {listing(caught)}."
    verb = "finds" if len(fooled) == 1 else "find"
    return f"Caught by {listing(caught)}; {listing(fooled)} {verb} nothing wrong with it."


def listing(names: Sequence[str]) -> str:
    """``"a, b and c"``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "nothing"
