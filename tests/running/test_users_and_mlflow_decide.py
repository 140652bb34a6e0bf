"""Experiments run by Airflow from the form to the verdict, and releases that MLflow's signed message starts.

One installation serves all tests of this file: two plugins, their second version registered and not released, an MLflow
server of its own that every process asks over HTTP, and a service that signs in to Airflow by address, user and
password. The tests stand in the order of a story, and each can be run alone.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from estudio_core import database, local
from estudio_core.cli import app
from estudio_core.comparing import ledger
from estudio_core.comparing.ledger import Experiment
from estudio_core.demo.catalog import load_judgments
from estudio_core.demo.people import SimulatedPeople, plan_visits
from estudio_core.errors import ConfigurationError
from estudio_core.experiments.alias_audit import doorbell
from estudio_core.experiments.webhook import PATH
from estudio_core.local import services
from estudio_core.local.mlflow_ui import mlflow_service
from estudio_core.local.ports import any_free_port
from estudio_core.local.runs import AirflowApi, ring, wait_for_dag
from estudio_core.models.storage import save_model
from estudio_core.pipeline.challenging.concluding import VERDICT_TAG
from estudio_core.plugin.registry import open_plugin
from estudio_core.searching import search
from estudio_core.service.keys import create_key
from estudio_core.settings import get_settings
from estudio_core.vectordb.releases import get_release
from tests.running.runs import PATIENCE_S, assert_serves, audit, live, new_run, run_ids, until
from tests.running.stack import ITEMS, MAIN, OTHER, Stack, open_stack
from tests.small_model import build_small_model

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(3 * PATIENCE_S)]

SECRET = "a secret of two dozen signs"
SETTLE_S = 1.0
"""Simulated people click at once."""
AT_ONCE, AT_MOST = 120, 2_400
"""Searches between two looks, and those after which clicks should have told long ago."""
QUERIES = sorted(load_judgments().answerable())[:12]


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Run MLflow's server over a new store, allowed to send to this machine, once: it does not try again."""
    made = mlflow_service(folder, tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", port=any_free_port())
    sending = {
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": Fernet.generate_key().decode(),
        "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "0",
    }
    server = replace(made, environment={**made.environment, **sending})
    services.start(server)
    try:
        services.wait_until_healthy([server], timeout_s=PATIENCE_S)
        assert server.address is not None
        yield server.address
    finally:
        services.stop(server)


@pytest.fixture(scope="module")
def stack(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both plugins with version 1 live and version 2 registered; MLflow tells the service of aliases."""
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "mlflow.db").write_bytes(empty_store.read_bytes())
    with mlflow_server(folder) as mlflow:
        variables = {"ESTUDIO_MLFLOW_TRACKING_URI": mlflow, "ESTUDIO_SERVICE_WEBHOOK_SECRET": SECRET}
        with open_stack(variables) as opened:
            # As for a service on another machine, which has no file with a password.
            os.environ |= {
                "ESTUDIO_SERVICE_AIRFLOW_URL": opened.airflow,
                "ESTUDIO_SERVICE_AIRFLOW_USER": "admin",
                "ESTUDIO_SERVICE_AIRFLOW_PASSWORD": opened.password("admin"),
            }
            get_settings.cache_clear()
            services.stop(opened.service())
            opened.start_again()
            estudio("webhook", "register", str(opened.installation.service))
            dags = [f"{name}__initialize" for name in (MAIN, OTHER)]
            with opened.api() as api:
                for dag_id in dags:
                    wait_for_dag(dag_id, api=api, timeout_s=PATIENCE_S)
            with ThreadPoolExecutor() as threads:
                list(threads.map(lambda dag_id: local.trigger(dag_id, run_id="first", api=opened.api()), dags))
            second = tmp_path_factory.mktemp("second")
            save_model(build_small_model(seed=2), second)
            for dag_id in dags:
                follow(opened, dag_id, "first")
            for name in (MAIN, OTHER):
                manager = open_plugin(name).experiments
                assert manager.register_model(second, manager.start_iteration("second").run_id) == 2
            yield opened


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[AirflowApi]:
    with stack.api() as opened:
        yield opened


def follow(stack: Stack, dag_id: str, run_id: str) -> dict[str, str | None]:
    """Wait for the success of a run; return the states of its tasks."""
    state = local.wait(dag_id, run_id, api=stack.api(), timeout_s=PATIENCE_S)
    return {task.task_id: task.state for task in state.tasks}


def estudio(*arguments: str) -> str:
    """Run a command and return what it says."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def client_of(stack: Stack) -> tuple[httpx.Client, str]:
    """Return somebody with all rights at the service, and the key."""
    with database.transaction() as connection:
        key = create_key(connection, "test", ("search", "events", "admin"), (MAIN, OTHER))[1]
    address = str(stack.installation.service)
    return httpx.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}, timeout=60), key


def answer_of(client: httpx.Client, plugin: str) -> dict[str, Any]:
    """Search and return what the answer says of releases and experiments."""
    body = {"query": QUERIES[0], "ext": {"ubi": {"query_id": f"probe-{time.monotonic_ns()}"}}}
    return dict(client.post(f"/{plugin}/_search", json=body).raise_for_status().json()["ext"]["estudio"])


