"""Tolerances: how they are written, and what they allow."""

import pytest

from genbench.check.finding import Options
from genbench.check.tolerance import Tolerance, parse_tolerances
from genbench.errors import UsageError


def test_shares_and_amounts():
    found = parse_tolerances(" fid=2%, images_per_second = 10% ,bits_per_dim=0.01,")
    assert found == {
        "fid": Tolerance(share=0.02),
        "images_per_second": Tolerance(share=0.1),
        "bits_per_dim": Tolerance(amount=0.01),
    }
    assert parse_tolerances("") == {}
    assert found["fid"].margin(-3.0) == pytest.approx(0.06)
    assert found["bits_per_dim"].margin(2.0) == 0.01
    assert [tolerance.text for tolerance in found.values()] == ["2 %", "10 %", "0.01"]


@pytest.mark.parametrize("text", ["fid", "fid=", "=2%", "fid=two", "fid=-1%", "fid=nan", "fid=inf", "fid=1e999", "2%"])
def test_anything_else_is_refused_with_what_was_given(text):
    with pytest.raises(UsageError, match="expected METRIC=NUMBER%") as error:
        parse_tolerances(f"kid=1%,{text}")
    assert f"'{text}'" in str(error.value)


def test_a_metric_twice_is_refused():
    with pytest.raises(UsageError, match="'fid' is given twice"):
        parse_tolerances("fid=1%,fid=2%")


def test_speed_has_a_default_that_the_asked_one_replaces():
    assert Options().tolerance("images_per_second").share == 0.05
    assert Options().tolerance("latency_seconds").share == 0.1
    assert Options().tolerance("fid").margin(5.0) == 0
    asked = Options(tolerances=parse_tolerances("images_per_second=20%"))
    assert asked.tolerance("images_per_second").share == 0.2
    assert asked.tolerance("latency_seconds").share == 0.1
