"""A metric over commits, from folders of dated records: one series a row, cut where it changed by more than its noise.

A point is a commit: its records' seeds are pooled. Points that were measured in unlike ways are never held against each
other, so that another extractor, number of samples or device is no step of a model. Steps: `steps`.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from genbench.check.collect import LEADERBOARD, record_files
from genbench.errors import DataError, UsageError, unknown
from genbench.evaluation.compare import first_difference
from genbench.evaluation.uncertainty import metric_half_widths
from genbench.record import MetricResult, Record, read_record
from genbench.report.names import display, metric_name
from genbench.report.seeds import Pooled, pool
from genbench.report.series.data import History, Point, Series, Step
from genbench.report.series.steps import Segment, find_steps
from genbench.report.series.text import apart_text, joined_labels, step_text, unlike_text, verdict_of
from genbench.report.sources import name_and_path

HISTORY = (
    "A history is a folder with one folder of records for each commit or date, FOLDER/2026-11-01/records/*.json, or "
    "several such folders: keep the records of each run of `genbench run` in one of its own."
)
_OF_A_RUN = {"checkpoints", "stages", "samples", "gallery", "data", "report"}
_HASH = re.compile(r"[0-9a-f]{12,64}")
_ANY_DEVICE = {"parameters", "evaluations_per_image"}


@dataclass(frozen=True)
class _Place:
    """A source. name: what it was called, empty without a name. path: a folder, or one record."""

    name: str
    path: Path

    def point(self, inner: str) -> str:
        """Name of a point of this source that has no commit."""
        return f"{self.name}/{inner}" if self.name else inner


@dataclass
class _Commit:
    """Records of one point; known by ``key``."""

    key: tuple[str, ...]
    name: str
    commit: str | None
    created: datetime
    records: list[Record] = field(default_factory=list)
    label: str = ""


def read_series(
    sources: Sequence[str | Path], metric: str, *, rows: Sequence[str] | None = None, alpha: float = 0.01
) -> History:
    """The series of ``metric`` in all suites and rows (models first, then controls), from folders of dated records.

    A point is one ``environment.commit``; of records without one it is the subfolder of the source that they lie in,
    and of records that lie in the source itself the time of their making. Points are in order of their first record.

    Args:
        sources: folders with records at any depth, single records, baselines or ``leaderboard:SUITE``; as
            ``NAME=SOURCE`` the points that have no commit are called by the name.
        metric: ``name``, or ``name.estimator`` for one of its estimators.
        rows: the wanted models or rows (a model is all its rows), by default all.
        alpha: share of series without a step that may show one (see `find_steps`).

    Raises:
        UsageError: no such folder, no records, an unknown metric or row, or fewer than two points.
    """
    notes: list[str] = []
    told = ", ".join(map(str, sources)) or "no folder given"
    commits = _commits(sources, notes)
    if not commits:
        raise UsageError(f"{told}: no records there. {HISTORY} {' '.join(notes)}".strip())
    records = [record for commit in commits for record in commit.records]
    known_rows = list(dict.fromkeys(record.row for record in records))
    for row in rows or ():
        if row not in known_rows and row not in {known.split("@")[0] for known in known_rows}:
            raise unknown("model of the report", row, known_rows)
    if len(commits) < 2:
        raise UsageError(f"{told}: one point ({commits[0].label}), a series needs two. {HISTORY}")
    wanted = _estimators(records, metric)
    found = []
    for suite, row, model in dict.fromkeys((record.suite, record.row, record.model) for record in records):
        if rows is None or {row, model} & set(rows):
            of_row = [(commit, [r for r in commit.records if (r.suite, r.row) == (suite, row)]) for commit in commits]
            of_one = _of_row([(c, r) for c, r in of_row if r or _had_suite(c, suite)], wanted, alpha)
            found += of_one
            notes += [] if of_one else [f"{row} of suite '{suite}' has no value of {metric} at any point."]
    if not found:
        raise UsageError(f"{told}: no row has a value of '{metric}' at any point.")
    return History(metric, alpha, len(commits), tuple(sorted(found, key=lambda one: one.control)), tuple(notes))


def _had_suite(commit: _Commit, suite: str) -> bool:
    """Whether a row without a record is missing there; records by their time alone do not tell."""
    return commit.key[0] != "created" and any(record.suite == suite for record in commit.records)


def _estimators(records: Sequence[Record], metric: str) -> set[tuple[str, str]]:
    """(name, estimator) of what ``metric`` asks for."""
    pairs = {(m.name, m.estimator) for record in records for m in record.metrics}
    by_name = {pair for pair in pairs if pair[0] == metric}
    found = by_name or {pair for pair in pairs if f"{pair[0]}.{pair[1]}" == metric}
    if not found:
        names = {name for name, _ in pairs}
        with_estimator = {f"{name}.{estimator}" for name, estimator in pairs if estimator}
        raise unknown("metric of these records", metric, with_estimator if "." in metric else names)
    return found


def _commits(sources: Sequence[str | Path], notes: list[str]) -> list[_Commit]:
    """The points, in order, with one record for each row and seed."""
    found: dict[tuple[str, ...], _Commit] = {}
    places = _places(sources)
    files = {path: place for place in reversed(places) for path in _files(place.path)}
    for path, place in sorted(files.items(), key=lambda one: one[0]):
        if (record := _record(path, place.path, notes)) is None:
            continue
        created = _time(record)
        key, name, commit = _key(record, path, place)
        point = found.setdefault(key, _Commit(key, name, commit, created))
        point.created = min(point.created, created)
        point.records.append(record)
    commits = sorted(found.values(), key=lambda one: (one.created, one.key))
    _label(commits)
    for point in commits:
        point.records = _without_duplicates(point, notes)
    return commits


def _places(sources: Sequence[str | Path]) -> list[_Place]:
    """Where the sources are, called as in any report.

    Raises:
        UsageError: no such leaderboard, or two sources of one name.
    """
    places: list[_Place] = []
    for name, path in (name_and_path(str(given)) for given in sources):
        if name and name in (place.name for place in places):
            raise UsageError(f"Two sources are called '{name}'. Name them apart: NAME=PATH.")
        if path.startswith(LEADERBOARD):
            places.append(_Place(name or path, record_files(path)[0].parent.parent))
        else:
            found = Path(path)
            places.append(_Place(name, found.parent if found.name == "baseline.json" and found.is_file() else found))
    return places


def _files(source: Path) -> list[Path]:
    """JSON files below ``source``, but for the folders that a run keeps beside its records."""
    if source.is_file():
        return [source.resolve()]
    if not source.is_dir():
        raise UsageError(f"{source}: no such folder. {HISTORY}")
    found = []
    for folder, inner, files in os.walk(source.resolve()):
        of_a_run = "records" in inner or "run.json" in files
        inner[:] = sorted(n for n in inner if not n.startswith(".") and not (of_a_run and n in _OF_A_RUN))
        found += [
            Path(folder) / n for n in sorted(files) if n.endswith(".json") and n not in ("run.json", "baseline.json")
        ]
    return found


def _record(path: Path, source: Path, notes: list[str]) -> Record | None:
    """The record in a file; None, and a note, where it is damaged or says no time that can be read."""
    shown = path.name if source.is_file() else str(path.relative_to(source.resolve()))
    try:
        record = read_record(path)
        _time(record)
        return record
    except DataError as error:
        if path.parent.name == "records" or not _is_other_json(path):
            notes.append(f"Left out: {str(error).replace(str(path), shown, 1)}")
    except (ValueError, OverflowError):
        notes.append(f"Left out: {shown}: 'created' is '{record.created}', not a time in ISO 8601.")
    return None


def _time(record: Record) -> datetime:
    """When a record was made; of a time without a zone UTC is taken."""
    created = datetime.fromisoformat(record.created)
    return created.replace(tzinfo=created.tzinfo or UTC).astimezone(UTC)


def _is_other_json(path: Path) -> bool:
    """Whether a file can be read and holds nothing of a record."""
    try:
        return b'"schema_version"' not in path.read_bytes()
    except OSError:
        return False


def _key(record: Record, path: Path, place: _Place) -> tuple[tuple[str, ...], str, str | None]:
    """What a record's point is known by, its name, and its commit."""
    commit = record.environment.get("commit")
    if isinstance(commit, str) and commit.strip():
        commit = commit.strip()
        dirty = record.environment.get("commit_dirty") is True
        return ("commit", commit, str(dirty)), commit + ("-dirty" if dirty else ""), commit
    home = place.path.resolve()
    inner = path.relative_to(home).parts[:-1] if home.is_dir() else ()
    if inner and inner != ("records",):
        return ("folder", str(home / inner[0])), place.point(inner[0]), None
    if path.parent.name == "records":
        run = path.parent.parent
        return ("folder", str(run)), place.name or run.name, None
    return ("created", record.created), place.point(record.created.split("+")[0]), None


