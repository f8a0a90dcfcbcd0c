"""Baselines: made, updated row by row, refused when tampered with, whole when a write breaks off."""

import json
from pathlib import Path

import numpy as np
import pytest
from check_fixture import entry, metric, scored, write

from genbench.check import baseline as module
from genbench.check.baseline import baseline_entries, choose, drop_rows, read_baseline, update_baseline
from genbench.check.collect import read_entries
from genbench.errors import DataError, UsageError


def run(folder, value=2.0, rows=("vae", "ddpm")):
    found, scores = scored("bits_per_dim", np.linspace(1, value, 30))
    return read_entries(write(folder, *(entry(row, [metric("fid", value, 0.1), found], scores=scores) for row in rows)))


@pytest.fixture
def gate(tmp_path):
    folder = tmp_path / "gate" / "digits"
    update_baseline(folder, run(tmp_path / "first"), reason="first baseline", author="Ada")
    return folder


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_first_baseline_holds_the_records_as_they_are(gate, tmp_path):
    made = read_baseline(gate)
    assert made.suite == "digits"
    assert [(update.author, update.reason, update.rows) for update in made.history] == [
        ("Ada", "first baseline", ["ddpm", "vae"])
    ]
    assert made.values["vae-s0"] == {"fid": 2.0, "bits_per_dim": pytest.approx(1.5)}
    names = {path.name for path in (tmp_path / "first" / "records").iterdir()}
    assert (
        {path.name for path in (gate / "records").iterdir()}
        == names
        == {"vae-s0.json", "vae-s0.npz"}
        | {
            "ddpm-s0.json",
            "ddpm-s0.npz",
        }
    )
    for name in names:
        assert (gate / "records" / name).read_bytes() == (tmp_path / "first" / "records" / name).read_bytes()
    assert [one.record.row for one in baseline_entries(gate)] == ["ddpm", "vae"]
    assert [one.record.row for one in baseline_entries(gate / "baseline.json")] == ["ddpm", "vae"]


def test_the_manifest_reads_as_a_diff(gate, tmp_path):
    before = (gate / "baseline.json").read_text().splitlines()
    update_baseline(gate, run(tmp_path / "second", 3.0, ["vae"]), reason="wider", author="Bo")
    after = (gate / "baseline.json").read_text().splitlines()
    assert '      "fid": 2.0,' in before and '      "fid": 3.0,' in after
    assert sum('"fid": 2.0' in line for line in after) == 1


def test_an_update_keeps_the_other_rows_and_the_history(gate, tmp_path):
    old = content(gate)
    made = update_baseline(gate, run(tmp_path / "second", 3.0, ["vae", "new"]), reason="wider", author="Bo")
    assert {stem: values["fid"] for stem, values in made.values.items()} == {
        "ddpm-s0": 2.0,
        "new-s0": 3.0,
        "vae-s0": 3.0,
    }
    assert [update.rows for update in made.history] == [["ddpm", "vae"], ["new", "vae"]]
    assert read_baseline(gate) == made
    new = content(gate)
    assert new["records/ddpm-s0.json"] == old["records/ddpm-s0.json"]
    assert new["records/vae-s0.json"] != old["records/vae-s0.json"]
    assert [path.name for path in gate.parent.iterdir()] == ["digits"]


def test_an_updated_row_drops_the_seeds_it_had(gate, tmp_path):
    found = entry("vae", [metric("fid", 4.0, 0.1)], seed=5)
    update_baseline(gate, read_entries(write(tmp_path / "second", found)), reason="another seed", author="Bo")
    assert sorted(path.name for path in (gate / "records").glob("vae*")) == ["vae-s5.json"]
    assert set(read_baseline(gate).values) == {"ddpm-s0", "vae-s5"}


def test_a_row_whose_name_begins_with_anothers_is_another(gate, tmp_path):
    update_baseline(gate, run(tmp_path / "b", 3.0, ["vae@fast", "vae-s"]), reason="more", author="Bo")
    assert set(read_baseline(gate).values) == {"ddpm-s0", "vae-s0", "vae@fast-s0", "vae-s-s0"}
    update_baseline(gate, run(tmp_path / "c", 4.0, ["vae"]), reason="one", author="Bo")
    assert {k: v["fid"] for k, v in read_baseline(gate).values.items()} == {
        "ddpm-s0": 2.0,
        "vae-s0": 4.0,
        "vae@fast-s0": 3.0,
        "vae-s-s0": 3.0,
    }


