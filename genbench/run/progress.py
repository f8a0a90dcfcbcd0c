"""Progress: on a terminal a bar per process at work, elsewhere (a CI log, a file) a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bars,
)
from rich.progress import (
    Task as Bar,
)
from rich.text import Text

from genbench.run.worker import Job

LINE_SECONDS = 60.0
LINE_SHARE = 0.02
"""Where there is no terminal: seconds, and share of a stage, between two lines about it."""


class _Rate(TextColumn):
    """Steps (or images) a second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Bar) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="dim")


@dataclass
class _Shown:
    """A stage at work, and what was last said of it."""

    stage: str
    bar: TaskID
    said_at: float
    said: int = 0


class Progress:
    """Shows what each process is doing: stage, step, rate and time left."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(stderr=True)
        self._clock = clock
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            _Rate(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._stages: dict[Job, _Shown] = {}

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, job: Job, stage: str, done: int, total: int) -> None:
        """Show that ``job`` has done so much of a stage."""
        shown = self._stages.get(job)
        if shown is None or shown.stage != stage:
            self.end(job)
            now = self._clock()
            shown = self._stages[job] = _Shown(stage, self._bars.add_task(stage, total=total), now, done)
        self._bars.update(shown.bar, completed=done, total=total)
        if not self.console.is_terminal:
            self._say(shown, done, total)

    def _say(self, shown: _Shown, done: int, total: int) -> None:
        now = self._clock()
        if now - shown.said_at < LINE_SECONDS or done - shown.said < LINE_SHARE * total:
            return
        left = (total - done) * (now - shown.said_at) / (done - shown.said)
        self.print(f"  {shown.stage}: {done:,} of {total:,}, about {duration(left)} left")
        shown.said_at, shown.said = now, done

    def end(self, job: Job) -> None:
        """Take the job's bar away."""
        shown = self._stages.pop(job, None)
        if shown is not None:
            self._bars.remove_task(shown.bar)

    def print(self, message: str) -> None:
        """A line above the bars, also when there is no terminal."""
        self.console.print(message, markup=False, highlight=False)


def duration(seconds: float) -> str:
    """Seconds as a person says them: "40 s", "12 min", "2 h 05 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
