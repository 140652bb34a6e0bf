"""A whole local installation: real Airflow and MLflow processes, runs by the scheduler, and the end of it all."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import jwt
import psutil
import pytest

from estudio_core import database, local
from estudio_core.airflow_ui.app import app as estudio_page
from estudio_core.errors import ConfigurationError, UnavailableError
from estudio_core.experiments.manager import ExperimentsManager
from estudio_core.local.airflow_connection import connection_fields
from estudio_core.local.airflow_home import secrets_folder
from estudio_core.local.generated_secrets import password
from estudio_core.local.runs import AirflowApi, RunState, wait_for_dag
from estudio_core.local.services import running
from estudio_core.promotion.ledger import history
from estudio_core.service.installing import start_run
from estudio_core.service.refusals import Refused
from estudio_core.settings import get_settings
from estudio_core.vectordb.index_info import SearchIndexInfo
from estudio_core.vectordb.releases import start_release

pytestmark = pytest.mark.e2e

WORKING = '''
"""A DAG for Airflow."""
import os
from airflow.sdk import dag, task

@dag(schedule=None, params={"numbers": [1, 2, 3]})
def sums():
    @task(pool="estudio_training")
    def numbers(params=None):
        return params["numbers"]

    @task(pool="estudio_index")
    def double(n):
        return 2 * n

    @task
    def total(doubled):
        with open(os.environ["ESTUDIO_HOME"] + "/total.txt", "w") as file:
            file.write(f"{sum(doubled)} {os.environ['ESTUDIO_PLUGINS_PATH']}")

    total(double.expand(n=numbers()))

sums()
'''

FAILING = '''
"""A DAG for Airflow."""
from airflow.sdk import dag, task

@dag(schedule=None)
def failing():
    @task
    def divide():
        print("dividing now")
        return 1 / 0
    divide()

failing()
'''

BROKEN = '"""A dag for airflow."""\nimport a_module_that_does_not_exist\n'

PLUGIN = """
from estudio_core import DagSettings, PostgresItems, create_text_plugin

