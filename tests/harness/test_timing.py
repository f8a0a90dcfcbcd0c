"""Timing of samplers: windows, single images, rounds, and the machine's pace beside them."""

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toys
from torch import nn

from genbench import timing as timing_module
from genbench.api import ImageSpec, ModelConfig
from genbench.pace import Pacemaker, ReferenceLoad, paced, ready_seconds
from genbench.record import Timing, TimingWindow
from genbench.run.plan import plan_cells
from genbench.run.stages import is_timed, time_row, timing_key
from genbench.run.task import Monitor, Task
from genbench.suite import Row, load_suite
from genbench.timing import joined, time_sampling
from genbench.train import build_model

SPEC = ImageSpec(1, 4, 4, 5)


def model():
    return build_model(toys.Histogram, ModelConfig(), SPEC, 0).eval()


class Clock:
    """Seconds that pass only where a test says so."""

    def __init__(self):
        self.now = self.ready = 0.0

    def __call__(self):
        return self.now

    def work(self, seconds):
        self.now += seconds

    def wait(self, seconds):
        """Others have the processor."""
        self.now += seconds
        self.ready += seconds


def pacemaker(clock, cost):
    made = Pacemaker(load=lambda: clock.work(cost), clock=clock, waited=lambda: clock.ready)
    made.restart()
    return made


def test_the_load_runs_after_8_ms_for_a_tenth_of_the_time_since():
    clock = Clock()
    pace = pacemaker(clock, 0.001)
    pace.keep()
    clock.work(0.007)
    pace.keep()
    assert (pace.repetitions, pace.rate()) == (0, None)
    clock.work(0.002)
    pace.keep()
    assert pace.repetitions == 1
    assert pace.rate() == pytest.approx(1000)
    clock.work(0.05)
    pace.keep()
    assert pace.repetitions == 6
    assert pace.seconds == pytest.approx(0.006)
    pace.restart()
    assert (pace.repetitions, pace.seconds) == (0, 0.0)


def test_the_load_after_a_long_call_is_limited():
    clock = Clock()
    pace = pacemaker(clock, 0.01)
    clock.work(60.0)
    pace.keep()
    assert pace.seconds == pytest.approx(0.3, abs=0.011)


def test_pace_is_kept_after_forward_calls_and_no_longer_outside():
    one = model()
    calls = []
    with paced(one) as pace:
        pace.keep = lambda: calls.append(1)
        one.net()
        one.net()
    one.net()
    assert len(calls) == 2


def test_a_slower_machine_has_a_slower_pace_and_seconds_are_without_the_load(monkeypatch):
    """The sampler takes 20 ms, the load 2 ms; then everything takes twice as long."""
    found = {}
    for factor in (1.0, 2.0):
        clock = Clock()
        pace = pacemaker(clock, 0.002 * factor)
        monkeypatch.setattr(timing_module.time, "perf_counter", clock)
        monkeypatch.setattr(timing_module, "draw", lambda *_, f=factor, c=clock: c.work(0.02 * f))
        window = timing_module._window(model(), pace, torch.arange(8), 0, None, 0.3 * factor)
        found[factor] = window
    assert found[1.0].seconds == pytest.approx(0.02 * 15)
    assert found[1.0].images == found[2.0].images == 8 * 15
    assert found[1.0].pace == pytest.approx(500)
    assert found[2.0].pace == pytest.approx(250)
    rates = {factor: one.images / one.seconds / one.pace for factor, one in found.items()}
    assert rates[1.0] == pytest.approx(rates[2.0])


def test_others_on_the_processor_slow_the_pace_as_they_slow_the_work():
    """The work has half of the processor, its load sometimes none and mostly all; a wait of its own is its own."""
    clock = Clock()
    pace = pacemaker(clock, 0.002)
    for turn in range(10):
        clock.work(0.02)
        clock.wait(0.02)
        pace.keep()
        if turn == 3:
            pace._load = lambda: (clock.work(0.002), clock.wait(0.03))
        elif turn == 4:
            pace._load = lambda: clock.work(0.002)
    assert pace.rate() == pytest.approx(500 * 0.5)
    assert pace.given() == pytest.approx(0.5)
    pace.restart()
    for _ in range(10):
        clock.work(0.02)  # it slept, or read a file: ready it was not
        pace.keep()
    assert pace.rate() == pytest.approx(500)


def test_the_system_tells_how_long_a_thread_stood_ready():
    waited = ready_seconds()
    before, start = waited(), time.perf_counter()
    while time.perf_counter() - start < 0.05:
        pass
    assert 0 <= waited() - before <= time.perf_counter() - start


def test_where_the_system_does_not_tell_nothing_was_waited(monkeypatch):
    monkeypatch.setattr("genbench.pace._SCHEDULER", Path(__file__).parent / "no such file")
    assert ready_seconds()() == 0.0


