"""The process that all workers are forked from, with the heavy modules imported once for all of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any

from genbench import registry
from genbench.suite import Row, load_suite

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def fork_server(preload: Sequence[str], threads: int) -> Any:
    """The context of a fork server, which begins to import (that of spawn where there is none).

    preload: modules beside those of the stages; those of the first call count. threads: of each process.
    """
    usual = {"OMP_WAIT_POLICY": "PASSIVE", **{name: str(threads) for name in THREAD_VARIABLES}}
    # The fork server would look for modules in the working folder first, where one of the name genbench may lie.
    for variable, value in {**usual, "PYTHONSAFEPATH": "1"}.items():
        os.environ.setdefault(variable, value)
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["genbench.run.stages", "genbench.run.scoring", *preload])
    with _ignoring_interrupts():
        forkserver.ensure_running()
    return server


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """What is started meanwhile ignores Ctrl-C, which is for the run to obey: the server ends with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def start_early(suite: str, models: Sequence[str]) -> None:
    """Start the fork server of a run of these rows (of all the suite's if none is named), so that it and the caller
    import side by side.

    Raises:
        UsageError: an unknown suite or row.
    """
    planned = load_suite(suite)
    planned.check_names()
    rows = [Row.parse(name) for name in models] or planned.rows()
    known = registry.entries("models")
    fork_server(sorted({known[row.model].module for row in rows if row.model in known}), planned.threads)
