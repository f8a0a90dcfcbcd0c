"""Options that hold names with commas between them."""

from __future__ import annotations

from genbench.errors import UsageError


def listed(option: str, text: str | None) -> list[str]:
    """The names in ``text``; none where the option is not given.

    Raises:
        UsageError: it is given, but holds no name, as an empty variable of a shell does.
    """
    if text is None:
        return []
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise UsageError(f"{option}: got '{text}', expected names with commas between them. Leave it out for all.")
    return found
