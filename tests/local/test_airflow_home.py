"""Airflow's configuration and metadata database of a local installation."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import yaml
from sqlalchemy import create_engine, text

from estudio_core.errors import ConfigurationError, UnavailableError
from estudio_core.local import airflow_home
from estudio_core.local.airflow_connection import command_environment
from estudio_core.settings import Settings, get_settings

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return airflow_home.airflow_environment(
        tmp_path / "home", project=PROJECT, metadata_url="postgresql+psycopg://p@/airflow?host=/run/pg", port=18099
    )


def test_airflow_never_imports_search_plugins_as_its_own(environment: dict[str, str]) -> None:
    folder = Path(environment["AIRFLOW__CORE__PLUGINS_FOLDER"])
    assert not folder.is_relative_to(PROJECT / "plugins")
    assert not (PROJECT / "plugins").is_relative_to(folder)
    assert Path(environment["AIRFLOW_HOME"]) / "plugins" != PROJECT / "plugins"


def test_airflow_listens_on_the_loopback_interface_only(environment: dict[str, str]) -> None:
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18099/execution/"
    services = airflow_home.airflow_services(environment, home=PROJECT, project=PROJECT)
    for service in services:
        if service.name in {"airflow-scheduler", "airflow-triggerer"}:
            assert "--skip-serve-logs" in service.argv  # Airflow's log servers listen on every interface


def test_a_dag_that_differs_at_every_parse_is_an_error(environment: dict[str, str]) -> None:
    assert environment["AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL"] == "error"


def test_work_of_a_dead_scheduler_is_taken_up_within_a_minute_of_the_next_start(environment: dict[str, str]) -> None:
    heartbeats_missing_s = 30  # after which Airflow holds a scheduler for dead
    assert int(environment["AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL"]) + heartbeats_missing_s <= 60


def test_tasks_that_hold_all_slots_of_the_pools_leave_room_for_a_rollback(environment: dict[str, str]) -> None:
    held = sum(pool["slots"] for pool in airflow_home.pools_definition().values())
    assert int(environment["AIRFLOW__CORE__PARALLELISM"]) >= held + 2


def test_airflow_accepts_every_option(environment: dict[str, str]) -> None:
    spec = importlib.util.find_spec("airflow")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    template = Path(spec.submodule_search_locations[0]) / "config_templates" / "config.yml"
    known = yaml.safe_load(template.read_text())
    for name in environment:
        if name.startswith("AIRFLOW__"):
            _, section, option = name.lower().split("__", 2)
            assert option in known.get(section, {}).get("options", {}), name


def test_tasks_find_the_installation_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(
        home=Path("state"),
        database_url="postgresql://db/shop",  # type: ignore[arg-type] (pydantic makes the secret)
        reader_url="postgresql://replica/shop",  # type: ignore[arg-type] (pydantic makes the secret)
        plugins_path=Path("plugins"),
        inference_used_plugins=["demo_catalog"],
        _env_file=None,  # type: ignore[call-arg] (argument of pydantic-settings)
    )
    variables = airflow_home.estudio_environment(settings)
    monkeypatch.chdir("/")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    elsewhere = Settings(_env_file=None)  # type: ignore[call-arg] (argument of pydantic-settings)
    assert elsewhere.home == tmp_path / "state"
    assert elsewhere.plugins_path == tmp_path / "plugins"
    assert elsewhere.triton_repository == tmp_path / "triton_repo"
    assert elsewhere.artifacts_root == str(tmp_path / "state" / "artifacts")
    assert elsewhere.tracking_uri == f"sqlite:///{tmp_path / 'state' / 'mlflow.db'}"
    assert elsewhere.inference_used_plugins == ["demo_catalog"]
    assert elsewhere.database_url is not None
    assert elsewhere.database_url.get_secret_value() == "postgresql://db/shop"
    assert elsewhere.reader_url is not None
    assert elsewhere.reader_url.get_secret_value() == "postgresql://replica/shop"


def test_commands_ask_the_airflow_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ESTUDIO_HOME", str(tmp_path / "state"))
    for name in ("AIRFLOW_HOME", "AIRFLOW_CONFIG", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"):
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()
    assert command_environment() is None, "nothing is set up here"
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    assert command_environment() == {}
    assert command_environment(prepare=True) == {}, "no second one is made beside it"
    get_settings.cache_clear()


def test_a_folder_without_dags_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder dags/"):
        airflow_home.ensure_airflow(tmp_path / "home", project=tmp_path)


def test_the_metadata_database_is_made_once_with_its_pools(
    tmp_path: Path, estudio_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'metadata.db'}"
    environment = airflow_home.ensure_airflow(estudio_home, project=PROJECT, metadata_url=url)
    engine = create_engine(url)
    with engine.connect() as connection:
        pools = dict(connection.execute(text("SELECT pool, slots FROM slot_pool")).tuples().all())
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
    assert pools["estudio_training"] == 1
    assert pools["estudio_index"] == 1
    assert (estudio_home / "airflow" / "ui_plugins").is_dir()

    def no_second_time(*_: object, **__: object) -> None:
        raise AssertionError("Airflow's set-up ran again")

    with monkeypatch.context() as patched:
        patched.setattr(airflow_home.subprocess, "run", no_second_time)
        assert airflow_home.ensure_airflow(estudio_home, project=PROJECT, metadata_url=url) == environment

    engine.dispose()
    (tmp_path / "metadata.db").unlink()  # a database that was lost is made anew
    airflow_home.ensure_airflow(estudio_home, project=PROJECT, metadata_url=url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM slot_pool WHERE pool LIKE 'estudio%'")).scalar() == 2


def test_a_metadata_database_that_cannot_be_made_is_an_error_with_its_log(tmp_path: Path, estudio_home: Path) -> None:
    with pytest.raises(UnavailableError, match=r"setup\.log") as caught:
        airflow_home.ensure_airflow(estudio_home, project=PROJECT, metadata_url=f"sqlite:///{tmp_path}/no/folder.db")
    assert "unable to open database file" in str(caught.value)


def test_an_own_metadata_database_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql+psycopg://airflow@db/meta")
    assert airflow_home.metadata_database_url(tmp_path) == "postgresql+psycopg://airflow@db/meta"
    assert os.listdir(tmp_path) == []
