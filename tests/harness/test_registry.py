"""Names, suggestions, collisions and plug-ins from files; the harness names no model."""

import ast
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from genbench import registry
from genbench.errors import UsageError

ROOT = Path(__file__).parents[2]


def test_misspelling_gets_a_suggestion():
    with pytest.raises(UsageError, match="Did you mean 'realnvp'"):
        registry.load_model("realnpv")


def test_collision_raises(monkeypatch):
    pair = [EntryPoint("x", "a:A", "genbench.models"), EntryPoint("x", "b:B", "genbench.models")]
    monkeypatch.setattr(registry, "entry_points", lambda group: pair)
    registry.entries.cache_clear()
    try:
        with pytest.raises(UsageError, match="claimed by a:A and by b:B"):
            registry.entries("models")
    finally:
        registry.entries.cache_clear()


def test_model_from_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from genbench.api import GenerativeModel\nclass Mine(GenerativeModel): pass\nother = 3\n")
    assert registry.load_model(f"{file}:Mine").__name__ == "Mine"
    assert registry.model_name(f"{file}:Mine") == "mine"
    with pytest.raises(UsageError, match="Did you mean 'Mine'"):
        registry.load_model(f"{file}:Mien")
    with pytest.raises(UsageError, match="expected a subclass"):
        registry.load_model(f"{file}:other")
    with pytest.raises(UsageError, match="No such model file"):
        registry.load_model("nowhere.py:Mine")


def test_file_that_raises_names_itself(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("raise ValueError('no luck')\n")
    with pytest.raises(UsageError, match=r"broken\.py failed: ValueError: no luck"):
        registry.load_model(f"{file}:Mine")


def test_harness_does_not_know_the_models():
    """No file of genbench/ imports baselines or names one of its models as a string."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = set(project["entry-points"]["genbench.models"])
    for path in (ROOT / "genbench").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not any(alias.name.split(".")[0] == "baselines" for alias in node.names), path
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "baselines", path
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in names, f"{path} names the model '{node.value}'"
