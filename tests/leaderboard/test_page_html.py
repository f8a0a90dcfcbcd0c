"""The leaderboard page as a file: inert data, a policy that names its scripts, and errors for an ill-formed board."""

import base64
import copy
import hashlib
import html
import json
import re

import pytest
from page_boards import CARD, HOSTILE, METRICS, board, cell, front, grid, large_board, row, small_board

from genbench.errors import DataError
from genbench.leaderboard.page import render
from genbench.leaderboard.page.payload import as_json, card_html, payload

BLOCK = re.compile(r"<script(?P<attributes>[^>]*)>(?P<text>.*?)</script>", re.DOTALL)


def blocks(page):
    return [(match["attributes"], match["text"]) for match in BLOCK.finditer(page)]


def embedded(page):
    (text,) = [text for attributes, text in blocks(page) if "application/json" in attributes]
    return text


def test_data_are_inert_json_that_says_what_the_board_says():
    text = embedded(render(small_board()))
    assert not set(text) & set("<>&\u2028\u2029")
    data = json.loads(text)
    assert [each["id"] for each in data["rows"]] == [each["id"] for each in small_board()["rows"]]
    assert data["rules"] == small_board()["rules"]
    assert data["rows"][3]["cells"]["fid"]["text"] == HOSTILE


def test_json_escapes_come_back():
    value = {"a": "</script><!-- & \u2028\u2029 é", "b": [1.5, None, True]}
    assert json.loads(as_json(value)) == value


def test_no_text_of_the_board_becomes_markup():
    page = render(small_board())
    assert len(re.findall(r"<script", BLOCK.sub("", page))) == 0
    assert [attributes.strip() for attributes, _ in blocks(page)] == [
        'type="application/json" id="data"',
        'type="text/plain" id="chart-library"',
        "",
        "",
    ]
    assert "<b>family" not in page
    assert html.escape(HOSTILE) in page


def test_the_policy_allows_these_scripts_and_no_request():
    page = render(small_board())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)[1]
    policy = html.unescape(policy)
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    made = {
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for attributes, text in blocks(page)
        if "application/json" not in attributes
    }
    assert made == allowed
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', BLOCK.sub("", page)) == []
    run_at_once = "".join(text for attributes, text in blocks(page) if not attributes)
    assert not re.search(r"\bnew Function\b|\beval\(", run_at_once)


def test_the_chart_library_is_left_out_where_there_is_nothing_to_plot():
    with_front, without = render(small_board()), render({**small_board(), "pareto": []})
    empty = render({**small_board(), "pareto": [front("fid", "parameters", ["g1", "any"], [])]})
    assert len(with_front) > 1_000_000 > 300_000 > len(without)
    assert 'id="chart"' in with_front
    assert 'id="chart"' not in without
    assert without == empty


def test_the_palette_is_the_report_s_under_preference_and_switch():
    page = render(small_board())
    style = page.split("<style>")[1].split("</style>")[0]
    assert style.count("--bg: #fbfaf8;") == 1
    assert style.count("--bg: #131417;") == 2
    assert style.index(':root[data-theme="dark"] {') > style.index("@media (prefers-color-scheme: dark)")


def test_a_card_is_safe_html():
    card = card_html(CARD)
    assert "<h3>Card of &lt;script&gt;" in card
    assert "<em>text</em>" in card
    assert "<table>" in card
    assert 'href="https://example.org/paper" rel="noopener noreferrer" target="_blank"' in card
    assert "<img" not in card
    assert "href" not in card.replace('href="https://example.org/paper"', "").replace(
        'href="https://example.org/picture.png"', ""
    )
    assert "&lt;img src=x onerror=alert(1)&gt;" in card


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "file:///etc/passwd", "other.md"]
)
def test_a_card_links_to_the_web_only(address):
    assert "<a" not in card_html(f"[x]({address})")


def test_cards_are_stored_once_and_empty_fields_not_at_all():
    data = payload(large_board(count=10))
    assert len(data["cards"]) == 1
    assert {each["card"] for each in data["rows"]} == {0}
    assert "variant" not in data["rows"][0]
    zero = payload(board([row("zero", {"fid": cell(0.0, "g1", low=0.0, high=0.0)})]))["rows"][0]
    assert (zero["cells"]["fid"]["value"], zero["cells"]["fid"]["low"], zero["control"]) == (0.0, 0.0, False)


def test_groups_of_metrics_have_their_names():
    groups = [each["group"] for each in payload(small_board())["metrics"]]
    assert groups == ["Sample quality", "Sample quality", "Likelihood", "Cost", "Cost"]


def test_a_board_may_be_empty():
    assert "genbench leaderboard" in render({**board([]), "metrics": []})


def broken(change):
    given = copy.deepcopy(small_board())
    change(given)
    return given


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: b.pop("metrics"), "The board lacks metrics"),
        (lambda b: b["rows"][0].pop("tier"), "Row 'ddpm' lacks tier"),
        (lambda b: b["rows"][1].update(id="ddpm"), "'ddpm' is used more than once"),
        (lambda b: b["metrics"].append(METRICS[0]), "metric key 'fid' is used more than once"),
        (lambda b: b["rows"][0].update(id="a b"), "not safe in an address"),
        (lambda b: b["rows"][0].update(tier="best"), "tier 'best'; expected one of reproduced"),
        (lambda b: b["rows"][0].update(grid="https://example.org/x.png"), "grid that is no data:image/png"),
        (lambda b: b["rows"][0].update(grid='data:image/png;base64,AA" onload="alert(1)'), "grid that is no"),
        (lambda b: b["rows"][0]["cells"].update(speed=cell(1.0, "g")), "cells for speed"),
        (lambda b: b["rows"][0]["cells"]["fid"].update(kind="guess"), "kind 'guess'"),
        (lambda b: b["rows"][0]["cells"]["fid"].pop("value"), "Row 'ddpm', fid lacks value"),
        (lambda b: b["rows"][0]["cells"]["fid"].update(value=float("nan")), "never NaN"),
        (lambda b: b["pareto"][0]["rows"].append("nobody"), "names 'nobody'"),
        (lambda b: b["pareto"][0].update(cost="money"), "names 'money'"),
        (lambda b: b["pareto"][0].pop("groups"), "A Pareto front lacks groups"),
        (lambda b: b["rows"].append("ddpm"), "is a str"),
    ],
)
def test_an_ill_formed_board_is_named(change, says):
    with pytest.raises(DataError, match=re.escape(says)):
        render(broken(change))


def test_a_grid_of_any_png_passes():
    assert grid() in embedded(render(small_board())).replace("\\u002b", "+")
