"""The search page and pages of others in a real browser: what somebody sees, clicks, filters, compares and grades."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from estudio_core.evaluation.judgment_store import judged_on_page
from estudio_core.searching import search
from tests.running.browser import SCREENSHOTS, open_browser
from tests.service.conftest import Service, service, small_entry, small_model_folder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["service", "small_entry", "small_model_folder"]

pytestmark = pytest.mark.proof
PACKAGES = {"instantsearch.js": "4.118.1", "algoliasearch": "5.65.0", "search-insights": "2.17.3"}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    found = context.new_page()
    problems: list[str] = []
    found.on("pageerror", lambda error: problems.append(str(error)))
    found.on("console", lambda line: problems.append(line.text) if "Content Security Policy" in line.text else None)
    yield found
    context.close()
    assert problems == []


def picture(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"search-page-{name}.png", full_page=True)


def titles(page: Page) -> list[str]:
    return page.locator("#hits h2").all_inner_texts()


def until(check: Any, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_somebody_searches_filters_turns_pages_and_clicks(service: Service, page: Page) -> None:
    key = service.key("search", "events")
    page.goto(f"{service.address}/ui/shop")
    page.get_by_text("A key with the scope [search] is needed").wait_for()
    picture(page, "key")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Use this key").click()
    page.get_by_text("1 to 10 of 60").wait_for()
    page.get_by_role("searchbox").fill("red lamp")
    page.keyboard.press("Enter")
    page.get_by_text("for “red lamp”").wait_for()
    expected = [hit.payload["title"] for hit in search("shop", "red lamp", limit=20).hits]
    assert titles(page) == expected[:10]
    page.get_by_text("Why is this here?").first.click()
    assert page.get_by_role("meter", name="similarity of meaning").first.is_visible()
    picture(page, "desktop")
    page.get_by_role("button", name="Next page").click()
    page.get_by_text("11 to 20").wait_for()
    assert titles(page) == expected[10:]
    page.get_by_role("checkbox", name="lamp 10", exact=True).check()
    page.get_by_text("1 to 10 of 10").wait_for()
    assert all("lamp" in title for title in titles(page))
    assert page.get_by_role("checkbox", name="chair 10", exact=True).is_visible()  # beside it
    page.get_by_label("price to").fill("20")
    page.keyboard.press("Tab")
    page.get_by_text("1 to 7 of 7").wait_for()
    page.get_by_label("Order").select_option("price, highest first")
    page.get_by_text("1 to 7 of 7").wait_for()
    until(lambda: titles(page)[0].endswith("number 36"))
    page.reload()
    page.get_by_text("1 to 7 of 7").wait_for()  # the address holds all of it
    page.locator("#hits h2 button").nth(1).click()

    def clicked() -> bool:
        return any(event.object_id == "30" for found in service.sessions().values() for event in found.events)

    until(clicked)
    [session] = [found for found in service.sessions().values() if found.events]
    assert (session.query, session.events[0].object_id) == ("red lamp", "30")
    page.go_back()
    assert key not in page.content()


def test_two_rankings_stand_side_by_side(service: Service, page: Page) -> None:
    page.goto(f"{service.address}/ui/shop?q=red+lamp#key={service.key('admin')}")
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("results stand in both").wait_for()
    assert "key=" not in page.url
    assert page.locator("#compare ol").count() == 2
    by_words = [hit.payload["title"] for hit in search("shop", "red lamp", limit=10, mode="words").hits]
    second = page.locator("#compare ol").nth(1).locator("h2").all_inner_texts()
    assert [text.partition(". ")[2] for text in second] == by_words
    picture(page, "compare")


def test_people_grade_results_with_the_keyboard(service: Service, page: Page) -> None:
    page.goto(f"{service.address}/ui/shop?q=kettle&view=judge#key={service.key('admin')}")
    page.get_by_text("for “kettle”").wait_for()
    page.get_by_label("Your name").fill("ann")
    page.keyboard.press("Tab")
    page.locator(".hit").first.focus()
    page.keyboard.press("3")
    page.get_by_text("fits exactly: kept").wait_for()
    page.locator(".hit").nth(1).get_by_label("0 not at all").check()
    page.get_by_text("fits not at all: kept").wait_for()
    first, second = [hit.object_id for hit in search("shop", "kettle", limit=2).hits]
    assert {query: dict(of) for query, of in judged_on_page("shop").items()} == {"kettle": {first: 3.0, second: 0.0}}
    page.reload()
    page.get_by_text("for “kettle”").wait_for()
    assert page.locator(".hit").first.get_by_label("3 exactly").is_checked()
    picture(page, "judge")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export grades").click()
    assert "kettle" in Path(download.value.path()).read_text()


def test_the_page_of_a_public_plugin_works_on_a_phone_in_the_dark(service: Service, browser: Browser) -> None:
    context = browser.new_context(viewport=PHONE, color_scheme="dark", has_touch=True, is_mobile=True)  # type: ignore[arg-type]
    phone = context.new_page()
    phone.goto(f"{service.address}/ui/library?q=camera")
    phone.get_by_text("for “camera”").wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    phone.get_by_text("Filters", exact=True).tap()
    phone.get_by_role("checkbox", name="camera 10", exact=True).check()
    phone.get_by_text("1 to 10 of 10").wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    picture(phone, "phone-dark")
    context.close()


def test_the_page_is_used_without_a_mouse_and_read_without_eyes(service: Service, page: Page) -> None:
    page.goto(f"{service.address}/ui/library?q=tent")
    page.get_by_text("for “tent”").wait_for()
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input, select, a')].filter((e) => e.checkVisibility()"
        " && !(e.textContent.trim() || e.labels?.length || e.ariaLabel)).map((e) => e.outerHTML)"
    )
    assert unnamed == []
    assert page.evaluate("document.querySelector('html').lang") == "en"
    assert page.get_by_role("status").first.get_attribute("aria-live") == "polite"
    page.evaluate("document.querySelector('.skip').focus()")
    seen = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 20)"))
    assert {"query", "sort", "mode", "facet-brand-acme", "Why is this here?"} <= seen


PAGE_OF_OTHERS = """
<!doctype html><meta charset="utf-8"><title>Shop</title>
<script src="algoliasearch.js"></script><script src="instantsearch.js"></script>
<div id="box"></div><div id="brands"></div><div id="hits"></div><div id="pages"></div>
<script>
const { searchBox, hits, refinementList, pagination, configure } = instantsearch.widgets;
const address = new URL("%(address)s");
const client = window["algoliasearch/lite"].liteClient("estudio", "%(key)s",
  { hosts: [{ url: address.host, accept: "readWrite", protocol: "http" }] });
