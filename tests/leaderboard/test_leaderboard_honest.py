"""Every committed record is fit to be a row: beside the others of its leaderboard, and as the first one."""

import pytest
from board_records import SHIPPED

from genbench.check.collect import read_entries
from genbench.leaderboard.rules import problems
from genbench.leaderboard.scores import MEANS

SUITES = sorted(path.name for path in SHIPPED.iterdir() if list(path.glob("records/*.json")))


@pytest.fixture(scope="module", params=SUITES)
def entries(request):
    return read_entries(SHIPPED / request.param)


def test_each_may_stand_beside_the_others(entries):
    found = {
        one.path.stem: problems(one, one.record.suite, [other for other in entries if other is not one])
        for one in entries
    }
    assert {stem: reasons for stem, reasons in found.items() if reasons} == {}


def test_each_may_be_the_first(entries):
    found = {one.path.stem: problems(one, one.record.suite, []) for one in entries}
    assert {stem: reasons for stem, reasons in found.items() if reasons} == {}


def test_means_over_images_are_those_that_come_with_scores(entries):
    for one in entries:
        whole = [metric for metric in one.record.metrics if metric.status == "ok"]
        assert {f"{m.name}.{m.estimator}" for m in whole if m.name in MEANS} == set(one.scores)
