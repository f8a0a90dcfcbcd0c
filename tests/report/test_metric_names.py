"""The table of what a reader of records knows of each metric."""

import math

import pytest

from genbench import registry
from genbench.report.names import METRICS, SHARE, metric_name
from genbench.report.seeds import interval_ends


def test_every_metric_of_the_package_is_in_the_table_and_no_other():
    own = {name for name, entry in registry.entries("metrics").items() if entry.module.startswith("genbench.")}
    assert set(METRICS) == own


@pytest.mark.parametrize("name", sorted(METRICS))
def test_ranges_fit_styles(name):
    shown = METRICS[name]
    least, most = shown.range
    assert least < most
    assert shown.style != "percent" or shown.range == SHARE
    assert (shown.group == "likelihood") <= (least == 0)


def test_a_metric_of_a_plug_in_has_any_value_and_its_own_name():
    shown = metric_name("my_own_metric")
    assert (shown.label, shown.group, shown.range) == ("My own metric", "other", (-math.inf, math.inf))


@pytest.mark.parametrize(
    ("name", "values", "ends"),
    [
        ("recall", [0.98, 0.99], (0, 1)),
        ("density", [0.98, 1.4], (0, math.inf)),
        ("fid", [0.1, 0.2], (-math.inf, math.inf)),
        ("recall", [-0.5, 0.5], (-math.inf, math.inf)),
    ],
)
def test_intervals_of_shares_end_where_shares_do(name, values, ends):
    assert interval_ends(name, values) == ends
