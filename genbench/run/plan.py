"""The plan of a run: its cells (model x seed) with their rows (variants), and the content keys that name their work."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

from genbench import registry
from genbench.api import GenerativeModel, SamplerOptions
from genbench.errors import UsageError, unknown
from genbench.files import hash_file, hash_value
from genbench.recipe import Recipe, build_config, load_recipe, sampler_options, source_path
from genbench.suite import Row, Suite

TRAIN_VERSION = 1
"""Raise it when the harness would train the same recipe to other weights."""
SAMPLE_VERSION = 1
"""Raise it when the harness would draw other samples from the same weights."""


class RowPlan(BaseModel):
    """One row of the table: a variant of a cell's sampler (None is the recipe's default)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    variant: str | None
    options: SamplerOptions
    seed: int

    @property
    def stem(self) -> str:
        """File stem of everything stored for this row."""
        return f"{self.name}-s{self.seed}"


class CellPlan(BaseModel):
    """One model trained with one seed, and the rows sampled from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    model: str
    family: str
    control: bool
    config: dict[str, Any]
    recipe: Recipe
    steps: int
    seed: int
    key: str
    rows: tuple[RowPlan, ...]

    @property
    def stem(self) -> str:
        return f"{self.model}-s{self.seed}"


def plan_cells(
    suite: Suite,
    rows: Iterable[Row],
    *,
    seeds: Iterable[int],
    dataset_fingerprint: str,
    device: torch.device,
    budget_scale: float,
) -> list[CellPlan]:
    """Group rows into cells and name each by the hash of all that makes its weights.

    Raises:
        UsageError: unknown model or variant, a bad recipe or config.
    """
    grouped: dict[str, list[str | None]] = {}
    for row in rows:
        variants = grouped.setdefault(row.model, [])
        if row.variant not in variants:
            variants.append(row.variant)
    taken: dict[str, str] = {}
    cells = []
    for seed in seeds:
        for reference, variants in grouped.items():
            cell = _plan_cell(suite, reference, variants, seed, dataset_fingerprint, device, budget_scale)
            if taken.setdefault(cell.model, reference) != reference:
                raise UsageError(
                    f"'{reference}' and '{taken[cell.model]}' would both be row '{cell.model}'. Rename one."
                )
            cells.append(cell)
    return cells


def _plan_cell(
    suite: Suite,
    reference: str,
    variants: list[str | None],
    seed: int,
    dataset_fingerprint: str,
    device: torch.device,
    budget_scale: float,
) -> CellPlan:
    model_class = registry.load_model(reference)
    recipe = load_recipe(model_class, suite.name)
    config = build_config(model_class, recipe.config).model_dump(mode="json")
    steps = max(1, round(recipe.train.steps * budget_scale))
    name = registry.model_name(reference)
    key = hash_value(
        {
            "model": name,
            "source": source_hash(model_class),
            "config": config,
            "train": recipe.train.model_dump(mode="json"),
            "steps": steps,
            "dataset": dataset_fingerprint,
            "seed": seed,
            "device": device.type,
            "torch": torch.__version__,
            "version": TRAIN_VERSION,
        }
    )
    rows = tuple(_plan_row(model_class, name, recipe, variant, seed) for variant in variants)
    control = bool(getattr(model_class, "control", False))
    family = "control" if control else family_of(model_class)
    return CellPlan(
        reference=reference,
        model=name,
        family=family,
        control=control,
        config=config,
        recipe=recipe,
        steps=steps,
        seed=seed,
        key=key,
        rows=rows,
    )


def _plan_row(model_class: type[GenerativeModel], name: str, recipe: Recipe, variant: str | None, seed: int) -> RowPlan:
    if variant is None:
        return RowPlan(name=name, variant=None, options=sampler_options(model_class, recipe.sample), seed=seed)
    if variant not in recipe.variants:
        raise unknown(f"variant of {name}", variant, recipe.variants)
    options = sampler_options(model_class, {**recipe.sample, **recipe.variants[variant]})
    return RowPlan(name=f"{name}@{variant}", variant=variant, options=options, seed=seed)


def family_of(model_class: type) -> str:
    """The family a model belongs to: its `family` attribute, else the folder of its source file."""
    return str(getattr(model_class, "family", "") or source_path(model_class).parent.name)


def source_hash(model_class: type) -> str:
    """SHA-256 over a model's source file and the files it imports from its own top-level package."""
    path = source_path(model_class)
    package = model_class.__module__.split(".")[0]
    return hash_value({p.name: hash_file(p) for p in sorted(_closure(path, package))})


def _closure(path: Path, package: str) -> set[Path]:
    found, waiting = set(), [path]
    while waiting:
        current = waiting.pop()
        if current in found:
            continue
        found.add(current)
        for module in _imported(current):
            if module.split(".")[0] == package:
                waiting.extend(_module_files(module))
    return found


def _imported(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules.update((node.module, *(f"{node.module}.{alias.name}" for alias in node.names)))
    return modules


def _module_files(module: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return []
    return [Path(spec.origin)] if spec is not None and spec.origin and spec.origin.endswith(".py") else []
