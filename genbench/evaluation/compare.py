"""`genbench compare`: two results or records, metric by metric, with the interval of each difference.

Where both have a score for each of the same things (reference images, prompts, test images), the difference is the mean
of paired differences with a Student t interval: what makes an image hard is in both and cancels. Elsewhere both values
count as independent, with the interval from both standard errors. A metric whose ``comparable`` is unlike is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genbench.errors import DataError, UsageError, unknown
from genbench.evaluation.result import EvalResult, read_result, read_scores
from genbench.evaluation.uncertainty import (
    Difference,
    metric_half_widths,
    shared_error,
    unpaired_difference,
    widened,
)
from genbench.metrics.statistics import student_below, student_quantile
from genbench.record import REPEATED, MetricResult, Record, read_record

Verdict = Literal["better", "worse", "same within noise", "different", "equal", "no interval", "not comparable"]
"""What B is, seen from A. "different" where no direction is better, "equal" of values that are known exactly."""

_MEAN_TOLERANCE = 1e-6
_MUST_AGREE = {"estimator", "extractor", "kind", "unit", "higher_is_better", "n"}


@dataclass(frozen=True)
class Measured:
    """One side of a comparison: what a result or a record says.

    label: for messages and tables. scores: (n,) by ``METRIC.ESTIMATOR``. images: fingerprint of the reference or data
    set whose images the scores belong to, None where it is not known. complete: False where unreadable samples were
    left out.
    """

    label: str
    metrics: Sequence[MetricResult]
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    images: str | None = None
    complete: bool = True

    def things_scored(self, metric: MetricResult) -> str | None:
        """Fingerprint of what the scores of a metric belong to one by one, or None where it is not known."""
        if metric.provenance.get("paired_by") == "prompt":
            found = metric.comparable.get("prompts_fingerprint")
            return found if isinstance(found, str) else None
        return self.images


@dataclass(frozen=True)
class Row:
    """One metric of both sides. refused: why no difference is given, else None."""

    name: str
    estimator: str
    extractor: str | None
    higher_is_better: bool | None
    a: MetricResult | None
    b: MetricResult | None
    verdict: Verdict = "not comparable"
    difference: Difference | None = None
    refused: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two sides and their metrics, in the order of A."""

    a: str
    b: str
    rows: tuple[Row, ...]

    @property
    def comparable(self) -> tuple[Row, ...]:
        """Rows that have a difference."""
        return tuple(row for row in self.rows if row.refused is None)

    def as_dict(self) -> dict[str, Any]:
        """All numbers as JSON; none of them is NaN or infinite."""
        return {"a": self.a, "b": self.b, "rows": [_row_as_dict(row) for row in self.rows]}


def load_measured(path: Path) -> Measured:
    """Read an evaluation's result or a run's record, with its per-image scores.

    Raises:
        DataError: neither of them, damaged, or the record of a row that failed.
    """
    path = Path(path)
    if "suite" not in _json_object(path):
        return of_result(read_result(path))
    record = read_record(path)
    if record.status != "ok":
        raise DataError(f"{path}: the row {record.row} failed ({record.reason}); there is nothing to compare.")
    return of_record(record, read_scores(path.parent, record.per_image))


def of_result(result: EvalResult) -> Measured:
    """The result of an evaluation as one side."""
    images = None if result.reference.skipped else result.reference.fingerprint
    return Measured(result.samples.name, result.metrics, result.scores, images, not result.samples.skipped)


def of_record(record: Record, scores: Mapping[str, np.ndarray]) -> Measured:
    """A run's record as one side."""
    return Measured(f"{record.row} (seed {record.seed})", record.metrics, scores, record.dataset.fingerprint)


def compare(
    a: Measured, b: Measured, metrics: Sequence[str] | None = None, *, tolerance_free: bool = False
) -> Comparison:
    """Compare all metrics of two sides, or the named ones.

    tolerance_free: any difference of the values counts, whatever their intervals; for checks of reproducibility.

    Raises:
        UsageError: a metric that neither side has, or no metric that can be compared (names the first difference).
    """
    known = list(dict.fromkeys(metric.name for metric in (*a.metrics, *b.metrics)))
    for name in metrics or ():
        if name not in known:
            raise unknown("metric of both files", name, known)
    rows = []
    for mine, other in _matched(a.metrics, b.metrics):
        either = mine or other
        assert either is not None
        if metrics is None or either.name in metrics:
            rows.append(_row(a, b, mine, other, tolerance_free))
    found = Comparison(a.label, b.label, tuple(rows))
    if not found.comparable:
        reasons = [f"{row.name}: {row.refused}" for row in rows]
        first = reasons[0] if reasons else "neither has a metric"
        raise UsageError(
            f"Nothing in {a.label} and {b.label} can be compared. {first}"
            + (f" (and {len(reasons) - 1} more)." if len(reasons) > 1 else ".")
            + " Evaluate both in the same way: protocol, extractor, reference and number of samples."
        )
    return found


