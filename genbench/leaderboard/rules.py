"""What a record must state to become a row. Everything that is wrong is said at once, each with how to mend it."""

from __future__ import annotations

from collections.abc import Sequence

from genbench.check.collect import Entry
from genbench.errors import GenbenchError
from genbench.leaderboard.arithmetic import contradictions
from genbench.leaderboard.likeness import unlike_rows
from genbench.leaderboard.scores import faults_of_scores
from genbench.leaderboard.statements import QUALITIES, statements, unfit_for_print
from genbench.record import Record
from genbench.report.names import metric_name
from genbench.suite import Suite, load_suite

__all__ = ["QUALITIES", "problems", "unfit_for_print"]


def problems(entry: Entry, suite: str, others: Sequence[Entry]) -> list[str]:
    """Everything that keeps a record, whose scores were read and have the hash that it states, from being a row.

    Args:
        suite: of the leaderboard.
        others: the records that are there, without one that this one replaces.
    """
    record = entry.record
    if record.suite != suite:
        return [f"it is a record of suite '{record.suite}', not '{suite}'. Add it to leaderboards/{record.suite}."]
    if record.status != "ok":
        return [f"the row failed: {record.reason}. Mend the model and run the suite again."]
    unfit = unfit_for_print(record)
    if unfit:
        return [unfit]
    packaged = _packaged(suite)
    return [
        *([] if packaged is None else _parts_of_suite(record, packaged)),
        *statements(record),
        *contradictions(record),
        *faults_of_scores(entry, others),
        *unlike_rows(entry, packaged, others),
    ]


def _packaged(name: str) -> Suite | None:
    """The packaged suite of this name; None where there is none."""
    try:
        return load_suite(name)
    except GenbenchError:
        return None


def _parts_of_suite(record: Record, suite: Suite) -> list[str]:
    """Metrics that a suite asks for and the record lacks, and features that are not the suite's."""
    again = f"Run `genbench run --suite {record.suite}` with this version of genbench."
    present = {metric.name for metric in record.metrics}
    asked = [name for name in suite.metrics if metric_name(name).group in QUALITIES]
    missing = [name for name in asked if name not in present]
    found = [f"metrics of the suite are missing: {', '.join(missing)}. {again}"] if missing else []
    known = _extractors(suite)
    foreign = sorted({m.extractor for m in record.metrics if m.extractor and m.extractor not in known})
    if foreign:
        found.append(f"features of {', '.join(foreign)}; this suite's are of {' or '.join(sorted(known))}. {again}")
    return found


def _extractors(suite: Suite) -> set[str]:
    texts = suite.image_text.partition(":")[0] if suite.image_text else None
    return {name for name in (suite.extractor, suite.fallback_extractor, texts) if name}