def experiment(name: str) -> Experiment:
    with database.connect() as connection:
        return ledger.get(connection, name)


def under_way(plugin: str) -> Experiment | None:
    with database.connect() as connection:
        return ledger.under_way(connection, plugin)


def let_people_search(stack: Stack, key: str, found: Experiment, liked: int) -> None:
    """Have people search who like what a release has in its first places, until that has decided the experiment."""
    grades = {
        query: {hit.object_id: 3.0 for hit in search(found.plugin, query, limit=4, release=liked, exact=True).hits}
        for query in QUERIES
    }
    people = SimulatedPeople(str(stack.installation.service), key, found.plugin, grades)
    for asked in range(0, AT_MOST, AT_ONCE):
        people.search(plan_visits(grades, AT_ONCE, f"people-{found.plugin}", first=asked))
        time.sleep(2 * SETTLE_S + 1)
        with database.connect() as connection:
            seen = ledger.get(connection, found.experiment_id)
        if seen.state != "running" or (seen.standing is not None and seen.standing.finding is not None):
            return


@dataclass(frozen=True)
class Concluded:
    """The end of a run of `<plugin>__experiment`."""

    found: Experiment
    tasks: dict[str, str | None]
    told: Any
    """What its task `conclude_experiment` handed on."""


def concluded(stack: Stack, api: AirflowApi, plugin: str, run_id: str, name: str) -> Concluded:
    dag_id = f"{plugin}__experiment"
    tasks = follow(stack, dag_id, run_id)
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/conclude_experiment/xcomEntries/return_value"
    return Concluded(experiment(name), tasks, api.json("GET", path, params={"deserialize": True})["value"])


def test_users_decide_two_experiments_that_airflow_runs_one_challenger_goes_live_and_one_is_dropped(
    stack: Stack, api: AirflowApi
) -> None:
    champions = {plugin: live(plugin).release_id for plugin in (MAIN, OTHER)}
    releases = {plugin: run_ids(api, f"{plugin}__release") for plugin in (MAIN, OTHER)}
    client, key = client_of(stack)

    # One is started over HTTP, by the service's user of Airflow; the other in Airflow's form.
    body = {"plugin": MAIN, "settings": {"settle_minutes": SETTLE_S / 60}}
    started = client.put("/_experiments/liked", json=body)
    assert started.status_code == 202, started.text
    assert started.json()["dag_run_id"] == "service__liked"
    conf = {"version": "2", "name": "disliked", "settle_minutes": SETTLE_S / 60}
    local.trigger(f"{OTHER}__experiment", conf, "by_form", api=stack.api())
    running = {plugin: until(lambda plugin=plugin: under_way(plugin), f"{plugin}'s experiment") for plugin in champions}
    for plugin, each in running.items():
        assert each.champion == champions[plugin]
        assert each.started_by == "admin"
        with database.connect() as connection:
            challenger = get_release(connection, each.challenger)
        assert (challenger.state, challenger.model_version) == ("challenger", "2")
        assert live(plugin).release_id == champions[plugin], "built beside, without a switch"
        until(lambda plugin=plugin: answer_of(client, plugin).get("experiment"), f"both releases of {plugin} answer")

    let_people_search(stack, key, running[MAIN], liked=running[MAIN].challenger)
    let_people_search(stack, key, running[OTHER], liked=running[OTHER].champion)

    better = concluded(stack, api, MAIN, "service__liked", "liked")
    assert (better.found.state, better.found.verdict) == ("ended", "better")
    assert better.told == {"verdict": "better", "reason": better.found.reason, "release_id": better.found.challenger}
    assert better.tasks["went_live"] == "success"
    assert better.found.standing is not None
    assert better.found.standing.low > 0
    assert assert_serves(MAIN, "2", ITEMS).release_id == better.found.challenger
    [promotion, first] = audit(MAIN)
    assert (promotion.way, promotion.actor, promotion.outcome) == ("experiment", "experiment liked", "live")
    assert (promotion.from_version, promotion.to_version, promotion.release_id) == ("1", "2", better.found.challenger)
    assert promotion.numbers["experiment_low"] == pytest.approx(better.found.standing.low)
    assert first.release_id == champions[MAIN]
    registry = open_plugin(MAIN).experiments.registry
    assert registry.aliases()["champion"] == 2
    assert registry.versions()[2].tags[VERDICT_TAG] == f"better. {better.found.reason}"
    until(lambda: answer_of(client, MAIN)["release"] == better.found.challenger, "the service answers by it")
    assert "experiment" not in answer_of(client, MAIN)

    dropped = concluded(stack, api, OTHER, "by_form", "disliked")
    assert dropped.found.state == "ended"
    assert dropped.found.verdict in ("harm", "worse")
    assert dropped.tasks["went_live"] == "skipped"
    assert assert_serves(OTHER, "1", ITEMS).release_id == champions[OTHER]
    [refused, _] = audit(OTHER)
    assert (refused.way, refused.actor, refused.outcome) == ("experiment", "experiment disliked", "refused")
    assert (refused.to_version, refused.reason) == ("2", dropped.found.reason)
    with database.connect() as connection:
        assert get_release(connection, dropped.found.challenger).state == "retired"
    assert open_plugin(OTHER).experiments.registry.aliases()["champion"] == 1

    for name, each in (("liked", better), ("disliked", dropped)):
        [row] = json.loads(estudio("experiments", "show", name, "--json"))
        assert (row["state"], row["verdict"], row["reason"]) == ("ended", each.found.verdict, each.found.reason)
    # Run again, a run whose experiment is over undoes nothing and starts nothing.
    trails = {plugin: audit(plugin) for plugin in (MAIN, OTHER)}
    for plugin, run_id in ((MAIN, "service__liked"), (OTHER, "by_form")):
        api.json("POST", f"/dags/{plugin}__experiment/dagRuns/{run_id}/clear", json={"dry_run": False})
        again = local.wait(f"{plugin}__experiment", run_id, api=stack.api(), timeout_s=PATIENCE_S)
        assert {task.state for task in again.tasks} == {"skipped"}
    assert {plugin: audit(plugin) for plugin in (MAIN, OTHER)} == trails
    assert assert_serves(MAIN, "2", ITEMS).release_id == better.found.challenger
    # What Estudio set itself was no request, though MLflow told of it.
    assert {plugin: run_ids(api, f"{plugin}__release") for plugin in (MAIN, OTHER)} == releases