def first_difference(a: Any, b: Any, where: str = "") -> str | None:
    """The first field in which two ``comparable`` differ, spelled out ("options.k: 3 against 5"), or None."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys((*a, *b)):
            path = f"{where}.{key}" if where else str(key)
            if (key in a) != (key in b):
                left, right = (_spelled(side[key]) if key in side else "nothing" for side in (a, b))
                return f"{path}: {left} against {right}"
            found = first_difference(a[key], b[key], path)
            if found is not None:
                return found
        return None
    if json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True):
        return None
    return f"{where}: {_spelled(a)} against {_spelled(b)}"


def paired_difference(a: np.ndarray, b: np.ndarray, things: str) -> Difference:
    """Mean of b - a over scores (n,) of the same things, with the Student t interval and test; finite, n >= 2."""
    differences = b - a
    n = len(differences)
    mean, error = float(differences.mean()), float(differences.std(ddof=1)) / math.sqrt(n)
    half = student_quantile(n - 1) * error
    p = 2 * student_below(-abs(mean) / error, n - 1) if error > 0 else float(mean == 0)
    return Difference(mean, (mean - half, mean + half), p, f"paired over {n} {things}s", n)


def _json_object(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: not readable as JSON ({error}). Give a result of `genbench eval --json` or a record."
        ) from None
    if not isinstance(value, dict) or "metrics" not in value:
        raise DataError(f"{path}: neither a result of `genbench eval --json` nor the record of a run.")
    return value


def _matched(
    a: Sequence[MetricResult], b: Sequence[MetricResult]
) -> list[tuple[MetricResult | None, MetricResult | None]]:
    """Pairs of equal (name, estimator, extractor); what is left over pairs by name, to say in what it differs."""
    partner: dict[int, MetricResult] = {}
    left = list(b)
    for same in (_identity, lambda metric: (metric.name, metric.extractor), lambda metric: metric.name):
        for position, metric in enumerate(a):
            found = next((other for other in left if same(other) == same(metric)), None)
            if position not in partner and found is not None:
                partner[position] = found
                left.remove(found)
    return [(metric, partner.get(position)) for position, metric in enumerate(a)] + [(None, other) for other in left]


def _identity(metric: MetricResult) -> tuple[str, str, str | None]:
    return metric.name, metric.estimator, metric.extractor


def _row(a: Measured, b: Measured, mine: MetricResult | None, other: MetricResult | None, tolerance_free: bool) -> Row:
    either = mine or other
    assert either is not None
    row = Row(*_identity(either), either.higher_is_better, mine, other)
    refused = _refusal(a, b, mine, other)
    if refused is not None:
        return replace(row, refused=refused)
    assert mine is not None and other is not None and mine.value is not None and other.value is not None
    if tolerance_free:
        difference = Difference(other.value - mine.value, method="values as they are")
        return replace(row, difference=difference, verdict=_of_sign(difference.value, row.higher_is_better))
    difference, notes = pair_difference(a, b, mine, other)
    return replace(row, difference=difference, verdict=_verdict(difference, mine, other), notes=notes)


def _refusal(a: Measured, b: Measured, mine: MetricResult | None, other: MetricResult | None) -> str | None:
    for side, metric in ((a, mine), (b, other)):
        if metric is None:
            return f"{side.label} does not have it"
        if metric.status != "ok":
            return f"{side.label}: {metric.status.replace('_', ' ')}: {metric.reason}"
    assert mine is not None and other is not None
    found = first_difference(mine.measured_as, other.measured_as)
    if found is not None:
        return found
    named = _MUST_AGREE - {"n"} if mine.name in REPEATED else _MUST_AGREE
    return first_difference(mine.model_dump(include=named), other.model_dump(include=named))


def pair_difference(
    a: Measured, b: Measured, mine: MetricResult, other: MetricResult
) -> tuple[Difference, tuple[str, ...]]:
    """B - A of one metric that is measured alike in both and has a value in both; with notes for the reader."""
    notes: tuple[str, ...] = (
        () if mine.kind in ("exact", "estimate") else (f"both values are {mine.kind.replace('_', ' ')}s",)
    )
    paired, note = _paired(a, b, mine, other)
    notes += (note,) if note else ()
    if paired is not None:
        return paired, notes
    assert mine.value is not None and other.value is not None
    around_a, around_b = metric_half_widths(mine), metric_half_widths(other)
    if around_a is None or around_b is None:
        return Difference(other.value - mine.value, method="no interval of one of the values"), notes
    if mine.kind == other.kind == "exact" and around_a.above == around_b.above == 0:
        return Difference(other.value - mine.value, method="exact values"), notes
    found = unpaired_difference(mine.value, other.value, around_a, around_b)
    normal = all(around.below == around.above for around in (around_a, around_b))
    return replace(found, method=f"from both {'standard errors' if normal else 'intervals'}"), notes


def _paired(a: Measured, b: Measured, mine: MetricResult, other: MetricResult) -> tuple[Difference | None, str | None]:
    """The paired difference, or None with the reason where scores are there and cannot be paired."""
    things = mine.provenance.get("paired_by")
    key = f"{mine.name}.{mine.estimator}"
    if not things or things != other.provenance.get("paired_by") or key not in a.scores or key not in b.scores:
        return None, None
    x, y = (np.asarray(side.scores[key], dtype=np.float64) for side in (a, b))
    scored = a.things_scored(mine)
    if x.shape != y.shape or x.ndim != 1 or scored is None or scored != b.things_scored(other):
        return None, f"not paired: the {things}s are not known to be the same"
    if not (a.complete and b.complete):
        return None, "not paired: unreadable images were left out"
    if not (_is_mean(mine, x) and _is_mean(other, y)):
        return None, "not paired: the value is not the mean of the per-image scores"
    finite = np.isfinite(x) & np.isfinite(y)
    if finite.sum() < 2:
        return None, f"not paired: fewer than two {things}s with finite scores in both"
    note = None
    if not finite.all():
        infinite = [int((~np.isfinite(scores)).sum()) for scores in (x, y)]
        note = (
            f"difference over {finite.sum()} of {len(x)} {things}s: not finite in A {infinite[0]}, in B {infinite[1]}"
        )
    found = paired_difference(x[finite], y[finite], things)
    return widened(found, math.hypot(shared_error(mine), shared_error(other))), note


def _is_mean(metric: MetricResult, scores: np.ndarray) -> bool:
    finite = scores[np.isfinite(scores)]
    assert metric.value is not None
    return len(finite) > 0 and abs(float(finite.mean()) - metric.value) <= _MEAN_TOLERANCE * max(1.0, abs(metric.value))


def _verdict(difference: Difference, mine: MetricResult, other: MetricResult) -> Verdict:
    if difference.ci95 is None:
        exact = mine.kind == other.kind == "exact"
        return _of_sign(difference.value, mine.higher_is_better) if exact else "no interval"
    low, high = difference.ci95
    return "same within noise" if low <= 0 <= high else _of_sign(difference.value, mine.higher_is_better)


def _of_sign(difference: float, higher_is_better: bool | None) -> Verdict:
    if difference == 0:
        return "equal"
    if higher_is_better is None:
        return "different"
    return "better" if (difference > 0) == higher_is_better else "worse"


def _spelled(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:28]}...{text[-9:]}"


def _row_as_dict(row: Row) -> dict[str, Any]:
    sides = {
        key: None if metric is None else {"value": metric.value, "ci95": metric.ci95, "n": metric.n}
        for key, metric in (("a", row.a), ("b", row.b))
    }
    found = row.difference
    return {
        "name": row.name,
        "estimator": row.estimator,
        "extractor": row.extractor,
        "higher_is_better": row.higher_is_better,
        **sides,
        "difference": found and found.value,
        "ci95": found and found.ci95,
        "p": found and found.p,
        "method": found and found.method,
        "paired_n": found and found.paired_n,
        "verdict": row.verdict,
        "refused": row.refused,
        "notes": list(row.notes),
    }
