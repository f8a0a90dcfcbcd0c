"""Reports in headless Chromium: figures as SVG and CSV, tables as CSV, several sources, axe-core, phone width."""

import csv
import io
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from report_fixture import metric, write_run
from report_runs import row, write_records

from genbench.report.build import build_report, write_changes, write_report, write_series
from genbench.report.sources import read_sources

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
NAME = '"R&D" <b>\'s\x07 gan'
AXE = Path(__file__).parents[1] / "leaderboard" / "vendor" / "axe.min.js"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A run's own report, two sources of two suites side by side with differences, and what changed between two."""
    home = tmp_path_factory.mktemp("pages")
    run = write_run(home / "run")
    a = write_records(home / "a", row("vae", 0), row("vae", 1, fid=2.5), row("gan"), scores=True)
    b = write_records(home / "b", row("vae", 0, fid=4.0, nll=1.9), row("gan", config={"steps": 3}), scores=True)
    c = write_records(home / "c", row("vae", suite="mnist"))
    several = write_report(read_sources([str(a), str(b), str(c)]), home / "several.html", baseline="a")
    changes = write_changes(*read_sources([str(a), str(b)]), home / "changes.html")
    for day, fid in enumerate((2.0, 2.1, 1.9, 2.0, 9.0), start=1):
        created = f"2026-11-0{day}T03:00:00+00:00"
        write_records(home / "history" / f"day-{day}", row("vae", fid=fid, created=created))
    series = write_series([str(home / "history")], "fid", home / "series.html")
    found = {"run": build_report(run), "several": several, "changes": changes, "series": series}
    return found | named_pages(home / "named")


def named_pages(home):
    """Pages of records whose names are long, have quotes and signs, and a character that XML cannot hold."""
    folders = []
    for day, fid in enumerate((2.0, 2.1, 1.9, 2.0, 9.0), start=1):
        one = row("m" * 60, fid=fid, suite="s" * 60, created=f"2026-11-0{day}T03:00:00+00:00")
        speeds = [metric("fid", fid + 1, 0.2), metric("parameters", 2000.0)]
        other = row("gan", suite="s" * 60, created=one.created, metrics=speeds)
        folder = write_records(home / f'day-{day} "R&D"', one)
        (folder / "records" / "other.json").write_text(other.model_copy(update={"model": NAME}).model_dump_json())
        folders.append(str(folder))
    first, last = read_sources([f"{'a' * 70}={folders[0]}", f"{'b' * 70}={folders[-1]}"])
    return {
        "named": write_report([first], home / "x.html"),
        "named_changes": write_changes(first, last, home / "d.html"),
        "named_series": write_series([str(home)], "fid", home / "s.html"),
    }


@pytest.fixture
def opened(browser, pages):
    made = []

    def opener(name, **options):
        page = browser.new_page(bypass_csp=False, accept_downloads=True, **options)
        page.messages, page.asked = [], []
        page.on("console", lambda message: page.messages.append(message.text))
        page.on("pageerror", lambda error: page.messages.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(pages[name].as_uri())
        page.wait_for_selector(".plot .main-svg")
        made.append(page)
        return page

    yield opener
    for page in made:
        assert page.messages == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in page.asked)
        page.close()


def saved(page, selector):
    """Name and text of the file that a click saves."""
    with page.expect_download() as download:
        page.click(selector)
    return download.value.suggested_filename, Path(download.value.path()).read_text(encoding="utf-8")


def test_every_figure_has_both_buttons(opened):
    for name in ("run", "several", "changes", "series"):
        page = opened(name)
        counts = [page.locator(what).count() for what in (".plot", "[data-save=svg]", "[data-save=csv]")]
        assert counts[0] > 0
        assert len(set(counts)) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_figure_is_saved_as_svg_that_holds_what_is_shown(opened, scheme):
    name, text = saved(opened("run", color_scheme=scheme), "[data-save=svg][data-chart=chart-parameters]")
    root = ElementTree.fromstring(text)
    assert name == "chart-parameters.svg"
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text") if element.text]
    assert {"ddpm", "vae", "pixelcnn"} <= {word.strip() for word in words}
    assert "--c0" not in text
    grounds = {"light": "rgb(255, 255, 255)", "dark": "rgb(26, 28, 32)"}
    assert grounds[scheme] in text


def test_a_figure_is_saved_as_its_numbers(opened):
    name, text = saved(opened("run"), "[data-save=csv][data-chart=chart-parameters]")
    lines = {line["series"]: line for line in csv.DictReader(io.StringIO(text))}
    assert name == "chart-parameters.csv"
    assert lines["ddpm"]["x"] == "390000"
    assert float(lines["ddpm"]["y"]) == 12.9
    assert float(lines["ddpm"]["y_low"]) == pytest.approx(12.9 - 0.12 * 12.9)
    assert "<script>alert(1)</script>" in lines
    curve = saved(opened("run"), "[data-save=csv][data-chart=chart-training-1]")[1]
    points = [line for line in csv.DictReader(io.StringIO(curve)) if line["series"] == "loss"]
    assert [line["x"] for line in points][:2] == ["0", "50"]
    assert points[0]["y"] == ""


