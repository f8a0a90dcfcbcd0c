"""Tables behind ``genbench list``: column titles and rows of text."""

from __future__ import annotations

from collections.abc import Sequence

from genbench import registry
from genbench.errors import GenbenchError
from genbench.run.plan import family_of
from genbench.suite import load_suite, suite_names

Listing = tuple[tuple[str, ...], Sequence[tuple[str, ...]]]


def suites() -> Listing:
    """Packaged suites."""
    rows = []
    for name in suite_names():
        suite = load_suite(name)
        rows.append((name, f"{len(suite.models)} models, {len(suite.controls)} controls", suite.description))
    return ("suite", "rows", "what"), rows


def models() -> Listing:
    """Registered models, then controls; one that does not import is listed with its error."""
    rows = []
    for group in ("models", "controls"):
        for name in registry.names(group):
            try:
                model = registry.load_model(name)
                family = "control" if group == "controls" else family_of(model)
                rows.append((name, family, _first_line(model.__doc__)))
            except GenbenchError as error:
                rows.append((name, "?", str(error)))
    return ("model", "family", "what"), rows


def metrics() -> Listing:
    """Registered metrics."""
    rows = []
    for name in registry.names("metrics"):
        metric = registry.load("metrics", name)
        better = {True: "higher", False: "lower", None: "-"}[metric.higher_is_better]
        rows.append((name, better, metric.unit or "-", metric.summary))
    return ("metric", "better", "unit", "what"), rows


def extractors() -> Listing:
    """Registered feature extractors and whether they can be used here."""
    from genbench.features import extractor_status

    return ("extractor", "status"), [(name, extractor_status(name).detail) for name in registry.names("extractors")]


def _first_line(text: str | None) -> str:
    return (text or "").strip().splitlines()[0] if (text or "").strip() else ""
