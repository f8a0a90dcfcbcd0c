"""The catalogue of standard weights, read from ``catalogue.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from genbench.errors import unknown


class WeightsEntry(BaseModel):
    """One file of weights.

    url: where it is published. files: names it may have, the first being the one it is stored under. size_bytes,
    sha256: those of the published file, or None where they are not known; then the first file used is pinned.
    sha256_prefix: first digits of the hash that the published file name carries. hash_source: who says the hash.
    licence: of the weights. used_by: extractors and metrics that ask for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    url: str
    files: tuple[str, ...] = Field(min_length=1)
    size_bytes: int | None = Field(default=None, gt=0)
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    sha256_prefix: str | None = Field(default=None, pattern="^[0-9a-f]{8,64}$")
    hash_source: Literal["author", "record", "first use"] = "first use"
    licence: str
    used_by: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name that it is stored under."""
        return self.files[0]


@cache
def _catalogue() -> MappingProxyType[str, WeightsEntry]:
    text = resources.files("genbench.weights").joinpath("catalogue.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    return MappingProxyType({name: WeightsEntry(name=name, **values) for name, values in table.items()})


def entries() -> tuple[WeightsEntry, ...]:
    """All entries, in the catalogue's order."""
    return tuple(_catalogue().values())


def entry(name: str) -> WeightsEntry:
    """An entry by name.

    Raises:
        UsageError: unknown name.
    """
    if name not in _catalogue():
        raise unknown("weights", name, _catalogue())
    return _catalogue()[name]


def by_url(url: str) -> WeightsEntry | None:
    """The entry that is published at ``url``, if there is one."""
    return next((weights for weights in entries() if weights.url == url), None)
