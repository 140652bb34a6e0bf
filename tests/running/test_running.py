"""Real runs under a real scheduler, seen by a person in a real browser, and disturbed by SIGKILL.

One installation serves all tests of this file, which stand in the order of a story: two plugins go live, one of their
runs is hit twice, a person trains, promotes and rolls back, and in the end everything is where it should be. The tests
marked `proof` run with `make proof` only. Those of a person ask for the browser first: where there is none, nothing is
trained for them.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from estudio_core import database, local
from estudio_core.local import services
from estudio_core.local.runs import AirflowApi, RunState, wait_for_dag
from estudio_core.searching import search
from estudio_core.vectordb.releases import list_releases
from tests.running.browser import open_browser, person
from tests.running.runs import (
    PATIENCE_S,
    assert_serves,
    audit,
    live,
    new_run,
    run_ids,
    running_task,
    times,
    tries,
    until,
)
from tests.running.stack import ITEMS, MAIN, OTHER, Stack, open_stack

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.running.browser import Person

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3 * PATIENCE_S)]

WITHIN_S = 60.0
"""Longest way from a moved alias to the start of its release, on a machine that nobody else keeps busy."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with open_stack() as opened:
        yield opened


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[AirflowApi]:
    with stack.api() as opened:
        yield opened


def follow(stack: Stack, dag_id: str, run_id: str) -> RunState:
    """Wait for the success of a run."""
    return local.wait(dag_id, run_id, api=stack.api(), timeout_s=PATIENCE_S)


@pytest.fixture(scope="module")
def first_runs(stack: Stack, api: AirflowApi) -> dict[str, RunState]:
    """Both plugins, made live by runs that were triggered at the same time; then clicks for the one that learns."""
    dags = [f"{name}__initialize" for name in (MAIN, OTHER)]
    for dag_id in dags:
        wait_for_dag(dag_id, api=api, timeout_s=PATIENCE_S)
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda dag_id: local.trigger(dag_id, run_id="first", api=stack.api()), dags))
    ended = {dag_id: follow(stack, dag_id, "first") for dag_id in dags}
    stack.replay_clicks()
    return ended


@dataclass(frozen=True)
class Disturbed:
    """A release run that was hit twice."""

    dag_id: str
    run_id: str
    killed_task: int
    killed_scheduler: int


@pytest.fixture(scope="module")
def disturbed(stack: Stack, api: AirflowApi, first_runs: dict[str, RunState]) -> Disturbed:
    """A release run whose task is killed, and whose scheduler is killed later on while another task is at work."""
    dag_id = f"{OTHER}__release"
    run_id = local.trigger(dag_id, {"version": "1"}, "disturbed", api=stack.api())
    task = running_task(api, dag_id, run_id, "publish_model")
    psutil.Process(task).kill()
    running_task(api, dag_id, run_id, "embed_shard")  # so the killed one has succeeded meanwhile
    scheduler = services.status(stack.scheduler()).pid
    assert scheduler is not None
    leader = psutil.Process(scheduler)
    for process in [leader, *leader.children(recursive=True)]:  # its executor and the task die with it
        process.kill()
    until(lambda: not services.running(stack.scheduler()), "end of the scheduler")
    stack.start_again()
    return Disturbed(dag_id, run_id, task, scheduler)


@pytest.fixture(scope="module")
def trained(stack: Stack, first_runs: dict[str, RunState]) -> str:
    """The run `by_hand`, which a test starts in the browser, at its end; started here where that test did not run."""
    conf = {"num_epochs": 1, "promotion": "manual"}
    run_id = local.trigger(f"{MAIN}__fine_tune", conf, "by_hand", api=stack.api())
    follow(stack, f"{MAIN}__fine_tune", run_id)
    return run_id


@pytest.fixture(scope="module")
def promoted(stack: Stack, trained: str) -> str:
    """The trained version, which serves because a test moved its alias; released here where that test did not run."""
    if live(MAIN).model_version != "2":
        follow(stack, f"{MAIN}__release", local.trigger(f"{MAIN}__release", {"version": "2"}, api=stack.api()))
    return "2"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def admin(stack: Stack, browser: Browser) -> Person:
    made = person(browser, "admin", stack.airflow, stack.mlflow)
    made.log_in(stack.password("admin"))
    made.sees("01-logged-in")
    return made


def test_runs_of_two_plugins_at_once_both_make_their_first_release_live(
    api: AirflowApi, first_runs: dict[str, RunState]
) -> None:
    (began, ended), (other_began, other_ended) = (times(api, dag_id, "first") for dag_id in first_runs)
    assert max(began, other_began) < min(ended, other_ended)
    for name in (MAIN, OTHER):
        assert first_runs[f"{name}__initialize"].succeeded
        release = assert_serves(name, "1", ITEMS)
        [promotion] = audit(name)
        assert (promotion.way, promotion.outcome, promotion.to_version) == ("initialize", "live", "1")
        assert (promotion.release_id, promotion.run_id) == (release.release_id, "first")


