"""Rows of a report: records of one system under all its seeds, told apart from those of another origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from genbench.check.collect import Entry
from genbench.files import canonical_json
from genbench.record import Record
from genbench.report.names import metric_name
from genbench.report.seeds import pooled_record
from genbench.report.sources import Source


@dataclass(frozen=True)
class Part:
    """One record of a row, and where it came from."""

    entry: Entry
    source: Source

    @property
    def record(self) -> Record:
        return self.entry.record


@dataclass(frozen=True)
class Row:
    """One system. record: the mean over its seeds (`pooled_record`). parts: the records of the seeds, in order."""

    label: str
    record: Record
    parts: tuple[Part, ...]

    @property
    def entries(self) -> list[Entry]:
        return [part.entry for part in self.parts]

    @property
    def seeds(self) -> list[int]:
        return [part.record.seed for part in self.parts]

    def is_from(self, name: str) -> bool:
        """Whether all of it came from the source of that name."""
        return all(part.source.name == name for part in self.parts)


def join_rows(sources: Sequence[Source]) -> tuple[list[Row], list[str]]:
    """The rows of one suite's records, and notes on what was shown once though it was given twice.

    Records of one row are seeds of one system where their config and their data are equal and no seed is there twice;
    else the row is shown once for each source, labelled by the sources' names. Controls that came out the same are
    shown once.
    """
    groups: dict[str, dict[str, list[Part]]] = {}
    notes: list[str] = []
    for source in sources:
        for entry in source.entries:
            setups = groups.setdefault(entry.record.row, {})
            parts = setups.setdefault(_setup(entry.record), [])
            twin = next((part for part in parts if _is_same(part.record, entry.record)), None)
            if twin is None:
                parts.append(Part(entry, source))
            else:
                where = " and ".join(dict.fromkeys((twin.source.name, source.name)))
                but = "" if twin.record == entry.record else f", but for its costs; those of {twin.source.name} stand"
                notes.append(f"{entry.record.file_stem} is the same in {where}{but}: it is shown once.")
    rows = []
    for row, setups in groups.items():
        systems = [system for parts in setups.values() for system in _systems(parts)]
        for parts in systems:
            origin = ", ".join(dict.fromkeys(part.source.name for part in parts))
            label = row if len(systems) == 1 else f"{row} · {origin}"
            rows.append(Row(label, pooled_record([part.record for part in parts]), tuple(parts)))
    return _with_unique_labels(rows), notes


def _setup(record: Record) -> str:
    """What two records of one row must share to be seeds of one system."""
    published = record.training is not None and record.training.source == "published"
    return canonical_json([record.config, record.dataset.fingerprint, record.dataset.shape, published])


def _is_same(a: Record, b: Record) -> bool:
    """Whether two records are one: equal, or those of a control whose measured values are equal, costs aside."""
    if a == b:
        return True
    return a.control and b.control and (a.seed, _measured(a)) == (b.seed, _measured(b))


def _measured(record: Record) -> list[tuple[str, str, str | None, float | None]]:
    return [(m.name, m.estimator, m.extractor, m.value) for m in record.metrics if metric_name(m.name).group != "cost"]


def _systems(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts of one setup as one system, or as one a source where a seed is there twice; seeds in order."""
    seeds = [part.record.seed for part in parts]
    if len(set(seeds)) == len(seeds):
        return [sorted(parts, key=lambda part: part.record.seed)]
    origins: dict[str, list[Part]] = {}
    for part in parts:
        origins.setdefault(part.source.name, []).append(part)
    return [sorted(found, key=lambda part: part.record.seed) for found in origins.values()]


def _with_unique_labels(rows: Sequence[Row]) -> list[Row]:
    """Rows of one label (setups of one source) get a number."""
    seen: dict[str, int] = {}
    made = []
    for row in rows:
        seen[row.label] = seen.get(row.label, 0) + 1
        label = row.label if seen[row.label] == 1 else f"{row.label} ({seen[row.label]})"
        made.append(Row(label, row.record, row.parts))
    return made
