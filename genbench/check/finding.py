"""What a check finds: one verdict a row and metric, and what was asked of the check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from genbench.check.tolerance import DEFAULT_TOLERANCES, Tolerance

Verdict = Literal["better", "same", "worse", "missing", "not comparable"]


@dataclass(frozen=True)
class Finding:
    """What is found of one metric of one row; of a whole row where ``metric`` is "".

    baseline, candidate: values, means over seeds. change: the difference, with its 95 % interval. p: one-sided and
    adjusted, of being worse, or of being better where that is the verdict. reason: one sentence. by_nature: not
    comparable because nothing of its kind is (no interval, no direction), however both records were made.
    """

    row: str
    metric: str
    verdict: Verdict
    reason: str
    estimator: str = ""
    extractor: str | None = None
    baseline: float | None = None
    candidate: float | None = None
    change: float | None = None
    ci95: tuple[float, float] | None = None
    p: float | None = None
    by_nature: bool = False

    @property
    def fails(self) -> bool:
        """Whether it fails the check."""
        return self.verdict in ("worse", "missing")


@dataclass(frozen=True)
class Options:
    """Which rows and metrics are judged, and how strictly. Empty: all of the baseline's."""

    alpha: float = 0.01
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    models: Sequence[str] = ()
    metrics: Sequence[str] = ()

    def tolerance(self, metric: str) -> Tolerance:
        """The one asked for, else the default one."""
        return self.tolerances.get(metric, DEFAULT_TOLERANCES.get(metric, Tolerance()))

    def asks(self, row: str) -> bool:
        """Whether a row (``model`` or ``model@variant``) is asked for, by its own name as in ``genbench run``."""
        return not self.models or row in self.models


@dataclass(frozen=True)
class Verdicts:
    """All findings of a check.

    new: rows of the candidate that the baseline does not have. aside: the baseline's rows that were not asked for,
    though another row of their model was.
    """

    suite: str
    findings: tuple[Finding, ...]
    new: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether there is a regression, or something is missing."""
        return any(finding.fails for finding in self.findings)

    def count(self, verdict: Verdict) -> int:
        """Number of findings of a verdict."""
        return sum(finding.verdict == verdict for finding in self.findings)