@pytest.mark.proof
def test_a_task_whose_process_is_killed_is_retried_and_the_run_goes_on(api: AirflowApi, disturbed: Disturbed) -> None:
    assert tries(api, disturbed.dag_id, disturbed.run_id, "publish_model") == ["failed", "success"]
    assert not psutil.pid_exists(disturbed.killed_task)


def test_a_person_trains_with_the_form_and_reads_the_report(
    admin: Person, api: AirflowApi, first_runs: dict[str, RunState]
) -> None:
    fine_tune = f"{MAIN}__fine_tune"
    admin.open_form(fine_tune)
    admin.open_section("Training")
    admin.page.get_by_label("Epochs").fill("1")
    admin.open_section("Decision")
    admin.choose("Promotion", "manual")
    admin.sees("02-form")
    admin.start("by_hand")
    admin.watch(fine_tune, "by_hand")
    admin.sees("03-fine-tuned")
    run = api.json("GET", f"/dags/{fine_tune}/dagRuns/by_hand")
    assert (run["state"], run["triggering_user_name"]) == ("success", "admin")
    assert (run["conf"]["num_epochs"], run["conf"]["promotion"]) == (1, "manual")
    assert_serves(MAIN, "1", ITEMS)

    page = admin.open_estudio(MAIN)
    page.get_by_text("serves model version 1").wait_for()
    admin.sees("04-estudio")
    page.get_by_role("link", name="Latest report").click()
    page.get_by_role("heading", name=re.compile(" against "), level=1).wait_for()
    admin.sees("05-report")


def test_an_alias_moved_in_mlflow_is_followed_by_its_release(
    admin: Person, stack: Stack, api: AirflowApi, trained: str
) -> None:
    release = f"{MAIN}__release"
    before = run_ids(api, release)
    admin.set_alias(MAIN, 2, "champion")
    moved = time.monotonic()
    admin.sees("06-alias-moved")
    run_id = new_run(api, release, before)
    waited = time.monotonic() - moved
    print(f"from the alias to the release run: {waited:.1f} s")
    assert waited < WITHIN_S * max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    admin.watch(release, run_id)
    admin.sees("07-released")
    released = assert_serves(MAIN, "2", ITEMS)
    [promotion, *_] = audit(MAIN)
    assert (promotion.way, promotion.alias, promotion.run_id) == ("alias", "champion", run_id)
    assert (promotion.from_version, promotion.to_version, promotion.outcome) == ("1", "2", "live")
    assert promotion.release_id == released.release_id
    assert "unseen_ndcg_at_10_after" in promotion.numbers


def test_the_button_of_the_estudio_page_goes_back_in_seconds(
    admin: Person, stack: Stack, api: AirflowApi, promoted: str
) -> None:
    rollback, release = f"{MAIN}__rollback", f"{MAIN}__release"
    page = admin.open_estudio(MAIN)
    page.get_by_text("serves model version 2").wait_for()
    rollbacks, releases = run_ids(api, rollback), run_ids(api, release)
    page.get_by_role("button", name="Roll back to release").click()
    admin.sees("08-new-release")
    page.get_by_role("button", name="Yes, roll back").click()
    page.get_by_text("Started:").wait_for()
    run_id = new_run(api, rollback, rollbacks)
    follow(stack, rollback, run_id)
    page = admin.open_estudio(MAIN)
    page.get_by_text("serves model version 1").wait_for()
    admin.sees("09-rolled-back")
    assert_serves(MAIN, "1", ITEMS)
    [promotion, *_] = audit(MAIN)
    assert (promotion.way, promotion.actor, promotion.outcome) == ("rollback", "admin", "live")
    assert (promotion.from_version, promotion.to_version, promotion.run_id) == ("2", "1", run_id)
    assert run_ids(api, release) == releases  # nothing is built for it


def test_a_viewer_reads_the_page_without_a_button_and_is_refused_when_posting(
    browser: Browser, stack: Stack, api: AirflowApi, first_runs: dict[str, RunState]
) -> None:
    viewer = person(browser, "viewer", stack.airflow, stack.mlflow)
    viewer.log_in(stack.password("viewer"))
    page = viewer.open_estudio(MAIN)
    page.get_by_text("serves model version").wait_for()
    viewer.sees("10-viewer")
    assert page.get_by_role("button", name="Roll back").count() == 0
    for kind in ("rollback", "release", "fine_tune"):
        before = run_ids(api, f"{MAIN}__{kind}")
        answer = viewer.page.request.post(
            f"{stack.airflow}/api/v2/dags/{MAIN}__{kind}/dagRuns", data={"logical_date": None, "conf": {}}
        )
        assert answer.status == 403
        assert run_ids(api, f"{MAIN}__{kind}") == before


