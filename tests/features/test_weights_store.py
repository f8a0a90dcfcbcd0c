"""The store of weights: recognised by hash, copied whole, pinned where no hash is published, checked before use."""

import hashlib
import json
import re
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from genbench.errors import DataError, UsageError
from genbench.weights import WeightsEntry, add, catalogue, entries, locate, state, states, store_folder
from genbench.weights.tensors import load_into, read_tensors

GOOD = b"the published weights"
GOOD_SHA256 = hashlib.sha256(GOOD).hexdigest()


def fake(name, **values):
    defaults = {"summary": "s", "url": f"http://127.0.0.1:9/{name}.pth", "files": (f"{name}.pth",), "licence": "MIT"}
    return WeightsEntry(**{"name": name, "used_by": ("x",), **defaults, **values})


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path / "store"))
    listed = (
        fake("pinned", sha256=GOOD_SHA256, files=("pinned.pth", "other-name.pth")),
        fake("open"),
        fake("prefixed", sha256_prefix=GOOD_SHA256[:8]),
    )
    monkeypatch.setattr(catalogue, "_catalogue", lambda: MappingProxyType({e.name: e for e in listed}))
    return tmp_path / "store"


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def test_catalogue_entries_are_complete_and_consistent():
    names = [weights.name for weights in entries()]
    assert {"inception-2015-12-05", "vgg16-imagenet", "lpips-alex", "clip-vit-b-32", "dinov2-vitl14"} <= set(names)
    for weights in entries():
        assert weights.url.startswith("https://") and weights.licence and weights.used_by
        assert (weights.sha256 is None) == (weights.hash_source == "first use")
        in_name = re.search(r"-([0-9a-f]{8})\.pth$", weights.url)
        if in_name:
            assert weights.sha256.startswith(in_name[1]) and weights.sha256_prefix == in_name[1]
        if "openaipublic" in weights.url:
            assert weights.url.split("/")[-2] == weights.sha256


def test_catalogue_has_the_hashes_of_the_installed_lpips_package():
    lpips = pytest.importorskip("lpips")
    from pathlib import Path

    for name, file in (("lpips-alex", "alex.pth"), ("lpips-vgg", "vgg.pth")):
        path = Path(lpips.__file__).parent / "weights" / "v0.1" / file
        found = catalogue.entry(name)
        assert (found.sha256, found.size_bytes) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


def test_a_file_is_recognised_by_its_hash_under_any_name(store, write):
    added = add(write("download(1).bin", GOOD))
    assert added.path == store / "pinned.pth" and added.path.read_bytes() == GOOD
    assert locate("pinned").path == added.path and locate("pinned").known
    assert [path.name for path in store.iterdir() if path.suffix not in (".lock",)] == ["pinned.pth"]


def test_an_unknown_file_is_refused_with_what_is_known(store, write):
    with pytest.raises(DataError, match=r"no known weights.*pinned \(pinned.pth\)"):
        add(write("mine.pth", b"other"))
    with pytest.raises(DataError, match=f"expected {GOOD_SHA256}"):
        add(write("other-name.pth", b"other"))
    with pytest.raises(DataError, match=f"expected {GOOD_SHA256}"):
        add(write("mine.pth", b"other"), "pinned")
    with pytest.raises(DataError, match="no such file"):
        add(store / "nowhere.pth")
    with pytest.raises(UsageError, match="Did you mean 'pinned'"):
        add(write("mine.pth", b"other"), "pined")
    assert not (store / "pinned.pth").exists()


def test_the_first_file_of_an_entry_without_a_hash_is_pinned(store, write):
    first = add(write("mine.pth", b"first"), "open")
    assert locate("open").sha256 == first.sha256 and locate("open").known
    with pytest.raises(DataError, match="first file used"):
        add(write("second.pth", b"second"), "open")
    first.path.write_bytes(b"changed")
    assert state(catalogue.entry("open")).condition == "bad"
    with pytest.raises(DataError, match="first file used"):
        locate("open", download=False)


def test_a_file_put_by_hand_is_pinned_at_its_first_use(store):
    store.mkdir()
    (store / "open.pth").write_bytes(b"by hand")
    assert not state(catalogue.entry("open")).pinned
    assert locate("open").known
    assert state(catalogue.entry("open")).pinned
    (store / "open.pth").write_bytes(b"changed")
    with pytest.raises(DataError, match="SHA-256 is"):
        locate("open")


