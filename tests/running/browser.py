"""What a person does in the interfaces of Airflow and MLflow, done by a real browser; each step leaves a screenshot."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.running.runs import PATIENCE_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, FrameLocator, Page

SCREENSHOTS = Path(__file__).parents[2] / "test-output" / "screenshots"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_CLICK_S = 180.0
"""Longest wait for something on a page: a second on an idle machine."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the system's Chromium; skip the test where there is none."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"No browser: none of {', '.join(PROGRAMS)} is on PATH. On Debian and Ubuntu: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Run by root, as in a container, Chromium's sandbox does not start; the pages are our own.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield browser
        browser.close()


@dataclass(frozen=True)
class Person:
    """Somebody in front of a browser window of their own."""

    name: str
    page: Page
    airflow: str
    mlflow: str

    def sees(self, step: str) -> None:
        """Keep what is on the screen."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{step}.png")

    def log_in(self, password: str) -> None:
        """Log into Airflow through its page."""
        self.page.goto(self.airflow)
        self.page.fill("input[name=username]", self.name)
        self.page.fill("input[name=password]", password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("link", name="Dags").first.wait_for()

    def open_form(self, dag_id: str) -> None:
        """Open the form with which a run of the DAG is started."""
        self.page.goto(f"{self.airflow}/dags/{dag_id}")
        self.page.get_by_test_id("trigger-dag-button").click()
        self.page.get_by_test_id("trigger-dag-submit").wait_for()

    def open_section(self, title: str) -> None:
        """Unfold a section of the form."""
        self.page.get_by_role("button", name=title, exact=True).click()

    def choose(self, label: str, option: str) -> None:
        """Choose from a list of the form."""
        field = self.page.get_by_role("group").filter(has_text=label).last
        field.get_by_role("combobox").click()
        self.page.get_by_role("option", name=option, exact=True).click()

    def start(self, run_id: str) -> None:
        """Name the run and send the form."""
        self.open_section("Advanced Options")
        self.page.locator("input[name=dagRunId]").fill(run_id)
        self.page.get_by_test_id("trigger-dag-submit").click()
        self.page.get_by_test_id("trigger-dag-submit").wait_for(state="detached")

    def watch(self, dag_id: str, run_id: str) -> None:
        """Stay on the page of a run, which follows it by itself, until it says that the run has ended, and how."""
        self.page.goto(f"{self.airflow}/dags/{dag_id}/runs/{run_id}")
        heading = self.page.get_by_role("heading", name=run_id)
        state = heading.locator("xpath=following::*[@data-testid='state-badge'][1]")
        ended = state.filter(has_text=re.compile("^(success|failed)$", re.IGNORECASE))
        ended.wait_for(timeout=1000 * PATIENCE_S)
        assert state.inner_text().lower() == "success"

    def set_alias(self, model: str, version: int, alias: str) -> None:
        """Give a version of a model an alias, on its page in MLflow."""
        self.page.goto(f"{self.mlflow}/#/models/{model}/versions/{version}")
        label = self.page.get_by_test_id("descriptions-item-label").filter(has_text="Aliases")
        label.locator("xpath=..").get_by_role("button").click()
        dialog = self.page.get_by_role("dialog").filter(has_text="Add/Edit alias")
        dialog.get_by_role("combobox").fill(alias)
        dialog.get_by_role("combobox").press("Enter")
        dialog.get_by_role("button", name="Save aliases").click()
        dialog.wait_for(state="hidden")

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str, step: str) -> None:
        """Answer the question that a task waits with, on its page in Airflow."""
        self.page.goto(f"{self.airflow}/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/required_actions")
        choice = self.page.get_by_test_id(f"hitl-option-{option}")
        choice.wait_for()
        self.sees(step)
        choice.click()
        self.page.get_by_text("Response received at").first.wait_for()

    def open_estudio(self, plugin: str) -> FrameLocator:
        """Open the page of a plugin by the navigation, and return the frame that shows it."""
        self.page.goto(self.airflow)
        self.page.get_by_role("link", name="Estudio").click()
        frame = self.page.frame_locator("iframe")
        frame.get_by_role("link", name=plugin, exact=True).click()
        frame.get_by_role("heading", name=plugin, level=1).wait_for()
        return frame


def person(browser: Browser, name: str, airflow: str, mlflow: str) -> Person:
    """Return a user with a window and cookies of their own."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(1000 * _CLICK_S)
    return Person(name, context.new_page(), airflow, mlflow)
