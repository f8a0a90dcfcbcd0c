"""A zip of image files (EDM, StyleGAN, or any other), read member by member in the order of their names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from genbench.data.tree import open_zip, read_classes, survey
from genbench.sources.base import ImageSource, Observations, OnError, SourceImage
from genbench.sources.classes import resolve
from genbench.sources.decoding import Encoded, decoded
from genbench.sources.hashing import hash_contents, remembered


class ZipSource(ImageSource):
    """Images of a zip; classes by ``dataset.json`` or by folder, see `genbench.data.tree`.

    Raises:
        DataError: not a zip, no images in it, an unfit ``dataset.json``, or members that are links or whose names lead
            out of the archive.
    """

    kind = "zip"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        with open_zip(path) as tree:
            found = survey(str(path), tree.files)
            classes = read_classes(tree, found)
        self._files = found.images
        self.length = len(self._files)
        self._labels, self.class_names = resolve(classes, str(path))

    def names(self) -> Sequence[str]:
        """Members' names."""
        return ["/".join(file) for file in self._files]

    def images(self, on_error: OnError = "fail", seen: Observations | None = None) -> Iterator[SourceImage]:
        """Read all images, see `ImageSource.images`."""
        with open_zip(self.path) as tree:
            encoded = (
                Encoded(
                    "/".join(file),
                    tree.where(file),
                    lambda file=file: tree.content(file),  # type: ignore[misc]
                    self._labels.get(file),
                )
                for file in self._files
            )
            yield from decoded(encoded, str(self.path), on_error, seen)

    def fingerprint(self, *, verify: bool = False) -> str:
        """SHA-256 over the images' names and contents, the same as of a folder of these files."""

        def make() -> str:
            with open_zip(self.path) as tree:
                return hash_contents(
                    ("/".join(file), hashlib.sha256(tree.content(file)).hexdigest()) for file in self._files
                )

        return remembered("zip", self.path, [("", self.path)], make, verify=verify)
