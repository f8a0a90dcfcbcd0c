"""Records: validated when written and when read."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from genbench import record as record_module
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


STORED = Path(__file__).parent / "records"


def test_a_record_of_every_released_schema_is_stored_and_reads():
    stored = {int(path.stem.removeprefix("v")): path for path in STORED.glob("v*.json")}
    assert set(stored) == set(range(1, record_module.SCHEMA_VERSION + 1))
    assert set(record_module.MIGRATIONS) == set(range(1, record_module.SCHEMA_VERSION))
    for path in stored.values():
        found = read_record(path)
        assert (found.row, found.schema_version) == ("pca", record_module.SCHEMA_VERSION)
        assert found.find("fid").value == pytest.approx(4.96, abs=0.005)
        assert found.dataset.shape == (1, 8, 8)


def test_an_older_record_is_migrated_step_by_step(monkeypatch):
    told = []

    def migration(version):
        def migrate(value):
            told.append((version, value["schema_version"]))
            return {key: item for key, item in value.items() if key != "keys"}

        return migrate

    monkeypatch.setattr(record_module, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(record_module, "MIGRATIONS", {1: migration(1), 2: migration(2)})
    found = read_record(STORED / "v1.json")
    assert told == [(1, 1), (2, 2)]
    assert (found.schema_version, found.keys) == (3, {})


@pytest.mark.parametrize("version", [0, -1, 2, "1", None, 1.5, True])
def test_a_version_that_no_release_wrote_is_refused(tmp_path, version):
    value = json.loads((STORED / "v1.json").read_text())
    path = tmp_path / "x.json"
    path.write_text(json.dumps(value | {"schema_version": version}))
    with pytest.raises(DataError, match=rf"x.json: record schema version {version!r}, this genbench reads version"):
        read_record(path)


@pytest.mark.parametrize("broken", ["NaN", "-Infinity", '"\\ud800"'])
def test_what_is_no_json_is_refused_wherever_it_stands(tmp_path, broken):
    text = (STORED / "v1.json").read_text().replace('"threads": 1', f'"threads": {broken}', 1)
    assert broken in text
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"x.json: not a readable record"):
        read_record(path)
