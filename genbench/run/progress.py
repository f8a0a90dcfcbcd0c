"""Progress on the terminal: a bar per process at work; quiet when the output is not a terminal."""

from __future__ import annotations

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


class _Rate(TextColumn):
    """Steps (or images) a second."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Bar) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "", style="dim")


class Progress:
    """Shows what each process is doing: stage, step, rate and time left."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
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
        self._stages: dict[Job, tuple[str, TaskID]] = {}

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, job: Job, stage: str, done: int, total: int) -> None:
        """Show that ``job`` has done so much of a stage."""
        current = self._stages.get(job)
        if current is None or current[0] != stage:
            self.end(job)
            current = (stage, self._bars.add_task(stage, total=total))
            self._stages[job] = current
        self._bars.update(current[1], completed=done, total=total)

    def end(self, job: Job) -> None:
        """Take the job's bar away."""
        current = self._stages.pop(job, None)
        if current is not None:
            self._bars.remove_task(current[1])

    def print(self, message: str) -> None:
        """A line above the bars, also when there is no terminal."""
        self.console.print(message, markup=False, highlight=False)
