"""Tolerances: how much worse a metric may be before it counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from genbench.errors import UsageError


@dataclass(frozen=True)
class Tolerance:
    """A share of the baseline's value, or an amount in the metric's unit."""

    share: float = 0.0
    amount: float = 0.0

    def margin(self, baseline: float) -> float:
        """In the metric's unit."""
        return self.share * abs(baseline) + self.amount

    @property
    def text(self) -> str:
        """ "5 %" or "0.1"."""
        return f"{self.amount:g}" if self.amount else f"{100 * self.share:g} %"


DEFAULT_TOLERANCES: Mapping[str, Tolerance] = MappingProxyType(
    {
        "images_per_second": Tolerance(share=0.05),
        "latency_seconds": Tolerance(share=0.10),
        "benchmarks": Tolerance(share=0.10),
    }
)
"""Repetitions within a run agree better than runs of the same code do."""


def parse_tolerances(text: str) -> dict[str, Tolerance]:
    """``"fid=2%,images_per_second=10%,bits_per_dim=0.01"`` by metric.

    Raises:
        UsageError: an entry that is not METRIC=NUMBER or METRIC=NUMBER%, twice the same metric, or a bad number.
    """
    found: dict[str, Tolerance] = {}
    for part in (piece.strip() for piece in text.split(",") if piece.strip()):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value.removesuffix("%"))
        except ValueError:
            number = math.nan
        if not name or not math.isfinite(number) or number < 0:
            raise UsageError(f"--tolerance: got '{part}', expected METRIC=NUMBER% or METRIC=NUMBER, as in fid=2%.")
        if name in found:
            raise UsageError(f"--tolerance: '{name}' is given twice.")
        found[name] = Tolerance(share=number / 100) if value.endswith("%") else Tolerance(amount=number)
    return found
