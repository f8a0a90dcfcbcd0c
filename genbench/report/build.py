"""Assembling a report: the records of one run or of any number of sources, suite by suite, as HTML or as text."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from genbench.check.collect import Entry
from genbench.errors import UsageError, unknown
from genbench.files import write_text
from genbench.report.changes import Changes, changes_of
from genbench.report.differences import SPEEDS, check_baseline
from genbench.report.page import render
from genbench.report.rows import join_rows
from genbench.report.section import Section, make_section
from genbench.report.series.page import series_html, series_text
from genbench.report.series.read import read_series
from genbench.report.sources import Source, run_source
from genbench.report.text import INTERVALS, changes_text, sections_csv, sections_text


def build_report(run_dir: Path) -> Path:
    """Write ``run_dir/report/index.html`` atomically from the run's records, samples and gallery; returns its path.

    What is missing or damaged is noted in the report.

    Raises:
        UsageError: ``run_dir`` is not the folder of a run.
    """
    path = Path(run_dir) / "report" / "index.html"
    write_text(path, to_html(make_sections([run_source(Path(run_dir))])))
    return path


def write_report(
    sources: Sequence[Source], out: Path, *, baseline: str | None = None, models: Sequence[str] = ()
) -> Path:
    """Write the records of all sources side by side, in the format of the suffix of ``out``; returns ``out``.

    baseline: label of a row that all others are held against, or name of a source whose rows are. models: models or
    rows to keep, all without any.

    Raises:
        UsageError: an unknown suffix, baseline or model, or a file that cannot be written.
    """
    write = _format(
        out, {".html": to_html, ".md": sections_text(".md"), ".tex": sections_text(".tex"), ".csv": sections_csv}
    )
    write_text(out, write(make_sections(choose(sources, models), baseline)))
    return out


def write_changes(a: Source, b: Source, out: Path, *, models: Sequence[str] = ()) -> Path:
    """Write what changed from one source to another, row by row: settings, environment and numbers; returns ``out``.

    Raises:
        UsageError: an unknown suffix or model, no row that both have, or a file that cannot be written.
    """
    texts = {suffix: changes_text(suffix) for suffix in (".md", ".tex", ".csv")}
    write = _format(out, {".html": _changes_html, **texts})
    first, second = choose([a, b], models)
    write_text(out, write(changes_of(first, second)))
    return out


def write_series(folders: Sequence[str], metric: str, out: Path, *, rows: Sequence[str] = ()) -> Path:
    """Write a metric over the commits of folders of dated records, with its steps; returns ``out``.

    Raises:
        UsageError: an unknown suffix, metric or row, fewer than two points, or a file that cannot be written.
    """
    texts = {suffix: series_text(suffix) for suffix in (".md", ".tex", ".csv")}
    write = _format(out, {".html": series_html, **texts})
    write_text(out, write(read_series(folders, metric, rows=rows or None)))
    return out


def check_writable(out: Path) -> None:
    """Refuse a file that cannot be written, before the work; its folders may be yet to be made.

    Raises:
        UsageError: something speaks against it.
    """
    if (why := _unwritable(Path(out))) is not None:
        raise UsageError(f"{out}: cannot be written ({why}). Name another file with --out.")


def _unwritable(out: Path) -> str | None:
    try:
        if out.is_dir():
            return "it is a folder"
        above = next(folder for folder in out.absolute().parents if folder.exists() or folder.is_symlink())
        if not above.is_dir():
            return f"{above} is no folder"
        return None if os.access(above, os.W_OK | os.X_OK) else f"nothing may be written in {above}"
    except OSError as error:
        return error.strerror or type(error).__name__


def make_sections(sources: Sequence[Source], baseline: str | None = None) -> list[Section]:
    """A section for each suite of the records, in order of appearance.

    Raises:
        UsageError: no suite has the baseline.
    """
    suites = list(dict.fromkeys(entry.record.suite for source in sources for entry in source.entries))
    of_suite = {suite: [_of_suite(source, suite) for source in sources] for suite in suites}
    if not suites:
        of_suite = {_name_of(sources[0]): list(sources)}
    joined = {suite: join_rows(found) for suite, found in of_suite.items()}
    if baseline is not None:
        check_baseline(baseline, [rows for rows, _ in joined.values()])
    sections: list[Section] = []
    for suite in of_suite:
        rows, notes = joined[suite]
        present = [source for source in of_suite[suite] if source.entries or len(sources) == 1]
        prefix = "" if len(of_suite) == 1 else _prefix(suite, [section.prefix for section in sections])
        sections.append(make_section(suite, rows, present, prefix=prefix, baseline=baseline, notes=notes))
    return sections


def _prefix(suite: str, taken: Sequence[str]) -> str:
    """The suite's name for ids and addresses."""
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", suite).strip("-") or "suite"
    names = (f"{slug}-", *(f"{slug}-{number}-" for number in range(2, len(taken) + 2)))
    return next(name for name in names if name not in taken)


def to_html(sections: Sequence[Section]) -> str:
    """The page of sections."""
    lede = sections[0].sentence if len(sections) == 1 else f"{len(sections)} suites side by side."
    charts = [chart for section in sections for chart in section.charts]
    title = ", ".join(section.title for section in sections)
    return render("report.html", title=title, lede=lede, charts=charts, sections=sections, speeds=SPEEDS)


def _of_suite(source: Source, suite: str) -> Source:
    return replace(source, entries=[entry for entry in source.entries if entry.record.suite == suite])


def _name_of(source: Source) -> str:
    """The suite of a run without records."""
    suite = source.run.manifest.get("suite") if source.run else None
    return str(suite["name"]) if isinstance(suite, dict) and suite.get("name") else source.name


def choose(sources: Sequence[Source], models: Sequence[str]) -> list[Source]:
    """The sources with only the named models or rows; as they are without names.

    Raises:
        UsageError: a name that no record has.
    """
    rows = {entry.record.row for source in sources for entry in source.entries}
    for name in models:
        if name not in rows and name not in {row.split("@")[0] for row in rows}:
            raise unknown("model of the report", name, rows)

    def kept(entry: Entry) -> bool:
        return not models or bool({entry.record.row, entry.record.model} & set(models))

    return [replace(source, entries=[entry for entry in source.entries if kept(entry)]) for source in sources]


def _changes_html(changes: Changes) -> str:
    charts = [row.chart for row in changes.rows if row.chart is not None]
    more = {"changes": changes, "intervals": INTERVALS}
    return render("changes.html", title=changes.title, lede=changes.sentence, charts=charts, **more)


Writer = TypeVar("Writer")


def _format(out: Path, writers: Mapping[str, Writer]) -> Writer:
    """The writer for the suffix of a file that can be written.

    Raises:
        UsageError: it has none, or the file cannot be written.
    """
    check_writable(out)
    suffix = Path(out).suffix.lower()
    if suffix not in writers:
        raise UsageError(f"{out}: a report is written as {', '.join(writers)}, not as '{suffix or 'no suffix'}'.")
    return writers[suffix]