def set_champion(stack: Stack, plugin: str, version: str) -> None:
    """Do what MLflow's page does."""
    body = {"name": plugin, "alias": "champion", "version": version}
    httpx.post(f"{stack.mlflow}/api/2.0/mlflow/registered-models/alias", json=body).raise_for_status()


def other_version(plugin: str) -> tuple[str, str]:
    """Return the version that serves, and the other one."""
    serving = live(plugin).model_version
    return serving, {"1": "2", "2": "1"}[serving]


def heard(api: AirflowApi, dag_id: str, run_id: str) -> dict[str, Any]:
    """Return what the event said that started a run."""
    [event] = api.json("GET", f"/dags/{dag_id}/dagRuns/{run_id}/upstreamAssetEvents")["asset_events"]
    return dict(event["extra"])


def answered(stack: Stack, endpoint: str) -> list[int]:
    """Return with which states the service has answered requests to an endpoint, by its log."""
    lines = stack.service().log_file.read_text(errors="replace").splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return [int(line["status"]) for line in found if line.get("endpoint") == endpoint]


def assert_released_by_alias(run_id: str, before: str, after: str) -> None:
    released = assert_serves(MAIN, after, ITEMS)
    [promotion, *_] = audit(MAIN)
    assert (promotion.way, promotion.alias, promotion.actor) == ("alias", "champion", "somebody in MLflow")
    assert (promotion.from_version, promotion.to_version, promotion.outcome) == (before, after, "live")
    assert (promotion.run_id, promotion.release_id) == (run_id, released.release_id)
    assert open_plugin(MAIN).experiments.registry.aliases()["champion"] == int(after)


def test_mlflow_s_message_starts_the_release_while_nobody_polls(stack: Stack, api: AirflowApi) -> None:
    dag_id = f"{MAIN}__release"
    serving, wanted = other_version(MAIN)
    runs = run_ids(api, dag_id)
    services.stop(stack.component("triggerer"))
    try:
        with pytest.raises(ConfigurationError, match=r"Airflow refused POST /assets/events \(403\)"):
            ring(doorbell(MAIN), {}, api=stack.api("viewer"))
        moved = time.monotonic()
        set_champion(stack, MAIN, wanted)
        run_id = new_run(api, dag_id, runs)
        print(f"from the alias to the run: {time.monotonic() - moved:.1f} s")
        tasks = follow(stack, dag_id, run_id)
        print(f"from the alias to the end of the run: {time.monotonic() - moved:.1f} s")
        assert not services.running(stack.component("triggerer"))
    finally:
        stack.start_again()
    assert run_id.startswith("asset_triggered__")
    said = heard(api, dag_id, run_id)
    assert said["version"] == wanted
    assert said["mlflow_delivery"]
    assert tasks["switch"] == "success"
    assert_released_by_alias(run_id, serving, wanted)


def test_what_airflow_was_away_for_is_found_by_the_triggerer_when_it_is_back(stack: Stack, api: AirflowApi) -> None:
    dag_id = f"{MAIN}__release"
    serving, wanted = other_version(MAIN)
    runs = run_ids(api, dag_id)
    services.stop(stack.component("triggerer"), stack.component("api-server"))
    try:
        set_champion(stack, MAIN, wanted)
        until(lambda: 503 in answered(stack, PATH), "MLflow is told that Airflow is away")
        assert live(MAIN).model_version == serving
    finally:
        stack.start_again()
    run_id = new_run(api, dag_id, runs)
    assert "mlflow_delivery" not in heard(api, dag_id, run_id)
    follow(stack, dag_id, run_id)
    assert_released_by_alias(run_id, serving, wanted)
