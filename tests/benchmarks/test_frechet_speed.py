"""What the Fréchet distance costs at the width of InceptionV3, in one run: time against scipy, and memory."""

import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.linalg

from genbench.metrics.frechet import FittedSide, Measured
from genbench.metrics.gaussian import fit_gaussian, frechet_distance, gaussian_from_moments

WIDTH = 2048

STREAM = """
import sys, time, threading
import numpy as np, psutil
from genbench.metrics.frechet_stream import FrechetStream

width, total = int(sys.argv[1]), int(sys.argv[2])
peak, done, process = [0], [False], psutil.Process()

def watch():
    while not done[0]:
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.005)

rng = np.random.default_rng(0)
reference = FrechetStream(width)
reference.update(rng.standard_normal((2 * width, width), dtype=np.float32))
watcher = threading.Thread(target=watch)
watcher.start()
stream = FrechetStream(width)
for _ in range(total // 1000):
    stream.update(rng.standard_normal((1000, width), dtype=np.float32))
value = stream.compute(reference).value
done[0] = True
watcher.join()
print(peak[0], value)
"""


def seconds(work):
    start = time.process_time()
    work()
    return time.process_time() - start


def features(n, seed, spread=-2):
    """(n, WIDTH) float32 with scales over several orders of magnitude, as network features have."""
    rng = np.random.default_rng(seed)
    scales = rng.permutation(np.logspace(0, spread, WIDTH)).astype(np.float32)
    return rng.standard_normal((n, WIDTH), dtype=np.float32) * scales


def report(benchmark, figures):
    benchmark.extra_info.update(figures)
    benchmark.pedantic(lambda: None, rounds=1)
    print("\n", {name: round(value, 3) for name, value in figures.items()})


def test_trace_term_against_sqrtm(benchmark):
    """Full rank at d = 2048: at least ten times faster than `scipy.linalg.sqrtm` of the product."""
    x, y = (np.cov(features(5000, seed), rowvar=False) for seed in (0, 1))
    zero = np.zeros(WIDTH)
    found = {}
    ours = seconds(
        lambda: found.update(
            ours=frechet_distance(gaussian_from_moments(zero, x, 5000), gaussian_from_moments(zero, y, 5000))
        )
    )
    theirs = seconds(lambda: found.update(root=np.trace(scipy.linalg.sqrtm(x @ y)).real))
    assert found["ours"] == pytest.approx(np.trace(x) + np.trace(y) - 2 * found["root"], rel=1e-6)
    report(benchmark, {"ours_seconds": ours, "sqrtm_seconds": theirs, "ratio": theirs / ours})
    assert theirs / ours >= 10


def test_thousand_samples(benchmark):
    """N = 1000 of 2048 features, value and interval: under a second each way."""
    few, other = features(1000, 0), features(1000, 1)
    reference = FittedSide.of_features("reference images", features(5000, 2))
    frechet_distance(reference.fit, reference.fit)
    both = seconds(lambda: frechet_distance(fit_gaussian(few), fit_gaussian(other)))
    against_regular = seconds(lambda: frechet_distance(fit_gaussian(few), reference.fit))
    interval = seconds(lambda: Measured.of(FittedSide.of_features("samples", few), reference))
    figures = {"both_1000_seconds": both, "one_1000_seconds": against_regular, "with_interval_seconds": interval}
    report(benchmark, figures)
    assert max(both, against_regular) < 1


def test_interval_is_a_fraction_of_the_metric(benchmark):
    """10 000 samples: fitting both sides and the distance, without and with the interval."""
    x, y = features(10_000, 0), features(10_000, 1)
    value = seconds(lambda: frechet_distance(fit_gaussian(x), fit_gaussian(y)))
    sides = [FittedSide.of_features(who, each) for who, each in (("samples", x), ("reference images", y))]
    frechet_distance(sides[0].fit, sides[1].fit)
    trace = seconds(lambda: frechet_distance(sides[0].fit, sides[1].fit))
    measured = seconds(lambda: Measured.of(*sides))
    report(benchmark, {"value_seconds": value, "interval_seconds": measured - trace})
    assert measured - trace < value


def test_stream_memory(benchmark):
    """A stream of 100 000 features peaks where one of 10 000 does, within 5 %."""
    peaks = {}
    for total in (10_000, 100_000):
        command = [sys.executable, "-c", STREAM, str(WIDTH), str(total)]
        peaks[total] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0])
    figures = {f"peak_mib_{total}": peak / 2**20 for total, peak in peaks.items()}
    report(benchmark, figures)
    assert peaks[100_000] == pytest.approx(peaks[10_000], rel=0.05)
