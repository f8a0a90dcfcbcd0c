"""Plans: every packaged suite can be planned, and a cell's key follows all code and settings that make its weights."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import genbench
from genbench import registry
from genbench.run import plan
from genbench.suite import Row, Suite, load_suite, suite_names

MODEL = "from genbench.api import GenerativeModel\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def key(reference, *, threads=1, **changed):
    suite = Suite(
        name="digits", dataset="d", models=[str(reference)], metrics=["parameters"], num_samples=2, threads=threads
    )
    settings = {"seeds": [0], "dataset_fingerprint": "f", "device": torch.device("cpu"), "budget_scale": 1.0}
    (cell,) = plan.plan_cells(suite, [Row(str(reference))], **{**settings, **changed})
    return cell.key


def follows(reference, file: Path) -> bool:
    """Whether the key changes with the contents of ``file``, and comes back with them."""
    before, text = key(reference), file.read_text()
    file.write_text(text + "# edited\n")
    edited = key(reference)
    file.write_text(text)
    assert key(reference) == before
    return edited != before


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """A folder on sys.path; modules that a test imports are forgotten after it."""
    known = set(sys.modules)
    folder = tmp_path / "on_path"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    yield folder
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("name", suite_names())
def test_packaged_suites_can_be_planned(name):
    suite = load_suite(name)
    cells = plan.plan_cells(
        suite,
        suite.rows(),
        seeds=suite.seeds,
        dataset_fingerprint="f",
        device=torch.device("cpu"),
        budget_scale=1.0,
    )
    assert sorted(row.name for cell in cells for row in cell.rows) == sorted(str(row) for row in suite.rows())
    assert len({cell.key for cell in cells}) == len(cells)


def test_helper_beside_a_plugin_counts_and_other_files_do_not(tmp_path):
    model = write(tmp_path / "mine.py", MODEL + "class Mine(GenerativeModel):\n def f(self):\n  import lone_helper\n")
    helper = write(tmp_path / "lone_helper.py", "import lone_second\n")
    second = write(tmp_path / "lone_second.py", "")
    unrelated = write(tmp_path / "lone_unrelated.py", "")
    assert follows(f"{model}:Mine", model)
    assert follows(f"{model}:Mine", helper)
    assert follows(f"{model}:Mine", second)
    assert not follows(f"{model}:Mine", unrelated)


def test_base_class_counts_however_it_was_imported(tmp_path, on_path):
    base = write(on_path / "plan_base.py", MODEL + "class Base(GenerativeModel): pass\n")
    model = write(
        tmp_path / "derived.py",
        "import importlib\nclass Derived(importlib.import_module('plan_base').Base): pass\n",
    )
    assert follows(f"{model}:Derived", base)


def test_relative_imports_and_packages_count(tmp_path, on_path):
    package = on_path / "plan_package"
    top = write(package / "__init__.py", "")
    inner = write(package / "sub" / "__init__.py", "from .of_init import g\n")
    of_init = write(package / "sub" / "of_init.py", "g = 1\n")
    nets = write(package / "sub" / "nets.py", "from .. import shared\nfrom ....... import beyond\n")
    shared = write(package / "shared.py", "import plan_package.parent.leaf\nfrom .sub.deep import f\n")
    parent = write(package / "parent" / "__init__.py", "")
    leaf = write(package / "parent" / "leaf.py", "")
    deep = write(package / "sub" / "deep.py", "f = 1\n")
    unrelated = write(package / "sub" / "unrelated.py", "")
    model = write(
        tmp_path / "user.py",
        MODEL + "class User(GenerativeModel):\n def f(self):\n  from plan_package.sub import nets\n",
    )
    for file in (top, inner, of_init, nets, shared, deep, parent, leaf):
        assert follows(f"{model}:User", file), file
    assert not follows(f"{model}:User", unrelated)
    assert not any(name.startswith("plan_package") for name in sys.modules)


def test_files_of_one_name_in_two_packages_both_count(tmp_path, on_path):
    first = write(on_path / "plan_one" / "utils.py", "A = 1\n")
    second = write(on_path / "plan_two" / "utils.py", "B = 1\n")
    model = write(
        tmp_path / "both.py",
        MODEL + "import plan_one.utils, plan_two.utils\nclass Both(GenerativeModel): pass\n",
    )
    reference = f"{model}:Both"
    assert follows(reference, first)
    assert follows(reference, second)
    before = key(reference)
    first.write_text("B = 1\n")
    second.write_text("A = 1\n")
    assert key(reference) != before, "contents that change places are another model"


def test_installed_packages_count_only_where_models_come_from(tmp_path, monkeypatch, on_path):
    site = on_path / "site-packages"
    nets = write(site / "plan_installed" / "nets.py", "")
    write(site / "plan_installed" / "__init__.py", "")
    monkeypatch.syspath_prepend(site)
    model = write(
        tmp_path / "borrower.py", MODEL + "import plan_installed.nets\nclass Borrower(GenerativeModel): pass\n"
    )
    assert not follows(f"{model}:Borrower", nets)
    known = {**registry.entries("models"), "x": EntryPoint("x", "plan_installed.model:X", "genbench.models")}
    groups = {"models": known, "controls": registry.entries("controls")}
    monkeypatch.setattr(registry, "entries", groups.__getitem__)
    assert follows(f"{model}:Borrower", nets)


def test_imports_that_are_no_python_or_not_there_are_passed_over(tmp_path):
    model = write(
        tmp_path / "odd.py",
        MODEL + "class Odd(GenerativeModel):\n def f(self):\n  import plan_broken, plan_missing.a, xml.dom, __main__\n",
    )
    broken = write(tmp_path / "plan_broken.py", "def (:\n")
    assert follows(f"{model}:Odd", broken)


def test_settings_change_the_key():
    keys = [
        key("noise"),
        key("noise", threads=2),
        key("noise", seeds=[1]),
        key("noise", dataset_fingerprint="other"),
        key("noise", device=torch.device("cuda")),
        key("noise", budget_scale=0.5),
        key("gaussian"),
    ]
    assert len(set(keys)) == len(keys)
    assert key("noise") == keys[0]


def test_the_harness_is_part_of_the_key(tmp_path, monkeypatch):
    before = key("noise")
    monkeypatch.setattr(plan, "TRAIN_VERSION", "other")
    assert key("noise") != before
    file = write(tmp_path / "noise.py", "a = 1\n")
    monkeypatch.setattr(genbench, "__file__", str(tmp_path / "__init__.py"))
    first = plan._harness_hash("noise.py")
    file.write_text("a = 2\n")
    assert plan._harness_hash("noise.py") != first
