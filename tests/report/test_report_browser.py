"""The report in headless Chromium: it sorts, loads, stays quiet, asks nobody, and fits a phone in both themes."""

import shutil
import time

import pytest
from report_fixture import HOSTILE, write_run

from genbench.report.build import build_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

FIRST_COLUMN = "[...document.querySelectorAll('#comparison-table tbody.models tr')].map(r => r.cells[0].dataset.sort)"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return build_report(write_run(tmp_path_factory.mktemp("run"))).as_uri()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser, address):
    page = browser.new_page()
    page.messages, page.asked = [], []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("dialog", lambda dialog: (page.messages.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#chart-time .main-svg")
    return page


@pytest.fixture
def page(opened):
    opened.emulate_media(color_scheme="light")
    opened.set_viewport_size({"width": 1280, "height": 900})
    return opened


def until(page, condition, seconds=5.0):
    """Wait for a condition; the page's policy forbids the evaluation that Playwright's own waiting needs."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def head(name):
    return f"#comparison-table th:has-text('{name}') button"


def wait_sorted(page, name, direction):
    until(page, f"document.querySelector('#comparison .sort-status').textContent === 'Sorted by {name}, {direction}.'")


def test_the_page_is_quiet_and_asks_nobody(page, address):
    assert page.messages == []
    assert [url for url in page.asked if url != address and not url.startswith(("data:", "blob:"))] == []


def test_every_chart_is_drawn_also_in_the_other_theme(page):
    drawn = "[...document.querySelectorAll('.plot')].every(place => place.querySelector('.main-svg'))"
    until(page, drawn)
    assert page.evaluate("document.querySelectorAll('.plot').length") > 3
    grounds = "[...document.querySelectorAll('.plot .xtick text')].map(tick => getComputedStyle(tick).fill)"
    light = page.evaluate(grounds)
    page.emulate_media(color_scheme="dark")
    until(page, f"{grounds}.every(fill => fill !== '{light[0]}')")


def test_every_image_loads(page):
    sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(sizes) > 20
    assert min(sizes) > 0


def test_a_click_sorts_best_first_and_another_turns_it_round(page):
    page.click(head("FID"))
    wait_sorted(page, "FID", "ascending")
    best_first = ["ddpm", "pixelcnn", "vae", "dcgan", HOSTILE, "ebm"]
    assert page.evaluate(FIRST_COLUMN) == best_first
    page.click(head("FID"))
    wait_sorted(page, "FID", "descending")
    assert page.evaluate(FIRST_COLUMN) == [*best_first[-2::-1], "ebm"]
    assert page.evaluate("document.querySelectorAll('#comparison-table tbody.controls tr').length") == 5
    assert page.evaluate("document.querySelectorAll('#comparison-table th[aria-sort]').length") == 1


def test_higher_is_better_sorts_from_the_top(page):
    page.click(head("Recall"))
    wait_sorted(page, "Recall", "descending")
    assert page.evaluate(FIRST_COLUMN)[:2] == ["ddpm", "pixelcnn"]


@pytest.mark.parametrize(
    ("key", "name", "direction"), [("Enter", "KID", "ascending"), ("Space", "Precision", "descending")]
)
def test_the_keyboard_sorts(page, key, name, direction):
    page.focus(head(name))
    page.keyboard.press(key)
    wait_sorted(page, name, direction)
    assert page.evaluate(FIRST_COLUMN)[0] == {"KID": "ddpm", "Precision": "dcgan"}[name]
    assert page.evaluate("document.activeElement.closest('th').getAttribute('aria-sort')") == direction


def test_hostile_names_are_text_in_table_and_chart(page):
    assert HOSTILE in page.evaluate(
        "[...document.querySelectorAll('#comparison-table .row-name')].map(e => e.firstChild.data)"
    )
    drawn = page.evaluate("[...document.querySelectorAll('#chart-parameters text')].map(t => t.textContent.trim())")
    assert HOSTILE in drawn


def test_charts_follow_the_theme(page):
    fill = "getComputedStyle(document.querySelector('#chart-time .xtick text')).fill"
    light = page.evaluate(fill)
    page.emulate_media(color_scheme="dark")
    until(page, f"{fill} !== '{light}'")
    assert page.messages == []


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_never_scrolls_sideways(page, width, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    page.wait_for_timeout(150)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.body.scrollWidth") <= width


def test_text_has_enough_contrast(page):
    measure = """() => {
      const parse = c => c.match(/[\\d.]+/g).map(Number);
      const light = c => { const [r, g, b] = parse(c).map(v => v / 255).map(
        v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
      const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
        if (c.length < 4 || c[3] === 1) return getComputedStyle(e).backgroundColor; } return 'rgb(255,255,255)'; };
      const low = [];
      for (const e of document.querySelectorAll('main *:not(svg *), header *, footer *, nav *')) {
        if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest('.hidden, .plot')) continue;
        const a = light(getComputedStyle(e).color), b = light(ground(e));
        const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
        if (ratio < 4.5) low.push([e.tagName, e.className, e.textContent.slice(0, 30), ratio.toFixed(2)].join(' '));
      }
      return low; }"""
    assert page.evaluate(measure) == []
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(measure) == []