def test_timing_counts_and_keeps_the_batch():
    found = time_sampling(model(), batch_size=6, seed=0, window_seconds=0.1)
    (window,) = found.windows
    assert found.batch_size == 6
    assert window.images % 6 == 0
    assert window.seconds >= 0.1
    assert found.evaluations_per_image == 1
    assert found.threads == torch.get_num_threads()
    assert found.reference_load == "linear-conv-1"
    assert 10 < window.pace < 1e5
    assert 0 < window.given <= 1
    assert len(found.latency_seconds) == len(found.latency_pace) == 1


def test_the_reference_load_is_fixed_and_stays_finite():
    load = ReferenceLoad()
    before = [weight.clone() for weight in load._linear]
    start = time.perf_counter()
    for _ in range(3):
        load()
    assert time.perf_counter() - start < 5
    assert all(torch.equal(a, b) for a, b in zip(before, load._linear))
    again = ReferenceLoad()
    assert torch.equal(load._kernel, again._kernel)


def one_round(rate, pace=None, peak=100):
    return Timing(
        batch_size=4,
        windows=[TimingWindow(images=8, seconds=8 / rate, pace=pace)],
        latency_seconds=[0.5],
        latency_pace=None if pace is None else [pace],
        reference_load=None if pace is None else "linear-conv-1",
        evaluations_per_image=1,
        precision="fp32",
        device="cpu",
        threads=1,
        peak_memory_bytes=peak,
    )


def test_rounds_are_joined_in_order():
    found = joined(one_round(10, 1000, 300), one_round(20, 900, 200))
    assert [w.seconds for w in found.windows] == [0.8, 0.4]
    assert [w.pace for w in found.windows] == [1000, 900]
    assert found.latency_pace == [1000, 900]
    assert found.latency_seconds == [0.5, 0.5]
    assert found.peak_memory_bytes == 300
    assert joined(one_round(10), one_round(20, 900)).latency_pace is None
    assert joined(one_round(10, peak=None), one_round(20, peak=None)).peak_memory_bytes is None


@pytest.fixture
def task(tmp_path):
    suite = load_suite("digits")
    cell = plan_cells(
        suite,
        [Row.parse("pca")],
        seeds=[0],
        dataset_fingerprint="",
        device=torch.device("cpu"),
        budget_scale=1.0,
        from_published=True,
        grey_values=True,
    )[0]
    return Task(tmp_path, suite, cell, "cpu")


@pytest.mark.parametrize(("seconds", "wanted"), [(0.3, 8), (0.59, 8), (1.7, 3), (60.0, 3)])
def test_slow_rows_make_do_with_three_windows(task, seconds, wanted):
    """Of eight planned windows of 0.3 s; three that took over 4.8 s are enough."""
    row = task.cell.rows[0]
    timing = None
    for done in range(1, 9):
        window = one_round(8 / seconds)
        timing = window if timing is None else joined(timing, window)
        task.store.write_receipt(row.stem, "timing", timing_key(task, row), 1.0, timing=timing.model_dump(mode="json"))
        assert is_timed(task, row) == (done >= wanted)


def test_more_windows_are_made_beside_those_that_are_there(task):
    """Another number of windows names the same timing; another length does not."""
    row = task.cell.rows[0]

    def asking(**settings):
        timing = task.suite.timing.model_copy(update=settings)
        return replace(task, suite=task.suite.model_copy(update={"timing": timing}))

    timing = one_round(10)
    for _ in range(7):
        timing = joined(timing, one_round(10))
    timing = timing.model_copy(update={"windows": [w.model_copy(update={"seconds": 0.3}) for w in timing.windows]})
    task.store.write_receipt(row.stem, "timing", timing_key(task, row), 1.0, timing=timing.model_dump(mode="json"))
    assert is_timed(task, row)
    assert is_timed(asking(windows=8), row)
    assert not is_timed(asking(windows=9), row)
    assert not is_timed(asking(window_seconds=0.4), row)


def test_each_job_adds_a_window_and_a_failure_leaves_its_reason(task, monkeypatch):
    row = task.cell.rows[0]
    monitor = Monitor(lambda *_: None, lambda: False)
    made = iter([one_round(10, 1000), one_round(20, 1000), RuntimeError("out of luck")])

    def timed(*_, **__):
        one = next(made)
        if isinstance(one, Exception):
            raise one
        return one

    monkeypatch.setattr("genbench.run.stages._load", lambda _: nn.Identity())
    monkeypatch.setattr("genbench.run.stages.time_sampling", timed)
    for windows in (1, 2):
        assert not time_row(task, row, monitor).failures
        receipt = task.store.receipt(row.stem, "timing", timing_key(task, row))
        assert len(receipt["timing"]["windows"]) == windows
    assert math.isclose(sum(w["seconds"] for w in receipt["timing"]["windows"]), 1.2)
    assert "out of luck" in time_row(task, row, monitor).failures[row.stem]
    assert not is_timed(task, row)
