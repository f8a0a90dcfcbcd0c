"""Names of metrics as people write them."""

from __future__ import annotations

from genbench import registry

ALIASES = {"is": "inception_score"}


def metric_name(name: str) -> str:
    """The registered name of a metric that may be written shorter."""
    lowered = name.lower()
    return ALIASES.get(lowered, name if name in registry.names("metrics") else lowered)
