"""What pytest-benchmark stored (``.benchmarks/**/*.json``), judged beside the records: medians of one name's rounds.

Times are compared only on one class of machine. Of the scatter between rounds a file holds quartiles, not the rounds;
the standard error of a median is had from them as in notched box plots (R. McGill, J. W. Tukey & W. A. Larsen, 1978).
Rounds follow one another within a second, so it is too small, which is why a tolerance belongs to every benchmark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from genbench.check.decide import SpeedTest, Waiting, with_scatter
from genbench.check.finding import Finding, Options
from genbench.check.speed import Contest
from genbench.errors import DataError, UsageError

METRIC = "benchmark_seconds"
TOLERANCE = "benchmarks"
"""Name of the tolerance of all benchmarks."""
_NORMAL_QUARTILES = 1.349


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: its median and quartile distance in seconds, its rounds, and the class of its machine, None where
    its processor is not known."""

    name: str
    median: float
    iqr: float
    rounds: int
    machine: str | None
    when: str


def read_benchmarks(source: Path) -> dict[str, Benchmark]:
    """The newest of each benchmark (by full name) in a file or a folder of pytest-benchmark's JSON.

    Raises:
        UsageError: no such file or folder, no JSON file in it, or no benchmark in any of them.
        DataError: a file that is not pytest-benchmark's; the message names it.
    """
    source = Path(source)
    files = [source] if source.is_file() else sorted(source.rglob("*.json"))
    if not files:
        raise UsageError(
            f"{source}: no JSON file of pytest-benchmark. Make one with `pytest --benchmark-json FILE`, or name the "
            "folder that `pytest --benchmark-autosave` writes to (.benchmarks)."
        )
    newest: dict[str, Benchmark] = {}
    for file in files:
        for found in _read_file(file):
            if found.name not in newest or found.when >= newest[found.name].when:
                newest[found.name] = found
    if not newest:
        raise UsageError(
            f"{source}: files of pytest-benchmark without any benchmark. Make one with `pytest --benchmark-json FILE` "
            "on tests that use its fixture and are not deselected or skipped."
        )
    return newest


def _read_file(path: Path) -> list[Benchmark]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        machine, when = _machine(value["machine_info"]), str(value.get("datetime", ""))
        return [_benchmark(entry, machine, when) for entry in value["benchmarks"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(
            f"{path}: not a readable file of pytest-benchmark ({type(error).__name__}: {error}). Make it again with "
            "`pytest --benchmark-json FILE`."
        ) from None


def _machine(info: Mapping[str, Any]) -> str | None:
    """What makes times comparable: system, architecture and processor, not the machine's name.

    None where the processor is not known: a single word in its place is that of the architecture.
    """
    named = str(info.get("processor") or "")
    processor = (info.get("cpu") or {}).get("brand_raw") or (named if len(named.split()) > 1 else None)
    parts = (info.get("system"), info.get("machine"), processor)
    return ", ".join(str(part) for part in parts if part) if processor else None


def _benchmark(entry: Mapping[str, Any], machine: str | None, when: str) -> Benchmark:
    stats = entry["stats"]
    median, iqr, rounds = float(stats["median"]), float(stats["iqr"]), int(stats["rounds"])
    if not (0 < median < math.inf and 0 <= iqr < math.inf and rounds > 0):
        raise ValueError(f"benchmark {entry['fullname']!r} has median {median}, iqr {iqr} and {rounds} rounds")
    return Benchmark(str(entry["fullname"]), median, iqr, rounds, machine, when)


def judge_benchmarks(
    candidate: Mapping[str, Benchmark], baseline: Mapping[str, Benchmark], options: Options
) -> list[Waiting]:
    """One finding or test for each benchmark of the baseline."""
    return [_judge(before, candidate.get(name), options) for name, before in baseline.items()]


def _judge(before: Benchmark, after: Benchmark | None, options: Options) -> Waiting:
    start = Finding(before.name, METRIC, "same", "", "median", baseline=before.median)
    if after is None:
        return replace(start, verdict="missing", reason="the new benchmarks do not have it")
    start = replace(start, candidate=after.median)
    if after.machine != before.machine or before.machine is None:
        reason = " against ".join(one.machine or "one whose processor is not known" for one in (before, after))
        reason = f"machine: {reason}"
        return replace(start, verdict="not comparable", reason=reason)
    start = replace(start, change=after.median - before.median)
    log_ratio = math.log(before.median / after.median)
    variance = _variance(before) + _variance(after)
    freedom = before.rounds + after.rounds - 2 if min(before.rounds, after.rounds) > 1 else 0
    tolerance = options.tolerance(TOLERANCE)
    contest = Contest(log_ratio, log_ratio, variance, 1.0, freedom)
    loss = after.median / before.median - 1.0
    test = SpeedTest(start, contest, loss, tolerance.margin(before.median) / before.median, tolerance.text)
    return with_scatter(test, "time it again in more rounds")


def _variance(found: Benchmark) -> float:
    """Of the logarithm of the median: that of a normal sample's, pi / 2 of its mean's."""
    sd = found.iqr / _NORMAL_QUARTILES / found.median
    return max(math.pi / 2 * sd**2 / found.rounds, 1e-8)