items = PostgresItems(table="products", text="title")
plugin = create_text_plugin("shop", items=items, model="/no/such/model", dag=DagSettings(retries=0))
"""

STUB = '"""Airflow DAGs."""\nfrom estudio_core.dag_factory import build_dags\n\nglobals().update(build_dags("shop"))\n'

POISON = "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n"


@pytest.fixture(scope="module")
def installation(databases_folder: Path) -> Iterator[local.Installation]:
    project = databases_folder / "project"
    for folder in ("dags", "plugins"):
        (project / folder).mkdir(parents=True)
    (project / "dags" / "sums.py").write_text(WORKING)
    (project / "dags" / "failing.py").write_text(FAILING)
    (project / "dags" / "broken.py").write_text(BROKEN)
    (project / "plugins" / "mlflow.py").write_text(POISON)
    (project / "plugins" / "shop.py").write_text(PLUGIN)
    (project / "dags" / "shop.py").write_text(STUB)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(project)
        patched.setenv("ESTUDIO_HOME", str(project / "state"))
        patched.delenv("ESTUDIO_DATABASE_URL", raising=False)
        get_settings.cache_clear()
        try:
            yield local.start_all(triton=False)
        finally:
            local.stop_all()
            get_settings.cache_clear()


@pytest.fixture
def api(installation: local.Installation) -> Iterator[AirflowApi]:
    with AirflowApi.local() as opened:
        yield opened


def test_everything_is_up_and_healthy(installation: local.Installation) -> None:
    assert {part.name for part in installation.services} == {
        *("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "mlflow", "service")
    }
    until = time.monotonic() + 60  # each has been; a busy machine may answer this one question late
    while not all(part.healthy for part in local.inspect().services):
        assert time.monotonic() < until
        time.sleep(0.5)


def test_idle_services_take_less_than_a_gigabyte_and_a_half(installation: local.Installation) -> None:
    """While DAG files are read, as after a start, every one of them has a process of its own beside them."""
    until = time.monotonic() + 60
    while (taken := sum(part.memory_mib or 0 for part in local.inspect().services)) >= 1536:
        assert time.monotonic() < until, f"{taken} MiB"
        time.sleep(1)
    assert taken > 200


def test_nothing_listens_beyond_the_loopback_interface(installation: local.Installation) -> None:
    addresses = set()
    for part in installation.services:
        leader = psutil.Process(part.pid)
        for process in [leader, *leader.children(recursive=True)]:
            addresses |= {c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}


def test_the_service_answers_beside_them(installation: local.Installation) -> None:
    assert installation.service is not None
    assert httpx.get(f"{installation.service}/readyz").json() == {"status": "ready", "database": "ready", "plugins": {}}
    assert httpx.get(f"{installation.service}/ui/shop").status_code == 200


def test_airflow_refuses_a_stranger_and_well_known_passwords(installation: local.Installation) -> None:
    assert installation.airflow is not None
    assert httpx.get(f"{installation.airflow}/api/v2/dags").status_code == 401
    for guess in ("admin", "airflow", ""):
        answer = httpx.post(f"{installation.airflow}/auth/token", json={"username": "admin", "password": guess})
        assert answer.status_code in {400, 401}
        assert "access_token" not in answer.text
    with (
        pytest.raises(UnavailableError, match="refuses the user 'admin'"),
        AirflowApi(installation.airflow, "admin", "wrong") as stranger,
    ):
        stranger.json("GET", "/dags")


def test_mlflow_shows_its_page(installation: local.Installation) -> None:
    assert installation.mlflow is not None
    assert "MLflow" in httpx.get(installation.mlflow).text
    [scheduler] = [part.pid for part in installation.services if part.name == "airflow-scheduler"]
    assert psutil.Process(scheduler).environ()["ESTUDIO_MLFLOW_URL"] == installation.mlflow  # where tasks link to


def test_the_scheduler_runs_a_dag_with_mapped_tasks(installation: local.Installation) -> None:
    updates: list[RunState] = []
    run_id = local.trigger("sums", {"numbers": [4, 5]}, "first")
    assert run_id == "first"
    assert local.trigger("sums", {"numbers": [9]}, "first") == "first"  # one run, not two
    state = local.wait("sums", run_id, updates.append, timeout_s=120)
    assert state.succeeded
    assert sorted((task.task_id, task.map_index, task.state) for task in state.tasks) == [
        *(("double", 0, "success"), ("double", 1, "success"), ("numbers", -1, "success"), ("total", -1, "success"))
    ]
    assert updates[-1].succeeded
    assert len(updates) > 1
    total, plugins_path = (installation.home / "total.txt").read_text().split()
    assert total == "18"
    assert Path(plugins_path) == installation.home.parent / "plugins"


def test_a_failed_run_shows_the_end_of_the_failing_tasks_log(installation: local.Installation) -> None:
    run_id = local.trigger("failing")
    with pytest.raises(local.RunFailedError, match="failing failed in divide") as caught:
        local.wait("failing", run_id, timeout_s=120)
    assert "dividing now" in str(caught.value)
    assert "ZeroDivisionError: division by zero" in str(caught.value)
    assert f"/dags/failing/runs/{run_id}" in str(caught.value)
    with pytest.raises(Refused, match=f"The run {re.escape(run_id)} has failed. Clear it in Airflow"):
        start_run("failing", run_id)
    assert start_run("sums", "first") == "first"


def test_a_dag_file_that_cannot_be_imported_is_explained(installation: local.Installation, api: AirflowApi) -> None:
    with pytest.raises(ConfigurationError, match="a_module_that_does_not_exist"):
        local.trigger("broken")


def test_an_unknown_dag_is_answered_with_the_nearest_name(api: AirflowApi) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean 'sums'"):
        wait_for_dag("sum", api=api, timeout_s=0)


def test_a_command_finds_a_connection_that_was_added_in_airflow_with_its_extra(
    installation: local.Installation, api: AirflowApi
) -> None:
    extra = '{"options": "-c search_path=app", "sslmode": "require"}'
    account = {"login": "reader", "password": " p w%/"}
    wanted = {"connection_id": "library", "conn_type": "postgres", "host": "db", "schema": "shop", "extra": extra}
    api.json("POST", "/connections", json=wanted | account)  # what the page sends
    found = json.loads(connection_fields("library") or "")
    assert found == {k: v for k, v in wanted.items() if k != "connection_id"} | account | {"port": None}


@pytest.fixture(scope="module")
def two_versions(installation: local.Installation, tmp_path_factory: pytest.TempPathFactory) -> ExperimentsManager:
    """Two registered versions of `shop` that are no models, of which the first is said to serve."""
    tmp_path = tmp_path_factory.mktemp("models")
    manager = ExperimentsManager(None, "test_quality", "shop", [])
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text(name)
        manager.register_model(tmp_path / name, manager.start_iteration(name).run_id)
    manager.promote(1, "first release", "ana")
    manager.registry.delete_alias("challenger", reason="refused", actor="ana")  # so that no default names version 2
    with database.connect() as connection:
        info = SearchIndexInfo(dimensions=2)
        live, before = (start_release(connection, "shop", "shop_v1", "1", info, run) for run in ("live", "before"))
        for state, release in (("live", live), ("previous", before)):
            connection.execute(
                "UPDATE estudio.deployments SET state = %s WHERE release_id = %s", (state, release.release_id)
            )
        connection.execute(
            "INSERT INTO estudio.pointers (plugin, release_id, previous_release_id, switched_by)"
            " VALUES ('shop', %s, %s, 'test')",
            (live.release_id, before.release_id),
        )
        connection.commit()
    return manager


def token(installation: local.Installation, user: str) -> dict[str, str]:
    """Return the header of a user that is signed in."""
    answer = httpx.post(
        f"{installation.airflow}/auth/token",
        json={"username": user, "password": password(secrets_folder(installation.home), user)},
    )
    answer.raise_for_status()
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def test_every_route_of_the_estudio_page_refuses_strangers_and_a_viewer_reads_but_changes_nothing(
    installation: local.Installation, two_versions: ExperimentsManager, api: AirflowApi
) -> None:
    wait_for_dag("shop__rollback", api=api, timeout_s=120)
    paths = [route.path.format(plugin="shop", name="shop_v1") for route in estudio_page.routes]
    assert set(paths) == {  # no generated documentation either
        *("/", "/plugins/shop", "/plugins/shop/report", "/plugins/shop/improvement", "/plugins/shop/models/shop_v1")
    }
    claims = {"sub": "admin", "role": "ADMIN", "exp": time.time() + 600, "iat": time.time(), "aud": "apache-airflow"}
    foreign = {"Authorization": f"Bearer {jwt.encode(claims, 'a secret of somebody else' * 3, 'HS512')}"}
    with httpx.Client(base_url=f"{installation.airflow}/estudio") as client:
        for path in paths:
            assert client.get(path).status_code == 401
            assert client.get(path, headers=foreign).status_code == 403
            assert client.get(path, cookies={"_token": "made up"}).status_code == 403

        viewer, admin = token(installation, "viewer"), token(installation, "admin")
        assert '<a href="plugins/shop">shop</a>' in client.get("/", headers=viewer).text
        seen = client.get("/plugins/shop", headers=viewer)
        assert seen.status_code == 200
        assert 'serves <span class="whole">model version 1</span>' in seen.text
        assert "Roll back to release" not in seen.text
        assert "Roll back to release 2" in client.get("/plugins/shop", headers=admin).text
        assert client.get("/plugins/shop/report", headers=viewer).status_code == 404  # nothing was trained yet
        assert client.get("/plugins/shop/improvement?run_id=none", headers=viewer).status_code == 404
        assert client.get("/plugins/shop/models/shop_v1", headers=viewer).status_code == 404  # nothing was published
        assert client.get("/plugins/nothing", headers=admin).status_code == 404

    runs = f"{installation.airflow}/api/v2/dags/shop__{{}}/dagRuns"  # where the page's button and forms go
    for kind in ("rollback", "release", "fine_tune", "improve", "sync", "initialize", "watch"):
        refused = httpx.post(runs.format(kind), headers=viewer, json={"logical_date": None, "conf": {}})
        assert refused.status_code == 403


def test_an_alias_moved_in_mlflow_starts_a_release_and_goes_back_with_the_reason_when_that_fails(
    installation: local.Installation, api: AirflowApi, two_versions: ExperimentsManager
) -> None:
    wait_for_dag("shop__release", api=api, timeout_s=120)
    began = time.monotonic()
    httpx.post(  # what MLflow's page sends
        f"{installation.mlflow}/api/2.0/mlflow/registered-models/alias",
        json={"name": "shop", "alias": "champion", "version": "2"},
    ).raise_for_status()
    run_id = None
    while run_id is None and time.monotonic() - began < 120:
        runs = api.json("GET", "/dags/shop__release/dagRuns")["dag_runs"]
        run_id = next((run["dag_run_id"] for run in runs), None)
        time.sleep(0.5)
    print(f"from the alias to the run: {time.monotonic() - began:.1f} s")
    assert run_id is not None
    assert run_id.startswith("asset_triggered__")
    with pytest.raises(local.RunFailedError, match="shop__release failed in publish_model"):
        local.wait("shop__release", run_id, timeout_s=240)
    assert two_versions.aliases()["champion"] == 1
    assert "publish_model" in two_versions.registry.versions()[2].tags["estudio.release"]
    with database.connect() as connection:
        [promotion] = history(connection, "shop")
    assert (promotion.way, promotion.to_version, promotion.run_id, promotion.outcome) == (
        *("alias", "2", run_id, "failed"),
    )


def test_every_dag_refuses_a_parameter_that_it_has_not_and_names_the_nearest(
    installation: local.Installation, api: AirflowApi
) -> None:
    kinds = ("fine_tune", "improve", "initialize", "release", "rollback", "sync", "watch")
    for kind in kinds:
        wait_for_dag(f"shop__{kind}", api=api, timeout_s=120)
        local.trigger(f"shop__{kind}", {"keep_release": 3, "max_session": 5}, "odd")
    for kind in kinds:
        with pytest.raises(local.RunFailedError, match=rf"shop__{kind} has no parameter '(keep_release|max_session)'"):
            local.wait(f"shop__{kind}", "odd", timeout_s=240)


def test_search_plugins_were_imported_by_no_airflow_process(installation: local.Installation) -> None:
    project = installation.home.parent
    assert (project / "plugins" / "mlflow.py").exists()
    assert not (project / "plugins" / "imported").exists()


def test_starting_again_leaves_running_parts_alone(installation: local.Installation) -> None:
    before = {part.name: part.pid for part in installation.services}
    began = time.monotonic()
    again = local.start_all(triton=False)
    assert {part.name: part.pid for part in again.services} == before
    assert time.monotonic() - began < 15


def test_stopping_ends_every_process_and_a_new_start_keeps_the_history(installation: local.Installation) -> None:
    processes = [
        process
        for part in installation.services
        for process in [psutil.Process(part.pid), *psutil.Process(part.pid).children(recursive=True)]
    ]
    stopped = local.stop_all()
    assert set(stopped) == {part.name for part in installation.services} | {"database"}
    alive = [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert alive == []
    assert local.stop_all() == []

    environment = local.ensure_airflow()
    services = local.start_airflow(environment, components=["api-server"])
    assert [running(service) for service in services] == [True]
    with AirflowApi.local() as api:
        assert api.json("GET", "/dags/sums/dagRuns/first")["state"] == "success"
