"""The leaderboard page in headless Chromium: it sorts, filters, links, and keeps unlike rows apart."""

import csv
import io

import pytest
from page_boards import HOSTILE, small_board
from page_browsing import CHROMIUM, choose, chromium, go, ids, tab, texts, until, view

from genbench.leaderboard.page import render

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

G1 = ["ddpm", "dcgan", "pixelcnn", "hostile"]
G2 = ["formula", "glow"]
ALL = [*G1, *G2, "StyleGAN2", "noise"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(render(small_board()), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with chromium(sync_api) as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(browser):
    with tab(browser, accept_downloads=True) as page:
        yield page


@pytest.fixture
def page(opened, address):
    opened.emulate_media(color_scheme="light")
    opened.set_viewport_size({"width": 1280, "height": 900})
    go(opened, address)
    yield opened
    assert opened.messages == []
    allowed = (address, "data:", "blob:", "about:")
    assert [url for url in opened.asked if not url.startswith(allowed)] == []


def sort_button(page, key):
    return page.locator(f'#board thead [data-sort="{key}"]')


def sorted_by(page):
    pair = "th => [th.querySelector('button').dataset.sort, th.getAttribute('aria-sort')]"
    return page.evaluate(f"[...document.querySelectorAll('#board th[aria-sort]')].map({pair})")


def cell_text(page, row, key):
    cell = page.locator(f'#board tr[data-row="{row}"] td[data-column="{key}"]')
    return cell.inner_text(), cell.get_attribute("title"), cell.get_attribute("class") or ""


def test_best_first_in_sections_of_like_rows(page):
    assert ids(page) == ALL
    assert sorted_by(page) == [["fid", "ascending"]]
    sections = texts(page, "#board tr.section")
    groups = ["Group g1", "Group g2", "Group paper", "No value of FID"]
    assert [section.split(" · ")[0] for section in sections] == groups
    assert sections[0].endswith("4 ranked")
    assert sections[2].endswith("1 not ranked")
    assert texts(page, "#board td.place") == ["1–2", "1–2", "3", "4", "1", "2", "not ranked", "not ranked"]


def test_a_click_turns_the_order_round_within_sections(page):
    sort_button(page, "fid").click()
    assert ids(page) == [*reversed(G1), *reversed(G2), "StyleGAN2", "noise"]
    assert sorted_by(page) == [["fid", "descending"]]
    assert "Sorted by FID, descending." in page.locator("#status").inner_text()


def test_higher_is_better_sorts_from_the_top_and_what_is_missing_stays_last(page):
    sort_button(page, "recall").click()
    assert sorted_by(page) == [["recall", "descending"]]
    assert ids(page) == ["ddpm", "dcgan", "noise", "pixelcnn", "hostile", "formula", "glow", "StyleGAN2"]
    sort_button(page, "recall").click()
    assert ids(page)[:3] == ["noise", "dcgan", "ddpm"]


@pytest.mark.parametrize(
    ("key", "column", "first"), [("Enter", "bits_per_dim", "pixelcnn"), ("Space", "images_per_second", "dcgan")]
)
def test_the_keyboard_sorts_and_keeps_its_place(page, key, column, first):
    sort_button(page, column).focus()
    page.keyboard.press(key)
    assert ids(page)[0] == first
    assert [name for name, _ in sorted_by(page)] == [column]
    assert page.evaluate("document.activeElement.dataset.sort") == column


def test_names_sort_without_ranks(page):
    sort_button(page, "@row").click()
    assert ids(page)[0] == "hostile"
    assert ids(page)[-1] == "StyleGAN2"
    assert not page.locator("#board thead th.place").is_visible()
    assert texts(page, "#board tr.section") == []


def test_the_group_switch_shows_one_ranking(page):
    page.select_option("#group", "g2")
    assert ids(page) == G2
    assert view(page) == "group=g2"
    page.select_option("#metric", "recall")
    assert "group" not in view(page)
    assert not page.locator("#group").is_visible()


@pytest.mark.parametrize(
    ("menu", "value", "expected"),
    [
        ("family", "diffusion", ["ddpm"]),
        ("family", "gan", ["dcgan", "formula", "StyleGAN2"]),
        ("tier", "reproduced", ["ddpm"]),
        ("tier", "reported", ["StyleGAN2"]),
        ("device", "h200", G2),
        ("device", "", ["StyleGAN2"]),
        ("device", "tpu", ["ddpm"]),
        ("extractor", "digits-clip", ["ddpm"]),
        ("extractor", "inception-v3", G2),
    ],
)
def test_each_filter(page, menu, value, expected):
    choose(page, menu, value)
    assert ids(page) == expected
    assert f"{menu}={value}" in view(page)
    choose(page, menu, value, on=False)
    assert ids(page) == ALL
    assert view(page) == ""


def test_filters_join_and_reset_undoes_them(page):
    choose(page, "family", "diffusion")
    choose(page, "family", "gan")
    choose(page, "tier", "self-run")
    assert ids(page) == ["dcgan", "formula"]
    choose(page, "show", "controls", on=False)
    page.click("#reset")
    assert ids(page) == ALL
    choose(page, "show", "controls", on=False)
    assert ids(page) == ALL[:-1]


def test_search_takes_every_word_anywhere(page):
    page.fill("#search", "DDPM")
    until(page, "document.querySelectorAll('#board tr[data-row]').length === 1")
    assert ids(page) == ["ddpm"]
    page.fill("#search", "gan example.org")
    until(page, "document.querySelector('#board tr[data-row]').dataset.row === 'StyleGAN2'")
    page.fill("#search", "nothing like it")
    until(page, "document.querySelector('#board tbody').textContent.includes('No row fits')")
    assert "0 of 8 rows" in page.locator("#status").inner_text()


def test_the_reader_chooses_columns(page):
    choose(page, "column", "recall", on=False)
    choose(page, "column", "@device")
    heads = texts(page, "#board thead th")
    assert not any(head.startswith("Recall") for head in heads)
    assert any(head.startswith("Device") for head in heads)
    assert page.locator('#board tr[data-row="glow"] td[data-column="@device"]').inner_text() == "h200"
    page.click(".menu[data-filter=column] summary")
    page.click(".menu[data-filter=column] .quick >> text=none")
    assert len(texts(page, "#board thead th")) == 2
    assert view(page) == "columns="
    assert all(set(texts(page, f'#board tr[data-row="{row}"] .tag')) for row in ALL)


def test_cells_say_kind_interval_rank_and_reason(page):
    assert cell_text(page, "ddpm", "bits_per_dim")[0].startswith("≤ 2.20")
    assert "[2.10, 2.30]" in cell_text(page, "ddpm", "bits_per_dim")[0]
    assert "elbo" in cell_text(page, "ddpm", "bits_per_dim")[0]
    assert cell_text(page, "pixelcnn", "bits_per_dim")[0].startswith("2.05")
    assert "exact" in cell_text(page, "pixelcnn", "bits_per_dim")[0]
    assert cell_text(page, "hostile", "bits_per_dim")[0].startswith("~ 2.30")
    assert "[69.0 %, 71.0 %]" in cell_text(page, "ddpm", "recall")[0]
    assert "rank 1–2; measured: group g1" in cell_text(page, "ddpm", "fid")[1]
    assert cell_text(page, "dcgan", "bits_per_dim")[1] == "not applicable: no likelihood"
    assert cell_text(page, "dcgan", "bits_per_dim")[0].startswith("–")
    assert cell_text(page, "noise", "fid")[1:] == ("failed: it broke", "failed")
    assert cell_text(page, "glow", "recall")[1] == "not measured"
    assert "?" in cell_text(page, "StyleGAN2", "fid")[0]
    assert "[1.90; 2.10]" in cell_text(page, "formula", "fid")[0]
    assert "a note on it" in cell_text(page, "formula", "fid")[1]
    assert [row for row in ALL if "best" in cell_text(page, row, "fid")[2]] == ["ddpm", "dcgan", "formula"]
    assert texts(page, '#board tr[data-row="ddpm"] .tag') == ["reproduced"]
    assert texts(page, '#board tr[data-row="StyleGAN2"] .tag') == ["reported"]


def test_every_seed_with_mean_and_spread_on_demand(page):
    seeds = page.locator('#board tr[data-row="ddpm"] td[data-column="fid"] .seeds')
    assert not seeds.is_visible()
    choose(page, "show", "seeds")
    assert seeds.inner_text() == "3.00 · 3.10 · 3.20 (mean 3.10, SD 0.100)"
    choose(page, "show", "intervals", on=False)
    assert "[2.90" not in cell_text(page, "ddpm", "fid")[0]
    choose(page, "show", "ranks")
    assert "rank 1–2" in cell_text(page, "ddpm", "fid")[0]


def test_a_link_to_a_view_survives_a_reload(page, address):
    choose(page, "tier", "self-run")
    choose(page, "column", "parameters", on=False)
    choose(page, "show", "seeds")
    sort_button(page, "images_per_second").click()
    sort_button(page, "images_per_second").click()
    page.fill("#search", "n")
    until(page, "location.hash.includes('q=n')")
    before, link = ids(page), view(page)
    assert before[0] == "pixelcnn"
    go(page, address, link)
    assert (ids(page), view(page)) == (before, link)
    page.reload()
    until(page, "document.querySelectorAll('#board tbody tr').length > 0")
    assert (ids(page), view(page)) == (before, link)
    assert sorted_by(page) == [["images_per_second", "ascending"]]
    assert page.input_value("#search") == "n"
    assert page.locator('.menu[data-filter=tier] input[value="self-run"]').is_checked()
    assert not any(head.startswith("Parameters") for head in texts(page, "#board thead th"))


@pytest.mark.parametrize(
    "junk",
    [
        "sort=nope&dir=up&row=zzz&page=-3&length=7",
        "columns=evil&tier=evil&show=evil",
        "%%%&=&constructor=1&front=evil&chart=2",
        "group=g2&sort=recall",
    ],
)
def test_an_address_with_junk_shows_the_table(page, address, junk):
    go(page, address, junk)
    assert len(ids(page)) == (7 if "show" in junk else 8)
    assert not page.locator("#details").is_visible()


def test_back_and_forward_follow_the_rows(page):
    page.click('#board tr[data-row="glow"] a')
    assert page.locator("#details-title").inner_text() == "glow"
    assert view(page) == "row=glow"
    page.go_back()
    until(page, "!document.getElementById('details').open")
    page.go_forward()
    until(page, "document.getElementById('details').open")
    page.evaluate("location.hash = '#row=dcgan&tier=self-run'")
    until(page, "document.getElementById('details-title').textContent === 'dcgan'")
    assert "StyleGAN2" not in ids(page)


def test_the_table_downloads_as_shown(page):
    choose(page, "tier", "self-run")
    choose(page, "column", "recall", on=False)
    with page.expect_download() as waiting:
        page.click("#csv")
    text = waiting.value.path().read_text(encoding="utf-8-sig")
    assert waiting.value.suggested_filename == "digits.csv"
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in rows] == ids(page)
    by_id = {row["id"]: row for row in rows}
    assert by_id["formula"]["label"] == "'=HYPERLINK(1)"
    assert by_id["hostile"]["label"] == HOSTILE
    dcgan = by_id["dcgan"]
    assert (dcgan["fid:value"], dcgan["fid:low"], dcgan["fid:rank_high"], dcgan["fid:seeds"]) == (
        "3.2",
        "3",
        "2",
        "[3.2]",
    )
    assert (dcgan["bits_per_dim:value"], dcgan["bits_per_dim:status"]) == ("", "not_applicable")
    assert by_id["pixelcnn"]["bits_per_dim:kind"] == "exact"
    assert not any(name.startswith("recall") for name in rows[0])


def test_the_chart_is_loaded_when_it_is_opened(page):
    assert page.evaluate("typeof Plotly") == "undefined"
    page.click("#chart summary")
    until(page, "document.querySelectorAll('#plot .main-svg .point').length === 4")
    drawn = page.evaluate("[...document.querySelectorAll('#plot .textpoint text')].map(t => t.textContent)")
    assert HOSTILE in drawn
    assert "pixelcnn" not in drawn
    assert "<b>family</b>" in page.evaluate(
        "[...document.querySelectorAll('#plot .legendtext')].map(t => t.textContent)"
    )
    assert texts(page, "#front-rows a") == ["ddpm", "dcgan", HOSTILE]
    assert view(page) == "chart=1"
    page.click("#front-rows a >> nth=1")
    assert page.locator("#details-title").inner_text() == "dcgan"


def test_each_chart_holds_rows_measured_in_one_way(page, address):
    go(page, address, "chart=1")
    assert texts(page, "#front option") == ["FID against Images/s", "Bits/dim against Parameters"]
    assert texts(page, "#front-group option") == ["group g1 and group cpu1 · 4 rows", "group g2 and group h200 · 1 row"]
    page.select_option("#front-group", index=1)
    until(page, "document.querySelectorAll('#plot .main-svg .point').length === 1")
    assert texts(page, "#front-rows a") == ["=HYPERLINK(1)"]
    page.select_option("#front", label="Bits/dim against Parameters")
    until(page, "document.querySelectorAll('#plot .main-svg .point').length === 3")
    assert not page.locator("#front-group").is_visible()
    link = view(page)
    go(page, address, link)
    until(page, "document.querySelectorAll('#plot .main-svg .point').length === 3")


WORDS = {"g1": "n = 297, digits-cnn, train split", "g2": f"n = 5000, {HOSTILE}", "paper": "published: 50 000 samples"}


@pytest.fixture
def told(opened, tmp_path):
    """The page of a board whose groups have words, with a row that was measured again."""
    board = small_board()
    board["metrics"] = [{**one, "groups": WORDS if one["key"] == "fid" else {}} for one in board["metrics"]]
    board["rows"][0]["cells"]["fid"]["reproduced"] = True
    board["rows"][0]["verified"] = f"scored again, by {HOSTILE}"
    paper = board["rows"][-1]
    paper["cells"]["recall"] = {**paper["cells"]["fid"], "text": "0.5", "value": 0.5, "confirmed": True}
    (tmp_path / "index.html").write_text(render(board), encoding="utf-8")
    opened.set_viewport_size({"width": 1280, "height": 900})
    go(opened, (tmp_path / "index.html").as_uri())
    yield opened
    assert opened.messages == []
    opened.asked.clear()


def test_groups_are_told_in_words(told):
    options = texts(told, "#group option")
    assert options == [
        "all, in sections",
        f"{WORDS['g1']} · reproduced, self-run · 4 ranked",
        f"{WORDS['g2']} · self-run · 2 ranked",
        f"{WORDS['paper']} · reported · 1 not ranked",
    ]
    assert texts(told, "#board tr.section") == [*options[1:], "No value of FID"]
    assert f"measured: {WORDS['g1']}" in cell_text(told, "dcgan", "fid")[1]
    assert "measured: group r1" in cell_text(told, "dcgan", "recall")[1]
    sort_button(told, "recall").click()
    assert texts(told, "#board tr.section")[0].startswith("Group r1 · ")
    go(told, told.url.split("#")[0], "chart=1")
    assert texts(told, "#front-group option")[1] == f"{WORDS['g2']} and group h200 · 1 row"
    go(told, told.url.split("#")[0], "row=formula")
    assert WORDS["g2"] in told.locator("#details .values").inner_text()


def test_values_that_were_measured_again_say_so(told):
    assert "✓" in cell_text(told, "ddpm", "fid")[0] and "measured again" in cell_text(told, "ddpm", "fid")[1]
    assert "✓" not in cell_text(told, "ddpm", "recall")[0] and "✓" not in cell_text(told, "dcgan", "fid")[0]
    go(told, told.url.split("#")[0], "row=ddpm")
    values = told.evaluate("[...document.querySelectorAll('#details .values tbody tr')].map(tr => tr.innerText)")
    assert ["measured again" in value for value in values] == [True, *[False] * (len(values) - 1)]
    assert f"scored again, by {HOSTILE}" in told.locator("#details .facts").inner_text()


def test_a_confirmed_value_beside_a_doubtful_one_has_no_question_mark(told):
    assert "?" in cell_text(told, "StyleGAN2", "fid")[0]
    assert "?" not in cell_text(told, "StyleGAN2", "recall")[0]


def test_the_download_says_how_cells_were_measured(told):
    with told.expect_download() as waiting:
        told.click("#csv")
    text = waiting.value.path().read_text(encoding="utf-8-sig")
    lines = {line["id"]: line for line in csv.DictReader(io.StringIO(text))}
    assert lines["dcgan"]["fid:measured"] == WORDS["g1"] and lines["dcgan"]["fid:reproduced"] == ""
    assert lines["ddpm"]["fid:reproduced"] == "yes" and lines["noise"]["fid:measured"] == ""
