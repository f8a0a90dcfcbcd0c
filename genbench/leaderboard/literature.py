"""Published results, ``literature.toml``: tier ``reported``, each with its source; none of them is measured here.

::

    [[result]]
    system = "Improved DDPM"
    family = "diffusion"
    source = "openai/improved-diffusion, README"
    confirmed = true                 # read at its source
    metrics = [
      { name = "fid", value = 3.19, protocol = "50 000 samples", extractor = "inception-v3" },
      { name = "bits_per_dim", value = 2.94, kind = "upper_bound", estimator = "vlb", confirmed = false },
    ]
"""

from __future__ import annotations

import math
import tomllib
from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from genbench import registry
from genbench.errors import DataError
from genbench.files import hash_value
from genbench.leaderboard.ids import published_id
from genbench.metrics import load_metric
from genbench.record import MetricKind, MetricResult
from genbench.report.names import mark

FILE = "literature.toml"


class PublishedValue(BaseModel):
    """One number. protocol: how it was measured, as far as its source says. confirmed, source: where they are not the
    result's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    value: Decimal
    """With the digits of its source."""
    kind: MetricKind = "estimate"
    estimator: str = ""
    extractor: str | None = None
    protocol: str = ""
    confirmed: bool | None = None
    source: str = ""

    @field_validator("value")
    @classmethod
    def _is_a_float(cls, value: Decimal) -> Decimal:
        if not math.isfinite(float(value)):
            raise ValueError(f"{value} is too large for a floating-point number")
        return value

    def as_metric(self) -> MetricResult:
        """The number as a result that compares with none that was measured."""
        known = self.name in registry.names("metrics")
        metric = load_metric(self.name) if known else None
        return MetricResult(
            name=self.name,
            value=float(self.value),
            unit=metric.unit if metric else "",
            higher_is_better=metric.higher_is_better if metric else None,
            kind=self.kind,
            estimator=self.estimator,
            extractor=self.extractor,
            comparable={"reported": self.protocol},
        )

    @property
    def text(self) -> str:
        """The number as its source gives it, with the mark of its kind."""
        return f"{mark(self.name, self.kind)} {self.value}".strip()

    @property
    def group(self) -> str:
        """Short id of its protocol; unlike that of any measured cell."""
        return hash_value(["reported", self.name, self.protocol, self.kind])[:8]


class Published(BaseModel):
    """A system with its published numbers. model: genbench's name of the same system, if it has one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str = Field(min_length=1)
    model: str = ""
    family: str = ""
    source: str = Field(min_length=1)
    confirmed: bool
    notes: str = ""
    metrics: tuple[PublishedValue, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Published:
        names = [(value.name, value.extractor) for value in self.metrics]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{self.system}: metric {twice[0]} is there twice")
        return self

    def is_confirmed(self, value: PublishedValue) -> bool:
        """Whether a number was read at its source."""
        return self.confirmed if value.confirmed is None else value.confirmed


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    result: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _apart(self) -> _File:
        """No two systems share an address on the page."""
        ids = [published_id(one.system) for one in self.result]
        twice = [one.system for one, name in zip(self.result, ids, strict=True) if ids.count(name) > 1]
        if twice:
            named = " and ".join(map(repr, twice))
            raise ValueError(f"{named} would have one address on the page; give each system a name of its own")
        return self


def read_literature(folder: Path) -> tuple[Published, ...]:
    """The published results of a leaderboard, in the order of the file; none where it has no such file.

    Raises:
        DataError: no TOML, or fields that do not fit; the message names the file, the entry and the field.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return ()
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)).result
    except (OSError, ValueError) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = ": ".join(part for part in (".".join(map(str, first["loc"])), first["msg"]) if part)
        else:
            reason = str(error)
        raise DataError(
            f"{path}: not readable as published results: {reason}. Each [[result]] needs system, source, confirmed and "
            "metrics = [{ name, value, ... }]."
        ) from None
