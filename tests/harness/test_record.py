"""Records: validated when written and when read."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from genbench.errors import DataError
from genbench.record import DatasetInfo, MetricResult, Record, read_record, schema, write_record


def record(**changes):
    values = {
        "genbench_version": "0",
        "suite": "digits",
        "dataset": DatasetInfo(
            name="digits", fingerprint="f", levels=17, shape=(1, 8, 8), train=1300, validation=200, test=297
        ),
        "model": "ddpm",
        "variant": "ddim20",
        "family": "diffusion",
        "config": {},
        "seed": 3,
        "status": "ok",
        "created": "2026-01-01T00:00:00+00:00",
        "metrics": [MetricResult(name="fid", value=1.5, ci95=(1.0, 2.0), n=297)],
    }
    return Record(**{**values, **changes})


def test_round_trip(tmp_path):
    path = write_record(tmp_path, record())
    assert path.name == "ddpm@ddim20-s3.json"
    assert read_record(path) == record()
    assert read_record(path).find("fid").value == 1.5
    assert read_record(path).find("kid") is None


def test_metrics_are_unique():
    twice = [MetricResult(name="fid", value=1.0), MetricResult(name="fid", value=2.0)]
    with pytest.raises(ValidationError, match="must be unique"):
        record(metrics=twice)
    record(metrics=[MetricResult(name="fid", value=1.0), MetricResult(name="fid", value=2.0, extractor="other")])


@pytest.mark.parametrize(
    "values",
    [
        {"value": float("nan")},
        {"value": 1.0, "ci95": (0.0, float("inf"))},
        {"value": None},
        {"value": None, "status": "failed"},
        {"value": 0.0, "status": "not_applicable", "reason": "no likelihood"},
    ],
)
def test_no_number_in_place_of_a_missing_one(values):
    with pytest.raises(ValidationError):
        MetricResult(name="fid", **values)


def test_failed_record_needs_a_reason():
    with pytest.raises(ValidationError, match="reason"):
        record(status="failed")


def test_damaged_records_name_the_file(tmp_path):
    path = write_record(tmp_path, record())
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=path.name):
        read_record(path)
    path.write_text(json.dumps({**json.loads(whole), "schema_version": 99}))
    with pytest.raises(DataError, match="schema version 99"):
        read_record(path)
    path.write_text(json.dumps({**json.loads(whole), "sead": 1}))
    with pytest.raises(DataError, match="sead"):
        read_record(path)


def test_schema_is_exported():
    exported = Path(__file__).parents[2] / "leaderboards" / "record.schema.json"
    assert json.loads(exported.read_text()) == schema(), "run scripts/export_schema.py"
    fields = set(schema()["properties"])
    named = "schema_version genbench_version suite dataset model config seed status reason metrics timing training"
    assert set(named.split()) <= fields
    assert {"environment", "created"} <= fields
