"""Runs jobs in processes of their own, as many at once as allowed; jobs that ask for it run alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any

from genbench.errors import GenbenchError
from genbench.run.server import fork_server
from genbench.run.task import JobResult
from genbench.run.worker import Job, worker_main

GRACE_SECONDS = 30.0


@dataclass
class Outcome:
    """How a job ended: "done" with its result, "failed" with a reason, or "interrupted"."""

    job: Job
    status: str
    result: JobResult
    reason: str = ""
    details: str = ""


@dataclass
class _Running:
    job: Job
    process: Any
    pipe: Any
    outcome: Outcome | None = None


class Pool:
    """Runs batches of jobs.

    Args:
        limit: processes at once.
        preload: modules that the fork server imports once for all.
        threads: threads of each process.
        on_progress: called with (job, stage, done, total).
        on_end: called with each `Outcome` as it comes.
    """

    def __init__(
        self,
        limit: int,
        preload: Sequence[str],
        threads: int,
        on_progress: Callable[[Job, str, int, int], None],
        on_end: Callable[[Outcome], None],
    ) -> None:
        self.limit = limit
        self._context = fork_server(preload, threads)
        self._on_progress, self._on_end = on_progress, on_end
        self._running: list[_Running] = []

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Run all jobs. On Ctrl-C the workers save their state, and KeyboardInterrupt goes on."""
        waiting, outcomes = list(jobs), []
        try:
            while waiting or self._running:
                while waiting and self._may_start(waiting[0]):
                    self._start(waiting.pop(0))
                outcomes += self._collect()
        except BaseException:
            self.stop()
            raise
        return outcomes

    def _may_start(self, job: Job) -> bool:
        if job.alone or any(r.job.alone for r in self._running):
            return not self._running
        return len(self._running) < self.limit

    def _start(self, job: Job) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=worker_main, args=(job, theirs), daemon=True)
        try:
            process.start()
        except (EOFError, ConnectionError) as error:
            raise GenbenchError(
                "The process that starts all workers ended by itself; its own words stand above. Nothing is lost: mend "
                "that, and the same command goes on."
            ) from error
        theirs.close()
        self._running.append(_Running(job, process, ours))

    def _collect(self) -> list[Outcome]:
        """Wait for news; returns the outcomes of jobs that ended."""
        connection.wait([r.pipe for r in self._running], timeout=1.0)
        for running in self._running:
            self._drain(running)
        ended = [r for r in self._running if r.outcome is not None]
        self._running = [r for r in self._running if r.outcome is None]
        outcomes = []
        for running in ended:
            running.process.join()
            running.pipe.close()
            assert running.outcome is not None
            self._on_end(running.outcome)
            outcomes.append(running.outcome)
        return outcomes

    def _drain(self, running: _Running) -> None:
        try:
            while running.outcome is None and running.pipe.poll():
                kind, *values = running.pipe.recv()
                if kind == "progress":
                    self._on_progress(running.job, *values)
                elif kind == "done":
                    running.outcome = Outcome(running.job, "done", values[0])
                elif kind == "interrupted":
                    running.outcome = Outcome(running.job, "interrupted", JobResult(), values[0])
                else:
                    running.outcome = Outcome(running.job, "failed", JobResult(), *values)
        except EOFError:
            running.process.join()
            code = running.process.exitcode
            cause = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
            hint = " (out of memory?)" if code == -9 else ""
            running.outcome = Outcome(running.job, "failed", JobResult(), f"its process died: {cause}{hint}")

    def stop(self) -> None:
        """Ask the workers to save and end; end those by force that do not within the grace time."""
        for running in self._running:
            running.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for running in self._running:
            running.process.join(max(0.0, deadline - time.monotonic()))
            if running.process.is_alive():
                print(f"{running.job.name} did not stop in time and was ended.", file=sys.stderr)
                running.process.kill()
                running.process.join()
        self._running = []
