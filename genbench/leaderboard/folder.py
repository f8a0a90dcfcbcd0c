"""Reading the folder of a leaderboard: records with their scores, published results, rules, marks, cards, pictures."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from genbench import registry
from genbench.check.collect import Entry, by_row, read_entries, record_paths
from genbench.errors import DataError, GenbenchError, UsageError
from genbench.files import hash_file
from genbench.leaderboard.literature import FILE as LITERATURE
from genbench.leaderboard.literature import Published, read_literature
from genbench.leaderboard.marks import Mark, read_marks
from genbench.report.grids import read_picture
from genbench.report.pictures import is_safe_name
from genbench.suite import load_suite

RECORDS = "records"
RULES = "rules.md"
GRIDS = "grids"


@dataclass(frozen=True)
class Folder:
    """A leaderboard as its folder holds it. entries: by row, each with its seeds in order."""

    path: Path
    suite: str
    entries: dict[str, list[Entry]]
    literature: tuple[Published, ...]
    rules: str
    marks: dict[str, Mark]

    def is_verified(self, entry: Entry) -> bool:
        """Whether a record was measured again since it last changed."""
        mark = self.marks.get(entry.path.stem)
        return mark is not None and mark.record_sha256 == hash_file(entry.path)

    @property
    def records(self) -> list[Entry]:
        """All records, in order of rows and seeds."""
        return [entry for entries in self.entries.values() for entry in entries]


def read_folder(path: Path) -> Folder:
    """Read a leaderboard.

    Raises:
        UsageError: no such folder, or neither records nor published results in it.
        DataError: something in it is damaged, of another suite, or there twice; the message names the file.
    """
    path = Path(path)
    records = path / RECORDS
    if not records.is_dir() and not (path / LITERATURE).exists():
        raise UsageError(
            f"{path}: not the folder of a leaderboard: neither {RECORDS}/ nor {LITERATURE} is there. Give "
            "leaderboards/SUITE, or begin one with `genbench leaderboard add RECORD --to leaderboards/SUITE`."
        )
    suite = path.resolve().name
    entries = by_row(read_entries(path)) if record_paths(records) else {}
    for entry in (one for found in entries.values() for one in found):
        if entry.record.suite != suite:
            raise DataError(
                f"{entry.path} is a record of suite '{entry.record.suite}', this is the leaderboard of '{suite}'. "
                "Remove it, or rename the folder to the suite's name."
            )
    return Folder(path, suite, entries, read_literature(path), read_rules(path), read_marks(path))


def read_rules(path: Path) -> str:
    """The text of rules.md; empty where there is none.

    Raises:
        DataError: it is not text in UTF-8.
    """
    file = Path(path) / RULES
    try:
        return file.read_text(encoding="utf-8") if file.exists() else ""
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not text in UTF-8 ({error}). Save it as UTF-8.") from None


def first_rules(suite: str) -> str:
    """What rules.md of a new leaderboard says, for its owner to change."""
    return f"""# Rules of {suite}

A row is one model (and variant of its sampler) from `genbench run --suite {suite}`.

- Any budget is welcome; the record states it, and training time and parameters stand beside the quality.
- Choices (stopping, hyper-parameters, checkpoints) use the validation split. The test split is for reporting only.
- Hand in several seeds where training allows it (`--seed 0,1,2`): every seed is shown, with mean and spread.
- Rows rank together where `comparable` is equal; exact likelihoods, bounds and estimates rank apart. Speed
  ranks among rows of one device, thread count, precision and batch size; memory does so, and training time among rows
  of one device, where several seeds give them an interval.
"""


def describe_suite(name: str) -> str:
    """A packaged suite's description; empty for another one."""
    try:
        return load_suite(name).description
    except GenbenchError:
        return ""


@cache
def read_card(model: str) -> str:
    """The card of a registered model: ``<name>.md`` beside its source, as Markdown; empty where there is none.

    The model itself is not imported.
    """
    found = registry.entries("models").get(model)
    if found is None:
        return ""
    try:
        spec = importlib.util.find_spec(found.module)
    except (ImportError, ValueError):
        return ""
    if spec is None or not spec.origin:
        return ""
    source = Path(spec.origin)
    card = next((path for path in (source.with_name(f"{model}.md"), source.with_suffix(".md")) if path.exists()), None)
    return "" if card is None else card.read_text(encoding="utf-8")


def read_grid(path: Path, row: str) -> str:
    """``grids/<row>.png`` of a leaderboard as a ``data:`` URI; empty where there is none.

    Raises:
        DataError: no PNG, or a large one, which a page of many rows cannot hold.
    """
    file = Path(path) / GRIDS / f"{row}.png"
    return read_picture(file, row).uri if is_safe_name(row) and file.is_file() else ""
