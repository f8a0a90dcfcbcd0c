"""A worker process: runs one job of one cell and talks to the run over a pipe."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from typing import Any, Literal

from genbench.errors import GenbenchError, Interrupted
from genbench.run.plan import RowPlan
from genbench.run.task import JobResult, Monitor, Task, describe

JobKind = Literal["make", "time", "score", "rescore", "features"]


@dataclass(frozen=True, eq=False)
class Job:
    """One piece of work. ``alone`` means that nothing else may run meanwhile."""

    kind: JobKind
    task: Task
    row: RowPlan | None = None

    @property
    def alone(self) -> bool:
        return self.kind == "time"

    @property
    def name(self) -> str:
        return self.row.name if self.row is not None else self.task.cell.model


def run_job(job: Job, monitor: Monitor) -> JobResult:
    """Do the job."""
    from genbench.run import scoring, stages

    if job.kind == "make":
        return stages.make(job.task, monitor)
    if job.kind == "features":
        return scoring.reference_features(job.task, monitor)
    assert job.row is not None, f"a '{job.kind}' job is about a row"
    if job.kind == "time":
        return stages.time_row(job.task, job.row, monitor)
    return scoring.score_row(job.task, job.row, monitor, again=job.kind == "rescore")


def worker_main(job: Job, pipe: Any) -> None:
    """The process. Sends ("progress", stage, done, total), at last ("done", JobResult) or ("failed", ...)."""
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(job.task.suite.threads)
    if job.task.device.startswith("cuda"):
        _reproducible_cuda()
    monitor = Monitor(lambda *message: pipe.send(("progress", *message)), stop.is_set)
    with suppress(BrokenPipeError):  # the run was killed meanwhile; this process ends with it
        pipe.send(_outcome(job, monitor))


def _outcome(job: Job, monitor: Monitor) -> tuple[Any, ...]:
    try:
        return ("done", run_job(job, monitor))
    except Interrupted as error:
        return ("interrupted", str(error))
    except Exception as error:
        details = "" if isinstance(error, GenbenchError) else traceback.format_exc()
        return ("failed", describe(error), details)


def _reproducible_cuda() -> None:
    """Full float32 and deterministic kernels, so that one seed gives one record; bf16 is a recipe's own choice."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)


def _exit_with_parent() -> None:
    """A killed run leaves no worker behind to write into its folder."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
