"""Errors a user can act on: each says what was given, what was expected and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GenbenchError(Exception):
    """An expected failure. The command line prints its message without a traceback."""


class UsageError(GenbenchError):
    """Bad usage or bad input: an unknown name, a malformed file, an impossible option (exit status 2)."""


class DataError(UsageError):
    """A dataset, image, archive or checkpoint that cannot be read; the message names the file."""


class Interrupted(GenbenchError):  # noqa: N818
    """Work stopped on request with its state saved (exit status 130)."""


class NotConverged(GenbenchError):  # noqa: N818
    """An estimate that did not converge: its reason is shown in place of a number."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to ``name`` in small letters, or an empty string."""
    spelled = {one.lower(): one for one in known}
    matches = difflib.get_close_matches(name.lower(), list(spelled), n=1, cutoff=0.5)
    return f" Did you mean '{spelled[matches[0]]}'?" if matches else ""


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """Build the error for an unknown name of some kind, with the nearest known one and the full list."""
    names = sorted(known)
    return UsageError(f"Unknown {what} '{name}'.{nearest(name, names)} Known: {', '.join(names) or 'none'}.")
