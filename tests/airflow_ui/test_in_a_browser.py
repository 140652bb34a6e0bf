"""The page in a real browser: both themes, a phone, the keyboard, and what the button sends to Airflow."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
import uvicorn
from airflow.api_fastapi.app import create_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.common.db.common import _get_session
from airflow.api_fastapi.core_api.security import get_user
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from estudio_core.airflow_ui.app import PREFIX, app
from estudio_core.local.ports import LOOPBACK
from tests.airflow_ui.conftest import Airflow
from tests.running.browser import open_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => {
    const [r, g, b] = rgba(colour).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const found = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.getClientRects().length || element.closest("script")) continue;
    const style = getComputedStyle(element);
    const colour = element.closest("svg") ? style.fill : style.color;
    const [a, b] = [luminance(colour), luminance(ground(element))].sort((one, other) => other - one);
    found.push([texts.currentNode.data.trim(), (a + 0.05) / (b + 0.05)]);
  }
  return found;
}"""


class Posted:
    """What was sent to Airflow's API."""

    runs: list[tuple[str, object]]

    def __init__(self) -> None:
        self.runs = []


@contextmanager
def served(airflow: Airflow, role: str) -> Iterator[tuple[str, Posted]]:
    """Serve the pages as Airflow would to a user of that role, below a page that frames them."""
    create_auth_manager().init()
    app.dependency_overrides = {
        get_user: lambda: SimpleAuthManagerUser(username="ann", role=role),
        _get_session: lambda: airflow.session,
    }
    posted, outer = Posted(), FastAPI()

    @outer.post("/api/v2/dags/{dag_id}/dagRuns")
    async def start(dag_id: str, request: Request) -> dict[str, str]:
        posted.runs.append((dag_id, await request.json()))
        return {"dag_run_id": "manual__1"}

    @outer.get("/framed")
    def framed() -> HTMLResponse:
        sandbox = "allow-scripts allow-same-origin allow-forms allow-downloads"  # Airflow's own
        return HTMLResponse(f'<iframe sandbox="{sandbox}" src="{PREFIX}/" width="900" height="700"></iframe>')

    @outer.get("/dags/{rest:path}")
    def dags(rest: str) -> HTMLResponse:
        return HTMLResponse(f"<h1>Airflow's own page: {rest}</h1>")

    outer.mount(PREFIX, app)
    server = uvicorn.Server(uvicorn.Config(outer, host=LOOPBACK, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://{LOOPBACK}:{port}", posted
    finally:
        server.should_exit = True
        thread.join()
        app.dependency_overrides = {}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    yield context.new_page()
    context.close()


def is_dark(page: Page) -> bool:
    red = page.evaluate("getComputedStyle(document.body).backgroundColor").removeprefix("rgb(").split(",")[0]
    return int(red) < 128


@pytest.mark.usefixtures("filled")
def test_the_theme_is_the_one_chosen_in_airflow_at_once_and_that_of_the_system_without_a_choice(
    airflow: Airflow, page: Page
) -> None:
    with served(airflow, "admin") as (address, _):
        for system, chosen, dark in (
            ("dark", None, True),
            ("light", None, False),
            ("dark", "system", True),
            ("light", "system", False),
            ("light", "dark", True),
            ("dark", "light", False),
        ):
            page.emulate_media(color_scheme=system)  # type: ignore[arg-type]
            page.goto(f"{address}{PREFIX}/")
            page.evaluate("(t) => t ? localStorage.setItem('theme', t) : localStorage.removeItem('theme')", chosen)
            page.reload()
            assert is_dark(page) == dark, (system, chosen)
        page.goto(f"{address}/framed")
        frame = page.frames[1]
        frame.wait_for_selector("html.light")
        page.evaluate("localStorage.setItem('theme', 'dark')")  # as Airflow's menu does, in the outer window
        frame.wait_for_selector("html.dark")
        page.evaluate("localStorage.setItem('theme', 'system')")
        page.emulate_media(color_scheme="light")
        frame.wait_for_selector("html.light")
        page.emulate_media(color_scheme="dark")
        frame.wait_for_selector("html.dark")


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_can_be_read_and_nothing_is_wider_than_a_phone(airflow: Airflow, page: Page, theme: str) -> None:
    airflow.dags("shop")
    airflow.dags("new")
    airflow.run("shop__sync", "failing", "failed", datetime.now(UTC))
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 740})
    with served(airflow, "admin") as (address, _):
        for path, least in (("/", 20), ("/plugins/shop", 60)):
            page.goto(f"{address}{PREFIX}{path}")
            assert is_dark(page) == (theme == "dark")
            contrasts = page.evaluate(CONTRASTS)
            assert len(contrasts) > least
            assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.get_by_role("heading", level=1).count() == 1
            ids = page.evaluate("[...document.querySelectorAll('[id]')].map((element) => element.id)")
            assert len(ids) == len(set(ids))


@pytest.mark.usefixtures("filled")
def test_by_keyboard_the_button_asks_first_and_starts_the_dag_through_airflows_api(
    airflow: Airflow, page: Page
) -> None:
    airflow.dags("new")
    with served(airflow, "admin") as (address, posted):
        page.goto(f"{address}{PREFIX}/plugins/new")
        button = page.get_by_role("button", name="Initialize")
        for _ in range(10):
            page.keyboard.press("Tab")
            if button.evaluate("(element) => element === document.activeElement"):
                break
        page.keyboard.press("Enter")
        yes = page.get_by_role("button", name="Yes, start")
        assert button.get_attribute("aria-expanded") == "true"
        assert yes.evaluate("(element) => element === document.activeElement")
        assert yes.evaluate("(element) => getComputedStyle(element).outlineStyle") == "solid"  # the focus is seen
        page.keyboard.press("Escape")
        assert yes.is_hidden()
        assert button.evaluate("(element) => element === document.activeElement")
        assert posted.runs == []
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        page.get_by_text("Started: manual__1").wait_for()
        assert posted.runs == [("new__initialize", {"logical_date": None, "conf": {}})]


@pytest.mark.usefixtures("filled")
def test_who_may_only_look_sees_what_is_next_and_no_button(airflow: Airflow, page: Page) -> None:
    airflow.dags("new")
    with served(airflow, "viewer") as (address, _):
        page.goto(f"{address}{PREFIX}/")
        page.get_by_text("index the items with the base model").wait_for()
        assert page.get_by_text("You may not do that here").count() == 1
        assert page.get_by_role("button").count() == 0
        assert page.request.get(f"{address}{PREFIX}/plugins/nothing").status == 404


@pytest.mark.usefixtures("filled")
def test_a_link_into_airflow_moves_its_window_and_not_the_frame(airflow: Airflow, page: Page) -> None:
    airflow.dags("shop")
    airflow.run("shop__fine_tune", "run 1", "running")
    airflow.question("shop", "run 1")
    with served(airflow, "admin") as (address, _):
        page.goto(f"{address}/framed")
        page.frame_locator("iframe").get_by_role("link", name="Review the challenger").click()
        page.get_by_text("shop__fine_tune/runs/run 1/tasks/approve/required_actions").wait_for()
        assert page.url == f"{address}/dags/shop__fine_tune/runs/run%201/tasks/approve/required_actions"
