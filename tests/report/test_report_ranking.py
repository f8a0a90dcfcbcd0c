"""Best, ties, the audit's verdicts, number formats and label placement: pure functions."""

import math

import pytest
from report_fixture import absent, metric, quality, record

from genbench.report.audit import audit, catches, listing
from genbench.report.findings import sentence
from genbench.report.names import arrow, display, format_measured, format_seconds, format_value, mark, significant
from genbench.report.placement import place
from genbench.report.ranking import difference_interval, exceeds_expected, is_tie, is_worse, standing
from genbench.report.tables import compare, labels


def test_difference_interval_of_symmetric_estimates_adds_half_widths_in_quadrature():
    low, high = difference_interval(metric("fid", 10.0, 3.0), metric("fid", 4.0, 4.0))
    assert (low, high) == pytest.approx((1.0, 11.0))


def test_difference_interval_uses_the_sides_that_face_each_other():
    a = metric("fid", 10.0, ci95=(9.0, 30.0))
    b = metric("fid", 4.0, ci95=(-50.0, 4.5))
    low, _ = difference_interval(a, b)
    assert low == pytest.approx(6.0 - math.hypot(1.0, 0.5))


@pytest.mark.parametrize(("gap", "tied"), [(4.99, True), (5.01, False), (0.0, True)])
def test_tie_is_a_gap_below_the_hypotenuse_of_the_half_widths(gap, tied):
    assert is_tie(metric("fid", 10.0, 3.0), metric("fid", 10.0 + gap, 4.0)) is tied


def test_without_intervals_only_equal_values_tie():
    assert is_tie(metric("fid", 1.0), metric("fid", 1.0))
    assert not is_tie(metric("fid", 1.0), metric("fid", 1.0 + 1e-9))


def test_worse_follows_the_direction_of_the_metric():
    assert is_worse(metric("fid", 9.0, 1.0), metric("fid", 4.0, 1.0))
    assert not is_worse(metric("fid", 4.0, 1.0), metric("fid", 9.0, 1.0))
    assert is_worse(metric("recall", 0.1, 0.01), metric("recall", 0.9, 0.01))
    assert is_worse(metric("ssim_pairwise", 0.1, 0.01), metric("ssim_pairwise", 0.9, 0.01))
    assert is_worse(metric("ssim_pairwise", 0.9, 0.01), metric("ssim_pairwise", 0.1, 0.01))


def test_standing_marks_best_and_ties_in_both_directions():
    low = standing({"a": metric("fid", 5.0, 1.0), "b": metric("fid", 5.5, 1.0), "c": metric("fid", 50.0, 1.0)})
    assert (low.best, low.tied) == ({"a"}, {"b"})
    high = standing({"a": metric("recall", 0.5, 0.1), "b": metric("recall", 0.9, 0.1)})
    assert (high.best, high.tied) == ({"b"}, frozenset())


def test_standing_ranks_only_equal_measurements():
    other = {"version": 2}
    found = standing(
        {
            "a": metric("fid", 5.0),
            "b": metric("fid", 6.0),
            "c": metric("fid", 1.0, comparable=other),
            "d": absent("fid", "-"),
        }
    )
    assert (found.best, found.outside) == ({"a"}, {"c"})


def nats(value, kind, half=0.01):
    return metric("bits_per_dim", value, half, kind=kind, estimator=kind)


def test_exact_values_bounds_and_estimates_have_their_own_best():
    rows = {
        "exact": nats(2.0, "exact"),
        "worse": nats(2.2, "exact"),
        "bound": nats(1.9, "upper_bound"),
        "near": nats(1.905, "upper_bound"),
        "estimate": nats(1.0, "estimate"),
    }
    found = standing(rows)
    assert (found.best, found.tied) == ({"exact", "bound"}, {"near"})
    assert not standing({"a": nats(2.0, "exact"), "b": nats(1.0, "upper_bound")}).best


def test_the_sentence_says_among_what_a_likelihood_leads():
    made = [
        record("pixelcnn", [nats(1.872, "exact")]),
        record("vae", [nats(2.1, "upper_bound")]),
        record("realnvp", [nats(2.043, "upper_bound")]),
    ]
    text = sentence(made, labels(made))
    assert "pixelcnn has the fewest bits/dim among exact values (1.872" in text
    worse = [record("histogram", [nats(2.9, "exact")]), *made[1:], record("rbm", [nats(1.8, "estimate")])]
    assert "realnvp has the fewest bits/dim among bounds (≤ 2.043" in sentence(worse, labels(worse))
    made.append(record("made", [nats(1.9, "exact")]))
    assert "pixelcnn has the fewest bits/dim among exact values (1.872" in sentence(made, labels(made))
    exact = [made[0], made[3]]
    assert "pixelcnn has the fewest bits/dim (1.872" in sentence(exact, labels(exact))
    assert sentence(exact * 2, ["a", "b", "c", "d"]).startswith("Among 2 models")


def test_the_sentence_leads_in_nats_where_they_are_measured():
    made = [
        record(name, [metric("nats_per_image", value, 0.4, kind="exact", higher_is_better=False)])
        for name, value in (("a", 84), ("b", 86))
    ]
    assert "a has the fewest nats an image (84" in sentence(made, labels(made))


def test_of_estimates_the_column_shows_the_one_to_quote():
    forward, reverse = (
        metric("bits_per_dim", value, 0.01, kind="estimate", estimator=name)
        for value, name in ((84.7, "ais-forward"), (84.9, "ais-reverse"))
    )
    table = compare([record("rbm", [forward, reverse])])
    assert table.models[0].cells[0].text.endswith("84.90") or "84.9" in table.models[0].cells[0].text


