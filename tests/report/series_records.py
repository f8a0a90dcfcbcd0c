"""Histories of dated records for tests: one folder a day, one commit each."""

from __future__ import annotations

from report_fixture import metric, record

from genbench.record import write_record

NOISE = [0.02, -0.05, 0.04, 0.01, -0.03, 0.05, -0.02, 0.03, -0.04, 0.0, 0.02, -0.01]


def made(day, hour=0):
    return f"2026-11-{day:02d}T{hour:02d}:00:00+00:00"


def sha(number):
    """A commit's hash that starts like no other."""
    return f"{number:02x}" * 20


def put(home, day, row, found, *, folder=None, commit=True, seed=0, hour=0, environment=None, **more):
    """A record of one row and day, in ``home/DATE/records``."""
    where = {"device": "cpu"} | ({"commit": sha(day)} if commit else {}) | (environment or {})
    one = record(row, found, seed=seed, environment=where, created=made(day, hour), **more)
    return write_record(home / (folder or f"2026-11-{day:02d}") / "records", one)


def values(home, row, numbers, name="fid", half=0.1, *, start=1, **more):
    for day, number in enumerate(numbers, start=start):
        put(home, day, row, [metric(name, number, half)], **more)


def jump(count=12, at=8, size=1.0, base=2.0):
    return [base + e + size * (i >= at) for i, e in enumerate(NOISE[:count])]


def only(history):
    (one,) = history.series
    return one
