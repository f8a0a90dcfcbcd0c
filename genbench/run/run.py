"""`genbench run`: from a suite to records and a report, doing only what is missing."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from genbench import __version__, registry
from genbench.data import load_dataset
from genbench.data.base import Splits
from genbench.data.cache import open_splits, store_splits
from genbench.errors import DataError, GenbenchError, UsageError
from genbench.files import write_json
from genbench.record import Record, read_record
from genbench.report import build_report
from genbench.report.tables import write_summary
from genbench.run.plan import CellPlan, RowPlan, plan_cells
from genbench.run.pool import Outcome, Pool
from genbench.run.progress import Progress
from genbench.run.scoring import write_failure
from genbench.run.stages import Task, timing_key
from genbench.run.store import Store
from genbench.run.worker import Job
from genbench.suite import Row, Suite, load_suite

RUN_FILE = "run.json"
LEAST_FREE_BYTES = 200 * 2**20


@dataclass(frozen=True)
class RunOptions:
    """What the command line can set; None keeps the suite's own."""

    suite: str
    out: Path | None = None
    models: tuple[str, ...] = ()
    seed: int | None = None
    device: str = "auto"
    data_root: Path | None = None
    dataset: str | None = None
    budget_scale: float = 1.0
    command: str = ""


@dataclass
class RunResult:
    """What a run left: its records in the order of the table, where its time went, and the report."""

    root: Path
    records: list[Record]
    broken: list[str] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    report: Path | None = None

    @property
    def ok(self) -> bool:
        """Whether every record can be read, and no model and no metric failed."""
        models = all(record.status == "ok" for record in self.records)
        metrics = all(metric.status != "failed" for record in self.records for metric in record.metrics)
        return models and metrics and not self.broken


def resolve_device(name: str) -> torch.device:
    """``auto`` to the best device present; others are checked.

    Raises:
        UsageError: a device that this machine does not have.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next(d for d in ("cuda", "mps", "cpu") if present[d]))
    if not present[name]:
        here = ", ".join(d for d, there in present.items() if there)
        raise UsageError(f"Device '{name}' is not available here (available: {here}). Use --device auto.")
    return torch.device(name)


def prepare_folder(root: Path) -> None:
    """Create the run's folder and check that it can be written and has room.

    Raises:
        UsageError: not a folder, not writable, or too little space.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".write-test-{os.getpid()}"
        probe.write_bytes(b"genbench")
        probe.unlink()
    except OSError as error:
        raise UsageError(
            f"Cannot write to the output folder {root}: {error.strerror}. Choose another with --out."
        ) from None
    free = shutil.disk_usage(root).free
    if free < LEAST_FREE_BYTES:
        raise UsageError(
            f"{root}: only {free // 2**20} MiB free, a run needs at least {LEAST_FREE_BYTES // 2**20} MiB. "
            "Free some space or choose another folder with --out."
        )


def run_suite(options: RunOptions) -> RunResult:
    """Run a suite (or go on with an interrupted run) in its folder.

    Raises:
        UsageError, DataError: bad input, found before any work starts.
        KeyboardInterrupt: stopped; the state is saved and the same command goes on.
    """
    suite = load_suite(options.suite)
    rows = [Row.parse(name) for name in options.models] or list(suite.rows())
    suite.check_names()
    device = resolve_device(options.device)
    root = (options.out or Path("runs") / suite.name).resolve()
    if options.data_root is not None and not options.data_root.is_dir():
        raise UsageError(f"--data-root {options.data_root}: no such folder.")
    if not 0.0 < options.budget_scale < float("inf"):
        raise UsageError(f"--budget-scale is {options.budget_scale}, expected a number above 0.")
    plan_cells(suite, rows, seeds=[0], dataset_fingerprint="", device=device, budget_scale=1.0)
    prepare_folder(root)
    with _locked(root):
        return _run_locked(suite, rows, device, root, options)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    try:
        with FileLock(root / ".lock", timeout=0):
            yield
    except Timeout:
        raise UsageError(
            f"Another run is at work in {root}. Wait for it, or choose another folder with --out."
        ) from None