def test_several_estimators_and_extractors_are_told_apart(tmp_path):
    made = [metric("kid", 1.0, 0.1, estimator=how) for how in ("full", "subsets")]
    made += [metric("fid", value, 0.1, extractor=name) for name, value in (("a", 1.0), ("b", 2.0))]
    update_baseline(tmp_path / "gate", read_entries(write(tmp_path / "r", entry("vae", made))), reason="x", author="y")
    assert read_baseline(tmp_path / "gate").values["vae-s0"] == {
        "kid.full": 1.0,
        "kid.subsets": 1.0,
        "fid.plug-in (a)": 1.0,
        "fid.plug-in (b)": 2.0,
    }


def test_a_changed_record_is_refused(gate):
    path = gate / "records" / "vae-s0.json"
    path.write_text(path.read_text().replace('"value": 2.0', '"value": 9.0'))
    for read in (baseline_entries, read_baseline):
        with pytest.raises(DataError, match=r"vae-s0\.json: changed since the baseline was written"):
            read(gate)
    with pytest.raises(DataError, match="changed since"):
        baseline_entries(gate / "baseline.json")


def test_changed_scores_are_refused(gate):
    np.savez(gate / "records" / "vae-s0.npz", **{"bits_per_dim.mean": np.zeros(30)})
    with pytest.raises(DataError, match=r"vae-s0\.npz"):
        baseline_entries(gate)


def rewritten(gate, change):
    """The path of the manifest, after a change of what it holds."""
    path = gate / "baseline.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return path


def test_a_table_that_is_not_that_of_the_records_is_refused(gate):
    path = rewritten(gate, lambda value: value["values"]["vae-s0"].update(fid=9.0))
    for source in (gate, path, gate / "records", gate / "records" / "vae-s0.json"):
        with pytest.raises(DataError, match=r"baseline\.json does not hold the values that vae-s0\.json has"):
            baseline_entries(source)
    assert [one.record.row for one in baseline_entries(gate / "records" / "ddpm-s0.json")] == ["ddpm"]


def test_a_row_does_not_vanish_from_one_table_alone(gate):
    path = rewritten(gate, lambda value: value["values"].pop("vae-s0"))
    for source in (gate, path, gate / "records" / "ddpm-s0.json"):
        with pytest.raises(DataError, match=r"baseline\.json: it has a hash but no values of vae-s0\. .*baseline drop"):
            baseline_entries(source)


def test_a_row_does_not_vanish_with_its_record_and_hash(gate, tmp_path):
    (gate / "records" / "vae-s0.json").unlink()
    rewritten(gate, lambda value: value["hashes"].pop("vae-s0.json"))
    for read in (baseline_entries, read_baseline, lambda folder: drop_rows(folder, ["ddpm"], reason="x", author="y")):
        with pytest.raises(DataError, match=r"baseline\.json: it has values but no hash of vae-s0\. .*baseline drop"):
            read(gate)