def test_the_prefix_in_a_file_name_is_checked(store, write):
    store.mkdir()
    (store / "prefixed.pth").write_bytes(b"wrong")
    with pytest.raises(DataError, match=f"begins with {GOOD_SHA256[:8]}"):
        locate("prefixed")
    with pytest.raises(DataError, match="begins with"):
        add(write("prefixed.pth", b"wrong too"))


def test_a_bad_file_in_the_store_is_never_given_out(store):
    store.mkdir()
    (store / "other-name.pth").write_bytes(b"damaged")
    with pytest.raises(
        DataError, match=rf"other-name.pth: SHA-256 is \w+, expected {GOOD_SHA256}.*genbench weights add"
    ):
        locate("pinned")
    (store / "other-name.pth").write_bytes(GOOD)
    assert locate("pinned").path == store / "other-name.pth"


def test_missing_weights_say_which_file_to_put_where(store):
    with pytest.raises(DataError) as error:
        locate("pinned", download=False)
    for part in ("http://127.0.0.1:9/pinned.pth", str(store), "as pinned.pth", "genbench weights add", "digits-cnn"):
        assert part in str(error.value)
    with pytest.raises(DataError) as error:
        locate("pinned", download=False, packaged=False)
    assert str(store) in str(error.value) and "digits-cnn" not in str(error.value)


def test_a_users_file_is_used_with_a_note(store, write):
    given = write("mine.pth", b"mine")
    found = locate("pinned", given)
    assert found.path == given and found.sha256 == hashlib.sha256(b"mine").hexdigest()
    assert not found.known and found.sha256[:12] in found.note and GOOD_SHA256[:12] in found.note
    good = locate("pinned", write("good.pth", GOOD))
    assert good.known and good.note is None
    assert not locate("open", given).known
    with pytest.raises(DataError, match="no such file"):
        locate("pinned", store / "nowhere.pth")


def test_entries_outside_the_catalogue_are_pinned_and_verified(store):
    store.mkdir()
    other = fake("torchvision-other")
    (store / "torchvision-other.pth").write_bytes(b"first")
    locate(other)
    assert [s.condition for s in states() if s.entry.name == "torchvision-other"] == ["there"]
    (store / "torchvision-other.pth").write_bytes(b"second")
    assert [s.condition for s in states() if s.entry.name == "torchvision-other"] == ["bad"]


def test_damaged_pins_say_what_to_do(store):
    store.mkdir()
    for text in ("{", "[1]", json.dumps({"open.pth": {"name": "open"}})):
        (store / "pins.json").write_text(text)
        with pytest.raises(DataError, match=r"pins.json: not readable.*Delete it"):
            states()


def test_the_store_follows_its_variables(tmp_path, monkeypatch):
    monkeypatch.delenv("GENBENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path))
    assert store_folder() == tmp_path / "weights"
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path / "w"))
    assert store_folder() == tmp_path / "w"


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)


def test_tensors_are_read_from_both_formats_and_unwrapped(tmp_path):
    network = Small()
    wanted = network.state_dict()
    torch.save(wanted, tmp_path / "a.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in wanted.items()}, "epoch": 3}, tmp_path / "b.pth")
    save_file({k: v for k, v in wanted.items() if "num_batches" not in k}, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pth", "c.safetensors"):
        fresh = Small()
        load_into(fresh, read_tensors(tmp_path / name), tmp_path / name, "Small")
        assert torch.equal(fresh.linear.weight, network.linear.weight)


def test_unfit_tensors_are_named(tmp_path):
    state_dict = {f"linear.w{i}": torch.zeros(1) for i in range(5)} | {"linear.bias": torch.zeros(7)}
    path = tmp_path / "w.pth"
    with pytest.raises(DataError) as error:
        load_into(Small(), state_dict, path, "Small")
    message = str(error.value)
    assert message.startswith(f"{path}: not the weights of Small")
    assert "missing: linear.weight, norm.weight, norm.bias and 2 more" in message
    assert "unknown: linear.w0, linear.w1, linear.w2 and 2 more" in message
    assert "linear.bias (7,), expected (2,)" in message


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_files_that_are_no_weights_are_errors_and_run_nothing(tmp_path, capsys):
    torch.save({"w": Payload()}, tmp_path / "code.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"w": 3}, tmp_path / "number.pth")
    (tmp_path / "noise.pth").write_bytes(bytes(range(256)) * 10)
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "noise.safetensors").write_bytes(b"\xff" * 64)
    torch.save({"w": torch.zeros(1000)}, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:700])
    for path in (*sorted(tmp_path.iterdir()), tmp_path / "missing.pth"):
        with pytest.raises(DataError, match=re.escape(path.name)):
            read_tensors(path)
    assert "code ran" not in capsys.readouterr().out
