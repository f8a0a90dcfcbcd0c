"""`genbench run`: from a suite to records and a report, doing only what is missing."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from pydantic import BaseModel

from genbench import __version__, registry
from genbench.data import load_dataset
from genbench.data.base import Splits
from genbench.data.cache import open_splits, store_splits
from genbench.environment import commit, resolve_device
from genbench.errors import DataError, GenbenchError, UsageError
from genbench.files import write_json, write_text
from genbench.metrics import load_metric
from genbench.record import Record, read_record
from genbench.report.build import build_report
from genbench.report.tables import write_summary
from genbench.run.announce import announce, announce_grey_values, announce_image_text, with_extractor
from genbench.run.plan import CellPlan, RowPlan, plan_cells, with_published_weights
from genbench.run.pool import Outcome, Pool
from genbench.run.progress import Progress
from genbench.run.scoring import write_failure
from genbench.run.stages import is_timed
from genbench.run.store import Store
from genbench.run.task import Task
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
    seeds: tuple[int, ...] = ()
    """In place of the suite's."""
    device: str = "auto"
    data_root: Path | None = None
    dataset: str | None = None
    budget_scale: float = 1.0
    windows: int | None = None
    """Timing windows of each row."""
    from_published: bool = False
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
    if options.windows is not None:
        suite = suite.model_copy(update={"timing": suite.timing.model_copy(update={"windows": options.windows})})
    suite.check_names()
    rows = [Row.parse(name) for name in options.models] or _default_rows(suite, options)
    for metric in suite.metrics:
        load_metric(metric, suite.options.get(metric))
    device = resolve_device(options.device)
    root = (options.out or Path("runs") / suite.name).resolve()
    if options.data_root is not None and not options.data_root.is_dir():
        raise UsageError(f"--data-root {options.data_root}: no such folder.")
    if not 0.0 < options.budget_scale < float("inf"):
        raise UsageError(f"--budget-scale is {options.budget_scale}, expected a number above 0.")
    _plan(suite, rows, device, options)
    prepare_folder(root)
    with _locked(root):
        return _run_locked(suite, rows, device, root, options)


def _default_rows(suite: Suite, options: RunOptions) -> list[Row]:
    """The suite's rows; with ``from_published``, those that have published weights, and the controls."""
    rows = list(suite.rows())
    if not options.from_published:
        return rows
    kept = with_published_weights(suite, rows)
    left_out = sorted({str(row) for row in rows} - {str(row) for row in kept})
    if left_out:
        print(f"No published weights for suite '{suite.name}': {', '.join(left_out)}; left out.", file=sys.stderr)
    return kept


def _plan(
    suite: Suite,
    rows: Sequence[Row],
    device: torch.device,
    options: RunOptions,
    dataset_fingerprint: str = "",
    grey_values: bool = True,
) -> list[CellPlan]:
    return plan_cells(
        suite,
        rows,
        seeds=options.seeds or suite.seeds,
        dataset_fingerprint=dataset_fingerprint,
        device=device,
        budget_scale=options.budget_scale,
        from_published=options.from_published,
        grey_values=grey_values,
    )


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
    announce(suite, rows, device, root, options.dataset)
    suite = with_extractor(suite)
    announce_image_text(suite)
    splits = _dataset(store, suite, options)
    grey_values = announce_grey_values(splits)
    cells = _plan(suite, rows, device, options, splits.fingerprint, grey_values)
    for cell in cells:
        store.claim_cell(cell.stem, cell.key)
    stems = [row.stem for cell in cells for row in cell.rows]
    before = _stage_seconds(root)
    plan = RunFile(
        genbench_version=__version__,
        command=options.command,
        suite=suite,
        device=str(device),
        rows=stems,
        cells=cells,
        started=_now(),
        stage_seconds=before,
    )
    _write_run_file(root, plan)
    work = _Work([Task(root, suite, cell, str(device), commit()) for cell in cells], _model_modules(cells))
    try:
        seconds = work.run()
    finally:
        names = {**before, **work.seconds}
        total = {name: round(before.get(name, 0.0) + work.seconds.get(name, 0.0), 2) for name in names}
        _write_run_file(root, plan.model_copy(update={"stage_seconds": total, "finished": _now()}))
    return finish(root, stems, seconds)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _write_run_file(root: Path, plan: RunFile) -> None:
    write_json(root / RUN_FILE, plan.model_dump(mode="json"))


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
        return read_run_file(root).stage_seconds
    except GenbenchError:
        return {}


def _dataset(store: Store, suite: Suite, options: RunOptions) -> Splits:
    """The run's dataset, stored once in its folder for the workers."""
    spec = options.dataset or suite.dataset
    splits = load_dataset(spec, data_root=options.data_root)
    store_splits(splits, store.data)
    return open_splits(store.data)


