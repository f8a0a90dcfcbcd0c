"""A pytest plug-in: a model that got worse than its baseline fails a test.

    def test_my_model(genbench_check):
        genbench_check("my_model", suite="digits")

runs the suite's row (what an earlier test run left in pytest's cache is not done again), judges it as
``genbench check`` does, and fails with one sentence for everything that is worse or missing. What cannot be compared is
a warning. An installed genbench offers the fixture by its entry point, whose name is the module's, so that
``-p genbench.pytest_plugin`` names the same plug-in; nothing heavy is imported before the fixture is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from genbench.check.collect import Entry
    from genbench.check.finding import Verdicts
    from genbench.check.tolerance import Tolerance
    from genbench.run.run import RunOptions

OPTION, INI = "--genbench-baseline", "genbench_baseline"


class GenbenchCheck(Protocol):
    """What the fixture `genbench_check` is."""

    def __call__(
        self,
        *models: str,
        suite: str,
        baseline: str | Path | None = None,
        metrics: Sequence[str] = (),
        alpha: float = 0.01,
        tolerance: str = "",
        seeds: Sequence[int] = (),
        budget_scale: float = 1.0,
        from_published: bool = False,
    ) -> Verdicts:
        """Run rows of a suite and judge them.

        Args:
            models: rows: names, ``model@variant``, or ``FILE.py:Class`` (also relative to the test's own folder).
            suite: a packaged suite, or ``FILE.toml``.
            baseline: as ``genbench check --baseline`` takes it; by default the option's, the ini file's, or
                ``leaderboard:SUITE``.
            metrics: only these; all of the baseline's by default.
            alpha, tolerance: as ``genbench check`` takes them.
            seeds, budget_scale, from_published: as ``genbench run`` takes them.
        """


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini key that name the baseline."""
    told = "Baseline of genbench_check: a record, a folder of records, or leaderboard:SUITE (the test's own suite)."
    parser.getgroup("genbench").addoption(OPTION, metavar="FILE|DIR|leaderboard:SUITE", help=told)
    parser.addini(INI, told, default="")


@pytest.fixture
def genbench_check(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GenbenchCheck:
    """Run rows of a suite, and fail where they are worse than the baseline; see `GenbenchCheck`."""

    def check(
        *models: str,
        suite: str,
        baseline: str | Path | None = None,
        metrics: Sequence[str] = (),
        alpha: float = 0.01,
        tolerance: str = "",
        seeds: Sequence[int] = (),
        budget_scale: float = 1.0,
        from_published: bool = False,
    ) -> Verdicts:
        from genbench.check.tolerance import parse_tolerances
        from genbench.run.run import RunOptions
        from genbench.suite import load_suite

        with _failing():
            name = load_suite(suite).name
            found = _references(models, request.path.parent)
            run = RunOptions(
                suite,
                _folder(request.config, tmp_path_factory, name),
                tuple(found),
                tuple(seeds),
                budget_scale=budget_scale,
                from_published=from_published,
                command=f"pytest {request.node.nodeid}",
            )
            against = baseline or _configured(request.config) or f"leaderboard:{name}"
            verdicts = _judged(run, str(against), metrics, alpha, parse_tolerances(tolerance))
        if verdicts.failed:
            pytest.fail(_told(verdicts), pytrace=False)
        for sentence in _not_judged(verdicts):
            request.node.warn(pytest.PytestWarning(sentence))
        return verdicts

    return check


@contextmanager
def _failing() -> Iterator[None]:
    """Bad input fails the test with its message alone."""
    from genbench.errors import GenbenchError

    try:
        yield
    except GenbenchError as error:
        raise pytest.fail.Exception(f"genbench_check: {error}", pytrace=False) from None


def _configured(config: pytest.Config) -> str:
    """The baseline of the command line, else that of the ini file, whose paths are relative to it."""
    given = config.getoption(OPTION)
    if given:
        return str(given)
    named = str(config.getini(INI))
    beside = (config.inipath or config.rootpath / "pytest.ini").parent / named
    return str(beside) if named and beside.exists() else named


def _references(models: Sequence[str], folder: Path) -> list[str]:
    """Rows as a run takes them; a model's file may be named relative to the test's folder.

    Raises:
        UsageError: no row is named.
    """
    from genbench.errors import UsageError

    if not models:
        raise UsageError('name at least one row of the suite, as in genbench_check("vae", suite="digits").')
    found = []
    for model in models:
        file, separator, rest = model.partition(".py:")
        beside = folder / f"{file}.py"
        found.append(
            f"{beside}:{rest}" if separator and not Path(f"{file}.py").is_file() and beside.is_file() else model
        )
    return found


def _folder(config: pytest.Config, temporary: pytest.TempPathFactory, suite: str) -> Path:
    """The run's folder: in pytest's cache, so that only what changed is done again; without a cache a temporary one."""
    cache = getattr(config, "cache", None)
    make: Callable[[str], Path] = temporary.mktemp if cache is None else cache.mkdir
    return make("genbench-" + "".join(c if c.isalnum() or c in "-_" else "-" for c in suite))


def _check_asked(before: Sequence[Entry], baseline: str, models: Sequence[str], metrics: Sequence[str]) -> None:
    """Refuse what the baseline cannot judge before anything is trained.

    Raises:
        UsageError: it has no such row or no such metric.
    """
    from genbench import registry
    from genbench.errors import UsageError, unknown
    from genbench.suite import Row

    rows = {entry.record.row for entry in before}
    for text in models:
        asked = Row.parse(text)
        row = str(Row(registry.model_name(asked.model), asked.variant))
        if row not in rows:
            raise UsageError(
                f"{unknown(f'row of {baseline}', row, rows)} Accept its record with `genbench baseline update`, and "
                "name that baseline: --genbench-baseline=DIR."
            )
    known = {metric.name for entry in before for metric in entry.record.metrics if metric.status == "ok"}
    for name in metrics:
        if name not in known:
            raise unknown(f"metric of {baseline}", name, known)


def _judged(
    run: RunOptions, baseline: str, metrics: Sequence[str], alpha: float, tolerances: Mapping[str, Tolerance]
) -> Verdicts:
    from genbench.check.baseline import baseline_entries
    from genbench.check.collect import read_entries
    from genbench.check.finding import Options
    from genbench.check.judge import judge
    from genbench.run.run import run_suite

    before = baseline_entries(baseline)
    _check_asked(before, baseline, run.models, metrics)
    result = run_suite(run)
    made = {record.file_stem for record in result.records}
    entries = [entry for entry in read_entries(result.root) if entry.record.file_stem in made]
    rows = list(dict.fromkeys(entry.record.row for entry in entries))
    return judge(entries, before, Options(alpha, tolerances, rows, metrics))


def _not_judged(verdicts: Verdicts) -> list[str]:
    """What a passing test did not judge, though the baseline has it."""
    from genbench.check import render

    return [
        f"genbench_check: {render.sentence(finding)}"
        for finding in verdicts.findings
        if finding.verdict == "not comparable" and not finding.by_nature
    ]


def _told(verdicts: Verdicts) -> str:
    from genbench.check import render

    failures = [finding for finding in render.sorted_findings(verdicts.findings) if finding.fails]
    return "\n".join([f"genbench check, {render.summary(verdicts)}", *map(render.sentence, failures)])
