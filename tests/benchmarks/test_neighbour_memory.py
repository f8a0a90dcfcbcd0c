"""Memory of precision and recall at 50 000 x 50 000, features included, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

WIDTH = int(os.environ.get("GENBENCH_BENCHMARK_WIDTH", "64"))
"""2048 for the width of InceptionV3: six minutes on one core. Memory beside the features hardly depends on it."""
SAMPLES = 50_000
MEASURE = """
import json, sys, time
import numpy as np
from genbench.features.base import Features
from genbench.metrics import MetricInputs, Side
from genbench.metrics.neighbours import Precision, Recall

num_samples, width = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
mix = rng.standard_normal((32, width), dtype=np.float32) / 6


def draw(shift):
    found = np.empty((num_samples, width), np.float32)
    for start in range(0, num_samples, 1000):
        rows = found[start : start + 1000]
        noise = rng.standard_normal(rows.shape, dtype=np.float32)
        rows[:] = np.maximum(rng.standard_normal((len(rows), 32), dtype=np.float32) @ mix + shift + 0.1 * noise, 0)
    return Features(found)


def peak():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmHWM"].split()[0]) * 1024


inputs = MetricInputs(Side.of("samples", draw(0.1)), Side.of("reference images", draw(0.0)))
before, start = peak(), time.process_time()
values = {metric.name: metric.compute(inputs)[0].value for metric in (Precision(), Recall())}
print(json.dumps({"bytes": peak(), "bytes_before": before, "cpu_seconds": time.process_time() - start, **values}))
"""
GIB = 2**30


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_precision_and_recall_stay_under_three_gib(benchmark):
    """The whole process, and what both sides' features at 2048 would add."""
    command = [sys.executable, "-c", MEASURE, str(SAMPLES), str(WIDTH)]
    figures = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    benchmark.extra_info.update(figures, width=WIDTH)
    benchmark.pedantic(lambda: None, rounds=1)
    print(f"\n{SAMPLES} x {SAMPLES}, d = {WIDTH}:", figures)
    wider = 2 * SAMPLES * (2048 - WIDTH) * 4
    assert figures["bytes"] + max(wider, 0) < 3 * GIB
    assert figures["bytes"] - figures["bytes_before"] < GIB
    assert 0.1 < figures["precision"] < 1 and 0.1 < figures["recall"] < 1
