"""Headless Chromium for the tests of the page."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager

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
READY = (
    "document.querySelectorAll('#board tbody tr').length > 0 && document.getElementById('status').textContent !== ''"
)
IDS = "[...document.querySelectorAll('#board tbody tr[data-row]')].map(tr => tr.dataset.row)"


@contextmanager
def chromium(sync_api):
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def tab(browser, **options):
    """A new tab that notes console messages, errors, dialogs and requests."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, "color_scheme": "light", **options})
    page.messages, page.asked = [], []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    page.on("dialog", lambda dialog: (page.messages.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: page.asked.append(request.url))
    yield page
    page.close()


def until(page, condition, seconds=10.0):
    """Wait for a condition; the page's policy forbids the evaluation that Playwright's own waiting needs."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def go(page, address, view=""):
    """Open a view of the page afresh."""
    page.goto("about:blank")
    page.goto(f"{address}#{view}" if view else address)
    until(page, READY)


def ids(page):
    """Ids of the rows in the table, in order."""
    return page.evaluate(IDS)


def view(page):
    """The state in the address."""
    return page.evaluate("location.hash.slice(1)")


def choose(page, menu, value, on=True):
    """Set a checkbox of a menu in the tool bar."""
    details = page.locator(f".menu[data-filter={menu}]")
    if not details.evaluate("menu => menu.open"):
        details.locator("summary").click()
    page.locator(f'.menu[data-filter={menu}] input[value="{value}"]').set_checked(on)
    page.keyboard.press("Escape")


def texts(page, selector):
    return page.evaluate("selector => [...document.querySelectorAll(selector)].map(e => e.textContent)", selector)
