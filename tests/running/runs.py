"""What the tests of this folder ask of Airflow and of the database."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from estudio_core import database
from estudio_core.local.runs import AirflowApi
from estudio_core.promotion.ledger import Promotion, history
from estudio_core.vectordb.collection import Collection
from estudio_core.vectordb.releases import Release, list_releases, live_release

PATIENCE_S = 900.0
"""Longest wait for anything: an idle machine needs seconds, one whose cores are taken many times as long."""

T = TypeVar("T")


def until(found: Callable[[], T | None], what: str, *, poll_s: float = 0.3, timeout_s: float = PATIENCE_S) -> T:
    """Return what `found` gives as soon as that is neither None nor False.

    Raises:
        AssertionError: it is not in time; the message says what was waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = found()
        if value is not None and value is not False:
            return value
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(poll_s)


def running_task(api: AirflowApi, dag_id: str, run_id: str, task_id: str) -> int:
    """Wait until a task of the run is at work, and return the id of its process."""

    def process() -> int | None:
        rows = api.json("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        [first, *_] = [row for row in rows if row["task_id"] == task_id]
        assert first["state"] not in {"success", "failed", "upstream_failed"}, f"{task_id} is {first['state']} already"
        return int(first["pid"]) if first["state"] == "running" and first["pid"] else None

    return until(process, f"{task_id} of {run_id} at work", poll_s=0.1)


def tries(api: AirflowApi, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> list[str]:
    """Return how each attempt of a task ended, in order."""
    mapped = f"/{map_index}" if map_index >= 0 else ""
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}{mapped}/tries"
    found = api.json("GET", path)["task_instances"]
    return [str(row["state"]) for row in sorted(found, key=lambda row: row["try_number"])]


def run_ids(api: AirflowApi, dag_id: str) -> set[str]:
    """Return the ids of all runs of a DAG."""
    return {str(run["dag_run_id"]) for run in api.json("GET", f"/dags/{dag_id}/dagRuns")["dag_runs"]}


def new_run(api: AirflowApi, dag_id: str, before: set[str]) -> str:
    """Wait for a run that is not among `before`, and return its id."""
    return until(lambda: next(iter(run_ids(api, dag_id) - before), None), f"a new run of {dag_id}")


def times(api: AirflowApi, dag_id: str, run_id: str) -> tuple[datetime, datetime]:
    """Return start and end of a finished run."""
    run = api.json("GET", f"/dags/{dag_id}/dagRuns/{run_id}")
    return datetime.fromisoformat(run["start_date"]), datetime.fromisoformat(run["end_date"])


def live(plugin: str) -> Release:
    """Return what serves."""
    with database.connect() as connection:
        found = live_release(connection, plugin)
    assert found is not None
    return found


def audit(plugin: str) -> list[Promotion]:
    """Return the audit trail, the latest request first."""
    with database.connect() as connection:
        return history(connection, plugin)


def assert_serves(plugin: str, version: str, items: int) -> Release:
    """Check that pointer, release states and the live collection agree on `version`; return the live release."""
    serving = live(plugin)
    assert serving.model_version == version
    with database.connect() as connection:
        states = [release.state for release in list_releases(connection, plugin)]
        objects = Collection(serving.collection_id, serving.index_info).stats(connection).objects
    assert states.count("live") == 1
    assert not {"building", "built", "verified"} & set(states), states
    assert objects == items
    return serving
