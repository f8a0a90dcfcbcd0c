"""Lazy registry over entry points: a name is listed without importing what it names.

Groups: ``genbench.models``, ``genbench.controls``, ``genbench.metrics``, ``genbench.extractors``. Two packages that
claim one name are an error; a misspelt name gets a suggestion.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from genbench.api import GenerativeModel

Group = Literal["models", "controls", "metrics", "extractors"]


@cache
def entries(group: Group) -> dict[str, EntryPoint]:
    """Entry points of a group by name, in order of their names.

    Raises:
        UsageError: two different objects claim one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=f"genbench.{group}"), key=lambda e: e.name):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            raise UsageError(
                f"The name '{entry.name}' in genbench.{group} is claimed by {other.value} and by {entry.value}. "
                "Uninstall one of the packages or rename one of the entry points."
            )
        found[entry.name] = entry
    return found


def names(group: Group) -> list[str]:
    """Known names of a group."""
    return list(entries(group))


def load(group: Group, name: str) -> Any:
    """Import what a name stands for.

    Raises:
        UsageError: unknown name, or an import that fails.
    """
    known = entries(group)
    if name not in known:
        raise unknown(group.removesuffix("s"), name, known)
    try:
        return known[name].load()
    except Exception as error:
        raise UsageError(f"Loading {group.removesuffix('s')} '{name}' ({known[name].value}) failed: {error}") from error


def load_model(reference: str) -> type[GenerativeModel]:
    """Resolve a model's name, a control's name, or ``FILE.py:Class``, to its class.

    Raises:
        UsageError: unknown name, missing file or class, or a class that is no `GenerativeModel`.
    """
    if ".py:" in reference:
        return _checked(_from_file(reference), reference)
    if reference in entries("controls"):
        return _checked(load("controls", reference), reference)
    if reference not in entries("models"):
        raise unknown("model", reference, [*names("models"), *names("controls")])
    return _checked(load("models", reference), reference)


def model_name(reference: str) -> str:
    """The row name of a model reference: itself, or the lower-cased class name of ``FILE.py:Class``."""
    return reference.rsplit(":", 1)[1].lower() if ".py:" in reference else reference


def name_of(model_class: type) -> str | None:
    """The name under which a model's class is registered, or None."""
    value = f"{model_class.__module__}:{model_class.__qualname__}"
    return next((name for name, entry in entries("models").items() if entry.value == value), None)


def _from_file(reference: str) -> Any:
    file, class_name = reference.rsplit(":", 1)
    path = Path(file).resolve()
    if not path.is_file():
        raise UsageError(f"No such model file: {file} (given as '{reference}', expected FILE.py:Class).")
    module_name = f"genbench_plugin_{path.stem}"
    module = sys.modules.get(module_name)
    if module is None or getattr(module, "__file__", None) != str(path):
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            raise UsageError(f"Importing {file} failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, class_name):
        from genbench.api import GenerativeModel

        classes = [n for n, v in vars(module).items() if isinstance(v, type) and issubclass(v, GenerativeModel)]
        raise unknown(f"class in {file}", class_name, classes)
    return getattr(module, class_name)


def _checked(value: Any, reference: str) -> type[GenerativeModel]:
    from genbench.api import GenerativeModel

    if not (isinstance(value, type) and issubclass(value, GenerativeModel)):
        raise UsageError(f"'{reference}' is {value!r}, expected a subclass of genbench.api.GenerativeModel.")
    return value
