"""A folder of image files, read recursively in the order of their relative names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from genbench.data.tree import folder_tree, read_classes, survey
from genbench.errors import DataError
from genbench.sources.base import ImageSource, Observations, OnError, SourceImage
from genbench.sources.classes import resolve
from genbench.sources.decoding import Encoded, decoded
from genbench.sources.hashing import hash_files, remembered


class FolderSource(ImageSource):
    """Images of a folder; classes by ``dataset.json`` or by subfolder, see `genbench.data.tree`.

    Raises:
        DataError: no folder, no images in it, or an unfit ``dataset.json``.
    """

    kind = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.resolve().name or str(path)
        self._tree = folder_tree(path)
        found = survey(str(path), self._tree.files)
        self._files = found.images
        self.length = len(self._files)
        self._labels, self.class_names = resolve(read_classes(self._tree, found), str(path))

    def names(self) -> Sequence[str]:
        """Names relative to the folder, with ``/``."""
        return ["/".join(file) for file in self._files]

    def images(self, on_error: OnError = "fail", seen: Observations | None = None) -> Iterator[SourceImage]:
        """Read all images, see `ImageSource.images`."""
        encoded = (
            Encoded(
                "/".join(file),
                self._tree.where(file),
                lambda file=file: self._tree.content(file),  # type: ignore[misc]
                self._labels.get(file),
            )
            for file in self._files
        )
        return decoded(encoded, str(self.path), on_error, seen)

    def fingerprint(self, *, verify: bool = False) -> str:
        """SHA-256 over the images' names and contents."""
        files = [("/".join(file), self.path.joinpath(*file)) for file in self._files]
        irregular = next((path for _, path in files if path.exists() and not path.is_file()), None)
        if irregular is not None:
            raise DataError(f"{irregular}: not a regular file. Remove it.")
        return remembered("files", self.path, files, lambda: hash_files(files), verify=verify)