@pytest.mark.proof
def test_a_run_whose_scheduler_was_killed_is_finished_by_the_next_one(
    stack: Stack, api: AirflowApi, disturbed: Disturbed
) -> None:
    state = follow(stack, disturbed.dag_id, disturbed.run_id)
    assert services.status(stack.scheduler()).pid != disturbed.killed_scheduler
    assert {task.task_id: task.state for task in state.tasks} == {
        **dict.fromkeys([task.task_id for task in state.tasks], "success"),
        "put_back": "skipped",
    }
    assert tries(api, disturbed.dag_id, disturbed.run_id, "embed_shard", 0) == ["failed", "success"]
    release = assert_serves(OTHER, "1", ITEMS)
    [promotion, first] = audit(OTHER)[:2]
    assert (promotion.run_id, promotion.outcome, promotion.release_id) == (disturbed.run_id, "live", release.release_id)
    assert first.release_id != release.release_id


@pytest.mark.proof
def test_a_finished_run_that_is_cleared_converges_to_the_same_version(
    stack: Stack, api: AirflowApi, disturbed: Disturbed
) -> None:
    before = live(OTHER)
    follow(stack, disturbed.dag_id, disturbed.run_id)
    api.json("POST", f"/dags/{disturbed.dag_id}/dagRuns/{disturbed.run_id}/clear", json={"dry_run": False})
    until(
        lambda: api.json("GET", f"/dags/{disturbed.dag_id}/dagRuns/{disturbed.run_id}")["state"] != "success",
        "the cleared run",
    )
    follow(stack, disturbed.dag_id, disturbed.run_id)
    after = assert_serves(OTHER, before.model_version, ITEMS)
    assert after.release_id >= before.release_id
    assert [promotion.outcome for promotion in audit(OTHER)] == ["live", "live"]
    ids = [hit.object_id for hit in search(OTHER, "usb cable", limit=10).hits]
    assert len(set(ids)) == 10


@pytest.mark.proof
def test_a_person_approves_in_airflow_with_the_numbers_beside_the_question(
    admin: Person, stack: Stack, api: AirflowApi, first_runs: dict[str, RunState]
) -> None:
    fine_tune = f"{MAIN}__fine_tune"
    conf = {"num_epochs": 2, "promotion": "approval"}  # another model than that of `by_hand`
    local.trigger(fine_tune, conf, "asked", api=stack.api())
    path = f"/dags/{fine_tune}/dagRuns/asked/hitlDetails"
    until(lambda: api.json("GET", path)["hitl_details"] or None, "the question", poll_s=1)
    admin.answer(fine_tune, "asked", "approve", "Promote", "11-question")
    follow(stack, fine_tune, "asked")
    follow(stack, f"{MAIN}__release", "asked__release")
    [promotion, *_] = audit(MAIN)
    assert (promotion.way, promotion.actor, promotion.outcome) == ("approval", "admin", "live")
    assert_serves(MAIN, promotion.to_version, ITEMS)


@pytest.mark.proof
def test_of_two_promotions_at_once_the_later_one_wins_and_nothing_between_is_served(
    admin: Person, stack: Stack, api: AirflowApi, first_runs: dict[str, RunState]
) -> None:
    release = f"{MAIN}__release"
    serving = live(MAIN).model_version
    first, second = [version for version in ("1", "2", "3") if version != serving]
    before, last = run_ids(api, release), audit(MAIN)[0].promotion_id
    for version in (first, second):
        httpx.post(
            f"{stack.mlflow}/api/2.0/mlflow/registered-models/alias",
            json={"name": MAIN, "alias": "champion", "version": version},
        ).raise_for_status()
        new_run(api, release, before)
        before = run_ids(api, release)
    until(lambda: audit(MAIN)[0].outcome == "live", "the later promotion live", poll_s=1)
    for run_id in before:
        follow(stack, release, run_id)
    assert_serves(MAIN, second, ITEMS)
    new = [(promotion.to_version, promotion.outcome) for promotion in audit(MAIN) if promotion.promotion_id > last]
    assert new == [(second, "live"), (first, "superseded")]
    with database.connect() as connection:
        served = [r.model_version for r in list_releases(connection, MAIN) if r.live_at and r.run_id in before]
    assert first not in served