def test_the_manifest_is_found_from_inside_the_baseline_and_through_links(gate, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(gate / "records")
    rewritten(gate, lambda value: value["values"]["vae-s0"].update(fid=9.0))
    inside = {gate: ["records", "records/vae-s0.json", "baseline.json"], gate / "records": [".", "vae-s0.json", ".."]}
    for folder, names in (*inside.items(), (tmp_path, ["link", "link/vae-s0.json"])):
        monkeypatch.chdir(folder)
        for name in names:
            with pytest.raises(DataError, match="does not hold the values that"):
                baseline_entries(name)


def test_records_that_are_a_link_belong_to_the_manifest_beside_it(gate, tmp_path):
    (gate / "records").rename(tmp_path / "elsewhere")
    (gate / "records").symlink_to(tmp_path / "elsewhere")
    rewritten(gate, lambda value: value["values"]["vae-s0"].update(fid=9.0))
    for source in (gate / "records", gate / "records" / "vae-s0.json"):
        with pytest.raises(DataError, match="does not hold the values that"):
            baseline_entries(source)


def test_records_named_inside_a_baseline_are_verified(gate):
    path = gate / "records" / "vae-s0.json"
    path.write_text(path.read_text().replace('"value": 2.0', '"value": 9.0'))
    for source in (gate / "records", path):
        with pytest.raises(DataError, match="changed since"):
            baseline_entries(source)


def test_what_else_lies_in_the_folder_is_kept(gate, tmp_path):
    (gate / "README.md").write_text("why")
    (gate / "notes" / "deep").mkdir(parents=True)
    (gate / "notes" / "deep" / "a.txt").write_text("a")
    (gate / "link").symlink_to("README.md")
    (gate / "records" / "stray").mkdir()
    update_baseline(gate, run(tmp_path / "second", 3.0, ["vae"]), reason="wider", author="Bo")
    assert (gate / "README.md").read_text() == "why"
    assert (gate / "notes" / "deep" / "a.txt").read_text() == "a"
    assert (gate / "link").is_symlink() and (gate / "link").read_text() == "why"


def test_a_link_is_followed(gate, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(gate)
    update_baseline(link, run(tmp_path / "second", 3.0, ["vae"]), reason="wider", author="Bo")
    assert link.is_symlink()
    assert read_baseline(gate).values["vae-s0"]["fid"] == 3.0
    assert [path.name for path in gate.parent.iterdir()] == ["digits"]


def test_removed_and_added_records_are_refused(gate):
    record = (gate / "records" / "vae-s0.json").rename(gate / "records" / "other-s0.json")
    with pytest.raises(DataError, match=r"other-s0\.json: not in baseline\.json"):
        read_baseline(gate)
    record.unlink()
    with pytest.raises(DataError, match=r"vae-s0\.json: missing, though baseline\.json lists it"):
        read_baseline(gate)


@pytest.mark.parametrize("change", [lambda v: v | {"extra": 1}, lambda v: {"suite": "digits"}, lambda v: [v]])
def test_a_manifest_that_is_none_is_refused(gate, change):
    path = gate / "baseline.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(DataError, match=r"baseline\.json: not a readable baseline"):
        read_baseline(gate)
    path.write_text(path.read_text()[:40])
    with pytest.raises(DataError, match="not a readable baseline"):
        read_baseline(gate)


def test_a_manifest_leads_to_no_file_outside(gate):
    path = gate / "baseline.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"hashes": value["hashes"] | {"../../first/records/vae-s0.json": "0" * 64}}))
    with pytest.raises(DataError, match="plain file name"):
        read_baseline(gate)


@pytest.mark.parametrize("row", ["../outside", "a/b", "<script>alert(1)</script>"])
def test_a_row_leads_to_no_file_outside(tmp_path, row):
    inside = read_entries(write(tmp_path / "first", entry("vae", [metric("fid", 1.0, 0.1)])))[0]
    named = inside.record.model_copy(update={"model": row})
    with pytest.raises(DataError, match="plain file name"):
        update_baseline(tmp_path / "gate", [type(inside)(named, {}, inside.path)], reason="x", author="y")
    assert {path.name for path in tmp_path.iterdir()} == {"first"}


def break_manifest(monkeypatch):
    def no_space(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_json", no_space)


def break_last_rename(monkeypatch):
    rename = Path.rename

    def interrupted(self, target):
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)


@pytest.mark.parametrize("how", [break_manifest, break_last_rename])
def test_an_interrupted_update_leaves_the_old_baseline(gate, tmp_path, monkeypatch, how):
    before, fresh = content(gate), run(tmp_path / "second", 3.0)
    how(monkeypatch)
    with pytest.raises((OSError, KeyboardInterrupt)):
        update_baseline(gate, fresh, reason="x", author="y")
    assert content(gate) == before
    assert [path.name for path in gate.parent.iterdir()] == ["digits"]


@pytest.mark.parametrize("how", [break_manifest, break_last_rename])
def test_an_interrupted_first_baseline_leaves_nothing(tmp_path, monkeypatch, how):
    fresh = run(tmp_path / "first")
    how(monkeypatch)
    with pytest.raises((OSError, KeyboardInterrupt)):
        update_baseline(tmp_path / "gates" / "digits", fresh, reason="x", author="y")
    assert list((tmp_path / "gates").iterdir()) == []


def test_what_makes_no_baseline_is_refused(gate, tmp_path):
    before, entries = content(gate), read_entries(tmp_path / "first")
    other = read_entries(write(tmp_path / "other", entry("vae", [metric("fid", 1.0, 0.1)], suite="mnist")))
    failed = read_entries(write(tmp_path / "failed", entry("vae", [], status="failed", reason="loss is nan")))
    for made, words, told in (
        (entries, {"reason": " "}, "needs its reason"),
        (entries, {"author": ""}, "needs its author"),
        ([], {}, "no records"),
        (other, {}, "a baseline of suite 'digits', these records are of 'mnist'"),
        ([*entries, *other], {}, "of one suite, these records are of digits, mnist"),
        (failed, {}, "Failed rows are no baseline: vae-s0"),
    ):
        with pytest.raises(UsageError, match=told):
            update_baseline(gate, made, **({"reason": "x", "author": "y"} | words))
    assert content(gate) == before
    with pytest.raises(UsageError, match=r"not empty and holds no baseline\.json"):
        update_baseline(tmp_path / "first", entries, reason="x", author="y")


def test_rows_are_chosen_by_their_own_names():
    entries = [entry(row, []) for row in ("a", "a@fast", "b", "c@slow")]
    assert choose(entries, []) == entries
    assert [one.record.row for one in choose(entries, ["a"])] == ["a"]
    assert [one.record.row for one in choose(entries, ["a@fast", "b"])] == ["a@fast", "b"]
    with pytest.raises(UsageError, match=r"Unknown row 'c'\. Known: a, a@fast, b, c@slow"):
        choose(entries, ["c"])


def test_a_dropped_row_is_gone_with_its_scores_and_the_history_says_why(gate, tmp_path):
    (gate / "note.md").write_text("mine")
    seeds = [entry("vae", [metric("fid", value, 0.1)], seed) for seed, value in enumerate((1.0, 2.0))]
    update_baseline(gate, read_entries(write(tmp_path / "seeds", *seeds)), reason="seeds", author="Ada")
    before = content(gate)
    made = drop_rows(gate, ["vae"], reason="retired", author="Bo")
    assert made == read_baseline(gate) and set(made.values) == {"ddpm-s0"}
    assert [(one.reason, one.rows, one.dropped) for one in made.history[1:]] == [
        ("seeds", ["vae"], []),
        ("retired", [], ["vae"]),
    ]
    assert {name for name in before if "vae" not in name} == set(content(gate))
    assert [one.record.row for one in baseline_entries(gate)] == ["ddpm"]


def test_a_row_goes_by_its_own_name_and_its_variants_by_theirs(tmp_path):
    folder = tmp_path / "gate"
    rows = ("ddpm", "ddpm@ddim20", "vae")
    update_baseline(folder, run(tmp_path / "run", rows=rows), reason="first", author="Ada")
    assert drop_rows(folder, ["ddpm@ddim20"], reason="x", author="Ada").history[-1].dropped == ["ddpm@ddim20"]
    update_baseline(folder, run(tmp_path / "run", rows=rows), reason="back", author="Ada")
    assert drop_rows(folder, ["ddpm"], reason="x", author="Ada").history[-1].dropped == ["ddpm"]
    assert set(read_baseline(folder).values) == {"ddpm@ddim20-s0", "vae-s0"}


@pytest.mark.parametrize(
    ("names", "told", "message"),
    [
        (["vea"], {}, "Did you mean 'vae'"),
        (["vae", "ddpm"], {}, "no row would stay. Remove the folder"),
        ([], {}, "Name the rows to drop"),
        (["vae"], {"reason": " "}, "needs its reason"),
        (["vae"], {"author": ""}, "needs its author"),
    ],
)
def test_what_cannot_be_dropped_is_refused_and_nothing_changes(gate, names, told, message):
    before = content(gate)
    with pytest.raises(UsageError, match=message):
        drop_rows(gate, names, **{"reason": "retired", "author": "Bo", **told})
    assert content(gate) == before


def test_only_a_baseline_drops_rows(gate, tmp_path):
    run(tmp_path / "records")
    with pytest.raises(UsageError, match=r"holds no baseline\.json"):
        drop_rows(tmp_path / "records", ["vae"], reason="x", author="Bo")
    (gate / "records" / "vae-s0.npz").write_bytes(b"changed")
    with pytest.raises(DataError):
        drop_rows(gate, ["ddpm"], reason="x", author="Bo")
