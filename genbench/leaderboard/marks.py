"""``verified.json``: which records were measured again, by whom, when and how. A changed record loses its mark."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from genbench.errors import DataError
from genbench.files import write_json

FILE = "verified.json"


class Mark(BaseModel):
    """One record that was measured again with the same outcome.

    record_sha256: of the record's file. metrics: those that were measured again; the others (timing, say) were not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    date: str
    how: str
    record_sha256: str
    device: str
    genbench_version: str
    metrics: list[str]

    @property
    def told(self) -> str:
        """The mark as a phrase."""
        return f"{self.how}, by {self.by} on {self.date[:10]} ({self.device}, genbench {self.genbench_version})"

    def joined(self, earlier: Mark | None) -> Mark:
        """This mark and an earlier one as one: an earlier one of the same record holds for what it measured again."""
        if earlier is None or earlier.record_sha256 != self.record_sha256 or set(earlier.metrics) <= set(self.metrics):
            return self
        if set(self.metrics) <= set(earlier.metrics):
            return earlier
        metrics = list(dict.fromkeys((*earlier.metrics, *self.metrics)))
        return self.model_copy(update={"metrics": metrics, "how": f"{self.how}; the rest: {earlier.told}"})


def read_marks(folder: Path) -> dict[str, Mark]:
    """Marks by file stem of their records; none where there is no such file.

    Raises:
        DataError: not readable, or fields that do not fit.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(stem): Mark.model_validate(mark) for stem, mark in dict(found).items()}
    except (OSError, ValueError, TypeError, ValidationError) as error:
        raise DataError(
            f"{path}: not readable ({str(error).splitlines()[0]}). Restore it, or delete it and verify its rows again."
        ) from None


def write_marks(folder: Path, marks: dict[str, Mark]) -> None:
    """Write all marks, atomically."""
    write_json(Path(folder) / FILE, {stem: mark.model_dump(mode="json") for stem, mark in sorted(marks.items())})
