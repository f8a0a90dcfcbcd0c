"""``genbench weights``: what a user sees and the exit status."""

import hashlib
from types import MappingProxyType

import pytest
from click.testing import CliRunner

from genbench.cli.weights_verb import command
from genbench.errors import DataError
from genbench.weights import WeightsEntry, catalogue

CONTENT = b"weights"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    monkeypatch.setenv("GENBENCH_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "200")
    listed = [
        WeightsEntry(name=name, summary="s", url=f"https://x/{name}.pth", files=(f"{name}.pth",), licence="MIT",
                     used_by=("metric-x",), size_bytes=7, sha256=sha256)
        for name, sha256 in (("known", hashlib.sha256(CONTENT).hexdigest()), ("open", None))
    ]  # fmt: skip
    monkeypatch.setattr(catalogue, "_catalogue", lambda: MappingProxyType({e.name: e for e in listed}))
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(command, [str(a) for a in arguments], standalone_mode=False)


def test_list_add_verify(weights):
    listed = call("list").output
    assert "missing" in listed and "hash on first use" in listed and "https://x/known.pth" in listed
    assert "metric-x" in listed and "MIT" in listed and hashlib.sha256(CONTENT).hexdigest() in listed
    assert call("verify").return_value == 0
    file = weights / "any.pth"
    file.write_bytes(CONTENT)
    assert "known: " in call("add", file).output
    assert "there" in call("list").output
    verified = call("verify")
    assert verified.return_value == 0 and "known.pth: ok" in verified.output and "1 files" in verified.output


def test_verify_fails_on_a_changed_file(weights):
    file = weights / "open.pth"
    file.write_bytes(b"first")
    assert call("add", file, "--name", "open").return_value == 0
    (weights / "store" / "open.pth").write_bytes(b"second")
    verified = call("verify")
    assert verified.return_value == 1 and "1 bad" in verified.output and "expected" in verified.output
    assert "bad" in call("list").output


def test_add_refuses_an_unknown_file(weights):
    file = weights / "any.pth"
    file.write_bytes(b"unknown")
    assert isinstance(call("add", file).exception, DataError)