def test_standing_has_no_best_without_direction_alone_or_when_all_are_equal():
    assert not standing({"a": metric("parameters", 5.0), "b": metric("parameters", 6.0)}).best
    assert not standing({"a": metric("fid", 5.0)}).best
    assert not standing({"a": metric("fid", 5.0), "b": metric("fid", 5.0)}).best


def test_controls_are_never_best():
    table = compare(
        [
            record("vae", quality(24, 0.3, 7, 0.8, 0.7, 0)),
            record("gan", quality(30, 0.4, 6, 0.7, 0.6, 0), family="gan"),
            record("memoriser", quality(1, 0, 9, 1, 1, 1), family="control", control=True),
        ]
    )
    assert [row.cells[0].best for row in (*table.models, *table.controls)] == [True, False, False]


def test_memorised_share_is_held_against_its_expectation():
    extra = {"extra": {"expected": 0.01}}
    assert exceeds_expected(metric("memorised_share", 0.5, 0.1, provenance=extra)) is True
    assert exceeds_expected(metric("memorised_share", 0.02, 0.02, provenance=extra)) is False
    assert exceeds_expected(metric("memorised_share", 0.5, 0.1)) is None
    flagged = compare(
        [record("gan", quality(9, 0.1, 8, 0.8, 0.8, 0.5)), record("vae", quality(9, 0.1, 8, 0.8, 0.8, 0.0))]
    )
    assert [row.cells[-1].flagged for row in flagged.models] == [True, False]
    assert not any(row.cells[-1].best for row in flagged.models)


def control(name, *values):
    return record(name, quality(*values), family="control", control=True)


def test_audit_matrix_and_missed_catches():
    rows = [
        control("test_split", 12.0, 0.1, 8.9, 0.9, 0.9, 0.01),
        control("memoriser", 2.0, 0.01, 9.1, 0.99, 0.95, 1.0),
        control("noise", 764.0, 19.0, 1.3, 0.9, 0.0, 0.0),
        record("vae", quality(24, 0.3, 7, 0.8, 0.7, 0)),
    ]
    found = audit(rows, labels(rows))
    verdicts = {c.name: [f.verdict for f in c.findings] for c in found.controls}
    names = [column.name for column in found.columns]
    assert verdicts["memoriser"][names.index("memorised_share")] == "caught"
    assert verdicts["memoriser"][names.index("fid")] == "blind"
    assert verdicts["noise"][names.index("fid")] == "caught"
    assert verdicts["noise"][names.index("precision")] == "missed"
    assert (found.made, found.untested) == (3, [])
    assert found.missed == ["Precision (digits-cnn) did not catch noise"]
    assert "Caught by Memorised" in found.controls[0].sentence


def test_audit_needs_equal_measurements_and_values():
    ceiling = metric("fid", 12.0, 1.0)
    assert catches(metric("fid", 700.0, 9.0), ceiling) is True
    assert catches(metric("fid", 700.0, 9.0, comparable={"n": 5}), ceiling) is None
    assert catches(absent("fid", "no features"), ceiling) is None
    assert catches(metric("fid", 700.0, 9.0), None) is None


def test_audit_says_what_it_could_not_test():
    rows = [control("test_split", 12.0, 0.1, 8.9, 0.9, 0.9, 0.01)]
    rows.append(record("noise", [absent("fid", "no features"), metric("ssim_pairwise", 0.5, 0.01)], control=True))
    found = audit(rows, labels(rows))
    assert (found.made, found.untested, found.missed) == (0, ["FID"], [])
    assert "could not test FID" in sentence(rows, labels(rows))


def test_no_audit_without_controls():
    assert audit([record("vae", quality(24, 0.3, 7, 0.8, 0.7, 0))], ["vae"]) is None
    assert audit([control("test_split", 12.0, 0.1, 8.9, 0.9, 0.9, 0.01)], ["test_split"]) is None


def test_listing():
    assert [listing(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["nothing", "a", "a and b", "a, b and c"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (9.996, "10.0"), (12.34, "12.3"), (-0.01234, "−0.0123"), (76412.0, "76,400"), (3.2e-7, "3.20e-07")],
)
def test_significant(value, text):
    assert significant(value) == text


def test_formats_carry_units_and_marks():
    assert format_value("parameters", 1_234_567) == "1.23 M"
    assert format_value("peak_memory_bytes", 3 * 2**20) == "3.00 MiB"
    assert format_value("memorised_share", 0.0123) == "1.2 %"
    assert [format_seconds(x) for x in (0.00032, 0.032, 12.3, 245)] == ["320 µs", "32.0 ms", "12.3 s", "4 min 05 s"]
    assert format_measured("fid", 12.9377, (11.4, 14.4)) == ("12.9", "[11.4, 14.4]")
    assert format_measured("fid", 146.2, (128.1, 164.0)) == ("146", "[128, 164]")
    assert format_measured("images_per_second", 29166.4, (26986, 31346)) == ("29,200", "[27,000, 31,300]")
    assert format_measured("kid", -1e-6, (-0.02, 0.02)) == ("0.000", "[−0.020, 0.020]")
    assert display("fid", "digits-cnn") == "FID (digits-cnn)"
    assert display("my_own_metric") == "My own metric"
    assert [arrow(x) for x in (True, False, None)] == ["↑", "↓", ""]
    kinds = ("exact", "upper_bound", "lower_bound", "estimate")
    assert [mark("bits_per_dim", kind) for kind in kinds] == ["", "≤", "≥", "~"]
    assert mark("fid", "estimate") == ""


def test_labels_stay_inside_and_avoid_neighbours():
    assert place([(0.97, 0.5), (0.03, 0.5)], ["right-edge", "left-edge"]) == ["middle left", "middle right"]
    assert place([(0.5, 0.5), (0.56, 0.5)], ["a-label", "b-label"])[0] == "middle left"