def _label(commits: Sequence[_Commit]) -> None:
    """Short names that tell the points apart: seven digits of a hash, or more where that is not enough."""
    hashes = {one.commit for one in commits if one.commit and _HASH.fullmatch(one.commit)}
    length = next(n for n in (7, 12, 64) if len({digits[:n] for digits in hashes}) == len(hashes))
    for one in commits:
        one.label = one.name.replace(one.commit, one.commit[:length], 1) if one.commit in hashes else one.name
    taken: set[str] = set()
    for one in commits:
        name = one.label
        names = (f"{name} ({n + 1})" if n else name for n in range(len(commits)))
        one.label = next(found for found in names if found not in taken)
        taken.add(one.label)


def _without_duplicates(commit: _Commit, notes: list[str]) -> list[Record]:
    """The last record made of each row and seed."""
    latest: dict[tuple[str, str, int], Record] = {}
    for record in sorted(commit.records, key=_time):
        key = (record.suite, record.row, record.seed)
        if key in latest:
            notes.append(
                f"{commit.label} has {record.row} with seed {record.seed} of suite '{record.suite}' more than once: "
                f"that of {record.created} counts, not that of {latest[key].created}."
            )
        latest[key] = record
    return sorted(latest.values(), key=lambda one: one.seed)


def _of_row(row: Sequence[tuple[_Commit, list[Record]]], wanted: set[tuple[str, str]], alpha: float) -> list[Series]:
    """One series for each (extractor, estimator) of which the row has a value."""
    identities = dict.fromkeys(
        (m.name, m.extractor, m.estimator)
        for _, records in row
        for record in records
        if record.status == "ok"
        for m in record.metrics
        if (m.name, m.estimator) in wanted and m.value is not None
    )
    several = len({estimator for _, _, estimator in identities}) > 1
    found = []
    for name, extractor, estimator in identities:
        title = display(name, extractor) + (f", {estimator}" if several else "")
        found.append(_series([_measure(c, r, (name, extractor, estimator)) for c, r in row], title, alpha))
    return found


