"""Published weights: checkpoint folders that travel with a model's package, in ``weights/`` beside its source."""

from __future__ import annotations

from pathlib import Path

from genbench import registry
from genbench.api import GenerativeModel
from genbench.checkpoint import MANIFEST
from genbench.errors import UsageError, nearest, unknown
from genbench.recipe import source_path


def published_checkpoints(model_class: type[GenerativeModel]) -> dict[str, Path]:
    """Checkpoint folders by suite, as `published_folder` names them."""
    prefix = published_folder(model_class, "").name
    found = sorted(published_folder(model_class, "").parent.glob(f"{prefix}*/{MANIFEST}"))
    return {path.parent.name.removeprefix(prefix): path.parent for path in found}


def published_folder(model_class: type[GenerativeModel], suite: str) -> Path:
    """Where a suite's published weights of a model lie: ``weights/<model>-<suite>`` beside its source file.

    <model> is the registered name, or the source file's stem for a class that is not registered.
    """
    source = source_path(model_class)
    return source.parent / "weights" / f"{registry.name_of(model_class) or source.stem}-{suite}"


def find_checkpoint(source: str, suite: str | None = None) -> Path:
    """The checkpoint folder that ``source`` names: itself, or the published weights of a model.

    Raises:
        UsageError: neither a folder nor a model, or a model without published weights (says how to train it).
    """
    if (Path(source) / MANIFEST).is_file():
        return Path(source)
    if Path(source).is_dir():
        raise UsageError(
            f"{source} is no checkpoint: it has no {MANIFEST}. A run leaves checkpoints in DIR/checkpoints/."
        )
    if source not in registry.names("models"):
        known = registry.names("models")
        raise UsageError(
            f"'{source}' is neither a checkpoint folder nor a model.{nearest(source, known)} "
            f"Models: {', '.join(known)}."
        )
    published = published_checkpoints(registry.load_model(source))
    if not published:
        wanted = suite or "digits"
        raise UsageError(
            f"'{source}' has no published weights. Train it with `genbench run --suite {wanted} --models {source}`, "
            f"then `genbench sample runs/{wanted}/checkpoints/{source}-s0`."
        )
    if suite is not None and suite not in published:
        raise unknown(f"suite with published weights of {source}", suite, published)
    return published[suite] if suite else next(iter(published.values()))