class _Work:
    """The jobs of a run in their order: make side by side, time alone, score side by side."""

    def __init__(self, tasks: list[Task], preload: Sequence[str] = ()) -> None:
        self.tasks = tasks
        self.progress = Progress()
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        """Stems of rows that have no samples to score."""
        self.untimeable: set[str] = set()
        """Stems of rows whose timing failed in this invocation."""
        self.problems: list[str] = []
        threads = tasks[0].suite.threads
        limit = max(1, _cores() // threads) if tasks[0].device == "cpu" else 1
        self.pool = Pool(limit, preload, threads, self.progress.update, self._ended)

    def run(self) -> dict[str, float]:
        """Run everything that is missing; returns process seconds by stage."""
        with self.progress:
            # Later entries of a suite tend to cost more: starting them first keeps all cores busy to the end.
            self.phase("make", [Job("make", t) for t in reversed(self.tasks)])
            for _ in range(self.tasks[0].suite.timing.windows):
                self.phase("time", self._untimed())
            self.phase("score", [Job("features", t) for t, _ in self._alive()[:1]])
            self.phase("score", [Job("score", t, r) for t, r in self._alive()])
        return self.seconds

    def _alive(self) -> list[tuple[Task, RowPlan]]:
        return [(t, r) for t in self.tasks for r in t.cell.rows if r.stem not in self.failed]

    def _untimed(self) -> list[Job]:
        """A window for each row that lacks some: the machine's slow minutes are shared by all rows."""
        waiting = [(t, r) for t, r in self._alive() if r.stem not in self.untimeable]
        return [Job("time", t, r) for t, r in waiting if not is_timed(t, r)]

    def phase(self, name: str, jobs: list[Job]) -> None:
        """Run jobs and count the phase's wall time."""
        start = time.perf_counter()
        self.pool.run(jobs)
        self.seconds[f"{name} (wall)"] = self.seconds.get(f"{name} (wall)", 0.0) + time.perf_counter() - start

    def _ended(self, outcome: Outcome) -> None:
        job = outcome.job
        self.progress.end(job)
        if outcome.status == "interrupted":  # a worker that was told to stop by itself stops the run
            raise KeyboardInterrupt
        for stage, spent in outcome.result.seconds.items():
            name = f"{stage} {job.task.cell.model}"
            self.seconds[name] = self.seconds.get(name, 0.0) + spent
        failures = dict(outcome.result.failures)
        if outcome.status == "failed":
            rows = (job.row,) if job.row is not None else job.task.cell.rows
            failures |= {row.stem: outcome.reason for row in rows}
            self._log(job, outcome.details)
        for stem, reason in failures.items():
            self.progress.print(f"{stem}: {job.kind} failed: {reason}")
        self._record_failures(job, failures)

    def _log(self, job: Job, details: str) -> None:
        if details:
            write_text(job.task.root / "logs" / f"{job.task.cell.stem}.txt", details)

    def _record_failures(self, job: Job, failures: dict[str, str]) -> None:
        """A row without samples or score gets a failed record; failed timing is for its figures to say; a record that
        was there before `rescore` stays."""
        if job.kind == "time":
            self.untimeable |= set(failures)
        elif job.kind == "rescore":
            self.problems += [f"{stem}: {reason}" for stem, reason in failures.items()]
        elif job.kind in ("make", "score"):
            for row in job.task.cell.rows:
                if row.stem in failures:
                    self.failed.add(row.stem)
                    write_failure(job.task, row, failures[row.stem])


def _cores() -> int:
    """CPU cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _model_modules(cells: Sequence[CellPlan]) -> list[str]:
    """Importable modules of the cells' models, for the fork server to have ready."""
    modules = {registry.load_model(cell.reference).__module__ for cell in cells if ".py:" not in cell.reference}
    return sorted(modules)


def rescore(root: Path) -> RunResult:
    """Recompute the metrics of every row of a run from what is stored, without the models.

    A row that cannot be scored keeps the record it has, and is named in the result.

    Raises:
        UsageError: not the folder of a run.
        DataError: its run file or its dataset cannot be read.
    """
    plan = read_run_file(root)
    tasks = [Task(root.resolve(), plan.suite, cell, str(resolve_device("auto"))) for cell in plan.cells]
    with _locked(root):
        work = _Work(tasks)
        with work.progress:
            work.phase("score", [Job("rescore", t, r) for t in tasks for r in t.cell.rows])
        result = finish(root, plan.rows, work.seconds)
    result.broken += work.problems
    return result


class RunFile(BaseModel):
    """``run.json``: what a run was asked to do, and where its time went so far."""

    genbench_version: str
    command: str
    suite: Suite
    device: str
    rows: list[str]
    cells: list[CellPlan]
    started: str
    finished: str | None = None
    stage_seconds: dict[str, float] = {}


def read_run_file(root: Path) -> RunFile:
    """Read ``run.json``.

    Raises:
        UsageError: missing: the folder is not a run's. DataError: damaged, or of another version.
    """
    path = root / RUN_FILE
    if not path.is_file():
        raise UsageError(f"{root} is not the folder of a run: it has no {RUN_FILE}. Give the folder passed to --out.")
    try:
        return RunFile.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not readable: {reason}. Run the suite again in this folder to mend it.") from None