@dataclass(frozen=True)
class _Measured:
    """A point with what it was made of. own: standard error of a seed's value. identity: how it was measured."""

    point: Point
    record: Record | None
    pooled: Pooled | None
    own: float = 0.0
    identity: dict[str, Any] = field(default_factory=dict)


def _measure(commit: _Commit, records: list[Record], identity: tuple[str, str | None, str]) -> _Measured:
    name, extractor, _ = identity
    point = Point(commit.label, commit.commit, commit.created.isoformat(timespec="seconds"), None)
    only = [_only(record, identity) for record in records]
    pooled = pool(only, name, extractor)
    if pooled is None or pooled.metric.value is None:
        absent = f"its records do not have {name} of this kind" if records else "no record of this row"
        point = replace(point, reason=absent if pooled is None else pooled.metric.reason)
        return _Measured(point, records[0] if records else None, None)
    metric = pooled.metric
    seeds = tuple(seed for seed, value in pooled.values.items() if value is not None)
    used = [record for record in only if record.seed in seeds]
    around = [metric_half_widths(m) for record in used for m in record.metrics]
    own = math.sqrt(float(np.mean([0.0 if one is None else one.standard_error**2 for one in around])))
    point = replace(point, value=metric.value, ci95=metric.ci95, seeds=seeds)
    return _Measured(point, used[0], pooled, own, _measured_how(metric, used[0]))


def _only(record: Record, identity: tuple[str, str | None, str]) -> Record:
    """The record with one metric; that of its name that has no value stands for it, with the reason."""
    exact = [m for m in record.metrics if (m.name, m.extractor, m.estimator) == identity]
    absent = [m for m in record.metrics if m.name == identity[0] and m.value is None and not m.estimator]
    stand_in = [m.model_copy(update={"extractor": identity[1]}) for m in absent[:1]]
    return record.model_copy(update={"metrics": exact or stand_in})


