"""An installation with Airflow, and a small cut of the demo's catalog in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from estudio_core import database, local
from estudio_core.demo.catalog import load_catalog, load_judgments
from estudio_core.local.airflow_home import estudio_environment
from estudio_core.postgres_url import sqlalchemy_url
from estudio_core.settings import get_settings
from tests.e2e.run_dags import MARK

PROJECT = Path(__file__).parents[2]
SMALL_CUT = 500


@dataclass(frozen=True)
class DagRunResult:
    """One finished run."""

    dag_id: str
    run_id: str
    state: str
    tasks: dict[str, str]
    output: str

    def assert_success(self) -> None:
        """Fail with the end of the output unless the run succeeded."""
        assert self.state == "success", f"{self.dag_id}: {self.tasks}\n{self.output[-6000:]}"


class AirflowInstallation:
    """Airflow over the test's own installation."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {**os.environ, **environment}

    def run(self, *runs: tuple[str, dict[str, Any]]) -> list[DagRunResult]:
        """Run DAGs one after another and return how they went."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.e2e.run_dags", json.dumps(runs)],
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=850,
            check=False,
        )
        output = done.stdout + done.stderr
        lines = [json.loads(line.removeprefix(MARK)) for line in done.stdout.splitlines() if line.startswith(MARK)]
        assert len(lines) == len(runs), output[-8000:]
        return [DagRunResult(**line, output=output) for line in lines]


@pytest.fixture(scope="session")
def prepared_airflow(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of an Airflow with metadata database, pools and secrets, made once: the migration takes a while."""
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE airflow")
    metadata_url = sqlalchemy_url(postgres_server.replace("/postgres?", "/airflow?"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ESTUDIO_DATABASE_URL", postgres_server)
        get_settings.cache_clear()
        return local.ensure_airflow(tmp_path_factory.mktemp("airflow"), project=PROJECT, metadata_url=metadata_url)


@pytest.fixture
def airflow(
    estudio_home: Path, prepared_airflow: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> AirflowInstallation:
    """Airflow, ready to run the project's DAGs in the test's own installation."""
    monkeypatch.setenv("ESTUDIO_PLUGINS_PATH", str(PROJECT / "plugins"))
    get_settings.cache_clear()
    return AirflowInstallation({**prepared_airflow, **estudio_environment()})


@pytest.fixture
def small_catalog(estudio_home: Path) -> Callable[[], None]:
    """Load a small cut of the demo's products: rated ones, so that there is something to learn."""

    def load() -> None:
        ids = set(sorted(load_judgments().object_ids)[:SMALL_CUT])
        with database.connect() as connection:
            assert load_catalog(connection, only=ids).total == len(ids)
            connection.commit()

    return load
