"""Labels and prompts from beside, laid over a source while it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from genbench.errors import DataError
from genbench.sources.base import ImageSource, Observations, OnError, SourceImage
from genbench.sources.classes import known, resolve
from genbench.sources.sidecar import Sidecar


class AnnotatedSource(ImageSource):
    """A source whose labels, captions or both are replaced.

    Values with names go to the images of these names, with or without suffix; others go by order, images that are
    skipped counted.

    Raises:
        DataError: another number of values than of images (at once where the source knows its length, else at the end
            of a pass), or an image without a value; gives both counts.
    """

    def __init__(self, source: ImageSource, labels: Sidecar | None, prompts: Sidecar | None) -> None:
        self._source = source
        self.kind, self.name, self.statistics = source.kind, source.name, source.statistics
        self.class_names = source.class_names
        self.has_captions = source.has_captions or prompts is not None
        self._labels = self._prompts = None
        if labels is not None:
            numbers, self.class_names = resolve(dict(enumerate(labels.values)), labels.where)
            self._labels = _Values(Sidecar(labels.where, list(numbers.values()), labels.names), "labels")
        if prompts is not None:
            self._prompts = _Values(prompts, "prompts")
        self._all = [values for values in (self._labels, self._prompts) if values is not None]
        self.length = source.length
        if source.length is not None:
            self._check_counts(source.length)
        for name in source.names() or ():
            for values in self._all:
                if values.named:
                    values.find(name, 0)

    def _check_counts(self, count: int) -> None:
        for values in self._all:
            values.check_count(self.name, count)

    def images(self, on_error: OnError = "fail", seen: Observations | None = None) -> Iterator[SourceImage]:
        """Read all images, see `ImageSource.images`."""
        seen = Observations() if seen is None else seen
        already, count = len(seen.skipped), 0
        for image in self._source.images(on_error, seen):
            count += 1
            label = image.label if self._labels is None else known(self._labels.find(image.name, image.index))
            caption = image.caption if self._prompts is None else self._prompts.find(image.name, image.index)
            yield SourceImage(image.pixels, image.name, label, caption, image.index)
        self._check_counts(count + len(seen.skipped) - already)

    def fingerprint(self, *, verify: bool = False) -> str | None:
        """That of the source."""
        return self._source.fingerprint(verify=verify)

    def names(self) -> Sequence[str] | None:
        """Those of the source."""
        return self._source.names()


class _Values:
    """Values to be found by place or by name."""

    def __init__(self, sidecar: Sidecar, what: str) -> None:
        self._sidecar = sidecar
        self._what = what
        self.named = sidecar.names is not None
        names = [PurePosixPath(name).as_posix() for name in sidecar.names or ()]
        stems = Counter(_stem(name) for name in names)
        self._by_name = dict(zip(names, sidecar.values))
        self._by_stem = {_stem(name): value for name, value in self._by_name.items() if stems[_stem(name)] == 1}

    def check_count(self, source: str, count: int) -> None:
        given = len(self._sidecar.values)
        if given != count:
            raise DataError(
                f"{self._sidecar.where} has {given} {self._what}, but {source} has {count} images. Give one for each."
            )

    def find(self, name: str, index: int) -> Any:
        values = self._sidecar.values
        if not self.named:
            if index >= len(values):
                raise DataError(
                    f"{self._sidecar.where} has {len(values)} {self._what}, but there are more images ({index + 1} so "
                    "far). Give one for each."
                )
            return values[index]
        if name in self._by_name:
            return self._by_name[name]
        if _stem(name) in self._by_stem:
            return self._by_stem[_stem(name)]
        raise DataError(f"{self._sidecar.where}: has no {self._what} for {name} ({len(values)} names).")


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix() if PurePosixPath(name).name else name
