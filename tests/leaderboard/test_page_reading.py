"""The leaderboard page for every reader: row details, keyboard, phone, both themes, axe-core, a thousand rows."""

from pathlib import Path

import pytest
from page_boards import HOSTILE, large_board, small_board
from page_browsing import CHROMIUM, chromium, go, ids, tab, texts, until, view

from genbench.leaderboard.page import render

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
GROUND = "getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(251, 250, 248)", "rgb(19, 20, 23)"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    boards = {"small": small_board(), "large": large_board(), "empty": {**small_board(), "rows": [], "pareto": []}}
    for name, board in boards.items():
        (folder / f"{name}.html").write_text(render(board), encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in boards}


@pytest.fixture(scope="module")
def browser():
    with chromium(sync_api) as browser:
        yield browser


@pytest.fixture
def page(browser):
    with tab(browser) as page:
        yield page
        assert page.messages == []


def focus_in_row(row):
    """The condition that a row of the table has the focus; a dialog gives it back in an event after its closing."""
    return f"document.activeElement.closest('tr')?.dataset.row === '{row}'"


def test_a_link_to_a_row_opens_it_and_escape_gives_the_table_back(page, addresses):
    go(page, addresses["small"], "row=ddpm")
    assert page.locator("#details").is_visible()
    assert page.locator("#details-title").inner_text() == "ddpm"
    page.reload()
    until(page, "document.getElementById('details').open")
    assert view(page) == "row=ddpm"
    page.keyboard.press("Escape")
    until(page, "!document.getElementById('details').open && location.hash.length < 2")
    assert view(page) == ""
    until(page, focus_in_row("ddpm"))


def test_escape_from_a_row_that_is_not_in_the_table_goes_to_the_page(page, addresses):
    go(page, addresses["small"], "family=gan&row=ddpm")
    assert page.locator("#details").is_visible()
    page.keyboard.press("Escape")
    until(page, "!document.getElementById('details').open && document.activeElement.id === 'main'")


def test_every_row_has_its_permanent_link(page, addresses):
    go(page, addresses["small"])
    links = page.evaluate("[...document.querySelectorAll('#board tbody th.name a')].map(a => a.getAttribute('href'))")
    assert links == [f"#row={row}" for row in ids(page)]


def test_details_show_seeds_grid_and_card(page, addresses):
    go(page, addresses["small"], "row=ddpm")
    assert page.evaluate("document.querySelector('#details img').naturalWidth") == 32
    fid = page.locator("#details .values tbody tr").first.inner_text()
    assert "0: 3.00 · 1: 3.10 · 2: 3.20" in fid
    assert "mean 3.10, SD 0.100" in fid
    assert "1–2" in fid
    assert "group g1" in fid
    assert texts(page, "#details .card h3") == [f"Card of {HOSTILE}"]
    assert page.evaluate("document.querySelectorAll('#details .card img, #details .card script').length") == 0


def test_details_of_a_hostile_row_are_text(page, addresses):
    go(page, addresses["small"], "row=hostile")
    assert page.locator("#details-title").inner_text() == HOSTILE
    text = page.locator("#details-body").inner_text()
    assert "<b>family</b>" in text
    assert '"><img src=x onerror=alert(1)>' in text
    addresses_of_links = page.evaluate("[...document.querySelectorAll('#details a')].map(a => a.protocol)")
    assert set(addresses_of_links) == {"file:", "https:"}
    assert page.evaluate("[...document.images].every(image => image.src.startsWith('data:'))")


def test_hostile_names_are_text_in_head_table_and_menus(page, addresses):
    go(page, addresses["small"])
    assert page.locator("h1").inner_text() == f"Digits {HOSTILE}"
    assert page.locator('#board tr[data-row="hostile"] .row-name').inner_text() == HOSTILE
    assert HOSTILE in page.locator('#board tr[data-row="hostile"] td[data-column=fid]').inner_text()
    page.click(".menu[data-filter=device] summary")
    assert '"><img src=x onerror=alert(1)> (1)' in texts(page, ".menu[data-filter=device] label")
    page.click("#rules summary")
    assert "</script><script>alert(2)</script>" in page.locator("#rules pre").inner_text()


def test_tab_stays_in_the_dialog(page, addresses):
    go(page, addresses["small"], "row=ddpm")
    inside = "document.getElementById('details').contains(document.activeElement)"
    visited = set()
    for key in ["Tab"] * 9 + ["Shift+Tab"] * 12:
        page.keyboard.press(key)
        assert page.evaluate(inside), key
        visited.add(page.evaluate("document.activeElement.textContent.slice(0, 20)"))
    assert {"✕", "Copy link", "Permanent link"} <= visited


