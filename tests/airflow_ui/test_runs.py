"""What the pages take from Airflow's own tables, for many plugins at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import event

from estudio_core.airflow_ui.next_step import KINDS
from estudio_core.airflow_ui.runs import LOOK_BACK_DAYS, plugins_with_dags, runs_of
from tests.airflow_ui.conftest import Airflow

NOW = datetime.now(UTC)


def test_plugins_are_known_by_their_dags_unless_these_are_gone(airflow: Airflow) -> None:
    airflow.dags("shop")
    airflow.dags("old", stale=True)
    assert plugins_with_dags(airflow.session) == {"shop"}
    runs = runs_of(airflow.session, ["shop", "old"])
    assert runs["shop"].dags == dict.fromkeys(KINDS, False)
    assert runs["old"].dags == {}


def test_runs_under_way_and_questions_without_an_answer_are_found(airflow: Airflow) -> None:
    airflow.dags("shop", paused=True)
    airflow.run("shop__fine_tune", "asks", "running")
    airflow.question("shop", "asks")
    airflow.run("shop__release", "done", "success", NOW)
    airflow.run("books__release", "queued", "queued")
    airflow.run("books__fine_tune", "answered", "running")
    airflow.question("books", "answered", answered=NOW)  # the task goes on with the scheduler's next look
    airflow.question("books", "late", state="failed")  # nobody answered in time
    airflow.run("books__sync", "syncs", "running")  # moves nothing on
    runs = runs_of(airflow.session, ["shop", "books"])
    assert runs["shop"].dags == dict.fromkeys(KINDS, True)
    assert (runs["shop"].running, runs["shop"].question) == ({"fine_tune": "asks"}, "asks")
    assert runs["books"].running == {"release": "queued", "fine_tune": "answered"}
    assert runs["books"].question is None


def test_the_last_failure_names_its_task_and_is_over_once_the_same_dag_succeeds(airflow: Airflow) -> None:
    for hours, name in ((30, "older"), (20, "newer")):
        airflow.run("shop__sync", name, "failed", NOW - timedelta(hours=hours))
        airflow.task("shop__sync", name, "sync", "failed")
    airflow.task("shop__sync", "newer", "report", "upstream_failed")
    airflow.run("shop__watch", "earlier", "failed", NOW - timedelta(hours=25))
    airflow.run("shop__release", "another", "success", NOW)
    failed = runs_of(airflow.session, ["shop"])["shop"].failed
    assert failed is not None
    assert (failed.dag_id, failed.run_id, failed.task_id, failed.over) == ("shop__sync", "newer", "sync", False)
    airflow.run("shop__sync", "mended", "success", NOW)
    failed = runs_of(airflow.session, ["shop"])["shop"].failed
    assert failed is not None
    assert failed.over
    airflow.run("books__sync", "long ago", "failed", NOW - timedelta(days=LOOK_BACK_DAYS + 1))
    assert runs_of(airflow.session, ["books"])["books"].failed is None


def test_twenty_plugins_cost_as_many_queries_as_one(airflow: Airflow) -> None:
    statements: list[str] = []
    event.listen(airflow.session.get_bind(), "before_cursor_execute", lambda *given: statements.append(given[2]))
    counts = []
    for plugins in (["shop"], [f"shop_{number}" for number in range(20)]):
        airflow.run(f"{plugins[0]}__sync", "fails", "failed", NOW)
        statements.clear()
        runs_of(airflow.session, plugins)
        counts.append(len(statements))
    assert counts == [5, 5]
