"""The likelihood table: kinds apart, best first, reasons in place of numbers."""

import pytest
from report_fixture import metric, record

from genbench.record import MetricResult
from genbench.report.likelihood import kind_note, likelihood_table


def nats(value, kind, estimator):
    return metric("nats_per_image", value, 0.5, kind=kind, estimator=estimator)


def failed(estimator, reason):
    return MetricResult(name="nats_per_image", value=None, status="failed", reason=reason, estimator=estimator)


RECORDS = [
    record("rbm", [nats(86.0, "estimate", "ais-forward"), failed("ais-reverse", "did not converge: 2 chains")]),
    record("vae", [nats(v, "upper_bound", e) for v, e in ((87.5, "iwae-5000"), (89.0, "elbo"), (88.0, "iwae-50"))]),
    record("made", [nats(88.2, "exact", "exact"), metric("bits_per_dim", 0.16)]),
    record("dcgan", [metric("fid", 3.0)]),
    record("test_split", [metric("fid", 1.0)], control=True),
]
NAMES = [r.model for r in RECORDS]


def test_kinds_stand_apart_in_their_order_and_rows_by_their_best():
    table = likelihood_table(RECORDS, NAMES)
    assert table.groups == [("Exact", 1), ("Upper bounds", 3), ("Estimates", 2)]
    assert [estimator for _, estimator in table.columns] == [
        *("exact", "elbo", "iwae-50", "iwae-5000"),
        *("ais-forward", "ais-reverse"),
    ]
    assert [row.label for row in table.rows] == ["rbm", "vae", "made"]
    assert table.without == ["dcgan"]
    texts = {row.label: [cell.text for cell in row.cells] for row in table.rows}
    assert texts["vae"] == ["–", "≤ 89.00", "≤ 88.00", "≤ 87.50", "–", "–"]
    assert texts["made"][0] == "88.20" and texts["rbm"][4] == "~ 86.00"
    assert table.rows[0].cells[5].failed == "did not converge: 2 chains"
    assert table.rows[2].cells[0].interval == "[87.70, 88.70]"


def test_rows_are_ordered_by_the_less_flattering_of_two_estimates():
    rbm = record("rbm", [nats(86.0, "estimate", "ais-forward"), nats(87.6, "estimate", "ais-reverse")])
    table = likelihood_table([rbm, RECORDS[1], RECORDS[2]], ["rbm", "vae", "made"])
    assert [row.label for row in table.rows] == ["vae", "rbm", "made"]


def test_a_likelihood_in_another_unit_is_not_called_missing():
    bits = record("nice", [metric("bits_per_dim", 2.1, 0.01, kind="upper_bound", estimator="dequantised")])
    assert likelihood_table([*RECORDS, bits], [*NAMES, "nice"]).without == ["dcgan"]


def test_without_likelihoods_there_is_no_table():
    assert likelihood_table(RECORDS[3:], NAMES[3:]) is None
    bits = record("vae", [metric("bits_per_dim", 2.1, 0.01, kind="upper_bound", estimator="elbo")])
    assert likelihood_table([bits], ["vae"]).title == "Bits/dim"


@pytest.mark.parametrize(
    ("kind", "estimator", "note"),
    [
        ("exact", "exact", "exact"),
        ("upper_bound", "iwae-500", "bound · iwae-500"),
        ("estimate", "ais-forward", "estimate · ais-forward"),
    ],
)
def test_a_word_says_what_kind_of_number_it_is(kind, estimator, note):
    assert kind_note(nats(1.0, kind, estimator)) == note
