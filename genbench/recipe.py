"""Recipes: a model's settings for a suite, read from the TOML file beside the model's source.

A recipe file has one table a suite: ``[digits.config]`` holds the model's config, ``[digits.train]`` the `TrainRecipe`,
``[digits.sample]`` the default `SamplerOptions`, and ``[digits.variants.NAME]`` sampler options of further rows that
share the trained weights (row name ``model@NAME``). A suite without a table of its own uses ``[default]``.
"""

from __future__ import annotations

import inspect
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genbench import registry
from genbench.errors import UsageError, nearest, unknown

if TYPE_CHECKING:
    from genbench.api import GenerativeModel, ModelConfig, SamplerOptions


class TrainRecipe(BaseModel):
    """How the harness trains a model. The budget is in steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(64, ge=1)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate over the budget after warm-up: constant, or to zero in a line or a half cosine."""
    warmup_steps: int = Field(0, ge=0)
    grad_clip: float | None = Field(None, gt=0)
    """Largest norm of the gradient of each optimiser's parameters."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay of the average of the model's `averaged` networks, at step n limited to (1 + n) / (10 + n)."""
    validate_every: int = Field(100, ge=1)
    patience: int | None = Field(None, ge=1)
    """Stop after this many validations without a new best; None spends the whole budget."""
    keep_best: bool = True
    """End with the weights of the best validation; False ends with the last (the loss is no measure of quality)."""
    checkpoint_every: int = Field(500, ge=1)
    horizontal_flip: bool = False
    """Mirror each training image with probability one half; changes the density that is modelled."""
    dynamic_binarisation: bool = False
    """Redraw each binary training image from its grey values, Bernoulli(x / 255), whenever it is used."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of forward and backward passes on an accelerator; a CPU always uses fp32."""


class Recipe(BaseModel):
    """A model's recipe for one suite: raw model config, training, default sampling and variants."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: dict[str, Any] = {}
    train: TrainRecipe = TrainRecipe()
    sample: dict[str, Any] = {}
    variants: dict[str, dict[str, Any]] = {}


def validated(model: type[BaseModel], values: dict[str, Any], where: str) -> Any:
    """Build a pydantic model; an unknown key or bad value becomes a `UsageError` naming the nearest known key."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError("\n".join(_explain(problem, model, where) for problem in error.errors())) from None


def _explain(problem: Any, model: type[BaseModel], where: str) -> str:
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        hint = nearest(path[-1], known)
        return f"{where}: unknown key '{'.'.join(path)}'.{hint} Known: {', '.join(sorted(known))}."
    return f"{where}: {'.'.join(path)}: {problem['msg']} (got {problem['input']!r})."


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for name in path:
        info = model.model_fields.get(name)
        annotation = info.annotation if info else None
        if not (inspect.isclass(annotation) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def source_path(model: type) -> Path:
    """The file that defines a model class."""
    return Path(inspect.getfile(model))


def recipe_path(model: type[GenerativeModel]) -> Path:
    """Where a model's recipes live: a TOML file beside its source, of its registered name if there is such a file (as a
    source with several systems needs), else of the source's name."""
    source = source_path(model)
    own = source.with_name(f"{registry.name_of(model)}.toml")
    return own if own.exists() else source.with_suffix(".toml")


def load_recipe(model: type[GenerativeModel], suite: str) -> Recipe:
    """Read the recipe of ``model`` for ``suite``; a model without a recipe file gets the defaults.

    Raises:
        UsageError: malformed TOML, an unknown key, or neither a table for the suite nor ``[default]``.
    """
    path = recipe_path(model)
    if not path.exists():
        return Recipe()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path.name}: not valid TOML: {error}") from None
    if suite not in tables and "default" not in tables:
        raise UsageError(
            f"{path.name} has no recipe for suite '{suite}' (it has: {', '.join(tables)}). "
            f"Add a table [{suite}.train] or [default.train]."
        )
    name = suite if suite in tables else "default"
    return validated(Recipe, tables[name], f"{path.name} [{name}]")


def build_config(model: type[GenerativeModel], values: dict[str, Any]) -> ModelConfig:
    """Validate a model config."""
    return validated(model.Config, values, f"config of {model.__name__}")


def sampler_options(model: type[GenerativeModel], values: dict[str, Any]) -> SamplerOptions:
    """Build `SamplerOptions`, refusing those that the model does not honour.

    Raises:
        UsageError: an option unknown to genbench, or one that this model ignores.
    """
    from genbench.api import SamplerOptions

    known = {f.name for f in fields(SamplerOptions)}
    for name in values:
        if name not in known:
            raise unknown("sampler option", name, known)
        if name not in model.sampler_options:
            honoured = ", ".join(sorted(model.sampler_options)) or "none"
            raise UsageError(f"{model.__name__} does not honour the sampler option '{name}' (it honours: {honoured}).")
    return SamplerOptions(**values)
