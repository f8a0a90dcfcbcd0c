"""Suites: what is run on which dataset, how it is scored and timed, and what that takes. One TOML file a suite."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from genbench import registry
from genbench.errors import UsageError, nearest, unknown
from genbench.recipe import validated


@dataclass(frozen=True)
class Row:
    """A row of a suite: a model (name, control or ``FILE.py:Class``), and a variant of its sampler or None."""

    model: str
    variant: str | None = None

    @classmethod
    def parse(cls, text: str) -> Row:
        """Read ``model`` or ``model@variant``.

        Raises:
            UsageError: an empty model or variant.
        """
        model, at, variant = text.rpartition("@")
        if not at or "/" in variant or ".py:" in variant:
            model, at, variant = text, "", ""
        if not model or (at and not variant):
            raise UsageError(f"Row '{text}': expected MODEL or MODEL@VARIANT.")
        return cls(model, variant or None)

    def __str__(self) -> str:
        return f"{self.model}@{self.variant}" if self.variant else self.model


LEAST_WINDOWS = 3
MOST_TIMING = 2.0
"""Times the planned seconds of all windows, after which the least number of them will do."""


class SuiteTiming(BaseModel):
    """How sampling speed is measured: all rows in turn, a window each, as often as there are windows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: int = Field(64, ge=1)
    windows: int = Field(3, ge=LEAST_WINDOWS)
    window_seconds: float = Field(0.5, gt=0)
    """Shortest length of a window; it repeats whole batches."""


class SuiteLikelihood(BaseModel):
    """How likelihood is measured: on the first so many test images, or on all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_images: Annotated[int, Field(ge=1)] | Literal["all"] = "all"


class Suite(BaseModel):
    """A suite, as its TOML file says it; top-level keys and tables are the fields below."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    recipes: str | None = None
    """The table of the models' recipe files that is used; the suite's own name by default."""
    description: str = ""
    requirements: str = ""
    """What a run takes (time, memory, downloads), shown before it starts."""
    dataset: str
    """As `genbench.data.load_dataset` takes it."""
    models: tuple[str, ...] = ()
    """Rows ``model`` or ``model@variant``; variants share the trained weights."""
    controls: tuple[str, ...] = ()
    metrics: tuple[str, ...] = Field(min_length=1)
    extractor: str | None = None
    """The feature extractor of the metrics that need one; without it they are not applicable."""
    fallback_extractor: str | None = None
    """Used, and named with every number, where the weights of ``extractor`` are not here."""
    image_text: str | None = None
    """The image-text model of CLIP score and its kin, ``NAME`` or ``NAME:ARGUMENT``; without it they do not apply."""
    caption: str = "a photo of a {}."
    """The prompt that a sample of a class is held against; {} stands for the class's name."""
    num_samples: int = Field(ge=2)
    """Samples of every row, controls included."""
    reference: Literal["train"] = "train"
    """The split that distribution metrics compare with."""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    threads: int = Field(1, ge=1)
    """CPU threads of one cell."""
    sample_batch_size: int = Field(100, ge=1)
    options: dict[str, dict[str, Any]] = {}
    """Settings of metrics by name: table ``[options.METRIC]``."""
    timing: SuiteTiming = SuiteTiming()
    likelihood: SuiteLikelihood = SuiteLikelihood()

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        for field in ("models", "controls", "metrics", "seeds"):
            values = getattr(self, field)
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"{field}: '{twice}' is listed twice")
        if not self.models and not self.controls:
            raise ValueError("a suite needs at least one model or control")
        if any(seed < 0 for seed in self.seeds):
            raise ValueError("seeds must not be negative")
        if not is_template(self.caption):
            raise ValueError(f"caption: {self.caption!r} needs one {{}} for the name of the class")
        for name in self.options:
            if name not in self.metrics:
                raise ValueError(f"options.{name}: no metric of this suite.{nearest(name, self.metrics)}")
        return self

    @property
    def recipe_table(self) -> str:
        """The table of recipe files, and the name of the published weights, that this suite uses."""
        return self.recipes or self.name

    def rows(self) -> tuple[Row, ...]:
        """Rows of the models, then of the controls.

        Raises:
            UsageError: a row that is neither MODEL nor MODEL@VARIANT.
        """
        return tuple(Row.parse(text) for text in (*self.models, *self.controls))

    def check_names(self) -> None:
        """Look every model, control, metric and extractor up, without importing any of them.

        Raises:
            UsageError: a name that no installed package has, or a model file that is missing.
        """
        for text in self.models:
            check_model(Row.parse(text).model)
        groups: tuple[tuple[registry.Group, tuple[str, ...]], ...] = (
            ("controls", self.controls),
            ("metrics", self.metrics),
            ("extractors", tuple(name for name in (self.extractor, self.fallback_extractor) if name)),
            ("extractors", (self.image_text.partition(":")[0],) if self.image_text else ()),
        )
        for group, names in groups:
            for name in names:
                if name not in registry.names(group):
                    raise unknown(group.removesuffix("s"), name, registry.names(group))


def is_template(text: str) -> bool:
    """Whether a text has one ``{}`` and no other brace."""
    return text.count("{}") == 1 and not set("{}") & set(text.replace("{}", ""))


def check_model(reference: str) -> None:
    """Look a model or control up by its name, or its file, without importing it.

    Raises:
        UsageError: no installed package has the name, or the file is missing.
    """
    if ".py:" in reference:
        file = reference.rsplit(":", 1)[0]
        if not Path(file).is_file():
            raise UsageError(f"No such model file: {file} (given as '{reference}', expected FILE.py:Class).")
        return
    known = [*registry.names("models"), *registry.names("controls")]
    if reference not in known:
        raise unknown("model", reference, known)


def suite_names() -> list[str]:
    """Names of the packaged suites."""
    return sorted(entry.name.removesuffix(".toml") for entry in files("genbench.suites").iterdir() if _is_toml(entry))


def _is_toml(entry: Any) -> bool:
    return bool(entry.name.endswith(".toml"))


def load_suite(name_or_path: str | Path) -> Suite:
    """Read a packaged suite by name, or any ``FILE.toml``.

    Raises:
        UsageError: unknown name, missing or malformed file, an unknown key (the nearest is named) or an unfit value.
    """
    text = str(name_or_path)
    if text.endswith(".toml"):
        path = Path(text).expanduser()
        if not path.is_file():
            raise UsageError(f"No such suite file: {path}. Packaged suites: {', '.join(suite_names())}.")
        content, where = path.read_bytes(), str(path)
    else:
        if text not in suite_names():
            raise unknown("suite", text, suite_names())
        content, where = (files("genbench.suites") / f"{text}.toml").read_bytes(), f"{text}.toml"
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: not valid TOML: {error}") from None
    suite: Suite = validated(Suite, values, where)
    suite.rows()
    return suite
