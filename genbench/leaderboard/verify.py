"""`genbench leaderboard verify`: a row's record measured again, and each metric held against what it states.

Again means: scored from the samples that a run stored, with the dataset and the features loaded afresh; or sampled,
scored and evaluated from weights. Figures of timing, and of a run's stored likelihoods and reconstructions, are not
measured again and stand outside the verdict.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np

from genbench import __version__, registry
from genbench.check.collect import Entry
from genbench.checkpoint import read_manifest
from genbench.data import load_dataset
from genbench.data.base import Splits
from genbench.data.cache import store_splits
from genbench.environment import resolve_device
from genbench.errors import DataError, UsageError
from genbench.evaluation.compare import first_difference
from genbench.files import hash_file
from genbench.leaderboard.diff import printable
from genbench.leaderboard.marks import Mark
from genbench.record import MetricResult, Record, read_record
from genbench.report.names import metric_name
from genbench.report.ranking import is_tie
from genbench.run.plan import CellPlan, RowPlan, plan_cells
from genbench.run.pool import Outcome, Pool
from genbench.run.run import read_run_file
from genbench.run.store import Store
from genbench.run.task import Task
from genbench.run.worker import Job, JobKind
from genbench.suite import Row, Suite, load_suite

Verdict = Literal["equal", "within intervals", "differs", "not checked"]
FROM_SAMPLES = ("quality",)
FROM_WEIGHTS = ("quality", "likelihood", "reconstruction")
_SAME_PLACE = ("device", "cpu", "torch", "threads")
_OF_INTERVAL, _OF_VALUE = 1e-4, 1e-6
_OF_WIDTH = 0.25
"""By which part of its half width a side of an interval may differ on another device."""
_STATED = {"kind", "n", "unit", "higher_is_better"}


@dataclass(frozen=True)
class Check:
    """One metric of a record, held against what was measured again. stated, found: values; reason: one sentence."""

    metric: MetricResult
    verdict: Verdict
    found: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Verification:
    """A record measured again. how: from what. same_place: device, threads and torch were those of the record."""

    entry: Entry
    how: str
    same_place: bool
    device: str
    checks: Sequence[Check]

    @property
    def ok(self) -> bool:
        """Whether something was checked, and nothing differs."""
        verdicts = {check.verdict for check in self.checks}
        return "differs" not in verdicts and bool(verdicts & {"equal", "within intervals"})

    def mark(self, by: str) -> Mark:
        """The mark of a record that was reproduced.

        Raises:
            DataError: the record's file is another one now than when it was measured.
        """
        if read_record(self.entry.path) != self.entry.record:
            raise DataError(f"{self.entry.path} changed while it was measured again. Verify it once more.")
        return Mark(
            by=by,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            how=self.how,
            record_sha256=hash_file(self.entry.path),
            device=self.device,
            genbench_version=__version__,
            metrics=[
                f"{c.metric.name}.{c.metric.estimator}"
                for c in self.checks
                if c.verdict in ("equal", "within intervals")
            ],
        )


def verify_samples(entry: Entry, run: Path, *, device: str = "auto", data_root: Path | None = None) -> Verification:
    """Score the samples that a run stored for a record's row and seed again. The run's folder stays as it is.

    Raises:
        UsageError: not the folder of a run, or of one without this row; the dataset is not here.
        DataError: what the run stored is damaged, or was made from other data.
    """
    plan, record = read_run_file(run), entry.record
    found = [(cell, row) for cell in plan.cells for row in cell.rows if row.stem == record.file_stem]
    if not found:
        raise UsageError(
            f"{run} has no row {record.row} with seed {record.seed} (rows: {', '.join(plan.rows)}). Give the run that "
            "made the record."
        )
    cell, row = found[0]
    where = str(resolve_device(device))
    with tempfile.TemporaryDirectory(prefix="genbench-verify-") as name:
        task = Task(Path(name), plan.suite, cell, where)
        _dataset(task, record, data_root)
        _link(Path(run).resolve(), task.root, cell, row)
        again = _measure(task, row, ("features", "rescore"))
    return compared(entry, again, FROM_SAMPLES, "scored again from the stored samples of a run")


def verify_weights(entry: Entry, weights: Path, *, device: str = "auto", data_root: Path | None = None) -> Verification:
    """Sample, evaluate and score a record's row again from a checkpoint of its model.

    Raises:
        UsageError: the model is not registered, or the weights are of another model, seed or config.
        DataError: a damaged checkpoint, or a dataset that is not the record's.
    """
    record, manifest = entry.record, read_manifest(weights)
    if record.model not in registry.names("models"):
        raise UsageError(
            f"'{record.model}' is not a registered model: its code is not loaded from a path in a record. Install the "
            "package that registers it under genbench.models, or verify from samples with --run."
        )
    stated = {"model": record.model, "seed": record.seed, "config": record.config.get("model")}
    unlike = first_difference(stated, {"model": manifest.model, "seed": manifest.seed, "config": manifest.config})
    if unlike is not None:
        raise UsageError(f"{weights} are not the weights of {record.file_stem}: {unlike}.")
    where = resolve_device(device)
    suite = _with_features_of(load_suite(record.suite), record)
    planned = plan_cells(
        suite,
        [Row(record.model, record.variant)],
        seeds=[record.seed],
        dataset_fingerprint=record.dataset.fingerprint,
        device=where,
        budget_scale=1.0,
    )[0]
    cell = planned.model_copy(update={"published": Path(weights).resolve(), "config": manifest.config})
    with tempfile.TemporaryDirectory(prefix="genbench-verify-") as name:
        task = Task(Path(name), suite, cell, str(where))
        _dataset(task, record, data_root)
        again = _measure(task, cell.rows[0], ("make", "time", "features", "score"))
    unlike = first_difference(record.config.get("sample", {}), again.config["sample"])
    if unlike is not None:
        raise UsageError(f"The recipe of {record.row} has other sampler options now than the record: {unlike}.")
    how = f"sampled and scored again from weights {manifest.weights_sha256[:12]}"
    return compared(entry, again, FROM_WEIGHTS, how)


def _with_features_of(suite: Suite, record: Record) -> Suite:
    """The suite with the fallback extractor where that is the one the record used."""
    used = {metric.extractor for metric in record.metrics}
    if suite.fallback_extractor in used and suite.extractor not in used:
        return suite.model_copy(update={"extractor": suite.fallback_extractor, "fallback_extractor": None})
    return suite


def _dataset(task: Task, record: Record, data_root: Path | None) -> Splits:
    splits = load_dataset(task.suite.dataset, data_root=data_root)
    if splits.fingerprint != record.dataset.fingerprint:
        raise DataError(
            f"Dataset '{task.suite.dataset}' has fingerprint {splits.fingerprint[:12]}..., the record's is "
            f"{record.dataset.fingerprint[:12]}.... Give the record's data with --data-root."
        )
    store_splits(splits, task.store.data)
    return splits


def _link(run: Path, root: Path, cell: CellPlan, row: RowPlan) -> None:
    """Show a scratch folder what the run stored for one row, without anything derived from the training images."""
    source, target = Store(run), Store(root)
    files = [(store.samples(row.stem), store.gallery(row.stem)) for store in (source, target)]
    for here, there in zip(*files, strict=True):
        if here.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(here)
    for owner in {row.stem, cell.stem}:
        here, there = (store.receipt_path(owner, "samples").parent for store in (source, target))
        if here.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(here)


def _measure(task: Task, row: RowPlan, kinds: Sequence[JobKind]) -> Record:
    """Do jobs one after the other, each in a process as `genbench run` has it, and read the record they leave."""
    problems: list[str] = []

    def ended(outcome: Outcome) -> None:
        reasons = [outcome.reason] if outcome.status == "failed" else list(outcome.result.failures.values())
        problems.extend(f"{outcome.job.kind}: {reason}" for reason in reasons)

    pool = Pool(1, [], task.suite.threads, _told(), ended)
    for kind in kinds:
        pool.run([Job(kind, task, None if kind in ("make", "features") else row)])
        if problems:
            raise DataError(f"{row.name} cannot be measured again: {'; '.join(problems)}")
    return read_record(task.store.records / f"{row.stem}.json")


def _told() -> Callable[[Job, str, int, int], None]:
    """A report that names each stage once, on standard error."""
    seen: set[str] = set()

    def report(_: Job, stage: str, done: int, total: int) -> None:  # noqa: ARG001
        if stage and stage not in seen:
            seen.add(stage)
            print(f"{stage} ...", file=sys.stderr)

    return report


def compared(entry: Entry, again: Record, groups: Sequence[str], how: str) -> Verification:
    """A record held against what was measured again of it, in the metrics of ``groups``."""
    places = [{key: one.environment.get(key) for key in _SAME_PLACE} for one in (entry.record, again)]
    same_place = places[0] == places[1]
    checks = [_check(metric, again, groups, same_place) for metric in entry.record.metrics if metric.status == "ok"]
    device = str(again.environment.get("cpu") if again.environment.get("device") == "cpu" else places[1]["device"])
    return Verification(entry, how, same_place, device, checks)


def _check(stated: MetricResult, again: Record, groups: Sequence[str], strict: bool) -> Check:
    if metric_name(stated.name).group not in groups:
        return Check(stated, "not checked", reason="it was not measured again")
    identity = (stated.name, stated.estimator, stated.extractor)
    found = next((m for m in again.metrics if (m.name, m.estimator, m.extractor) == identity), None)
    if found is None or found.value is None:
        reason = "it is not there" if found is None else found.reason or found.status
        return Check(stated, "differs", reason=f"measured again, it has no value: {reason}")
    unlike = first_difference(stated.comparable, found.comparable)
    if unlike is not None:
        return Check(stated, "differs", found.value, f"measured in another way now: {unlike}")
    unlike = first_difference(stated.model_dump(include=_STATED), found.model_dump(include=_STATED))
    if unlike is not None:
        return Check(stated, "differs", found.value, f"the record states another {unlike}")
    equal = is_float_noise(stated, found)
    if not equal and (strict or not is_tie(stated, found)):
        beyond = "not equal, on the same device" if strict else "beyond both intervals"
        return Check(stated, "differs", found.value, beyond)
    if not _intervals_agree(stated, found, strict):
        return Check(stated, "differs", found.value, f"its interval is {_ends(stated)}, now {_ends(found)}")
    if equal:
        return Check(stated, "equal", found.value)
    return Check(stated, "within intervals", found.value, "another device, number of threads or version of torch")


def _ends(metric: MetricResult) -> str:
    return "none" if metric.ci95 is None else f"[{metric.ci95[0]:.6g}, {metric.ci95[1]:.6g}]"


def _intervals_agree(stated: MetricResult, found: MetricResult, strict: bool) -> bool:
    """Whether the sides of both intervals are as long; elsewhere than on the same device, about as long.

    There a side that is cut at the metric's bound may also differ by as much as the values do.
    """
    if stated.ci95 is None or found.ci95 is None or stated.value is None or found.value is None:
        return stated.ci95 == found.ci95
    half = (found.ci95[1] - found.ci95[0]) / 2
    allowed = max(_OF_INTERVAL * half, _OF_VALUE * abs(found.value))
    if not strict:
        allowed += _OF_WIDTH * half + abs(stated.value - found.value)
    sides = [np.abs(np.array(one.ci95) - one.value) for one in (stated, found)]
    return bool(np.all(np.abs(sides[0] - sides[1]) <= allowed))


def told(found: Verification) -> list[str]:
    """The outcome as lines of text."""
    lines = [f"{found.entry.record.file_stem}: {found.how}"]
    for check in found.checks:
        metric = check.metric
        if check.verdict != "not checked":
            value = "" if check.found is None else f", now {check.found:.8g}"
            reason = f" ({check.reason})" if check.reason else ""
            lines.append(f"  {metric.name} {metric.estimator}: {metric.value:.8g}{value}: {check.verdict}{reason}")
    left = sorted({check.metric.name for check in found.checks if check.verdict == "not checked"})
    if left:
        lines.append(f"  not measured again: {', '.join(left)}")
    return [printable(line) for line in lines]


def is_float_noise(a: MetricResult, b: MetricResult) -> bool:
    """Whether two values differ by at most a ten-thousandth of the shorter interval's half width, or a millionth of the
    value.

    Raises:
        ValueError: a metric without a value.
    """
    if a.value is None or b.value is None:
        raise ValueError(f"metric '{a.name}' has no value to compare")
    half = min(0.0 if one.ci95 is None else (one.ci95[1] - one.ci95[0]) / 2 for one in (a, b))
    return abs(a.value - b.value) <= max(_OF_INTERVAL * half, _OF_VALUE * abs(a.value))
