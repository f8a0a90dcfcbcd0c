"""What a report is made of: runs, folders of records, single records, baselines and leaderboards, each with a name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genbench.check.baseline import baseline_entries
from genbench.check.collect import LEADERBOARD, Entry
from genbench.errors import DataError, UsageError
from genbench.evaluation.result import read_scores
from genbench.report.load import Run, read_run


@dataclass
class Source:
    """Records of one origin.

    run: the run folder that they lie in, if any, with samples and galleries. pictures: a folder of PNG grids, as
    leaderboards keep them. notes: what was missing or damaged.
    """

    name: str
    entries: list[Entry]
    run: Run | None = None
    pictures: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def faults(self) -> list[str]:
        """What was missing or damaged, and the records that could not be read."""
        broken = [] if self.run is None else self.run.broken
        return [*self.notes, *(f"{file} is broken and left out: {reason}" for file, reason in broken)]


def read_sources(given: Sequence[str]) -> list[Source]:
    """Read each of ``given``: ``PATH`` or ``NAME=PATH``; ``leaderboard:SUITE`` may stand for a path.

    Without a name a source is called by the end of its path that tells it from the others.

    Raises:
        UsageError: none given, no such file, no records in it, or two sources of one name.
        DataError: a damaged record, or per-image scores that are not those it was written with.
    """
    if not given:
        raise UsageError("Give at least one run, folder of records, record, baseline or leaderboard:SUITE.")
    named = [name_and_path(text) for text in given]
    short = iter(_short_names([path for name, path in named if not name]))
    sources = [_read(name or next(short), path) for name, path in named]
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two sources are called '{name}'. Name them apart: NAME=PATH.")
    return sources


def run_source(folder: Path) -> Source:
    """The folder of a run: damaged or missing pieces are notes.

    Raises:
        UsageError: not the folder of a run.
    """
    run = read_run(folder)
    entries = []
    for row in run.rows:
        path = folder / "records" / f"{row.stem}.json"
        try:
            scores = read_scores(path.parent, row.record.per_image)
        except DataError as error:
            run.notes.append(str(error).replace(f"{folder}/", "", 1))
            scores = {}
        entries.append(Entry(row.record, scores, path))
    return Source(Path(folder).resolve().name, entries, run, notes=run.notes)


def name_and_path(text: str) -> tuple[str, str]:
    """Name (empty without one) and path; a path that is there as it stands is no pair of both."""
    if Path(text).exists() or text.startswith(LEADERBOARD):
        return "", text
    name, equals, path = text.partition("=")
    return (name.strip(), path) if equals and name.strip() and path else ("", text)


def _short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [re.sub(r"/(records|report)$", "", path.rstrip("/")).split("/") for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{'/'.join(one)} ({i + 1})" for i, one in enumerate(parts)]


def _read(name: str, given: str) -> Source:
    folder = Path(given)
    if (folder / "run.json").is_file():
        source = run_source(folder)
        source.name = name
        if not source.entries:
            broken = [reason for _, reason in source.run.broken] if source.run else []
            raise DataError(f"{given}: no record of it can be read. {' '.join(broken or source.notes)}")
        return source
    entries = baseline_entries(given)
    home = entries[0].path.parent.parent
    return Source(name, entries, pictures=home / "grids" if (home / "grids").is_dir() else None)