def test_a_menu_opens_and_closes_by_key(page, addresses):
    go(page, addresses["small"])
    page.focus(".menu[data-filter=tier] summary")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert view(page).startswith("tier=")
    page.keyboard.press("Escape")
    assert page.evaluate("document.querySelectorAll('.menu[open]').length") == 0
    assert page.evaluate("document.activeElement.parentElement.dataset.filter") == "tier"


def test_dark_by_preference_and_by_the_switch(page, addresses):
    go(page, addresses["small"])
    assert page.evaluate(GROUND) == LIGHT
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(GROUND) == DARK
    page.click("#theme")
    assert (page.locator("#theme").inner_text(), page.evaluate(GROUND)) == ("Theme: light", LIGHT)
    page.emulate_media(color_scheme="light")
    page.click("#theme")
    assert (page.locator("#theme").inner_text(), page.evaluate(GROUND)) == ("Theme: dark", DARK)
    page.reload()
    until(page, f"{GROUND} === '{DARK}'")
    page.click("#theme")
    assert (page.locator("#theme").inner_text(), page.evaluate(GROUND)) == ("Theme: system", LIGHT)


def test_the_chart_follows_the_theme(page, addresses):
    go(page, addresses["small"], "chart=1")
    fill = "getComputedStyle(document.querySelector('#plot .xtick text') || document.body).fill"
    until(page, "document.querySelector('#plot .xtick text') !== null")
    light = page.evaluate(fill)
    page.emulate_media(color_scheme="dark")
    until(page, f"{fill} !== '{light}'")


@pytest.mark.parametrize("width", [320, 390, 768])
@pytest.mark.parametrize("where", ["", "row=ddpm", "chart=1&columns=fid&columns=%40source&show=seeds"])
def test_the_page_never_scrolls_sideways(page, addresses, width, where):
    page.set_viewport_size({"width": width, "height": 844})
    go(page, addresses["small"], where)
    page.evaluate("document.querySelectorAll('main > details').forEach(details => { details.open = true; })")
    if not where:
        page.click(".menu[data-filter=show] summary")
        box = page.locator(".menu[data-filter=show] .panel").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    page.wait_for_timeout(150)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.scrollWidth") <= width
    if where.startswith("row"):
        assert page.evaluate("(d => d.scrollWidth - d.clientWidth)(document.getElementById('details'))") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "where", ["", "row=ddpm", "row=hostile", "chart=1&show=seeds&show=ranks", "menu", "empty", "large"]
)
def test_axe_finds_nothing_serious(page, addresses, scheme, where):
    page.emulate_media(color_scheme=scheme)
    hash_ = "" if where in ("menu", "empty", "large") else where
    go(page, addresses.get(where, addresses["small"]), hash_)
    if where == "menu":
        page.click(".menu[data-filter=column] summary")
    if where.startswith("chart"):
        page.evaluate("document.querySelectorAll('main > details').forEach(details => { details.open = true; })")
        until(page, "document.querySelectorAll('#plot .main-svg .point').length > 0")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    serious = [
        (each["id"], [node["target"] for node in each["nodes"]][:3])
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert len(found["passes"]) > 15


def test_a_thousand_rows(page, addresses):
    go(page, addresses["large"])
    nodes = "document.querySelectorAll('*').length"
    assert page.evaluate(nodes) < 8000
    assert "1000 rows, 1 to 100 shown" in page.locator("#status").inner_text()
    value = "[...document.querySelectorAll('#board td[data-column=recall]')].map(td => parseFloat(td.firstChild.data))"
    page.click('#board thead [data-sort="recall"]')
    shown = page.evaluate(value)
    assert len(shown) == 100
    assert shown == sorted(shown, reverse=True)
    page.click("#pages button[aria-label='Page 10']")
    assert page.evaluate(value)[-1] == 2.0
    assert len(texts(page, "#board tr.section")) == 1
    assert view(page) == "sort=recall&page=10"
    page.select_option("#length", "250")
    assert len(ids(page)) == 250
    page.fill("#search", "model 777")
    until(page, "document.querySelectorAll('#board tr[data-row]').length === 1")
    assert ids(page) == ["model-777"]


def test_a_link_to_a_far_row_turns_to_its_page(page, addresses):
    go(page, addresses["large"], "page=7")
    far = ids(page)[50]
    go(page, addresses["large"], f"row={far}")
    assert far in ids(page)
    page.keyboard.press("Escape")
    until(page, "!document.getElementById('details').open")
    until(page, focus_in_row(far))
    assert page.locator("#board tr[data-row] a:focus").count() == 1


def test_a_linked_row_outside_the_filters_still_opens(page, addresses):
    go(page, addresses["small"], "tier=reported&row=ddpm")
    assert page.locator("#details-title").inner_text() == "ddpm"
    assert ids(page) == ["StyleGAN2"]


def test_an_empty_board_says_so(page, addresses):
    go(page, addresses["empty"])
    assert "no rows yet" in page.locator("#board tbody").inner_text()
