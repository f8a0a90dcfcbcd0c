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
from genbench.suite import Row, check_model, load_suite

PRELOAD = "GENBENCH_PRELOAD"
"""The environment variable that names the models' modules, with commas between."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def fork_server(preload: Sequence[str], threads: int) -> Any:
    """The context of a fork server, which begins to import (that of spawn where there is none).

    preload: modules beside those of the stages; those of the first call count. threads: of each process, and of this
    one where it has not yet loaded what makes them.
    """
    usual = {"OMP_WAIT_POLICY": "PASSIVE", **{name: str(threads) for name in THREAD_VARIABLES}}
    # The fork server would look for modules in the working folder first, where one of the name genbench may lie.
    for variable, value in {**usual, "PYTHONSAFEPATH": "1"}.items():
        os.environ.setdefault(variable, value)
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    os.environ[PRELOAD] = ",".join(preload)
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["genbench.run.preloaded"])
    with _ignoring_signals():
        forkserver.ensure_running()
    return server


@contextmanager
def _ignoring_signals() -> Iterator[None]:
    """What is started meanwhile ignores being interrupted and terminated, as all processes of a run may be at once: the
    server ends with the run, which lets its workers save first."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def start_early(suite: str, models: Sequence[str]) -> None:
    """Start the fork server of a run of these rows (of all the suite's if none is named), so that it and the caller
    import side by side.

    Raises:
        UsageError: an unknown suite or model.
    """
    planned = load_suite(suite)
    planned.check_names()
    rows = [Row.parse(name) for name in models] or planned.rows()
    for row in rows:
        check_model(row.model)
    known = {**registry.entries("models"), **registry.entries("controls")}
    fork_server(sorted({known[row.model].module for row in rows if row.model in known}), planned.threads)