def _measured_how(metric: MetricResult, record: Record) -> dict[str, Any]:
    """What must be equal to hold two values against each other; of speed and memory the device is in it."""
    group = metric_name(metric.name).group
    how: dict[str, Any] = metric.measured_as | ({"kind": metric.kind} if group == "likelihood" else {})
    if group == "cost" and metric.name not in _ANY_DEVICE and "device" not in how:
        how["device"] = record.timing.device if record.timing else record.environment.get("device")
    return how


def _series(found: list[_Measured], title: str, alpha: float) -> Series:
    first = next(i for i, one in enumerate(found) if one.record is not None)
    found = found[first:]
    last = [one for one in found if one.pooled is not None][-1]
    assert last.record is not None and last.pooled is not None
    ways = [last.identity]
    points = []
    for one in found:
        if one.pooled is not None and one.identity not in ways:
            ways.append(one.identity)
        points.append(one.point if one.pooled is None else replace(one.point, measured=ways.index(one.identity)))
    groups = [[i for i, p in enumerate(points) if p.value is not None and p.measured == g] for g in range(len(ways))]
    testable = sum(len(group) > 2 for group in groups)
    row = last.record
    notes = tuple(_notes(found, points, ways, groups))
    shell = Series(row.suite, row.row, title, last.pooled.metric, tuple(points), (), (), notes, row.family, row.control)
    for group in groups:
        shell = _with_steps(shell, group, [found[i] for i in group], alpha / max(1, testable))
    by_place = sorted(shell.segments, key=lambda s: s.first), sorted(shell.steps, key=lambda s: s.index)
    return replace(shell, segments=tuple(by_place[0]), steps=tuple(by_place[1]))


def _with_steps(series: Series, group: Sequence[int], found: Sequence[_Measured], alpha: float) -> Series:
    """``series`` with the steps among the points ``group``, which were measured alike."""
    values = [float(series.points[i].value or 0.0) for i in group]
    metrics = [one.pooled.metric for one in found if one.pooled is not None]
    exact = all(m.kind == "exact" and m.ci95 is None and metric_name(m.name).group != "likelihood" for m in metrics)
    cut = find_steps(values, _errors(found), alpha=alpha, exact=exact)
    segments = [Segment(group[s.first], group[s.last], s.mean) for s in cut.segments]
    steps = []
    for shift in cut.steps:
        place = series.points[group[shift.index]].label, series.points[group[shift.index - 1]].label
        verdict = verdict_of(series.metric, shift.change)
        text = step_text(series.metric, series.row, series.control, shift, place)
        steps.append(Step(group[shift.index], *place, shift.change, shift.ci95, shift.p, verdict, text))
    apart = [apart_text(series.points[group[k]].label, series.metric, values[k]) for k in cut.apart]
    added = (*series.segments, *segments), (*series.steps, *steps), (*series.notes, *apart)
    return replace(series, segments=added[0], steps=added[1], notes=added[2])


def _errors(found: Sequence[_Measured]) -> list[float]:
    """Standard errors of the points: a seed's own, or the spread over seeds of all points where that is larger.

    Two or three seeds that happen to agree are no proof of it, hence the common spread.
    """
    counts = [len(one.point.seeds) for one in found]
    spreads = [0.0 if one.pooled is None else one.pooled.spread or 0.0 for one in found]
    freedom = sum(n - 1 for n in counts)
    common = sum((n - 1) * s * s for n, s in zip(counts, spreads)) / freedom if freedom else 0.0
    return [math.sqrt(max(one.own**2, common) / n) for one, n in zip(found, counts)]


def _notes(
    found: Sequence[_Measured], points: Sequence[Point], ways: Sequence[dict[str, Any]], groups: Sequence[list[int]]
) -> list[str]:
    """What the reader of a series is to know: points measured in another way, seeds that are not in a mean."""
    notes = []
    for way, group in list(zip(ways, groups))[1:]:
        labels = joined_labels([points[i].label for i in group], group)
        notes.append(unlike_text(labels, first_difference(way, ways[0]) or ""))
    notes += [f"{one.point.label}: {one.pooled.note}." for one in found if one.pooled is not None and one.pooled.note]
    return notes