def test_tables_are_saved_as_csv(opened):
    page = opened("several")
    name, text = saved(page, "[data-save=table][data-table=digits-comparison-table]")
    lines = list(csv.reader(io.StringIO(text)))
    assert name == "digits-comparison-table.csv"
    assert len({len(line) for line in lines if line}) == 1
    found = next(line for line in lines if line[0].startswith("vae · a"))
    assert found[1].startswith("2.2")
    text = saved(page, "[data-save=table][data-table=digits-differences-table]")[1]
    assert 'vae · b,vae · a,"\'+1.8 [−3.8, 7.3]"' in text


def test_a_series_is_saved_with_its_steps(opened):
    page = opened("series")
    text = saved(page, "[data-save=table][data-table=steps-table]")[1]
    assert "digits,vae,FID (digits-cnn),day-5,day-4," in text
    points = saved(page, "[data-save=csv]")[1]
    assert [line["x"] for line in csv.DictReader(io.StringIO(points))][:2] == ["day-1", "day-2"]


def test_every_table_of_numbers_has_a_button(opened):
    page = opened("several")
    seeds = list(csv.reader(io.StringIO(saved(page, "[data-table=digits-seeds-table]")[1])))
    assert seeds[0][:3] == ["Row", "Seeds", "FID (digits-cnn) ↓"]
    assert seeds[1][:3] == ["vae · a", "0, 1", "2.00, 2.50 (± 0.354)"]
    audit = list(csv.reader(io.StringIO(saved(opened("run"), "[data-table=audit-table]")[1])))
    assert next(line for line in audit if line[0].startswith("noise"))[1].startswith("✓ caught")
    assert len({len(line) for line in audit}) == 1


@pytest.mark.parametrize("name", ["run", "several", "changes", "series"])
def test_an_address_with_a_section_opens_the_page_there(opened, pages, name):
    page = opened(name)
    hashes = page.evaluate("[...document.querySelectorAll('.page-nav a')].map(link => link.hash)")
    assert len(hashes) > 2
    for place in (hashes[1], hashes[-1]):
        page.goto("about:blank")
        page.goto(f"{pages[name].as_uri()}{place}")
        at = None
        while at != (at := page.evaluate("scrollY")):
            page.wait_for_timeout(300)
        top = f"document.getElementById({place[1:]!r}).getBoundingClientRect().top"
        under_nav = page.evaluate(f"{top} - document.querySelector('.page-nav').getBoundingClientRect().height")
        is_last = page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2")
        assert under_nav >= -1
        assert is_last or under_nav < 40


def test_quotes_in_names_are_quotes_in_charts(opened):
    words = "[...document.querySelectorAll('.plot text')].map(word => word.textContent).join(' ')"
    for name in ("named", "named_series", "named_changes"):
        text = opened(name).evaluate(words)
        assert "&" not in text.replace("R&D", "")
    text = opened("named").evaluate(words)
    assert '"R&D" <b>\'s' in text


def test_a_control_character_in_a_name_does_not_break_the_figure(opened):
    text = saved(opened("named"), "[data-save=svg][data-chart=chart-parameters]")[1]
    assert any(NAME.replace("\x07", "") in (word.text or "") for word in ElementTree.fromstring(text).iter())


@pytest.mark.parametrize("name", ["named", "named_changes", "named_series"])
@pytest.mark.parametrize("width", [320, 375])
def test_long_names_do_not_scroll_the_page_sideways(opened, name, width):
    page = opened(name, viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    page.wait_for_timeout(150)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_sorting_one_suite_leaves_the_other(opened):
    page = opened("several")
    page.click("#digits-comparison-table th:has-text('FID') button")
    page.wait_for_timeout(100)
    assert page.locator("#digits-comparison .sort-status").text_content() == "Sorted by FID, ascending."
    assert page.locator("#mnist-comparison .sort-status").text_content() == ""


@pytest.mark.parametrize("name", ["run", "several", "changes", "series"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened, name, scheme):
    page = opened(name, color_scheme=scheme)
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    assert [(one["id"], one["nodes"][0]["html"][:120]) for one in found["violations"]] == []


@pytest.mark.parametrize("name", ["several", "changes", "series"])
@pytest.mark.parametrize("width", [320, 390, 768])
def test_the_page_never_scrolls_sideways_on_small_screens(opened, name, width):
    page = opened(name, viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    page.wait_for_timeout(150)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
