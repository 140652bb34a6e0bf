"""Whole DAGs on real parts: the model, PostgreSQL with pgvector, MLflow, ONNX Runtime, Airflow."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from estudio_core import database
from estudio_core.demo.catalog import load_judgments
from estudio_core.demo.people import SimulatedPeople, plan_visits
from estudio_core.demo.traffic import key_of
from estudio_core.monitoring.ledger import history
from estudio_core.searching import search
from estudio_core.vectordb.releases import list_releases, live_release
from tests.service.conftest import running

if TYPE_CHECKING:
    from tests.e2e.conftest import AirflowInstallation

PLUGIN = "demo_catalog"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_from_a_table_to_a_released_fine_tuned_model_and_back(
    airflow: AirflowInstallation, small_catalog: Callable[[], None]
) -> None:
    small_catalog()
    [first] = airflow.run((f"{PLUGIN}__initialize", {}))
    first.assert_success()
    assert [first.tasks[f"{task}[-1]"] for task in ("pair_catalog", "pretrain", "judge")] == ["skipped"] * 3
    answer = search(PLUGIN, "usb c charger", limit=5)
    assert answer.model_version == "1"
    assert len({hit.object_id for hit in answer.hits}) == 5

    judgments = load_judgments().answerable()
    with key_of("people of a test", PLUGIN) as key, running() as address:
        made = SimulatedPeople(address, key, PLUGIN, judgments).search(plan_visits(judgments, 250, "e2e"))
    assert made.searches == 250

    tuned, released, again, watched = airflow.run(
        (f"{PLUGIN}__fine_tune", {"num_epochs": 1, "promotion": "manual", "settle_minutes": 0}),
        (f"{PLUGIN}__release", {"version": "challenger"}),
        (f"{PLUGIN}__release", {"version": "champion"}),
        (f"{PLUGIN}__watch", {}),
    )
    tuned.assert_success()
    assert tuned.tasks["keep_champion[-1]"] == "success"
    assert tuned.tasks["release[-1]"] == "skipped"
    released.assert_success()
    assert search(PLUGIN, "usb c charger", limit=5).model_version == "2"
    again.assert_success()
    watched.assert_success()
    assert {task for task, state in watched.tasks.items() if state == "success"} == {
        *("measure[-1]", "react[-1]", "rest[-1]", "conclude_experiment[-1]")
    }
    ended = [line for line in watched.output.splitlines() if "step ended" in line and "build_index" in line]
    assert ended
    for line in ended:
        for name, value in (("plugin", PLUGIN), ("step", "build_index"), ("outcome", "success"), ("release", r"\d")):
            assert re.search(rf"{name}\W+{value}", line), line
    with database.transaction() as connection:
        [row] = history(connection, PLUGIN)
    assert row.numbers["index_rows"] > 400
    assert row.numbers["recall_at_10"] > 0.9
    with database.transaction() as connection:
        states = {release.release_id: release.state for release in list_releases(connection, PLUGIN)}
    assert states == {1: "retired", 2: "previous", 3: "live"}

    back, queries, over = airflow.run(
        (f"{PLUGIN}__rollback", {}),
        (f"{PLUGIN}__fine_tune", {"num_epochs": 1, "promotion": "manual", "settle_minutes": 0, "train": "query"}),
        (f"{PLUGIN}__release", {"version": "challenger"}),
    )
    back.assert_success()
    queries.assert_success()
    over.assert_success()
    done = {task.partition("[")[0] for task, state in over.tasks.items() if state == "success"}
    assert done >= {"publish_model", "start_collection", "verify", "switch", "clean_up"}
    assert {task for task, state in over.tasks.items() if state == "skipped"} >= {"embed_shard[-1]", "build_index[-1]"}
    with database.transaction() as connection:
        live = live_release(connection, PLUGIN)
    assert live is not None
    # The rollback went to release 2, whose collection this one serves with another model of queries.
    assert (live.built_by, live.model_version, live.item_model_version) == (2, "3", "2")


def test_a_missing_table_fails_at_once_and_too_few_sessions_skip_the_run_and_both_are_named(
    airflow: AirflowInstallation,
) -> None:
    missing, skipped = airflow.run((f"{PLUGIN}__initialize", {}), (f"{PLUGIN}__fine_tune", {}))
    assert missing.state == "failed"
    assert missing.tasks["check_source[-1]"] == "failed"
    assert "products" in missing.output
    assert skipped.state == "success"
    assert skipped.tasks["extract[-1]"] == "skipped"
    assert skipped.tasks["train[-1]"] == "skipped"
    assert "0 clicked sessions" in skipped.output