const search = instantsearch({ indexName: "shop", searchClient: client,
  insights: { insightsInitParams: { host: address.origin, useCookie: false, userToken: "visitor-1" } } });
search.addWidgets([
  configure({ hitsPerPage: 5 }), searchBox({ container: "#box" }),
  refinementList({ container: "#brands", attribute: "brand" }),
  hits({ container: "#hits", templates: { item: (hit, { html, components, sendEvent }) =>
    html`<b onClick=${() => sendEvent("click", hit, "Hit clicked")}>
      ${components.Highlight({ attribute: "title", hit })}</b>` } }),
  pagination({ container: "#pages" }) ]);
search.start();
</script>
<script>
addEventListener("pagehide", () => navigator.sendBeacon("%(address)s/ubi_events?key=%(key)s", JSON.stringify(
  { action_name: "page_leave", timestamp: new Date().toISOString(), client_id: "visitor-1" })));
</script>
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The browser files of InstantSearch and its companions, as their registry has them."""
    if shutil.which("npm") is None:
        pytest.skip("npm is needed to fetch InstantSearch. On Debian and Ubuntu: apt install npm")
    folder = tmp_path_factory.mktemp("packages")
    for name, version in PACKAGES.items():
        fetched = subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, capture_output=True)
        if fetched.returncode:
            pytest.skip(f"npm does not fetch {name}: {fetched.stderr.decode()[-300:]}")
        with tarfile.open(folder / f"{name}-{version}.tgz") as archive:
            archive.extractall(folder / name, filter="data")
    shutil.copy(
        folder / "instantsearch.js/package/dist/instantsearch.production.min.js", folder / "instantsearch.js.js"
    )
    shutil.copy(folder / "algoliasearch/package/dist/lite/builds/browser.umd.js", folder / "algoliasearch.js")
    return folder


def test_instantsearch_and_beacons_work_unmodified_from_another_origin(
    service: Service, packages: Path, page: Page, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    shutil.copy(packages / "instantsearch.js.js", site / "instantsearch.js")
    shutil.copy(packages / "algoliasearch.js", site / "algoliasearch.js")
    shutil.copy(packages / "search-insights/package/dist/search-insights.min.js", site / "search-insights.js")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}"
    key = service.key("search", "events", origins=[origin])
    (site / "index.html").write_text(PAGE_OF_OTHERS % {"address": service.address, "key": key})
    # InstantSearch fetches search-insights from a network that is not here: the same file, from beside it.
    page.route("**/search-insights*.min.js", lambda route: route.fulfill(path=site / "search-insights.js"))
    try:
        page.goto(f"{origin}/index.html")
        page.locator("#hits b").first.wait_for()
        page.locator("#box input").press_sequentially("red lamp", delay=60)
        until(lambda: page.locator("#hits mark").count() > 0)
        page.locator("#brands input").first.check()
        until(lambda: page.locator("#brands input:checked").count() == 1)
        page.locator("#pages a", has_text="2").first.click()
        time.sleep(2)
        clicked = page.locator("#hits b").nth(1).inner_text()
        page.locator("#hits b").nth(1).click()
        picture(page, "instantsearch")

        def events() -> list[Any]:
            return [(found.query, event) for found in service.sessions().values() for event in found.events]

        until(lambda: any(query == "red lamp" and event.event_type == "click" for query, event in events()), 30)
        found = [event for query, event in events() if query == "red lamp" and event.event_type == "click"]
        [(title,)] = service.sql("SELECT title FROM shop WHERE id = %s", found[-1].object_id)
        assert title == clicked
        typed = service.sql("SELECT DISTINCT user_query FROM estudio.ubi_queries WHERE client_id = 'visitor-1'")
        assert typed == [("red lamp",)]
        page.goto("about:blank")
        until(lambda: service.sql("SELECT 1 FROM estudio.ubi_events WHERE action_name = 'page_leave'"))
    finally:
        server.shutdown()
