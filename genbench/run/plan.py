"""The plan of a run: its cells (model x seed) with their rows (variants), and the content keys that name their work."""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict

import genbench
from genbench import registry
from genbench.api import GenerativeModel, SamplerOptions
from genbench.checkpoint import MANIFEST, read_manifest
from genbench.errors import UsageError, unknown
from genbench.files import hash_file, hash_value
from genbench.published import published_checkpoints
from genbench.recipe import Recipe, TrainRecipe, build_config, load_recipe, sampler_options, source_path, validated
from genbench.suite import Row, Suite

_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))


def _harness_hash(*files: str) -> str:
    folder = Path(genbench.__file__).parent
    paths = [path for file in files for path in _python_files(folder / file)]
    return hash_value({path.relative_to(folder).as_posix(): hash_file(path) for path in paths})


def _python_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.py")) if path.is_dir() else [path]


TRAIN_VERSION = _harness_hash("batches.py", "controls.py", "data/base.py", "images.py", "noise.py", "train.py")
"""Hash of the harness's code that makes weights; a part of every cell's key."""
SAMPLE_VERSION = _harness_hash("sample.py")
"""Hash of the harness's code that draws samples, beyond what `TRAIN_VERSION` covers; a change keeps the weights."""
LIKELIHOOD_VERSION = _harness_hash("likelihood")
GALLERY_VERSION = _harness_hash("run/gallery.py")


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
    published: Path | None = None
    """Folder of the published weights that are scored in place of a training."""

    @property
    def stem(self) -> str:
        return f"{self.model}-s{self.seed}"

    @property
    def train(self) -> dict[str, Any]:
        """Settings of the training, with the steps of its budget."""
        return self.recipe.train.model_dump(mode="json") | {"steps": self.steps}