def _run_locked(suite: Suite, rows: Sequence[Row], device: torch.device, root: Path, options: RunOptions) -> RunResult:
    store = Store(root)
    _announce(suite, rows, device, root)
    splits = _dataset(store, suite, options)
    seeds = suite.seeds if options.seed is None else [options.seed]
    cells = plan_cells(
        suite,
        rows,
        seeds=seeds,
        dataset_fingerprint=splits.fingerprint,
        device=device,
        budget_scale=options.budget_scale,
    )
    for cell in cells:
        store.claim_cell(cell.stem, cell.key)
    stems = [row.stem for cell in cells for row in cell.rows]
    plan: dict[str, Any] = {
        "genbench_version": __version__,
        "command": options.command,
        "suite": suite.model_dump(mode="json"),
        "device": str(device),
        "rows": stems,
        "cells": [cell.model_dump(mode="json") for cell in cells],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    before = _stage_seconds(root)
    write_json(root / RUN_FILE, {**plan, "stage_seconds": before})
    work = _Work([Task(root, suite, cell, str(device)) for cell in cells], device)
    try:
        seconds = work.run()
    finally:
        total = {
            name: round(before.get(name, 0.0) + work.seconds.get(name, 0.0), 2) for name in {**before, **work.seconds}
        }
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(root / RUN_FILE, {**plan, "stage_seconds": total, "finished": finished})
    return finish(root, stems, seconds)


def finish(root: Path, stems: Sequence[str], seconds: dict[str, float]) -> RunResult:
    """Read the run's records, write summary and report."""
    result = RunResult(root, [], stage_seconds=seconds)
    for stem in stems:
        try:
            result.records.append(read_record(Store(root).records / f"{stem}.json"))
        except DataError as error:
            result.broken.append(str(error))
    start = time.perf_counter()
    write_summary(root)
    result.report = build_report(root)
    seconds["report"] = time.perf_counter() - start
    return result


def _stage_seconds(root: Path) -> dict[str, float]:
    """Seconds by stage that earlier invocations of the run spent."""
    try:
        seconds: dict[str, float] = read_run_file(root)["stage_seconds"]
    except (GenbenchError, KeyError):
        return {}
    return seconds


def _announce(suite: Suite, rows: Sequence[Row], device: torch.device, root: Path) -> None:
    print(
        f"genbench {__version__}: suite '{suite.name}', {len(rows)} rows, device {device}, folder {root}",
        file=sys.stderr,
    )
    if suite.requirements and device.type == "cpu":
        print(f"No GPU is used. {suite.requirements}", file=sys.stderr)


def _dataset(store: Store, suite: Suite, options: RunOptions) -> Splits:
    """The run's dataset, stored once in its folder for the workers."""
    spec = options.dataset or suite.dataset
    splits = load_dataset(spec, data_root=options.data_root)
    store_splits(splits, store.data)
    return open_splits(store.data)


class _Work:
    """The jobs of a run in their order: make side by side, time alone, score side by side."""

    def __init__(self, tasks: list[Task], device: torch.device) -> None:
        self.tasks = tasks
        threads = tasks[0].suite.threads
        limit = 1 if device.type != "cpu" else max(1, (os.cpu_count() or 1) // threads)
        preload = sorted({registry.load_model(t.cell.reference).__module__ for t in tasks})
        self.progress = Progress()
        self.seconds: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        preload = [m for m in preload if not m.startswith("genbench_plugin_")]
        self.pool = Pool(limit, preload, self.progress.update, self._ended)

    def run(self) -> dict[str, float]:
        """Run everything that is missing; returns process seconds by stage."""
        with self.progress:
            # Later entries of a suite tend to cost more: starting them first keeps all cores busy to the end.
            self.phase("make", [Job("make", t) for t in reversed(self.tasks)])
            alive = [t for t in self.tasks if t.cell.stem not in self.failed]
            self.phase("time", [Job("time", t, r) for t in alive for r in t.cell.rows if _untimed(t, r)])
            alive = [t for t in alive if t.cell.stem not in self.failed]
            if alive:
                self.phase("score", [Job("features", alive[0])])
            self.phase("score", [Job("score", t, r) for t in alive for r in t.cell.rows])
        return self.seconds

    def phase(self, name: str, jobs: list[Job]) -> None:
        """Run jobs and count the phase's wall time."""
        start = time.perf_counter()
        self.pool.run(jobs)
        self.seconds[f"{name} (wall)"] = self.seconds.get(f"{name} (wall)", 0.0) + time.perf_counter() - start

    def _ended(self, outcome: Outcome) -> None:
        job = outcome.job
        self.progress.end(job)
        if outcome.status == "failed":
            self.progress.print(f"{job.name} failed: {outcome.reason}")
            if outcome.details:
                log = job.task.root / "logs" / f"{job.task.cell.stem}.txt"
                log.parent.mkdir(exist_ok=True)
                log.write_text(outcome.details, encoding="utf-8")
            self._record_failure(job, outcome.reason)
        for stage, spent in outcome.seconds.items():
            name = f"{stage} {job.task.cell.model}"
            self.seconds[name] = self.seconds.get(name, 0.0) + spent

    def _record_failure(self, job: Job, reason: str) -> None:
        if job.kind == "features":
            return
        self.failed[job.task.cell.stem] = reason
        rows = [job.row] if job.kind in ("score", "rescore") and job.row is not None else job.task.cell.rows
        for row in rows:
            write_failure(job.task, row, reason)


def _untimed(task: Task, row: RowPlan) -> bool:
    return task.store.receipt(row.stem, "timing", timing_key(task, row)) is None


def rescore(root: Path) -> RunResult:
    """Recompute the metrics of every row of a run from what is stored, without the models.

    Raises:
        UsageError: not the folder of a run.
        DataError: its run file or its dataset cannot be read.
    """
    plan = read_run_file(root)
    suite, device = Suite.model_validate(plan["suite"]), str(resolve_device("auto"))
    cells = [CellPlan.model_validate(cell) for cell in plan["cells"]]
    tasks = [Task(root.resolve(), suite, cell, device) for cell in cells]
    with _locked(root):
        work = _Work(tasks, torch.device(device))
        with work.progress:
            work.phase("score", [Job("rescore", t, r) for t in tasks for r in t.cell.rows if _sampled(t, r)])
        return finish(root, plan["rows"], work.seconds)


def read_run_file(root: Path) -> dict[str, Any]:
    """Read ``run.json``.

    Raises:
        UsageError: missing: the folder is not a run's. DataError: damaged.
    """
    path = root / RUN_FILE
    if not path.is_file():
        raise UsageError(f"{root} is not the folder of a run: it has no {RUN_FILE}. Give the folder passed to --out.")
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return value
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable: {error}. Run the suite again in this folder to mend it.") from None


def _sampled(task: Task, row: RowPlan) -> bool:
    return task.store.receipt_key(row.stem, "samples") is not None
