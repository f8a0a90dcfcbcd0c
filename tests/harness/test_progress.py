"""Progress where there is no terminal: a line now and then, with what is done and how long the rest takes."""

import io
from typing import Any, cast

import pytest
from rich.console import Console

from genbench.run.progress import Progress, duration


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(terminal: bool, events: list[tuple[float, str, str, int, int]]) -> list[str]:
    """What is printed for (seconds, job, stage, done, total)."""
    clock, stream = Clock(), io.StringIO()
    progress = Progress(Console(file=stream, width=200, force_terminal=terminal), clock)
    for seconds, job, stage, done, total in events:
        clock.now = seconds
        progress.update(cast(Any, job), stage, done, total)
    return stream.getvalue().splitlines()


def test_a_line_a_minute_tells_what_is_left():
    events = [(float(t), "a", "training made", 10 * t, 12000) for t in range(0, 200, 10)]
    assert lines(False, events) == [
        "  training made: 600 of 12,000, about 19 min left",
        "  training made: 1,200 of 12,000, about 18 min left",
        "  training made: 1,800 of 12,000, about 17 min left",
    ]
    assert lines(True, events) == []


def test_a_slow_stage_has_at_most_fifty_lines():
    events = [(60.0 * t, "a", "training nade", t, 1000) for t in range(1001)]
    said = lines(False, events)
    assert len(said) == 50 and said[0].endswith(": 20 of 1,000, about 16 h 20 min left")


def test_what_a_resumed_stage_had_done_before_is_no_speed_of_this_run():
    events = [(0.0, "a", "training vae", 5000, 10000), (100.0, "a", "training vae", 6000, 10000)]
    assert lines(False, events) == ["  training vae: 6,000 of 10,000, about 7 min left"]


def test_jobs_side_by_side_and_stages_in_turn_are_kept_apart():
    events = [
        *((0.0, job, f"training {job}", 0, 100) for job in "ab"),
        (61.0, "a", "training a", 50, 100),
        (62.0, "b", "sampling b", 1, 100),
        (70.0, "b", "sampling b", 90, 100),
    ]
    assert lines(False, events) == ["  training a: 50 of 100, about 1 min left"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(40.4, "40 s"), (61, "1 min"), (3570, "1 h 00 min"), (5100, "1 h 25 min"), (90000, "25 h 00 min")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said