def plan_cells(
    suite: Suite,
    rows: Iterable[Row],
    *,
    seeds: Iterable[int],
    dataset_fingerprint: str,
    device: torch.device,
    budget_scale: float,
    from_published: bool = False,
    grey_values: bool = True,
) -> list[CellPlan]:
    """Group rows into cells and name each by the hash of all that makes its weights.

    With ``from_published``, models are those with published weights for the suite; controls are fitted as ever. Without
    ``grey_values`` of the training images, recipes do without dynamic binarisation.

    Raises:
        UsageError: unknown model or variant, a bad recipe or config, or no published weights where they are asked for.
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
            recipe = load_recipe(registry.load_model(reference), suite.recipe_table)
            if not grey_values:
                recipe = recipe.model_copy(
                    update={"train": recipe.train.model_copy(update={"dynamic_binarisation": False})}
                )
            cell = _plan_cell(suite, reference, variants, recipe, seed, dataset_fingerprint, device, budget_scale)
            if from_published and not cell.control:
                cell = _with_published_weights(suite, cell)
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
    recipe: Recipe,
    seed: int,
    dataset_fingerprint: str,
    device: torch.device,
    budget_scale: float,
) -> CellPlan:
    model_class = registry.load_model(reference)
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
            "threads": suite.threads,
            "torch": torch.__version__,
            "harness": TRAIN_VERSION,
        }
    )
    rows = tuple(_plan_row(model_class, name, recipe, variant, seed) for variant in variants)
    control = bool(getattr(model_class, "control", False))
    family = "control" if control else family_of(model_class, reference)
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


def with_published_weights(suite: Suite, rows: Iterable[Row]) -> list[Row]:
    """The rows whose models have published weights for the suite, and the controls."""
    kept = []
    for row in rows:
        model_class = registry.load_model(row.model)
        control = bool(getattr(model_class, "control", False))
        if control or suite.recipe_table in published_checkpoints(model_class):
            kept.append(row)
    return kept


def _with_published_weights(suite: Suite, cell: CellPlan) -> CellPlan:
    """The cell with its published weights, named by them; config and settings are those they were trained with."""
    model_class = registry.load_model(cell.reference)
    folder = published_checkpoints(model_class).get(suite.recipe_table)
    if folder is None:
        raise UsageError(
            f"'{cell.model}' has no published weights for suite '{suite.name}'. Leave it out, or train it: run without "
            "--from-published."
        )
    manifest = read_manifest(folder)
    key = hash_value(
        {"published": manifest.weights_sha256, "trained": manifest.key, "source": source_hash(model_class)}
    )
    train = validated(TrainRecipe, manifest.train, f"{folder / MANIFEST}: train")
    recipe = cell.recipe.model_copy(update={"train": train})
    changes = {"published": folder, "config": manifest.config, "recipe": recipe, "steps": train.steps, "key": key}
    return cell.model_copy(update=changes)


def _plan_row(model_class: type[GenerativeModel], name: str, recipe: Recipe, variant: str | None, seed: int) -> RowPlan:
    if variant is None:
        return RowPlan(name=name, variant=None, options=sampler_options(model_class, recipe.sample), seed=seed)
    if variant not in recipe.variants:
        raise unknown(f"variant of {name}", variant, recipe.variants)
    options = sampler_options(model_class, {**recipe.sample, **recipe.variants[variant]})
    return RowPlan(name=f"{name}@{variant}", variant=variant, options=options, seed=seed)


def family_of(model_class: type, reference: str = "") -> str:
    """The family a model belongs to: its `family` attribute, else the folder of its source file, else (of one that is
    referred to as FILE.py:Class) "plug-in"."""
    folder = "plug-in" if ".py:" in reference else source_path(model_class).parent.name
    return str(getattr(model_class, "family", "") or folder)


def source_hash(model_class: type) -> str:
    """SHA-256 over the module names and contents of the Python files that a model is made of.

    These are its own file, those of its base classes, and all that they import, directly or not. Left out are genbench
    (see `TRAIN_VERSION`), the standard library and installed packages; but the top-level packages of this model and of
    the registered models count wherever they are installed. Nothing is imported to find out.
    """
    registered = {entry.module for entry in registry.entries("models").values()}
    packages = {module.split(".")[0] for module in {model_class.__module__, *registered}}
    path = source_path(model_class)
    waiting = [(model_class.__module__, path)]
    for parent in model_class.__mro__:
        waiting.extend(_model_files(parent.__module__, packages, path.parent))
    digests: dict[tuple[str, Path], str] = {}
    while waiting:
        module, file = waiting.pop()
        if (module, file) in digests:
            continue
        digests[module, file] = hash_file(file)
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        for imported in _imported(file.read_bytes(), package):
            waiting.extend(_model_files(imported, packages, None if package else file.parent))
    return hash_value(sorted([module, digest] for (module, _), digest in digests.items()))


@cache
def _imported(source: bytes, package: str) -> frozenset[str]:
    """Absolute names of what a file of ``package`` imports, whether modules or not; none if it is no Python."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return frozenset()
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:
                continue
            names.update((base, *(f"{base}.{alias.name}" for alias in node.names)))
    return frozenset(names)


def _model_files(module: str, packages: set[str], folder: Path | None) -> Iterator[tuple[str, Path]]:
    """Names and files of ``module`` and of the packages it lies in, as far as they are part of a model.

    A top-level module that Python does not find is looked up in ``folder``, that of the importing file.
    """
    top, *rest = module.split(".")
    if top == genbench.__name__:
        return
    name, spec = top, _top_level(top, folder)
    while spec is not None:
        if spec.origin and spec.origin.endswith(".py"):
            file = Path(spec.origin)
            if top in packages or not _is_installed(file):
                yield name, file
        if not rest or spec.submodule_search_locations is None:
            return
        name = f"{name}.{rest.pop(0)}"
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)


def _top_level(name: str, folder: Path | None) -> ModuleSpec | None:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module in memory without a spec
        return None
    return PathFinder.find_spec(name, [str(folder)]) if spec is None and folder is not None else spec


def _is_installed(file: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(file.parts) or file.is_relative_to(_STANDARD_LIBRARY)
